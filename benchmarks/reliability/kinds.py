"""The runs that are killed: one small configuration for each kind of environment and loop."""

from __future__ import annotations

from dreamer_agent.config import Config, load_config

SMALL = (
    "model.deter=16", "model.hidden=8", "model.classes=4", "model.units=16", "model.depth=2", "model.stoch=4",
    "model.bins=31", "model.blocks=2", "replay.batch_size=4", "replay.batch_length=8", "replay.ratio=8",
    "replay.prefill=100", "behaviour.imagination_horizon=5", "env.num_envs=2", "optimizer.warmup=10",
    "optimizer.learning_rate=1e-3", "train.log_every=50", "train.checkpoint_every=100", "train.steps=1000",
    "train.eval_episodes=2", "train.eval_max_length=200",
)  # fmt: skip

KINDS = {
    "classic": ("env.id=CartPole-v1", "replay.capacity=700"),  # so that old steps are dropped on the way
    "jax": ("env.id=toy:catch", "train.eval_every=500"),
    "jax_device": ("env.id=toy:catch", "train.loop=device"),
    "pair": ("env.id=benchmarks.reliability.worlds:Walk",),  # with get_state and set_state of its own
    "mujoco": ("env.id=InvertedPendulum-v5", "env.action_repeat=2"),
    "atari": ("env.id=ale_py:ALE/Pong-v5", "env.kwargs.obs_type=ram", "train.eval_episodes=1"),
    "uncapturable": ("env.id=benchmarks.reliability.worlds:Secret",),
}
CUT = ("uncapturable",)  # whose episodes are cut at a resume: the run is exact from there on


def config_of(kind: str, *overrides: str) -> Config:
    """The configuration of a kind."""
    return load_config(overrides=[*SMALL, *KINDS[kind], *overrides])
