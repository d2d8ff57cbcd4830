"""A dream as an environment: its steps are those of imagination, its ends are right, and gymnasium takes it."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from dreamer_agent.agent import Agent
from dreamer_agent.dreams import Dream, DreamVectorEnv, first_starts, replayed_starts
from dreamer_agent.envs import Interface
from dreamer_agent.envs.gymnasium_adapter import GymnasiumEnv
from dreamer_agent.envs.jax_adapter import JaxVectorEnv
from dreamer_agent.errors import ConfigError, SpaceError
from dreamer_agent.replay import HostReplay
from dreamer_agent.world_model import Latent, zero_actions
from dreamer_agent.world_model.imagine import imagine_step
from tests.compiling import quick_jit
from tests.conftest import random_batch, small_config

SPACES = Interface(
    spaces.Dict({"x": spaces.Box(-3, 3, (2,), np.float64), "turn": spaces.Discrete(3, start=1)}),
    spaces.Dict({"push": spaces.Box(-2, 2, (1,)), "which": spaces.Discrete(3, start=1)}),
    masked=True,
)
GAMMA = 1 - 1 / 333
KEY = jax.random.PRNGKey(0)


def random_params(agent: Agent) -> Any:
    """Random numbers everywhere, so that no head says zero."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(agent.init, KEY).params
    return jax.tree.map(lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), jnp.float32), shapes)


@pytest.fixture(scope="module")
def base() -> dict[str, Any]:
    """An agent, parameters and starts: what all dreams of this module are made of."""
    agent = Agent.create(small_config(), SPACES.obs_specs, SPACES.act_specs)
    params = random_params(agent)
    obs = {name: value[:, 0] for name, value in random_batch(agent)["obs"].items()}
    return {"agent": agent, "params": params, "spaces": SPACES, "starts": first_starts(agent, params, obs, KEY)}


@pytest.fixture(scope="module")
def dream(base) -> Dream:
    """Long enough for ends to be drawn, if there are any."""
    return Dream(**base, horizon=6, ends="never")


def act(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    return {"push": rng.uniform(-2, 2, (rows, 1)).astype(np.float32), "which": rng.integers(1, 4, rows)}


def played(env: DreamVectorEnv, steps: int, seed: int | None = 0, rows: slice = slice(None)) -> list[Any]:
    """Everything that is seen of some rows, from a reset on."""
    out, rng = [env.reset(seed=seed)[0]["x"][rows]], np.random.default_rng(1)
    for _ in range(steps):
        obs, *rest, info = env.step(act(rng, env.num_envs))
        out.append([obs["x"][rows], obs["turn"][rows], *(x[rows] for x in rest), info["value"][rows]])
    return out


def close(one: Any, other: Any, **tolerance: float) -> None:
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, **(tolerance or {"atol": 1e-4, "rtol": 1e-4})), one, other
    )


def test_gymnasium_accepts_it(dream) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on boxes beyond [-1, 1]
        check_env(dream.env(), skip_render_check=True)


def test_a_step_is_that_of_imagination(dream, base) -> None:
    """Followed by hand, with the same keys, from the state that the environment tells."""
    env = dream.vector_env(3)
    env.reset(seed=0)
    before, actions = env.dreams.state, act(np.random.default_rng(0), 3)
    obs, reward, _, _, info = env.step(actions)
    model, params = base["agent"].model, base["params"]

    def by_hand(key: jax.Array, latent: Latent, action: Any) -> Any:
        new = imagine_step(model, params, key, latent, action)
        decoded = {name: found.mode() for name, found in model.reconstruct(params, new).items()}
        reward = model.predict_reward(params, new.features).mean()
        goes_on = model.predict_continue(params, new.features).prob() / GAMMA
        value = base["agent"].nets.value(params["critic"], new.features).mean()
        return new, decoded, reward, jnp.minimum(goes_on, 1.0), value

    step = quick_jit(by_hand)
    for row in range(3):
        own = slice(row, row + 1)
        latent = jax.tree.map(lambda x, r=own: x[r], before.latent)
        named = {"push": actions["push"][own] / 2, "which": actions["which"][own] - 1}
        new, decoded, *expected = step(jax.random.split(before.key[row], 4)[2], latent, named)
        close(jax.tree.map(lambda x, r=own: x[r], env.dreams.state.latent), new)
        close(obs["x"][own], np.clip(decoded["x"], -3, 3))
        np.testing.assert_array_equal(obs["turn"][own], decoded["turn"] + 1)
        close([reward[own], info["continue"][own], info["value"][own]], expected)


