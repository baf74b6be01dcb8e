"""Learning from episodes with a target: draw, run, score the answer."""

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
    """A learner of a task: what `Trainer` asks for at every update."""

    task: Task[Batch]
    objective: Objective
    measure: ClassVar[str] = "error"

    def draw(self, model: nn.Module, batch: int, generator: torch.Generator, fabric: Fabric) -> Batch:
        """New episodes; of several processes each keeps its own share."""
        size = batch // fabric.world_size  # every process draws them all
        own = slice(fabric.global_rank * size, (fabric.global_rank + 1) * size)
        return self.task.episodes(batch, generator, fabric.device, own)

    def score(self, model: nn.Module, drawn: Batch) -> Score:
        """Their loss and error, `[B]` each."""
        return self.objective(drawn.answer(model), drawn.target)
