"""What each process of `test_several.py` does: join the others, then update on fixed batches or train a run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import jax
import numpy as np

from dreamer_agent.agent import Agent
from dreamer_agent.config import Config, load_config
from dreamer_agent.errors import DreamerError, ProcessLostError
from dreamer_agent.launch.join import join, leave
from dreamer_agent.specs import ArraySpec
from dreamer_agent.training.loop import train
from dreamer_agent.training.mesh import Placement
from dreamer_agent.training.processes import Meeting, from_first, gather
from dreamer_agent.training.updates import program_of
from tests.conftest import TEST_SIZE, random_batch, small_config

UPDATES = ["replay.batch_size=8", "optimizer.learning_rate=1e-3", "optimizer.warmup=0"]
RUN = [
    *TEST_SIZE, "env.id=CartPole-v1", "env.kwargs={max_episode_steps: 50}", "env.num_envs=4",
    "replay.prefill=64", "replay.ratio=16", "replay.capacity=400", "train.steps=300",
    "train.checkpoint_every=60", "train.log_every=60", "train.eval_every=150", "train.eval_episodes=3",
    "train.eval_envs=2", "train.updates_per_dispatch=1",
]  # fmt: skip


class Faulty(gym.Wrapper):
    """CartPole; that of process `process` breaks for good after `steps` steps."""

    def __init__(self, process: int, steps: int, max_episode_steps: int, render_mode: Any = None):
        super().__init__(gym.make("CartPole-v1", max_episode_steps=max_episode_steps))
        self.left = steps if jax.process_index() == process else -1

    def step(self, action: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            self.left = 1
            raise RuntimeError("the motor is broken")
        return super().step(action)


def make_agent() -> Agent:
    obs = {"vector": ArraySpec("continuous", (3,)), "integer": ArraySpec("discrete", (), 4)}
    return Agent.create(small_config(*UPDATES), obs, {"move": ArraySpec("continuous", (2,))})


def updated(agent: Agent, placement: Placement, part: slice) -> dict[str, np.ndarray]:
    """Parameters after one and five updates on `part` of the rows of fixed batches, and the last latents."""
    program, out = program_of(agent, placement), {}
    state = placement.state(jax.jit(agent.init)(jax.random.PRNGKey(0)))
    for seed in range(5):
        batch = jax.tree.map(lambda x: x[None, part], random_batch(agent, seed))
        state, latents, *_ = program(state, placement.batches(batch))
        if seed in (0, 4):
            for index, leaf in enumerate(jax.tree.leaves(placement.copied(state.params))):
                out[f"{seed + 1}/{index}"] = leaf
    assert program._cache_size() == 1
    return out | {f"latent/{key}": value for key, value in placement.own_rows(latents).items()}


def updates(folder: Path) -> None:
    here, count = jax.process_index(), jax.process_count()
    rows = 8 // count
    for name, mesh in (("data", []), ("fsdp", [f"mesh.fsdp={count}"])):
        placement = Placement(Placement.of(small_config(*UPDATES, *mesh)).mesh, split=64)
        assert placement.shared
        found = updated(make_agent(), placement, slice(here * rows, (here + 1) * rows))
        np.savez(folder / f"{name}-{here}.npz", **found)
    assert gather({"who": here, "long": "x" * 3000 * here})[1] == {"who": 1, "long": "x" * 3000}
    np.testing.assert_array_equal(from_first({"a": np.arange(3) + here})["a"], np.arange(3))
    assert placement.mesh is not None
    meeting = Meeting(placement.mesh, 2)
    for step in range(3):
        assert list(meeting.hear()) == [0, 0] if step == 0 else [sum(range(count)), count * (step - 1)]
        meeting.tell(here, step)


def configured(*overrides: str) -> Config:
    return load_config(overrides=[*RUN, *overrides])


def main(address: str, count: str, index: str, what: str, folder: str, *overrides: str) -> None:
    join(address, int(count), int(index))
    try:
        if what == "updates":
            updates(Path(folder))
        else:
            train(configured(*overrides), Path(folder))
    except DreamerError as error:
        print(f"error: {error}", flush=True)
        if isinstance(error, ProcessLostError):
            leave()
        sys.exit(2)


if __name__ == "__main__":
    main(*sys.argv[1:])