def test_continue_has_the_discount_divided_out(base) -> None:
    dream = Dream(**base)
    np.testing.assert_allclose(dream.goes_on(jnp.array([GAMMA, GAMMA / 2, 1.0, 0.0])), [1, 0.5, 1, 0], atol=1e-6)
    keys = jax.random.split(KEY, 4000)
    ended = jax.vmap(lambda key: dream.ended(key, dream.goes_on(jnp.array([GAMMA, GAMMA / 2, 0.0]))))(keys)
    assert not ended[:, 0].any() and ended[:, 2].all() and abs(ended[:, 1].mean() - 0.5) < 0.03
    likely = Dream(**base, ends="likely")
    assert likely.ended(KEY, jnp.array([0.51, 0.5, 0.49])).tolist() == [False, True, True]


def saying(params: Any, continue_: float) -> Any:
    """Parameters with which the continue head says one number everywhere."""
    logit = np.log(continue_ / (1 - continue_))

    def constant(path: Any, x: jax.Array) -> jax.Array:
        return jnp.full_like(x, logit) if x.shape == (1,) and "bias" in str(path[-1]) else jnp.zeros_like(x)

    return params | {"cont": jax.tree_util.tree_map_with_path(constant, params["cont"])}


def test_a_model_that_says_gamma_never_ends_and_the_horizon_truncates(base) -> None:
    env = Dream(**base | {"params": saying(base["params"], GAMMA)}, horizon=5).vector_env(64)
    env.reset(seed=0)
    rng, ends = np.random.default_rng(0), []
    for step in range(12):
        _, reward, terminated, truncated, info = env.step(act(rng, 64))
        assert not terminated.any() and len(set(truncated)) == 1
        np.testing.assert_allclose(info["continue"], 1, atol=1e-6)
        assert (reward == 0).all() == (step in (5, 11))  # steps that begin anew
        ends.append(truncated.all())
    assert ends == [False, False, False, False, True, False] * 2


def test_ends_are_drawn_and_no_episode_both_ends_and_is_cut(base) -> None:
    env = Dream(**base | {"params": saying(base["params"], 0.5)}, horizon=2).vector_env(500)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    _, _, terminated, truncated, _ = env.step(act(rng, 500))
    assert abs(terminated.mean() - (1 - 0.5 / GAMMA)) < 0.07 and not truncated.any()
    _, _, again, truncated, _ = env.step(act(rng, 500))
    assert not again[terminated].any() and not truncated[terminated].any()  # they begin anew
    assert (again | truncated)[~terminated].all() and not (again & truncated).any()


def test_at_temperature_zero_a_step_is_the_mode_of_the_prior(base) -> None:
    rssm, params = base["agent"].model.rssm, base["params"]
    starts = Latent.unpack(base["starts"], rssm.config.classes, np.float32)
    latent, action = jax.tree.map(lambda x: x[0], starts), {"push": np.float32([0.5]), "which": np.int32(1)}

    def stoch(temperature: float) -> Any:
        dream = Dream(**base, temperature=temperature)
        step = quick_jit(lambda key: dream.follow(params, key, latent, action))
        return [step(key) for key in jax.random.split(KEY, 4)]

    cold = stoch(0.0)
    logits = rssm.prior.apply(params["rssm"]["prior"], cold[0].deter)
    for latents in cold:
        np.testing.assert_array_equal(latents.stoch.argmax(-1), logits.argmax(-1))
        np.testing.assert_array_equal(latents.stoch.sum(-1), 1)
    warm = np.stack([latents.stoch for latents in stoch(3.0)])
    assert not (warm == warm[0]).all()


