"""The tables of a report, as cells of text: results, evaluations, machines, bench measurements."""

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
from torchplastic.report.published import Literature
from torchplastic.report.sources import Bench, Json
from torchplastic.runs import RunRecord

MEASURES = ("error", "reward", "accuracy")
COMPLETE = "complete"

INTERVAL = "In brackets: the 95 % interval, over the episodes of a single evaluation, or over several evaluations."


@dataclass(frozen=True)
class Table:
    """Rows of cells under headings.

    title: its heading; note: how its numbers were computed, one paragraph per line.
    text_columns: how many columns, from the left, have text instead of numbers.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    text_columns: int = 1


def measure_of(groups: Iterable[Group]) -> str:
    """The measure that the runs record: error, reward or accuracy."""
    rows = (row for group in groups for run in group.runs for row in run.rows[:1])
    return next((measure for row in rows for measure in MEASURES if measure in row), "error")


def results_table(groups: Sequence[Group], literature: Literature) -> Table:
    """For each group: error (or reward) and loss at the end of training, training time, parameters, η."""
    measure = measure_of(groups)
    name = literature.label(measure).partition(" (")[0]
    columns = (
        "model",
        "runs",
        "episodes",
        f"{name}, last tenth of training",
        "minimum to maximum",
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
        "Error, reward and loss are training values: means over the last tenth of each run's episodes (at least 20), "
        "then over runs. In brackets: the 95 % interval over runs (Student's t). Time: training time per run. η: its "
        "value at the end."
    )
    if any(not run.finished for group in groups for run in group.runs):
        note += " Unfinished runs are included only if no run of their group has finished."
    return Table("Results", columns, tuple(rows), note)


def variants_table(groups: Sequence[Group]) -> Table | None:
    """Evaluations of the complete network and of variants with less plasticity; None without such evaluations."""
    rows = []
    for group in groups:
        evaluations = [each for run in group.runs for each in run.evaluations if "variants" in each]
        if not any(evaluation["variants"] for evaluation in evaluations):
            continue
        measure = _kind_of(evaluations[0])[0]
        for name in (COMPLETE, *evaluations[0]["variants"]):
            found = [each[measure] if name == COMPLETE else each["variants"][name] for each in evaluations]
            interval = found[0].get("ci95") if len(found) == 1 else interval95([one["mean"] for one in found])
            steps = (number(_average([one.get(key) for one in found])) for key in ("steps_to_first", "steps_between"))
            rows.append((group.label, name, with_interval(_average([one["mean"] for one in found]), interval), *steps))
    columns = ("model", "variant", "mean", "steps to the first reward", "steps between later ones")
    note = INTERVAL
    return rows_or_none("Evaluation with less plasticity", columns, rows, note, text_columns=2)


def position_table(groups: Sequence[Group]) -> Table | None:
    """Accuracy by the step that last showed the query's class; None without evaluations that have it."""
    rows = []
    for group in groups:
        found = [e["by_position"] for run in group.runs for e in run.evaluations if e.get("by_position")]
        lengths = {len(each) for each in found}
        if len(lengths) == 1:
            rows.append((group.label, *(number(float(value)) for value in np.mean(found, axis=0))))
    longest = max((len(row) for row in rows), default=1)
    columns = ("model", *(f"step {t + 1}" for t in range(longest - 1)))
    padded = [row + (MISSING,) * (longest - len(row)) for row in rows]
    return rows_or_none(
        "Accuracy by the position of the query class in the support set", columns, padded, "Mean over evaluations."
    )


def evaluation_table(groups: Sequence[Group]) -> Table | None:
    """The results of `plastic eval`: a row for each group, data and measure."""
    rows = []
    for group in groups:
        by_kind = [(_kind_of(each), each) for run in group.runs for each in run.evaluations]
        for (measure, split), members in groupby(sorted(by_kind, key=lambda item: item[0]), key=lambda item: item[0]):
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
            "episodes trained",
            "episodes each",
            "mean",
            "chance",
            "baselines",
        ),
        rows,
        INTERVAL,
        text_columns=3,
    )


def provenance_table(runs: Sequence[RunRecord]) -> Table | None:
    """Hardware, versions and data of all runs; one row for runs with the same."""
    rows: dict[tuple[str, str, str], list[Any]] = {}
    for run in runs:
        if any(run.recorded(key) for key in ("hardware", "versions", "data")):
            key = (
                key_values(run.recorded("hardware")),
                key_values(run.recorded("versions")),
                str(run.recorded("data") or MISSING),
            )
            rows.setdefault(key, []).append(run.seed)
    cells: list[tuple[str, ...]] = [(listing(seeds), *key) for key, seeds in rows.items()]
    columns: tuple[str, ...] = ("seeds", "hardware", "versions", "data")
    if all(data == MISSING for _, _, data in rows):
        columns, cells = columns[:-1], [cell[:-1] for cell in cells]
    return rows_or_none("Machine, versions and data", columns, cells, text_columns=4)


def bench_tables(bench: Bench) -> list[Table]:
    """The tables of a bench file: ratios to the reference, then time and peak memory of every case."""
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
            "implementation. Above 1 the implementation is faster or smaller than the reference.",
            text_columns=3,
        ),
        rows_or_none(
            "Every measurement",
            (
                "suite",
                "case",
                "implementation",
                "median",
                "quartiles",
                "spread",
                "steps timed",
                "rate",
                "peak memory",
                "share of floor",
            ),
            measured,
            "Time of one training step. Spread: the interquartile range over the median. Share of floor: the time that "
            "the bytes which a step must move, by count, take at the speed of a copy in the same "
            f"process{speed}, over the time of the step.",
            text_columns=3,
        ),
    ]
    return [table for table in tables if table is not None]


def rows_or_none(
    title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]], note: str = "", text_columns: int = 1
) -> Table | None:
    """The table; None if it has no rows."""
    return Table(title, columns, tuple(rows), note, text_columns) if rows else None


def key_values(values: Any) -> str:
    """A JSON object as one line: `cpu X, 2 cores, device cpu`."""
    if not isinstance(values, dict):
        return str(values or MISSING)
    return ", ".join(_named(name, value) for name, value in values.items() if value not in (None, "")) or MISSING


def _named(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return f"{name} ({key_values(value)})"
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
