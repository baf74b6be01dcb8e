"""The compiled kernels beyond the tests of plastic_scan: odd sizes shared by threads, single products."""

import numpy as np
import pytest
import torch

from tests.ops.parity import assert_parity, chunked, random_clamp, random_inputs
from torchplastic.functional import plastic_scan
from torchplastic.ops.plastic_scan.chunked import algebra
from torchplastic.ops.plastic_scan.numba_cpu import chunked as numba_chunked
from torchplastic.ops.plastic_scan.numba_cpu import recurrent as stepwise
from torchplastic.ops.plastic_scan.schedule import cut
from torchplastic.ops.plastic_scan.chunked.forward import ChunkedSpec
from torchplastic.rules import HEBB, RULES

pytest.importorskip("numba", reason="needs the extra fast")

pytestmark = pytest.mark.skipif(numba_chunked.find_kernels() is None, reason="needs an OpenMP runtime beside PyTorch")
SIZES = [1, 5, 16, 33, 131]
close = torch.testing.assert_close
at = stepwise.NumbaRecurrent.at


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
    """-> a Run for N neurons of that dtype."""

    def of(N, dtype):
        w = torch.zeros(N, N, dtype=dtype)
        return numba_chunked.NumbaChunked(ChunkedSpec(HEBB, None, "tanh", []), w, w, w.new_zeros(N), 1)

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
    made.kernels.matmul.transpose(made.at("transpose"), matrix.numpy(), out.numpy(), threads)
    assert out.shape[1] % 16 == 0
    assert torch.equal(out[:, :N], matrix.T)
    assert not out[:, N:].any()


def test_steps_that_hold_a_pattern_are_one_group():
    """A run's first step has the u of a free one; the later ones have the pattern of the clamp."""
    told = [False, True, True, True, True, False, True, True, True, True]
    drive = torch.arange(len(told)).float().view(-1, 1, 1).repeat(1, 2, 3)
    drive[1:5] = 1
    drive[6:8], drive[8:10] = 6, 8
    chunks = cut(told, 8)
    assert len(chunks) == 1
    group = numba_chunked.groups_of(chunks, drive, merge=True)
    assert group.tolist() == [0, 1, 2, 2, 2, 3, 4, 5, 5, 6]
    plan = numba_chunked.chunk_layout(chunks, group)
    assert (plan.firsts == [0, 1, 2, 5, 6, 7, 9]).all()
    assert plan.groups() == 7
    assert plan.pairs() == [3]
    drive[3, 1, 2] = torch.nan  # NaN equals nothing, itself included
    assert numba_chunked.groups_of(chunks, drive, merge=True).tolist() == [0, 1, 2, 2, 3, 4, 5, 6, 6, 7]
    assert (numba_chunked.groups_of(chunks, drive, merge=False) == np.arange(len(told))).all()


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
def test_tanh_of_the_stepwise_form_is_that_of_pytorch(dtype, vectors, monkeypatch):
    """Vectors match PyTorch to its last digits, single numbers match the C library."""
    if not vectors:
        monkeypatch.setattr(stepwise.NumbaRecurrent, "at", lambda run, name: 0 if name == "tanh" else at(run, name))
    N = 37
    values = torch.cat([torch.linspace(-12, 12, N - 3), torch.tensor([0.0, 1e-30, -1e-5])]).to(dtype)
    nothing = torch.zeros(N, N, dtype=dtype)
    y, _ = plastic_scan(values.unsqueeze(0), nothing, nothing, 0.1, impl="stepwise")
    eps = torch.finfo(dtype).eps
    close(y[0], values.tanh(), rtol=2 * eps, atol=0)
