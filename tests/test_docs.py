"""The examples in docs/ run, and what they register works."""

from __future__ import annotations

import re
from pathlib import Path

import jax
import numpy as np

from dreamer_agent import ArraySpec, Config, make_env
from dreamer_agent.config import merge
from dreamer_agent.envs import SUITES
from dreamer_agent.world_model import ENCODERS, make_encoder

DOCS = Path(__file__).parent.parent / "docs"


def examples(page: str) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.S))


def test_the_corridor_of_the_docs_is_an_environment() -> None:
    exec(examples("environments.md"), {})
    try:
        env = make_env(merge(Config(), {"env": {"id": "corridor:short", "num_envs": 2}}).env)
        (rows,) = env.reset(0)
        for _ in range(4):
            (rows,) = env.step({"action": np.ones(2, np.int32)})
        assert rows.reward.tolist() == [1, 1] and rows.is_terminal.all()
        assert rows.obs["cell"].tolist() == [4, 4]
    finally:
        SUITES.pop("corridor")


def test_the_encoder_of_the_docs_is_an_encoder() -> None:
    exec(examples("encoders.md"), {})
    try:
        config = merge(Config(), {"model": {"encoder": "wide"}})
        net = make_encoder({"x": ArraySpec("continuous", (3,))}, config.model, np.float32)
        obs = {"x": np.ones((2, 5, 3), np.float32)}
        assert net.apply(net.init(jax.random.PRNGKey(0), obs), obs).shape == (2, 5, 256)
    finally:
        ENCODERS.pop("wide")


def test_every_metric_of_the_update_is_explained(learner) -> None:
    from tests.conftest import random_batch

    metrics = jax.eval_shape(learner.agent.update, learner.state, random_batch(learner.agent))[2]
    page = (DOCS / "metrics.md").read_text()
    names = {re.sub(r"^loss/rec/.*", "loss/rec/KEY", name) for name in metrics}
    assert names and {name for name in names if f"`{name}`" not in page} == set()
