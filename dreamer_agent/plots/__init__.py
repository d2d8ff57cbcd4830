"""Figures of what was learned and what was imagined."""

from dreamer_agent.plots.curves import curve, draw_curves
from dreamer_agent.plots.dream import draw_images, draw_vectors
from dreamer_agent.plots.runs import plot_dream, plot_runs

__all__ = ["curve", "draw_curves", "draw_images", "draw_vectors", "plot_dream", "plot_runs"]
