"""The tables of a report: plain cells of text, every number with the runs it stands on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from torchplastic.report.curves import curves_of, interval95
from torchplastic.report.formatting import (
    MISSING,
    duration,
    factor,
    listing,
    number,
    percent,
    plural,
    rate,
    size,
    with_interval,
)
from torchplastic.report.grouping import Group
from torchplastic.report.loading import Bench, Json, LoadedRun
from torchplastic.report.published import Literature

MEASURES = ("error", "reward", "accuracy")


@dataclass(frozen=True)
class Table:
    """Rows of cells under headings.

    title: what the table tells; note: how its numbers were made, a paragraph per line.
    text_columns: how many columns from the left are words rather than numbers.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    text_columns: int = 1


def measure_of(groups: Iterable[Group]) -> str:
    """Which of error and reward the runs record."""
    rows = (row for group in groups for run in group.runs for row in run.rows[:1])
    return next((measure for row in rows for measure in MEASURES if measure in row), "error")


def results_table(groups: Sequence[Group], literature: Literature) -> Table:
    """Per group: error (or reward) and loss at the end of training, training time, size, η."""
    measure = measure_of(groups)
    name = literature.label(measure).partition(" (")[0]
    columns = (
        "model",
        "runs",
        "episodes",
        f"{name}, last tenth of training",
        "smallest to largest",
        "loss, last tenth",
        "time",
        "parameters",
        "η",
    )
    rows = []
    for group in groups:
        whole = group.whole
        finals = [curve.final() for curve in curves_of(whole, measure)]
        losses = [curve.final() for curve in curves_of(whole, "loss")]
        extent = f"{number(min(finals))} to {number(max(finals))}" if len(finals) > 1 else MISSING
        rows.append(
            (
                group.label,
                _runs(group),
                _range([run.episodes for run in whole]),
                _mean(finals),
                extent,
                _mean(losses),
                duration(_average([run.rows[-1].get("seconds") for run in whole if run.rows])),
                _range([run.summary.get("parameters") for run in whole if run.summary]),
                number(_average([run.rows[-1].get("eta") for run in whole if run.rows])),
            )
        )
    note = (
        "Error or reward and loss are of training: means over the last tenth of each run's episodes (at least 20); "
        "then the mean over runs, in brackets its 95 % interval (Student's t) where there are several runs. Time is "
        "training time per run; η is that of the end."
    )
    if any(not run.finished for group in groups for run in group.runs):
        note += " Runs that have not finished count only where no run of their group has."
    return Table("Results", columns, tuple(rows), note)


def variants_table(groups: Sequence[Group]) -> Table | None:
    """What evaluations say of the whole network and of variants of it that lack something."""
    rows = []
    for group in groups:
        told = [evaluation for run in group.runs for evaluation in run.evaluations.values() if "variants" in evaluation]
        if not any(evaluation["variants"] for evaluation in told):
            continue
        measure = _kind_of(told[0])[0]
        for name in ("whole", *told[0]["variants"]):
            found = [one[measure] if name == "whole" else one["variants"][name] for one in told]
            interval = found[0].get("ci95") if len(found) == 1 else interval95([one["mean"] for one in found])
            steps = (number(_average([one.get(key) for one in found])) for key in ("steps_to_first", "steps_between"))
            rows.append((group.label, name, with_interval(_average([one["mean"] for one in found]), interval), *steps))
    columns = ("model", "variant", "mean", "steps to the first reward", "steps between later ones")
    note = "In brackets the 95 % interval: over episodes for one evaluation, over evaluations for several."
    return rows_or_none("Evaluation with less plasticity", columns, rows, note, text_columns=2)


def position_table(groups: Sequence[Group]) -> Table | None:
    """Accuracy by the step at which what was asked had been shown last, from evaluations that tell it."""
    rows = []
    for group in groups:
        told = [e["by_position"] for run in group.runs for e in run.evaluations.values() if e.get("by_position")]
        lengths = {len(each) for each in told}
        if len(lengths) == 1:
            rows.append((group.label, *(number(float(value)) for value in np.mean(told, axis=0))))
    longest = max((len(row) for row in rows), default=1)
    columns = ("model", *(f"step {t + 1}" for t in range(longest - 1)))
    padded = [row + (MISSING,) * (longest - len(row)) for row in rows]
    return rows_or_none(
        "Accuracy by the position of the query class in the support set", columns, padded, "Mean over evaluations."
    )


def evaluation_table(groups: Sequence[Group]) -> Table | None:
    """What `plastic eval` wrote, per group, evaluated data and measure."""
    rows = []
    for group in groups:
        told = [(_kind_of(evaluation), evaluation) for run in group.runs for evaluation in run.evaluations.values()]
        for (measure, split), members in groupby(sorted(told, key=lambda item: item[0]), key=lambda item: item[0]):
            found = [evaluation for _, evaluation in members]
            if not measure:
                continue
            results = [evaluation[measure] for evaluation in found]
            means = [result["mean"] for result in results]
            interval = results[0].get("ci95") if len(results) == 1 else interval95(means)
            rows.append(
                (
                    group.label,
                    split,
                    measure,
                    str(len(found)),
                    _range([evaluation.get("trained_episodes") for evaluation in found]),
                    _range([evaluation.get("episodes") for evaluation in found]),
                    with_interval(_average(means), interval),
                    number(_average([result.get("chance") for result in results])),
                    _baselines(found[0].get("baselines")),
                )
            )
    return rows_or_none(
        "Evaluation on new episodes",
        (
            "model",
            "data",
            "measure",
            "evaluations",
            "after training on",
            "episodes each",
            "mean",
            "chance",
            "baselines",
        ),
        rows,
        "In brackets the 95 % interval: over episodes for one evaluation, over evaluations for several.",
        text_columns=3,
    )


