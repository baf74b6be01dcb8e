"""What every task of supervised episodes gives.

Axes: T time, B batch, N input lines (one per neuron), M scored neurons.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor


class Episode(NamedTuple):
    """A batch of episodes, ready for `model(inputs, clamp=clamp, clamped_steps=clamped_steps)`.

    inputs `[T, B, N]`; clamp bool `[T, B, N]` or None; clamped_steps, T bools known on the host: whether a
    step is clamped for every line of every example; target `[B, M]`, what the first M neurons should
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


class Task(Protocol):
    """A source of episodes of one length and width."""

    @property
    def steps(self) -> int:
        """T."""

    @property
    def neurons(self) -> int:
        """N, the bias neuron included."""

    def episodes(self, batch: int, generator: torch.Generator) -> Episode:
        """A batch of new episodes, on the generator's device, from the generator alone."""
