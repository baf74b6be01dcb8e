"""Descriptions of the experiments and their presets, and the lookup by name.

Importing it imports nothing else, so that `plastic list` answers at once.

Unless stated otherwise, a cost is the time on the two CPU cores of docs/results.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torchplastic.experiments.base import Experiment
    from torchplastic.experiments.config import Config


class Preset(NamedTuple):
    """A complete set of settings: a description, its cost and its result."""

    about: str
    cost: str
    result: str


class Entry(NamedTuple):
    """An experiment: its module in this package, a description, and its presets by name."""

    module: str
    about: str
    presets: dict[str, Preset]


CATALOG = {  # by the name on the command line
    "patterns": Entry(
        "patterns",
        "memorise five 1000-bit patterns, complete one from half of its bits",
        {
            "smoke": Preset("3 patterns of 120 bits", "5 s", "wrong bits fall from 25 % to about 2 %"),
            "quick": Preset("the paper's task, 300 episodes", "20 s", "below 1 % wrong bits"),
            "paper": Preset("the paper's task, 1,000 episodes", "1 minute", "0.04 % wrong bits after 200"),
            "published": Preset("same settings as paper", "1 minute", "as paper"),
            "additive": Preset("released program: input added, not clamped", "1.5 to 3 minutes", "0.4 % wrong bits"),
        },
    ),
    "fifty-bit": Entry(
        "fifty_bit",
        "memorise two 50-bit patterns: 51 plastic neurons against an RNN and an LSTM of 2,050",
        {
            "smoke": Preset("2 patterns of 20 bits", "5 s", "wrong bits fall from 25 %"),
            "quick": Preset("as paper, 1,000 episodes", "6 s", "below 1 % wrong bits"),
            "paper": Preset("patterns shown 3 times, clamped, 2,000 episodes", "12 s", "0.26 % wrong bits"),
            "published": Preset("the same with Adam 1e-3 throughout", "12 s", "0.92 % wrong bits"),
            "released": Preset("released program: shown once, added, 10,000 episodes", "35 s", "1.4 % wrong bits"),
        },
    ),
    "images": Entry(
        "images",
        "memorise three natural images, complete one from its half",
        {
            "smoke": Preset("pictures of 12 × 12, patches of a photograph", "10 s", "validation error falls"),
            "quick": Preset("CIFAR-10, 10,000 episodes", "10.5 minutes", "validation error 11 (squared, median)"),
            "paper": Preset(
                "CIFAR-10, 40,000 episodes", "42 minutes at quick's rate", "published: 15.6 on training pictures"
            ),
            "published": Preset(
                "the same with Adam 1e-4 throughout", "42 minutes at quick's rate", "not measured to the end"
            ),
            "text": Preset(
                "paper's text: gaps of 3 steps, gray from 0 to 1", "42 minutes at quick's rate", "not measured"
            ),
        },
    ),
    "omniglot": Entry(
        "omniglot",
        "classify characters from one example",
        {
            "smoke": Preset("synthetic glyphs", "20 s", "test error falls"),
            "quick": Preset(
                "Omniglot, 6,000,000 episodes", "23 minutes on one core", "98.1 % accuracy on test characters"
            ),
            "paper": Preset(
                "Omniglot, 16,000,000 episodes", "53 minutes on one core", "98.5 % accuracy; published: 98.3 %"
            ),
            "published": Preset("one episode per update, Adam 3e-5", "not measured", "not measured"),
        },
    ),
    "maze": Entry(
        "maze",
        "find a hidden reward in a maze, and return to it",
        {
            "smoke": Preset("a maze of 7 × 7, 50 steps", "15 s", "reward rises from 6 to above 25"),
            "quick": Preset("the published maze, 60,000 episodes", "4 minutes", "reward 177; without plasticity 70"),
            "paper": Preset("the same, 1,000,000 episodes", "70 minutes at quick's rate", "reward 256 after 300,000"),
            "published": Preset("one maze per update, Adam 1e-4", "not measured", "not measured"),
        },
    ),
}


def entry(name: str) -> Entry:
    """The experiment of that name. ValueError for an unknown one."""
    if name not in CATALOG:
        raise ValueError(f"unknown experiment {name!r}; choose one of {', '.join(CATALOG)}.")
    return CATALOG[name]


def preset(name: str, which: str) -> Preset:
    """A preset of an experiment. ValueError for an unknown experiment or preset."""
    presets = entry(name).presets
    if which not in presets:
        raise ValueError(f"{name} has no preset {which!r}; choose one of {', '.join(presets)}.")
    return presets[which]


def get(name: str) -> Experiment:
    """Import the experiment of that name. ValueError for an unknown one."""
    experiment: Experiment = import_module(f"torchplastic.experiments.{entry(name).module}").EXPERIMENT
    return experiment


def settings(name: str, which: str, kind: str = "plastic") -> Config:
    """The config of a preset. ValueError for an unknown experiment or preset."""
    preset(name, which)
    return get(name).settings(which, kind)
