import numpy as np
import pytest

from tests.report.builders import write_bench, write_run, write_sweep
from torchplastic.report import comparison, tables
from torchplastic.report.grouping import group_runs
from torchplastic.report.published import published
from torchplastic.report.sources import read_bench, read_sources


def grouped(*paths):
    runs = read_sources(paths).runs
    ((name, groups),) = group_runs(runs).items()
    return groups, published(name).about(groups)


def cells(table, row):
    return dict(zip(table.columns, table.rows[row], strict=True))


def steps(levels, at):
    """An error that falls to levels[k] from episode at[k] on."""
    return lambda e: levels[np.searchsorted(at, e, side="left")]


def test_final_values_and_interval_over_seeds(tmp_path):
    sweep = write_sweep(tmp_path / "s", [0, 5, 10], error=lambda e: 0.01 if e > 270 else 0.2)
    row = cells(tables.results_table(*grouped(sweep)), 0)
    # Over the last 30 of 300 episodes: 0.01, 0.015, 0.02; t(2) = 4.3027, standard error 0.005 / sqrt(3).
    half = 4.302653 * 0.005 / np.sqrt(3)
    assert row["error, last tenth of training"] == f"0.0150 [{0.015 - half:.4f}, {0.015 + half:.4f}]"
    assert row["minimum to maximum"] == "0.0100 to 0.0200"
    assert row["loss, last tenth"].startswith("15.0 [")
    assert (row["runs"], row["episodes"], row["time"]) == ("3", "300", "60.0 s")
    assert (row["parameters"], row["η"]) == ("2,004,002", "0.0100")


def test_unfinished_runs_are_told_and_not_counted(tmp_path):
    done = write_sweep(tmp_path / "s", [0, 1], error=lambda e: 0.1)
    running = write_run(tmp_path / "r", seed=2, finished=False, error=lambda e: 0.9)
    table = tables.results_table(*grouped(done, running))
    assert cells(table, 0)["runs"] == "3 (1 unfinished)"
    assert cells(table, 0)["error, last tenth of training"].startswith("0.105 ")
    assert "Unfinished runs" in table.note
    alone = cells(tables.results_table(*grouped(running)), 0)
    assert (alone["error, last tenth of training"], alone["parameters"]) == ("0.900", "–")


def test_time_to_reach_with_ratios(tmp_path):
    fast = write_run(tmp_path / "fast", error=steps([0.2, 0.12, 0.04, 0.0], [100, 140, 200]))
    slow = write_run(tmp_path / "slow", model={"kind": "lstm"}, error=steps([0.2, 0.12], [200]))
    table = comparison.reach_table(grouped(fast, slow)[0])
    found = {(row[0], row[1]): row[2:] for row in table.rows}
    # The mean over the last 20 episodes (30 at the end) falls to 0.12 two rows after the error does.
    assert found["0.15", "plastic"] == ("1 of 1", "120", "1.00 ×", "24.0 s", "1.00 ×")
    assert found["0.15", "LSTM"] == ("1 of 1", "220", "1.83 ×", "44.0 s", "1.83 ×")
    assert found["0.01", "plastic"][1] == "220"
    assert found["0.01", "LSTM"] == ("0 of 1", "not reached in 300", "> 1.36 ×", "not reached in 60.0 s", "> 1.36 ×")


def test_time_to_reach_is_the_median_over_seeds(tmp_path):
    runs = [
        write_run(tmp_path / str(k), seed=k, error=steps([0.2, 0.04], [end]))
        for k, end in enumerate((100, 150, 290, 290))
    ]
    table = comparison.reach_table(grouped(*runs[:3])[0])
    assert table.columns == ("error at most", "model", "runs that reach it", "episodes", "training time")
    assert table.rows[0] == ("0.15", "plastic", "3 of 3", "160 (110 to 300)", "32.0 s")
    assert comparison.reach_table(grouped(*runs[:3])[0]).rows[2][2:4] == ("2 of 3", "170 (120 to 170)")
    assert comparison.reach_table(grouped(*runs)[0]).rows[2][2:4] == ("2 of 4", "not reached by most in 300")


def test_no_levels_for_an_error_that_is_no_fraction(tmp_path):
    assert comparison.reach_table(grouped(write_run(tmp_path / "r", error=lambda e: 30.0))[0]) is None


def test_no_ratio_between_different_tasks(tmp_path):
    a = write_run(tmp_path / "a", error=lambda e: 0.1, task={"bits": 10})
    b = write_run(tmp_path / "b", error=lambda e: 0.1, task={"bits": 20})
    assert "× fewest" not in comparison.reach_table(grouped(a, b)[0]).columns


def test_published_values_beside_ours(tmp_path):
    table = comparison.published_table(*grouped(write_run(tmp_path / "r", error=lambda e: 0.03)))
    rows = {(row[0], row[2]): row[3:] for row in table.rows}
    assert rows["loss", "0"] == ("515", "before the first row of metrics")
    assert rows["loss", "200"] == ("44", "30.0 (plastic, 1 run)")
    assert rows["loss", "1,000"] == ("6.5", "not trained that long")
    assert rows["error", "200"] == ("below 0.01", "0.0300 (plastic, 1 run)")
    assert "NIPS 2017 workshop" in table.note
    assert "Protocol: 1000-bit patterns" in table.note
    assert comparison.published_table(*grouped(write_run(tmp_path / "s", preset="smoke"))) is None


