"""The compiled kernels beyond the tests of plastic_scan: odd sizes shared by threads, single products."""

import ast
import os
import sys
from pathlib import Path

import pytest
import torch

from tests.ops.parity import assert_parity, chunked, random_clamp, random_inputs, scan_of
from torchplastic.functional import plastic_scan
from torchplastic.ops.plastic_scan.autograd import make_call
from torchplastic.ops.plastic_scan.chunked import algebra
from torchplastic.ops.plastic_scan.spec import Kernel
from torchplastic.rules import RULES

pytest.importorskip("numba", reason="needs the extra fast")
numba_chunked = pytest.importorskip("torchplastic.ops.plastic_scan.numba_cpu.chunked")
scan = pytest.importorskip("torchplastic.ops.plastic_scan.numba_cpu.scan")

pytestmark = pytest.mark.skipif(scan.find_kernels() is None, reason="needs an OpenMP runtime beside PyTorch")
SIZES = [1, 5, 16, 33, 131]
close = torch.testing.assert_close
KERNEL = Kernel(numba_chunked.schedule, numba_chunked.forward, numba_chunked.backward)


def call_of(inputs, needs=(True,) * 6, dtype=torch.float64, **options):
    T, B, N = inputs["drive"].shape
    spec = scan_of(N, B, T, dtype=dtype, **options)
    return make_call(KERNEL, spec, list(inputs.values()), None, needs)


@pytest.fixture(params=[1, 2, 3])
def threads(request, monkeypatch):
    """Use this number of threads, whatever the size of the matrices."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    monkeypatch.setattr(algebra, "SPLIT_FROM", 0)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.thorough
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("N", SIZES)
def test_any_size_shared_by_any_number_of_threads(threads, N, rule, poisoned_buffers):
    for kind in ("free", "steps", "mixed"):
        clamp = random_clamp(kind, 11, 2, N)
        assert_parity(random_inputs(11, 2, N, eta="neuron"), chunked, rule=rule, clamp=clamp, chunk_size=4)


@pytest.fixture
def run():
    """-> a scan of N neurons of that dtype."""

    def of(N, dtype):
        return numba_chunked.Chunked(call_of(random_inputs(1, 1, N, eta="neuron", dtype=dtype), dtype=dtype))

    return of


@pytest.mark.parametrize("rows", [1, 2, 7, 1030])
@pytest.mark.parametrize("N", SIZES)
def test_a_product_of_rows(threads, run, N, rows, generator):
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-4)):
        left, right = (torch.randn(rows, N + 3, generator=generator).to(dtype) for _ in range(2))
        out = torch.full((N, N), torch.nan, dtype=dtype)
        run(N, dtype).product(left, right, out)
        expected = left[:, :N].double().T @ right[:, :N].double()
        close(out.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("N", SIZES)
def test_a_matrix_is_transposed_in_whole_lines(threads, run, N, generator):
    made = run(N, torch.float32)
    matrix, out = torch.randn(N, N, generator=generator), torch.full((N, made.M), torch.nan)
    made.run("transpose", made.kernels.matmul.TRANSPOSE, A=matrix, out=out, n=N, A_width=N, N=N, width=made.M)
    assert out.shape[1] % 16 == 0
    assert torch.equal(out[:, :N], matrix.T)
    assert not out[:, N:].any()


def test_steps_that_hold_a_pattern_are_one_group():
    """A run's first step has the u of a free one; the later ones have the pattern of the clamp."""
    told = [False, True, True, True, True, False, True, True, True, True]
    inputs = random_inputs(len(told), 2, 3, eta="neuron")
    drive = inputs["drive"]
    drive[:] = torch.arange(len(told)).view(-1, 1, 1)
    drive[1:5] = 1
    drive[6:8], drive[8:10] = 6, 8
    options = {"needs": (False,) + (True,) * 5, "clamped_steps": told, "chunk_size": 8}
    call = call_of(inputs, **options)
    assert call.bounds.tolist() == [0, 10]
    group = numba_chunked.groups_of(call)
    assert group.tolist() == [0, 1, 2, 2, 2, 3, 4, 5, 5, 6]
    plan = numba_chunked.chunk_layout(call, group)
    assert (plan.firsts == [0, 1, 2, 5, 6, 7, 9]).all()
    assert plan.groups() == 7
    assert plan.pairs() == [3]
    drive[3, 1, 2] = torch.nan  # NaN equals nothing, itself included
    assert numba_chunked.groups_of(call_of(inputs, **options)).tolist() == [0, 1, 2, 2, 3, 4, 5, 6, 6, 7]
    apart = {**options, "needs": (True,) * 6}  # the drive's gradient needs each step
    assert numba_chunked.groups_of(call_of(inputs, **apart)).tolist() == list(range(len(told)))


def test_steps_that_share_u_are_one_group(generator):
    rows = torch.randn(6, 2, 3, generator=generator)
    groups = algebra.StepGroups([0, 1, 4], 6)
    assert [groups.before(step) for step in (0, 1, 2, 4, 5, 6)] == [0, 1, 2, 2, 3, 3]
    close(groups.sum(rows), torch.stack([rows[0], rows[1:4].sum(0), rows[4:].sum(0)]))
    close(groups.sum(rows[:4], 0), torch.stack([rows[0], rows[1:4].sum(0)]))
    close(groups.sum(rows.transpose(0, 1), 1), groups.sum(rows).transpose(0, 1))
    assert torch.equal(groups.spread(rows[:2], 4), rows[[0, 1, 1, 1]])
    alone = algebra.StepGroups(list(range(6)), 6)
    assert alone.sum(rows) is rows
    assert alone.spread(rows, 6) is rows


