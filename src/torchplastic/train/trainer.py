"""The training loop: draw episodes, update the model, report metrics, save checkpoints.

An update trains on `batch` episodes, the last one on the rest. Several processes share every batch.
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
    """The loss or a weight is NaN or infinite."""


class Learner(Protocol):
    """A source of episodes and their loss: `SupervisedLearner`, `ActorCriticLearner`."""

    @property
    def measure(self) -> str:
        """The name of the value reported beside the loss: error or reward."""

    def draw(self, model: nn.Module, batch: int, generator: torch.Generator, fabric: Fabric) -> Any:
        """`batch` new episodes on the device, as (nested) tensors without gradients; all randomness from the generator.

        The model comes without its wrapper: drawing exchanges no gradients. Several processes call it with generators
        in the same state; each returns its share of the episodes.
        """

    def score(self, model: nn.Module, drawn: Any) -> Score:
        """Loss (with gradient) and measure of the episodes, `[B]` each."""


@dataclass(frozen=True)
class TrainingSchedule:
    """The length of training, its batch size, and how often to report, evaluate and save."""

    episodes: int
    batch: int
    log_every: int
    """Episodes between two rows of metrics; the last row ends with training."""
    clip: float | None = None
    """Gradient norm clip."""
    lr_factor: Callable[[int], float] = lambda episode: 1.0
    """Factor of the learning rates as a function of the episode."""
    save_seconds: float = 30.0
    eval_every: int = 0
    """Episodes between two calls of `evaluate`, each at the end of a row; 0: never."""
    medians: bool = False
    """Report the median of the measure too."""

    def validates(self, before: int, episode: int) -> bool:
        """Whether the row from episode `before` to `episode` includes an evaluation."""
        every = self.eval_every
        return every > 0 and (episode // every > before // every or episode >= self.episodes)


@dataclass
class TrainState:
    """Progress of training. A checkpoint holds it with the model, the optimiser and the generator."""

    episode: int = 0
    seconds: float = 0.0
    row: dict[str, float] = field(default_factory=dict)
    """Sums of the current row: loss, measure, episodes."""
    errors: list[float] = field(default_factory=list)
    """Measures of the current row, if its median is reported."""


@dataclass
class Trainer:
    """One run of training. `train` advances `state`."""

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
    """Seconds between two reads of the losses from the device; 0: before every optimiser step. Default: 0 on a CPU and
    with several processes, which must agree at every update; else 0.25."""
    capture: bool = False
    """Replay updates as a CUDA graph, after a few warm-up updates of each shape."""

    def __post_init__(self) -> None:
        alone = self.fabric.device.type != "cpu" and self.fabric.world_size == 1
        self._buffer = MetricBuffer((PATIENCE if alone else 0) if self.patience is None else self.patience)
        self._rates = [group["lr"] for group in self.optimizer.param_groups]
        self.module = self.model  # without the wrapper
        self.model, self.optimizer = self.fabric.setup(self.model, self.optimizer)
        self._captured = CapturedStep(self._train_step) if self.capture else None
        self._keep_rates()

    def checkpoint(self) -> dict[str, Any]:
        """All that resuming needs, as plain values and tensors."""
        return {
            "model": self.module.state_dict(),
            "optimizer": self._optimizer_state(),
            "generator": self.generator.get_state(),
            **asdict(self.state),
        }

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Return to the state in which `checkpoint()` was called."""
        self.module.load_state_dict(checkpoint["model"])
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        self._keep_rates()
        self.generator.set_state(checkpoint["generator"])
        errors = list(checkpoint.get("errors", []))
        self.state = TrainState(checkpoint["episode"], checkpoint["seconds"], dict(checkpoint["row"]), errors)

    def _keep_rates(self) -> None:
        """Turn learning rates into tensors, which a CUDA graph reads at each replay."""
        for group in self.optimizer.param_groups if self.capture else ():
            group["lr"] = torch.tensor(float(group["lr"]), dtype=torch.float32, device=self.fabric.device)
            group["capturable"] = self.fabric.device.type == "cuda"

    def _optimizer_state(self) -> dict[str, Any]:
        """The optimiser's state with plain learning rates, independent of `capture`."""
        state = self.optimizer.state_dict()
        for group in state["param_groups"]:
            group["lr"] = float(group["lr"])
            group["capturable"] = False
        return state

    def train(self, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Train to the end of the schedule (returns True), or until `stopped()` is true after an update (False).

        NotFiniteError if the loss or a weight is NaN or infinite; no later state is saved.
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
        """One update on `batch` episodes. It waits for the device only if each loss is read at once."""
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            rate = rate * self.schedule.lr_factor(self.state.episode)
            if self.capture:
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        drawn = self.learner.draw(self.module, batch, self.generator, self.fabric)
        if self._captured:
            self._queue_metrics(batch, *self._captured(drawn))
        else:
            score = self.learner.score(self.model, drawn)
            loss = score.loss.mean()
            self._queue_metrics(batch, loss, score.measured)
            self._optimizer_step(loss)

    def _train_step(self, drawn: Any) -> tuple[Tensor, Tensor]:
        """One update as a CUDA graph captures it -> its loss, and the measure of each episode."""
        score = self.learner.score(self.model, drawn)
        loss = score.loss.mean()
        self._optimizer_step(loss)
        return loss.detach(), score.measured

    def _optimizer_step(self, loss: Tensor) -> None:
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        if self.schedule.clip is not None:
            self.fabric.clip_gradients(
                self.model, self.optimizer, max_norm=self.schedule.clip, error_if_nonfinite=False
            )
        self.optimizer.step()

    def _queue_metrics(self, batch: int, loss: Tensor, measured: Tensor) -> None:
        """Queue this step's loss. On a CPU it is read before the optimiser step, so that a NaN stops training first."""
        means = self._mean(torch.stack([loss.detach(), measured.mean()]))
        errors = cast(Tensor, self.fabric.all_gather(measured)).flatten() if self.schedule.medians else None
        self._buffer.add(self.state.episode, batch, means, errors)
        if self._buffer.at_once:
            self._read()

    def _mean(self, values: Tensor) -> Tensor:
        """The mean over the processes."""
        if self.fabric.world_size == 1:
            return values
        return cast(Tensor, self.fabric.all_reduce(values, reduce_op="mean"))

    def any_process(self, flag: bool) -> bool:
        """Whether the flag is set in any process, so that all stop together."""
        if self.fabric.world_size == 1:
            return flag
        return self._mean(torch.tensor(float(flag), device=self.fabric.device)).item() > 0

    def _read(self) -> None:
        """Add all queued updates to the current row. NotFiniteError at the first loss that is not finite."""
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
            return f"eta has left 0 … 1, it is {eta:.3g}, so the trace grows; lower the learning rate {rate:g}"
        return f"likely the learning rate {rate:g} is too high"


def plasticity_rate(model: nn.Module) -> float | None:
    """eta of the first plastic layer (the mean, if it is per neuron); None without plasticity."""
    for module in model.modules():
        eta = {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}.get("eta")
        if eta is not None:
            return eta.detach().mean().item()
    return None
