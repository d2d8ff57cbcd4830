"""A game in a dream, perhaps beside the real environment: both begin alike and get the same actions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dreamer_agent.agent import Agent
from dreamer_agent.dreams import Dream
from dreamer_agent.dreams.environment import Shown
from dreamer_agent.envs import Rows
from dreamer_agent.errors import ConfigError
from dreamer_agent.nets import Params
from dreamer_agent.play.controls import Control, actions_of, bindings_of, controls_of, values_of
from dreamer_agent.play.pictures import Painter, picture
from dreamer_agent.training.record import Filmed
from dreamer_agent.world_model import Actions, Latent

Array = jax.Array
Given = dict[str, np.ndarray]  # actions, without a leading axis
HUMAN, POLICY = "human", "policy"


class Side(NamedTuple):
    """One of the two worlds after a step: its picture `[H, W, 3]`, reward, return so far, whether it ended."""

    frame: np.ndarray
    reward: float
    total: float
    ended: bool


class Thoughts(NamedTuple):
    """What the model thinks of its own state: the critic's value, the probability that the episode goes on, the
    entropy of what it expected to see (nats), and its doubt where it has a measure of that.
    """

    value: float
    goes_on: float
    entropy: float
    doubt: float | None


class Moment(NamedTuple):
    """Both worlds after so many `steps`, and the `action` (values of the controls) by `who` that led there."""

    steps: int
    dream: Side
    thoughts: Thoughts
    real: Side | None
    action: list[float] | None
    who: str | None


@dataclass(eq=False)
class Session:
    """One player's game. `params` are all parameters of the dream's agent; `real` is one environment, or None.

    A person gives the values of the `controls`; the policy, or a planner by its name, chooses from the dreamed
    latent. What the real environment does is not shown to the model, unless `peek` is called.
    """

    dream: Dream
    params: Params
    task: str = ""
    real: Filmed | None = None
    painter: Painter | None = None
    labels: Sequence[str] = ()
    seed: int = 0
    moment: Moment = field(init=False)

    def __post_init__(self) -> None:
        self.controls: list[Control] = controls_of(self.dream.act_specs, self.labels)
        self.bindings = bindings_of(self.controls, self.task)
        self.agents: dict[str, Agent] = {POLICY: self.dream.agent.policy_alone}
        self.reset(self.seed)

    def reset(self, seed: int | None = None) -> Moment:
        """Begin anew, where the real environment does if there is one; another game unless `seed` is given."""
        self.seed = self.seed + 1 if seed is None else int(seed)
        self.key, begin = jax.random.split(jax.random.PRNGKey(self.seed))
        self.plan, self.planned_by = (), POLICY
        self.rows: Rows | None = None
        if self.real is None:
            self.latent = _begin(self.dream, self.dream.world, begin)
        else:
            self.rows = self.real.env.reset(self.seed)[-1]
            self.latent = _see(
                self.dream, self.params, begin, _blank(self.dream), _zeros(self.dream), self._observed(), True
            )
        self.moment = Moment(0, *self._dreamed(begin, 0.0, True), self._real(None), None, None)
        return self.moment

    def step(self, who: str = HUMAN, values: Sequence[Any] | None = None) -> Moment:
        """One step of both worlds, until the dream ends; a real episode that ended before is left as it is.

        A person's `values` are those of the controls, by default idle. Raises `ConfigError` for wrong ones, or
        for a player that there is not.
        """
        if self.over:
            return self.moment
        self.key, choose, move, end = jax.random.split(self.key, 4)
        if who == HUMAN:
            given = [control.idle for control in self.controls] if values is None else values
            action = actions_of(self.controls, self.dream.act_specs, given)
        else:
            action = self._chosen(who, choose)
        before = self.moment
        self.latent, self.action = _follow(self.dream, self.params, move, self.latent, action), action
        dream, thoughts = self._dreamed(end, before.dream.total)
        self.moment = Moment(
            before.steps + 1, dream, thoughts, self._real(action), values_of(self.controls, action), who
        )
        return self.moment

    def peek(self) -> Moment:
        """Let the model see what the real environment shows now, so that the dream goes on from there.

        Nothing changes where one of the two has ended. Raises `ConfigError` where there is no real environment.
        """
        if self.moment.real is None:
            raise ConfigError("There is no real environment in this game: nothing can be seen but the dream.")
        if self.moment.steps and not self.over and not self.moment.real.ended:
            self.key, own = jax.random.split(self.key)
            self.latent = _see(self.dream, self.params, own, self.latent, self.action, self._observed(), False)
            dream, thoughts = self._dreamed(own, self.moment.dream.total, True)
            dream = dream._replace(reward=self.moment.dream.reward)
            self.moment = self.moment._replace(dream=dream, thoughts=thoughts)
        return self.moment

    def close(self) -> None:
        """Free the real environment."""
        if self.real is not None:
            self.real.env.close()

    @property
    def over(self) -> bool:
        """Whether the dream has ended."""
        return self.moment.dream.ended

    def _chosen(self, who: str, key: Array) -> Given:
        if who not in self.agents:
            self.agents[who] = self.dream.agent.planned_by(who)
        agent = self.agents[who]
        if self.planned_by != who:
            self.plan, self.planned_by = agent.init_act(1).plan, who
        action, self.plan = _choose(agent, self.params, key, self.latent, self.plan)
        return jax.device_get(action)

    def _dreamed(self, key: Array, total: float, start: bool = False) -> tuple[Side, Thoughts]:
        shown, entropy = jax.device_get(_look(self.dream, self.params, key, self.latent))
        reward = 0.0 if start else float(shown.reward)
        frame = picture(shown.obs, self.dream.agent.model.obs_specs, self.painter)
        doubt = None if self.dream.doubt is None else float(shown.doubt)
        ended = not start and bool(shown.terminated | shown.doubtful)
        thoughts = Thoughts(float(shown.value), float(shown.goes_on), float(entropy), doubt)
        return Side(frame, reward, total + reward, ended), thoughts

    def _real(self, action: Given | None) -> Side | None:
        """The real environment after `action`; None where there is none."""
        if self.real is None:
            return None
        before = None if action is None else self.moment.real
        if before is not None and before.ended:
            return before
        if action is not None:
            batch = {name: np.asarray(value)[None] for name, value in action.items()}
            self.rows = self.real.env.step(batch)[0]  # a row that begins the next episode is not wanted
        assert self.rows is not None
        reward = float(self.rows.reward[0]) if before is not None else 0.0
        total = reward + (before.total if before is not None else 0.0)
        return Side(self.real.render(self.rows), reward, total, bool(self.rows.is_last[0]))

    def _observed(self) -> dict[str, np.ndarray]:
        assert self.rows is not None
        return {name: value[0] for name, value in self.rows.obs.items()}


def _blank(dream: Dream) -> Latent:
    return jax.tree.map(lambda x: x[0], dream.agent.model.rssm.initial(1))


def _zeros(dream: Dream) -> Given:
    return {name: np.zeros(spec.shape, spec.dtype) for name, spec in dream.act_specs.items()}


@partial(jax.jit, static_argnums=0)
def _begin(dream: Dream, world: Any, key: Array) -> Latent:
    return dream.begin(world, key)


@partial(jax.jit, static_argnums=0)
def _see(
    dream: Dream, params: Params, key: Array, latent: Latent, action: Any, obs: Any, is_first: Any
) -> Latent:
    return dream.perceive(params, key, latent, action, obs, is_first)


@partial(jax.jit, static_argnums=0)
def _follow(dream: Dream, params: Params, key: Array, latent: Latent, action: Any) -> Latent:
    return dream.follow(params, key, latent, action)


@partial(jax.jit, static_argnums=0)
def _look(dream: Dream, params: Params, key: Array, latent: Latent) -> tuple[Shown, Array]:
    """What is seen at `latent`, and the entropy of the prior that it was drawn from."""
    rssm = dream.agent.model.rssm
    prior = rssm.distribution(rssm.prior.apply(params["rssm"]["prior"], latent.deter[None]))
    return dream.show(params, key, latent), prior.entropy()[0]


@partial(jax.jit, static_argnums=0)
def _choose(agent: Agent, params: Params, key: Array, latent: Latent, plan: Any) -> tuple[Actions, Any]:
    row = jax.tree.map(lambda x: x[None], latent)
    legal = agent.model.imagined_legal(params, row.features)
    explore = jnp.asarray(agent.planner is None)
    action, plan = agent.choose(params, key, row, plan, explore, legal)
    return jax.tree.map(lambda x: x[0], action), plan
