"""The command as a user meets it: results on stdout, one line on stderr for wrong use, nothing lost."""

import json
import random
import re
import shlex
import shutil
import signal
import sys
import time
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import torchplastic
from tests.command import COMMAND, plastic, rows, timeless, tiny
from torchplastic.bench.suites import SUITES
from torchplastic.cli.help import COMMANDS
from torchplastic.experiments import launch


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "run"
    assert plastic(*tiny(path, "--episodes", "25")) == 0
    return path


def test_a_run_directory_is_complete(finished):
    assert {p.name for p in finished.iterdir()} == {
        "config.json", "metrics.jsonl", "checkpoint.pt", "model.safetensors", "samples.npz", "summary.json", "lock",
    }  # fmt: skip
    assert [row["episode"] for row in rows(finished)] == [10, 20, 25]
    assert set(rows(finished)[0]) == {"episode", "seconds", "loss", "error", "eta"}
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["parameters"] == 2 * 17 * 17
    assert summary["episodes"] == 25
    assert summary["final"]["error"] == rows(finished)[-1]["error"]
    checkpoint = torch.load(finished / "checkpoint.pt", weights_only=True)
    assert checkpoint["episode"] == 25
    assert torch.equal(checkpoint["model"]["w"], load_file(finished / "model.safetensors")["w"])
    with np.load(finished / "samples.npz") as samples:
        assert {key.split("/")[0] for key in samples} == {"pictures", "matrix"}
        assert samples["matrix/alpha"].shape == (17, 17)
        assert len([key for key in samples if key.startswith("pictures/before training/")]) == 2 + 3


