"""What a trained world model imagines: beside what happened, measured, and as an environment."""

from typing import TYPE_CHECKING, Any

from dreamer_agent.dreams.environment import Dream
from dreamer_agent.dreams.episodes import Episode, split_episodes
from dreamer_agent.dreams.open_loop import Compared, OpenLoop, longest_episode, open_loop, whole_windows
from dreamer_agent.dreams.report import measure_dreams
from dreamer_agent.dreams.result import HORIZONS, DreamReport, Quantity
from dreamer_agent.dreams.scores import load_pix
from dreamer_agent.dreams.starts import first_starts, replayed_starts

if TYPE_CHECKING:
    from dreamer_agent.dreams.gymnasium_envs import DreamEnv, DreamVectorEnv

__all__ = [
    "HORIZONS",
    "Compared",
    "Dream",
    "DreamEnv",
    "DreamReport",
    "DreamVectorEnv",
    "Episode",
    "OpenLoop",
    "Quantity",
    "first_starts",
    "load_pix",
    "longest_episode",
    "measure_dreams",
    "open_loop",
    "replayed_starts",
    "split_episodes",
    "whole_windows",
]


def __getattr__(name: str) -> Any:
    if name in ("DreamEnv", "DreamVectorEnv"):  # they need gymnasium
        from dreamer_agent.dreams import gymnasium_envs

        return getattr(gymnasium_envs, name)
    raise AttributeError(f"module 'dreamer_agent.dreams' has no attribute '{name}'")
