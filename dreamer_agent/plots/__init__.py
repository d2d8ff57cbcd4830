"""Figures of what was learned and what was imagined."""

from dreamer_agent.plots.curves import curve, draw_curves
from dreamer_agent.plots.dream import draw_images, draw_vectors

__all__ = ["curve", "draw_curves", "draw_images", "draw_vectors"]
