"""From a run to a game: loading, the real environment beside it, and the three ways to play."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Any

import numpy as np

from dreamer_agent.api import load_dream, load_saved
from dreamer_agent.errors import DreamerError
from dreamer_agent.play.pictures import painter_of, picture
from dreamer_agent.play.recording import Recorder
from dreamer_agent.play.server import Server
from dreamer_agent.play.session import POLICY, Session
from dreamer_agent.training.record import Filmed, NoPictureError, film

PLANNERS = ("mppi", "cem", "shooting")


def open_session(
    run: str | Path, real: bool = True, seed: int = 0, best: bool = False, **settings: Any
) -> Session:
    """A game in the dream of `run`, beside its environment where `real` is true and that can be made here.

    `settings` are those of `load_dream`; by default a dream has no horizon and ends where an end is likely.
    """
    saved = load_saved(run, best)
    config = saved.config.env
    settings = {"horizon": None, "ends": "likely", "count": 64} | settings
    dream = load_dream(run, best=best, seed=seed, **settings)
    painter = painter_of(config.id)
    shown = _filmed(config, painter, seed) if real else None
    return Session(dream, saved.state.average, config.id, shown, painter, _labels(shown), seed + 1_000_003)


def play_browser(
    session: Session, recorder: Recorder, fps: float = 10.0, port: int = 0, opened: bool = True
) -> Server:
    """A server of the game, not yet serving; with `opened` the page is shown in the user's browser."""
    server = Server(session, recorder, [POLICY, *_planners(session)], fps, port)
    if opened:
        webbrowser.open(server.url)
    return server


def play_terminal(session: Session, recorder: Recorder, fps: float = 10.0) -> None:
    """Play in this terminal; see `terminal.play`."""
    from dreamer_agent.play.terminal import play

    play(session, recorder, fps)


def play_steps(session: Session, recorder: Recorder, steps: int, who: str = POLICY) -> None:
    """Let `who` play `steps` steps, or until the dream ends, without anything shown."""
    recorder.add(session.moment)
    for _ in range(steps):
        if session.over:
            return
        recorder.add(session.step(who))


def _planners(session: Session) -> list[str]:
    """Planners that take these actions, and the explorer if there is one."""
    continuous = all(control.classes is None for control in session.controls)
    explorer = session.dream.agent.leader == "both"
    return [*PLANNERS, *(["gradient"] if continuous else []), *(["explorer"] if explorer else [])]


def _filmed(config: Any, painter: Any, seed: int) -> Filmed | None:
    """The environment with its pictures; None where it cannot be made here."""
    from dreamer_agent.envs import make_env

    try:
        return film(config, seed)
    except NoPictureError:  # it is shown as the dream is
        env = make_env(config, 1)
        specs = env.obs_specs

        def render(rows: Any) -> np.ndarray:
            return picture({name: value[0] for name, value in rows.obs.items()}, specs, painter)

        return Filmed(env, render, 10.0)
    except (DreamerError, ImportError):
        return None


def _labels(real: Filmed | None) -> list[str]:
    """What the classes of the action mean, where the environment tells."""
    inner = getattr(getattr(real and real.env, "env", None), "envs", None)
    tell = getattr(getattr(inner[0], "unwrapped", None), "get_action_meanings", None) if inner else None
    try:
        return [str(one) for one in tell()] if tell else []
    except Exception:  # foreign code
        return []
