"""The settings of a run: frozen, checked where they are built, read back from config.json."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import dacite
import tyro

from torchplastic import RULES

C = TypeVar("C", bound="Config")


def at_least(name: str, value: float, smallest: float) -> None:
    """ValueError with the name of the flag and both numbers."""
    if not value >= smallest:
        raise ValueError(f"{name} must be at least {smallest:g}; got {value:g}.")


@dataclass(frozen=True)
class PlasticConfig:
    """A plastic layer."""

    alpha: Literal["full", "neuron", "shared", "none"] = "full"
    """Plasticity coefficients: one per connection, per neuron, one for all, or no plasticity."""
    rule: Literal["hebb", "oja"] = "hebb"
    """How the trace changes."""
    eta: float = 0.01
    """Plasticity rate at the start."""
    learn_eta: bool = False
    """Whether the plasticity rate is trained."""
    w_init_std: float = 0.01
    """Standard deviation of the fixed weights at the start."""
    alpha_init_std: float = 0.01
    """Standard deviation of the plasticity coefficients at the start."""

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
    """plastic; rnn, the same without plasticity; lstm, the baseline."""
    clamped: bool = True
    """lstm: whether a bit that is shown overrides its cell (input gate open, forget gate shut, output gate open)."""
    impl: Literal["auto", "reference", "chunked", "stepwise", "triton"] = "auto"
    """Which preset runs the network."""

    @property
    def coefficients(self) -> str:
        """The network's kind of alpha: none where it is not plastic."""
        return self.alpha if self.kind == "plastic" else "none"


@dataclass(frozen=True)
class Optim:
    """Adam and its schedule."""

    lr: float = 1e-3
    """Learning rate."""
    lr_w: float | None = None
    """Learning rate of the fixed weights w alone; None means lr."""
    beta2: float = 0.999
    """How slowly Adam's mean of squared gradients moves."""
    weight_decay: float = 0.0
    """What every update takes off all weights, times the learning rate (AdamW)."""
    schedule: Literal["constant", "cosine", "steps"] = "constant"
    """How the learning rates change: down to `final` over schedule_episodes, or times `final` after each of them."""
    schedule_episodes: int | None = None
    """Length of the schedule; it is not moved by --episodes. A cosine's rates stay at their last value after it."""
    final: float = 0.0
    """Share of the learning rates that a cosine ends with, or that a step leaves."""
    warmup: float = 0.0
    """Share of a cosine's episodes in which the rates rise from 0 to what they are."""
    clip: float | None = None
    """Largest norm of the gradient."""

    def __post_init__(self) -> None:
        for name in ("lr", "lr_w", "clip"):
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
        """What the learning rates are multiplied by after that many episodes."""
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
    """Fixes the run: initialisation, training episodes and evaluation each have a stream of their own."""
    episodes: int = 1000
    """Episodes to train on."""
    batch: int = 1
    """Episodes per update."""
    log_every: int = 10
    """Episodes per row of metrics."""
    threads: int = 0
    """CPU threads; 0 takes PyTorch's choice, and the number taken is kept."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Precision of the input and output layers; trace and adjoint stay in float32."""
    capture: bool = False
    """On one GPU: replay updates as a CUDA graph, once some of a shape were made."""
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
        """As it stands in config.json."""
        return asdict(self)


@dataclass(frozen=True)
class DataConfig(Config):
    """Settings of an experiment on a data set, a part of which is never trained on."""

    data_dir: str | None = None
    """Where the data lie; default TORCHPLASTIC_DATA, then the cache folder."""
    builtin_data: bool = False
    """Without --data-dir: data that come with the program, instead of the data set."""
    eval_every: int = 500
    """Episodes between two evaluations on data that are never trained on."""
    eval_episodes: int = 100
    """Episodes of an evaluation during training: the same ones each time."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("eval_every", self.eval_every, 1)
        at_least("eval_episodes", self.eval_episodes, 2)
        if self.data_dir is not None:
            object.__setattr__(self, "data_dir", str(Path(self.data_dir).absolute()))


def from_dict(kind: type[C], values: dict[str, Any]) -> C:
    """The config that `to_dict` wrote. ValueError of one line where it does not fit."""
    try:
        return dacite.from_dict(kind, values, dacite.Config(strict=True, cast=[tuple]))
    except dacite.DaciteError as error:
        raise ValueError(f"config.json does not fit this version: {error}") from None
