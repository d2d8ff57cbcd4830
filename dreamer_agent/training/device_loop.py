"""The on-device loop: the host loop's rules and run directory around `device_program.Program`.

Python is entered between chunks only, which end where a log, an evaluation or a checkpoint is due. So `on_step`
is called after a chunk instead of every step, `on_episode` after the chunk in which an episode ended, and
`on_update` never.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dreamer_agent.agent import Skips
from dreamer_agent.config import Config
from dreamer_agent.envs import VectorEnv
from dreamer_agent.envs.arrays import from_arrays, to_arrays
from dreamer_agent.envs.jax_adapter import Faults, JaxVectorEnv
from dreamer_agent.errors import ConfigError
from dreamer_agent.replay import DeviceReplay, Mark, ReplayState, Saved
from dreamer_agent.training import budget, memory
from dreamer_agent.training.device_program import Acting, Loop, Program, Seen
from dreamer_agent.training.driver import Episode
from dreamer_agent.training.mesh import sizes_of
from dreamer_agent.training.opening import replay_sizes
from dreamer_agent.training.saving import remember
from dreamer_agent.training.skipped import look_at_skips
from dreamer_agent.training.trainer import Trainer
from dreamer_agent.training.updates import SkippedUpdate

MOST_UPDATES = {"cpu": 8}  # of one chunk, so that signals and the screen do not wait for more than seconds
ELSEWHERE = 256
SAMPLING = 1  # folded into the run's seed: the key of the replay's samples


class HeldReplay:
    """A `DeviceReplay` and its state, under the methods by which the trainer keeps a replay."""

    def __init__(self, replay: DeviceReplay):
        self.replay = replay
        self.state: ReplayState = jax.jit(replay.init)()

    def mark(self) -> Mark:
        """As of the host's replay."""
        return self.replay.mark(self.state)

    def save(self, since: Mark | None = None) -> Saved:
        """As of the host's replay."""
        return self.replay.save(self.state, since)

    def save_later(self, since: Mark | None = None) -> Callable[[], Saved]:
        """As of the host's replay."""
        return self.replay.save_later(self.state, since)

    def restore(self, saved: Iterable[Saved]) -> None:
        """The inverse of `save`."""
        self.state = self.replay.restore(saved)

    def clear(self) -> None:
        """Empty it, without holding two for a moment."""
        jax.tree.map(lambda x: x.delete(), self.state)
        self.state = jax.jit(self.replay.init)()

    def gather(self, ids: np.ndarray) -> dict[str, Any]:
        """As of the host's replay."""
        slots = (ids[:, 1:] + np.arange(self.replay.size)) % self.replay.length
        return jax.device_get(jax.tree.map(lambda store: store[ids[:, :1], slots], self.state.data))

    def cut(self) -> None:
        """Close every stream."""
        self.state = jax.jit(self.replay.cut, donate_argnums=0)(self.state)

    @property
    def dropped(self) -> bool:
        """Whether old steps were overwritten."""
        return self.replay.dropped(self.state)


class Actor:
    """The acting side between chunks, under the names by which the trainer knows its `Driver`."""

    def __init__(self, env: JaxVectorEnv, start: Any, seed: int, env_steps: int):
        self.env, self.start, self.seed = env, start, seed
        self.acting: Acting = start(jax.random.PRNGKey(seed))._replace(env_steps=jnp.int32(env_steps))

    @property
    def calls(self) -> int:
        """How often the policy was asked."""
        return int(self.acting.calls)

    def restart(self, seed: int) -> None:
        """Reset all environments; the counts go on."""
        calls, env_steps = self.acting.calls, self.acting.env_steps
        self.acting = self.start(jax.random.PRNGKey(seed))._replace(calls=calls, env_steps=env_steps)

    broken = False  # rows of environments that fail are mended, and may be gone on with

    def save(self) -> dict[str, Any]:
        """All that the next steps depend on, as plain data."""
        return {"calls": self.calls, "acting": to_arrays(self.acting)}

    def restore(self, saved: dict[str, Any]) -> bool:
        """The inverse of `save`; false where the environments begin anew, after a run of the host loop."""
        if "acting" not in saved:  # the host loop keeps another form
            calls, env_steps = jnp.int32(saved["calls"]), jnp.int32(saved["env_steps"])
            self.acting = self.acting._replace(calls=calls, env_steps=env_steps)
            return False
        acting = from_arrays(self.acting, saved["acting"])
        self.acting = acting._replace(env=self.env.forgiven(acting.env))
        return True