def test_eval_prints_one_json_object(finished, capsys):
    assert plastic("eval", finished, "--episodes", "30", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["experiment"] == "patterns"
    assert result["episodes"] == 30
    assert result["split"]
    low, high = result["error"]["ci95"]
    assert low <= result["error"]["mean"] <= high
    assert result["error"]["chance"] == 0.25
    assert result["baselines"]
    assert json.loads((finished / "eval" / "episodes-30.json").read_text()) == result


def test_eval_takes_a_device(finished, capsys):
    results = []
    for more in ([], ["--device", "cpu"]):
        assert plastic("eval", finished, "--episodes", "20", "--json", *more) == 0
        results.append(json.loads(capsys.readouterr().out))
    if not torch.cuda.is_available():
        assert results[0] == results[1]
    assert plastic("eval", finished, "--device", "nowhere") == 2
    error = capsys.readouterr().err
    assert "--device nowhere cannot be used here" in error
    assert error.count("\n") == 1


def test_eval_is_repeatable_and_does_not_depend_on_training_length(finished, tmp_path, capsys):
    assert plastic(*tiny(tmp_path / "short", "--episodes", "12")) == 0
    shutil.copy(finished / "model.safetensors", tmp_path / "short")  # the same weights, fewer episodes behind them
    results = []
    for path in (finished, finished, tmp_path / "short"):
        capsys.readouterr()
        assert plastic("eval", path, "--episodes", "20", "--json") == 0
        results.append(json.loads(capsys.readouterr().out))
    assert [result.pop("trained_episodes") for result in results] == [25, 25, 12]
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("task_input", ["clamped", "additive"])
def test_the_lstm_trains_on_the_same_task(task_input, tmp_path):
    assert plastic(*tiny(tmp_path / "run", "--model.kind", "lstm", "--task.input", task_input, "--episodes", "4")) == 0
    assert rows(tmp_path / "run")[-1]["eta"] is None


def test_list_in_a_pipe_is_a_line_for_each_preset(capsys):
    assert plastic("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line.split("\t")) == 5 for line in lines)
    assert {"smoke", "quick", "paper", "published", "additive"} == {
        line.split("\t")[1] for line in lines if line.startswith("patterns\t")
    }


def test_version_and_help(capsys):
    assert plastic("--version") == 0
    assert capsys.readouterr().out == f"torchplastic {torchplastic.__version__}\n"
    assert plastic("train", "patterns", "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--preset {smoke,quick,paper,published,additive}" in text
    assert plastic("bench", "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    for name in SUITES:
        assert name in text


def test_the_examples_of_every_help_run(tmp_path, monkeypatch, capsys, run_process):
    """One after the other in one folder. Bench and download are only parsed: they take minutes, and the network."""
    benches, downloads = [], []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torchplastic.bench.run_bench", lambda *flags: benches.append(flags))
    monkeypatch.setattr("torchplastic.data.download.fetch", lambda *flags: downloads.append(flags) or [])
    for name in COMMANDS:
        assert plastic(name, "--help") == 0
        _, examples = capsys.readouterr().out.split("\nExamples:\n")
        for line in examples.splitlines():
            command, *rest = shlex.split(line.split("|")[0])
            assert (command, rest[0]) == ("plastic", name)
            expanded = [list(Path().glob(part)) if "*" in part else [part] for part in rest]
            assert all(expanded), line
            assert plastic(*chain.from_iterable(expanded)) == 0, line
            capsys.readouterr()
    assert len(benches) == 1
    assert len(downloads) == 2


def test_output_that_knows_no_greek(finished, run_process):
    for args in (["list"], ["eval", finished, "--episodes", "5"]):
        run_process([*COMMAND, *args], env={"PYTHONIOENCODING": "ascii"})


@pytest.mark.thorough
def test_report_writes_one_page(finished, capsys):
    assert plastic("report", finished) == 0
    page = capsys.readouterr().out.strip()
    assert page.endswith(".html")
    assert (finished / "report").is_dir()


def test_two_runs_are_equal_bit_for_bit(finished, tmp_path):
    assert plastic(*tiny(tmp_path / "again", "--episodes", "25")) == 0
    assert timeless(tmp_path / "again") == timeless(finished)
    for name, tensor in load_file(finished / "model.safetensors").items():
        assert torch.equal(tensor, load_file(tmp_path / "again" / "model.safetensors")[name])


def test_going_on_further_equals_the_longer_run(finished, tmp_path, capsys):
    assert plastic(*tiny(tmp_path / "short", "--episodes", "12")) == 0
    assert [row["episode"] for row in rows(tmp_path / "short")] == [10, 12]
    assert plastic("train", "--resume", tmp_path / "short", "--episodes", "25") == 0
    assert timeless(tmp_path / "short") == timeless(finished)
    for name, tensor in load_file(finished / "model.safetensors").items():
        assert torch.equal(tensor, load_file(tmp_path / "short" / "model.safetensors")[name])


def test_resuming_a_finished_run_says_so(finished, capsys):
    before = (finished / "checkpoint.pt").stat().st_mtime_ns
    assert plastic("train", "--resume", finished) == 0
    assert "is finished" in capsys.readouterr().err
    assert (finished / "checkpoint.pt").stat().st_mtime_ns == before


def test_list_names_every_preset(capsys):
    assert plastic("list") == 0
    out = capsys.readouterr().out
    for word in ("patterns", "smoke", "quick", "paper", "additive"):
        assert word in out


WRONG = {
    "unknown command": (["fly"], "unknown command"),
    "misspelt command": (["traim", "patterns"], "did you mean train?"),
    "unknown experiment": (["train", "nothing"], "unknown experiment"),
    "unknown preset": (["train", "patterns", "--preset", "nothing"], "has no preset"),
    "no experiment": (["train"], "name an experiment"),
    "unknown flag": (["train", "patterns", "--colour", "blue"], "--colour"),
    "misspelt flag": (["train", "patterns", "--model.etta", "1"], "--model.etta, 1; perhaps you meant --model.eta"),
    "misspelt flags": (["train", "patterns", "--sede", "1", "--bacth", "2"], "for --bacth perhaps you meant --batch"),
    "not a number": (["train", "patterns", "--model.eta", "big"], "--model.eta"),
    "size out of range": (["train", "patterns", "--task.bits", "0"], "task.bits must be at least 1; got 0"),
    "batch out of range": (["train", "patterns", "--batch", "0"], "batch must be at least 1; got 0"),
    "no such device": (["train", "patterns", "--device", "nowhere"], "--device nowhere"),
    "too many threads": (["train", "patterns", "--threads", "100000"], "threads must lie in 0"),
    "resume with a name": (["train", "patterns", "--resume", "{tmp}"], "omit the name"),
    "resume no run": (["train", "--resume", "{tmp}"], "is no run directory"),
    "resume with another flag": (["train", "--resume", "{tmp}", "--seed", "3"], "--seed"),
    "eval nothing": (["eval"], "name a run"),
    "list with a flag": (["list", "--colour"], "takes no options; got --colour"),
    "fetch nothing": (["data", "fetch"], "name a data set; choose one of cifar10, omniglot"),
    "eval no run": (["eval", "{tmp}"], "is no run directory"),
    "report nothing": (["report"], "name at least one"),
    "report no run": (["report", "{tmp}"], "is no run"),
    "unknown suite": (["bench", "nothing"], "unknown suite"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_use_is_one_line_and_code_2(case, tmp_path, capsys):
    args, words = WRONG[case]
    assert plastic(*(a.replace("{tmp}", str(tmp_path)) for a in args)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("plastic: error: ")
    assert words in captured.err
    assert list(tmp_path.iterdir()) == []


def test_nothing_existing_is_overwritten(finished, capsys):
    before = {p.name: p.stat().st_mtime_ns for p in finished.iterdir()}
    assert plastic(*tiny(finished)) == 2
    assert "exists. Choose another --out" in capsys.readouterr().err
    assert {p.name: p.stat().st_mtime_ns for p in finished.iterdir()} == before


@pytest.mark.parametrize("damage", ["truncated", "foreign", "other sizes"])
def test_a_bad_checkpoint_is_one_line(tmp_path, capsys, damage):
    path = tmp_path / "run"
    plastic(*tiny(path, "--episodes", "5"))
    capsys.readouterr()
    checkpoint = path / "checkpoint.pt"
    if damage == "truncated":
        checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    elif damage == "foreign":
        torch.save({"something": 1}, checkpoint)
    else:
        config = json.loads((path / "config.json").read_text())
        config["task"]["bits"], config["model"]["rule"] = 20, "oja"
        (path / "config.json").write_text(json.dumps(config))
    assert plastic("train", "--resume", path, "--episodes", "9") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    if damage == "other sizes":
        assert "the checkpoint was written for model.rule='hebb', task.bits=16; this run asks for" in error


def test_too_large_a_run_is_refused_before_it_starts(tmp_path, capsys):
    args = tiny(tmp_path / "run", "--task.bits", "200000", "--model.impl", "reference")
    assert plastic(*args) == 2
    error = capsys.readouterr().err
    assert "GiB" in error
    assert "--model.impl auto" in error
    assert not (tmp_path / "run").exists()


def test_what_needs_a_gpu_is_refused_before_it_starts(tmp_path, capsys, monkeypatch):
    triton_support = pytest.importorskip("torchplastic.ops.plastic_scan.triton_gpu.support")
    monkeypatch.setattr(triton_support, "interpreted", lambda: False)
    assert plastic(*tiny(tmp_path / "run", "--model.impl", "triton")) == 2
    assert 'not in torch.float32 on cpu. Use impl="auto".' in capsys.readouterr().err
    assert plastic(*tiny(tmp_path / "run", "--capture")) == 2
    assert "--capture needs one GPU; this run has 1 of cpu. Omit it." in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.thorough
def test_what_a_gpu_trained_is_looked_at_anywhere(tmp_path, capsys, monkeypatch):
    """Samples at the end, and an evaluation, run on a CPU."""
    triton_support = pytest.importorskip("torchplastic.ops.plastic_scan.triton_gpu.support")
    if triton_support.find_kernels() is None:
        pytest.skip("needs the extra gpu")
    monkeypatch.setattr(triton_support, "INTERPRETED", 0)
    finish = launch._finish

    def finished(*args):
        monkeypatch.setattr(triton_support, "interpreted", lambda: False)
        finish(*args)

    monkeypatch.setattr(launch, "_finish", finished)
    assert plastic(*tiny(tmp_path / "run", "--model.impl", "triton", "--episodes", "2")) == 0
    assert plastic("eval", tmp_path / "run", "--episodes", "4") == 0


def test_a_diverging_run_exits_1_and_names_the_last_good_checkpoint(tmp_path, capsys):
    assert plastic(*tiny(tmp_path / "run", "--optim.lr", "1e38", "--episodes", "50")) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "at episode" in error
    assert "learning rate" in error
    assert "The last good checkpoint, of episode 0" in error
    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["model"]["w"].isfinite().all()


# --- as processes


def wait_for_rows(path, count, process):
    file = path / "metrics.jsonl"
    process.wait_for(lambda: file.is_file() and len(file.read_text().splitlines()) >= count)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_save_and_print_how_to_go_on(tmp_path, number, code, run_process):
    path = tmp_path / "run"
    process = run_process.start([*COMMAND, *tiny(path, "--episodes", "100000")])
    wait_for_rows(path, 2, process)
    process.send_signal(number)
    _, error = process.finish()
    assert process.returncode == code
    assert f"continue with: plastic train --resume {path}" in error
    done = torch.load(path / "checkpoint.pt", weights_only=True)["episode"]
    assert plastic("train", "--resume", path, "--episodes", done + 3) == 0


def test_sigkill_at_random_moments_changes_nothing(tmp_path, run_process):
    """Killed and resumed, again and again: weights and metrics equal those of the undisturbed run."""
    episodes = ["--episodes", "400", "--log-every", "7", "--save-seconds", "0.05"]
    assert plastic(*tiny(tmp_path / "whole", *episodes)) == 0
    path, draw = tmp_path / "killed", random.Random(0)
    process = run_process.start([*COMMAND, *tiny(path, *episodes)])
    kills = 0
    for _ in range(4):
        wait_for_rows(path, 1, process)
        time.sleep(draw.uniform(0, 0.4))
        process.kill()
        process.finish()
        kills += process.returncode == -signal.SIGKILL
        if (path / "summary.json").is_file():
            break
        process = run_process.start([*COMMAND, "train", "--resume", path])
    process.finish()
    assert kills >= 2
    assert plastic("train", "--resume", path) == 0
    assert timeless(path) == timeless(tmp_path / "whole")
    for name, tensor in load_file(tmp_path / "whole" / "model.safetensors").items():
        assert torch.equal(tensor, load_file(path / "model.safetensors")[name])


def test_a_run_in_progress_is_locked_but_can_be_measured(tmp_path, capsys, run_process):
    path = tmp_path / "run"
    process = run_process.start([*COMMAND, *tiny(path, "--episodes", "100000")])
    wait_for_rows(path, 1, process)
    assert plastic("train", "--resume", path) == 2
    assert "in use" in capsys.readouterr().err
    assert plastic("eval", path, "--episodes", "4", "--json") == 0
    assert process.poll() is None


def test_output_in_a_pipe_is_greppable(tmp_path, run_process):
    run = tmp_path / "a run"
    done = run_process([*COMMAND, *tiny(run, "--episodes", "25")])
    said = [line for line in done.error.splitlines() if not line.startswith("compiling kernels")]
    assert said[0] == f"run {run}"
    assert [re.search(r" episode=(\d+) .* loss=", line)[1] for line in said[1:]] == ["10", "20", "25"]
    result, then = done.out.splitlines()
    assert result.startswith(f"{run}  25 episodes in ")
    assert "; last row (5 episodes): loss " in result
    assert shlex.split(then) == ["plastic", "report", str(run)]


def test_without_the_extra_it_says_which(tmp_path, run_process):
    code = "import sys; sys.modules['tyro'] = None\nfrom torchplastic.cli import main; main(['train', 'patterns'])"
    done = run_process([sys.executable, "-c", code], code=2, cwd=tmp_path)
    assert "torchplastic[lab]" in done.error
    assert done.error.count("\n") == 1
