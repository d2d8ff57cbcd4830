"""Figures and videos of what was learned and what was imagined."""

from dreamer_agent.plots.curves import curve, draw_curves
from dreamer_agent.plots.dream import draw_images, draw_vectors
from dreamer_agent.plots.frames import dream_frames, episode_frames
from dreamer_agent.plots.report import draw_report, report_table
from dreamer_agent.plots.report_command import show_report, write_report
from dreamer_agent.plots.runs import plot_dream, plot_episodes, plot_runs
from dreamer_agent.plots.video import log_picture, write_video

__all__ = [
    "curve",
    "draw_curves",
    "draw_images",
    "draw_report",
    "draw_vectors",
    "dream_frames",
    "episode_frames",
    "log_picture",
    "plot_dream",
    "plot_episodes",
    "plot_runs",
    "report_table",
    "show_report",
    "write_report",
    "write_video",
]
