"""`plastic list`: print the experiments and their presets. Needs only the catalog."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from textwrap import fill

from torchplastic.cli.help import wants_help
from torchplastic.experiments.catalog import CATALOG

ABOUT = """usage: plastic list

The experiments and their presets (--preset): what each is, how long it takes on two CPU cores, and its result.
In a pipe: one line per preset, separated by tabs: experiment, preset, description, time, result."""


def run(args: Sequence[str]) -> int:
    """Print the list."""
    if wants_help(args):
        print(ABOUT)
        return 0
    if args:
        raise ValueError(f"plastic list takes no options; got {' '.join(args)}.")
    if sys.stdout.isatty():
        print_for_people(max(40, shutil.get_terminal_size().columns))
    else:
        for name, entry in CATALOG.items():
            for preset, texts in entry.presets.items():
                print(name, preset, *texts, sep="\t")
    return 0


def print_for_people(width: int) -> None:
    """Print paragraphs of this width."""
    for name, entry in CATALOG.items():
        print(fill(f"{name}: {entry.about}", width))
        for preset, texts in entry.presets.items():
            print(fill("; ".join(texts), width, initial_indent=f"  {preset:11}", subsequent_indent=" " * 13))
        print()
    print(fill("Times are on two CPU cores. To start: plastic train patterns --preset smoke", width))
