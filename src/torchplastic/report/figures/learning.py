"""Learning curves: our runs over one or many seeds, and published values, in the same axes."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.scale import SymmetricalLogTransform
from matplotlib.ticker import FixedLocator, LogLocator, SymmetricalLogLocator

from torchplastic.report.curves import Curve, Floats, curves_of, held_out_curves
from torchplastic.report.figures.style import (
    COLUMN,
    GREY,
    INK,
    few_ticks,
    label_plainly,
    legend_below,
    line_style,
    new_figure,
)
from torchplastic.report.formatting import number, plural
from torchplastic.report.grouping import Group
from torchplastic.report.published import Literature, Published

Spread = Literal["range", "quartiles"]

#: With fewer runs than this each run is a line, otherwise a band shows their spread.
FEWEST_FOR_BAND = {"range": 5, "quartiles": 4}
POINTS = 240
#: Measures that training increases, on a linear axis: their small early values do not matter.
LINEAR = {"reward"}


def draw_learning(
    groups: Sequence[Group],
    measure: str,
    literature: Literature,
    spread: Spread = "range",
    chance: float | None = None,
    baselines: Mapping[str, float] | None = None,
) -> Figure | None:
    """Draw the learning curves of all groups in one measure; None if no run has it.

    spread: "range" draws the mean, with a band from the minimum to the maximum over runs; "quartiles" the median, with
        a band between the quartiles.
    chance: the level of chance, if known.
    baselines: levels of trivial answers, by name.
    """
    by_group = [curves_of(group.runs, measure) for group in groups]
    if not any(by_group):
        return None
    entries = literature.of(measure)
    log = needs_log([curve for curves in by_group for curve in curves], entries)
    figure = new_figure(COLUMN, 2.45)
    axes = figure.add_subplot()
    for index, (group, curves) in enumerate(zip(groups, by_group, strict=True)):
        if curves:
            _draw_group(axes, group, curves, measure, line_style(index), spread, log)
    for entry in entries:
        _draw_published(axes, entry, groups)
    if chance is not None:
        axes.axhline(chance, color=GREY, linewidth=0.8, linestyle=(0, (1, 2)), label=f"chance ({chance:g})")
    for index, (name, level) in enumerate((baselines or {}).items()):
        dashes = (0, (3 + 3 * index, 2))
        axes.axhline(level, color=GREY, linewidth=0.8, linestyle=dashes, label=f"{name} ({number(level)})")
    _scale_x(axes, by_group, entries, log)
    _scale_y(axes, linear=measure in LINEAR)
    axes.set_xlabel("training episodes")
    axes.set_ylabel(literature.label(measure))
    legend_below(figure, axes)
    return figure


def needs_log(curves: Sequence[Curve], entries: Sequence[Published]) -> bool:
    """Whether episodes need a logarithmic axis, because a linear one would squeeze a curve into its left edge."""
    lasts = [curve.last for curve in curves]
    if max(lasts) >= 8 * min(lasts) or max(curve.last / curve.episodes[0] for curve in curves) >= 500:
        return True
    first_points = [min(point[0] for point in entry.points if point[0] > 0) for entry in entries if not entry.level]
    return any(point > max(lasts) for point in first_points)


def has_quartiles(groups: Sequence[Group], measure: str) -> bool:
    """Whether at least one group has enough runs for a figure of medians and quartiles."""
    return any(len(curves_of(group.whole, measure)) >= FEWEST_FOR_BAND["quartiles"] for group in groups)


def linear_below(axes: Axes) -> dict[str, float]:
    """For each symlog axis, "horizontal" or "vertical": the value below which it is linear."""
    scales = {"horizontal": axes.xaxis.get_transform(), "vertical": axes.yaxis.get_transform()}
    return {name: float(kind.linthresh) for name, kind in scales.items() if isinstance(kind, SymmetricalLogTransform)}


def _draw_group(
    axes: Axes, group: Group, curves: list[Curve], measure: str, options: dict[str, Any], spread: Spread, log: bool
) -> None:
    whole = curves_of(group.whole, measure) or curves
    shortest = min(whole, key=lambda curve: curve.last)
    grid = shortest.grid(POINTS, log)
    smoothed = np.array([curve.smooth(grid) for curve in whole])
    centre = np.mean(smoothed, axis=0) if spread == "range" else np.median(smoothed, axis=0)
    if len(curves) == 1:
        axes.plot(grid, shortest.binned(grid), color=options["color"], linewidth=0.6, alpha=0.35)
    elif len(whole) >= FEWEST_FOR_BAND[spread]:
        low, high = (0, 100) if spread == "range" else (25, 75)
        band = np.percentile(smoothed, [low, high], axis=0)
        axes.fill_between(grid, *band, color=options["color"], alpha=0.2, linewidth=0)
    else:
        for curve in curves:
            _line(axes, curve, log, {"color": options["color"], "linewidth": 0.7, "alpha": 0.45})
    axes.plot(grid, centre, **options, label=_label(group.label, len(whole), spread))
    for kind, held_out in held_out_curves(group.whole, measure).items():
        short = min(held_out, key=lambda curve: curve.last).grid(POINTS, log)
        values = np.array([curve.smooth(short) for curve in held_out])
        middle = values.mean(0) if spread == "range" else np.median(values, axis=0)
        dots = {"color": options["color"], "linewidth": 0.6, "marker": ".", "markersize": 4}
        axes.plot(short, middle, **dots, label=f"{group.label}: {kind} data")


def _line(axes: Axes, curve: Curve, log: bool, options: dict[str, Any]) -> None:
    grid = curve.grid(POINTS, log)
    axes.plot(grid, curve.smooth(grid), **options)


def _label(label: str, runs: int, spread: Spread) -> str:
    what = "1 run" if runs == 1 else f"{'mean' if spread == 'range' else 'median'} of {plural(runs, 'run')}"
    return textwrap.fill(f"{label} ({what})", 50)


def _draw_published(axes: Axes, entry: Published, groups: Sequence[Group]) -> None:
    matches = [index for index, group in enumerate(groups) if entry.belongs_to(group)]
    colour = line_style(matches[0])["color"] if len(matches) == 1 else INK
    episodes = np.array([point[0] for point in entry.points], float)
    low, high = (np.array([point[k] for point in entry.points], float) for k in (1, 2))
    if entry.level is not None:
        axes.axhline(entry.level, color=INK, linewidth=0.8, linestyle=(0, (4, 2)))
        axes.plot(
            episodes, high, color=INK, marker="v", markersize=5.5, markerfacecolor="white", linestyle=(0, (4, 2)),
            linewidth=0.8, label=textwrap.fill(f"published: {entry.claim}", 54), zorder=4,
        )  # fmt: skip
        return
    kind = str(entry.model.get("kind"))
    marker = {"plastic": "o", "lstm": "s", "rnn": "^"}.get(kind, "D")
    axes.errorbar(
        episodes, (low + high) / 2, yerr=(high - low) / 2 if np.any(high > low) else None, color=colour,
        marker=marker, markerfacecolor="white", linestyle=(0, (1, 2)), linewidth=0.9, capsize=2, zorder=3,
        label=textwrap.fill(f"published: {entry.name}", 50),
    )  # fmt: skip


def _scale_x(axes: Axes, by_group: Sequence[Sequence[Curve]], entries: Sequence[Published], log: bool) -> None:
    curves = [curve for curves in by_group for curve in curves]
    first, last = min(curve.episodes[0] for curve in curves), max(curve.last for curve in curves)
    points = sorted(point[0] for entry in entries for point in entry.points)
    # Leaves room for a marker at zero, beside the axis.
    if log:
        last = max([last, *points])
        if points and points[0] <= 0:
            linear = 10 ** math.floor(math.log10(first))
            axes.set_xscale("symlog", linthresh=linear, linscale=0.4)
            axes.set_xlim(-0.25 * linear, last * 1.3)
        else:
            axes.set_xscale("log")
            axes.set_xlim(min([first, *points]) / 1.15, last * 1.3)
    else:
        # The axis ends at the first published point after our last episode, so that our curve fills most of it.
        past = [point for entry in entries if not entry.level for point, *_ in entry.points if point >= last]
        marks = [point for entry in entries if entry.level for point, *_ in entry.points if point <= 3 * last]
        end = max([min([*past, last * 1.5]) if past else last, *marks])
        axes.set_xlim(-0.025 * end, end * 1.03)
    label_plainly(axes, "x")


def _scale_y(axes: Axes, linear: bool) -> None:
    """Logarithmic if lines and bands span more than a decade; with zeros, linear below a hundredth of the top decade.

    linear: always linear, from zero or from a negative minimum.
    """
    lines = [np.asarray(line.get_ydata(), float) for line in axes.get_lines()]
    lines += [np.asarray(path.vertices, float)[:, 1] for band in axes.collections for path in band.get_paths()]
    values: Floats = np.concatenate([line[np.isfinite(line)] for line in lines])
    least, most = float(np.min(values)), float(np.max(values))
    if linear or least < 0 or most <= 0 or least > most / 10:
        axes.set_ylim(bottom=min(0.0, least * 1.1))
        label_plainly(axes, "y")
        return
    top = 10.0 ** math.floor(math.log10(most))
    threshold = top / 100
    if least >= (threshold / 100 if least > 0 else threshold):
        axes.set_yscale("log")
        axes.set_ylim(least / 1.5, most * 1.4)
        axes.yaxis.set_major_locator(FixedLocator(few_ticks(*axes.get_ylim())))
        axes.yaxis.set_minor_locator(LogLocator(subs=range(2, 10)))
    else:
        axes.set_yscale("symlog", linthresh=threshold, linscale=0.5)
        axes.set_ylim(0, most * 1.4)
        axes.yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=threshold))
        axes.yaxis.set_minor_locator(SymmetricalLogLocator(base=10, linthresh=threshold, subs=range(2, 10)))
    label_plainly(axes, "y")
