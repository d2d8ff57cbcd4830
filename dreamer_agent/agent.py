"""The learner: pure functions `init`, `act` and `update` over one state."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dreamer_agent import optim
from dreamer_agent.behaviour import (
    ActorCritic,
    ExplorerState,
    Rules,
    as_explorer,
    behaviour_losses,
    explorer_losses,
    imagined_policy,
    init_explorer,
    replay_value_loss,
)
from dreamer_agent.config import Config
from dreamer_agent.errors import ConfigError
from dreamer_agent.hyper import hyper_parameters, weighted_sum
from dreamer_agent.nets import Params
from dreamer_agent.ops import PercentileRange
from dreamer_agent.planning import (
    Careful,
    Model,
    ObservedReward,
    Planner,
    check_doubt,
    explored,
    learned_model,
    planner_of,
    restarted,
    seen_reward,
)
from dreamer_agent.specs import Specs
from dreamer_agent.world_model import (
    Actions,
    Batch,
    Latent,
    LegalActions,
    Losses,
    WorldModel,
    drop_context,
    fresh_scales,
    harmonised,
    imagine,
    observed_legal,
    price,
    sigmas,
    zero_actions,
)

Array = jax.Array
Metrics = dict[str, Array]
ACTING = ("encoder", "rssm", "actor")  # the parameters that the policy acts with
PLANNING = (*ACTING, "reward", "critic")  # and those that a planner does, beside heads that not every model has
SAMPLED, EXPLORER = 1, 2  # what `explore` is where both may act: the policy, sampled, or the explorer
MOST = 2**31 - 1  # env steps that a device can count
Leader = Literal["policy", "explorer", "both"]


class Skips(NamedTuple):
    """Updates that were skipped since their loss or gradient was not finite: all, and the last ones in a row."""

    total: Any  # int32, integers on the host
    in_a_row: Any


class AgentState(NamedTuple):
    """Everything that learning changes, and `hyper`, the numbers it depends on."""

    step: Array  # updates done, skipped ones among them
    params: Params
    slow_critic: Params
    average: Params  # of `params` over updates: the agent that is scored, shown and exported
    optimizer: Any
    norm: PercentileRange
    hyper: dict[str, Any]  # learning rate, entropy, loss scales, ...: data, so that they may vary under vmap
    key: Array
    skips: Skips
    explorer: ExplorerState | tuple[()] = ()  # of a run that has one

    def named(self) -> dict[str, Any]:
        """The fields that there are, by name."""
        return {name: value for name, value in self._asdict().items() if name != "explorer" or value}


class ActState(NamedTuple):
    """What acting remembers between steps, `[E, ...]`: the latent, the action just taken, and what a planner
    keeps for the next step.
    """

    latent: Latent
    action: Actions
    plan: Any = ()


class Division(NamedTuple):
    """How several devices share an update: the `parts` of the rows of a batch, and what puts parameters that are
    held in parts together, once for the loss.
    """

    parts: int = 1
    gather: Callable[[Params], Params] = lambda params: params


ALONE = Division()


@dataclass(frozen=True, eq=False)  # compared by identity, so that jit can hold it as a static argument
class Agent:
    """The networks and sizes of one configuration; holds no arrays that change.

    The policy acts, or else `planner`, which tries actions in the world model for its rewards or `reward_fn`'s.
    Of a run with an explorer, that may be the `leader` instead, or whoever `collector` says.
    """

    config: Config
    model: WorldModel
    nets: ActorCritic
    optimizer: optax.GradientTransformation
    planner: Planner | None = None
    reward_fn: ObservedReward | None = None
    leader: Leader = "policy"

    @classmethod
    def create(cls, config: Config, obs_specs: Specs, act_specs: Specs) -> Agent:
        """The agent for these spaces."""
        dtype, planner = compute_dtype(config.precision), planner_of(config.behaviour.planner)
        check_doubt(planner, config)
        return cls(
            config,
            WorldModel.create(obs_specs, act_specs, config.model, dtype, config.loss.free_nats_of).discounting(
                1.0 - 1.0 / config.behaviour.discount_horizon
            ),
            ActorCritic.create(act_specs, config.model, dtype),
            optim.make_optimizer(config.optimizer, optim.apart(config)),
            planner,
            leader="both" if config.behaviour.explore_steps else "policy",
        )

    def planned_by(self, planner: str | Planner | None, reward_fn: ObservedReward | None = None) -> Agent:
        """The same agent, but with this `planner` to act; see `planning.planner_of`, which also knows "none".

        "explorer" is the explorer of a run that has one, in the place of its policy.

        With `reward_fn(observation, actions, next observation)`, of decoded observations `[N, ...]` by key, it
        acts for these rewards `[N]`, without the critic's values, which belong to the old ones.
        """
        if planner == "explorer" and reward_fn is None:
            return self._explorer_alone
        found = None if planner == "explorer" else planner_of(planner)
        if found is None and reward_fn is not None:
            raise ConfigError(
                "A policy or an explorer acts for what it was trained for: to act for other rewards, name a "
                "planner, such as planner='mppi'."
            )
        if found is None:
            return self.policy_alone
        if reward_fn is not None:
            self.model.needed_decoder()
        check_doubt(found, self.config)
        return dataclasses.replace(self, planner=found, reward_fn=reward_fn, leader="policy")

    @cached_property
    def policy_alone(self) -> Agent:
        """The same agent with its policy to act."""
        if self.planner is None and self.leader == "policy":
            return self
        return dataclasses.replace(self, planner=None, reward_fn=None, leader="policy")

    @cached_property
    def _explorer_alone(self) -> Agent:
        if not self.config.behaviour.explore_steps:
            raise ConfigError(
                "This run has no explorer to act: train it with model.ensemble=8 and behaviour.explore_steps=N."
            )
        return dataclasses.replace(self, planner=None, reward_fn=None, leader="explorer")

    @property
    def acting(self) -> tuple[str, ...]:
        """The parameters that `act` needs, by name."""
        if self.planner is None:
            return ACTING if self.leader == "policy" else (*ACTING, "explorer_actor")
        wanted = {
            "cont": self.model.cont, "mask": self.model.mask, "decoder": self.reward_fn,
            "ensemble": self.model.ensemble if isinstance(self.planner, Careful) else None,
        }  # fmt: skip
        return (*PLANNING, *(name for name, part in wanted.items() if part is not None))

    def init(self, key: Array) -> AgentState:
        """A fresh state; the slow critic and the average start as copies."""
        model_key, nets_key, state_key = jax.random.split(key, 3)
        features = self.model.rssm.initial(1).features
        params = self.model.init(model_key) | self.nets.init(nets_key, features)
        if self.config.loss.harmony:
            params["harmony"] = fresh_scales()
        explorer: ExplorerState | tuple[()] = ()
        if self.config.behaviour.explore_steps:
            params |= init_explorer(self.nets, jax.random.fold_in(nets_key, 1), features)
            explorer = ExplorerState.begin(params)
        return AgentState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            slow_critic=jax.tree.map(jnp.copy, params["critic"]),
            average=jax.tree.map(jnp.copy, params),
            optimizer=self.optimizer.init(params),
            norm=PercentileRange.zeros(),
            hyper=hyper_parameters(self.config, self.model.obs_specs),
            key=state_key,
            skips=Skips(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)),
            explorer=explorer,
        )

    def init_act(self, num_envs: int) -> ActState:
        """The memory of `num_envs` environments that have not started."""
        latent = self.model.rssm.initial(num_envs)
        actions, plan = zero_actions(self.model.act_specs, (num_envs,)), ()
        if self.planner is not None:
            plan = self.planner.begin(learned_model(self.model, self.nets), num_envs)
        return ActState(latent, actions, plan)

    def act(
        self, params: Params, key: Array, carry: ActState, obs: Any, is_first: Array, explore: Array,
        legal: LegalActions = None,
    ) -> ActState:  # fmt: skip
        """See `obs` `[E, ...]` and choose actions: sampled if the scalar `explore` is true, else the mode.

        What a planner chooses is taken as it is, or, to explore, with noise (`planning.explored`). Where both may
        lead, `explore` is what `collector` says, or 0. Only `legal` actions are chosen, by default those that the
        observation tells. The returned latent is the one to store with the step.
        """
        latent_key, action_key = jax.random.split(key)
        latent = self.model.observe_step(params, latent_key, carry.latent, carry.action, obs, is_first)
        legal = legal or observed_legal(self.model.obs_specs, self.model.act_specs, obs)
        plan = carry.plan
        if self.planner is not None:
            plan = restarted(plan, self.planner.begin(self._planned_in(params), len(is_first)), is_first)
        return ActState(latent, *self.choose(params, action_key, latent, plan, explore, legal))

    def choose(
        self, params: Params, key: Array, latent: Latent, plan: Any, explore: Array, legal: LegalActions = None
    ) -> tuple[Actions, Any]:
        """Actions at `latent` `[E, ...]`, and the plan to go on from; else as `act`."""
        policy = self.nets.policy(self._actor(params, explore), latent.features, legal)
        if self.planner is None:
            tried = policy.explore(key, self.config.behaviour.action_noise)
            action = jax.tree.map(lambda a, b: jnp.where(explore, a, b.astype(a.dtype)), tried, policy.mode())
            return action, plan
        plan_key, noise_key = jax.random.split(key)
        model = self._planned_in(params)
        action, plan = self.planner.plan(model, params, plan_key, latent, plan, legal)
        noise = jnp.where(explore, self.config.behaviour.planner_noise, 0.0)
        return explored(model.specs, noise_key, action, policy, noise), plan

    def collector(self, env_steps: Any) -> Any:
        """Who collects experience after so many `env_steps` of a run, as `explore` of `act`."""
        if self.leader != "both":
            return np.bool_(True)
        where = jnp.where if isinstance(env_steps, jax.Array) else np.where
        until = min(self.config.behaviour.explore_steps, MOST)
        return where(env_steps < until, EXPLORER, SAMPLED).astype(np.int32)

    def _actor(self, params: Params, explore: Array) -> Params:
        """The parameters of whoever leads."""
        if self.leader == "policy":
            return params["actor"]
        explorer = as_explorer(params)["actor"]
        if self.leader == "explorer":
            return explorer
        return jax.tree.map(lambda a, b: jnp.where(explore == EXPLORER, a, b), explorer, params["actor"])

    def _planned_in(self, params: Params) -> Model:
        """What the planner tries actions in."""
        model = learned_model(self.model, self.nets)
        return (
            model if self.reward_fn is None else model.rewarded(seen_reward(self.model, params, self.reward_fn))
        )

    def update(
        self, state: AgentState, batch: Batch, division: Division = ALONE
    ) -> tuple[AgentState, Latent, Metrics]:
        """One step on a batch `[B, C + T, ...]`: one loss, one backward pass, one optimiser.

        Gives the new state, the posterior latents `[B, T, ...]` for the replay, and scalar metrics. Where the
        loss or the gradient is not finite, nothing is learned: `metrics["skipped"]` is 1, all others are NaN, and
        the latents are not to be kept.
        """
        keys = jax.random.split(jax.random.fold_in(state.key, state.step))
        (loss, (losses, (norm, explorer), latents, metrics)), gradients = jax.value_and_grad(
            lambda params: self._loss(division.gather(params), state, batch, keys, division.parts), has_aux=True
        )(state.params)
        applied, norms = self._apply(state._replace(norm=norm, explorer=explorer), gradients)
        finite = jnp.isfinite(loss) & jnp.isfinite(norms["optimizer/gradient_norm"])
        metrics |= norms | {f"loss/{key}": value.mean() for key, value in losses.items()}
        metrics = {key: jnp.where(finite, value, jnp.nan) for key, value in metrics.items()}
        metrics["skipped"] = 1.0 - finite
        return _unless_skipped(finite, applied, state), jax.lax.stop_gradient(latents), metrics

    def _loss(
        self, params: Params, state: AgentState, batch: Batch, keys: Array, parts: int
    ) -> tuple[Array, tuple[Losses, tuple[PercentileRange, Any], Latent, Metrics]]:
        """The weighted sum of all losses, as the paper orders them, and what changes beside the parameters."""
        hyper = state.hyper
        gamma = 1.0 - 1.0 / hyper["discount_horizon"]
        model, rules = self.model.discounting(gamma), Rules.of(self.config.behaviour, self.model.act_specs)
        batch = model.clipped(batch)

        # World model, from the replayed sequences.
        losses, latents, metrics = model.loss(params, batch, keys[0], hyper["free_nats"], gamma, parts)

        # Behaviour, from rollouts imagined at every posterior; the model gets no gradient from them.
        frozen = jax.lax.stop_gradient(params)
        starts = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), jax.lax.stop_gradient(latents))
        policy = imagined_policy(model, self.nets, params, rules.differentiable)
        horizon = self.config.behaviour.imagination_horizon
        trajectory = imagine(model, frozen, policy, starts, keys[1], horizon)
        imagined, first_return, norm, more = behaviour_losses(
            model, self.nets, params, state.slow_critic, state.norm, trajectory, hyper,
            self.config.behaviour.return_norm, parts, rules,
        )  # fmt: skip
        shape = batch["reward"][:, 1:].shape
        losses |= {key: value.reshape(shape) for key, value in imagined.items()}

        # The critic on replayed rewards; its gradient reaches the model.
        if self.config.behaviour.replay_value_loss:
            losses["repval"] = replay_value_loss(
                self.nets, params, state.slow_critic, latents, drop_context(batch),
                first_return.reshape(shape), gamma, hyper["lambda"], rules,
            )  # fmt: skip

        # The explorer, from rollouts of its own.
        metrics, explorer = metrics | more, state.explorer
        if isinstance(explorer, ExplorerState):
            wanted, explorer, more = explorer_losses(
                model, self.nets, params, explorer, starts, jax.random.fold_in(keys[1], 1), hyper,
                self.config.behaviour, parts, rules,
            )  # fmt: skip
            losses |= {key: value.reshape(shape) for key, value in wanted.items()}
            metrics |= more

        changed = norm, explorer
        if not self.config.loss.harmony:
            return weighted_sum(losses, hyper["scales"]), (losses, changed, latents, metrics)
        total = weighted_sum(losses, harmonised(hyper["scales"], params["harmony"])) + price(params["harmony"])
        return total, (losses, changed, latents, metrics | sigmas(params["harmony"]))

    def _apply(self, state: AgentState, gradients: Params) -> tuple[AgentState, Metrics]:
        """The optimiser step and the moving averages that follow it."""
        hyper = state.hyper
        updates, optimizer = self.optimizer.update(gradients, state.optimizer, state.params)
        rate = optim.warmed_up(hyper["learning_rate"], hyper["warmup"], state.step)
        params = optim.descend(self.config.optimizer, state.params, updates, rate, hyper["warmup"], state.step)
        follow = optim.slow_rate(hyper["slow_critic_rate"], self.config.behaviour.slow_critic_every, state.step)
        slow, explorer = optax.incremental_update(params["critic"], state.slow_critic, follow), state.explorer
        if isinstance(explorer, ExplorerState):
            explorer = explorer.following(params, follow)
        weight = optim.average_weight(hyper["average"], state.step)
        average = optax.incremental_update(params, state.average, weight)
        new = state._replace(
            step=state.step + 1, params=params, slow_critic=slow, average=average, optimizer=optimizer,
            explorer=explorer,
        )  # fmt: skip
        return new, {"optimizer/gradient_norm": optax.global_norm(gradients), "optimizer/rate": rate}


def _unless_skipped(finite: Array, applied: AgentState, before: AgentState) -> AgentState:
    """`applied` where the update was finite, else `before`, with the update counted either way."""
    chosen = jax.tree.map(lambda a, b: jnp.where(finite, a, b), applied, before)
    total, in_a_row = before.skips
    skips = Skips(total + ~finite, jnp.where(finite, 0, in_a_row + 1))
    return chosen._replace(step=applied.step, skips=skips)


def compute_dtype(precision: str) -> Any:
    """float32 on CPU (where bfloat16 is emulated), bfloat16 on accelerators, unless asked otherwise."""
    if precision == "auto":
        precision = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return jnp.dtype(precision)


def count_parameters(params: Params) -> int:
    """Number of trained numbers."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
