"""`plastic report`: draw figures and one page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from torchplastic.cli.console import loading
from torchplastic.cli.parsing import parse


@dataclass
class Report:
    """Draw figures (PNG, SVG) and one self-contained HTML page."""

    paths: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN|SWEEP|BENCH.json ...")]
    """Run directories, sweep directories and bench files, in any mixture."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """A new or empty folder, or that of an earlier report. Default: in the run or sweep, or runs/reports/DATE-TIME."""


def run(args: Sequence[str]) -> int:
    """Draw, and print the path of the page."""
    flags = parse(Report, "plastic report", args)
    if not flags.paths:
        raise ValueError("name at least one run, sweep or bench file: plastic report RUN.")
    with loading("matplotlib", "Matplotlib"):
        from torchplastic.report import make_report

    print(make_report(list(flags.paths), flags.out))
    return 0
