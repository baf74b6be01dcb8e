"""`make gpu`, on a CPU: Triton's kernels are interpreted, and nothing but PyTorch is there."""

import json
import sys
import time
from pathlib import Path

import pytest
import torch

from torchplastic import functional
from torchplastic.report.sources import read_bench

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
NOT_NEEDED = (
    "tyro", "dacite", "rich", "lightning_fabric", "psutil", "jinja2", "matplotlib", "scipy", "pooch", "requests",
    "PIL", "gymnasium", "numba", "ray", "pytest", "safetensors", "filelock",
)  # fmt: skip
ENV = {"TRITON_INTERPRET": "1", "TORCHDYNAMO_DISABLE": "1"}  # the compiled step runs as it is

pytestmark = [pytest.mark.thorough, pytest.mark.skipif(sys.platform == "win32", reason="locks a file")]


def tiny(out, *more):
    return [sys.executable, SCRIPT, "--device", "cpu", "--tiny", "--out", out, *more]


def steps(out):
    return json.loads((out / "cpu" / "steps.json").read_text())


@pytest.fixture
def bare(tmp_path):
    """The environment of a machine without the packages of the laboratory."""
    folder = tmp_path / "bare"
    folder.mkdir()
    blocked = f"import sys\nfor name in {NOT_NEEDED}:\n    sys.modules[name] = None\n"
    (folder / "sitecustomize.py").write_text(blocked)
    return {**ENV, "PYTHONPATH": str(folder)}


def test_two_calls_do_all_and_a_third_nothing(bare, tmp_path, run_process):
    out = tmp_path / "out"
    first = run_process(tiny(out, "--seconds", "20"), env=bare)  # a first bench step is thought to take 30
    assert "steps and 0 runs left; go on with: python" in first.out
    assert "skipped: the extra lab is not installed (import of tyro halted" in first.out
    done = steps(out)["done"]
    assert done
    assert not any(name.startswith("bench") for name in done)

    second = run_process(tiny(out), env=bare)
    assert "FAILED" not in second.out
    assert 'so "auto" would take: patterns 8: ' in second.out
    found = steps(out)
    assert found["done"] | done == found["done"]  # what was done is not done again
    assert set(found["begun"].values()) == {1}
    kinds = {step["kind"] for step in found["done"].values()}
    impls = {"chunked", "triton"} & set(functional.impls())  # a copy of the package may be without Triton's folder
    assert kinds == {*(f"parity of {impl}" for impl in impls), "copy", "bench", "growth"}
    assert all(step["failures"] == 0 for step in found["done"].values() if "checks" in step)

    (file,) = out.glob("*.json")
    bench = read_bench(file)
    assert file.name.endswith("-cpu.json")
    assert {row["impl"] for row in bench.rows} >= {"reference", "compiled step", *impls}
    assert bench.content["ratios"]
    before = file.read_bytes(), steps(out)
    third = run_process(tiny(out), env=bare)
    assert f"all is done: {file}" in third.out
    assert (file.read_bytes(), steps(out)) == before


def test_a_step_that_was_interrupted_is_done_again(bare, tmp_path, run_process):
    out = tmp_path / "out"
    child = run_process.start(tiny(out), env=bare)
    file = out / "cpu" / "steps.json"
    child.wait_for(lambda: file.exists() and len(steps(out)["begun"]) > 1)
    child.kill()
    child.finish()
    before = steps(out)
    (torn,) = before["begun"].keys() - before["done"].keys() or [None]
    last = run_process(tiny(out), env=bare)
    assert "all is done" in last.out
    after = steps(out)
    assert after["done"] | before["done"] == after["done"]
    again = {name: times for name, times in after["begun"].items() if times > 1}
    assert again == ({} if torn is None else {torn: 2})


def test_a_step_that_ends_the_program_again_and_again_is_left(bare, tmp_path, run_process):
    out = tmp_path / "out"
    (out / "cpu").mkdir(parents=True)
    (out / "cpu" / "steps.json").write_text(json.dumps({"begun": {"copy": 2}, "done": {}}))
    call = run_process(tiny(out), env=bare)
    assert "FAILED copy: it ended the program 2 times" in call.out
    assert "all is done" in call.out


def test_it_trains_where_the_laboratory_is_installed(tmp_path, run_process):
    out = tmp_path / "out"
    call = run_process(tiny(out), env=ENV, seconds=200)
    assert "patterns: finished" in call.out
    assert json.loads((out / "cpu" / "training" / "patterns" / "summary.json").read_text())["episodes"] == 20
    started = time.monotonic()
    again = run_process(tiny(out), env=ENV)
    assert "0 left" in again.out
    assert "training: none" in again.out
    assert time.monotonic() - started < 100


def test_errors(tmp_path, run_process):
    short = run_process(tiny(tmp_path, "--seconds", "1"), env=ENV, code=2)
    assert short.error.startswith("make gpu: parity of chunked: ")
    assert "allow --seconds" in short.error
    if not torch.cuda.is_available():
        none = run_process([sys.executable, SCRIPT, "--out", tmp_path], code=2)
        assert none.error == "make gpu: no GPU is available to PyTorch here; nothing was measured.\n"
