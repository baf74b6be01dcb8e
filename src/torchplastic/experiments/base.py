"""What an experiment is; catalog.py lists them, and finds one by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args, get_type_hints

import numpy as np
import torch
from torch import nn

from torchplastic.experiments.config import Config, Model
from torchplastic.train.trainer import Learner


@dataclass(frozen=True)
class Components:
    """The parts of a run that a config builds."""

    learner: Learner
    model: nn.Module
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None
    """Evaluate the model on validation or test data -> additional keys for a row of metrics."""
    medians: bool = False
    """Report the median of the measure too."""
    eval_every: int = 0
    """Episodes between two evaluations; 0: none before the end."""


def _of_kind(config: Config, kind: Any) -> Config:
    return replace(config, model=replace(config.model, kind=kind)) if isinstance(config.model, Model) else config


def _nothing(config: Any) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Experiment:
    """An experiment: its presets, and how a config becomes a run.

    presets: functions that return the config of each preset, by the names in the catalog.
    build(config) -> Components; depends on nothing but the config.
    needed_bytes(config) -> bytes that training needs; called before anything is built.
    samples(config, before, after) -> the arrays of samples.npz, from the models before and after training.
    evaluate(config, model, episodes, generator) -> the result of `plastic eval`.
    of_kind(config, kind) -> the config for another kind of network, with its published size and learning rate.
    notes(config) -> additional keys of summary.json: the data, and the results of baselines.
    data(config) -> a description of the data with a digest, "" without data. ValueError if they are missing.
    evaluation_episodes: the default of `plastic eval --episodes`.
    """

    config: type[Config]
    presets: Mapping[str, Callable[[], Config]]
    build: Callable[[Any], Components]
    needed_bytes: Callable[[Any], int]
    samples: Callable[[Any, nn.Module, nn.Module], dict[str, np.ndarray]]
    evaluate: Callable[[Any, nn.Module, int, torch.Generator], dict[str, Any]]
    of_kind: Callable[[Any, Any], Any] = _of_kind
    notes: Callable[[Any], dict[str, Any]] = _nothing
    data: Callable[[Any], str] = lambda config: ""
    evaluation_episodes: int = 1000

    def settings(self, preset: str, kind: str = "plastic") -> Config:
        """The config of a preset, for a kind of network."""
        config = self.presets[preset]()
        kinds = get_args(get_type_hints(type(config.model)).get("kind")) or ("plastic",)
        if kind not in kinds:
            raise ValueError(f"{config.experiment} has no network of kind {kind}; it has {', '.join(kinds)}.")
        made: Config = self.of_kind(config, kind)
        return made
