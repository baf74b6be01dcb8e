"""Keep the losses of updates on the device and read several at once: each read waits for all queued work.

`Trainer` uses it.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import torch
from torch import Tensor

PATIENCE = 0.25  # seconds between two reads on an accelerator, short enough to show progress


class Metrics(NamedTuple):
    """The values of one update."""

    episode: int
    """Episodes before the update."""
    batch: int
    loss: float
    measured: float
    errors: list[float]
    """The measure of each episode, if medians are reported; else empty."""


class MetricBuffer:
    """A queue of values on the device, read together in the order of the updates.

    patience: seconds between two reads; 0: read at every update.
    """

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self._waiting: list[tuple[int, int, Tensor, Tensor | None]] = []
        self._read = time.monotonic()

    @property
    def at_once(self) -> bool:
        """Whether each update's loss is read before its optimiser step."""
        return self.patience == 0

    @property
    def due(self) -> bool:
        """Whether the last read is longer ago than `patience`."""
        return time.monotonic() - self._read > self.patience

    def add(self, episode: int, batch: int, means: Tensor, errors: Tensor | None) -> None:
        """Queue an update after `episode` episodes: mean loss and measure `[2]`, measures of its episodes `[B]`."""
        self._waiting.append((episode, batch, means, errors))

    def read(self) -> list[Metrics]:
        """Read and remove all queued values."""
        waiting, self._waiting = self._waiting, []
        self._read = time.monotonic()
        if not waiting:
            return []
        pairs = torch.stack([means for _, _, means, _ in waiting]).tolist()
        each = [means.new_empty(0) if errors is None else errors for _, _, means, errors in waiting]
        parts = torch.cat(each).cpu().split([len(errors) for errors in each])
        return [
            Metrics(episode, batch, loss, measured, errors.tolist())
            for (episode, batch, *_), (loss, measured), errors in zip(waiting, pairs, parts, strict=True)
        ]
