"""The compiled kernels against einsum: odd sizes, several threads, float32 and float64."""

from itertools import pairwise

import pytest
import torch

from torchplastic.functional import plastic_scan
from torchplastic.ops.plastic_scan import algebra, stepwise
from torchplastic.ops.plastic_scan.chunks import Chunk
from torchplastic.rules import HEBB, OJA

pytest.importorskip("numba", reason="needs the extra fast")
from torchplastic.ops.plastic_scan.compiled import Backward, Compiled, Forward, find_kernels

pytestmark = pytest.mark.skipif(find_kernels() is None, reason="needs an OpenMP runtime beside PyTorch")
SIZES = [1, 5, 16, 33, 131]
close = torch.testing.assert_close
at = stepwise.Run.at


@pytest.fixture(params=[(torch.float64, 1), (torch.float64, 2), (torch.float64, 3), (torch.float32, 2)], ids=str)
def make(request, generator):
    """-> Compiled and random tensors for N neurons and B examples, whatever N shared by that many threads."""
    dtype, threads = request.param

    def of(N, B):
        def normal(*shape):
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

        w, alpha = normal(N, N), normal(N, N)
        compiled = Compiled(HEBB, "tanh", None, w, alpha, torch.tensor(0.1, dtype=dtype), B)
        compiled.threads = threads
        return compiled, normal, alpha

    return of


@pytest.mark.parametrize("N", SIZES)
def test_a_matrix_is_laid_out_in_whole_lines(make, N):
    compiled, normal, alpha = make(N, 2)
    H = normal(2, N, N)
    compiled.load(H, zero=False)
    for got, expected in (
        (compiled.transposed_alpha(), alpha.T),
        (compiled.alpha_in_lines(), alpha),
        (compiled.P, alpha * H),
    ):
        got = torch.from_numpy(got)
        assert got.shape[-1] % 16 == 0
        assert torch.equal(got[..., :N], expected)
        assert not got[..., N:].any()


@pytest.mark.parametrize("rows", [1, 2, 7, 1030])
@pytest.mark.parametrize("N", SIZES)
def test_a_product_of_rows(make, N, rows):
    compiled, normal, _ = make(N, 1)
    left, right, out = normal(rows, N), normal(rows, N + 3), normal(N, N)
    expected = left.double().T @ right[:, :N].double()
    for fresh in (False, True):
        got = compiled.add_product(left, right, out.clone(), fresh)
        close(got.double(), expected + (0 if fresh else out), rtol=1e-4, atol=1e-4)
        if out.dtype == torch.float64:
            close(got, expected + (0 if fresh else out), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 6, 70])
@pytest.mark.parametrize("N", SIZES)
def test_products_with_the_adjoint(make, N, steps):
    compiled, normal, _ = make(N, 2)
    G, H, U, E = normal(2, N, N), normal(2, N, N), normal(steps, 2, N), normal(steps + 1, 2, N)
    uG, eG, Q = compiled.through_the_end(G, H, U, E)
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if G.dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}
    close(uG, torch.einsum("nbi,bij->nbj", U, G), **tolerance)
    close(eG, torch.einsum("nbj,bij->nbi", E, G), **tolerance)
    close(Q, (G * H).sum(1), **tolerance)
    assert compiled.through_the_end(G, None, None, None) == (None, None, None)


