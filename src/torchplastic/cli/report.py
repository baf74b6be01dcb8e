"""`plastic report`: figures and one page."""

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
    """Figures (PNG, SVG) and one self-contained HTML page."""

    paths: tyro.conf.Positional[tuple[Path, ...]]
    """Run directories, sweep directories, bench files."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Where to: a new or empty folder, or one of an earlier report, which is drawn again. Default RUN/report or
    SWEEP/report for one of them, runs/reports/DATE-TIME for several."""


def run(args: Sequence[str]) -> int:
    """Draw, and print the path of the page."""
    flags = parse(Report, "plastic report", args)
    if not flags.paths:
        raise ValueError("name at least one run, sweep or bench file: plastic report RUN.")
    with loading("matplotlib", "Matplotlib"):
        from torchplastic.report import make_report

    print(make_report(list(flags.paths), flags.out))
    return 0
