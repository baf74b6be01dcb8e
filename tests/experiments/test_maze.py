"""The maze experiment, from the command; what its evaluation takes away."""

import json
from dataclasses import replace

import pytest
import torch

from tests.command import plastic, rows, timeless
from torchplastic import PlasticState
from torchplastic.experiments import catalog
from torchplastic.experiments.maze import _carry, _intervals, baselines, build, evaluation, walks
from torchplastic.runs import RunDirectory

pytestmark = pytest.mark.thorough

SMALL = ["--model.neurons", "6", "--task.size", "5", "--task.steps", "12", "--threads", "1"]


def train(out, *more):
    flags = ["--batch", 8, "--episodes", 48, "--log-every", 16]
    return ["train", "maze", "--preset", "smoke", *SMALL, *flags, "--out", out, *more]


def test_train_evaluate_report(tmp_path, capsys):
    out = tmp_path / "run"
    assert plastic(*train(out)) == 0
    written = rows(out)
    assert [row["episode"] for row in written] == [16, 32, 48]
    assert all("reward" in row and "error" not in row for row in written)
    levels = json.loads((out / "summary.json").read_text())["baselines"]["reward"]
    assert levels["perfect knowledge"] > 2 * levels["random walk"] > 0
    capsys.readouterr()

    assert plastic("eval", out, "--episodes", 150, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["variants"]) == {"trace held after the first reward", "no trace"}
    low, high = result["reward"]["ci95"]
    assert low < result["reward"]["mean"] < high
    assert 0 < result["reward"]["of_perfect"] < 1
    assert 1 <= result["reward"]["steps_to_first"] <= 12
    assert plastic("eval", out, "--episodes", 150) == 0
    printed = capsys.readouterr().out
    for words in ("perfect knowledge", "complete:", "trace held after the first reward:", "steps to the first reward"):
        assert words in printed

    assert plastic("report", out) == 0
    page = (out / "report" / "index.html").read_text()
    for words in ("Evaluation with less plasticity", "trace held after the first reward", "reward per step"):
        assert words in page
    names = {path.name for path in (out / "report" / "figures").iterdir()}
    assert {"maze-the-way-after-training.gif", "maze-heat.png", "maze-reward-per-step.svg", "maze-reward.png"} <= names


@pytest.mark.parametrize(
    "kind", [["--model.alpha", "shared"], ["--model.alpha", "none"], ["--model.kind", "lstm"], ["--model.kind", "gru"]]
)
def test_every_kind_trains(tmp_path, kind):
    out = tmp_path / "run"
    assert plastic(*train(out, *kind)) == 0
    assert plastic("eval", out, "--episodes", 20) == 0
    (result,) = RunDirectory(out).evals()
    assert bool(result["variants"]) == (kind[1] == "shared")
    assert plastic("report", out) == 0


def test_a_run_goes_on_bit_for_bit(tmp_path):
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    assert plastic(*train(whole)) == 0
    assert plastic(*train(parted), "--episodes", 24) == 0
    assert plastic("train", "--resume", parted, "--episodes", 48) == 0
    assert timeless(whole) == timeless(parted)
    first, second = RunDirectory(whole).weights(), RunDirectory(parted).weights()
    assert all(torch.equal(first[name], second[name]) for name in first)


def small():
    config = catalog.settings("maze", "smoke")
    return replace(config, model=replace(config.model, neurons=6), task=replace(config.task, size=5, steps=12))


def test_what_is_carried_where_the_trace_is_held_or_off():
    """Held: the step that sees the first reward still changes the trace, later ones do not; off: it is always zero."""
    traces = [PlasticState(torch.zeros(2, 1), torch.full((2, 1, 1), float(t))) for t in range(5)]
    rewards = [torch.tensor(pair) for pair in ([0.0, 0.0], [-0.1, 10.0], [10.0, 0.0], [0.0, 10.0])]
    held, off = _carry("held"), _carry("off")
    carried = traces[0]
    seen = []
    for t, reward in enumerate(rewards):
        carried = held(carried if t else None, traces[t + 1], reward)
        seen.append(carried.trace.flatten().tolist())
        assert not off(traces[t], traces[t + 1], reward).trace.any()
    # the second agent sees its reward at step 1, the first one at step 2
    assert seen == [[1, 1], [2, 2], [3, 2], [3, 2]]
    assert _carry("as it is") is None


def test_an_agent_without_use_of_its_trace_is_the_same_in_every_variant():
    config = small()
    agent = build(config).model
    with torch.no_grad():
        agent.core.alpha.zero_()
    result = evaluation(config, agent, 40, torch.Generator().manual_seed(0))
    for variant in result["variants"].values():
        assert variant == {key: result["reward"][key] for key in variant}


def test_the_same_mazes_for_every_variant():
    config = small()
    agent = build(config).model
    starts = [next(walks(config, agent, 30, torch.Generator().manual_seed(4), kind))[0] for kind in ("held", "off")]
    assert all(torch.equal(a, b) for a, b in zip(starts[0].tensors(), starts[1].tensors(), strict=True))


def test_steps_to_the_first_and_between_later_rewards():
    found = torch.tensor([[0, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 0]]).bool()
    first, later = _intervals(found)
    assert first == pytest.approx((2 + 1) / 2)
    assert later == pytest.approx((2 + 3) / 2)


def test_levels_are_those_of_the_maze():
    levels = baselines(
        replace(small(), task=replace(small().task, size=11, steps=250)), 200, torch.Generator().manual_seed(0)
    )
    assert 385 < levels["perfect knowledge"] < 420
    assert abs(levels["random walk"]) < 20


def test_memory_is_counted(tmp_path, capsys):
    assert plastic("train", "maze", "--preset", "paper", "--model.neurons", 60_000, "--out", tmp_path / "run") == 2
    assert "GiB" in capsys.readouterr().err
    assert plastic("train", "maze", "--preset", "smoke", "--task.size", 6, "--out", tmp_path / "run") == 2
    assert "task.size must be odd" in capsys.readouterr().err
