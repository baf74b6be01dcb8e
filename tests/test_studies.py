"""The studies of trained networks: closed forms, and whole calls on a small run."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.command import plastic
from torchplastic.tasks.patterns import Patterns

STUDIES = Path(__file__).parents[1] / "studies"


def module(name):
    spec = importlib.util.spec_from_file_location(name, STUDIES / f"{name}.py")
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made  # dataclasses look their module up
    spec.loader.exec_module(made)
    return made


weights, capacity = module("weights"), module("capacity")


def test_joint_of_known_weights():
    w, alpha = torch.tensor([[1.0, -2.0], [3.0, -4.0]]), torch.tensor([[2.0, -4.0], [6.0, 8.0]])
    found = weights.joint(w, alpha)
    assert (found["connections"], found["equal_sign"], found["alpha_above_0"]) == (4, 0.75, 0.75)
    assert found["correlation_of_magnitudes"] == pytest.approx(1)
    assert weights.joint(w, 3 * w)["correlation"] == pytest.approx(1)


def test_what_distance_and_half_explain():
    side = 6
    pixels = torch.arange(side * side)
    row, column = pixels // side, pixels % side
    distance = torch.hypot((row[:, None] - row).float(), (column[:, None] - column).float()).round()
    half = row >= side // 2
    by_distance = torch.cos(distance)
    assert weights.explained(by_distance, side) == pytest.approx(1)
    assert weights.explained(by_distance * torch.where(half[:, None] == half, 1, -1), side) == pytest.approx(1)
    noise = torch.randn(36, 36, generator=torch.Generator().manual_seed(0))
    cells = 4 * 8  # by chance each cell explains about one of the 36 x 36 entries
    assert weights.explained(noise, side) == pytest.approx(cells / 36**2, abs=0.02)
    share = (by_distance.var() / (1 + by_distance.var())).item()
    assert weights.explained(noise + by_distance, side) == pytest.approx(share, abs=0.05)


def test_changes_keep_what_they_say():
    stream = torch.Generator().manual_seed(0)
    w, alpha = torch.randn(9, 9, generator=stream), torch.randn(9, 9, generator=stream)
    found = {name: parts for name, *parts in weights.changes(w, alpha, stream)}
    assert torch.equal(found["alpha shuffled"][1].flatten().sort()[0], alpha.flatten().sort()[0])
    assert not torch.equal(found["alpha shuffled"][1], alpha)
    assert found["alpha its mean"][1].unique().numel() == 1
    assert torch.linalg.matrix_rank(found["alpha of rank 2"][1]) == 2
    u, s, v = torch.linalg.svd(alpha)
    torch.testing.assert_close(found["alpha of rank 8"][1], (u[:, :8] * s[:8]) @ v[:8])
    assert "alpha of rank 16" not in found


@given(st.integers(0, 100), st.sampled_from([0.3, 0.5, 0.8]))
def test_a_hopfield_network_completes_one_pattern(seed, hidden):
    task = Patterns(bits=20, patterns=1, hidden=hidden, shown=1, gap=0, cycles=1, test=2)
    episode = task.episodes(3, torch.Generator().manual_seed(seed))
    assert torch.equal(capacity.hopfield(episode, task), episode.target)


def test_a_hopfield_network_beyond_its_capacity_fails():
    task = Patterns(bits=100, patterns=80, hidden=0.5, shown=1, gap=0, cycles=1)
    bad = capacity.wrong_among_missing(capacity.hopfield, task, 0.0, 10)["mean"]
    assert 0.2 < bad < 0.5


@given(st.floats(0, 0.5), st.integers(0, 100))
def test_wrong_bits_are_among_the_shown(share, seed):
    task, stream = Patterns(bits=200, patterns=2, shown=1, gap=0, cycles=1, test=2), torch.Generator()
    plain = task.episodes(2, stream.manual_seed(seed))
    episode = capacity.with_wrong_bits(plain, task, share, stream)
    before, after = plain.inputs[-2:, :, :200], episode.inputs[-2:, :, :200]
    assert torch.equal(before.abs(), after.abs())
    assert torch.equal(after[0], after[1])
    turned = (before != after)[0].sum().item() / (before[0] != 0).sum().item()
    assert turned == pytest.approx(share, abs=0.15)
    assert torch.equal(plain.inputs[:-2], episode.inputs[:-2])


@pytest.mark.thorough
def test_whole_studies(tmp_path, monkeypatch, capsys):
    run, figures = tmp_path / "run", tmp_path / "figures"
    assert plastic("train", "patterns", "--preset", "smoke", "--episodes", 200, "--out", run) == 0
    out = tmp_path / "weights.json"
    monkeypatch.setattr(sys, "argv", ["weights", f"{run}", "--episodes=50", f"--out={out}", f"--figures={figures}"])
    weights.main()
    (found,) = json.loads(out.read_text())
    changed = {name: result["mean"] for name, result in found["changes"].items()}
    assert changed["as trained"] < 0.1 < changed["alpha zero"]
    out = tmp_path / "capacity.json"
    flags = ["--patterns", "3", "12", "--episodes=10", f"--out={out}", f"--figures={figures}"]
    monkeypatch.setattr(sys, "argv", ["capacity", f"{run}", *flags])
    capacity.main()
    trained, hopfield = json.loads(out.read_text())
    assert len(trained["rows"]) == len(hopfield["rows"]) == 2 * len(capacity.CUES)
    assert trained["network"] == "trained on 3, seed 0"
    assert {path.name for path in figures.iterdir()} == {"weights-joint.png", "weights-rank.png", "capacity.png"}


def test_a_run_without_alpha_is_refused():
    with pytest.raises(ValueError, match="no alpha per connection"):
        weights.plastic_layer(torch.nn.Linear(2, 2))
