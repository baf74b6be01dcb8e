"""Tables that compare models with each other and with published values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import mannwhitneyu

from torchplastic.report.curves import curves_of, held_out_curves, interval95
from torchplastic.report.formatting import MISSING, duration, factor, number, plural, with_interval, with_range
from torchplastic.report.grouping import Group
from torchplastic.report.published import Literature, Published
from torchplastic.report.tables import Table

#: Error levels in the table of times.
LEVELS = (0.15, 0.1, 0.05, 0.01)
NOT_REACHED = "not reached"

#: Episodes and seconds until a level, for each run; None for a run that never reached it.
Reached = list[tuple[float, float] | None]


def reach_table(groups: Sequence[Group]) -> Table | None:
    """Episodes and seconds until each error level, with ratios to the fastest group on the same task.

    None if the error is not a fraction, or if there are no metrics.
    """
    curves = {group.label: curves_of(group.whole, "error") for group in groups}
    every = [curve for members in curves.values() for curve in members]
    if not every or max(float(np.max(curve.values)) for curve in every) > 1:
        return None
    compared = len({group.task for group in groups}) < len(groups)
    columns = ("error at most", "model", "runs that reach it", "episodes", "× fewest", "training time", "× shortest")
    rows = []
    for level in LEVELS:
        found = {label: [curve.reached(level) for curve in members] for label, members in curves.items()}
        for group in groups:
            if curves[group.label]:
                rivals = [found[rival.label] for rival in groups if rival.task == group.task and curves[rival.label]]
                trained = max((curve.last, float(curve.seconds[-1])) for curve in curves[group.label])
                cells = (f"{level:g}", group.label, *_reach_cells(found[group.label], rivals, trained))
                rows.append(cells if compared else _without_ratios(cells))
    note = (
        "A run has reached a level when the mean error over the last tenth of its episodes so far (at least 20) stays "
        "at or below it until the end. Median over runs, in brackets the minimum and maximum of the runs that reached "
        "the level; given only if more than half of them did."
    )
    if compared:
        note += (
            " Ratios are to the fastest model here on the same task; “>”: training ended before the level. "
            "Nothing is extrapolated."
        )
    headings = columns if compared else _without_ratios(columns)
    return Table("Time to reach an error level", headings, tuple(rows), note, text_columns=2)


def _without_ratios(cells: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(cell for index, cell in enumerate(cells) if index not in {4, 6})


#: Fewest runs on each side for a p value: with three against three p cannot be below 0.05.
FEWEST_FOR_P = 4


def rank_sum_table(groups: Sequence[Group], measure: str) -> Table | None:
    """Wilcoxon's rank-sum test between the final values of each two groups on one task; None without two groups."""
    rows = []
    for index, one in enumerate(groups):
        for other in groups[index + 1 :]:
            if one.task != other.task:
                continue
            finals = [[curve.final() for curve in curves_of(group.whole, measure)] for group in (one, other)]
            if not all(finals):
                continue
            counts = " and ".join(str(len(values)) for values in finals)
            enough = min(map(len, finals)) >= FEWEST_FOR_P
            p = float(mannwhitneyu(*finals, method="exact" if enough else "auto").pvalue) if enough else None
            result = "too few runs" if p is None else number(p)
            medians = [number(float(np.median(values))) for values in finals]
            rows.append((one.label, other.label, counts, *medians, result))
    if not rows:
        return None
    note = (
        "Two-sided exact Wilcoxon rank-sum test between final values: means over the last tenth of each run's "
        f"episodes (at least 20). p needs {FEWEST_FOR_P} runs on each side. Not corrected for multiple comparisons."
    )
    columns = ("model", "other model", "runs", "median", "median of the other", "p")
    return Table(
        f"Rank-sum test of the {measure} over the last tenth of training", columns, tuple(rows), note, text_columns=2
    )


def published_table(groups: Sequence[Group], literature: Literature) -> Table | None:
    """Every published point with its source, beside the value of our runs of the same preset and model."""
    rows = []
    for entry in literature.entries:
        ours = [group for group in groups if entry.belongs_to(group)]
        for episode, low, high in entry.points:
            beside = "; ".join(_at(group, entry.measure, episode) for group in ours) or "no such run in this report"
            rows.append(
                (
                    entry.measure.replace("_", " "),
                    entry.name,
                    number(int(episode)),
                    _published_value(entry, low, high),
                    beside,
                )
            )
    if not rows:
        return None
    sources = dict.fromkeys(
        f"{entry.measure.replace('_', ' ').capitalize()}, {entry.name}: {entry.source}. How the value was read: "
        f"{entry.read}. Protocol: {entry.protocol}."
        for entry in literature.entries
    )
    return Table(
        "Published values beside ours",
        ("measure", "published", "episode", "value", "ours at that episode"),
        tuple(rows),
        "Ours: mean over ± 5 % of the episode number (at least one row of the metrics), then over runs; in brackets "
        "the 95 % interval over runs.\n" + "\n".join(sources),
        text_columns=2,
    )


def _median(found: Reached, part: int) -> float | None:
    # Runs that never reached the level count as infinitely late.
    middle = float(np.median([float("inf") if hit is None else hit[part] for hit in found]))
    return middle if np.isfinite(middle) else None


def _reach_cells(found: Reached, rivals: Sequence[Reached], trained: tuple[float, float]) -> tuple[str, ...]:
    hits = [hit for hit in found if hit is not None]
    reached_by = f"{len(hits)} of {len(found)}"
    medians = [[middle for rival in rivals if (middle := _median(rival, part)) is not None] for part in (0, 1)]
    episodes, seconds = _median(found, 0), _median(found, 1)
    if episodes is None or seconds is None:
        never = f"{NOT_REACHED} by most" if hits else NOT_REACHED
        return (
            reached_by,
            f"{never} in {number(int(trained[0]))}",
            _bound(trained[0], medians[0]),
            f"{never} in {duration(trained[1])}",
            _bound(trained[1], medians[1]),
        )
    first, last = min(hits), max(hits)
    return (
        reached_by,
        with_range(*(int(value) if value.is_integer() else value for value in (episodes, first[0], last[0]))),
        _ratio(episodes, medians[0], len(rivals)),
        duration(seconds),
        _ratio(seconds, medians[1], len(rivals)),
    )


def _ratio(value: float, medians: Sequence[float], rivals: int) -> str:
    return factor(value / min(medians)) if rivals > 1 and min(medians) > 0 else MISSING


def _bound(trained: float, medians: Sequence[float]) -> str:
    fastest = min(medians, default=trained)
    return f"> {factor(trained / fastest)}" if 0 < fastest < trained else MISSING


def _published_value(entry: Published, low: float, high: float) -> str:
    if entry.level is not None:
        return f"below {high:g}"
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _at(group: Group, measure: str, episode: float) -> str:
    curves = [curve for curve in curves_of(group.whole, measure) if curve.last >= episode]
    if not curves:
        return "not trained that long"
    if episode <= 0:
        return "before the first row of metrics"
    values = [float(curve.smooth([episode])[0]) for curve in curves]
    text = f"{with_interval(float(np.mean(values)), interval95(values))} ({group.label}, {plural(len(values), 'run')}"
    for kind, held_out in held_out_curves(group.whole, measure).items():
        if reached := [curve.smooth([episode])[0] for curve in held_out if curve.last >= episode]:
            text += f"; {kind} {number(float(np.mean(reached)))}"
    return f"{text})"
