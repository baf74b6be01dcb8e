"""The experiment on Omniglot, from the command."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

import torchplastic as tp
from tests.command import plastic, rows, timeless
from torchplastic.experiments import catalog
from torchplastic.experiments import omniglot as experiment
from torchplastic.experiments.omniglot import build, data_of, held_out_episodes, training_episodes
from torchplastic.runs import RunDirectory

pytestmark = pytest.mark.thorough

SMALL = ["--model.channels", "4", "--threads", "1", "--eval-episodes", "20", "--task.ways", "3", "--task.pool", "0"]


@pytest.fixture(autouse=True)
def anew():
    """Every test reads its own data."""
    experiment._data.cache_clear()
    yield
    experiment._data.cache_clear()


def train(out, *more):
    return ["train", "omniglot", "--preset", "quick", *SMALL, "--out", out, *more]


def short(folder, *more):
    return ["--data-dir", folder, "--episodes", 48, "--batch", 8, "--log-every", 8, "--eval-every", 16, *more]


def one_line(capsys):
    """The error, which is one line; before it the command may say what it reads."""
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("reading ")]
    assert len(lines) == 1
    assert lines[0].startswith("plastic: error: ")
    return lines[0]


def test_train_evaluate_report(small_omniglot, tmp_path, capsys):
    out = tmp_path / "run"
    assert plastic(*train(out, *short(small_omniglot))) == 0
    written = rows(out)
    assert [row["episode"] for row in written] == [8, 16, 24, 32, 40, 48]
    assert [row["episode"] for row in written if "test_error" in row] == [16, 32, 48]
    assert all(0 <= row["error"] <= 1 and "error_median" not in row for row in written)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["data"].startswith("Omniglot: 16 characters, 20 drawings each, 31 × 31: 10 to train on, 6 to test")
    assert "the fixed split 0123" in summary["data_digest"]
    assert summary["baselines"]["test_error"]["guessing"] == pytest.approx(2 / 3)
    capsys.readouterr()

    assert plastic("eval", out, "--episodes", 200, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["split"] == "6 test classes"
    assert result["accuracy"]["chance"] == pytest.approx(1 / 3)
    low, high = result["accuracy"]["ci95"]
    assert low < result["accuracy"]["mean"] < high
    assert len(result["by_position"]) == 3
    assert result["baselines"]["nearest neighbour in pixels"] > 0
    assert "0123" in result["data"]
    assert plastic("eval", out, "--episodes", 200) == 0
    told = capsys.readouterr().out
    assert "accuracy" in told
    assert "by position: 1 " in told

    assert plastic("report", out) == 0
    page = (out / "report" / "index.html").read_text()
    for words in ("Accuracy by the position of the query class in the support set", "nearest neighbour in pixels"):
        assert words in page
    names = {path.stem for path in (out / "report" / "figures").iterdir()}
    assert {"omniglot-matrix-alpha", "omniglot-map-features-of-test-classes", "omniglot-pictures"} <= names
    classifier = tp.PlasticClassifier.from_file(out / "model.safetensors")
    assert classifier.ways == 3


def test_accuracy_by_position_is_the_whole(small_omniglot):
    """The mean over positions, weighted by how often each came, is the accuracy."""
    config = replace(catalog.settings("omniglot", "quick"), data_dir=str(small_omniglot))
    config = replace(config, model=replace(config.model, channels=4), task=replace(config.task, ways=3, pool=0))
    model = build(config).model
    told = experiment.evaluation(config, model, 600, torch.Generator().manual_seed(0))
    batches = experiment._batches(
        held_out_episodes(config), 600, experiment._at_once(config), torch.Generator().manual_seed(0)
    )
    places = torch.cat([experiment._last_position(batch) for batch in batches])
    weights = places.bincount(minlength=3) / 600
    assert (weights > 0.25).all()
    assert (weights * torch.tensor(told["by_position"])).sum().item() == pytest.approx(
        told["accuracy"]["mean"], abs=1e-6
    )


@pytest.mark.parametrize("flags", [["--batch", 8], ["--batch", 8, "--task.pool", 4, "--task.queries", 3]])
def test_a_run_goes_on_bit_for_bit(small_omniglot, tmp_path, flags):
    flags = ["--data-dir", small_omniglot, "--log-every", 24, "--eval-every", 48, *flags]
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    assert plastic(*train(whole, *flags, "--episodes", 96)) == 0
    assert plastic(*train(parted, *flags, "--episodes", 40)) == 0
    assert plastic("train", "--resume", parted, "--episodes", 96) == 0
    assert timeless(whole) == timeless(parted)
    first, second = RunDirectory(whole).weights(), RunDirectory(parted).weights()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_test_classes_enter_nothing_but_their_own_error(small_omniglot, tmp_path, monkeypatch):
    """The same training whatever the test classes look like, bit for bit: for any seed they are never trained on."""
    real, runs = experiment._data.__wrapped__, []
    for seed in (0, 1, 2):
        for turn in range(2):

            def other(*args, turn=turn):
                found = real(*args)
                pictures = 255 - found.held_out.pictures if turn else found.held_out.pictures
                return replace(found, held_out=replace(found.held_out, pictures=pictures))

            other.cache_clear = lambda: None
            monkeypatch.setattr(experiment, "_data", other)
            out = tmp_path / f"run{seed}{turn}"
            assert plastic(*train(out, *short(small_omniglot), "--seed", seed)) == 0
            runs.append(out)
        first, second = (RunDirectory(out).weights() for out in runs[-2:])
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert [row["error"] for row in rows(runs[-2])] == [row["error"] for row in rows(runs[-1])]


def test_every_split(small_omniglot):
    config = replace(catalog.settings("omniglot", "quick"), data_dir=str(small_omniglot))
    for split, part, train, held_out in (
        ("fixed", "test", 10, 6), ("background", "test", 9, 7), ("validation", "val", 7, 3)
    ):  # fmt: skip
        found = data_of(replace(config, split=split))
        assert (len(found.train), len(found.held_out), found.part) == (train, held_out, part)
        assert not set(found.train.names) & set(found.held_out.names)
    small = replace(config, task=replace(config.task, pool=0, within_groups=True, ways=4))
    assert set(training_episodes(small).classes.groups) == {"alphabet0", "alphabet1"}


@pytest.mark.parametrize("alpha", ["full", "neuron", "shared", "none"])
@pytest.mark.parametrize("rule", ["oja", "hebb"])
def test_every_kind_trains(small_omniglot, tmp_path, alpha, rule):
    out = tmp_path / "run"
    kind = ["--model.alpha", alpha, "--model.rule", rule, "--task.shots", 2, "--task.ways", 4, "--task.queries", 4]
    assert plastic(*train(out, *short(small_omniglot), *kind)) == 0
    assert plastic("eval", out, "--episodes", 20) == 0
    assert plastic("report", out) == 0


def test_what_is_refused(small_omniglot, tmp_path, capsys):
    torn, foreign, out = tmp_path / "torn", tmp_path / "foreign", tmp_path / "run"
    torn.mkdir()
    shutil.copytree(small_omniglot / "images_evaluation", torn / "images_evaluation")
    (torn / "images_background.zip").write_bytes(b"PK\x03\x04 and no more")
    foreign.mkdir()
    (foreign / "a.txt").write_text("words")
    single = tmp_path / "single"
    shutil.copytree(small_omniglot, single)
    for path in list(single.rglob("*.png")):
        if not path.stem.endswith("_01"):
            path.unlink()
    for place, more, words in (
        (torn, [], "images_background.zip cannot be read, it is damaged or foreign"),
        (foreign, [], "Omniglot not found in"),
        (tmp_path / "nothing", [], "does not exist"),
        (single, [], "holds 1 drawings of alphabet0/character00; Omniglot has 20"),
        (small_omniglot, ["--task.ways", 7], "task.ways is 7, but there are 6 classes; lower it"),
        (small_omniglot, ["--task.ways", 70], "task.ways is 70, but there are 10 classes; lower it"),
        (small_omniglot, ["--task.shots", 20], "has 20 pictures; 22 are needed"),
        (small_omniglot, ["--model.kind", "lstm"], "omniglot has no network of kind lstm"),
        (small_omniglot, ["--model.channels", 0], "model.channels must be at least 1"),
        (small_omniglot, ["--task.side", 20], "task.side must lie in 31 … 46"),
    ):
        assert plastic(*train(out, *short(place), *more)) == 2
        assert words in one_line(capsys)
        assert not out.exists()


def test_other_data_are_not_trained_on_by_mistake(small_omniglot, tmp_path, capsys):
    out = tmp_path / "run"
    assert plastic(*train(out, *short(small_omniglot))) == 0
    moved = small_omniglot.rename(tmp_path / "moved")
    experiment._data.cache_clear()
    capsys.readouterr()
    assert plastic("train", "--resume", out, "--episodes", 60) == 2
    assert "does not exist" in one_line(capsys)
    assert plastic("train", "--resume", out, "--episodes", 60, "--data-dir", moved) == 0
    assert plastic("eval", out, "--episodes", 10) == 0


def test_smoke_learns(tmp_path):
    """Test error falls, well below that of the nearest neighbour in pixels."""
    out = tmp_path / "run"
    flags = ["--episodes", 12_800, "--eval-every", 1280, "--out", out]
    assert plastic("train", "omniglot", "--preset", "smoke", *flags) == 0
    looks = [row["test_error"] for row in rows(out) if "test_error" in row]
    assert looks[-1] < 0.85 * looks[0]
    told = json.loads((out / "summary.json").read_text())
    assert told["data"].startswith("synthetic data, not Omniglot")
    assert looks[-1] < 0.75 * told["baselines"]["test_error"]["nearest neighbour in pixels"]
