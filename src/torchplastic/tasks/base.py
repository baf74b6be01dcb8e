"""The protocols: a `Task` makes a `Batch` of episodes, recall tasks an `Episode`; a `BatchedEnv` is acted in.

Axes: T time, B batch, N input units (one per neuron), M scored neurons, S, Q support and query,
F observed numbers, A actions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Move a tensor to a device. A copy to a GPU is asynchronous: it does not wait for queued work."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def chosen_device(device: torch.device | str | None, generator: torch.Generator) -> torch.device:
    """The device, or the generator's device if it is None."""
    return generator.device if device is None else torch.device(device)


class Batch(Protocol):
    """A batch of episodes."""

    @property
    def target(self) -> Tensor:
        """The correct answers, `[B, …]`."""

    def rows(self, rows: slice) -> Self:
        """The episodes of this slice of the batch."""

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Every tensor through `Tensor.to(device)`."""

    def answer(self, model: Callable[..., Any]) -> Tensor:
        """Run a model on the episodes -> its answers `[B, …]`, to score against the target."""


B_co = TypeVar("B_co", bound=Batch, covariant=True)


class Task(Protocol[B_co]):
    """A source of episodes."""

    def episodes(
        self,
        batch: int,
        generator: torch.Generator,
        device: torch.device | str | None = None,
        rows: slice = slice(None),
    ) -> B_co:
        """A batch of new episodes; all randomness comes from the generator.

        device: of the episodes; None: the generator's. Random numbers are drawn on the generator's device, so that a
            seed makes the same episodes on every device.
        rows: the slice of the batch to make; random numbers are drawn for the whole batch.
        """


class BatchedEnv(Protocol):
    """A batch of environments. Their state is a value that `reset` and `step` return, or kept inside."""

    @property
    def obs_dim(self) -> int:
        """F."""

    @property
    def actions(self) -> int:
        """A."""

    @property
    def steps(self) -> int | None:
        """T if all episodes have the same length, else None."""

    def reset(self, batch: int, generator: torch.Generator, device: torch.device | None = None) -> tuple[Any, Tensor]:
        """Start B episodes -> state, observations `[B, F]`, on the device (None: the generator's)."""

    def step(self, state: Any, action: Tensor) -> tuple[Any, Tensor, Tensor, Tensor]:
        """Actions int64 `[B]` -> state, observations `[B, F]`, rewards `[B]`, done bool `[B]`.

        Callers ignore the values of finished episodes.
        """


class Episode(NamedTuple):
    """A batch of episodes, ready for `model(inputs, clamp=clamp, clamped_steps=clamped_steps)`.

    inputs: `[T, B, N]`. clamp: bool `[T, B, N]`, or None.
    clamped_steps: T bools on the host, True for a step that is clamped in every unit of every example.
    target: `[B, M]`, the correct output of the first M neurons at the last step.
    info: tensors for figures and tests, by name, each `[B, …]`.
    """

    inputs: Tensor
    clamp: Tensor | None
    clamped_steps: tuple[bool, ...]
    target: Tensor
    info: dict[str, Tensor]

    def rows(self, rows: slice) -> Episode:
        """The episodes of this slice of the batch."""
        return Episode(
            self.inputs[:, rows],
            None if self.clamp is None else self.clamp[:, rows],
            self.clamped_steps,
            self.target[rows],
            {name: value[rows] for name, value in self.info.items()},
        )

    def to(self, *args: Any, **kwargs: Any) -> Episode:
        """Every tensor through `Tensor.to(device)`."""
        return Episode(
            self.inputs.to(*args, **kwargs),
            None if self.clamp is None else self.clamp.to(*args, **kwargs),
            self.clamped_steps,
            self.target.to(*args, **kwargs),
            {name: value.to(*args, **kwargs) for name, value in self.info.items()},
        )

    def answer(self, model: Callable[..., Any]) -> Tensor:
        """The output of the last step, `[B, N]`."""
        y: Tensor = model(self.inputs, clamp=self.clamp, clamped_steps=self.clamped_steps)[0]
        return y[-1]


def unclamped(episode: Episode) -> Episode:
    """The same episode without its fully clamped steps."""
    free = [t for t, clamped in enumerate(episode.clamped_steps) if not clamped]
    clamp = None if episode.clamp is None else episode.clamp[free]
    return episode._replace(inputs=episode.inputs[free], clamp=clamp, clamped_steps=(False,) * len(free))


class RecallTask(Task[Episode], Protocol):
    """A source of episodes of one length and width."""

    @property
    def steps(self) -> int:
        """T."""

    @property
    def neurons(self) -> int:
        """N, including the bias neuron."""
