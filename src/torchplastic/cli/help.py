"""What `plastic` says about itself: its commands, and examples of each. Needs only Python, so that help is quick."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Command(NamedTuple):
    """A command: the module in this folder whose `run(arguments)` returns the exit code, and its help."""

    module: str
    arguments: str
    about: str
    examples: tuple[str, ...]


COMMANDS = {
    "list": Command(
        "listing",
        "",
        "experiments and presets: what each reproduces, how long it takes, its result",
        ("plastic list", "plastic list | cut -f 1,2"),
    ),
    "train": Command(
        "train",
        "EXPERIMENT",
        "train an experiment; --resume RUN continues a run",
        (
            "plastic train patterns --preset smoke --out runs/first",
            "plastic train patterns --preset smoke --model.kind lstm --episodes 100",
            "plastic train --resume runs/first --episodes 400",
        ),
    ),
    "sweep": Command(
        "sweep",
        "EXPERIMENT",
        "train with many seeds, each in a separate process",
        ("plastic sweep patterns --preset smoke --seeds 2 --jobs 2",),
    ),
    "eval": Command(
        "evaluate",
        "RUN",
        "evaluate a trained network on new episodes",
        ("plastic eval runs/first --episodes 200", "plastic eval runs/first --json"),
    ),
    "report": Command(
        "report",
        "RUN|BENCH.json...",
        "draw figures and one self-contained HTML page",
        ("plastic report runs/first", "plastic report runs/first runs/sweeps/* --out runs/comparison"),
    ),
    "bench": Command(
        "bench",
        "[SUITE...]",
        "measure speed and memory against the plain loop",
        ("plastic bench patterns maze --rounds 5 --json bench.json",),
    ),
    "data": Command(
        "data",
        "fetch NAME",
        "download a data set: cifar10, omniglot",
        ("plastic data fetch omniglot", "plastic data fetch cifar10 --data-dir data"),
    ),
}


def wants_help(args: Sequence[str]) -> bool:
    """Whether the arguments have -h or --help."""
    return bool({"-h", "--help"} & set(args))


def examples(name: str) -> str:
    """The examples of a command, as the last lines of its help."""
    return "\n".join(("", "Examples:", *(f"  {example}" for example in COMMANDS[name].examples)))


def usage() -> str:
    """The help of `plastic` itself."""
    rows = [(f"{name} {command.arguments}", command.about) for name, command in COMMANDS.items()]
    lines = [f"  {call:24} {about}" for call, about in rows]
    return "\n".join(
        (
            "usage: plastic COMMAND ...",
            "",
            *lines,
            "",
            "plastic COMMAND --help shows the options of a command, and examples. --debug shows the traceback of an",
            "error; plastic --version prints the version. To start: plastic train patterns --preset smoke",
        )
    )
