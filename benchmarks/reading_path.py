"""Count the package's files that a reader passes through: in `plastic train patterns`, and in one forward pass.

Run: PYTHONPATH=src python benchmarks/reading_path.py

A file is entered if one of its functions is called; what only an import runs is not counted. A move is a call from one
file of the package to another, through any frames of other packages between them.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torchplastic

PACKAGE = Path(torchplastic.__file__).parent


def reading_path(work: Callable[[], Any]) -> tuple[Counter[str], int]:
    """Run `work` -> the calls into each file of the package, and the moves between files."""
    entered: Counter[str] = Counter()
    moves = 0

    def profile(frame: FrameType, event: str, _: Any) -> None:
        nonlocal moves
        if event != "call" or (here := _file(frame)) is None:
            return
        entered[here] += 1
        caller = frame.f_back
        while caller is not None and (there := _file(caller)) is None:
            caller = caller.f_back
        moves += caller is not None and there != here

    sys.setprofile(profile)
    try:
        work()
    except SystemExit as stop:
        if stop.code:
            raise
    finally:
        sys.setprofile(None)
    return entered, moves


def _file(frame: FrameType) -> str | None:
    """The frame's file in the package; None for other frames, and while a module or a class is being defined."""
    code = frame.f_code
    if not code.co_filename.startswith(f"{PACKAGE}/") or not code.co_flags & 0x2:  # CO_NEWLOCALS
        return None
    return code.co_filename.removeprefix(f"{PACKAGE}/")


def main() -> None:
    """Print both counts, each with its files."""
    from torchplastic.cli import main as plastic

    with tempfile.TemporaryDirectory() as folder:
        train = ["train", "patterns", "--preset", "smoke", "--out", f"{folder}/run"]
        _print("plastic train patterns --preset smoke", *reading_path(lambda: plastic(train)))
    import torch

    rnn = torchplastic.PlasticRNN(3, 20)
    x = torch.randn(5, 2, 3)
    rnn(x)
    _print("a forward pass of PlasticRNN", *reading_path(lambda: rnn(x)))


def _print(name: str, entered: Counter[str], moves: int) -> None:
    total = len(list(PACKAGE.rglob("*.py")))
    print(f"{name}: {len(entered)} of {total} files, {moves:,} moves between files")
    for file, calls in sorted(entered.items()):
        print(f"  {calls:7,}  {file}")


if __name__ == "__main__":
    main()