@pytest.mark.parametrize("vectors", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tanh_is_that_of_pytorch(dtype, vectors, monkeypatch):
    """Vectors match PyTorch to its last digits, single numbers match the C library."""
    if not vectors:
        at = scan.Scan.at
        monkeypatch.setattr(scan.Scan, "at", lambda run, name: 0 if name == "tanh" else at(run, name))
    N = 37
    values = torch.cat([torch.linspace(-12, 12, N - 3), torch.tensor([0.0, 1e-30, -1e-5])]).to(dtype)
    nothing = torch.zeros(N, N, dtype=dtype)
    y, _ = plastic_scan(values.unsqueeze(0), nothing, nothing, 0.1, impl="recurrent")
    eps = torch.finfo(dtype).eps
    close(y[0], values.tanh(), rtol=2 * eps, atol=0)


# --- records


def test_a_record_is_filled_by_name():
    record = pytest.importorskip("torchplastic.ops.plastic_scan.numba_cpu.record")
    scan = pytest.importorskip("torchplastic.ops.plastic_scan.numba_cpu.scan")
    places = record.fields("x n missing")
    x = torch.zeros(3)
    assert scan.fill(places, n=True, missing=None, x=x).tolist() == [x.data_ptr(), 1, 0]
    for wrong in ({"n": 1, "x": x}, {"n": 1, "x": x, "missing": None, "more": 2}):
        with pytest.raises(TypeError, match="a record has the fields x, n, missing; missing or unknown: m"):
            scan.fill(places, **wrong)
    with pytest.raises(AssertionError):
        scan.fill(places, n=1, missing=None, x=torch.zeros(3, 3).T)


@pytest.mark.parametrize("impl", ["chunked", "recurrent"])
def test_storages_of_inputs_stay_free_to_be_resized(impl):
    """As sharded data parallelism does between passes; a NumPy view would forbid it."""
    inputs = random_inputs(4, 2, 5)
    leaves = [inputs[name].requires_grad_() for name in ("drive", "w", "alpha", "eta")]
    y, state = plastic_scan(*leaves, impl=impl)
    (y.sum() + state.trace.sum()).backward()
    for leaf in leaves:
        storage = leaf.untyped_storage()
        size = storage.nbytes()
        storage.resize_(0)
        storage.resize_(size)


# --- the cache of compiled code


CALL = (
    "import logging, sys, torch, torchplastic as tp; logging.basicConfig(format='%(message)s', level='INFO'); "
    "tp.PlasticRNN(3, 8, impl='recurrent')(torch.zeros(2, 1, 3)); "
    "from torchplastic.ops.plastic_scan.numba_cpu import jit; "
    "print({name: len(jit.TABLE[name][0].overloads) for name in jit.TABLE}, "
    "sum(sum(jit.TABLE[name][0].stats.cache_misses.values()) for name in jit.TABLE))"
)


@pytest.mark.thorough
def test_processes_that_start_at_once_compile_a_kernel_once(tmp_path, run_process):
    environment = {"NUMBA_CACHE_DIR": str(tmp_path)}
    started = [run_process.start([sys.executable, "-c", CALL], env=environment) for _ in range(3)]
    misses = []
    for child in started:
        out, error = child.finish()
        assert child.returncode == 0, error
        misses.append(int(out.split()[-1]))
    assert sorted(misses) == [0, 0, 1]
    (folder,) = (tmp_path / "torchplastic-kernels").iterdir()
    assert len(list(folder.rglob("*recurrent_kernels.forward*.nbc"))) == 1


@pytest.mark.thorough
def test_only_what_runs_is_compiled(tmp_path, run_process):
    out = run_process([sys.executable, "-c", CALL], env={"NUMBA_CACHE_DIR": str(tmp_path)}).out
    compiled = {name for name, overloads in ast.literal_eval(out[: out.rindex("}") + 1]).items() if overloads}
    assert compiled == {"recurrent_forward"}


@pytest.mark.thorough
@pytest.mark.parametrize("home", ["a file", "nothing"])
def test_where_no_folder_can_be_written_it_compiles_in_memory(home, tmp_path, run_process):
    """A file in the place of the cache is what a read-only home is, for root too."""
    place = tmp_path / "home"
    if home == "a file":
        place.touch()
    environment = {
        "NUMBA_CACHE_DIR": None,
        "XDG_CACHE_HOME": str(place / "cache") if home == "a file" else "/proc/none",
    }
    out = run_process([sys.executable, "-c", CALL], env=environment).out
    assert "'recurrent_forward': 1" in out
    assert not place.is_dir()


def test_a_change_of_a_source_names_another_folder(tmp_path, monkeypatch):
    cache = pytest.importorskip("torchplastic.ops.plastic_scan.numba_cpu.cache")
    before = cache.digest.__wrapped__()
    for file in Path(cache.__file__).parent.glob("*.py"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "cache.py"))
    assert cache.digest.__wrapped__() == before
    (tmp_path / "simd.py").write_text("changed")
    assert cache.digest.__wrapped__() != before


def test_folders_of_old_sources_do_not_pile_up(tmp_path, monkeypatch):
    cache = pytest.importorskip("torchplastic.ops.plastic_scan.numba_cpu.cache")
    monkeypatch.setattr(cache.config, "CACHE_DIR", str(tmp_path))
    parent = tmp_path / "torchplastic-kernels"
    for age in range(9):
        (parent / f"{age:016x}").mkdir(parents=True)
        os.utime(parent / f"{age:016x}", (age, age))
    (parent / "of another program").mkdir()
    made = cache.folder.__wrapped__()
    assert made.name == cache.digest()
    assert {path.name for path in parent.iterdir()} == {
        made.name, "of another program", *(f"{age:016x}" for age in range(9 - cache.KEPT + 1, 9))
    }  # fmt: skip
