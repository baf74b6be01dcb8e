"""What every task of supervised episodes gives.

Axes: T time, B batch, N input units (one per neuron), M scored neurons, S, Q support and query.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The same on that device; a copy to a GPU does not wait for the work that is queued there."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def chosen_device(device: torch.device | str | None, generator: torch.Generator) -> torch.device:
    """Where episodes are made: the device, or the generator's where none is named."""
    return generator.device if device is None else torch.device(device)


class Batch(Protocol):
    """A batch of episodes, whatever they consist of."""

    @property
    def target(self) -> Tensor:
        """What the answers should be, `[B, …]`."""

    def rows(self, rows: slice) -> Self:
        """The same episodes, these of the batch alone."""

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Every tensor through `Tensor.to(device)`."""

    def answer(self, model: Callable[..., Any]) -> Tensor:
        """Run a model through the episodes: what is scored against the target, `[B, …]`."""


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
        """A batch of new episodes from the generator alone.

        device: where they are made; None is the generator's. What is random is drawn where the generator is, and sent:
            the same seed gives the same episodes on every device. rows: which of them to make; all are drawn.
        """


class Episode(NamedTuple):
    """A batch of episodes, ready for `model(inputs, clamp=clamp, clamped_steps=clamped_steps)`.

    inputs `[T, B, N]`; clamp bool `[T, B, N]` or None; clamped_steps, T bools known on the host: whether a
    step is clamped for every unit of every example; target `[B, M]`, what the first M neurons should
    say at the last step; shown: what a picture of the episode needs, by name, each `[B, …]`.
    """

    inputs: Tensor
    clamp: Tensor | None
    clamped_steps: tuple[bool, ...]
    target: Tensor
    shown: dict[str, Tensor]

    def rows(self, rows: slice) -> Episode:
        """The same episodes, these rows of the batch alone."""
        return Episode(
            self.inputs[:, rows],
            None if self.clamp is None else self.clamp[:, rows],
            self.clamped_steps,
            self.target[rows],
            {name: value[rows] for name, value in self.shown.items()},
        )

    def to(self, *args: Any, **kwargs: Any) -> Episode:
        """Every tensor through `Tensor.to(device)`."""
        return Episode(
            self.inputs.to(*args, **kwargs),
            None if self.clamp is None else self.clamp.to(*args, **kwargs),
            self.clamped_steps,
            self.target.to(*args, **kwargs),
            {name: value.to(*args, **kwargs) for name, value in self.shown.items()},
        )

    def answer(self, model: Callable[..., Any]) -> Tensor:
        """The activity of the last step, `[B, N]`."""
        y: Tensor = model(self.inputs, clamp=self.clamp, clamped_steps=self.clamped_steps)[0]
        return y[-1]


class RecallTask(Task[Episode], Protocol):
    """A source of episodes of one length and width."""

    @property
    def steps(self) -> int:
        """T."""

    @property
    def neurons(self) -> int:
        """N, the bias neuron included."""
