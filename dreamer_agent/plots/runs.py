"""Figures and videos of runs on disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from dreamer_agent.api import (
    dream_run,
    load_saved,
    output_folder,
    run_config,
    run_folder,
    run_metrics,
    with_planner,
)
from dreamer_agent.config import Config
from dreamer_agent.planning import Planner, name_of
from dreamer_agent.plots.curves import Curve, curve, draw_panels
from dreamer_agent.plots.dream import draw_images, draw_vectors
from dreamer_agent.plots.frames import dream_frames, episode_frames
from dreamer_agent.plots.video import log_picture, write_video
from dreamer_agent.training.record import film, record_episodes
from dreamer_agent.values import flatten, to_dict

DREAM_FPS = 5.0
NOT_LEARNING = ("seed", "train", "mesh")  # what may differ between runs of one band


def plot_runs(runs: Sequence[str | Path], path: str | Path, goal: float | None = None) -> Path:
    """Learning curves of `runs` in one PNG: a panel for each environment.

    Folders that hold no run are left out, unless there are no others. Runs that differ in nothing but the seed
    (and in settings of the loop) are drawn as one band; others of the same environment get bands of their own,
    named by what differs.
    """
    folders = list(dict.fromkeys(map(str, runs)))
    # `plot runs/*` also names folders that only hold pictures.
    named = [run for run in folders if (run_folder(run) / "config.yaml").is_file()] or folders
    configs = {run: run_config(run) for run in named}
    panels: dict[str, dict[str, list[Curve]]] = {}
    for env in dict.fromkeys(config.env.id for config in configs.values()):
        group = {run: _settings(config) for run, config in configs.items() if config.env.id == env}
        for run, label in _labels(env, group).items():
            panels.setdefault(env, {}).setdefault(label, []).append(curve(run_metrics(run)))
    draw_panels(panels, Path(path), goal)
    return Path(path)


def plot_dream(
    run: str | Path, length: int | None = None, sequences: int = 3, observed: int | None = None
) -> list[Path]:
    """Draw what the world model of `run` imagines beside what happened; gives all paths written.

    Arguments as those of `dream_run`. A PNG, and for images a GIF and an MP4 too, in its folder `dreams/`; PNG
    and GIF are shown in TensorBoard.
    """
    dream = dream_run(run, length, sequences, observed=observed)
    folder, paths = output_folder(run) / "dreams", []
    for key, spec in dream.specs.items():
        if spec.kind == "image":
            picture = folder / f"open_loop_{key.replace('/', '_')}.png"
            draw_images(dream, key, picture, sequences)
            paths += [picture, *write_video(dream_frames(dream, key, sequences), picture, DREAM_FPS)]
    paths.append(folder / "open_loop.png")
    draw_vectors(dream, paths[-1])
    step = int(max((row["step"] for row in run_metrics(run)), default=0))
    for path in paths:
        if path.suffix in (".png", ".gif"):
            # A folder of its own: TensorBoard stops reading a file of events once a newer one lies beside it.
            log_picture(folder, f"{path.stem}_{path.suffix[1:]}", path, step)
    return paths


def plot_episodes(
    run: str | Path, episodes: int = 3, explore: bool = True, seed: int | None = None, best: bool = False,
    planner: str | Planner | None = None,
) -> list[Path]:  # fmt: skip
    """Videos of fresh episodes of the newest checkpoint of `run`, or of the one with the best return (`best`).

    They are written to its folder `videos/`; gives their paths. `explore` samples actions; else the mode is
    taken; `planner` as of `evaluate_run`. Raises a `DreamerError` where the environment has no pictures to show.
    """
    agent, state, config, _ = load_saved(run, best)
    agent, seed = with_planner(agent, planner), config.seed if seed is None else seed
    explore = explore and agent.planner is None
    policy, paths = name_of(agent.planner) if agent.planner else "sampled" if explore else "mode", []
    policy = f"explorer_{policy}" if agent.leader == "explorer" else policy
    env, render, fps = film(config.env, seed)
    try:
        longest = config.train.eval_max_length
        recordings = record_episodes(
            agent, state.average, env, render, episodes, seed, explore, max_length=longest
        )
        for number, recording in enumerate(recordings, 1):
            frames = episode_frames(recording, f"{config.env.id}, {policy} actions, episode {number}")
            name = f"{'best_' if best else ''}{policy}_episode_{number}.gif"
            path = output_folder(run) / "videos" / name
            paths += write_video(frames, path, fps)
    finally:
        env.close()
    return paths


def _settings(config: Config) -> dict[str, str]:
    """What a run's learning depends on, flat, as text."""
    kept = {key: value for key, value in to_dict(config).items() if key not in NOT_LEARNING}
    return {key: json.dumps(value, default=str) for key, value in flatten(kept).items()}


def _labels(env: str, settings: dict[str, dict[str, str]], most: int = 2) -> dict[str, str]:
    """A label for each run: the environment, or the values that differ between runs (`most` of them named)."""
    keys = dict.fromkeys(key for values in settings.values() for key in values)
    differing = [key for key in keys if len({values.get(key) for values in settings.values()}) > 1]
    if not differing:
        return dict.fromkeys(settings, env)
    groups = list(dict.fromkeys(tuple(values.get(key) for key in differing) for values in settings.values()))
    labels = {}
    for run, values in settings.items():
        group = tuple(values.get(key) for key in differing)
        named = ", ".join(f"{key}={values.get(key)}" for key in differing[:most])
        labels[run] = named if len(differing) <= most else f"{groups.index(group) + 1}) {named}, ..."
    return labels
