"""Progress on stderr: live bars in a terminal, otherwise greppable lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from rich import progress as bars
from rich.console import Console

SMOOTHING = 0.95  # weight of the past in the error shown
EVERY = 30.0  # seconds between two lines of a sweep without news


class _Display:
    """Live bars if stderr is a terminal (else `bar` is None), shown inside `with`."""

    def __init__(self, *columns: bars.ProgressColumn, quiet: bool = False) -> None:
        self.console = Console(stderr=True)
        self.bar: bars.Progress | None = None
        if self.console.is_terminal and not quiet:
            self.bar = bars.Progress(
                bars.TextColumn("{task.description}"),
                bars.BarColumn(),
                bars.MofNCompleteColumn(),
                *columns,
                bars.TimeElapsedColumn(),
                bars.TextColumn("left"),
                bars.TimeRemainingColumn(),
                bars.TextColumn("{task.fields[text]}"),
                console=self.console,
                transient=True,
            )

    def __enter__(self) -> Self:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.stop()


class Progress(_Display):
    """Shows episodes done, their rate, the time left and the smoothed error."""

    def __init__(self, title: str, total: int, quiet: bool = False) -> None:
        super().__init__(bars.TextColumn("{task.fields[rate]:.1f}/s"), quiet=quiet)
        self.title, self.total, self.start, self.quiet = title, total, 0, quiet
        self.smooth: float | None = None
        self.began = time.monotonic()
        if self.bar is not None:
            self.task = self.bar.add_task(title, total=total, rate=0.0, text="")

    def start_at(self, episode: int) -> None:
        """Start from the episodes of a resumed run."""
        self.start = episode
        if self.bar is not None:
            self.bar.update(self.task, completed=episode)

    def _rate(self, episode: int) -> float:
        return (episode - self.start) / max(time.monotonic() - self.began, 1e-9)

    def advance(self, episode: int, loss: float, measure: str, value: float) -> None:
        """Call after every update."""
        self.smooth = value if self.smooth is None else SMOOTHING * self.smooth + (1 - SMOOTHING) * value
        if self.bar is not None:
            text = f"loss {loss:.4g}  {measure} {self.smooth:.4f}"
            self.bar.update(self.task, completed=episode, rate=self._rate(episode), text=text)

    def row(self, row: dict[str, Any]) -> None:
        """Call after every row of metrics."""
        if self.bar is not None or self.quiet:
            return
        rate = self._rate(row["episode"])
        left = (self.total - row["episode"]) / max(rate, 1e-9)
        values = " ".join(f"{name}={value:.6g}" for name, value in row.items() if value is not None)
        print(f"{self.title} {values} of={self.total} rate={rate:.4g}/s left={left:.0f}s", file=sys.stderr, flush=True)


class JobStatus(NamedTuple):
    """The status of a sweep's seed; state: waiting, running, finished, failed or stopped."""

    seed: int
    state: str
    episode: int = 0
    measured: float | None = None
    """The last value of its error or reward."""
    why: str = ""
    measure: str = "error"
    """The name of that value: error or reward."""


class SweepProgress(_Display):
    """Shows a bar for the sweep and one per running seed; in a pipe, a line per change of state."""

    def __init__(self, title: str, episodes: int) -> None:
        super().__init__()
        self.title, self.episodes = title, episodes
        self.states: dict[int, str] = {}
        self._printed_at = time.monotonic()
        self.tasks: dict[int, bars.TaskID] = {}

    def update(self, statuses: Sequence[JobStatus]) -> None:
        """Call with the status of all seeds."""
        changed = [one for one in statuses if one.state not in (self.states.get(one.seed), "waiting")]
        self.states |= {one.seed: one.state for one in changed}
        if self.bar is not None:
            self._draw(self.bar, statuses)
            for one in changed:
                if one.state == "failed":
                    self.console.print(f"seed {one.seed} failed: {one.why}", markup=False, highlight=False)
            return
        if not changed and time.monotonic() - self._printed_at > EVERY:
            changed = [one for one in statuses if one.state == "running"]
        for one in changed:
            self._printed_at = time.monotonic()
            measured = "" if one.measured is None else f" {one.measure}={one.measured:.4g}"
            why = f" ({one.why})" if one.why else ""
            print(
                f"{self.title} seed={one.seed} {one.state} episode={one.episode} of={self.episodes}{measured}{why}",
                file=sys.stderr,
                flush=True,
            )

    def _draw(self, bar: bars.Progress, statuses: Sequence[JobStatus]) -> None:
        total = self.episodes * len(statuses)
        ended = sum(one.state == "finished" for one in statuses)
        rows = [(-1, self.title, sum(one.episode for one in statuses), total, f"{ended} of {len(statuses)} seeds")]
        for one in statuses:
            if one.state == "running":
                text = "" if one.measured is None else f"{one.measure} {one.measured:.4g}"
                rows.append((one.seed, f"  seed {one.seed}", one.episode, self.episodes, text))
        current = {key for key, *_ in rows}
        for key in [key for key in self.tasks if key not in current]:
            bar.remove_task(self.tasks.pop(key))
        for key, title, done, total, text in rows:
            if key not in self.tasks:
                self.tasks[key] = bar.add_task(title, total=total, text="")
            bar.update(self.tasks[key], completed=done, text=text)
