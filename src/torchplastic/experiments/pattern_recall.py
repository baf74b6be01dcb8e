"""The common part of the experiments that memorise bit patterns and complete one.

Axes: B batch, N neurons.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torchplastic import functional
from torchplastic.experiments.base import Components, Experiment
from torchplastic.experiments.build import generator, lstm_training_bytes, make_network
from torchplastic.experiments.config import Config, Model
from torchplastic.experiments.samples import matrices, picture_row
from torchplastic.tasks.patterns import Patterns, wrong_bits
from torchplastic.train.evaluate import evaluate, interval
from torchplastic.train.objectives import squared_error
from torchplastic.train.supervised import SupervisedLearner

OBJECTIVE = squared_error(wrong_bits)
EVALUATION_BATCH = 10


@dataclass(frozen=True)
class RecallConfig(Config):
    """Settings of an experiment on bit patterns."""

    model: Model = field(default_factory=Model)
    task: Patterns = field(default_factory=Patterns)


def task_of(config: RecallConfig) -> Patterns:
    """The task for the config's network: an LSTM has extra cells instead of extra neurons, and may be clamped."""
    if config.model.kind != "lstm":
        return config.task
    return replace(config.task, extra=0, input="clamped" if config.model.clamped else config.task.input)


def build(config: RecallConfig) -> Components:
    """The learner and the network of a config."""
    task = task_of(config)
    model = make_network(config.model, config.seed, task.neurons, lstm_cells=_cells(config), clamped_inputs=task.bits)
    return Components(SupervisedLearner(task, OBJECTIVE), model)


def _cells(config: RecallConfig) -> int:
    return config.task.bits + config.task.extra


def needed_bytes(config: RecallConfig) -> int:
    """Bytes that training needs."""
    task, batch = task_of(config), config.batch
    if config.model.kind == "lstm":
        return lstm_training_bytes(task.steps, batch, task.neurons, _cells(config))
    model = config.model
    return functional.training_bytes(
        task.clamped_steps(), batch, task.neurons, alpha=model.coefficients, impl=model.impl
    )


def picture(bits: Tensor) -> np.ndarray:
    """A pattern `[bits]` as a picture, as square as its number of bits allows."""
    n = len(bits)
    height = max(h for h in range(1, math.isqrt(n) + 1) if n % h == 0)
    return bits.reshape(height, n // height).numpy()


@torch.no_grad()
def samples(config: RecallConfig, before: nn.Module, after: nn.Module) -> dict[str, np.ndarray]:
    """One episode with answers before and after training, and w and alpha."""
    task = task_of(config)
    episode = task.episodes(1, generator(config.seed, "samples"))
    found: dict[str, np.ndarray] = {}
    for when, model in (("before training", before), ("after training", after)):
        y, _ = model(episode.inputs, clamp=episode.clamp, clamped_steps=episode.clamped_steps)
        pictures = {f"pattern {i + 1}": pattern for i, pattern in enumerate(episode.info["patterns"][0])}
        pictures |= {
            "cue": episode.info["cue"][0],
            "answer": y[-1, 0, : task.bits],
            "target": episode.target[0],
        }
        found |= picture_row(when, {label: picture(bits) for label, bits in pictures.items()})
    return found | matrices(after)


def evaluation(config: RecallConfig, model: nn.Module, episodes: int, stream: torch.Generator) -> dict[str, Any]:
    """Share of wrong bits on new episodes with its 95 % interval, chance, and two trivial answers."""
    loss, error = evaluate(model, task_of(config), OBJECTIVE, episodes, EVALUATION_BATCH, stream)
    chance = config.task.chance
    return {
        "split": "new episodes",
        "error": {**interval(error), "chance": chance},
        "loss": interval(loss),
        "baselines": {"keep the cue, guess the rest": chance, "answer nothing": 1.0},
    }


def experiment(presets: Mapping[str, Callable[[], RecallConfig]], **more: Any) -> Experiment:
    """An experiment on bit patterns; `more` are further fields of `Experiment`."""
    return Experiment(RecallConfig, presets, build, needed_bytes, samples, evaluation, **more)
