"""A run looked at before it starts: the report of `training.check` in tables that fit a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from functools import partial

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dreamer_agent.agent import compute_dtype
from dreamer_agent.api.runs import make_ready
from dreamer_agent.config import Config
from dreamer_agent.envs import VectorEnv
from dreamer_agent.errors import EnvironmentFault
from dreamer_agent.specs import ArraySpec, is_mask
from dreamer_agent.training.check import Memory, Report, check_run
from dreamer_agent.training.check.rollout import Numbers, RandomRollout
from dreamer_agent.training.check.speed import Forecast, Speed

WIDTH = 100
GB = 1e9


def check(
    config: Config, make: Callable[[int], VectorEnv] | None = None, quick: bool = False, show: bool = True
) -> Report:
    """Look at the run that `config` describes, and print what was found unless `show` is false.

    Takes about a minute, or a few seconds if `quick` leaves out the timing. Compiled programs are kept, so that
    the run itself starts sooner. Raises a `DreamerError` where there is no such environment; what else keeps it
    from training is in `Report.problems`.
    """
    make_ready(config)
    report = check_run(config, make, quick)
    if show:
        print_report(report)
    return report


def raise_problems(report: Report) -> None:
    """One sentence, an `EnvironmentFault`, where the run cannot train."""
    if report.problems:
        count = len(report.problems)
        more = f" (and {count - 1} more, above)" if count > 1 else ""
        raise EnvironmentFault(f"{report.config.env.id} cannot be trained as it is: {report.problems[0]}{more}")


def print_report(report: Report, console: Console | None = None) -> None:
    """All tables and sentences, at most 100 columns wide."""
    console = console or Console(highlight=False)
    console = Console(
        file=console.file, highlight=False, width=min(console.width, WIDTH) if console.is_terminal else WIDTH
    )
    for block in _blocks(report, console.width):
        console.print(block)


def _blocks(report: Report, width: int) -> Iterator[Text | Table]:
    config, line, item = report.config, partial(_line, width), partial(_item, width)
    steps = f", as `train` would run it for {config.train.steps:,} env steps" if report.observations else ""
    yield Text(f"{config.env.id}{steps}", style="bold")
    if report.observations:
        yield _title("What the agent observes")
        yield _observations(report)
        yield _title("What it does")
        yield _actions(report)
    if report.rollout and report.rollout.calls:
        yield _title(f"Seen in {report.rollout.steps:,} env steps of random actions")
        yield _ranges(report, report.rollout)
        yield line(_episodes(report.rollout))
    if report.gymnasium is not None:
        yield _title("gymnasium's own checker")
        yield from map(item, report.gymnasium or ["it passes"])
    if report.memory:
        yield _title("Size")
        yield from map(line, _size(config, report.memory, report.speed))
    if report.speed and report.forecast:
        yield _title("Speed on this machine")
        yield _speed(report, report.speed, report.forecast)
        yield from map(line, verdict(report, report.speed, report.forecast))
    if report.problems:
        yield _title("It cannot be trained as it is")
        yield from map(item, report.problems)
    yield _title("What to change")
    yield from map(item, report.notices or ["nothing else" if report.problems else "nothing looks wrong"])


def _observations(report: Report) -> Table:
    table = _table("key", "enters as", "because")
    for entry in report.observations:
        table.add_row(entry.key, kind(entry.spec), entry.reason)
    return table


def _actions(report: Report) -> Table:
    table = _table("key", "the policy gives", "the environment receives")
    for entry in report.actions:
        gives = "numbers" if entry.spec.kind == "continuous" else "one-hot choices"
        table.add_row(entry.key, f"{gives} {_shape(entry.spec)}".strip(), entry.receives)
    return table


def _ranges(report: Report, rollout: RandomRollout) -> Table:
    table = _table("key", ">min", ">max", ">mean", ">std", "remark")
    specs = {entry.key: entry.spec for entry in report.observations}
    for key, numbers in rollout.observations.items():
        if not numbers.count:
            continue
        if is_mask(key):
            table.add_row(key, "", "", "", "", f"{numbers.mean:.0%} of the choices are legal on average")
            continue
        spread = ["", ""] if specs[key].kind == "discrete" else [_number(numbers.mean), _number(numbers.std)]
        table.add_row(key, _number(numbers.min), _number(numbers.max), *spread, _remark(specs[key], numbers))
    reward = rollout.rewards
    if reward.count:
        cells = map(_number, (reward.min, reward.max, reward.mean, reward.std))
        table.add_row("reward", *cells, _zeros(reward.zeros, reward.count))
    return table


def _remark(spec: ArraySpec, numbers: Numbers) -> str:
    parts = []
    if len(numbers.seen):
        of = "pixel values" if spec.kind == "image" else "values"
        parts.append(f"{int(numbers.seen.sum())} of {len(numbers.seen)} {of}")
    if numbers.constant:
        size, all_of_it = numbers.low.size, numbers.constant == numbers.low.size
        parts.append("constant" if all_of_it else f"{numbers.constant:,} of {size:,} elements constant")
    return ", ".join(parts)


def _episodes(rollout: RandomRollout) -> str:
    if not rollout.lengths:
        return "no episode ended"
    count, returns = len(rollout.lengths), rollout.returns
    steps, score = _number(sum(rollout.lengths) / count), _number(sum(returns) / count)
    return (
        f"{count} episode{'s' * (count > 1)} ended, of {steps} steps on average; returns from "
        f"{_number(min(returns))} to {_number(max(returns))}, {score} on average"
    )


def _size(config: Config, memory: Memory, speed: Speed | None) -> list[str]:
    sizes = memory.budget
    activations = speed.activations if speed and speed.activations else 0
    more = f", {_gigabytes(activations)} of activations" if activations else ""
    total = sizes.replay + (0 if memory.device_free is not None else sizes.model + activations)
    enough = "enough" if total < memory.free else f"but {_gigabytes(total)} are needed"
    where = f"; {_gigabytes(memory.device_free)} are free on the device" if memory.device_free is not None else ""
    batch = f"{config.replay.batch_size} x {config.replay.batch_length}"
    return [
        f"model    {sizes.parameters:,} parameters in {compute_dtype(config.precision).name}",
        f"learner  {_gigabytes(sizes.model)} (weights, gradients, optimiser){more}{where}",
        f"replay   {_gigabytes(sizes.replay)} once full, room for {memory.steps:,} steps",
        f"free     {_gigabytes(memory.free)} of main memory, {enough}",
        f"updates  {config.updates_per_env_step:.3g} for each env step (replay.ratio {config.replay.ratio:g} / "
        f"batch {batch}), after the first {config.replay.prefill:,}",
    ]


def _speed(report: Report, speed: Speed, run: Forecast) -> Table:
    table = _table("part", ">one call", ">rate", ">calls", ">in this run", ">share")
    steps = report.config.train.steps / max(run.calls, 1)  # env steps of a call, resets aside
    rows = [
        (
            f"environments, {report.config.env.num_envs} at once",
            speed.env,
            steps,
            "env steps",
            run.calls,
            run.env,
        ),
        ("policy, for all of them", speed.policy, steps, "env steps", run.calls, run.policy),
        ("update", speed.update, 1.0, "updates", run.updates, run.update),
    ]
    for name, one, amount, unit, calls, seconds in rows:
        rate, share = f"{_rate(amount / one)} {unit}/s", f"{seconds / max(run.total, 1e-9):.0%}"
        table.add_row(name, _milliseconds(one), rate, f"{calls:,}", duration(seconds), share)
    return table


def verdict(report: Report, speed: Speed, run: Forecast) -> list[str]:
    """How long it takes, what most of that is, and what would change it."""
    rate = report.config.train.steps / max(run.total, 1e-9)
    config = report.config
    lines = [
        f"About {duration(run.total)} for {config.train.steps:,} env steps ({_rate(rate)}/s), plus the final "
        f"evaluation. Its programs were ready after {duration(speed.compiling)}; they are kept for the run."
    ]
    if run.bound == "update":
        half = run.total - run.update / 2
        lines.append(
            f"Update-bound: replay.ratio={config.replay.ratio / 2:g} would take {duration(half)} but learn less "
            "from each step; a smaller --size or a GPU makes an update faster."
        )
    elif run.bound == "env":
        more = f"env.num_envs={2 * config.env.num_envs} shares a call among more of them"
        if report.one_by_one:
            more = "they are stepped in turn; env.processes would step slow ones at the same time"
        lines.append(
            f"Env-bound: make the environment faster ({more}); a higher replay.ratio learns more from each step "
            "at little cost."
        )
    elif run.bound == "policy":
        lines.append(
            f"Policy-bound: env.num_envs={2 * config.env.num_envs} would ask the policy half as often; a smaller "
            "--size makes each call faster."
        )
    else:
        lines.append("Balanced: none of the three takes more than half of the time.")
    return lines


def kind(spec: ArraySpec) -> str:
    """How an array enters the networks: "image 64 x 64 x 3", "one-hot [3] of 5"."""
    if spec.kind == "image":
        return f"image {' x '.join(map(str, spec.shape))}"
    if spec.kind == "discrete":
        return f"one-hot {_shape(spec)}"
    return f"vector {_shape(spec)}".strip()


def duration(seconds: float) -> str:
    """Seconds, minutes and seconds, or hours and minutes."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = int(seconds / 60)
    return f"{minutes} min {int(seconds % 60)} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def _shape(spec: ArraySpec) -> str:
    shape = f"[{', '.join(map(str, spec.shape))}]" if spec.shape else ""
    return f"{shape} of {spec.classes}".strip() if spec.kind == "discrete" else shape