def test_rows_are_independent_and_those_of_a_single_environment(base, dream) -> None:
    three, one = dream.vector_env(3), dream.env()
    rows = played(three, 9)
    obs, rng = one.reset(seed=0)[0], np.random.default_rng(1)
    np.testing.assert_allclose(obs["x"], rows[0][0], atol=1e-5)
    done = False
    for seen in rows[1:]:
        actions = act(rng, 3)
        own = {name: value[0] for name, value in actions.items()}
        obs, *rest = (one.reset()[0], 0.0, False, False) if done else one.step(own)[:4]
        close([obs["x"], obs["turn"], *rest[:3]], [each[0] for each in seen[:5]])
        done = rest[1] or rest[2]
    assert done is False and rows[6][4][0]  # the horizon was reached on the way
    three.reset(seed=0)
    other = act(np.random.default_rng(1), 3)
    other["which"][2] = 1 + other["which"][2] % 3
    np.testing.assert_allclose(three.step(other)[0]["x"][:2], rows[1][0][:2], atol=1e-5)


def test_a_seed_makes_all_of_it_again_and_none_goes_on(dream) -> None:
    env = dream.vector_env(3)
    first = played(env, 8, seed=5)
    onward = played(env, 8, seed=None)
    close(played(env, 8, seed=5), first, rtol=0)
    close(played(env, 8, seed=None), onward, rtol=0)
    assert not np.allclose(first[0], onward[0]) and not np.allclose(first[0], played(env, 0, seed=6)[0])


def test_it_is_traced_once(base) -> None:
    traces = []

    def doubt(params: Any, latent: Latent) -> jax.Array:
        traces.append(1)
        return latent.deter[:, 0]

    dream = Dream(**base, horizon=3, doubt=doubt, most_doubt=0.0, ends="never")
    envs = [dream.vector_env(3), dream.vector_env(3)]
    for env in envs:
        env.reset(seed=0)
        for _ in range(5):
            before = env.done.copy()
            *_, truncated, info = env.step(act(np.random.default_rng(0), 3))
            assert (truncated[~before] >= (info["doubt"] > 0)[~before]).all()  # doubt truncates
        env.reset()
    assert len(traces) == 1


def test_what_is_seen_can_be_the_latent(base) -> None:
    dream = Dream(**base, observe="latent", ends="never")
    env = dream.vector_env(2)
    obs, info = env.reset(seed=0)
    np.testing.assert_array_equal(obs, env.dreams.state.latent.features)
    assert obs in env.observation_space and info["action_mask"]["action_mask/which"].shape == (2, 3)
    assert env.step(act(np.random.default_rng(0), 2))[0] in env.observation_space


def test_spaces_and_masks_are_the_environments_own(dream) -> None:
    env = dream.env()
    assert (env.observation_space, env.action_space) == (SPACES.observation_space, SPACES.action_space)
    obs, info = env.reset(seed=3)
    mask = info["action_mask"]["action_mask/which"]
    assert obs in env.observation_space and mask.shape == (3,) and mask.any() and mask.dtype == np.int8


