"""The feed-forward layer as a function: closed forms, an independent formula, batches, time."""

import math

import pytest
import torch
from torch.nn import functional

import torchplastic as tp
from tests.closed_forms import TRACES, away_from_zero
from torchplastic.functional import plastic_linear
from torchplastic.ops.nonlinearity import ACTIVATIONS

T, B, I, J = 6, 3, 4, 5
ALPHAS = {"full": (I, J), "neuron": (J,), "shared": (), "none": None}


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def alpha_of(kind):
    return None if ALPHAS[kind] is None else normal(*ALPHAS[kind], seed=2)


@pytest.mark.parametrize("rule", TRACES)
def test_a_constant_input_is_written_into_the_trace(rule, generator):
    x = away_from_zero(B, I, generator=generator)
    v = away_from_zero(B, J, generator=generator)
    eta = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    # w and alpha are zero, so the output at every step is the drive v
    zeros = torch.zeros(I, J, dtype=torch.float64)
    y, state = plastic_linear(
        x.expand(T, B, I), zeros, zeros, eta, rule=rule, drive=v.expand(T, B, J), activation="identity"
    )
    closed, by_eta = TRACES[rule]
    torch.testing.assert_close(y, v.expand(T, B, J))
    torch.testing.assert_close(state.hidden, v)
    torch.testing.assert_close(state.trace, closed(x, v, eta, T), rtol=1e-13, atol=0)
    (gradient,) = torch.autograd.grad(state.trace.sum(), eta)
    torch.testing.assert_close(gradient, by_eta(x, v, eta, T).sum(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_without_plasticity_it_is_a_linear_layer(activation):
    x, w, drive = normal(T, B, I), normal(I, J, seed=1), normal(T, B, J, seed=3)
    y, state = plastic_linear(x, w, None, None, drive=drive, activation=activation)
    a = functional.linear(x, w.T) + drive
    expected = {
        "softmax": functional.softmax(a, dim=-1),
        "tanh": a.tanh(),
        "relu": a.relu(),
        "sigmoid": a.sigmoid(),
        "identity": a,
    }[activation]
    torch.testing.assert_close(y, expected, rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(state.hidden, expected[-1], rtol=1e-13, atol=1e-15)
    assert state.trace is None


def test_softmax_is_over_the_outputs():
    y, _ = plastic_linear(normal(T, B, I), normal(I, J, seed=1), alpha_of("full"), 0.1)
    torch.testing.assert_close(y.sum(-1), torch.ones(T, B, dtype=torch.float64))


def test_one_shot_recall():
    """A class bit drives its output while an example is shown; the trace then recalls the class from the example."""
    patterns = torch.eye(I, dtype=torch.float64)[:3]
    labels = torch.tensor([4, 0, 2])
    teacher = 1000 * functional.one_hot(labels, J).double()
    w, alpha = torch.zeros(I, J, dtype=torch.float64), torch.full((), 100.0, dtype=torch.float64)
    _, state = plastic_linear(patterns, w, alpha, 0.5, rule="hebb", drive=teacher)
    for pattern, label in zip(patterns, labels, strict=True):
        y, _ = plastic_linear(pattern.unsqueeze(0), w, alpha, 0.5, state, rule="hebb")
        assert y[0].argmax() == label
        assert y[0, label] > 0.99


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("rule", tp.RULES)
def test_a_batch_is_its_examples_and_time_can_be_cut(rule, alpha):
    x, w, drive, a = normal(T, B, I), normal(I, J, seed=1), normal(T, B, J, seed=3), alpha_of(alpha)
    eta = torch.tensor(0.3, dtype=torch.float64)
    y, state = plastic_linear(x, w, a, eta, rule=rule, drive=drive)

    middle, carried = plastic_linear(x[:2], w, a, eta, rule=rule, drive=drive[:2])
    rest, final = plastic_linear(x[2:], w, a, eta, carried, rule=rule, drive=drive[2:])
    torch.testing.assert_close(torch.cat((middle, rest)), y, rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(final, state, rtol=1e-13, atol=1e-15)

    for b in range(B):
        single, single_state = plastic_linear(x[:, b], w, a, eta, rule=rule, drive=drive[:, b])
        assert single.shape == (T, J)
        torch.testing.assert_close(single, y[:, b], rtol=1e-13, atol=1e-15)
        torch.testing.assert_close(single_state.hidden, state.hidden[b], rtol=1e-13, atol=1e-15)
        if a is not None:
            assert single_state.trace.shape == (I, J)
            torch.testing.assert_close(single_state.trace, state.trace[b], rtol=1e-13, atol=1e-15)


def test_gradients():
    x, w, alpha = normal(3, 2, I).requires_grad_(), normal(I, J, seed=1).requires_grad_(), alpha_of("full")
    eta = torch.full((J,), 0.3, dtype=torch.float64, requires_grad=True)
    start = normal(2, I, J, seed=4).requires_grad_()
    hidden = torch.zeros(2, J, dtype=torch.float64)
    for rule in tp.RULES:

        def layer(x, w, alpha, eta, trace, rule=rule):
            y, state = plastic_linear(x, w, alpha, eta, tp.PlasticState(hidden, trace), rule=rule)
            return y, *state[:2]

        assert torch.autograd.gradcheck(layer, (x, w, alpha.requires_grad_(), eta, start))


@pytest.mark.parametrize("alpha", ALPHAS)
def test_autocast_leaves_the_layer_in_single_precision(alpha):
    x, w = normal(T, B, I).float(), normal(I, J, seed=1).float()
    a = None if alpha == "none" else alpha_of(alpha).float()
    with torch.autocast("cpu", torch.bfloat16):
        y, state = plastic_linear(x.bfloat16(), w, a, 0.1)
    assert y.dtype == torch.float32
    assert all(part.dtype == torch.float32 for part in state if part is not None)
    expected, _ = plastic_linear(x.bfloat16().float(), w, a, 0.1)
    assert torch.equal(y, expected)


def test_own_rules_need_no_linear_form():
    """The rule normalises the whole trace to one, which no linear rule can."""
    rule = tp.Rule(lambda H, u, v, eta: functional.normalize(H + eta * u.unsqueeze(-1) * v.unsqueeze(-2), dim=(-2, -1)))
    _, state = plastic_linear(normal(T, B, I), normal(I, J, seed=1), alpha_of("full"), 0.5, rule=rule)
    for trace in state.trace:
        assert math.isclose(trace.norm(), 1, rel_tol=1e-12)
