"""The experiments and their presets in words. It imports nothing, so that `plastic list` answers at once.

Costs are of the two CPU cores of docs/results, where nothing else is said; what was not measured says so.
"""

from __future__ import annotations

from typing import NamedTuple


class Preset(NamedTuple):
    """One complete setting of an experiment: what it is, how long it takes, what comes out."""

    about: str
    cost: str
    result: str


class Entry(NamedTuple):
    """An experiment: the module of this folder that runs it, and its presets by name."""

    module: str
    about: str
    presets: dict[str, Preset]


CATALOG = {  # by the name on the command line
    "patterns": Entry(
        "patterns",
        "memorise five 1000-bit patterns, complete one from half of its bits",
        {
            "smoke": Preset("3 patterns of 120 bits", "5 s", "error falls from 0.25 to about 0.02"),
            "quick": Preset("the paper's task, 300 episodes", "20 s", "below 1 % wrong bits"),
            "paper": Preset("the paper's task, 1,000 episodes", "1 minute", "published: below 1 % after about 200"),
            "published": Preset("the same, nothing changed", "1 minute", "as paper"),
            "additive": Preset("the released program's variant", "1.5 to 3 minutes", "input added, not clamped"),
        },
    ),
    "fifty-bit": Entry(
        "fifty_bit",
        "memorise two 50-bit patterns: 51 plastic neurons against an RNN and an LSTM of 2,050",
        {
            "smoke": Preset("2 patterns of 20 bits", "5 s", "error falls from 0.25"),
            "quick": Preset("as paper, 1,000 episodes", "6 s", "error below 0.01"),
            "paper": Preset("patterns shown 3 times, clamped, 2,000 episodes", "12 s", "published: below 0.01"),
            "published": Preset("the same with Adam 1e-3 for all", "12 s", "published: below 0.01"),
            "released": Preset("shown once, input added, 10,000 episodes", "35 s", "the published curves' task"),
        },
    ),
    "images": Entry(
        "images",
        "memorise three natural images, complete one from its half",
        {
            "smoke": Preset("pictures of 12 × 12, patches of a photograph", "10 s", "validation error falls"),
            "quick": Preset("CIFAR-10, 10,000 episodes", "10.5 minutes", "validation squared error 11"),
            "paper": Preset(
                "CIFAR-10, 40,000 episodes", "42 minutes at quick's rate", "published: 15.6, on training pictures"
            ),
            "published": Preset("the same with Adam 1e-4 throughout", "42 minutes at quick's rate", "as published"),
            "text": Preset(
                "gaps of 3 steps, gray from 0 to 1", "42 minutes at quick's rate", "another scale of errors"
            ),
        },
    ),
    "omniglot": Entry(
        "omniglot",
        "classify characters from one example",
        {
            "smoke": Preset("glyphs that the program draws", "20 s", "test error falls"),
            "quick": Preset(
                "Omniglot, 6,000,000 episodes", "23 minutes on one core", "98.1 % right on test characters"
            ),
            "paper": Preset(
                "Omniglot, 16,000,000 episodes", "53 minutes on one core", "98.5 % right; published 98.3 %"
            ),
            "published": Preset("one episode per update, Adam 3e-5", "not measured", "as published"),
        },
    ),
    "maze": Entry(
        "maze",
        "find a reward in a maze, and find it again",
        {
            "smoke": Preset("a maze of 7 × 7, 50 steps", "15 s", "reward rises from 6 to above 25"),
            "quick": Preset("the published maze, 60,000 episodes", "4 minutes", "177 plastic, 70 not"),
            "paper": Preset("the same, 1,000,000 episodes", "70 minutes at quick's rate", "256 plastic after 300,000"),
            "published": Preset("one maze per update, Adam 1e-4", "not measured", "as published"),
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