def provenance_table(runs: Sequence[LoadedRun]) -> Table | None:
    """Hardware, versions and data of all runs, equal ones together."""
    rows: dict[tuple[str, str, str], list[Any]] = {}
    for run in runs:
        if any(run.noted(key) for key in ("hardware", "versions", "data")):
            key = (told(run.noted("hardware")), told(run.noted("versions")), str(run.noted("data") or MISSING))
            rows.setdefault(key, []).append(run.seed)
    cells: list[tuple[str, ...]] = [(listing(seeds), *key) for key, seeds in rows.items()]
    columns: tuple[str, ...] = ("seeds", "hardware", "versions", "data")
    if all(data == MISSING for _, _, data in rows):
        columns, cells = columns[:-1], [cell[:-1] for cell in cells]
    return rows_or_none("Machine, versions and data", columns, cells, text_columns=4)


def bench_tables(bench: Bench) -> list[Table]:
    """Times and peak memory of every case, and the ratios of the file."""
    measured = [
        (
            str(row.get("suite", MISSING)),
            str(row.get("label") or row.get("case", MISSING)),
            str(row.get("impl", MISSING)),
            *_timing(row.get("seconds") or {}),
            rate(row.get("per_second"), row.get("counted")),
            size(row.get("peak_bytes")),
            percent(row.get("floor_share"), 0),
        )
        for row in bench.rows
    ]
    copied = bench.content.get("copy_bytes_per_second")
    speed = f" ({copied / 1e9:.0f} GB/s)" if copied else ""
    labels = {(row.get("suite"), row.get("case")): str(row.get("label") or row.get("case")) for row in bench.rows}
    ratios = [
        (
            str(ratio.get("suite", MISSING)),
            labels.get((ratio.get("suite"), ratio.get("case")), str(ratio.get("case", MISSING))),
            str(ratio.get("impl", "fast")),
            factor(ratio.get("speed")),
            factor(ratio.get("memory")),
        )
        for ratio in bench.content.get("ratios", [])
    ]
    tables = [
        rows_or_none(
            "Speed and memory against the plain loop",
            ("suite", "case", "implementation", "time ratio", "memory ratio"),
            ratios,
            "Time and peak memory of a training step of the reference, the plain loop, divided by those of this "
            "implementation: above 1 it takes less, below 1 more.",
            text_columns=3,
        ),
        rows_or_none(
            "Every measurement",
            (
                "suite",
                "case",
                "implementation",
                "median",
                "middle half",
                "spread",
                "steps timed",
                "rate",
                "peak memory",
                "of floor",
            ),
            measured,
            "Time of one training step. The spread is the width of the middle half as a share of the median. Of floor: "
            f"the time that the bytes counted for a step take at the speed of a copy in the same run{speed}, as a "
            "share of the step's.",
            text_columns=3,
        ),
    ]
    return [table for table in tables if table is not None]


def rows_or_none(
    title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]], note: str = "", text_columns: int = 1
) -> Table | None:
    """The table, or None where it would be empty."""
    return Table(title, columns, tuple(rows), note, text_columns) if rows else None


def told(values: Any) -> str:
    """An object of names and values in a line: `cpu X, 2 cores, device cpu`."""
    if not isinstance(values, dict):
        return str(values or MISSING)
    return ", ".join(_named(name, value) for name, value in values.items() if value not in (None, "")) or MISSING


def _named(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return f"{name} ({told(value)})"
    if name == "cpu":
        return str(value)
    if name in {"cores", "threads"} and isinstance(value, int):
        return plural(value, name[:-1])
    return f"{name.replace('_', ' ')} {value}"


def _runs(group: Group) -> str:
    waiting = sum(not run.finished for run in group.runs)
    return f"{len(group.runs)}" + (f" ({waiting} unfinished)" if waiting else "")


def _average(values: Iterable[Any]) -> float | None:
    numbers = [value for value in values if isinstance(value, int | float)]
    return float(np.mean(numbers)) if numbers else None


def _mean(values: Sequence[float]) -> str:
    return with_interval(_average(values), interval95(values))


def _range(values: Iterable[Any]) -> str:
    numbers = sorted({value for value in values if isinstance(value, int)})
    if not numbers:
        return MISSING
    return number(numbers[0]) if len(numbers) == 1 else f"{number(numbers[0])} to {number(numbers[-1])}"


def _kind_of(evaluation: Json) -> tuple[str, str]:
    measure = next((name for name in MEASURES if isinstance(evaluation.get(name), dict)), "")
    return measure, str(evaluation.get("split") or MISSING)


def _baselines(baselines: Any) -> str:
    if not isinstance(baselines, dict) or not baselines:
        return MISSING
    parts = []
    for name, value in baselines.items():
        result = value.get("mean") if isinstance(value, dict) else value
        parts.append(f"{name.replace('_', ' ')} {number(result) if isinstance(result, int | float) else result}")
    return ", ".join(parts)


def _timing(seconds: Json) -> tuple[str, str, str, str]:
    median, low, high = (seconds.get(key) for key in ("median", "q1", "q3"))
    if median is None:
        return (MISSING,) * 4
    if low is None or high is None:
        return duration(median), MISSING, MISSING, str(seconds.get("n", MISSING))
    return (
        duration(median),
        f"{duration(low)} to {duration(high)}",
        f"{number(100 * (high - low) / median, 2)} %" if median else MISSING,
        str(seconds.get("n", MISSING)),
    )
