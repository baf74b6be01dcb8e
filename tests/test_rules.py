"""The rules against their closed forms, and their fast halves against their equations."""

import pytest
import torch

import torchplastic as tp
from tests.closed_forms import TRACES, away_from_zero
from torchplastic.rules import get_rule

B, I, N = 3, 4, 5


@pytest.mark.parametrize("name", TRACES)
@pytest.mark.parametrize("T", [1, 2, 17])
def test_update_reaches_the_closed_form(name, T, generator):
    u, v = away_from_zero(B, I, generator=generator), away_from_zero(B, N, generator=generator)
    eta = torch.tensor(0.13, dtype=torch.float64)
    H = torch.zeros(B, I, N, dtype=torch.float64)
    for _ in range(T):
        H = tp.RULES[name].update(H, u, v, eta)
    torch.testing.assert_close(H, TRACES[name][0](u, v, eta, T), rtol=1e-13, atol=0)


@pytest.mark.parametrize("name", tp.RULES)
@pytest.mark.parametrize("per_neuron", [False, True])
def test_linear_form_is_the_update(name, per_neuron, generator):
    rule = tp.RULES[name]
    H = torch.randn(B, I, N, generator=generator, dtype=torch.float64)
    u = torch.randn(B, I, generator=generator, dtype=torch.float64)
    v = torch.randn(B, N, generator=generator, dtype=torch.float64)
    eta = torch.rand((N,) if per_neuron else (), generator=generator, dtype=torch.float64)
    d, s = rule.linear(v, eta)
    assert s.shape == v.shape
    assert d.shape in {v.shape, eta.shape}
    linear = d.expand(B, N).unsqueeze(1) * H + u.unsqueeze(-1) * s.unsqueeze(-2)
    torch.testing.assert_close(linear, rule.update(H, u, v, eta), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", tp.RULES)
@pytest.mark.parametrize("per_neuron", [False, True])
def test_vjp_is_the_derivative_of_linear(name, per_neuron, generator):
    rule = tp.RULES[name]
    v, gd, gs = torch.randn(3, B, N, generator=generator, dtype=torch.float64).unbind()
    eta = torch.rand((N,) if per_neuron else (), generator=generator, dtype=torch.float64)
    leaves = v.clone().requires_grad_(), eta.expand(B, N).clone().requires_grad_()
    d, s = rule.linear(*leaves)
    expected = torch.autograd.grad([d, s], leaves, [gd, gs])
    for got, want in zip(rule.vjp(v, eta, gd, gs), expected, strict=True):
        torch.testing.assert_close(got.expand(B, N), want, rtol=1e-13, atol=1e-15)


def test_hebb_without_gd_takes_it_as_zeros(generator):
    v, gs = torch.randn(2, B, N, generator=generator, dtype=torch.float64).unbind()
    eta = torch.tensor(0.3, dtype=torch.float64)
    with_zeros = tp.RULES["hebb"].vjp(v, eta, torch.zeros_like(v), gs)
    for got, want in zip(tp.RULES["hebb"].vjp(v, eta, None, gs), with_zeros, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_oja_finds_the_first_principal_component(generator):
    """Oja (1982): a linear neuron under the rule ends at the leading eigenvector of the input, of length one."""
    axes, _ = torch.linalg.qr(torch.randn(I, I, generator=generator, dtype=torch.float64))
    spread = torch.tensor([2.0, 0.7, 0.5, 0.3], dtype=torch.float64)
    inputs = torch.randn(3000, I, generator=generator, dtype=torch.float64) * spread @ axes.T
    H = 0.1 * torch.ones(1, I, 1, dtype=torch.float64)
    for u in inputs.split(1):
        H = tp.RULES["oja"].update(H, u, u @ H[0], 0.003)
    found = H[0, :, 0]
    assert found.norm() == pytest.approx(1, abs=0.05)
    assert abs(found @ axes[:, 0]) > 0.99


def test_hebb_is_a_running_mean_and_stays_bounded(generator):
    H = torch.zeros(1, I, N, dtype=torch.float64)
    for _ in range(200):
        u, v = away_from_zero(1, I, generator=generator), away_from_zero(1, N, generator=generator)
        H = tp.RULES["hebb"].update(H, u, v, 0.5)
        assert H.abs().max() <= 1


def test_get_rule_takes_a_name_or_a_rule():
    own = tp.Rule(lambda H, u, v, eta: H)
    assert get_rule(own) is own
    assert get_rule("oja") is tp.RULES["oja"]
    assert own.linear is None
    assert own.vjp is None
