"""When the values of updates are read from the device: reading waits for all work that is queued there."""

from __future__ import annotations

import time
from typing import NamedTuple

import torch
from torch import Tensor

PATIENCE = 0.25  # seconds for which values may stay on an accelerator, so that progress is seen


class Metrics(NamedTuple):
    """What an update told."""

    episode: int
    """Episodes before it."""
    batch: int
    loss: float
    measured: float
    errors: list[float]
    """The measure of each episode, where it is wanted."""


class MetricBuffer:
    """Values of updates that wait on the device, and are read together in the order of the updates.

    patience: seconds after which they are due; 0 is at once, after every update.
    """

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self._waiting: list[tuple[int, int, Tensor, Tensor | None]] = []
        self._read = time.monotonic()

    @property
    def at_once(self) -> bool:
        """Whether every update is read before it is made."""
        return self.patience == 0

    @property
    def due(self) -> bool:
        """Whether values have waited for long enough."""
        return time.monotonic() - self._read > self.patience

    def add(self, episode: int, batch: int, means: Tensor, errors: Tensor | None) -> None:
        """An update that begins after that many episodes: mean loss and measure `[2]`, each episode's measure `[B]`."""
        self._waiting.append((episode, batch, means, errors))

    def read(self) -> list[Metrics]:
        """All that wait."""
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
