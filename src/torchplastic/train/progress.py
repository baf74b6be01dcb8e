"""Progress on stderr: a live bar in a terminal, otherwise one greppable line per row of metrics."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from rich import progress as bars
from rich.console import Console

SMOOTHING = 0.95  # weight of the past in the error shown


class Progress:
    """Shows episodes done, their rate, the time left and the smoothed error."""

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total, self.start = title, total, 0
        self.console = Console(stderr=True)
        self.smooth: float | None = None
        self.began = time.monotonic()
        self.bar: bars.Progress | None = None
        if self.console.is_terminal:
            self.bar = bars.Progress(
                bars.TextColumn("{task.description}"),
                bars.BarColumn(),
                bars.MofNCompleteColumn(),
                bars.TextColumn("{task.fields[rate]:.1f}/s"),
                bars.TimeElapsedColumn(),
                bars.TextColumn("left"),
                bars.TimeRemainingColumn(),
                bars.TextColumn("{task.fields[text]}"),
                console=self.console,
                transient=True,
            )
            self.task = self.bar.add_task(title, total=total, rate=0.0, text="")

    def __enter__(self) -> Progress:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.stop()

    def start_at(self, episode: int) -> None:
        """Episodes done before this call."""
        self.start = episode
        if self.bar is not None:
            self.bar.update(self.task, completed=episode)

    def _rate(self, episode: int) -> float:
        return (episode - self.start) / max(time.monotonic() - self.began, 1e-9)

    def advance(self, episode: int, loss: float, error: float) -> None:
        """After every update."""
        self.smooth = error if self.smooth is None else SMOOTHING * self.smooth + (1 - SMOOTHING) * error
        if self.bar is not None:
            text = f"loss {loss:.4g}  error {self.smooth:.4f}"
            self.bar.update(self.task, completed=episode, rate=self._rate(episode), text=text)

    def row(self, row: dict[str, Any]) -> None:
        """After every row of metrics."""
        if self.bar is not None:
            return
        rate = self._rate(row["episode"])
        left = (self.total - row["episode"]) / max(rate, 1e-9)
        values = " ".join(f"{name}={value:.6g}" for name, value in row.items() if value is not None)
        print(f"{self.title} {values} of={self.total} rate={rate:.4g}/s left={left:.0f}s", file=sys.stderr, flush=True)