class DeviceTrainer(Trainer):
    """A run whose steps are made by a program on the device, many at a time."""

    replay: HeldReplay
    driver: Actor

    @classmethod
    def check_env(cls, env: VectorEnv) -> None:
        """Raise `ConfigError` for environments that are not JAX-native."""
        if not isinstance(env, JaxVectorEnv):
            raise ConfigError(
                "train.loop=device needs environments written in JAX (gymnax:TASK, toy:TASK, a JaxEnv): "
                f"this is a {type(env).__name__}, for which there is train.loop=host."
            )

    @classmethod
    def check_config(cls, config: Config) -> None:
        """Raise `ConfigError` for a replay on disk, or a mesh: the program has all of a run on one device."""
        super().check_config(config)
        if sizes_of(config) != (1, 1):
            raise ConfigError(
                "mesh.data and mesh.fsdp need train.loop=host; the device loop has all of a run on one device, "
                "and several runs (--seeds) on several."
            )
        if config.replay.spill:
            raise ConfigError("replay.spill=true needs train.loop=host: the device loop keeps its replay there.")

    @classmethod
    def free_memory(cls) -> int | None:
        """Bytes that are free on the device; None where it does not tell, as a CPU does not."""
        stats = jax.devices()[0].memory_stats() or {}
        return stats["bytes_limit"] - stats["bytes_in_use"] if "bytes_limit" in stats else None

    def begin(self, until: int, callbacks: Any = None) -> None:
        """As the host's."""
        self.updates.flight = None  # of a run of the host loop, which this one goes on with
        super().begin(until, callbacks)
        # Bound to the device, as what was restored is: a mixture would be compiled for once more.
        self.loop = jax.device_put(self.loop, jax.devices()[0])

    @property
    def loop(self) -> Loop:
        """All that a chunk changes."""
        return Loop(self.state, self.replay.state, self.driver.acting, self.replay_key)

    @loop.setter
    def loop(self, loop: Loop) -> None:
        self.state, self.replay.state, self.driver.acting, self.replay_key = loop

    def next_stop(self) -> int:
        """The env step at which something is due next."""
        train, now = self.config.train, self.counters.env_steps
        periods = [train.log_every, train.checkpoint_every, train.eval_every]
        stops = [self.until, *((now // period + 1) * period for period in periods if period)]
        if self.startup.listening:  # so that it hears of the first update when that is done
            prefill = self.config.replay.prefill
            first_update = prefill + math.ceil(1 / self.config.updates_per_env_step)
            stops += [stop for stop in (prefill, first_update) if stop > now]
        return min(stops)

    def absorb(self, seen: Seen, env_steps: int, updates: int) -> None:
        """Take over what a chunk saw, and the counts after it."""
        count = int(seen.episodes)
        columns = (seen.env[:count], seen.score[:count], seen.length[:count])
        episodes = [Episode(int(e), float(s), int(n)) for e, s, n in zip(*columns, strict=True)]
        self.counters.env_steps, self.counters.updates = env_steps, updates
        self.counters.episodes += count
        self.window.episodes += episodes
        sums = {key: float(value) for key, value in seen.metrics.items()}
        self.window.sums = {key: self.window.sums.get(key, 0.0) + value for key, value in sums.items()}
        remember(self, episodes)
        if sums["skipped"]:
            self.updates.skipped = [SkippedUpdate(updates, np.asarray(seen.skipped_ids), None)]
        for episode in episodes:
            self._call("on_episode", episode)

    def _sampling_key(self) -> Any:
        return jax.random.fold_in(jax.random.PRNGKey(self._sampling_seed), SAMPLING)

    def reseed(self) -> None:
        """As the host's."""
        self.replay_key = self._sampling_key()

    def make_replay(self, config: Config) -> Any:
        """As the host's, with the program that works on it."""
        held = getattr(self, "replay", None)
        if held is not None and held.replay.capacity == budget.kept_steps(config):
            held.clear()  # the program that is compiled for it stays
            return held
        replay = DeviceReplay(*replay_sizes(config, self.agent))
        assert isinstance(self.env, JaxVectorEnv)
        self.program = Program(self.agent, self.env, replay, span(config))
        return HeldReplay(replay)

    def _make_driver(self, seed: int) -> Any:
        assert isinstance(self.env, JaxVectorEnv)
        return Actor(self.env, self.program.start, seed, self.counters.env_steps)

    def _step(self) -> None:
        """A chunk, and what it saw."""
        counters = self.counters
        if counters.env_steps >= self.config.replay.prefill:
            self.startup.filled()
        plan = self.program.plan(counters.env_steps, self.next_stop(), counters.updates, self.updates_due)
        with self.clock("update"):
            self.loop, seen, updates = self.program.chunk(self.loop, plan)
            seen, updates = jax.device_get((seen, updates))
            acting = self.loop.acting
            env_steps, faults = jax.device_get((acting.env_steps, self.program.env.faults_of(acting.env)))
        if updates > counters.updates and self.startup.listening:
            self.screen.say(self.startup.updated())
            memory.give_back()
        self.absorb(seen, int(env_steps), int(updates))
        self.count_faults(faults)
        self._check(faults)
        self.updates.skips = Skips(*map(int, jax.device_get(self.state.skips)))
        look_at_skips(self)

    def count_faults(self, faults: Faults) -> None:
        """Take over how many faults the environments count."""
        self._count_faults(int(faults.total.sum()), self.program.env.told(faults) if faults.total.any() else "")

    def faults_told(self) -> int:
        """How many faults the environments have counted."""
        return int(self.driver.acting.env.faults.total.sum())

    def _check(self, faults: Faults) -> None:
        """Pass on a fault of the environments; what came before it is whole, and kept."""
        try:
            self.env.check(faults)  # type: ignore[attr-defined]
        except Exception:
            self.save()
            self.checkpoints.settle()
            raise

    def _log(self) -> None:
        sums = dict(self.window.sums)
        count = self.counters.updates - self.window.first_update - sums.pop("skipped", 0.0)
        means: dict[str, Any] = {key: value / count for key, value in sums.items()} if count else {}
        self.updates.done = [means] if means else []
        super()._log()


def span(config: Config) -> int:
    """The most env steps of a chunk: as far as the next row of metrics, but not too many updates."""
    most = MOST_UPDATES.get(jax.default_backend(), ELSEWHERE)
    return max(min(config.train.log_every, int(most / config.updates_per_env_step)), 1)
