"""`plastic bench`: speed and memory against the plain loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from torchplastic.cli.console import loading
from torchplastic.cli.parsing import parse


@dataclass
class Bench:
    """Training step of each preset, in one process and in turn: median time, memory, ratios."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Which suites: patterns, fifty-bit, images, omniglot, maze, scaling-n, scaling-t, scaling-b, large (on a GPU);
    without a name all that suit the device."""
    json: Path | None = None
    """Write the results to this file, which must not exist."""
    rounds: int = 15
    """Timed steps of each preset and case."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run."""


def run(args: Sequence[str]) -> int:
    """Measure, and print a table."""
    flags = parse(Bench, "plastic bench", args)
    if flags.rounds < 3:
        raise ValueError(f"--rounds must be at least 3; got {flags.rounds}.")
    if flags.json is not None and flags.json.exists():
        raise ValueError(f"{flags.json} exists; choose another --json.")
    with loading("torch", "PyTorch"):
        from torchplastic.bench import run_bench

    run_bench(flags.names, flags.rounds, flags.device, flags.json)
    return 0
