"""How time and memory are measured, and the file that a bench leaves."""

import json
from functools import partial

import pytest
import torch

from torchplastic.bench import run_bench, suites
from torchplastic.bench.maze import EpisodesCase, MazeCase
from torchplastic.bench.measure import peak_bytes, seconds_in_turn, spread
from torchplastic.experiments import catalog
from torchplastic.ops.plastic_scan import dispatch
from torchplastic.tasks.patterns import Patterns

CPU = torch.device("cpu")
KIB = 1024


def test_peak_counts_what_is_held_at_once_beyond_what_was_there():
    there = torch.zeros(KIB, dtype=torch.uint8)

    def step():
        a = torch.zeros(3 * KIB, dtype=torch.uint8)
        b = a.view(3, KIB) + there  # another 3 KiB; the view holds nothing of its own
        del a
        c = torch.zeros(2 * KIB, dtype=torch.uint8)
        return b.sum() + c.sum()

    small = 2 * 3 * 8  # the sums
    assert 6 * KIB <= peak_bytes(step, [there], CPU) <= 6 * KIB + small
    assert 7 * KIB <= peak_bytes(step, [], CPU) <= 7 * KIB + small


def test_peak_sees_the_backward_pass():
    x = torch.ones(KIB, requires_grad=True)

    def step():
        x.grad = None
        (x.exp().sin() * x).sum().backward()

    peak = peak_bytes(step, [x], CPU)
    assert 4 * 4 * KIB <= peak <= 8 * 4 * KIB


def test_steps_are_timed_in_turn_after_a_warm_up():
    calls = []
    steps = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    taken = seconds_in_turn(steps, 3, CPU)
    assert "".join(calls) == "ab" + 3 * "aabb"
    assert {name: len(times) for name, times in taken.items()} == {"a": 3, "b": 3}


def test_spread():
    assert spread([5.0, 1.0, 2.0, 4.0, 3.0]) == {"median": 3.0, "q1": 2.0, "q3": 4.0, "n": 5}


@pytest.fixture
def tiny_suite(monkeypatch):
    tasks = [Patterns(bits=20, patterns=2), Patterns(bits=20, patterns=2, input="additive")]
    cases = [suites.Case("tiny", task.input, f"20 bits {task.input}", task, learn_eta=True) for task in tasks]
    monkeypatch.setitem(suites.SUITES, "tiny", lambda: cases)
    two = {name: suites.Implementation(name) for name in ("reference", "chunked")}
    monkeypatch.setattr(suites, "implementations", lambda device: two)


@pytest.mark.thorough
def test_the_file_and_the_table(tiny_suite, tmp_path, capsys):
    result = run_bench(["tiny"], 3, "cpu", tmp_path / "deep" / "bench.json")
    assert json.loads((tmp_path / "deep" / "bench.json").read_text()) == json.loads(json.dumps(result))
    assert [(row["case"], row["impl"]) for row in result["rows"]] == [
        (case, impl) for case in ("clamped", "additive") for impl in ("reference", "chunked")
    ]
    for ratio, plain, fast in zip(result["ratios"], result["rows"][::2], result["rows"][1::2], strict=True):
        assert ratio["speed"] == plain["seconds"]["median"] / fast["seconds"]["median"]
        assert ratio["memory"] == plain["peak_bytes"] / fast["peak_bytes"]
    assert all((row["floor_share"] is None) == (row["impl"] == "reference") for row in result["rows"])
    assert all(row["N"] == 21 and row["B"] == 1 and row["seconds"]["n"] == 3 for row in result["rows"])
    printed = capsys.readouterr().out
    assert "reference" in printed
    assert "chunked" in printed
    assert f"{torch.get_num_threads()} threads" in printed


def test_every_suite_has_a_case_and_names_its_sizes():
    for name, make in suites.SUITES.items():
        for case in make():
            assert case.suite.replace(" ", "-").lower() == name
            sizes = case.sizes()
            assert sizes.keys() == {"N", "T", "B"}
            assert str(sizes["B" if name == "omniglot" else "N"]) in case.label


@pytest.mark.parametrize(("suite", "preset"), [("patterns", "paper"), ("patterns", "additive"), ("fifty-bit", "paper")])
def test_networks_are_those_of_the_presets(suite, preset):
    config = catalog.settings(suite, preset)
    (case,) = (case for case in suites.NETWORKS[suite]() if case.name == preset)
    assert case.task == config.task
    assert case.learn_eta == config.model.learn_eta
    assert case.batch == config.batch


def test_the_network_of_images_has_the_steps_of_its_preset():
    config = catalog.settings("images", "paper")
    case, _ = suites.NETWORKS["images"]()
    assert case.task.neurons == config.task.neurons
    assert case.task.clamped_steps() == config.task.clamped_steps()
    assert case.task.hidden_bits == config.task.hidden_pixels
    assert case.learn_eta == config.model.learn_eta


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch.compile looks at it
def test_all_forms_take_the_same_step(monkeypatch):
    """What is timed is the same computation: equal weights stay equal."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    not_interpreted = [backend for backend in dispatch.BACKENDS if backend.impl != "triton"]
    monkeypatch.setattr(dispatch, "BACKENDS", not_interpreted)
    case = suites.Case("tiny", "x", "x", Patterns(bits=20, patterns=2), learn_eta=True)
    torch.manual_seed(0)
    steps, persistent = case.steps(CPU)
    parameters = [tensor for tensor in persistent if isinstance(tensor, torch.nn.Parameter)]
    own = len(parameters) // len(steps)
    assert {"reference", "compiled step", "chunked"} <= set(steps)
    with torch.no_grad():
        for place, parameter in enumerate(parameters):
            parameter.copy_(parameters[place % own])
    for state in persistent:
        if state.dtype == torch.float32 and not isinstance(state, torch.nn.Parameter) and state.dim() != 3:
            state.zero_()  # Adam's moments
    for step in steps.values():
        step()
    for place, parameter in enumerate(parameters):
        torch.testing.assert_close(parameter, parameters[place % own], rtol=1e-3, atol=2e-6)


def test_errors():
    with pytest.raises(ValueError, match="unknown suite 'nothing'; choose from patterns"):
        run_bench(["nothing"], 3)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no GPU is available"):
            run_bench(["patterns"], 3, "cuda")


def test_both_updates_of_the_maze_are_the_same():
    """The graph of the rollout, and a rollout and a pass: the same episodes, the same weights after some updates."""
    torch.manual_seed(0)
    steps, persistent = MazeCase(batch=3, steps_of_episode=8).steps(CPU)
    for _ in range(2):
        for step in steps.values():
            step()
    agents = [tensor for tensor in persistent if isinstance(tensor, torch.nn.Parameter)]
    half = len(agents) // 2
    for plain, fast in zip(agents[:half], agents[half:], strict=True):
        torch.testing.assert_close(plain, fast, rtol=1e-3, atol=2e-6)


def test_mazes_alone_play_whole_episodes():
    case = EpisodesCase(2)
    steps, _ = case.steps(CPU)
    assert list(steps) == ["reference", "batched"]
    for step in steps.values():
        step()
        step()
    assert case.count() == 500
    assert list(EpisodesCase(300).steps(CPU)[0]) == ["batched"]
