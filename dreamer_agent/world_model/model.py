"""The world model as a whole: its networks, and the composite loss that trains them (V3, eqs. 2 to 5)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dreamer_agent import ops
from dreamer_agent.config import ModelConfig
from dreamer_agent.distributions import Bernoulli, Certain, Number, Prediction, TwoHot, number
from dreamer_agent.errors import ConfigError
from dreamer_agent.nets import Head, Net, Params, Style, from_linen
from dreamer_agent.specs import Specs, is_mask, masked_actions
from dreamer_agent.world_model.barlow import BARLOW, Projector, barlow_losses
from dreamer_agent.world_model.decoder import make_decoder, reconstruction
from dreamer_agent.world_model.encoder import Observation, make_encoder
from dreamer_agent.world_model.ensemble import Ensemble
from dreamer_agent.world_model.latent import Latent, encode_actions, zero_actions
from dreamer_agent.world_model.mask import LegalActions, MaskPredictor
from dreamer_agent.world_model.rssm import RSSM

Array = jax.Array
Batch = dict[str, Any]
Losses = dict[str, Array]
CONTEXT = 1  # replayed steps before the trained ones: they give the first latent and the previous action


@dataclass(frozen=True)
class WorldModel:
    """Encoder, RSSM, decoder, reward and continue heads, and the spaces they were built for.

    Where the environment masks actions, `mask` predicts the masks for imagination. Without a continue head every
    step goes on with the discount `gamma`. A decoder-free model has a `projector`, and a decoder only if it is to
    be looked at. With an `ensemble`, the model knows its doubt.
    """

    encoder: Net
    rssm: RSSM
    decoder: Net | None
    reward: Net
    cont: Net | None
    mask: MaskPredictor | None
    obs_specs: Specs
    act_specs: Specs
    bins: np.ndarray | None
    config: ModelConfig
    dtype: Any
    free_nats_of: str = "step"
    gamma: Any = None
    projector: Net | None = None
    ensemble: Ensemble | None = None

    @classmethod
    def create(
        cls, obs_specs: Specs, act_specs: Specs, config: ModelConfig, dtype: Any, free_nats_of: str = "step"
    ) -> WorldModel:
        """The networks of `config` for these spaces; `free_nats_of` as of `LossConfig`."""
        style = Style.of(config)
        head: dict[str, Any] = dict(layers=config.head_layers, units=config.units, dtype=dtype, style=style)
        goes_on = head | {"layers": config.continue_layers or config.head_layers, "features": 1}
        rssm = RSSM.create(config, dtype)
        return cls(
            encoder=make_encoder(obs_specs, config, dtype),
            rssm=rssm,
            decoder=make_decoder(without_masks(obs_specs), config, dtype) if config.probe else None,
            reward=from_linen(Head(features=config.bins if config.twohot else 1, scale=0.0, **head)),
            cont=from_linen(Head(**goes_on)) if config.continue_head else None,
            mask=MaskPredictor.create(act_specs, head) if masked_actions(obs_specs, act_specs) else None,
            obs_specs=obs_specs,
            act_specs=act_specs,
            bins=ops.symexp_bins(config.bins) if config.twohot else None,
            config=config,
            dtype=dtype,
            free_nats_of=free_nats_of,
            projector=from_linen(Projector(dtype)) if config.decoder_free else None,
            ensemble=Ensemble.create(rssm, config.ensemble) if config.ensemble else None,
        )

    def discounting(self, gamma: Any) -> WorldModel:
        """This model with the discount of steps that go on, for one that has no continue head."""
        return dataclasses.replace(self, gamma=gamma)

    def clipped(self, batch: Batch) -> Batch:
        """`batch` with the rewards that are learned from, within [-1, 1] if they are clipped."""
        if self.config.reward_clip == "none":
            return batch
        return {**batch, "reward": jnp.tanh(batch["reward"])}

    def init(self, key: Array) -> Params:
        """Parameters of all networks, by name."""
        keys = jax.random.split(key, 5 if self.mask is None else 6)
        obs = {k: jnp.zeros((1, *spec.shape), spec.dtype) for k, spec in self.obs_specs.items()}
        encoder = self.encoder.init(keys[0], obs)
        token = jax.eval_shape(self.encoder.apply, encoder, obs)
        action = encode_actions(self.act_specs, zero_actions(self.act_specs, (1,)), self.dtype)
        latent = self.rssm.initial(1)
        params = {
            "encoder": encoder,
            "rssm": self.rssm.init(keys[1], action, jnp.zeros(token.shape, token.dtype)),
        }
        if self.decoder is not None:
            params["decoder"] = self.decoder.init(keys[2], latent)
        params["reward"] = self.reward.init(keys[3], latent.features)
        if self.projector is not None:
            own_key = jax.random.fold_in(key, 1)  # the other networks start as they would without it
            params["projector"] = self.projector.init(own_key, latent.features, jnp.zeros(token.shape))
        if self.ensemble is not None:
            params["ensemble"] = self.ensemble.init(jax.random.fold_in(key, 2))
        if self.cont is not None:
            params["cont"] = self.cont.init(keys[4], latent.features)
        if self.mask is not None:
            params["mask"] = self.mask.net.init(keys[5], latent.features)
        return params

    def predict_reward(self, params: Params, features: Array) -> TwoHot | Number:
        """The reward received on arriving at `features` `[..., F]`."""
        return number(self.reward.apply(params["reward"], features), self.bins, self.config.symlog)

    def predict_continue(self, params: Params, features: Array) -> Bernoulli | Certain:
        """gamma times the probability that the episode goes on from `features` `[..., F]`."""
        if self.cont is None:
            return Certain(jnp.broadcast_to(jnp.asarray(self.gamma, jnp.float32), features.shape[:-1]))
        return Bernoulli(self.cont.apply(params["cont"], features)[..., 0])

    def reconstruct(self, params: Params, latent: Latent) -> dict[str, Prediction]:
        """A prediction of every observation key from latents `[..., ...]`; `ConfigError` without a decoder."""
        return self.decode(params, latent) | self.predict_masks(params, latent)

    def decode(self, params: Params, latent: Latent) -> dict[str, Prediction]:
        """`reconstruct` without the masks."""
        raw = self.needed_decoder().apply(params["decoder"], latent)
        return reconstruction(self.obs_specs, raw, self.config)

    def predict_masks(self, params: Params, latent: Latent) -> dict[str, Prediction]:
        """A prediction of every mask, if there are any."""
        return {} if self.mask is None else self.mask.predict(params["mask"], latent.features)

    def needed_decoder(self) -> Net:
        """The decoder; `ConfigError` if there is none."""
        if self.decoder is None:
            raise ConfigError(
                "This model was trained with model.probe=false and cannot show what it imagines: train it with "
                "model.probe=true, which adds a decoder that it does not learn from."
            )
        return self.decoder

    def doubt(self, params: Params, features: Array) -> Array:
        """How much the ensemble disagrees about what is at features `[N, F]`, in nats, `[N]`.

        Raises `ConfigError` without an ensemble.
        """
        if self.ensemble is None:
            raise ConfigError(
                "This model was trained without an ensemble and has no measure of its doubt: train it with "
                "model.ensemble=8."
            )
        return self.ensemble.disagreement(params["ensemble"], features)

    def imagined_legal(self, params: Params, features: Array) -> LegalActions:
        """The actions that are probably legal at `features` `[..., F]`; None where nothing is masked."""
        return None if self.mask is None else self.mask.legal(params["mask"], features)

    def observe_step(
        self, params: Params, key: Array, latent: Latent, action: Any, obs: Observation, is_first: Array
    ) -> Latent:
        """The posterior latent `[B, ...]` after one real step: what acting needs."""
        token = self.encoder.apply(params["encoder"], obs)
        encoded = encode_actions(self.act_specs, action, self.dtype)
        return self.rssm.observe_step(params["rssm"], key, latent, encoded, token, is_first)[0]

    def observe(self, params: Params, batch: Batch, key: Array, parts: int = 1) -> tuple[Latent, Array]:
        """Posterior latents and logits `[B, T, ...]` of a batch `[B, C + T, ...]`; see `RSSM.observe`."""
        return self._observe(params, batch, key, parts)[:2]

    def _observe(self, params: Params, batch: Batch, key: Array, parts: int) -> tuple[Latent, Array, Array]:
        """As `observe`, with the tokens `[B, T, E]`."""
        stored = jax.tree.map(lambda x: x[:, CONTEXT - 1], batch["latent"])
        start = self.rssm.kind.unpack(stored, self.dtype)
        previous = jax.tree.map(lambda x: x[:, CONTEXT - 1 : -1], batch["action"])
        trained = drop_context(batch)
        tokens = self.encoder.apply(params["encoder"], trained["obs"])
        actions = encode_actions(self.act_specs, previous, self.dtype)
        observed = self.rssm.observe(params["rssm"], key, start, actions, tokens, trained["is_first"], parts)
        return *observed, tokens

    def loss(
        self, params: Params, batch: Batch, key: Array, free_nats: Array, gamma: Array, parts: int = 1
    ) -> tuple[Losses, Latent, dict[str, Array]]:
        """The model's losses `[B, T]` by name, its posterior latents `[B, T, ...]`, and metrics.

        `parts` as of `RSSM.observe`.
        """
        latents, logits, tokens = self._observe(params, batch, key, parts)
        shape = logits.shape[:2]
        # Heads run on plain matrices `[B * T, F]`; see `behaviour.losses.flatten_rows`.
        rows, row_logits, data = jax.tree.map(
            lambda x: x.reshape(-1, *x.shape[2:]), (latents, logits, drop_context(batch))
        )
        features = rows.features
        losses = self.reconstruction_losses(params, rows, data["obs"])
        if self.projector is not None:
            told = self.projector.apply(params["projector"], features, tokens.reshape(len(features), -1))
            both = barlow_losses(told, tokens.reshape(len(features), -1))
            losses |= {key: jnp.full(len(features), value) for key, value in zip(BARLOW, both, strict=True)}
        losses["reward"] = self.predict_reward(params, features).loss(data["reward"])
        target = (1.0 - data["is_terminal"]) * gamma
        if isinstance(goes_on := self.predict_continue(params, features), Bernoulli):
            losses["continue"] = goes_on.loss(target)
        if self.ensemble is not None:
            losses["ensemble"] = self.ensemble.loss(params["ensemble"], rows.deter, row_logits)
        kl, metrics = self.kl_losses(params, rows, row_logits, free_nats)
        return {key: value.reshape(shape) for key, value in (losses | kl).items()}, latents, metrics

    def reconstruction_losses(self, params: Params, rows: Latent, obs: Observation) -> Losses:
        """`rec/<key>` `[N]` of every observation. That of a decoder-free model trains the decoder alone; masks,
        which imagination needs, train the model in any case.
        """
        predictions: dict[str, Prediction] = {}
        if self.decoder is not None:
            free = self.config.decoder_free
            predictions = self.decode(params, jax.lax.stop_gradient(rows) if free else rows)
        predictions |= self.predict_masks(params, rows)
        return {f"rec/{key}": prediction.loss(obs[key]) for key, prediction in predictions.items()}

    def kl_losses(
        self, params: Params, latents: Latent, logits: Array, free_nats: Array
    ) -> tuple[Losses, dict[str, Array]]:
        """KL of posterior and prior, once to train the prior and once the posterior, above the free nats.

        With the scales alpha and 1 - alpha this is V2's balance, with equal ones the plain KL of V1.
        """
        prior_logits = self.rssm.prior.apply(params["rssm"]["prior"], latents.deter)
        stop = jax.lax.stop_gradient
        posterior, prior = self.rssm.distribution(logits), self.rssm.distribution(prior_logits)
        fixed_posterior = self.rssm.distribution(stop(logits))
        fixed_prior = self.rssm.distribution(stop(prior_logits))
        losses = {
            "dyn": self.above(free_nats, fixed_posterior.kl(prior)),
            "rep": self.above(free_nats, posterior.kl(fixed_prior)),
        }
        metrics = {
            "model/kl": fixed_posterior.kl(fixed_prior).mean(),
            "model/prior_entropy": fixed_prior.entropy().mean(),
            "model/posterior_entropy": fixed_posterior.entropy().mean(),
        }
        return losses, metrics

    def above(self, free_nats: Array, kl: Array) -> Array:
        """max(kl, free nats) `[B * T]`: of every step, or of the mean over all of them."""
        if self.free_nats_of == "step":
            return jnp.maximum(kl, free_nats)
        return jnp.broadcast_to(jnp.maximum(kl.mean(), free_nats), kl.shape)


def without_masks(specs: Specs) -> Specs:
    """Those that a decoder shows."""
    return {key: spec for key, spec in specs.items() if not is_mask(key)}


def drop_context(batch: Batch) -> Batch:
    """The trained steps `[B, T, ...]` of a batch `[B, C + T, ...]`, without the stored latents."""
    kept = {key: value for key, value in batch.items() if key != "latent"}
    return jax.tree.map(lambda x: x[:, CONTEXT:], kept)
