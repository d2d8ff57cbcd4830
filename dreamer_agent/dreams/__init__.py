"""What a trained world model imagines, beside what happened."""

from dreamer_agent.dreams.open_loop import OpenLoop, open_loop, whole_windows

__all__ = ["OpenLoop", "open_loop", "whole_windows"]
