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
class Supervised:
    """A lesson of a task: what `Trainer` asks for at every update."""

    task: Task[Batch]
    objective: Objective
    measure: ClassVar[str] = "error"

    def __call__(self, model: nn.Module, batch: int, generator: torch.Generator, fabric: Fabric) -> Score:
        """Loss and error of new episodes, `[B]` each; of several processes each keeps its own share."""
        size = batch // fabric.world_size  # every process draws them all
        own = slice(fabric.global_rank * size, (fabric.global_rank + 1) * size)
        episode = self.task.episodes(batch, generator, fabric.device, own)
        return self.objective(episode.answer(model), episode.target)
