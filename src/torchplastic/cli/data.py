"""`plastic data fetch`: a data set from the net."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from torchplastic.cli.parsing import parse, wants_help


@dataclass
class Fetch:
    """Download a data set, with a checksum; a download that broke off goes on."""

    name: tyro.conf.Positional[str] = ""
    """cifar10 or omniglot."""
    data_dir: Path | None = None
    """Where to; default the folder TORCHPLASTIC_DATA, or the user's cache folder."""


def run(args: Sequence[str]) -> int:
    """Download, and print the paths of the files."""
    if args[:1] != ["fetch"]:
        if wants_help(args):
            print("usage: plastic data fetch cifar10|omniglot [--data-dir DIR]")
            return 0
        raise ValueError(f"say what to do: plastic data fetch NAME [--data-dir DIR]; got {' '.join(args)!r}.")
    flags = parse(Fetch, "plastic data fetch", args[1:])
    from torchplastic.data.download import SOURCES, default_folder, fetch

    if flags.name not in SOURCES:
        what = f"unknown data set {flags.name!r}" if flags.name else "name a data set"
        raise ValueError(f"{what}; choose one of {', '.join(SOURCES)}.")
    print(*fetch(flags.name, flags.data_dir or default_folder()), sep="\n")
    return 0
