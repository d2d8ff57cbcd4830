"""The report of a world model: of one that is perfect, and of one that is not trained."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer_agent.distributions import Bernoulli, Categorical, Number, PixelError, VectorError
from dreamer_agent.dreams import measure_dreams, probes
from dreamer_agent.dreams.forecast import Forecast, forecast, latent_nats
from dreamer_agent.specs import ArraySpec
from dreamer_agent.world_model import Latent, imagine_actions
from dreamer_agent.world_model.latent import Categoricals
from tests.compiling import quick_jit

OBS = {"place": ArraySpec("continuous", (2,)), "image": ArraySpec("image", (12, 12, 1))}
ACT = {"push": ArraySpec("continuous", (1,))}
EDGE, GAMMA = 4.0, 1 - 1 / 333
KEY = jax.random.PRNGKey(0)


def shown(place: Any) -> Any:
    """The brightness of an image, in [0, 1]."""
    return 0.5 + place / 20


class Walk:
    """A world model that is the world itself: a place that moves as it is pushed, and ends beyond the edge.

    Its latent does not know which of two values z will have.
    """

    obs_specs, act_specs, dtype = OBS, ACT, jnp.float32

    def __init__(self, image: bool) -> None:
        self.obs_specs = OBS if image else {"place": OBS["place"]}
        self.rssm = SimpleNamespace(
            kind=Categoricals(1, 2, 0.0),
            imagine_step=lambda params, key, latent, action, heat: Latent(latent.deter + action, latent.stoch),
            prior=SimpleNamespace(apply=lambda params, deter: jnp.zeros((*deter.shape[:-1], 1, 2))),
            distribution=lambda logits: Categorical.from_logits(logits, 1),
        )

    def reconstruct(self, params: Any, latent: Latent) -> dict[str, Any]:
        still = jnp.full_like(latent.deter, 7.0)
        out: dict[str, Any] = {"place": VectorError(jnp.concatenate([latent.deter, still], -1), 1, False)}
        if "image" in self.obs_specs:
            pixels = jnp.broadcast_to(shown(latent.deter)[..., None, None], (*latent.deter.shape[:-1], 12, 12, 1))
            out["image"] = PixelError(pixels)
        return out

    def predict_reward(self, params: Any, features: Any) -> Number:
        return Number(2 * features[..., 0], False)

    def predict_continue(self, params: Any, features: Any) -> Bernoulli:
        going = jnp.abs(features[..., 0]) < EDGE
        return Bernoulli(jnp.where(going, jnp.log(GAMMA / (1 - GAMMA)), -9.0))


class Acting:
    """As much of an agent as a report needs; compared by identity, as agents are."""

    def __init__(self, image: bool = False) -> None:
        self.model = Walk(image)
        self.config = SimpleNamespace(behaviour=SimpleNamespace(discount_horizon=333.0))


def walked(seed: int, length: int = 40, image: bool = False) -> dict[str, Any]:
    """An episode of the world; it ends where the edge is passed, or is cut."""
    rng = np.random.default_rng(seed)
    push = rng.uniform(-1, 1, (length, 1)).astype(np.float32)
    place = np.zeros((1, 1), np.float32)
    for t in range(length - 1):
        place = np.concatenate([place, place[-1:] + push[t]])
    over = np.abs(place[:, 0]) >= EDGE
    length = int(over.argmax()) + 1 if over.any() else length
    place, push, t = place[:length], push[:length], np.arange(length)
    obs = {"place": np.concatenate([place, np.full_like(place, 7.0)], 1)}
    if image:
        pixels = np.round(shown(place) * np.float32(255)).astype(np.uint8)
        obs["image"] = np.broadcast_to(pixels[..., None, None], (length, 12, 12, 1))
    return {
        "obs": obs,
        "action": {"push": push},
        "reward": 2 * place[:, 0],
        "is_first": t == 0,
        "is_last": t == length - 1,
        "is_terminal": over[:length],
        "latent": {"deter": place, "stoch": np.zeros((length, 1), np.uint8)},
    }


PARAMS = {"rssm": {"prior": {}}}


def measured(episodes: list[dict], image: bool = False, windows: int = 60) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probes, "mlp", probes.linear)  # what it learns is tested by itself
        return measure_dreams(Acting(image), PARAMS, episodes, windows, (1, 3, 10, 90), None, 0)


@pytest.fixture(scope="module")
def walks() -> list[dict]:
    return [walked(seed) for seed in range(40)]


@pytest.fixture(scope="module")
def perfect(walks: list[dict]) -> Any:
    return measured(walks)


def test_the_world_itself_makes_no_error(perfect: Any) -> None:
    assert perfect.horizons == (1, 3, 10) and perfect.observed == 5
    np.testing.assert_allclose(perfect.line("error/place"), 0, atol=1e-9)
    np.testing.assert_allclose(perfect.line("error/place", "reconstruction"), 0, atol=1e-9)
    np.testing.assert_allclose(perfect.line("reward"), 0, atol=1e-5)
    assert min(perfect.line("error/place", "persistence")) > 0.02
    assert perfect.line("error/place", "persistence") == sorted(perfect.line("error/place", "persistence"))
    assert max(perfect.line("error/place", "linear probe")) < 1e-3  # this world is linear
    assert min(perfect.line("control/place")) > 0.02 and min(perfect.line("reward", "mean reward")) > 0.1
    assert any("no window is long enough for the horizons 90" in note for note in perfect.notes)


def test_terminations_of_the_world_itself(perfect: Any, walks: list[dict]) -> None:
    ends = perfect.terminations
    assert ends.episodes == sum(bool(walk["is_terminal"].any()) for walk in walks[::2]) > 3
    assert ends.true == ends.predicted and 0 < ends.true[1] <= ends.true[2]
    for at, true in zip(perfect.line("termination"), ends.true, strict=True):
        assert at == (1.0 if true else None)


def test_its_latents_are_as_unsure_as_it_says(perfect: Any) -> None:
    for line in ("seen", "expected", "entropy"):
        np.testing.assert_allclose(perfect.line("latent", line), np.log(2), rtol=1e-5)


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_step_of_misalignment_shows(walks: list[dict], shift: int) -> None:
    moved = [{**walk, "action": {"push": np.roll(walk["action"]["push"], shift, 0)}} for walk in walks]
    assert min(measured(moved).line("error/place")) > 0.02
    late = [{**walk, "obs": {"place": np.roll(walk["obs"]["place"], shift, 0)}} for walk in walks]
    assert min(measured(late).line("error/place")) > 0.02
    paid = [{**walk, "reward": np.roll(walk["reward"], shift)} for walk in walks]
    assert min(measured(paid).line("reward")) > 0.1


def test_what_lies_beyond_a_reset_does_not_count(walks: list[dict], perfect: Any) -> None:
    """Windows end with their episode, so that long horizons have fewer of them."""
    assert (
        list(perfect.windows) == sorted(perfect.windows, reverse=True) and perfect.windows[2] < perfect.windows[0]
    )
    assert perfect.windows[0] == 60 and all(
        a <= b for a, b in zip(perfect.episodes, perfect.windows, strict=True)
    )


def test_without_terminations_there_is_no_score(walks: list[dict]) -> None:
    calm = [walk for walk in walks if not walk["is_terminal"].any()]
    report = measured(calm[:2], windows=8)
    assert report.line("termination") == [None] * 3 and report.terminations.true == (0, 0, 0)
    assert any("no terminations" in note for note in report.notes)
    assert report.quantities["reward"].lines["model"][0].low is None  # one episode has no interval
    alone = measured(calm[:1], windows=8)
    assert set(alone.quantities["error/place"].lines) == {"model", "reconstruction", "persistence"}
    assert any("no second episode" in note for note in alone.notes)


def test_images_of_the_world_itself() -> None:
    pytest.importorskip("dm_pix")
    report = measured([walked(seed, image=True) for seed in range(20)], image=True)
    np.testing.assert_allclose(report.line("psnr/image"), 58.92, atol=0.01)
    np.testing.assert_allclose(report.line("ssim/image"), 1, rtol=1e-5)
    np.testing.assert_allclose(report.line("error/image"), 0, atol=1e-9)
    assert min(report.line("control/image")) > 5
    assert set(report.quantities["error/image"].lines) == {"model", "reconstruction", "persistence"}
    assert any("no probes of images: image" in note for note in report.notes)
    assert max(report.line("psnr/image", "persistence")) < 50


# With the networks of an agent


@pytest.fixture(scope="module")
def told(learner: Any) -> Any:
    """`forecast` of windows of random numbers at the steps 1, 2 and 4, and those windows."""
    agent = learner.agent
    rng = np.random.default_rng(3)
    c = agent.config.model
    params = jax.tree.map(lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), x.dtype), learner.state.params)
    latents = {
        "deter": rng.normal(size=(5, 5, c.deter)).astype(np.float32),
        "stoch": rng.integers(0, c.classes, (5, 5, c.stoch)).astype(np.uint8),
    }
    actions = {
        "move": rng.uniform(-1, 1, (5, 4, 2)).astype(np.float32),
        "button": rng.integers(0, 3, (5, 4)).astype(np.int32),
    }

    def run(latents: Any = latents, actions: Any = actions, key: Any = KEY) -> Forecast:
        return jax.tree.map(np.asarray, forecast(agent, (1, 2, 4), params, latents, actions, key))

    return SimpleNamespace(agent=agent, params=params, latents=latents, actions=actions, run=run)


def test_rows_are_independent(told: Any) -> None:
    base = told.run()
    assert base.obs["vector"].shape == (5, 3, 3) and base.obs["integer"].shape == (5, 3, 4)
    changed = jax.tree.map(np.copy, told.latents)
    changed["deter"][2] += 1.0
    other = told.run(latents=changed)
    gaps = [
        np.abs(a - b).reshape(5, -1).max(1) for a, b in zip(*map(jax.tree.leaves, (base, other)), strict=True)
    ]
    assert all((gap[[0, 1, 3, 4]] == 0).all() for gap in gaps)
    assert np.abs(base.obs["vector"] - other.obs["vector"])[2].max() > 0


def test_an_action_matters_from_its_horizon_on(told: Any) -> None:
    base = told.run()
    moved = jax.tree.map(np.copy, told.actions)
    moved["move"][:, 1] *= -1  # the second action leads to step 2
    other = told.run(actions=moved)
    gap = np.abs(base.obs["vector"] - other.obs["vector"]).max((0, 2))
    assert gap[0] == 0 and gap[1] > 0 and gap[2] > 0
    gap = np.abs(base.reward - other.reward).max(0)
    assert gap[0] == 0 and gap[1] > 0
    np.testing.assert_array_equal(base.drawn["vector"], other.drawn["vector"])
    later = jax.tree.map(np.copy, told.latents)
    later["deter"][:, 1:] += 1.0  # the rows ahead are only compared with
    other = told.run(latents=later)
    assert np.abs(base.shown["vector"] - other.shown["vector"]).min((0, 2)).all()
    for a, b in zip(*(jax.tree.leaves(x._replace(shown={})) for x in (base, other)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_nats_are_those_of_the_prior(told: Any) -> None:
    base, agent, params = told.run(), told.agent, told.params
    start = Latent.unpack(jax.tree.map(lambda x: x[:, 0], told.latents), agent.config.model.classes, jnp.float32)

    def priors(key: Any) -> Any:
        latents = imagine_actions(agent.model, params, start, told.actions, key)
        return agent.model.rssm.prior.apply(params["rssm"]["prior"], latents.deter)

    _, first, second = jax.random.split(KEY, 3)
    logits = [np.asarray(x, np.float64) for x in quick_jit(jax.vmap(priors))(jnp.stack([first, second]))]
    unimix = agent.config.model.unimix
    own, other = (
        (1 - unimix) * np.exp(x) / np.exp(x).sum(-1, keepdims=True) + unimix / x.shape[-1] for x in logits
    )
    seen = np.eye(own.shape[-1])[told.latents["stoch"][:, 1:]]
    for got, weights in ((base.entropy, own), (base.between, other), (base.seen, seen)):
        np.testing.assert_allclose(got, -(weights * np.log(own)).sum((-1, -2)), rtol=2e-4)
    np.testing.assert_allclose(base.entropy[:, 0], base.between[:, 0], rtol=1e-5)
    assert np.abs(base.entropy[:, 1:] - base.between[:, 1:]).max() > 1e-3


def test_a_perfect_model_sees_what_it_expects() -> None:
    """Two futures that a coin decides at the first step: the entropy is too small, the expectation right."""
    sure = jnp.log(jnp.array([[0.9, 0.1], [0.1, 0.9]]))  # the prior after heads and after tails
    agent: Any = SimpleNamespace(
        model=SimpleNamespace(
            rssm=SimpleNamespace(
                prior=SimpleNamespace(apply=lambda params, deter: sure[deter[..., 0].astype(int)][..., None, :]),
                distribution=lambda logits: Categorical.from_logits(logits, 1),
            )
        )
    )
    coins = np.array(np.meshgrid([0, 1], [0, 1], [0, 1])).reshape(3, -1)  # own, again, true: equally likely
    own, again = (Latent(jnp.asarray(x)[:, None, None], jnp.zeros((8, 1, 1, 2))) for x in coins[:2])
    likely = {z: latent_nats(agent, PARAMS, own, again, jnp.full((8, 1, 1), z)) for z in (0, 1)}
    entropy, between = (float(x.mean()) for x in likely[0][:2])
    chance = np.where(coins[2] == 0, 0.9, 0.1)  # of z = 0 in the true future
    seen = float((chance * likely[0][2][:, 0] + (1 - chance) * likely[1][2][:, 0]).mean())
    assert seen == pytest.approx(between, rel=1e-5)
    assert entropy == pytest.approx(-(0.9 * np.log(0.9) + 0.1 * np.log(0.1)), rel=1e-5) and entropy < between
