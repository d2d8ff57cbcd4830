"""What a report of a world model says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dreamer_agent.statistics import Estimate

HORIZONS = (1, 5, 10, 20, 50)
Line = tuple[Estimate | None, ...]  # by horizon; None where there is nothing to measure


class Quantity(NamedTuple):
    """One number by horizon: its unit, what is good ("lower", "higher" or the line it should equal), and lines.

    The first line ("model"; of latents "seen") is the world model's, others are what it is held against.
    """

    unit: str
    good: str
    lines: dict[str, Line]


class Terminations(NamedTuple):
    """Ends by the task's own rules: `episodes` that end so; by horizon how many windows end so up to there
    (`true`), and how often the model says so (`predicted`).
    """

    episodes: int
    true: tuple[int, ...]
    predicted: tuple[int, ...]


@dataclass(frozen=True)
class DreamReport:
    """`quantities` by name, each with lines of K numbers for the K `horizons`.

    "error/KEY": mean squared error of an observation, each element over its standard deviation on the held-out
    data; 1 is as good as always naming their mean. The line "reconstruction" has seen the very observation: what
    decoding alone costs. "persistence" says that nothing changes; the probes are those of `probes`.
    "psnr/KEY" (dB) and "ssim/KEY": of images. "control/KEY": how much better than from actions drawn evenly, in
    dB for images (PSNR from the true actions minus PSNR from the others, as in Genie, arXiv 2402.15391), else the
    standardised error from the others minus that from the true ones. "reward": mean absolute error.
    "termination": F1 over the steps 1 to h, None without terminations. "latent": nats, see
    `forecast.latent_nats`.

    `windows` and `episodes` count what is behind each horizon: a window ends with its episode, so that long
    horizons have fewer. `notes` say what was left out, and why.
    """

    horizons: tuple[int, ...]
    observed: int
    windows: tuple[int, ...]
    episodes: tuple[int, ...]
    terminations: Terminations
    quantities: dict[str, Quantity]
    notes: list[str] = field(default_factory=list)

    def line(self, quantity: str, name: str | None = None) -> list[float | None]:
        """The values of one line, by horizon; by default the first, which is the model's."""
        lines = self.quantities[quantity].lines
        return [None if at is None else at.value for at in lines[name or next(iter(lines))]]

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain data, for JSON."""
        quantities = {
            name: {"unit": q.unit, "good": q.good, "lines": {
                line: [None if at is None else at._asdict() for at in values] for line, values in q.lines.items()
            }} for name, q in self.quantities.items()
        }  # fmt: skip
        counts = {"horizons": list(self.horizons), "observed": self.observed, "windows": list(self.windows)}
        counts |= {"episodes": list(self.episodes), "terminations": self.terminations._asdict()}
        return {**counts, "quantities": quantities, "notes": self.notes}