@pytest.mark.parametrize("rule", [HEBB, OJA])
@pytest.mark.parametrize("free", [(0,), (0, 1, 2, 3), (0, 1, 5, 6)], ids=str)
@pytest.mark.parametrize("N", SIZES)
def test_the_trace_and_its_adjoint(make, N, free, rule):
    """Step by step: `H' = d * H + u (x) s`; back, `dalpha += H * (u (x) eps)`, `G = d * G + alpha * (u (x) eps)`."""
    compiled, normal, alpha = make(N, 2)
    compiled.rule = int(rule is OJA)
    steps, held = free[-1] + 3, [k for k in range(free[-1] + 3) if k not in free]
    chunk = Chunk(1, 1 + steps, free)
    groups = algebra.Groups([k for k in range(steps) if k not in held or k - 1 not in held], steps)
    x, delta = torch.zeros(steps + 2, 2, compiled.width).to(alpha), torch.zeros(steps + 1, 2, compiled.width).to(alpha)
    x[..., :N] = normal(steps + 2, 2, N)
    delta[[1 + k for k in free], :, :N] = normal(len(free), 2, N)
    for first, last in pairwise((*groups.first, steps)):
        x[1 + first : 1 + last] = x[1 + first]
    H, G, dalpha = normal(2, N, N), normal(2, N, N), normal(N, N)
    forward = Forward(compiled, normal(steps + 1, 2, N), x)
    backward = Backward(compiled, x, normal(steps + 2, 2, N), delta, steps)
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if H.dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}

    def step_by_step(H):
        traces = [H]
        for t in range(1, 1 + steps):
            d, s = rule.linear(x[t + 1, :, None, :N], torch.from_numpy(compiled.eta))
            traces.append(d * traces[-1] + x[t, :, :N, None] * s)
        return traces

    for given in (H, torch.zeros_like(H)):
        traces = step_by_step(given)
        zero = given is not H
        close(forward.next_trace(given, chunk, groups, torch.empty_like(H), zero), traces[-1], **tolerance)
        for after in (G, None):
            expected, sums = torch.zeros_like(G) if after is None else after, dalpha.clone()
            for t in range(steps, 0, -1):
                M = x[t, :, :N, None] * delta[t, :, None, :N]
                sums += (traces[t - 1] * M).sum(0)
                d, _ = rule.linear(x[t + 1, :, None, :N], torch.from_numpy(compiled.eta))
                expected = d * expected + alpha * M
            trace, end, got = None if zero else given, None if after is None else after.clone(), dalpha.clone()
            close(backward.through_the_trace(trace, chunk, groups, end, True, got), expected, **tolerance)
            close(got, sums, **tolerance)
            got = dalpha.clone()
            assert backward.through_the_trace(trace, chunk, groups, after, False, got) is after
            close(got, sums, **tolerance)
            assert backward.through_the_trace(trace, chunk, groups, after, False, None) is after


def test_steps_that_share_u_are_one_group(generator):
    rows = torch.randn(6, 2, 3, generator=generator)
    groups = algebra.Groups([0, 1, 4], 6)
    assert [groups.before(step) for step in (0, 1, 2, 4, 5, 6)] == [0, 1, 2, 2, 3, 3]
    close(groups.sum(rows), torch.stack([rows[0], rows[1:4].sum(0), rows[4:].sum(0)]))
    close(groups.sum(rows[:4], 0), torch.stack([rows[0], rows[1:4].sum(0)]))
    close(groups.sum(rows.transpose(0, 1), 1), groups.sum(rows).transpose(0, 1))
    assert torch.equal(groups.spread(rows[:2], 4), rows[[0, 1, 1, 1]])
    alone = algebra.Groups(list(range(6)), 6)
    assert alone.sum(rows) is rows
    assert alone.spread(rows, 6) is rows


@pytest.mark.parametrize("vectors", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tanh_of_the_stepwise_form_is_that_of_pytorch(dtype, vectors, monkeypatch):
    """By vectors to the last digits that PyTorch has, by numbers to those of the C library."""
    if not vectors:
        monkeypatch.setattr(stepwise.Run, "at", lambda run, name: 0 if name == "tanh" else at(run, name))
    N = 37
    values = torch.cat([torch.linspace(-12, 12, N - 3), torch.tensor([0.0, 1e-30, -1e-5])]).to(dtype)
    nothing = torch.zeros(N, N, dtype=dtype)
    y, _ = plastic_scan(values.unsqueeze(0), nothing, nothing, 0.1, impl="stepwise")
    eps = torch.finfo(dtype).eps
    close(y[0], values.tanh(), rtol=2 * eps, atol=0)
