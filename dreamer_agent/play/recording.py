"""What was played, as a video."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import numpy as np

from dreamer_agent.errors import ConfigError
from dreamer_agent.play.session import Moment
from dreamer_agent.plots.frames import captioned
from dreamer_agent.plots.video import write_video

MOST = 3000  # frames that are kept
HIGH = 240  # pixels of a picture
WIDTH = 260  # of a caption
GAP = 8


class Recorder:
    """Keeps the moments of a game, the last `MOST`, and writes them to `path` (GIF, and MP4 where it can)."""

    def __init__(self, path: Path, fps: float = 10.0):
        self.path, self.fps = path, fps
        self.moments: deque[Moment] = deque(maxlen=MOST)

    def add(self, moment: Moment) -> Moment:
        """Keep `moment`, unless it is the one before; give it."""
        if not self.moments or self.moments[-1] is not moment:
            self.moments.append(moment)
        return moment

    def write(self) -> list[Path]:
        """The paths written; `ConfigError` where nothing was played."""
        if not self.moments:
            raise ConfigError("Nothing was played yet, so that there is nothing to record.")
        return write_video([drawn(moment) for moment in self.moments], self.path, self.fps)


def drawn(moment: Moment) -> np.ndarray:
    """The dream, and the real environment beside it where there is one, with captions."""
    sides = [("dream", moment.dream)] + ([("real", moment.real)] if moment.real else [])
    parts = []
    for name, side in sides:
        ended = ", ended" if side.ended else ""
        lines = [f"{name}, step {moment.steps}{ended}", f"reward {side.reward:.2f}   return {side.total:.2f}"]
        parts.append(captioned(_fitted(side.frame), lines, WIDTH))
    high = max(part.shape[0] for part in parts)
    return np.concatenate([_padded(part, high) for part in parts], 1)


def _fitted(frame: np.ndarray) -> np.ndarray:
    """Made `HIGH` pixels high; enlarged pixels stay squares."""
    from PIL import Image

    height, width = frame.shape[:2]
    method = Image.Resampling.NEAREST if height < HIGH else Image.Resampling.BOX
    return np.asarray(Image.fromarray(frame).resize((max(round(width * HIGH / height), 1), HIGH), method))


def _padded(frame: np.ndarray, high: int) -> np.ndarray:
    return np.pad(frame, ((0, high - frame.shape[0]), (0, GAP), (0, 0)), constant_values=255)
