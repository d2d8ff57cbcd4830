"""How well a world model predicts episodes that it has not seen, by horizon, beside what knows less.

Of every window the model has seen the episode up to its start; then it imagines h steps from the actions that
were taken. One future is drawn for each window. All numbers are means over windows; the intervals (95%) draw
whole episodes anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from dreamer_agent.agent import Agent
from dreamer_agent.dreams import probes, scores
from dreamer_agent.dreams.episodes import Episode, Windows, choose_windows, fitting
from dreamer_agent.dreams.forecast import Forecast, forecast
from dreamer_agent.dreams.numbers import Scale, numbers, squared_error
from dreamer_agent.dreams.result import DreamReport, Line, Quantity, Terminations
from dreamer_agent.nets import Params
from dreamer_agent.specs import Specs, split_specs
from dreamer_agent.statistics import clustered_ratio
from dreamer_agent.world_model import encode_actions


def measure_dreams(
    agent: Agent, params: Params, episodes: Sequence[Episode], windows: int, horizons: Sequence[int],
    observed: int | None, seed: int,
) -> DreamReport:  # fmt: skip
    """Of held-out `episodes`: every second one is imagined, the others are what the probes are fitted on."""
    observed = fitting(episodes, observed)
    long = [e for e in episodes if len(e["is_first"]) > observed]
    shown, others = (long, []) if len(long) < 2 else (long[::2], long[1::2])
    cut, kept = choose_windows(shown, windows, observed, horizons, seed)
    actions = jax.tree.map(lambda x: x[:, :-1], cut.rows["action"])
    told = forecast(agent, kept, params, cut.rows["latent"], actions, jax.random.PRNGKey(seed))
    told = jax.tree.map(np.asarray, told)
    return Scorer(agent.model.obs_specs, agent.model.act_specs, kept, cut, told, shown, others).report(
        observed, tuple(horizons)
    )


class Scorer:
    """Scores the `told` forecast of windows `cut` out of the episodes `shown`; `others` are for the probes."""

    def __init__(
        self, obs_specs: Specs, act_specs: Specs, horizons: tuple[int, ...], cut: Windows, told: Forecast,
        shown: Sequence[Episode], others: Sequence[Episode],
    ):  # fmt: skip
        self.obs_specs, self.act_specs, self.horizons = obs_specs, act_specs, horizons
        self.cut, self.told, self.shown, self.others = cut, told, list(shown), list(others)
        self.places = np.array(horizons)  # of rows; row 0 is the last that was observed
        self.valid = cut.valid[:, self.places - 1]
        self.notes: list[str] = []
        self.scales = {key: self._scale(key) for key in sorted(obs_specs)}
        self.keys = [key for key, scale in self.scales.items() if scale.varies.any()]
        still = sorted(set(self.scales) - set(self.keys))
        if still:
            self.notes.append(f"left out, since nothing of them varies: {', '.join(still)}")

    def report(self, observed: int, asked: Sequence[int]) -> DreamReport:
        """Everything put together."""
        quantities = self._errors() | self._images() | self._control()
        quantities["reward"] = self._reward()
        ends, quantities["termination"] = self._terminations()
        quantities["latent"] = self._latents()
        missing = [h for h in asked if h not in self.horizons]
        if missing:
            self.notes.append(f"no window is long enough for the horizons {', '.join(map(str, missing))}")
        counts = [self.cut.episode[valid] for valid in self.valid.T]
        return DreamReport(
            self.horizons, observed, tuple(len(x) for x in counts), tuple(len(set(x)) for x in counts), ends,
            quantities, self.notes,
        )  # fmt: skip

    def _scale(self, key: str) -> Scale:
        spec = self.obs_specs[key]
        return Scale.of([numbers(key, spec, e["obs"][key]) for e in [*self.shown, *self.others]])

    def _truth(self, key: str, places: Any) -> np.ndarray:
        return numbers(key, self.obs_specs[key], self.cut.rows["obs"][key][:, places])

    def _line(self, values: np.ndarray, weights: np.ndarray | None = None) -> Line:
        """Means over windows of `[W, K]`, or ratios of sums."""
        below = np.ones_like(values) if weights is None else weights
        return tuple(
            clustered_ratio(values[valid, k], below[valid, k], self.cut.episode[valid])
            for k, valid in enumerate(self.valid.T)
        )

    def _error(self, key: str, prediction: np.ndarray) -> np.ndarray:
        """Standardised, `[W, K]`, of a prediction in the observation's own numbers."""
        scale = self.scales[key]
        return squared_error(scale.standardised(self._truth(key, self.places)), scale.standardised(prediction))

    def _errors(self) -> dict[str, Quantity]:
        probed = self._probed()
        out = {}
        for key in self.keys:
            last = self._truth(key, np.zeros_like(self.places))
            lines = {"model": self.told.obs[key], "reconstruction": self.told.shown[key], "persistence": last}
            lines |= {name: told[key] for name, told in probed.items() if key in told}
            scored = {name: self._line(self._error(key, told)) for name, told in lines.items()}
            out[f"error/{key}"] = Quantity("MSE / variance", "lower", scored)
        return out

    def _probed(self) -> dict[str, dict[str, np.ndarray]]:
        """What the probes predict of each vector key, `[W, K, D]` in its own numbers."""
        vectors = [key for key in split_specs(self.obs_specs)[0] if key in self.keys]
        images = [key for key in split_specs(self.obs_specs)[1] if key in self.keys]
        if images:
            self.notes.append(f"no probes of images: {', '.join(images)}")
        if not vectors:
            return {}
        if not self.others:
            self.notes.append("no probes: there is no second episode to fit them on")
            return {}
        pieces = [(self._joined(vectors, e["obs"]), self._encoded(e["action"])) for e in self.others]
        data = probes.Transitions.of(pieces)
        start = self._joined(vectors, jax.tree.map(lambda x: x[:, 0], self.cut.rows["obs"]))
        actions = self._encoded(jax.tree.map(lambda x: x[:, :-1], self.cut.rows["action"]))
        rolled = {
            "linear probe": probes.linear(data).roll_out(start, actions),
            "MLP probe": probes.mlp(data).roll_out(start, actions),
        }
        return {name: self._apart(vectors, told[:, self.places - 1]) for name, told in rolled.items()}

    def _joined(self, keys: Sequence[str], obs: Any) -> np.ndarray:
        standardised = [self.scales[k].standardised(numbers(k, self.obs_specs[k], obs[k])) for k in keys]
        return np.concatenate(standardised, -1)

    def _apart(self, keys: Sequence[str], joined: np.ndarray) -> dict[str, np.ndarray]:
        """The inverse of `_joined`, with the mean where nothing varies."""
        out, start = {}, 0
        for key in keys:
            mean, std, varies = self.scales[key]
            size = int(varies.sum())
            whole = np.broadcast_to(mean, (*joined.shape[:-1], len(mean))).copy()
            whole[..., varies] += joined[..., start : start + size] * std[varies]
            out[key], start = whole, start + size
        return out

    def _encoded(self, actions: Any) -> np.ndarray:
        return np.asarray(encode_actions(self.act_specs, actions, np.float32))

    def _pictures(self, key: str, values: np.ndarray) -> np.ndarray:
        return values.reshape(*values.shape[:-1], *self.obs_specs[key].shape)

    def _images(self) -> dict[str, Quantity]:
        out = {}
        for key in split_specs(self.obs_specs)[1]:
            truth = self._truth(key, self.places)
            last = self._truth(key, np.zeros_like(self.places))
            told = {"model": self.told.obs[key], "reconstruction": self.told.shown[key], "persistence": last}
            for name, unit, metric in (("psnr", "dB", scores.psnr), ("ssim", "SSIM", scores.ssim)):
                lines = {
                    line: self._line(metric(self._pictures(key, truth), self._pictures(key, values)))
                    for line, values in told.items()
                }
                out[f"{name}/{key}"] = Quantity(unit, "higher", lines)
        return out

    def _control(self) -> dict[str, Quantity]:
        out = {}
        for key in self.keys:
            told, drawn = self.told.obs[key], self.told.drawn[key]
            if self.obs_specs[key].kind == "image":
                truth = self._pictures(key, self._truth(key, self.places))
                from_taken, from_drawn = (scores.psnr(truth, self._pictures(key, x)) for x in (told, drawn))
                out[f"control/{key}"] = Quantity("dB", "higher", {"model": self._line(from_taken - from_drawn)})
            else:
                gap = self._error(key, drawn) - self._error(key, told)
                out[f"control/{key}"] = Quantity("MSE / variance", "higher", {"model": self._line(gap)})
        return out

    def _reward(self) -> Quantity:
        truth = self.cut.rows["reward"][:, self.places]
        received = np.concatenate([e["reward"][1:] for e in [*self.shown, *self.others]])
        told = {"model": self.told.reward[:, self.places - 1], "mean reward": received.mean(dtype=np.float64)}
        lines = {name: self._line(np.abs(truth - values)) for name, values in told.items()}
        return Quantity("absolute error", "lower", lines)

    def _terminations(self) -> tuple[Terminations, Quantity]:
        terminal = self.cut.rows["is_terminal"][:, 1:]
        flags = scores.flags_up_to(terminal, self.told.goes_on, self.cut.valid, self.horizons)
        # Windows that have ended before h count here, too: their end is among the steps up to h.
        true, said = (flags.hit + flags.missed).sum(0), (flags.hit + flags.false).sum(0)
        episodes = sum(bool(e["is_terminal"].any()) for e in self.shown)
        if not true.any():
            self.notes.append("no terminations in the windows: there is no F1")
        line = tuple(
            clustered_ratio(2 * hit, 2 * hit + false + missed, self.cut.episode) if positive else None
            for hit, false, missed, positive in zip(*(x.T for x in flags), true, strict=True)
        )
        counts = Terminations(episodes, tuple(map(int, true)), tuple(map(int, said)))
        return counts, Quantity("F1", "higher", {"model": line})

    def _latents(self) -> Quantity:
        at = self.places - 1
        told = {"seen": self.told.seen, "expected": self.told.between, "entropy": self.told.entropy}
        return Quantity("nats", "expected", {name: self._line(x[:, at]) for name, x in told.items()})
