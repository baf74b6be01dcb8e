"""Supervised learning: draw episodes, run the model, score its answers against the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from lightning_fabric import Fabric
from torch import nn

from torchplastic.tasks.base import Batch, Task
from torchplastic.train.objectives import Objective, Score


@dataclass(frozen=True)
class SupervisedLearner:
    """The `Learner` of a supervised task."""

    task: Task[Batch]
    objective: Objective
    measure: ClassVar[str] = "error"

    def draw(self, model: nn.Module, batch: int, generator: torch.Generator, fabric: Fabric) -> Batch:
        """New episodes; each of several processes returns its own share."""
        size = batch // fabric.world_size  # every process draws the random numbers of all
        own = slice(fabric.global_rank * size, (fabric.global_rank + 1) * size)
        return self.task.episodes(batch, generator, fabric.device, own)

    def score(self, model: nn.Module, drawn: Batch) -> Score:
        """Loss and error of the episodes, `[B]` each."""
        return self.objective(drawn.answer(model), drawn.target)
