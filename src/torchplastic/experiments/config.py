"""The settings of a run as frozen dataclasses, checked on construction.

Every field is a flag of `plastic train`, its docstring the help text, and a key of config.json.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import dacite
import tyro

from torchplastic import RULES, functional

C = TypeVar("C", bound="Config")
if TYPE_CHECKING:
    Impl = str
else:
    Impl = Literal[functional.impls()]


def at_least(name: str, value: float, smallest: float) -> None:
    """Raise a ValueError that names the flag and both numbers if the value is too small."""
    if not value >= smallest:
        raise ValueError(f"{name} must be at least {smallest:g}; got {value:g}.")


@dataclass(frozen=True)
class PlasticConfig:
    """A plastic layer."""

    alpha: Literal["full", "neuron", "shared", "none"] = "full"
    """Plasticity coefficients alpha: per connection, per neuron, one for all, or none."""
    rule: Literal["hebb", "oja"] = "hebb"
    """Plasticity rule: decaying Hebb, or Oja."""
    eta: float = 0.01
    """Initial plasticity rate eta."""
    learn_eta: bool = False
    """Train eta by gradient descent."""
    w_init_std: float = 0.01
    """Standard deviation of the initial fixed weights w."""
    alpha_init_std: float = 0.01
    """Standard deviation of the initial plasticity coefficients alpha."""

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"model.rule must be one of {', '.join(RULES)}; got {self.rule}.")
        if not 0 <= self.eta <= 1:
            raise ValueError(f"model.eta must lie in 0 … 1; got {self.eta:g}.")
        at_least("model.w_init_std", self.w_init_std, 0)
        at_least("model.alpha_init_std", self.alpha_init_std, 0)


@dataclass(frozen=True)
class Model(PlasticConfig):
    """A recurrent network."""

    kind: Literal["plastic", "rnn", "lstm"] = "plastic"
    """Plastic network, the same network without plasticity (rnn), or an LSTM."""
    clamped: bool = True
    """LSTM only: input bits override their cells (input and output gates open, forget gate shut)."""
    forget_bias: float = 0.0
    """LSTM only: added to the initial biases of the forget gates; 1 keeps the gates open at the start."""
    impl: Impl = "auto"
    """Implementation of the plastic layer; auto: the fastest for this run."""

    @property
    def coefficients(self) -> str:
        """The kind of alpha; "none" for a network without plasticity."""
        return self.alpha if self.kind == "plastic" else "none"


@dataclass(frozen=True)
class Optim:
    """Adam and its schedule."""

    lr: float = 1e-3
    """Learning rate."""
    lr_w: float | None = None
    """Learning rate of the fixed weights w; None: lr."""
    lr_alpha: float | None = None
    """Learning rate of alpha and eta; None: lr."""
    beta2: float = 0.999
    """Adam's beta2, the decay rate of squared gradients."""
    weight_decay: float = 0.0
    """Decoupled weight decay (AdamW)."""
    schedule: Literal["constant", "cosine", "steps"] = "constant"
    """Learning rate: constant; a cosine down to `final`; or multiplied by `final` at each step."""
    schedule_episodes: int | None = None
    """Length of the cosine, or of each step, in episodes."""
    final: float = 0.0
    """Factor of the learning rates at the end of the cosine, or per step."""
    warmup: float = 0.0
    """Linear warm-up, as a share of the cosine."""
    clip: float | None = None
    """Gradient norm clip; None: no clipping."""

    def __post_init__(self) -> None:
        for name in ("lr", "lr_w", "lr_alpha", "clip"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"optim.{name} must be above 0 and finite; got {value:g}.")
        if self.schedule != "constant" and (self.schedule_episodes is None or self.schedule_episodes < 1):
            raise ValueError(f"optim.schedule {self.schedule} needs optim.schedule_episodes of at least 1.")
        if not 0 <= self.final <= 1:
            raise ValueError(f"optim.final must lie in 0 … 1; got {self.final:g}.")
        at_least("optim.weight_decay", self.weight_decay, 0)
        for name in ("warmup", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"optim.{name} must lie in 0 … 1, 1 excluded; got {getattr(self, name):g}.")

    def factor(self, episode: int) -> float:
        """Factor of the learning rates after `episode` episodes."""
        if self.schedule == "constant" or self.schedule_episodes is None:
            return 1.0
        if self.schedule == "steps":
            return float(self.final ** (episode // self.schedule_episodes))
        done = min(episode / self.schedule_episodes, 1.0)
        if done < self.warmup:
            return done / self.warmup
        done = (done - self.warmup) / (1 - self.warmup)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * done))


@dataclass(frozen=True)
class Config:
    """Settings that every experiment has; each adds its `task`."""

    experiment: tyro.conf.Suppress[str] = ""
    preset: tyro.conf.Suppress[str] = ""
    seed: int = 0
    """Random seed of initialisation, training and evaluation."""
    episodes: int = 1000
    """Episodes to train on."""
    batch: int = 1
    """Episodes per update."""
    log_every: int = 10
    """Episodes between two rows of metrics."""
    threads: int = 0
    """CPU threads; 0: PyTorch's default."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """bf16-mixed: input and output layers in bfloat16, the trace in float32."""
    capture: bool = False
    """Replay updates as a CUDA graph; needs one GPU."""
    save_seconds: float = 30.0
    """Seconds between two checkpoints."""
    model: PlasticConfig = field(default_factory=Model)
    optim: Optim = field(default_factory=Optim)

    def __post_init__(self) -> None:
        at_least("seed", self.seed, 0)
        at_least("episodes", self.episodes, 1)
        at_least("batch", self.batch, 1)
        at_least("log_every", self.log_every, 1)
        if not 0 <= self.threads <= 1024:
            raise ValueError(f"threads must lie in 0 … 1024; got {self.threads}.")
        at_least("save_seconds", self.save_seconds, 0)

    def to_dict(self) -> dict[str, Any]:
        """The content of config.json."""
        return asdict(self)


@dataclass(frozen=True)
class DataConfig(Config):
    """Settings of an experiment on a data set with a validation or test part."""

    data_dir: str | None = None
    """Folder of the data set; default: $TORCHPLASTIC_DATA, then the cache folder."""
    builtin_data: bool = False
    """Use data that come with the package; ignored with --data-dir."""
    eval_every: int = 500
    """Training episodes between two evaluations."""
    eval_episodes: int = 100
    """Episodes per evaluation, the same ones each time."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("eval_every", self.eval_every, 1)
        at_least("eval_episodes", self.eval_episodes, 2)
        if self.data_dir is not None:
            object.__setattr__(self, "data_dir", str(Path(self.data_dir).absolute()))


def from_dict(kind: type[C], values: dict[str, Any]) -> C:
    """The config that `to_dict` wrote. ValueError, in one line, if its keys or types do not fit."""
    try:
        return dacite.from_dict(kind, values, dacite.Config(strict=True, cast=[tuple]))
    except dacite.DaciteError as error:
        raise ValueError(f"config.json does not fit this version: {error}") from None
