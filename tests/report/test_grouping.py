import json

from tests.report.builders import write_run, write_sweep
from torchplastic.report.grouping import differing_keys, group_runs
from torchplastic.report.sources import read_sources
from torchplastic.runs import flatten


def groups(*paths):
    return group_runs(read_sources(paths).runs)


def test_seeds_lengths_and_places_make_no_group(tmp_path):
    runs = [
        write_run(tmp_path / "a", seed=1, out="x", threads=1),
        write_run(tmp_path / "b", seed=0, episodes=200, out="y", threads=2),
    ]
    found = groups(*runs)["patterns"]
    assert [group.label for group in found] == ["plastic"]
    assert [run.seed for run in found[0].runs] == [0, 1]


def test_labels_name_what_differs(tmp_path):
    runs = [
        write_run(tmp_path / "a"),
        write_run(tmp_path / "b", model={"alpha": "none"}),
        write_run(tmp_path / "c", model={"kind": "lstm"}, optim={"lr": 3e-5}),
        write_run(tmp_path / "d", model={"kind": "rnn"}, task={"bits": 1000, "patterns": 5, "extra": 2000}),
        write_run(tmp_path / "e", preset="released"),
    ]
    found = groups(*runs)["patterns"]
    assert [group.label for group in found] == [
        "plastic, α per connection, preset paper",
        "not plastic, preset paper",
        "LSTM, preset paper",
        "RNN, preset paper",
        "plastic, α per connection, preset released",
    ]
    assert len({group.task for group in found}) == 1


def test_other_settings_are_named_where_nothing_else_tells(tmp_path):
    runs = [write_run(tmp_path / str(lr), optim={"lr": lr, "clip": None}) for lr in (0.001, 0.003)]
    assert [group.label for group in groups(*runs)["patterns"]] == ["plastic, lr 0.001", "plastic, lr 0.003"]


def test_settings_of_plasticity_do_not_split_networks_without_it(tmp_path):
    runs = [write_run(tmp_path / alpha, model={"kind": "lstm", "alpha": alpha}) for alpha in ("full", "none")]
    assert [len(group.runs) for group in groups(*runs)["patterns"]] == [2]


def test_one_plastic_network_among_others_needs_no_alpha(tmp_path):
    runs = [write_run(tmp_path / kind, model={"kind": kind}) for kind in ("plastic", "lstm", "rnn")]
    assert [group.label for group in groups(*runs)["patterns"]] == ["plastic", "LSTM", "RNN"]


def test_a_network_of_one_kind_is_plastic(tmp_path):
    path = write_run(tmp_path / "a")
    config = json.loads((path / "config.json").read_text())
    del config["model"]["kind"]
    (path / "config.json").write_text(json.dumps(config))
    assert [group.label for group in groups(path)["patterns"]] == ["plastic"]


def test_labels_are_never_the_same(tmp_path):
    runs = [write_run(tmp_path / str(k), note=value) for k, value in enumerate((1, "1"))]
    labels = [group.label for group in groups(*runs)["patterns"]]
    assert len(set(labels)) == 2


def test_experiments_apart_and_finished_runs_first(tmp_path):
    sweep = write_sweep(tmp_path / "sweep", [1, 2])
    running = write_run(tmp_path / "running", seed=0, finished=False, episodes=20)
    other = write_run(tmp_path / "other", experiment="fifty-bit")
    found = groups(sweep, running, other)
    assert list(found) == ["patterns", "fifty-bit"]
    (group,) = found["patterns"]
    assert [run.seed for run in group.runs] == [0, 1, 2]
    assert [run.seed for run in group.whole] == [1, 2]
    assert group.shown.seed == 1


def test_flatten_and_differing_keys():
    assert flatten({"a": {"b": 1, "c": {}}, "d": [2]}) == {"a.b": 1, "a.c": {}, "d": [2]}
    assert differing_keys([{"z": 1, "preset": "x", "same": 0}, {"preset": "y", "same": 0}]) == ["preset", "z"]