def test_an_image_that_is_seen_is_rendered_too(dream) -> None:
    view = Interface(spaces.Box(0, 1, (1, 8, 8), np.float32), spaces.Discrete(2))
    agent = Agent.create(small_config(), view.obs_specs, view.act_specs)
    starts = {name: np.asarray(value) for name, value in agent.model.rssm.initial(2).pack().items()}
    env = Dream(agent, random_params(agent), view, starts).vector_env(2, render_mode="rgb_array")
    obs, _ = env.reset(seed=3)
    assert obs in env.observation_space
    frames = env.render()
    assert len(frames) == 2 and frames[0].shape == (8, 8, 3) and frames[0].dtype == np.uint8
    np.testing.assert_array_equal(frames[1][..., 0], np.rint(obs[1, 0] * 255))
    for mode, sentence in (
        ("human", "a dream has rgb_array"),
        ("rgb_array", "no image in what the model observes"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            dream.env(mode)


def test_the_other_modes_of_beginning_anew(dream) -> None:
    """In the same step, and when asked: the same episodes as in the next step."""
    rng = np.random.default_rng(0)
    actions = [act(rng, 3) for _ in range(9)]
    names = (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED)
    later, same, asked = (dream.vector_env(3, autoreset_mode=name) for name in names)
    for env in (later, same, asked):
        env.reset(seed=0)
        for step in range(5):
            env.step(actions[step])
        obs, _, _, truncated, info = env.step(actions[5])
        assert truncated.all()
        if env is same:
            assert info["_final_obs"].all() and info["final_info"]["value"].shape == (3,)
            ended, begun = info["final_obs"], obs
        elif env is asked:
            close(obs["x"], [one["x"] for one in ended])
            some = np.array([True, False, True])
            again, _ = env.reset(options={"reset_mask": some})
            close(again["x"][some], begun["x"][some])
            close(again["x"][1], obs["x"][1])
        else:
            fresh = env.step(actions[8])
            onward = env.step(actions[6])
    close(fresh[0], begun)
    close(same.step(actions[6])[:4], onward[:4])
    taken = GymnasiumEnv(dream.vector_env(3, autoreset_mode=AutoresetMode.SAME_STEP))
    taken.reset(0)
    named = {name: np.asarray(x) for name, x in zero_actions(SPACES.act_specs, (3,)).items()}
    seen = [taken.step(named) for _ in range(6)]
    assert [len(rows) for rows in seen] == [1] * 5 + [2] and seen[-1][1].is_first.all()


def test_our_adapter_takes_the_vector_environment(dream) -> None:
    env = GymnasiumEnv(dream.vector_env(3))
    assert env.mode == AutoresetMode.NEXT_STEP and dict(env.obs_specs) == dict(SPACES.obs_specs)
    (rows,) = env.reset(0)
    assert rows.is_first.all() and rows.obs["action_mask/which"].any(-1).all()
    actions = {name: np.asarray(x) for name, x in zero_actions(SPACES.act_specs, (3,)).items()}
    seen = [env.step(actions)[0] for _ in range(6)]
    assert [row.is_last.all() for row in seen] == [False] * 5 + [True]
    state = env.get_state()
    onward = [env.step(actions)[0] for _ in range(3)]
    assert onward[0].is_first.all() and not seen[-1].is_terminal.any()
    env.set_state(state)
    close([row._asdict() for row in onward], [env.step(actions)[0]._asdict() for _ in range(3)], rtol=0)


def test_it_is_an_environment_written_in_jax(base) -> None:
    env = JaxVectorEnv(Dream(**base, horizon=6, ends="never"), 2)  # no other program has used it
    assert env.interface == SPACES and env.env.time_limit == 6
    (rows,) = env.reset(0)
    actions = {name: np.asarray(x) for name, x in zero_actions(SPACES.act_specs, (2,)).items()}
    ends = [env.step(actions)[0].is_last.all() for _ in range(6)]
    assert rows.obs["x"].shape == (2, 2) and ends == [False] * 5 + [True]


def test_starts_of_a_replay_are_posteriors_of_its_steps(base) -> None:
    agent, batch = base["agent"], random_batch(base["agent"])
    shapes = jax.tree.map(lambda x: (x.shape[2:], x.dtype), batch, is_leaf=lambda x: isinstance(x, np.ndarray))
    replay = HostReplay(shapes, num_envs=4, capacity=400, batch_size=4, batch_length=8, online=False)
    for _ in range(6):
        for step in range(9):
            replay.add(jax.tree.map(lambda x, t=step: x[:, t], batch))
    asked = []
    sample = replay.sample

    def remembered() -> Any:
        asked.append(sample())
        return asked[-1]

    replay.sample = remembered  # type: ignore[method-assign]
    starts = replayed_starts(agent, base["params"], replay, KEY, 20)
    assert len(starts["stoch"]) == 20 and 2 <= len(asked) <= 3  # four of each window of a batch
    observe = quick_jit(lambda batch, key: agent.model.observe(base["params"], batch, key)[0])
    first = observe(asked[0][0], jax.random.fold_in(KEY, 0)).pack()
    kept = ~asked[0][0]["is_last"][:, 1:]
    for start in starts["deter"][:12]:
        assert np.abs(np.asarray(first["deter"])[kept] - start).max(-1).min() < 1e-4
    with pytest.raises(ConfigError, match="no step to begin"):
        replay.data["is_last"][:] = True
        replayed_starts(agent, base["params"], replay, KEY, 4)


def test_a_dream_goes_on_from_what_was_observed(base, dream) -> None:
    agent, params = base["agent"], base["params"]
    rng = np.random.default_rng(0)
    seen = {"x": rng.normal(size=(3, 2)), "turn": rng.integers(1, 4, 3)}
    actions = act(rng, 2)
    env = dream.vector_env(3)
    env.reset(seed=0)
    key = env.dreams.state.key[1]
    obs, _ = env.reset(options={"observations": seen, "actions": actions})
    latent, encoded = agent.model.rssm.initial(1), SPACES.encode(seen, 3)
    named = SPACES.actions.encode(actions)
    observe = quick_jit(lambda *given: agent.model.observe_step(params, *given))
    for step in range(3):
        key, own = jax.random.split(key)
        row = {name: value[step][None] for name, value in encoded.items()}
        before = {name: value[max(step - 1, 0)][None] for name, value in named.items()}
        latent = observe(own, latent, before, row, np.array([step == 0]))
    close(jax.tree.map(lambda x: x[1:2], env.dreams.state.latent), latent)
    seen_there = quick_jit(lambda latent: agent.model.reconstruct(params, latent)["x"].mode())(latent)
    close(obs["x"][1], np.clip(seen_there[0], -3, 3))
    single = dream.env()
    assert single.reset(seed=0, options={"observations": seen, "actions": actions})[0] in single.observation_space


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"horizon": 0}, "horizon=0"),
        ({"temperature": -1.0}, "temperature=-1"),
        ({"ends": "always"}, "choose sampled, likely, never"),
        ({"observe": "both"}, "choose decoded, latent"),
        ({"most_doubt": 1.0}, "no measure of doubt"),
        ({"starts": {"deter": np.zeros((0, 32)), "stoch": np.zeros((0, 4))}}, "nothing to start from"),
    ],
)
def test_settings_that_do_not_fit_are_refused(base, settings, sentence) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Dream(**{**base, **settings})


def test_bad_calls_are_said_in_a_sentence(base, dream) -> None:
    env, one = dream.vector_env(3), dream.env()
    rng = np.random.default_rng(0)
    with pytest.raises(gym.error.ResetNeeded, match="before step"):
        one.step({"push": np.zeros(1, np.float32), "which": 1})
    env.reset(seed=0)
    with pytest.raises(SpaceError, match="2 actions were given for 3"):
        env.step(act(rng, 2))
    with pytest.raises(SpaceError, match="outside of 3"):
        env.step({"push": np.zeros((3, 1)), "which": np.array([0, 1, 2])})
    with pytest.raises(ConfigError, match="option 'observation'"):
        one.reset(options={"observation": 1})
    seen = {"x": np.zeros((2, 2)), "turn": np.ones(2, int)}
    with pytest.raises(SpaceError, match="2 observations and 0 actions"):
        one.reset(options={"observations": seen})
    with pytest.raises(SpaceError, match="do not fit"):
        one.reset(options={"observations": {"x": np.zeros((2, 2))}})
    with pytest.raises(SpaceError, match=r"'x' to begin from has the shape \(2, 3\)"):
        one.reset(options={"observations": seen | {"x": np.zeros((2, 3))}, "actions": act(rng, 1)})
