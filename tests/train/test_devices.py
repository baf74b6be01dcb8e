"""Two processes that share every batch train as one does."""

import json
import signal

import psutil
import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from tests.command import COMMAND, plastic, rows, tiny
from torchplastic.runs import RunDirectory

TWO = ["--batch", "4", "--devices", "2", "--device", "cpu"]


def test_two_processes_equal_one(tmp_path, run_process):
    done = run_process([*COMMAND, *tiny(tmp_path / "two", *TWO, "--episodes", "40", "--model.learn-eta")])
    assert done.out.count("40 episodes in ") == 1
    assert done.error.count("episode=40") == 1
    assert plastic(*tiny(tmp_path / "one", "--batch", "4", "--episodes", "40", "--model.learn-eta")) == 0
    for two, one in zip(rows(tmp_path / "two"), rows(tmp_path / "one"), strict=True):
        for name in ("episode", "loss", "error", "eta"):
            assert two[name] == pytest.approx(one[name], rel=1e-4)
    two, one = (load_file(tmp_path / name / "model.safetensors") for name in ("two", "one"))
    assert two.keys() == one.keys()
    for name in one:
        assert_close(two[name], one[name], rtol=1e-4, atol=1e-5)

    resume = ["train", "--resume", tmp_path / "two", "--episodes", "60", "--devices", "2", "--device", "cpu"]
    run_process([*COMMAND, *resume])
    assert plastic("train", "--resume", tmp_path / "one", "--episodes", "60") == 0
    assert [row["episode"] for row in rows(tmp_path / "two")] == [row["episode"] for row in rows(tmp_path / "one")]
    assert rows(tmp_path / "two")[-1]["loss"] == pytest.approx(rows(tmp_path / "one")[-1]["loss"], rel=1e-4)


def test_one_signal_stops_both_and_saves(tmp_path, run_process):
    run = tmp_path / "run"
    parent = run_process.start([*COMMAND, *tiny(run, *TWO, "--episodes", "1000000")])
    parent.wait_for((run / "metrics.jsonl").is_file)
    parent.send_signal(signal.SIGINT)
    _, said = parent.finish()
    assert parent.returncode == 130, said
    assert said.count("continue with") == 1
    assert json.loads((run / "config.json").read_text())["batch"] == 4
    done = RunDirectory.open(run).checkpoint()["episode"]
    assert done % 4 == 0
    assert plastic("train", "--resume", run, "--episodes", done) == 0


def test_a_signal_before_the_first_update_leaves_nothing_behind(tmp_path, run_process):
    run = tmp_path / "run"
    parent = run_process.start([*COMMAND, *tiny(run, *TWO, "--episodes", "1000000")])
    others = parent.wait_for(psutil.Process(parent.pid).children)
    parent.terminate()
    _, said = parent.finish()
    assert parent.returncode in (143, -signal.SIGKILL), said
    _, alive = psutil.wait_procs(others, timeout=20)
    assert not alive
    if parent.returncode == 143:
        assert RunDirectory.open(run).checkpoint()["episode"] == 0


def test_one_process_of_a_cluster_job_writes_its_run(tmp_path, run_process):
    """What a job scheduler says of its own processes is not about ours."""
    run_process([*COMMAND, *tiny(tmp_path / "run", "--episodes", "5")], env={"SLURM_PROCID": "1", "LOCAL_RANK": "1"})
    assert rows(tmp_path / "run")[-1]["episode"] == 5


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--batch", "3"], "--batch 3 must be a multiple of --devices 2"),
        (["--batch", "4", "--episodes", "17"], "a last batch of 1, which must be a multiple of --devices 2"),
        (["--batch", "4", "--device", "cuda:0"], "names one device"),
    ],
)
def test_what_cannot_be_shared_is_refused_before_anything_starts(more, words, tmp_path, capsys):
    assert plastic(*tiny(tmp_path / "run", "--devices", "2", "--device", "cpu", *more)) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
