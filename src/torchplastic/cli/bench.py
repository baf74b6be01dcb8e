"""`plastic bench`: measure speed and memory against the plain loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from torchplastic.cli.console import loading
from torchplastic.cli.parsing import parse


@dataclass
class Bench:
    """Measure time and memory of a training step by every implementation, with ratios to the plain loop."""

    names: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[SUITE ...]")] = ()
    """patterns, fifty-bit, images, omniglot, maze, scaling-n, scaling-t, scaling-b or large (GPU); default: all."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the results to this file, which must not exist yet; plastic report draws it."""
    rounds: int = 15
    """Timed steps per implementation and case; scaling suites time at most 5."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to measure on; auto: the GPU if there is one."""


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
