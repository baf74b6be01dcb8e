"""How time and memory grow with one size, from the suites "scaling …" of a bench file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from torchplastic.report.curves import Floats
from torchplastic.report.figures.style import COLUMN, few_ticks, label_plainly, legend_below, line_style, new_figure
from torchplastic.report.sources import Json

#: The legend omits a power law that misses a point by more than this share.
LARGEST_MISFIT = 0.2

SIZES = {"N": "neurons N", "T": "steps per episode T", "B": "episodes per batch B"}


def scaling_suites(rows: Sequence[Json]) -> dict[str, list[Json]]:
    """The rows by the size (N, T or B) that their suite varies."""
    found: dict[str, list[Json]] = {}
    for row in rows:
        word, _, size = str(row.get("suite", "")).partition(" ")
        if word == "scaling" and size in SIZES and size in row:
            found.setdefault(size, []).append(row)
    return found


def draw_scaling(rows: Sequence[Json], size: str, what: str) -> Figure | None:
    """Draw time (`what="seconds"`, median with quartiles) or peak memory ("peak_bytes") against one size, log–log.

    The legend has the exponent of a power law through the three largest sizes, if one fits. None without measurements.
    """
    figure = new_figure(COLUMN, 2.2)
    axes = figure.add_subplot()
    ticks: set[float] = set()
    for index, impl in enumerate(dict.fromkeys(str(row["impl"]) for row in rows)):
        points = sorted(
            (row[size], *values) for row in rows if str(row["impl"]) == impl and (values := _values(row, what))
        )
        if not points:
            continue
        x, middle, low, high = np.array(points, float).T
        spread = np.array([middle - low, high - middle])
        bars = spread if np.any(spread) else None
        axes.errorbar(
            x, middle, yerr=bars, marker="osD^"[index % 4], **line_style(index), capsize=2,
            label=f"{impl}{_growth(x, middle, size)}",
        )  # fmt: skip
        ticks |= set(x)
    if not ticks:
        return None
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sorted(ticks)))
    axes.xaxis.set_minor_locator(NullLocator())
    label_plainly(axes, "x")
    axes.set_xlabel(SIZES[size])
    axes.set_ylabel("training step (ms)" if what == "seconds" else "peak memory (MiB)")
    axes.yaxis.set_major_locator(FixedLocator(few_ticks(*axes.get_ylim())))
    label_plainly(axes, "y")
    axes.grid(True, which="minor", axis="y", linewidth=0.3)
    legend_below(figure, axes)
    return figure


def traces_per_step(rows: Sequence[Json]) -> dict[str, float]:
    """Peak memory of each further step, by implementation, in traces of N² numbers of float32.

    It is the slope between the two longest episodes; an implementation needs at least two lengths.
    """
    found: dict[str, float] = {}
    for impl in dict.fromkeys(str(row["impl"]) for row in rows):
        own = [row for row in rows if str(row["impl"]) == impl and row.get("peak_bytes") and row.get("N")]
        points = sorted((row["T"], row["peak_bytes"] / (4 * row["N"] ** 2 * row.get("B", 1))) for row in own)
        if len(points) > 1:
            (before, less), (steps, more) = points[-2:]
            found[impl] = (more - less) / (steps - before)
    return found


def _values(row: Json, what: str) -> tuple[float, float, float] | None:
    if what == "seconds":
        seconds = row.get("seconds")
        if not seconds:
            return None
        median = seconds["median"] * 1e3
        return median, seconds.get("q1", seconds["median"]) * 1e3, seconds.get("q3", seconds["median"]) * 1e3
    peak = row.get("peak_bytes")
    return None if peak is None else (peak / 2**20,) * 3


def _growth(x: Floats, y: Floats, size: str) -> str:
    if len(x) < 3:
        return ""
    slope, offset = np.polyfit(np.log(x[-3:]), np.log(y[-3:]), 1)
    if np.max(np.abs(slope * np.log(x[-3:]) + offset - np.log(y[-3:]))) > np.log(1 + LARGEST_MISFIT):
        return ""
    exponent = f"{slope:.1f}".replace("-", "−")
    return f"  (grows as ${size}^{{{exponent}}}$ at the end)"
