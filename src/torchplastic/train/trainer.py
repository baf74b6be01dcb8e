"""The loop over episodes: a learner gives their loss, the loop learns from it, reports and saves.

One update takes `batch` episodes; the last update takes what is left. Several processes share every batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Protocol, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from torchplastic.cuda_graph import CapturedStep
from torchplastic.train.metric_buffer import PATIENCE, MetricBuffer
from torchplastic.train.objectives import Score
from torchplastic.train.progress import Progress


class NotFiniteError(RuntimeError):
    """The loss or a weight is not a finite number any more."""


class Learner(Protocol):
    """Where episodes come from and what is learned from them: `SupervisedLearner`, `ActorCriticLearner`."""

    @property
    def measure(self) -> str:
        """What is reported beside the loss: error or reward."""

    def draw(self, model: nn.Module, batch: int, generator: torch.Generator, fabric: Fabric) -> Any:
        """That many new episodes on the device, from the generator alone: tensors, also nested. Without gradients.

        Several processes call it with the same generator; each returns its share of the episodes.
        """

    def score(self, model: nn.Module, drawn: Any) -> Score:
        """Loss (with gradient) and measure of episodes, `[B]` each."""


@dataclass(frozen=True)
class TrainingSchedule:
    """How long, in what portions, and how often to report and to save."""

    episodes: int
    batch: int
    log_every: int
    """Episodes between two rows of metrics: rows end at its multiples, and at the end."""
    clip: float | None = None
    """Largest norm of the gradient."""
    lr_factor: Callable[[int], float] = lambda episode: 1.0
    """Factor of the learning rates after that many episodes."""
    save_seconds: float = 30.0
    eval_every: int = 0
    """Episodes between two evaluations on data that are never trained on, at ends of rows and at the end; 0: none."""
    medians: bool = False
    """Whether rows have the median of the measure beside its mean."""

    def validates(self, before: int, episode: int) -> bool:
        """Whether the row over the episodes from `before` to `episode` has validation values."""
        every = self.eval_every
        return every > 0 and (episode // every > before // every or episode >= self.episodes)


@dataclass
class TrainState:
    """Where training stands; with the model, the optimiser and the generator it is all that resuming needs."""

    episode: int = 0
    seconds: float = 0.0
    row: dict[str, float] = field(default_factory=dict)
    """Sums of the started row: loss, measure, episodes."""
    errors: list[float] = field(default_factory=list)
    """Measures of the started row, where their median is wanted."""


@dataclass
class Trainer:
    """What one run of training holds. `train` moves `state` forward."""

    fabric: Fabric
    model: nn.Module
    optimizer: torch.optim.Optimizer
    learner: Learner
    schedule: TrainingSchedule
    generator: torch.Generator
    progress: Progress
    append: Callable[[dict[str, Any]], None]
    save: Callable[[dict[str, Any]], None]
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None
    state: TrainState = field(default_factory=TrainState)
    patience: float | None = None
    """Seconds for which losses may stay unread on the device; 0 reads each before its update is made. None: 0 on a CPU,
    and where several processes share the episodes, which have to agree at every update."""
    capture: bool = False
    """Whether a CUDA graph replays the updates, once some of a shape were made."""

    def __post_init__(self) -> None:
        alone = self.fabric.device.type != "cpu" and self.fabric.world_size == 1
        self._buffer = MetricBuffer((PATIENCE if alone else 0) if self.patience is None else self.patience)
        self._rates = [group["lr"] for group in self.optimizer.param_groups]
        self.module = self.model  # without the wrapper
        self.model, self.optimizer = self.fabric.setup(self.model, self.optimizer)
        self._captured = CapturedStep(self._learn) if self.capture else None
        self._keep_rates()

    def checkpoint(self) -> dict[str, Any]:
        """Everything as plain values and tensors."""
        return {
            "model": self.module.state_dict(),
            "optimizer": self._optimizer_state(),
            "generator": self.generator.get_state(),
            **asdict(self.state),
        }

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Stand where `checkpoint()` was taken."""
        self.module.load_state_dict(checkpoint["model"])
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        self._keep_rates()
        self.generator.set_state(checkpoint["generator"])
        errors = list(checkpoint.get("errors", []))
        self.state = TrainState(checkpoint["episode"], checkpoint["seconds"], dict(checkpoint["row"]), errors)

    def _keep_rates(self) -> None:
        """A graph reads learning rates where they lie: they become tensors, which are filled."""
        for group in self.optimizer.param_groups if self.capture else ():
            group["lr"] = torch.tensor(float(group["lr"]), dtype=torch.float32, device=self.fabric.device)
            group["capturable"] = self.fabric.device.type == "cuda"

    def _optimizer_state(self) -> dict[str, Any]:
        """As an optimiser has it that no graph replays."""
        state = self.optimizer.state_dict()
        for group in state["param_groups"]:
            group["lr"] = float(group["lr"])
            group["capturable"] = False
        return state

    def train(self, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Train until the schedule's episodes are done (True), or `stopped` says so after an update (False).

        NotFiniteError where the loss or a weight is no finite number: that update is not saved, nor any after it.
        """
        at, schedule = self.state, self.schedule
        saved = started = time.monotonic()
        before = at.seconds
        if at.episode >= schedule.episodes and at.row:  # stopped after the last update
            self._end_row()
        while at.episode < schedule.episodes and not stopped():
            batch = min(schedule.batch, schedule.episodes - at.episode)
            self._update(batch)
            rows = at.episode // schedule.log_every
            at.episode += batch
            whole = at.episode // schedule.log_every > rows
            ended = whole or at.episode >= schedule.episodes
            if ended or self._buffer.due:
                self._read()
            at.seconds = before + time.monotonic() - started
            if ended:
                self._end_row()
            if whole:
                at.row, at.errors = {}, []
            if time.monotonic() - saved > schedule.save_seconds:
                self._save()
                saved = time.monotonic()
        self._save()
        return at.episode >= schedule.episodes

    def _update(self, batch: int) -> None:
        """One update on that many episodes. It waits for the device only where losses are read at once."""
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            rate = rate * self.schedule.lr_factor(self.state.episode)
            if self.capture:
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        drawn = self.learner.draw(self.model, batch, self.generator, self.fabric)
        if self._captured:
            self._note(batch, *self._captured(drawn))
        else:
            score = self.learner.score(self.model, drawn)
            loss = score.loss.mean()
            self._note(batch, loss, score.measured)
            self._descend(loss)

    def _learn(self, drawn: Any) -> tuple[Tensor, Tensor]:
        """What a graph replays: an update -> its loss, and the measure of each episode."""
        score = self.learner.score(self.model, drawn)
        loss = score.loss.mean()
        self._descend(loss)
        return loss.detach(), score.measured

    def _descend(self, loss: Tensor) -> None:
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        if self.schedule.clip is not None:
            self.fabric.clip_gradients(
                self.model, self.optimizer, max_norm=self.schedule.clip, error_if_nonfinite=False
            )
        self.optimizer.step()

    def _note(self, batch: int, loss: Tensor, measured: Tensor) -> None:
        """What the update that begins tells; read before it is made where values are read at once."""
        means = self._mean(torch.stack([loss.detach(), measured.mean()]))
        errors = cast(Tensor, self.fabric.all_gather(measured)).flatten() if self.schedule.medians else None
        self._buffer.add(self.state.episode, batch, means, errors)
        if self._buffer.at_once:
            self._read()

    def _mean(self, values: Tensor) -> Tensor:
        """Over the processes."""
        if self.fabric.world_size == 1:
            return values
        return cast(Tensor, self.fabric.all_reduce(values, reduce_op="mean"))

    def anywhere(self, flag: bool) -> bool:
        """Whether the flag is set in any process: what one is told, all do."""
        if self.fabric.world_size == 1:
            return flag
        return self._mean(torch.tensor(float(flag), device=self.fabric.device)).item() > 0

    def _read(self) -> None:
        """Add all updates that were not read yet to the started row. NotFiniteError at the first loss that is none."""
        at, measure = self.state, self.learner.measure
        for one in self._buffer.read():
            if not math.isfinite(one.loss):
                raise NotFiniteError(f"the loss is {one.loss} at episode {one.episode + 1} ({self._cause()})")
            values = {"loss": one.loss * one.batch, measure: one.measured * one.batch, "episodes": one.batch}
            for name, value in values.items():
                at.row[name] = at.row.get(name, 0) + value
            at.errors += one.errors
            self.progress.advance(one.episode + one.batch, one.loss, measure, one.measured)

    def _end_row(self) -> None:
        at = self.state
        means = {name: at.row[name] / at.row["episodes"] for name in ("loss", self.learner.measure)}
        row = {"episode": at.episode, "seconds": at.seconds, **means, "eta": plasticity_rate(self.module)}
        if at.errors:
            row[f"{self.learner.measure}_median"] = median(at.errors)
        if self.evaluate and self.schedule.validates(at.episode - int(at.row["episodes"]), at.episode):
            row |= self.evaluate(self.module)
        self.append(row)
        self.progress.row(row)

    def _save(self) -> None:
        self._read()
        for name, parameter in self.module.named_parameters():
            if not parameter.isfinite().all():
                raise NotFiniteError(f"{name} is not finite after episode {self.state.episode} ({self._cause()})")
        self.save(self.checkpoint())

    def _cause(self) -> str:
        rate = max(group["lr"] for group in self.optimizer.param_groups)
        eta = plasticity_rate(self.module)
        if eta is not None and math.isfinite(eta) and not 0 <= eta <= 1:
            return f"eta has left 0 … 1, it is {eta:.3g}, and the trace grows; lower the learning rate {rate:g}"
        return f"likely the learning rate {rate:g} is too high"


def plasticity_rate(model: nn.Module) -> float | None:
    """eta of the first plastic layer, its mean if per neuron; None without plasticity."""
    for module in model.modules():
        eta = getattr(module, "eta", None)
        if isinstance(eta, Tensor):
            return eta.detach().mean().item()
    return None
