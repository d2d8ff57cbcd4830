"""The page of a report, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dreamer_agent.bench.benchmark import LABELS, OURS, REACHED
from dreamer_agent.bench.page_runs import machines, missing_told, not_run_told, other_episodes_told, runs_table
from dreamer_agent.bench.text import interval, number, reached, short, spread, table
from dreamer_agent.statistics import CONFIDENCE, EPISODES

FIGURES = ("curves.png", "profile.png")
NO_BUDGET = ("human", "random")  # of the published methods


_ABOUT = (
    "**Score**: mean return of the final parameters (ours: averaged over `optimizer.average` updates) over "
    "fresh episodes with sampled actions (how many is said for each run), from seeds that training never saw; "
    "never the best on the way. **Last 5%**: mean return of the training episodes logged in the last 5% of the "
    "budget, acted with the parameters of their time. **Env steps** are steps of the agent (after "
    f"action repeat, without resets), **frames** those of the simulator. **Frames to {REACHED:.0%}**: those "
    f"after which the mean return of the last {EPISODES} training episodes was first logged as at least "
    f"{REACHED:.0%} of the way from the lower end of the task's scale to the upper "
    "one. Several seeds are given as median (least to most). **Minutes** are those of "
    "training, as the rows of metrics tell them: with compilation, without imports and the final evaluation."
)


def markdown(content: dict[str, Any], figures: Sequence[str] = FIGURES) -> str:
    """The page, from what `collect` gave."""
    parts = [f"# {content['title']}", content["protocol"], _ABOUT]
    if content["changed"]:
        parts.insert(2, f"**Changed here: {', '.join(content['changed'])}.**")
    if content["missing"]:
        parts.append(missing_told(content["missing"]))
    parts += [*not_run_told(content["not_run"]), *other_episodes_told(content)]
    if "curves.png" in figures:
        parts.append("![Learning curves](curves.png)")
    parts += ["## Scores", _scores(content)]
    notes = [f"- **{task['env']}**: {task['note']}" for task in content["tasks"] if task["note"]]
    parts += ["\n".join(notes)] if notes else []
    parts += _numbers(content)
    if any(len(task["methods"]) > 1 for task in content["tasks"]):
        parts += _efficiency(content)
    besides = [task for task in content["tasks"] if task["beside"] and OURS in task["methods"]]
    if besides:
        parts += ["## Beside published results", _BESIDE, *(_beside(task) for task in besides)]
    if content["aggregate"]:
        parts += ["## Over all tasks", _aggregate(content)]
        if "profile.png" in figures:
            parts.append("![Performance profile](profile.png)")
    parts += ["## Runs", runs_table(content), "## Where they ran", machines(content)]
    parts.append(
        f"Last written by `{content['command']}`. All numbers are in `report.json`, the curves in `curves.json`, "
        "what is known of each run in `records/`."
    )
    return "\n\n".join(parts) + "\n"


def _scores(content: dict[str, Any]) -> str:
    rows = []
    for task in content["tasks"]:
        for method, one in task["methods"].items():
            seeds = one["seeds"]
            rows.append([
                task["env"], LABELS.get(method, method), _budget(one["steps"], one["frames_per_step"]),
                str(len(seeds)), spread([seed["score"] for seed in seeds]),
                spread([seed["score_mode"] for seed in seeds]),
                spread([seed["last"] for seed in seeds]), _goal(task),
                reached(task, [seed["frames_to_threshold"] for seed in seeds]),
                spread([seed["minutes"] for seed in seeds]),
            ])  # fmt: skip
    return table(
        ["task", "method", "env steps", "seeds", "score", "score, likeliest action", "last 5%", "goal",
         f"frames to {REACHED:.0%}", "minutes"], rows,
    )  # fmt: skip


def _numbers(content: dict[str, Any]) -> list[str]:
    """What environments report beside returns, such as success."""
    rows = []
    for task in content["tasks"]:
        for method, one in task["methods"].items():
            names = dict.fromkeys(name for seed in one["seeds"] for name in seed["numbers"])
            for name in names:
                values = [seed["numbers"].get(name) for seed in one["seeds"]]
                rows.append([task["env"], LABELS.get(method, method), name, spread(values)])
    if not rows:
        return []
    return [
        "What the environments report of the evaluation's episodes:",
        table(["task", "method", "what", "mean"], rows),
    ]


def _efficiency(content: dict[str, Any]) -> list[str]:
    """Env steps to the threshold, methods side by side."""
    methods = list(
        dict.fromkeys(name for task in content["tasks"] for name in task["methods"] if name != "random")
    )
    rows = []
    for task in content["tasks"]:
        cells = []
        for name in methods:
            one = task["methods"].get(name)
            cells.append(reached(task, [seed["frames_to_threshold"] for seed in one["seeds"]]) if one else "-")
        others = [_ratio(task, name) for name in methods if name != OURS]
        rows.append([task["env"], number(task["threshold"]), *cells, *others])
    names = [LABELS.get(name, name) for name in methods]
    ratios = [f"ours / {name}" for name in methods if name != OURS]
    text = (
        f"Frames until {REACHED:.0%} of the task's scale. The ratio is that of the "
        "medians; where one of the two does not get there within its budget, it has a bound only."
    )
    return ["## Sample efficiency", text, table(["task", "return", *names, *ratios], rows)]


def _ratio(task: dict[str, Any], name: str) -> str:
    ours, other = (task["methods"].get(key) for key in (OURS, name))
    if not ours or not other or task["threshold"] is None:
        return "-"
    mine, theirs = ours["frames_to_threshold"][0], other["frames_to_threshold"][0]
    if mine is None:
        return "-" if theirs is None else f"> {_frames(ours) / theirs:.2g}"
    return f"< {mine / _frames(other):.2g}" if theirs is None else f"{mine / theirs:.2g}"


def _frames(method: dict[str, Any]) -> int:
    """The budget of a method."""
    return method["steps"] * method["frames_per_step"]


_BESIDE = (
    "At the same frames, and only over tenths of the published budget that our runs cover whole: a published "
    "mean over a tenth beside our training episodes in it; a published evaluation at the end of a tenth beside "
    "our training episodes in its second half. Final values of others are given with the budgets that they "
    "belong to; they do not compare with ours where budgets differ."
)


def _beside(task: dict[str, Any]) -> str:
    found = task["beside"]["published"]
    ours = task["methods"][OURS]
    frames = task["frames_per_step"]
    title = f"### {task['env']}"
    spans = list(dict.fromkeys(tuple(tenth["frames"]) for one in found for tenth in one["tenths"]))
    rows = []
    mine = {tuple(tenth["frames"]): tenth["ours"] for one in found for tenth in one["tenths"]}
    last, score = (spread([seed[key] for seed in ours["seeds"]]) for key in ("last", "score"))
    budget = f"{last} (last 5%), {score} (score) at {short(ours['steps'] * frames)} frames"
    rows.append(
        [LABELS[OURS], str(len(ours["seeds"])), *(spread(mine[span]) for span in spans), budget, "this report"]
    )
    for one in found:
        values = {tuple(tenth["frames"]): number(tenth["published"]) for tenth in one["tenths"]}
        deviation = "" if one["std"] is None else f" ± {number(one['std'])}"
        kind = "evaluation" if one["metric"] == "eval_return" else one["final_window"] or "as printed"
        at = "" if one["method"] in NO_BUDGET else f" at {short(one['budget'])} frames"
        end = f"{number(one['final'])}{deviation} ({kind.partition(',')[0]}){at}"
        rows.append(
            [one["method"], one["seeds"] or "?", *(values.get(span, "-") for span in spans), end, one["source"]]
        )
    heads = [f"{short(first)} to {short(last)} frames" for first, last in spans]
    text = "" if spans else "\n\nNo published curve has a tenth that our runs cover whole: final values only."
    page = f"{title}{text}\n\n" + table(["method", "seeds", *heads, "final", "source"], rows)
    return page + _beside_numbers(task, ours)


def _beside_numbers(task: dict[str, Any], ours: dict[str, Any]) -> str:
    """What is no return, of others and of ours, each with the budget that it belongs to."""
    rows = []
    frames = short(ours["steps"] * task["frames_per_step"])
    for name in dict.fromkeys(one["name"] for one in task["beside"]["numbers"]):
        mine = spread([seed["numbers"].get(name) for seed in ours["seeds"]])
        rows.append([name, LABELS[OURS], mine, frames, "this report"])
        for one in task["beside"]["numbers"]:
            if one["name"] == name:
                deviation = "" if one["std"] is None else f" ± {number(one['std'])}"
                budget = short(one["budget"]) if one["method"] not in NO_BUDGET else "-"
                rows.append([name, one["method"], f"{number(one['value'])}{deviation}", budget, one["source"]])
    return "\n\n" + table(["what", "method", "value", "frames", "source"], rows) if rows else ""


def _aggregate(content: dict[str, Any]) -> str:
    rows = []
    for method, one in content["aggregate"].items():
        cells = [interval(*one["numbers"][name]) for name in ("IQM", "median", "mean")]
        least, most = short(min(one["frames"])), short(max(one["frames"]))
        frames = least if least == most else f"{least} to {most}"
        rows.append([LABELS.get(method, method), str(len(one["tasks"])), frames, *cells])
    text = (
        f"Scores normalised per task ({content['scale']}), as Agarwal et al. 2021 advise: the interquartile mean "
        f"over all runs, median and mean over the tasks' means, with {CONFIDENCE:.0%} intervals of a bootstrap "
        "that draws seeds within tasks; no interval where a task has one seed. A score is one at the end of its "
        "own budget: where the frames of two methods differ, so does what they had to learn from."
    )
    every = dict.fromkeys(env for one in content["aggregate"].values() for env in one["tasks"])
    for method, one in content["aggregate"].items():
        if without := [env for env in every if env not in one["tasks"]]:
            text += f" {LABELS.get(method, method)} is without {', '.join(without)}."
    return text + "\n\n" + table(["method", "tasks", "frames of a task", "IQM", "median", "mean"], rows)


def _goal(task: dict[str, Any]) -> str:
    return "-" if task["goal"] is None else f"≥ {number(task['goal'])}"


def _budget(steps: int, frames: int) -> str:
    return f"{steps:,}" if frames == 1 else f"{steps:,} ({steps * frames:,} frames)"
