"""Typed, frozen configuration: the one source of truth, with one commented default for each field.

A configuration is `Config()` plus presets (YAML files in `configs/`, data only) plus overrides
(`key=value`). An unknown key or a value of the wrong type names what was meant.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from dreamer_agent.errors import ConfigError
from dreamer_agent.files import write_text
from dreamer_agent.limits import check_limits
from dreamer_agent.values import keys_of, merged, nearest, parse_override, to_dict

RENAMED = {"env.isolate": "processes"}  # what older versions called otherwise


@dataclass(frozen=True)
class EnvConfig:
    """Which environment, and how it is run."""

    id: str = "CartPole-v1"  # a gymnasium id, "module:Id-v0", or "suite:task" (`dreamer-agent envs`)
    num_envs: int = 4  # environments stepped together
    action_repeat: int = 1  # env.step calls for one action; their rewards are summed
    kwargs: Mapping[str, Any] = field(default_factory=dict)  # handed to the environment's constructor
    route: Mapping[str, Any] = field(default_factory=dict)  # observation key -> image, onehot, vector; or by rule
    processes: int = 0  # processes over which the environments are spread, to step at the same time; 0: this one
    ray: str = ""  # a cluster of Ray whose machines have them: "auto", HOST:PORT or "local"; empty: this machine
    timeout: float = 60.0  # seconds that an environment there may take for an answer, the first one five times
    max_faults: int = 5  # faults in a row of one environment that a restart mends; 0: the first ends the run


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the networks. A size preset sets the first five (deter = 8 hidden from 1m on)."""

    deter: int = 512  # D, width of the deterministic state h
    hidden: int = 64  # width of the layers inside the RSSM
    classes: int = 4  # K, classes of each categorical latent
    units: int = 64  # width of the encoder, decoder and head MLPs
    depth: int = 4  # base channels of the convolutions
    stoch: int = 32  # S, number of categorical latents
    blocks: int = 8  # g, blocks of the recurrent cell and of the image decoder
    encoder: str = "linen"  # a registered encoder: linen, haiku, or your own
    encoder_layers: int = 3  # MLP layers for vector observations
    decoder_layers: int = 3  # MLP layers of the vector decoder
    head_layers: int = 1  # MLP layers of the reward and continue heads
    policy_layers: int = 3  # MLP layers of actor and critic
    channel_multipliers: tuple[int, ...] = (2, 3, 4, 4)  # of depth, one for each halving of the image
    kernel: int = 5  # side of the convolution kernels
    strided: bool = False  # halve images by strided convolutions instead of max-pooling (cheaper)
    convs: Literal["pooled", "plain"] = "pooled"  # those of V3; or of V1 and V2, for images of 64 x 64
    image_activation: Literal["", "silu", "elu", "relu"] = ""  # between images; "": activation
    latent: Literal["categorical", "gaussian"] = "categorical"  # z: S categoricals, or S normals (V1)
    cell: Literal["block_gru", "norm_gru", "gru"] = "block_gru"  # from h, z and an action to h: V3, V2, V1
    activation: Literal["silu", "elu", "relu"] = "silu"  # of all layers but the block GRU's own
    norm: Literal["rms", "layer", "none"] = "rms"  # before the activation, of the same layers
    prior_layers: int = 2  # layers from h to the prior of z
    reconstruction: Literal["squared", "gaussian"] = "squared"  # error, of images in [0, 1]; or a unit normal's
    decoder_free: bool = False  # learn from the redundancy reduction of R2-Dreamer instead of reconstruction
    ensemble: int = 0  # priors beside the one, whose disagreement is the model's doubt (Plan2Explore); 0: none
    probe: bool = (
        True  # decoder-free: still train a decoder, which the model does not learn from, to be looked at
    )
    reward_clip: Literal["none", "tanh"] = "none"  # what the reward head and all returns see of a reward
    continue_head: bool = True  # off: every step goes on, with the discount alone
    continue_layers: int = 0  # of the continue head; 0: head_layers
    critic_layers: int = 0  # of the critic; 0: policy_layers
    action_distribution: Literal["bounded_normal", "truncated_normal", "tanh_normal"] = (
        "bounded_normal"  # of continuous actions: V3, V2, V1
    )
    unimix: float = 0.01  # share of the uniform distribution in every latent categorical
    policy_unimix: float = 0.0  # and in every discrete action of the policy; the reference leaves it out
    bins: int = 255  # two-hot bins of the reward head and the critic
    twohot: bool = True  # off: reward head and critic predict one number each, by its squared error
    symlog: bool = True  # vectors, and numbers without two-hot bins, in symlog space; off: as they are