def _zeros(zeros: int, count: int) -> str:
    return f"zero in {_share(zeros, count)} of the steps" if zeros else "never zero"


def _share(part: int, whole: int) -> str:
    """A percentage that is never rounded to 0% or 100%."""
    percent = 100 * part / whole
    if part in (0, whole):
        return "none" if part == 0 else "all"
    return "<1%" if 0 < percent < 1 else ">99%" if 99 < percent < 100 else f"{percent:.0f}%"


def _number(value: float) -> str:
    return f"{value:.4g}"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:,.3g} ms" if seconds < 1 else f"{seconds:,.3g} s"


def _gigabytes(size: float) -> str:
    return f"{size / GB:.3g} GB" if size >= 1e8 else f"{size / 1e6:.2g} MB"


def _table(*columns: str) -> Table:
    """A plain table; columns that start with ">" are aligned to the right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in columns:
        right = name.startswith(">")
        table.add_column(name.lstrip(">"), justify="right" if right else "left", no_wrap=right, overflow="fold")
    return table


def _title(text: str) -> Text:
    return Text(f"\n{text}", style="bold cyan")


def _line(width: int, text: str) -> Text:
    return Text(textwrap.fill(text, width, subsequent_indent=" " * 9 * ("   " in text), break_on_hyphens=False))


def _item(width: int, text: str) -> Text:
    """A sentence after a dash; its further lines are indented."""
    return Text(textwrap.fill(text, width, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False))
