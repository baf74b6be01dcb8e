"""A run directory loses nothing and executes nothing."""

import json
import pickle
import sys

import pytest
import torch

from torchplastic.runs import RunDirectory, RunError, strip_prefixes


@pytest.fixture
def run(tmp_path):
    run = RunDirectory.create(tmp_path / "run")
    run.write_config({"experiment": "patterns"})
    return run


CHECKPOINT = {"model": {"w": torch.ones(2)}, "optimizer": {}, "episode": 3}


def test_create_never_takes_an_existing_path(run, tmp_path):
    with pytest.raises(RunError, match=r"exists\. Choose another --out"):
        RunDirectory.create(run.path)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match="exists"):
        RunDirectory.create(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_open_needs_a_config(tmp_path):
    with pytest.raises(RunError, match="is no run directory"):
        RunDirectory.open(tmp_path)


def test_metrics_survive_a_torn_line_and_are_cut(run):
    for episode in (10, 20, 30):
        run.append({"episode": episode})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"episode": 4')
    assert [row["episode"] for row in run.metrics()] == [10, 20, 30]
    run.cut_metrics(lambda row: row["episode"] <= 20)
    assert (run.path / "metrics.jsonl").read_text() == '{"episode": 10}\n{"episode": 20}\n'


def test_a_broken_row_is_an_error_with_its_number(run):
    for broken in ("{", "[1]", '{"seconds": 1}'):
        (run.path / "metrics.jsonl").write_text(f'{{"episode": 10}}\n{broken}\n{{"episode": 30}}\n')
        with pytest.raises(RunError, match=r"metrics\.jsonl: line 2 is no metrics row") as caught:
            run.metrics()
        assert "\n" not in str(caught.value)


def test_a_write_that_fails_leaves_the_old_file(run):
    run.save_checkpoint(CHECKPOINT)
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        run.save_checkpoint({**CHECKPOINT, "model": lambda: None})
    assert run.checkpoint()["episode"] == 3
    assert {path.name for path in run.path.iterdir()} == {"config.json", "checkpoint.pt"}


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "foreign", "missing"])
def test_a_bad_checkpoint_is_one_line(run, damage):
    path = run.path / "checkpoint.pt"
    run.save_checkpoint(CHECKPOINT)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "text":
        path.write_text("no checkpoint")
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "foreign":
        torch.save({"weights": 1}, path)
    else:
        path.unlink()
    with pytest.raises(RunError, match=r"checkpoint") as caught:
        run.checkpoint()
    assert "\n" not in str(caught.value)


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_hostile_pickle_is_refused_unexecuted(run, tmp_path, how):
    target = tmp_path / "executed"
    if how == "torch":
        torch.save({**CHECKPOINT, "model": Hostile(str(target))}, run.path / "checkpoint.pt")
    else:
        (run.path / "checkpoint.pt").write_bytes(pickle.dumps(Hostile(str(target))))
    with pytest.raises(RunError):
        run.checkpoint()
    assert not target.exists()


def test_the_lock_is_held_and_dies_with_its_process(run, run_process):
    code = (
        "import sys, time; from pathlib import Path; from torchplastic.runs import RunDirectory\n"
        "with RunDirectory(Path(sys.argv[1])).locked():\n print('held', flush=True); time.sleep(60)"
    )
    process = run_process.start([sys.executable, "-c", code, run.path])
    assert process.stdout.readline() == "held\n"
    with pytest.raises(RunError, match="in use"), run.locked():
        pass
    process.kill()
    process.finish()
    with run.locked():
        pass


def test_links_are_not_followed_out_of_a_run(run, tmp_path):
    """A folder and a lock are refused; of a file, the link alone is replaced or removed."""
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("lock", "summary.json", "metrics.jsonl"):
        (outside / name).write_text('{"episode": 1}\n')
        (run.path / name).symlink_to(outside / name)
    (run.path / "eval").symlink_to(outside)
    with pytest.raises(RunError, match="lock is a link to"), run.locked():
        pass
    with pytest.raises(RunError, match="eval is a link to"):
        run.write_eval("episodes-5", {})
    run.cut_metrics(lambda row: False)
    run.reopen()
    run.write_summary({"episodes": 3})
    assert {path.name: path.read_text() for path in outside.iterdir()} == dict.fromkeys(
        ("lock", "summary.json", "metrics.jsonl"), '{"episode": 1}\n'
    )


def test_weights_come_without_the_prefixes_of_wrappers(run):
    weights = {"_orig_mod.w": torch.ones(1), "module.alpha": torch.zeros(2), "eta": torch.ones(())}
    assert set(strip_prefixes(weights)) == {"w", "alpha", "eta"}
    run.save_checkpoint(CHECKPOINT)
    assert torch.equal(run.weights()["w"], torch.ones(2))  # not finished: those of the checkpoint
    run.save_weights({"w": torch.full((2,), 5.0)}, {})
    assert torch.equal(run.weights()["w"], torch.full((2,), 5.0))


def test_going_on_takes_back_the_end_and_keeps_the_checkpoint(run):
    run.save_checkpoint(CHECKPOINT)
    run.save_weights({"w": torch.zeros(2)}, {})
    run.save_samples({})
    run.write_summary({"episodes": 3})
    run.reopen()
    assert run.summary is None
    assert torch.equal(run.weights()["w"], CHECKPOINT["model"]["w"])
    assert {path.name for path in run.path.iterdir()} == {"config.json", "checkpoint.pt"}
    run.reopen()  # nothing left to take back


def test_json_files_are_named_when_damaged(run):
    (run.path / "config.json").write_text("{")
    with pytest.raises(RunError, match=r"config\.json cannot be read"):
        _ = run.config
    (run.path / "config.json").write_text("[1]")
    with pytest.raises(RunError, match="JSON object"):
        _ = run.config


def test_a_config_without_an_experiment_is_refused(run):
    run.write_config({"name": "another program's"})
    with pytest.raises(RunError, match=r'is no run directory: its config.json has no "experiment"'):
        run.read()


def test_results_of_evaluations_are_read_back(run):
    run.write_eval("episodes-5", {"episodes": 5})
    assert run.evals() == [{"episodes": 5}]
    assert json.loads((run.path / "eval" / "episodes-5.json").read_text()) == {"episodes": 5}