@dataclass(frozen=True)
class LossConfig:
    """Scales of the losses, and the free bits. All numbers enter the update as data."""

    reconstruction: float = 1.0  # each observation key
    barlow: float = 0.05  # of a decoder-free model
    redundancy: float = 5e-4  # share of the squared correlations off the diagonal in it
    reward: float = 1.0
    cont: float = 1.0  # the continue head
    dynamics: float = 1.0  # KL that trains the prior
    representation: float = 0.1  # KL that trains the posterior
    policy: float = 1.0
    value: float = 1.0
    replay_value: float = 0.3
    free_nats: float = 1.0  # KL below which neither KL loss is paid
    free_nats_of: Literal["step", "mean"] = "step"  # the KL of every step, or its mean over the batch (V1, V2)
    harmony: bool = False  # learn the scales of observation, reward and dynamics (HarmonyDream)


@dataclass(frozen=True)
class BehaviourConfig:
    """Actor and critic."""

    imagination_horizon: int = 15  # H, steps imagined from every posterior
    discount_horizon: float = 333.0  # the discount is 1 - 1/horizon
    lambda_: float = 0.95  # of the lambda-return
    entropy: float = 3e-4  # scale of the entropy bonus
    slow_critic_rate: float = 0.02  # moving average of the slow critic, per update
    return_rate: float = 0.01  # moving average of the return percentiles, per update
    return_norm: bool = True  # advantages over the range of returns; off: as they are
    replay_value_loss: bool = True  # off: actor and critic learn strictly from imagination
    actor_gradient: Literal["reinforce", "dynamics", "mix", "auto"] = (
        "reinforce"  # dynamics: backpropagation through the model; auto: that, unless an action is discrete (V2)
    )
    actor_mix: float = 0.1  # share of the dynamics' gradient in "mix"
    slow_critic: Literal["regularizer", "target", "unused"] = (
        "regularizer"  # what the critic is drawn to (V3), or what makes returns and baselines (V2); unused: V1
    )
    slow_critic_every: int = 1  # updates between two steps of the slow critic
    action_noise: float = 0.0  # in training: std added to actions in [-1, 1], or share of random choices (V1)
    explore_steps: int = 0  # env steps that an explorer collects, from the first one, which goes after doubt
    explore_reward: float = 0.0  # what it makes of the predicted reward, beside doubt in units of its mean
    planner: str = ""  # acts instead of the policy: mppi, cem, shooting, gradient, tree, or your own
    planner_noise: float = 0.3  # of its actions in training: standard deviation; of classes the policy's share


@dataclass(frozen=True)
class OptimizerConfig:
    """LaProp behind adaptive gradient clipping, or Adam for each of model, actor and critic."""

    name: Literal["laprop", "adam"] = "laprop"
    learning_rate: float = 4e-5
    actor_learning_rate: float = 0.0  # 0: learning_rate
    critic_learning_rate: float = 0.0  # 0: learning_rate
    warmup: int = 1000  # updates until the learning rate is reached, linearly from zero
    clip: float = 0.3  # AGC: largest ratio of gradient norm to parameter norm, per tensor; adam: largest norm
    beta1: float = 0.9  # momentum
    beta2: float = 0.999  # second moment
    eps: float = 1e-20
    weight_decay: float = 0.0  # share of every parameter that an update takes away, whatever the learning rate
    average: float = 500.0  # updates (at most a tenth of all) whose parameters are averaged to be scored; 1: none


@dataclass(frozen=True)
class ReplayConfig:
    """The store of experience and how it is replayed."""

    capacity: int = 5_000_000  # steps kept over all environments
    batch_size: int = 16  # B, sequences in a batch
    batch_length: int = 64  # T, trained steps in a sequence (one context step comes before them)
    ratio: float = 32.0  # replayed steps per env step; updates per env step = ratio / (B * T)
    prefill: int = 1024  # env steps before the first update
    online: bool = True  # every fresh window is trained on at least once
    spill: bool = False  # keep the replay in a file of the run directory instead of main memory
    max_gb: float = 0.0  # refuse a larger replay; 0 means the memory that is free at start


@dataclass(frozen=True)
class TrainConfig:
    """The loop around the update."""

    steps: int = 100_000  # env steps, after action repeat and without reset rows
    log_every: int = 500  # env steps between rows of metrics
    checkpoint_every: int = 10_000  # env steps between checkpoints
    keep_checkpoints: int = 2
    eval_every: int = 0  # env steps between evaluations on the way; 0 means only at the end
    eval_episodes: int = 20  # episodes of an evaluation
    eval_envs: int = 10  # environments that an evaluation steps together
    eval_max_length: int = 27_000  # env steps after which an episode of an evaluation counts as it stands
    loop: Literal["host", "device"] = "host"  # device: acting, replay and updates as one program; JAX-native only
    overlap: bool = True  # step the environments and sample while updates run; off: wait, and see the same
    max_skipped: int = 10  # updates in a row that are not finite until the run goes back to a checkpoint, once
    updates_per_dispatch: int = 0  # updates in one compiled call; 0: what the ratio owes for an act, at most 16
    loggers: tuple[str, ...] = ()  # registered loggers beside metrics.jsonl and TensorBoard: wandb, or your own


