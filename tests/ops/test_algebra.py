"""The products and decays of the chunked implementation against their definitions."""

from dataclasses import replace

import pytest
import torch

import torchplastic as tp
from torchplastic.ops.plastic_scan.chunked import algebra


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("rows", [1, 3, algebra.FEW_ROWS, algebra.FEW_ROWS + 1])
def test_few_rows(threads, rows, two_threads, generator):
    torch.set_num_threads(threads)
    M = torch.randn(310, 422, generator=generator, dtype=torch.float64)
    U = torch.randn(rows, 310, generator=generator, dtype=torch.float64)
    V = torch.randn(rows, 422, generator=generator, dtype=torch.float64)
    product = algebra.FewRows(M)
    assert (product.blocks is None) == (threads == 1 or 310 % threads > 0)
    torch.testing.assert_close(product.times(U), U @ M, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(product.times_transposed(V), V @ M.T, rtol=1e-12, atol=1e-12)


def test_padded_rows_split_evenly(two_threads):
    like = torch.empty(0)
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        for N in (299, 300, 301):
            rows = algebra.padded_width(N, like)
            assert rows % threads == 0
            assert N <= rows < N + threads
    assert algebra.padded_width(5, like) == 5  # too small to be worth two cores


def test_products_of_the_decay(generator):
    d = torch.randn(5, 2, 3, generator=generator, dtype=torch.float64)
    d[2, 0, 0] = 0
    before, after, between = algebra.products_before(d), algebra.products_after(d), algebra.products_between(d)
    for k in range(6):
        torch.testing.assert_close(before[k], d[:k].prod(0))
    for k in range(5):
        torch.testing.assert_close(after[k], d[k + 1 :].prod(0))
        for earlier in range(5):
            expected = d[earlier + 1 : k].prod(0) if earlier < k else torch.zeros(2, 3, dtype=torch.float64)
            torch.testing.assert_close(between[k, earlier], expected)


@pytest.mark.parametrize("B", [1, 3])
def test_rows_times_one_matrix_per_example(B, generator):
    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    U, V, M = normal(4, B, 5), normal(4, B, 6), normal(B, 5, 6)
    torch.testing.assert_close(algebra.times(U, M), torch.einsum("nbi,bij->nbj", U, M))
    torch.testing.assert_close(algebra.times_transposed(V, M), torch.einsum("nbj,bij->nbi", V, M))
    outer = torch.einsum("nbi,nbj->bij", U, V)
    torch.testing.assert_close(algebra.add_outer(M.clone(), U, V), M + outer)
    torch.testing.assert_close(algebra.add_outer(M.clone(), U, V, beta=0), outer)


@pytest.mark.parametrize("B", [1, 2])
def test_pair_products_are_gathered_past_a_full_buffer(B, generator):
    alpha = torch.zeros(4, 4, dtype=torch.float64)
    steps = 2 * algebra.PAIR_ROWS // (11 * B) + 5
    left, right = torch.randn(2, steps, 11, B, 4, generator=generator, dtype=torch.float64)
    gradient = algebra.AlphaGradient(alpha, B, 11)
    for k in range(steps):
        gradient.add_pairs(left[k], right[k])
        gradient.keep_pairs(True)
    torch.testing.assert_close(gradient.result(), torch.einsum("knbi,knbj->ij", left, right))


@pytest.mark.parametrize("name", tp.RULES)
@pytest.mark.parametrize("with_gd", [False, True])
def test_autograd_serves_where_a_rule_has_no_vjp(name, with_gd, generator):
    rule = tp.RULES[name]
    v, gd, gs = torch.randn(3, 2, 4, generator=generator, dtype=torch.float64).unbind()
    gd = gd if with_gd else torch.zeros_like(gd)
    eta = torch.tensor(0.3, dtype=torch.float64)
    expected = rule.vjp(v, eta, gd, gs)
    found = algebra.vjp(replace(rule, vjp=None), v, eta, gd if with_gd else None, gs)
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got, want.expand(2, 4), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("steps", [[], [2], [1, 2, 3], [0, 2, 3, 5]], ids=str)
def test_rows_by_slices_are_rows_by_index(steps, generator):
    rows, more = (torch.randn(n, 2, 3, generator=generator) for n in (6, len(steps)))
    assert torch.equal(algebra.take(rows, steps), rows[steps])
    expected = rows.index_add(0, torch.tensor(steps, dtype=torch.int64), more)
    algebra.add_to(rows, steps, more)
    assert torch.equal(rows, expected)
