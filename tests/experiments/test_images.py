"""The experiment on natural images, from the command."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.command import plastic, rows, timeless
from tests.data.files import archive, binary_folder, picture, python_folder
from torchplastic.experiments import catalog
from torchplastic.experiments.images import ImagesConfig, build, pictures_of
from torchplastic.runs import RunDirectory

pytestmark = pytest.mark.thorough

SMALL = ["--task.side", "6", "--task.shown", "2", "--task.cycles", "1", "--threads", "1", "--eval-episodes", "4"]


@pytest.fixture
def folder(tmp_path):
    """Ten JPEGs of mixed sizes."""
    for i in range(10):
        picture(tmp_path / "pictures" / f"{i}.jpg", 20 + 7 * i, 90 - 6 * i, seed=i)
    return tmp_path / "pictures"


def train(out, *more):
    return ["train", "images", "--preset", "smoke", *SMALL, "--out", out, *more]


def test_a_folder_of_ten_pictures_trains_and_reports(folder, tmp_path, capsys):
    out = tmp_path / "run"
    assert plastic(*train(out, "--data-dir", folder, "--episodes", 25, "--eval-every", 10, "--log-every", 5)) == 0
    written = rows(out)
    assert [row["episode"] for row in written] == [5, 10, 15, 20, 25]
    assert [row["episode"] for row in written if "val_error" in row] == [10, 20, 25]
    for row in written:
        assert row["loss"] == row["error"]
        assert row["error_median"] > 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["data"] == "pictures of pictures, resized to 6 × 6: 7 to train on, 3 for validation"
    assert set(summary["baselines"]["val_error_median"]) == {"zeros", "mean picture", "nearest row"}
    assert {"val_error", "val_error_median"} <= summary["final"].keys()
    capsys.readouterr()

    assert plastic("eval", out, "--episodes", 30, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["split"] == "validation pictures"
    assert result["error"]["chance"] == result["baselines"]["zeros"]
    assert result["medians"].keys() == {"answer", "zeros", "mean picture", "nearest row"}
    assert plastic("eval", out, "--episodes", 30) == 0
    assert "medians: answer" in capsys.readouterr().out

    assert plastic("report", out) == 0
    page = (out / "report" / "index.html").read_text()
    assert "pictures of pictures" in page
    assert "data:image/gif;base64," in page
    assert {path.suffix for path in (out / "report" / "figures").iterdir()} == {".png", ".svg", ".gif"}


def test_validation_pictures_enter_nothing_but_their_own_error(folder, tmp_path, monkeypatch):
    """The same training whatever the validation pictures are: weights and training errors are equal bit for bit."""
    runs = []
    for turn in range(2):
        if turn:
            for i in (7, 8, 9):  # the last three by name
                picture(folder / f"{i}.jpg", 33, 44, seed=100 + i)
        out = tmp_path / f"run{turn}"
        assert plastic(*train(out, "--data-dir", folder, "--episodes", 12, "--eval-every", 4)) == 0
        pictures_of.__globals__["_pictures"].cache_clear()
        runs.append(out)
    first, second = (RunDirectory(out).weights() for out in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)
    for one, other in zip(rows(runs[0]), rows(runs[1]), strict=True):
        assert one["error"] == other["error"]
        assert one["val_error"] != other["val_error"]


@pytest.mark.parametrize("batch", [1, 3])
def test_a_run_goes_on_bit_for_bit(folder, tmp_path, batch):
    """Stopped in the middle of a row: the medians and the values on validation pictures are those of the whole run."""
    flags = ["--data-dir", folder, "--batch", batch, "--log-every", 6, "--eval-every", 12]
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    assert plastic(*train(whole, *flags, "--episodes", 30)) == 0
    assert plastic(*train(parted, *flags, "--episodes", 15)) == 0
    assert plastic("train", "--resume", parted, "--episodes", 30) == 0
    assert timeless(whole) == timeless(parted)
    first, second = RunDirectory(whole).weights(), RunDirectory(parted).weights()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_other_pictures_are_not_trained_on_by_mistake(folder, tmp_path, capsys):
    out = tmp_path / "run"
    assert plastic(*train(out, "--data-dir", folder, "--episodes", 4)) == 0
    picture(folder / "3.jpg", seed=99)
    pictures_of.__globals__["_pictures"].cache_clear()
    capsys.readouterr()
    assert plastic("train", "--resume", out, "--episodes", 8) == 2
    line = one_line(capsys)
    assert "the checkpoint was written for data_digest='7 + 3 pictures, digest" in line
    assert len(rows(out)) == 1
    assert plastic("eval", out, "--episodes", 4) == 2
    assert "was trained with 7 + 3 pictures, digest" in one_line(capsys)
    assert not (out / "eval").exists()
    assert plastic("eval", out, "--episodes", 4, "--data-dir", folder) == 0
    (result,) = RunDirectory(out).evals()
    assert result["split"].startswith("validation pictures of another set (7 + 3 pictures, digest")
    assert not (out / "eval" / "episodes-4.json").exists()


def test_pictures_that_were_moved(folder, tmp_path, capsys):
    out, moved = tmp_path / "run", tmp_path / "moved"
    assert plastic(*train(out, "--data-dir", folder, "--episodes", 4)) == 0
    folder.rename(moved)
    pictures_of.__globals__["_pictures"].cache_clear()
    capsys.readouterr()
    assert plastic("train", "--resume", out, "--episodes", 8) == 2
    assert "does not exist" in one_line(capsys)
    assert plastic("train", "--resume", out, "--episodes", 8, "--data-dir", moved) == 0
    assert plastic("train", "--resume", out, "--episodes", 9) == 0  # it knows where they are now
    assert plastic("eval", out, "--episodes", 4) == 0


def test_the_look_at_the_end_of_a_run_that_goes_on(folder, tmp_path):
    flags = ["--data-dir", folder, "--log-every", 4, "--eval-every", 12]
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    assert plastic(*train(whole, *flags, "--episodes", 16)) == 0
    assert plastic(*train(parted, *flags, "--episodes", 8)) == 0
    assert "val_error" in rows(parted)[-1]
    assert plastic("train", "--resume", parted, "--episodes", 16) == 0
    assert timeless(whole) == timeless(parted)


def test_a_sweep_without_its_data_makes_nothing(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    out = tmp_path / "sweep"
    assert plastic("sweep", "images", "--seeds", 1, "--data-dir", tmp_path / "empty", "--out", out) == 2
    assert "is empty" in one_line(capsys)
    assert not out.exists()


def test_memory_is_asked_for_before_pictures_are_made(tmp_path, capsys):
    assert plastic("train", "images", "--preset", "smoke", "--task.side", 4000, "--out", tmp_path / "run") == 2
    assert "GiB" in one_line(capsys)


def test_validation_asks_the_same_episodes(folder):
    config = ImagesConfig(experiment="images", preset="smoke", data_dir=str(folder), eval_episodes=6)
    config = replace(config, task=replace(config.task, side=6, shown=2, cycles=1))
    parts = build(config)
    first = parts.evaluate(parts.model)
    assert parts.evaluate(parts.model) == first
    assert first["val_error"] > 0


def one_line(capsys):
    """The error, which is one line; before it the command may say what it reads."""
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("reading ")]
    assert len(lines) == 1
    assert lines[0].startswith("plastic: error: ")
    return lines[0]


def test_data_that_are_none(folder, tmp_path, capsys, monkeypatch):
    empty, text, torn, poisoned, short = (tmp_path / name for name in ("empty", "text", "torn", "poisoned", "short"))
    for place in (empty, text, short):
        place.mkdir()
    (text / "a.txt").write_text("words")
    for i in range(8):
        picture(torn / f"{i}.jpg", seed=i)
    (torn / "5.jpg").write_bytes((torn / "5.jpg").read_bytes()[:300])
    python_folder(poisoned)

    class Poison:
        def __reduce__(self):
            return (tmp_path / "executed").mkdir, ()

    (poisoned / "cifar-10-batches-py" / "data_batch_1").write_bytes(pickle.dumps({b"data": Poison()}))
    binary_folder(tmp_path / "made")
    archive(tmp_path / "made" / "cifar-10-batches-bin", short / "cifar-10-binary.tar.gz")
    whole = (short / "cifar-10-binary.tar.gz").read_bytes()
    (short / "cifar-10-binary.tar.gz").write_bytes(whole[: len(whole) // 2])
    for place, words in (
        (empty, "is empty"),
        (text, "holds neither CIFAR-10 nor pictures"),
        (torn, "5.jpg is no readable picture"),
        (poisoned, "data_batch_1 is refused"),
        (short, "cifar-10-binary.tar.gz cannot be read, it is truncated"),
        (tmp_path / "nothing", "does not exist"),
    ):
        out = tmp_path / "run"
        assert plastic("train", "images", "--preset", "quick", "--data-dir", place, "--out", out) == 2
        assert words in one_line(capsys)
        assert not out.exists()
    assert not (tmp_path / "executed").exists()
    monkeypatch.setenv("TORCHPLASTIC_DATA", str(empty))
    monkeypatch.setattr("torchplastic.data.resolve.cache_folder", lambda: tmp_path / "cache")
    assert plastic("train", "images", "--out", tmp_path / "run") == 2
    assert "CIFAR-10 not found in" in one_line(capsys)
    for flag in ("--eval-every", "--eval-episodes", "--task.side"):
        assert plastic(*train(tmp_path / "run", flag, "0")) == 2
        assert "must be at least" in one_line(capsys)


def test_other_experiments_read_no_data(tmp_path, capsys):
    out = tmp_path / "run"
    assert plastic("train", "fifty-bit", "--preset", "smoke", "--episodes", "2", "--threads", "1", "--out", out) == 0
    capsys.readouterr()
    assert plastic("eval", out, "--episodes", 2, "--data-dir", tmp_path) == 2
    assert "takes no data" in one_line(capsys)


def test_other_pictures_for_an_evaluation(folder, tmp_path, capsys):
    out = tmp_path / "run"
    assert plastic(*train(out, "--episodes", 3)) == 0
    capsys.readouterr()
    assert plastic("eval", out, "--episodes", 4, "--json", "--data-dir", folder) == 0
    result = json.loads(capsys.readouterr().out)
    assert "pictures of pictures" in result["data"]
    assert "of another set" in result["split"]


@pytest.mark.parametrize("alpha", ["full", "neuron", "shared", "none"])
@pytest.mark.parametrize("degraded", ["half", "pixels"])
def test_kinds_of_alpha_and_of_degradation(alpha, degraded, tmp_path):
    out = tmp_path / "run"
    assert plastic(*train(out, "--episodes", 3, "--model.alpha", alpha, "--task.degraded", degraded)) == 0
    with np.load(out / "samples.npz") as samples:
        assert ("matrix/alpha" in samples.files) == (alpha == "full")
        assert samples["frames/activity"].shape == (3 * 4 + 3, 6, 6)


@pytest.mark.parametrize("kind", [["rnn"], ["lstm"], ["lstm", "--model.cells", 9]])
def test_baselines_train(kind, tmp_path):
    out = tmp_path / "run"
    assert plastic(*train(out, "--episodes", 3, "--model.kind", *kind)) == 0
    with np.load(out / "samples.npz") as samples:
        assert samples["frames/activity"].shape == (3 * 4 + 3, 6, 6)


def test_an_lstm_of_few_cells_says_what_it_is_shown():
    config = catalog.settings("images", "smoke", "lstm")
    config = replace(config, model=replace(config.model, cells=5))
    network = build(config).model
    x, clamp = torch.rand(4, 2, 145), torch.rand(4, 2, 145) < 0.5
    y, _ = network(x, clamp=clamp)
    assert y.shape == (4, 2, 144)
    shown = clamp[..., :144]
    assert torch.equal(y[shown], x[..., :144][shown])
    assert not torch.isclose(y[~shown], x[..., :144][~shown]).any()


def test_forms():
    presets = catalog.get("images").presets
    assert set(presets) == {"smoke", "quick", "paper", "published", "text"}
    paper, published, text = (presets[name]() for name in ("paper", "published", "text"))
    for config in (paper, published):
        assert (config.task.steps, config.task.neurons, config.batch) == (201, 1025, 1)
    assert (published.optim.lr, published.optim.lr_w, published.optim.schedule) == (1e-4, None, "constant")
    assert text.task.steps == 210
    assert text.task.scaling == "gray"


def test_smoke_visibly_learns_on_validation_pictures(tmp_path):
    out = tmp_path / "run"
    assert plastic("train", "images", "--preset", "smoke", "--out", out) == 0
    last = rows(out)[-1]
    summary = json.loads((out / "summary.json").read_text())
    assert last["val_error_median"] < 0.7 * min(summary["baselines"]["val_error_median"].values())
    assert "built-in data" in summary["data"]
