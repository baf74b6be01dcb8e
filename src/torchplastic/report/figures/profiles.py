"""Profiles: a value at each step of an episode, one line for each group of runs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.figure import Figure

from torchplastic.report.curves import Floats
from torchplastic.report.figures.samples import by_kind
from torchplastic.report.figures.style import COLUMN, FAINT, GREY, legend_below, line_style, new_figure
from torchplastic.report.formatting import plural
from torchplastic.report.grouping import Group

STRETCHES = 25  # equal parts of an episode; each is averaged


def profiles(groups: Sequence[Group]) -> dict[str, list[tuple[str, dict[str, Floats]]]]:
    """The arrays `profile/NAME/WHEN` `[T]`, by NAME: the label of each group, and the mean over its runs by WHEN."""
    found: dict[str, list[tuple[str, dict[str, Floats]]]] = {}
    for group in groups:
        by_key: dict[str, list[Floats]] = {}
        for run in group.whole:
            for key, values in by_kind(run.samples(), "profile").items():
                by_key.setdefault(key, []).append(np.asarray(values, float))
        names = dict.fromkeys(key.rpartition("/")[0] for key in by_key)
        for name in names:
            whens = {
                key.rpartition("/")[2]: np.mean([run[: min(map(len, runs))] for run in runs], axis=0)
                for key, runs in by_key.items()
                if key.rpartition("/")[0] == name
            }
            found.setdefault(name, []).append((f"{group.label} ({plural(len(group.whole), 'run')})", whens))
    return found


def draw_profile(name: str, groups: Sequence[tuple[str, dict[str, Floats]]]) -> Figure:
    """Draw one line for each group after training, and a gray one for the first group before training."""
    figure = new_figure(COLUMN, 2.3)
    axes = figure.add_subplot()
    for index, (label, whens) in enumerate(groups):
        for when, values in whens.items():
            before = when.startswith("before")
            if before and index:
                continue
            steps, means = stretches(values)
            line = {"color": GREY, "linestyle": ":"} if before else line_style(index)
            axes.plot(steps, means, **line, label=when if before else label)
    axes.axhline(0, color=FAINT, linewidth=0.8, zorder=1)
    axes.set(xlabel="step of the episode", ylabel=name)
    axes.set_xlim(left=0)
    legend_below(figure, axes)
    return figure


def stretches(values: Floats) -> tuple[Floats, Floats]:
    """Midpoints and means of at most STRETCHES equal parts of `[T]`."""
    edges = np.linspace(0, len(values), min(STRETCHES, len(values)) + 1).round().astype(int)
    means = np.array([values[a:b].mean() for a, b in pairwise(edges.tolist())])
    return (edges[:-1] + edges[1:] + 1) / 2, means
