"""What a trained world model imagines, beside what happened."""

from dreamer_agent.dreams.open_loop import Compared, OpenLoop, longest_episode, open_loop, whole_windows

__all__ = ["Compared", "OpenLoop", "longest_episode", "open_loop", "whole_windows"]
