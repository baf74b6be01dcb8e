import math

import numpy as np
import pytest

from tests.report.builders import write_run
from torchplastic.report.curves import Curve, curve_of, interval95
from torchplastic.runs import RunDirectory


def curve(episodes, values):
    episodes = np.array(episodes, float)
    return Curve(episodes, np.array(values, float), episodes / 2)


def test_mean_of_whole_rows_and_of_parts_of_rows():
    c = curve([10, 20, 40], [1.0, 3.0, 6.0])
    assert c.mean(0, 40) == pytest.approx((10 * 1 + 10 * 3 + 20 * 6) / 40)
    assert c.mean(10, 20) == pytest.approx(3)
    assert c.mean(15, 30) == pytest.approx((5 * 3 + 10 * 6) / 15)


def test_final_is_the_last_tenth():
    values = np.r_[np.ones(18), 0.2, 0.4]
    assert curve(range(10, 201, 10), values).final() == pytest.approx(0.3)


def test_final_is_over_at_least_twenty_episodes():
    assert curve([10, 20, 30, 40], [1, 1, 0.2, 0.4]).final() == pytest.approx(0.3)
    assert curve([10], [0.7]).final() == pytest.approx(0.7)


def test_a_level_is_reached_where_the_mean_so_far_says_so():
    c = curve([10, 20, 30, 40, 50], [0.4, 0.2, 0.1, 0.08, 0.02])
    # Means over the last 20 episodes at 20, 30, 40, 50: 0.3, 0.15, 0.09, 0.05.
    assert c.reached(0.15) == (30, 15)
    assert c.reached(0.1) == (40, 20)
    assert c.reached(0.05) == (50, 25)
    assert c.reached(0.01) is None


def test_a_lucky_first_row_reaches_nothing():
    assert curve([10, 20, 30], [0.0, 0.5, 0.5]).reached(0.1) is None
    assert curve([10, 20, 30, 40, 50], [0.5, 0.1, 0.1, 0.5, 0.5]).reached(0.2) is None  # nor lucky ones later
    assert curve([10, 20, 30, 40, 50, 60], [0.1, 0.1, 0.5, 0.1, 0.1, 0.1]).reached(0.2) == (
        50,
        25,
    )  # but the last start
    assert curve([20], [0.1]).reached(0.2) == (20, 10)


def test_smoothing_keeps_a_constant_and_does_not_shift_a_line():
    flat = curve(range(10, 1001, 10), np.full(100, 0.3))
    assert np.allclose(flat.smooth(flat.episodes), 0.3)
    episodes = np.arange(10, 1001, 10)
    line = curve(episodes, episodes - 5.0)
    inner = np.arange(210.0, 900.0, 10)
    assert np.allclose(line.smooth(inner), inner, atol=5.01)


def test_bins_keep_the_mean():
    c = curve(range(1, 1001), np.random.default_rng(0).random(1000))
    grid = c.grid(50, log=False)
    assert len(grid) <= 50
    assert grid[-1] == 1000
    widths = np.diff(np.r_[0, grid])
    assert np.sum(c.binned(grid) * widths) / 1000 == pytest.approx(c.values.mean())


def test_log_grid_repeats_no_episode():
    grid = curve(range(10, 100_001, 10), np.ones(10_000)).grid(240, log=True)
    assert len(set(grid)) == len(grid)
    assert set(grid) <= set(range(10, 100_001, 10))


def test_rows_without_a_number_are_left_out(tmp_path):
    run = write_run(tmp_path / "run", extra=lambda e: {"eta": None if e < 200 else 0.02})
    assert curve_of(RunDirectory(run).read(), "eta").episodes[0] == 200
    assert curve_of(RunDirectory(run).read(), "reward") is None


def test_interval_by_students_t():
    low, high = interval95([1.0, 2.0, 3.0])
    half = 4.302653 / math.sqrt(3)
    assert (low, high) == pytest.approx((2 - half, 2 + half), rel=1e-6)
    assert interval95([1.0]) is None
