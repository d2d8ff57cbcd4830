"""The parts of a report's page that say which runs it is of, and where they came from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from dreamer_agent.bench.benchmark import LABELS
from dreamer_agent.bench.text import number, table
from dreamer_agent.training.run_directory import FROM, LATER


def missing_told(missing: Sequence[dict[str, Any]]) -> str:
    """What does not count, and why: the seeds of a task and method in one."""
    reasons: dict[str, dict[str, list[str]]] = {}
    for one in missing:
        seeds = reasons.setdefault(one["why"], {}).setdefault(f"{one['task']} {one['method']}", [])
        seeds.append(str(one["seed"]))
    lines = []
    for why, runs in reasons.items():
        told = [f"{run} seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}" for run, seeds in runs.items()]
        lines.append(f"{why}: {'; '.join(told)}")
    return f"**Left out.** {'. '.join(line[:1].upper() + line[1:] for line in lines)}."


def not_run_told(left: Sequence[dict[str, Any]]) -> list[str]:
    """What the definition asks for and is not here: whole tasks, and seeds."""
    groups: dict[int, dict[str, list[str]]] = {}
    for one in left:
        methods = groups.setdefault(one["seeds"], {}).setdefault(one["task"], [])
        methods.append(LABELS.get(one["method"], one["method"]))
    told = {
        seeds: ", ".join(f"{task} ({', '.join(methods)})" for task, methods in tasks.items())
        for seeds, tasks in sorted(groups.items())
    }
    parts = [f"**Not run yet.** {told.pop(0)}."] if 0 in told else []
    fewer = "; ".join(f"{seeds} of {tasks}" for seeds, tasks in told.items())
    return parts + ([f"**Fewer seeds than the {left[0]['of']} asked for.** {fewer}."] if fewer else [])


def other_episodes_told(content: dict[str, Any]) -> list[str]:
    """Which runs were scored over other numbers of episodes than the definition's."""
    seeds = [seed for task in content["tasks"] for one in task["methods"].values() for seed in one["seeds"]]
    others = sorted({seed["episodes"] for seed in seeds} - {content["episodes"]})
    if not others:
        return []
    count = sum(seed["episodes"] in others for seed in seeds)
    told = ", ".join(str(number) for number in others)
    return [f"**Scored over {told} episodes, not {content['episodes']}**: {count} of {len(seeds)} runs."]


def runs_table(content: dict[str, Any]) -> str:
    """A row for each run: its score, its settings and the code that trained it."""
    rows = []
    for task in content["tasks"]:
        for method, one in task["methods"].items():
            for seed in one["seeds"]:
                score = f"{number(seed['score'])} ± {number(seed['score_std'])} ({seed['episodes']})"
                rows.append([
                    task["env"], LABELS.get(method, method), str(seed["seed"]), f"{seed['env_steps']:,}",
                    f"{seed['updates']:,}", score,
                    f"{seed['minutes']:.1f}", seed["settings"],
                    f"`{seed['config_hash']}`", _commits(seed["provenance"]),
                ])  # fmt: skip
    return table(
        ["task", "method", "seed", "env steps", "updates", "score ± sd (episodes)", "minutes", "settings",
         "configuration", "commit"], rows,
    )  # fmt: skip


def machines(content: dict[str, Any]) -> str:
    """The distinct provenances but for their commits, and how many runs have each, if only in part."""
    counts: Counter[str] = Counter()
    for task in content["tasks"]:
        for one in task["methods"].values():
            for seed in one["seeds"]:
                counts.update({_machine(part) for part in _parts(seed["provenance"])})
    lines = []
    for key, count in counts.items():
        found = json.loads(key)
        packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items() if version)
        each = f"{found['device']}, {found['cpu_cores']} core{'s' if found['cpu_cores'] != 1 else ''} for each"
        runs = f"{count} run{'s' if count > 1 else ''}"
        lines.append(f"- {runs}: {found['backend']} ({each}), Python {found['python']}, {packages}")
    return "\n".join(lines)


def _machine(provenance: dict[str, Any]) -> str:
    return json.dumps({k: v for k, v in provenance.items() if k not in ("commit", LATER, FROM)}, sort_keys=True)


def _parts(provenance: dict[str, Any]) -> list[dict[str, Any]]:
    """Where a run began, then where it went on."""
    return [provenance, *provenance.get(LATER, [])]


def _commits(provenance: dict[str, Any]) -> str:
    """The code that trained a run; with arrows where later code has gone on with it."""
    return " → ".join(f"`{commit}`" for commit in dict.fromkeys(one["commit"] for one in _parts(provenance)))
