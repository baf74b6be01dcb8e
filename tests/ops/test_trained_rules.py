"""A rule's own trained tensors get gradients from every implementation that runs it, or an error names one."""

from functools import partial

import pytest
import torch
from torch import nn

import torchplastic as tp
from tests.ops.parity import chunked, evaluate, random_inputs
from torchplastic.functional import plastic_linear, plastic_scan
from torchplastic.ops.plastic_scan import dispatch

N = 5


def update(theta, H, u, v, eta):
    """A covariance rule whose threshold theta `[N]` is trained."""
    return (1 - eta) * H + eta * u.unsqueeze(-1) * (v - theta).unsqueeze(-2)


def linear(theta, v, eta):
    return 1 - eta, eta * (v - theta)


def vjp(v, eta, gd, gs):
    """Of `linear` with theta 0.3."""
    return eta * gs, (v - 0.3) * gs - (0 if gd is None else gd)


class Covariance(nn.Module):
    def __init__(self, theta):
        super().__init__()
        self.theta = theta

    def update(self, *args):
        return update(self.theta, *args)

    def linear(self, *args):
        return linear(self.theta, *args)

    forward = update


class Called:
    """A callable object, like a module."""

    def __init__(self, function, theta):
        self.function, self.theta = function, theta

    def __call__(self, *args):
        return self.function(self.theta, *args)


def methods(theta):
    module = Covariance(theta)
    return tp.Rule(module.update, module.linear)


RULES = {
    "closure": lambda theta: tp.Rule(lambda *args: update(theta, *args), lambda *args: linear(theta, *args)),
    "methods of a module": methods,
    "module": lambda theta: tp.Rule(Covariance(theta), partial(linear, theta)),
    "partial": lambda theta: tp.Rule(partial(update, theta), partial(linear, theta)),
    "called objects": lambda theta: tp.Rule(Called(update, theta), Called(linear, theta)),
    "with vjp": lambda theta: tp.Rule(partial(update, theta), partial(linear, theta), vjp),
    "of another tensor": lambda theta: tp.Rule(partial(update, 1 * theta), partial(linear, 1 * theta)),
    "update alone": lambda theta: tp.Rule(partial(update, theta), partial(linear, theta.detach())),
    "not linear": lambda theta: tp.Rule(lambda *args: update(theta, *args).clamp(-1, 1)),
}
LINEAR = [name for name in RULES if name != "not linear"]


def threshold(**options):
    return nn.Parameter(torch.full((N,), 0.3, dtype=torch.float64), **options)


def gradients(make, scan, eta="scalar"):
    """Gradients of theta and of the inputs, and the outputs of the scan."""
    theta = threshold()
    results = evaluate(scan, random_inputs(7, 2, N, eta=eta), rule=make(theta))
    return {"gradient of theta": theta.grad, **results}


@pytest.fixture
def never_the_reference(monkeypatch):
    others = [backend for backend in dispatch.BACKENDS if backend.impl != "reference"]
    monkeypatch.setattr(dispatch, "BACKENDS", others)


@pytest.mark.parametrize("eta", ["number", "neuron"])
@pytest.mark.parametrize("name", RULES)
def test_auto_gives_the_gradient_of_the_reference(name, eta):
    expected = gradients(RULES[name], partial(plastic_scan, impl="reference"), eta)
    assert (expected["gradient of theta"].abs() > 1e-3).all()
    for part, got in gradients(RULES[name], plastic_scan, eta).items():
        torch.testing.assert_close(got, expected[part], rtol=1e-9, atol=1e-14, msg=part)


@pytest.mark.parametrize("frozen", ["w", "drive", "alpha", "eta", "hidden", "trace"])
def test_the_gradient_comes_whatever_else_is_frozen(frozen):
    theta = threshold()
    names = {"w", "drive", "alpha", "eta", "hidden", "trace"} - {frozen}
    evaluate(plastic_scan, random_inputs(7, 2, N), rule=RULES["partial"](theta), grads=names)
    assert (theta.grad.abs() > 1e-3).all()


def test_the_gradient_comes_where_nothing_else_is_trained():
    theta = threshold()
    evaluate(plastic_scan, random_inputs(7, 2, N), rule=RULES["partial"](theta), grads=())
    assert (theta.grad.abs() > 1e-3).all()


@pytest.mark.parametrize("name", LINEAR)
def test_chunked_refuses_a_rule_that_is_trained(name):
    with pytest.raises(ValueError, match=r'require a gradient, and it computes none .* Use impl="auto"'):
        gradients(RULES[name], chunked)


def test_tensors_of_linear_alone_are_refused():
    def make(theta):
        return tp.Rule(partial(update, theta.detach()), partial(linear, theta))

    for scan in (plastic_scan, chunked):
        with pytest.raises(ValueError, match="Use the same tensors in both"):
            gradients(make, scan)


@pytest.mark.usefixtures("never_the_reference")
@pytest.mark.parametrize("impl", ["auto", "chunked"])
@pytest.mark.parametrize("name", LINEAR)
def test_a_frozen_rule_runs_chunked(name, impl):
    evaluate(partial(plastic_scan, impl=impl), random_inputs(7, 2, N), rule=RULES[name](threshold(requires_grad=False)))


@pytest.mark.usefixtures("never_the_reference")
@pytest.mark.parametrize("impl", ["auto", "chunked"])
def test_without_gradients_a_trained_rule_runs_chunked(impl):
    with torch.no_grad():
        evaluate(partial(plastic_scan, impl=impl), random_inputs(7, 2, N), rule=RULES["partial"](threshold()), grads=())


def test_looking_at_a_rule_changes_no_state():
    """Also if the rule works in place."""

    def in_place(H, u, v, eta):
        return H.mul_(1 - eta).add_(eta * u.unsqueeze(-1) * v.unsqueeze(-2))

    inputs = random_inputs(3, 2, N)
    trace = inputs["trace"].clone()
    state = tp.PlasticState(inputs["hidden"], inputs["trace"])
    plastic_scan(inputs["drive"], inputs["w"], inputs["alpha"], 0.3, state, rule=tp.Rule(in_place, partial(linear, 0)))
    assert torch.equal(inputs["trace"], trace)


@pytest.mark.parametrize("Layer", [tp.PlasticRNN, tp.PlasticLinear])
def test_layers_train_their_rule(Layer, generator):
    theta = threshold()
    layer = Layer(3, N, rule=RULES["partial"](theta), dtype=torch.float64)
    y, _ = layer(torch.randn(6, 2, 3, generator=generator, dtype=torch.float64))
    y.square().sum().backward()
    assert (theta.grad.abs() > 0).all()


def test_the_feed_forward_operation_trains_its_rule(generator):
    x, w, alpha = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((4, 2, 3), (3, N), (3, N))
    )

    def run(theta):
        return plastic_linear(x, w, alpha, 0.3, rule=RULES["closure"](theta))[0]

    assert torch.autograd.gradcheck(run, threshold())


@pytest.mark.parametrize("impl", ["auto", "chunked", "reference"])
def test_a_stepper_runs_a_trained_rule(impl, generator):
    layer = tp.PlasticRNN(3, N, rule=RULES["partial"](threshold()), impl=impl, dtype=torch.float64)
    x = torch.randn(4, 2, 3, generator=generator, dtype=torch.float64)
    step = layer.stepper(2)
    with torch.no_grad():
        y, _ = layer(x)
    torch.testing.assert_close(torch.stack([step(now) for now in x]), y)
