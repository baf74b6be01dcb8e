"""`plastic bench`: measure every implementation of a network against the plain loop, in turn in one process."""

from __future__ import annotations

import gc
import json
import statistics
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from torchplastic.bench.measure import copy_bandwidth, peak_bytes, seconds_in_turn, spread
from torchplastic.bench.suites import ONLY_ON_GPU, SUITES, Measured, TrainingStep
from torchplastic.machine import hardware, versions

MIB = 2**20
ROUNDS_OF_SCALING = 5
PIPE_WIDTH = 180  # columns of the table where the terminal's width is unknown


def run_bench(names: Sequence[str], rounds: int, device: str = "auto", out: Path | None = None) -> dict[str, Any]:
    """Measure suites, print a table, and write JSON to `out`.

    names: suites to measure; if empty, all that suit the device.
    Raises ValueError for an unknown suite or a missing device.
    """
    from rich.console import Console
    from rich.table import Table

    if unknown := [name for name in names if name not in SUITES]:
        raise ValueError(f"unknown suite {unknown[0]!r}; choose from {', '.join(SUITES)}.")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: no GPU is available. Omit --device, or use --device cpu.")
    where = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    rows: list[dict[str, Any]] = []
    table = Table(
        "suite",
        "case",
        "implementation",
        "ms per step (quartiles)",
        "per second",
        "peak MiB",
        "faster",
        "smaller",
        "share of floor",
    )
    bandwidth = copy_bandwidth(where)
    errors = Console(stderr=True)
    for name in names or [name for name in SUITES if where.type == "cuda" or name not in ONLY_ON_GPU]:
        for case in SUITES[name]():
            errors.print(f"{case.suite}: {case.label} …", style="dim", highlight=False)
            rounds_here = rounds if not name.startswith("scaling") else min(rounds, ROUNDS_OF_SCALING)
            found = measure(case, rounds_here, where, bandwidth)
            rows += found
            for row in found:
                time = row["seconds"]
                quartiles = f"{1e3 * time['median']:.2f} ({1e3 * time['q1']:.2f} – {1e3 * time['q3']:.2f})"
                table.add_row(
                    case.suite, case.label, row["impl"], quartiles, _rate(row), f"{row['peak_bytes'] / MIB:.1f}",
                    *_compared(found[0], row), _percent(row["floor_share"]),
                )  # fmt: skip
    result = as_file(rows, where, bandwidth)
    machine = result["hardware"]
    out_console = Console()
    if not out_console.is_terminal:
        out_console.width = max(out_console.width, PIPE_WIDTH)
    out_console.print(table)
    print(f"{machine.get('gpu', machine['cpu'])}, {machine['threads']} threads, torch {torch.__version__}, float32")
    if any(row["floor_bytes"] for row in rows):
        speed = f"{bandwidth / 1e9:.1f} GB/s"
        print(
            f"share of floor: time of the bytes that a step must move, at the speed of a copy ({speed}), over its time"
        )
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("x") as file:
            json.dump(result, file, indent=1)
    return result


def as_file(rows: list[dict[str, Any]], device: torch.device, bandwidth: float | None) -> dict[str, Any]:
    """The content of a bench file: these rows of `measure`, the machine, and ratios to the plain loop."""
    return {
        "kind": "bench",
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "hardware": hardware(device),
        "versions": versions(),
        "copy_bytes_per_second": bandwidth,
        "rows": rows,
        "ratios": [
            {"suite": row["suite"], "case": row["case"], "impl": row["impl"], **_ratio(base, row)}
            for base in rows
            if base["impl"] == "reference"
            for row in rows
            if row["impl"] != "reference" and (row["suite"], row["case"]) == (base["suite"], base["case"])
        ],
    }


def measure(case: Measured, rounds: int, device: torch.device, bandwidth: float | None) -> list[dict[str, Any]]:
    """A row for each implementation of a case, the reference first; bandwidth: bytes per second of a copy, if known."""
    steps, persistent = case.steps(device)
    peaks = {
        impl: peak_bytes(step.once if isinstance(step, TrainingStep) else step, persistent, device)
        for impl, step in steps.items()
    }
    seconds = seconds_in_turn(steps, rounds, device)
    del steps, persistent
    gc.collect()
    rows = []
    for impl in peaks:
        median, floor = statistics.median(seconds[impl]), case.floor_bytes(impl, device)
        row = {
            "suite": case.suite,
            "case": case.name,
            "label": case.label,
            **case.sizes(),
            "impl": impl,
            "counted": case.counted,
            "per_second": case.count() / median,
            "seconds": spread(seconds[impl]),
            "peak_bytes": peaks[impl],
            "floor_bytes": floor,
            "floor_share": floor / bandwidth / median if floor and bandwidth else None,
        }
        rows.append(row)
    return rows


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def _compared(first: dict[str, Any], row: dict[str, Any]) -> list[str]:
    """Speed and memory against the plain loop; empty if it was not run."""
    return [f"{value:.1f} ×" for value in _ratio(first, row).values()] if first["impl"] == "reference" else ["", ""]


def _rate(row: dict[str, Any]) -> str:
    """Episodes or moves per second, with three significant digits."""
    value = float(f"{row['per_second']:.3g}")
    return f"{value:,.0f} {row['counted']}" if value >= 100 else f"{value:g} {row['counted']}"


def _ratio(reference: dict[str, Any], row: dict[str, Any]) -> dict[str, float]:
    """How many times faster and smaller than the plain loop a row is."""
    return {
        "speed": reference["seconds"]["median"] / row["seconds"]["median"],
        "memory": reference["peak_bytes"] / row["peak_bytes"],
    }