def evaluation(mean, **more):
    return {"experiment": "patterns", "episodes": 500, "split": "new episodes", "error": {"mean": mean, **more}}


def test_evaluation_of_one_run_and_of_several(tmp_path):
    one = evaluation(0.02, ci95=[0.01, 0.03], chance=0.25) | {"baselines": {"keep the cue": 0.25}}
    a = write_run(tmp_path / "a", seed=0, evaluations={"episodes-500": one})
    b = write_run(tmp_path / "b", seed=1, evaluations={"episodes-500": evaluation(0.04, ci95=[0.03, 0.05])})
    row = cells(tables.evaluation_table(grouped(a)[0]), 0)
    assert (row["mean"], row["chance"], row["baselines"]) == ("0.0200 [0.0100, 0.0300]", "0.250", "keep the cue 0.250")
    row = cells(tables.evaluation_table(grouped(a, b)[0]), 0)
    assert row["evaluations"] == "2"
    assert row["mean"] == "0.0300 [−0.0971, 0.1571]"
    assert tables.evaluation_table(grouped(write_run(tmp_path / "c"))[0]) is None


def test_accuracy_by_position(tmp_path):
    told = [{"experiment": "omniglot", "accuracy": {"mean": 0.9}, "by_position": [0.8, high]} for high in (0.9, 1.0)]
    runs = [
        write_run(tmp_path / str(seed), seed=seed, evaluations={"episodes-9": one}) for seed, one in enumerate(told)
    ]
    table = tables.position_table(grouped(*runs)[0])
    assert table.columns == ("model", "step 1", "step 2")
    assert table.rows == (("plastic", "0.800", "0.950"),)
    assert tables.position_table(grouped(write_run(tmp_path / "c"))[0]) is None
    row = cells(tables.evaluation_table(grouped(runs[0])[0]), 0)
    assert (row["measure"], row["mean"]) == ("accuracy", "0.900")


def test_machine_versions_and_data(tmp_path):
    table = tables.provenance_table(read_sources([write_sweep(tmp_path / "s", [0, 1, 2])]).runs)
    assert table.rows == (
        ("0–2", "Imaginary CPU 3000, 2 cores, device cpu", "torch 2.13.0, torchplastic 0.1.0", "random bits"),
    )
    assert tables.provenance_table(read_sources([write_run(tmp_path / "r", finished=False)]).runs) is None


def test_bench_tables(tmp_path):
    ratios, measured = tables.bench_tables(read_bench(write_bench(tmp_path / "b.json")))
    assert ratios.rows == (("patterns", "1001 neurons, 205 steps, clamped", "chunked", "12.5 ×", "16.0 ×"),)
    assert cells(measured, 1) == {
        "suite": "patterns",
        "case": "1001 neurons, 205 steps, clamped",
        "implementation": "chunked",
        "median": "160 ms",
        "quartiles": "144 ms to 176 ms",
        "spread": "20 %",
        "steps timed": "20",
        "rate": "6.25 episodes/s",
        "peak memory": "64.0 MiB",
        "share of floor": "80 %",
    }
    assert cells(measured, 0)["share of floor"] == "–"


@pytest.mark.parametrize("measure", ["error", "reward"])
def test_what_is_measured_comes_from_the_rows(tmp_path, measure):
    groups, _ = grouped(write_run(tmp_path / "r", measure=measure))
    assert tables.measure_of(groups) == measure


def test_rank_sum_needs_four_runs_on_either_side(tmp_path):
    def runs(name, rewards, **model):
        return [
            write_run(tmp_path / f"{name}{seed}", experiment="maze", seed=seed, measure="reward", model=model,
                      error=lambda e, level=level: level)
            for seed, level in enumerate(rewards)
        ]  # fmt: skip

    plastic = runs("p", [50.0, 52.0, 54.0, 56.0])
    other = runs("n", [40.0, 41.0, 42.0, 43.0], alpha="none")
    (row,) = comparison.rank_sum_table(grouped(*plastic, *other)[0], "reward").rows
    assert row == (
        "plastic, α per connection",
        "not plastic",
        "4 and 4",
        "53.0",
        "41.5",
        "0.0286",
    )  # 2 of the 70 ways to divide 8 ranks
    (row,) = comparison.rank_sum_table(grouped(*plastic[:3], *other)[0], "reward").rows
    assert row[-1] == "too few runs"
    assert comparison.rank_sum_table(grouped(*plastic)[0], "reward") is None


def test_variants_of_an_evaluation(tmp_path):
    whole = {"mean": 100.0, "ci95": [90.0, 110.0], "chance": 0.0, "steps_to_first": 30.0, "steps_between": 9.0}
    told = {"experiment": "maze", "split": "new mazes", "reward": whole, "variants": {"no trace": {"mean": 20.0}}}
    table = tables.variants_table(grouped(write_run(tmp_path / "a", evaluations={"episodes-9": told}))[0])
    assert table.rows == (
        ("plastic", "complete", "100 [90, 110]", "30.0", "9.00"),
        ("plastic", "no trace", "20.0", "–", "–"),
    )
    bare = [told | {"variants": {}}, {key: value for key, value in told.items() if key != "variants"}]
    runs = [write_run(tmp_path / f"b{i}", seed=i, evaluations={"episodes-9": one}) for i, one in enumerate(bare)]
    assert all(tables.variants_table(grouped(run)[0]) is None for run in runs)
