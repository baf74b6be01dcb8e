"""What an experiment is, and where each is found: catalog.py has the list of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import nn

from torchplastic.experiments import catalog
from torchplastic.experiments.config import Config
from torchplastic.train.trainer import Learner


@dataclass(frozen=True)
class Components:
    """What a config builds."""

    learner: Learner
    model: nn.Module
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None
    """How the model does on what is never trained on: further keys of a row of metrics."""
    medians: bool = False
    """Whether rows have the median of the measure beside its mean."""


def _of_kind(config: Config, kind: Any) -> Config:
    if not hasattr(config.model, "kind"):
        if kind == "plastic":
            return config
        raise ValueError(f"{config.experiment} has no network of kind {kind}; omit --model.kind.")
    return replace(config, model=replace(config.model, kind=kind))  # type: ignore[call-arg]


def _nothing(config: Any) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Experiment:
    """An experiment: its presets, and how a config becomes a run.

    presets: the functions that make the configs of its presets, by their names in the catalog.
    build(config) -> Components, from the config alone.
    needed_bytes(config) -> what training takes, asked before anything is built.
    samples(config, before, after) -> the arrays of samples.npz, from weights before and after training.
    evaluate(config, model, episodes, generator) -> the result of `plastic eval`.
    of_kind(config, kind) -> the same for another kind of network, with the sizes and rates it was published with.
    notes(config) -> what the summary says besides: the data, and trivial answers to beat.
    data(config) -> what the data are, with a digest; "" without data. ValueError where they are not there.
    evaluation_episodes: how many `plastic eval` takes if it is not told.
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


def get(name: str) -> Experiment:
    """The experiment of that name. ValueError for an unknown one."""
    return import_module(f"torchplastic.experiments.{catalog.entry(name).module}").EXPERIMENT


def settings(name: str, preset: str, kind: str = "plastic") -> Config:
    """Where the settings of a run start. ValueError for an unknown experiment or preset."""
    catalog.preset(name, preset)
    experiment = get(name)
    return experiment.of_kind(experiment.presets[preset](), kind)
