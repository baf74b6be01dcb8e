"""Learning curves: means over any stretch of episodes, the final value, when a level is reached.

A row of `metrics.jsonl` is a mean over the episodes since the row before. The mean over a stretch is a difference of
the integral of these means: exact for whole rows, and independent of how often a run logs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from torchplastic.runs import RunRecord

Floats = NDArray[np.float64]

#: Prefixes of measures on data that are never used for training, and the name of the data.
HELD_OUT = {"val": "validation", "test": "test"}

#: A mean "at episode e" covers the last tenth of the first e episodes, and at least this many.
FEWEST_EPISODES = 20
TENTH = 0.1

#: A drawn curve is smoothed over this share of the episode number, to both sides.
SMOOTHING = 0.05


@dataclass(frozen=True)
class Curve:
    """One measure of one run.

    episodes: `[rows]`, episodes finished at the end of each row.
    values: `[rows]`, the row's mean.
    seconds: `[rows]`, training time at the end of each row.
    """

    episodes: Floats
    values: Floats
    seconds: Floats

    @property
    def last(self) -> float:
        """Episodes finished at the end."""
        return float(self.episodes[-1])

    def mean(self, start: ArrayLike, stop: ArrayLike) -> Floats:
        """The mean over the episodes from `start` to `stop`, elementwise; `start` must be below `stop`."""
        knots = np.concatenate([[0.0], self.episodes])
        integral = np.concatenate([[0.0], np.cumsum(np.diff(knots) * self.values)])
        start, stop = np.asarray(start, float), np.asarray(stop, float)
        return np.asarray((np.interp(stop, knots, integral) - np.interp(start, knots, integral)) / (stop - start))

    def smooth(self, episodes: ArrayLike) -> Floats:
        """The mean around each episode number, `SMOOTHING` to both sides, but at least one row."""
        at = np.asarray(episodes, float)
        row = np.searchsorted(self.episodes, at).clip(max=len(self.episodes) - 1)
        row_start = np.where(row > 0, self.episodes[row - 1], 0.0)
        start = np.minimum(at * (1 - SMOOTHING), row_start)
        stop = np.minimum(np.maximum(at * (1 + SMOOTHING), self.episodes[row]), self.last)
        return self.mean(start, stop)

    def grid(self, points: int, log: bool) -> Floats:
        """At most `points` of the rows' episode numbers, including the first and the last: where to draw."""
        if len(self.episodes) <= points:
            return self.episodes
        spaced = (np.geomspace if log else np.linspace)(self.episodes[0], self.last, points)
        nearest = np.searchsorted(self.episodes, spaced).clip(max=len(self.episodes) - 1)
        return self.episodes[np.unique(nearest)]

    def binned(self, grid: Floats) -> Floats:
        """The unsmoothed mean between each value of the grid and the one before it."""
        return self.mean(np.concatenate([[0.0], grid[:-1]]), grid)

    def final(self) -> float:
        """The mean over the last tenth of the episodes, at least `FEWEST_EPISODES`."""
        return float(self.mean(window_start(self.last), self.last))

    def reached(self, level: float) -> tuple[float, float] | None:
        """Episodes and seconds at the first row after which the mean "at episode e" stays at or below `level`.

        None if there is none. A run that ended at this row or later would have such a `final`. Rows before
        `FEWEST_EPISODES` do not count.
        """
        means = self.mean(window_start(self.episodes), self.episodes)
        above = np.flatnonzero((means > level) | (self.episodes < FEWEST_EPISODES))
        row = above[-1] + 1 if len(above) else 0
        return (float(self.episodes[row]), float(self.seconds[row])) if row < len(self.episodes) else None


def window_start(last: ArrayLike) -> Floats:
    """The start of the stretch of a mean "at episode e": a tenth of e before it, at least `FEWEST_EPISODES`."""
    last = np.asarray(last, float)
    return np.asarray(np.maximum(0.0, np.minimum(last * (1 - TENTH), last - FEWEST_EPISODES)))


def curve_of(run: RunRecord, measure: str) -> Curve | None:
    """The run's curve of `measure`, a key of its rows; None if no row has a finite value."""
    points: list[tuple[float, float, float]] = []
    done = 0.0
    for row in run.rows:
        value, episode = row.get(measure), float(row["episode"])
        if isinstance(value, int | float) and math.isfinite(value) and episode > done:
            points.append((episode, float(value), float(row.get("seconds") or 0.0)))
            done = episode
    if not points:
        return None
    episodes, values, seconds = np.array(points).T
    return Curve(episodes, values, seconds)


def curves_of(runs: Sequence[RunRecord], measure: str) -> list[Curve]:
    """The curves of the runs that have this measure."""
    return [curve for curve in (curve_of(run, measure) for run in runs) if curve is not None]


def interval95(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of the mean by Student's t; None for fewer than two values."""
    if len(values) < 2:
        return None
    half = float(stats.t.ppf(0.975, len(values) - 1)) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    mean = float(np.mean(values))
    return mean - half, mean + half


def held_out_curves(runs: Sequence[RunRecord], measure: str) -> dict[str, list[Curve]]:
    """Curves of a measure on data that are never used for training, by the name of the data: validation, test."""
    found = {kind: curves_of(runs, f"{prefix}_{measure}") for prefix, kind in HELD_OUT.items()}
    return {kind: curves for kind, curves in found.items() if curves}
