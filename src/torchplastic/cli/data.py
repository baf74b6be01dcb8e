"""`plastic data fetch`: download a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from torchplastic.cli.help import wants_help
from torchplastic.cli.parsing import parse


@dataclass
class Fetch:
    """Download a data set and check its checksum. An interrupted download continues."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")] = ""
    """cifar10 or omniglot."""
    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder to download to. Default: TORCHPLASTIC_DATA, otherwise the user's cache folder."""


def run(args: Sequence[str]) -> int:
    """Download, and print the paths of the files."""
    if args[:1] != ["fetch"]:
        if wants_help(args):
            print("usage: plastic data fetch cifar10|omniglot [--data-dir DIR]")
            return 0
        raise ValueError(f"use plastic data fetch NAME [--data-dir DIR]; got {' '.join(args)!r}.")
    flags = parse(Fetch, "plastic data fetch", args[1:])
    from torchplastic.data.download import SOURCES, default_folder, fetch

    if flags.name not in SOURCES:
        what = f"unknown data set {flags.name!r}" if flags.name else "name a data set"
        raise ValueError(f"{what}; choose one of {', '.join(SOURCES)}.")
    print(*fetch(flags.name, flags.data_dir or default_folder()), sep="\n")
    return 0
