"""The trained world model, with its actor and critic, as a model to plan with."""

from __future__ import annotations

from collections.abc import Callable

from dreamer_agent.behaviour import ActionDistribution, ActorCritic
from dreamer_agent.nets import Params
from dreamer_agent.planning.model import Array, Model, Outcome, RewardFn
from dreamer_agent.world_model import Actions, Latent, LegalActions, WorldModel
from dreamer_agent.world_model.imagine import imagine_step

Observed = dict[str, Array]  # by key, [N, ...], in the form that the world model reconstructs
ObservedReward = Callable[[Observed, Actions, Observed], Array]  # before, actions, after: rewards [N]


def learned_model(model: WorldModel, nets: ActorCritic) -> Model:
    """Over latents `[N, ...]`, with all parameters of an agent.

    The predicted continue of DreamerV3 holds the discount already. The policy keeps to the legal actions that it
    is told, or else to those that the model predicts; planners that draw actions themselves know only what they
    are told of the first step. Doubt is the disagreement of the ensemble, in nats, where there is one.
    """

    def value(params: Params, latent: Latent) -> Array:
        return nets.value(params["critic"], latent.features).mean()

    def step(params: Params, key: Array, actions: Actions, latent: Latent) -> tuple[Outcome, Latent]:
        new = imagine_step(model, params, key, latent, actions)
        reward = model.predict_reward(params, new.features).mean()
        discount = model.predict_continue(params, new.features).prob()
        return Outcome(reward, discount, value(params, new)), new

    def policy(params: Params, latent: Latent, legal: LegalActions = None) -> ActionDistribution:
        legal = legal or model.imagined_legal(params, latent.features)
        return nets.policy(params["actor"], latent.features, legal)

    def doubt(params: Params, latent: Latent) -> Array:
        return model.doubt(params, latent.features)

    return Model(nets.act_specs, step, policy, value, doubt if model.ensemble else None)


def seen_reward(model: WorldModel, params: Params, reward: ObservedReward) -> RewardFn:
    """`reward` of decoded observations, actions and decoded next observations as one of latents, for
    `Model.rewarded`; the likeliest observations are taken.
    """

    def decoded(latent: Latent) -> Observed:
        return {key: prediction.mode() for key, prediction in model.reconstruct(params, latent).items()}

    return lambda latent, actions, new: reward(decoded(latent), actions, decoded(new))
