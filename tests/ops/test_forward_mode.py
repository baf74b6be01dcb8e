"""Forward-mode differentiation: right, or an error that names the way out; a tangent is never dropped."""

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

import torchplastic as tp
from torchplastic.functional import impls, plastic_scan

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")  # torch's own, on first use


def tangent(f, x, v):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(f(forward_ad.make_dual(x, v))).tangent


def difference(f, x, v, step=1e-6):
    """The directional derivative by central differences."""
    return (f(x + step * v) - f(x - step * v)) / (2 * step)


def layers(alpha):
    yield tp.PlasticRNN(3, 5, alpha=alpha, dtype=torch.float64)
    yield tp.PlasticLinear(3, 5, alpha=alpha, dtype=torch.float64)


@pytest.mark.parametrize("alpha", ["full", "neuron", "shared", "none"])
@pytest.mark.parametrize("kind", ["trained", "frozen", "no_grad"])
def test_the_tangent_of_the_input_is_the_derivative(alpha, kind):
    torch.manual_seed(0)
    x, v = torch.randn(2, 7, 2, 3, dtype=torch.float64)
    for layer in layers(alpha):
        layer.requires_grad_(kind != "frozen")
        with torch.set_grad_enabled(kind != "no_grad"):
            found = tangent(lambda x, layer=layer: layer(x)[0], x, v)
        torch.testing.assert_close(found, difference(lambda x, layer=layer: layer(x)[0], x, v), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["w", "alpha", "eta", "hidden", "trace"])
def test_the_tangent_of_any_argument(name):
    torch.manual_seed(0)
    shapes = {"drive": (6, 2, 5), "w": (5, 5), "alpha": (5, 5), "eta": (5,), "hidden": (2, 5), "trace": (2, 5, 5)}
    given = {key: 0.3 * torch.rand(shape, dtype=torch.float64) for key, shape in shapes.items()}

    def f(value):
        at = given | {name: value}
        state = tp.PlasticState(at.pop("hidden"), at.pop("trace"))
        y, state = plastic_scan(**at, state=state)
        return torch.cat([y.flatten(), state.trace.flatten()])

    v = torch.randn(shapes[name], dtype=torch.float64)
    found = tangent(f, given[name], v)
    torch.testing.assert_close(found, difference(f, given[name], v), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("impl", [name for name in impls() if name not in ("auto", "reference")])
def test_a_named_implementation_refuses(impl):
    layer = tp.PlasticRNN(3, 5, impl=impl)
    x, v = torch.randn(2, 4, 1, 3)
    with pytest.raises(ValueError, match=f'impl="{impl}" has no forward-mode derivative. Use impl="reference"'):
        tangent(lambda x: layer(x)[0], x, v)


def test_a_stepper_has_no_derivative():
    for layer in (tp.PlasticRNN(3, 5), tp.PlasticRNN(3, 5, impl="reference")):
        assert tangent(layer.stepper(2), *torch.randn(2, 2, 3)) is None


def test_the_baseline():
    lstm, x, v = tp.LSTM(3, 5, dtype=torch.float64), *torch.randn(2, 4, 1, 3, dtype=torch.float64)
    other = nn.LSTM(3, 5, dtype=torch.float64)
    other.load_state_dict(lstm.core.state_dict())
    wanted = tangent(lambda x: other(x)[0], x, v)
    torch.testing.assert_close(tangent(lambda x: lstm(x)[0], x, v), wanted)