@dataclass(frozen=True)
class MeshConfig:
    """The devices of one run."""

    data: int = 1  # devices that share the rows of a batch; 0, and in several processes: all there are
    fsdp: int = 1  # devices among which each of these divides its rows and the large parameters once more


@dataclass(frozen=True)
class Config:
    """Everything that a run is made of."""

    env: EnvConfig = EnvConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    behaviour: BehaviourConfig = BehaviourConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    replay: ReplayConfig = ReplayConfig()
    train: TrainConfig = TrainConfig()
    mesh: MeshConfig = MeshConfig()
    seed: int = 0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: float32 on CPU, else bfloat16
    init_from: str = ""  # a run directory or exported agent whose weights a fresh run starts from
    plugins: tuple[str, ...] = ()  # modules imported first; they may register encoders, suites and loggers

    @property
    def updates_per_env_step(self) -> float:
        """ratio / (B * T)."""
        return self.replay.ratio / (self.replay.batch_size * self.replay.batch_length)


def load_config(presets: Iterable[str] = (), overrides: Iterable[str] = ()) -> Config:
    """`Config()` with `presets` (names or paths, later ones win) and `key=value` overrides on top.

    Raises `ConfigError` for an unknown preset or key, or a value of the wrong type.
    """
    config = Config()
    for preset in presets:
        config = merge(config, read_yaml(find_preset(preset)))
    for override in overrides:
        config = merge(config, parse_override(override))
    return validate(config)


def merge(config: Any, changes: Mapping[str, Any], prefix: str = "") -> Any:
    """`config` (any of the dataclasses above) with the nested `changes` applied and checked."""
    return merged(config, changes, _unknown_key, prefix)


def save_config(config: Config, path: Path) -> None:
    """Write `config` as YAML that `read_config` reads back."""
    write_text(path, yaml.safe_dump(to_dict(config), sort_keys=False))


def read_config(path: Path) -> Config:
    """The configuration saved at `path`, perhaps by an older version."""
    return validate(merge(Config(), _renamed(read_yaml(path))))


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping; only plain data is ever built from it."""
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}".replace("\n", " ")) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path} should hold keys and values, got {type(content).__name__}.")
    return content


def _renamed(content: dict[str, Any]) -> dict[str, Any]:
    """`content` without `env.isolate`, which was what `env.processes` is with a process for each environment."""
    env = content.get("env")
    if not isinstance(env, Mapping) or "isolate" not in env:
        return content
    processes = env.get("num_envs", EnvConfig.num_envs) if env["isolate"] else 0
    return {**content, "env": {"processes": processes, **{k: v for k, v in env.items() if k != "isolate"}}}


def presets_folder() -> Path:
    """Where the presets lie: inside an installed package, beside it in a checkout."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "configs"


def preset_names() -> list[str]:
    """All shipped presets, sizes as `size/1m`."""
    folder = presets_folder()
    found = sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))
    return [name for name in found if not name.startswith("bench/")]  # definitions of benchmarks


def find_preset(name: str) -> Path:
    """The file of a shipped preset, or the YAML file at the path `name`."""
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise ConfigError(f"There is no preset file '{name}': check the path.")
        return path
    if name not in preset_names():
        raise ConfigError(f"Unknown preset '{name}'{nearest(name, preset_names())}")
    return presets_folder() / f"{name}.yaml"


def validate(config: Config) -> Config:
    """`config`, if its values fit together; else a `ConfigError` that names the field."""
    check_limits(config)
    return config


def all_keys() -> list[str]:
    """Every key of a configuration, dotted."""
    return keys_of(Config())


def _unknown_key(path: str, config: Any, prefix: str) -> str:
    """The sentence for a key that does not exist, with what was probably meant."""
    known = [f"{prefix}{f.name}" for f in dataclasses.fields(config)]
    everywhere = known + [key for key in all_keys() if key not in known]
    name = path.rsplit(".", 1)[-1]
    same_name = [key for key in everywhere if key.rsplit(".", 1)[-1] == RENAMED.get(path, name)]
    return f"Unknown configuration key '{path}'{nearest(path, everywhere, same_name)}"
