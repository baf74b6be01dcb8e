"""Measure a trained model on new episodes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from torchplastic.tasks.base import Batch, Task
from torchplastic.train.objectives import Objective


def interval(values: Tensor) -> dict[str, float | list[float]]:
    """Mean and 95 % confidence interval (normal) of independent values `[n]`."""
    values = values.double()
    mean = values.mean().item()
    half = 1.96 * values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return {"mean": mean, "ci95": [mean - half, mean + half]}


@torch.no_grad()
def evaluate(
    model: nn.Module, task: Task[Batch], objective: Objective, episodes: int, batch: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Loss and error of `episodes` new episodes, `[episodes]` each, `batch` at a time."""
    device = next(model.parameters()).device
    losses, errors = [], []
    for start in range(0, episodes, batch):
        episode = task.episodes(min(batch, episodes - start), generator, device)
        score = objective(episode.answer(model), episode.target)
        losses.append(score.loss)
        errors.append(score.measured)
    return torch.cat(losses).cpu(), torch.cat(errors).cpu()
