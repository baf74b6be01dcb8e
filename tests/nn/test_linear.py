"""The feed-forward plastic layer as a module."""

import copy
import pickle

import pytest
import torch
from torch import nn

import torchplastic as tp
from torchplastic.functional import plastic_linear

T, B, I, J = 6, 3, 4, 5
DOUBLE = {"dtype": torch.float64}


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("alpha", ["full", "neuron", "shared", "none"])
def test_it_is_the_function_of_its_parameters(alpha):
    layer = tp.PlasticLinear(I, J, rule="hebb", alpha=alpha, eta=0.3, activation="tanh", **DOUBLE)
    shapes = {"full": (I, J), "neuron": (J,), "shared": (), "none": None}
    assert layer.w.shape == (I, J)
    assert (None if layer.alpha is None else tuple(layer.alpha.shape)) == shapes[alpha]
    x, drive = normal(T, B, I), normal(T, B, J, seed=1)
    y, state = layer(x, drive=drive)
    arguments = {"rule": "hebb", "drive": drive, "activation": "tanh"}
    expected, expected_state = plastic_linear(x, layer.w, layer.alpha, layer.eta, **arguments)
    assert torch.equal(y, expected)
    torch.testing.assert_close(state, expected_state, rtol=0, atol=0)
    assert state.hidden.shape == (B, J)
    assert state.trace is None if alpha == "none" else state.trace.shape == (B, I, J)


def test_layouts_agree():
    layer = tp.PlasticLinear(I, J, eta=0.3, **DOUBLE)
    batch_first = tp.PlasticLinear(I, J, eta=0.3, batch_first=True, **DOUBLE)
    batch_first.load_state_dict(layer.state_dict())
    x, drive = normal(T, B, I), normal(T, B, J, seed=1)
    y, state = layer(x, drive=drive)
    other, other_state = batch_first(x.transpose(0, 1), drive=drive.transpose(0, 1))
    assert torch.equal(other.transpose(0, 1), y)
    torch.testing.assert_close(other_state, state, rtol=0, atol=0)
    for each in (layer, batch_first):
        single, single_state = each(x[:, 1], drive=drive[:, 1])
        torch.testing.assert_close(single, y[:, 1], rtol=1e-13, atol=1e-15)
        torch.testing.assert_close(single_state.trace, state.trace[1], rtol=1e-13, atol=1e-15)


def test_state_is_carried_by_the_caller():
    layer = tp.PlasticLinear(I, J, eta=0.3, **DOUBLE)
    nn.init.normal_(layer.alpha)
    x = normal(T, B, I)
    y, state = layer(x)
    first, carried = layer(x[:2])
    second, final = layer(x[2:], carried)
    torch.testing.assert_close(torch.cat((first, second)), y, rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(final, state, rtol=1e-13, atol=1e-15)
    assert not torch.allclose(second, layer(x[2:])[0])
    assert list(layer.state_dict()) == ["w", "alpha", "eta"]


def test_every_parameter_learns():
    layer = tp.PlasticLinear(I, J, eta=0.3, **DOUBLE)
    y, _ = layer(normal(T, B, I))
    (normal(T, B, J, seed=1) * y).sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in layer.parameters())
    fixed = tp.PlasticLinear(I, J, learn_eta=False)
    assert [name for name, _ in fixed.named_parameters()] == ["w", "alpha"]
    assert "eta" in fixed.state_dict()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_are_equal(copied):
    layer = tp.PlasticLinear(I, J, **DOUBLE)
    x = normal(T, B, I)
    assert torch.equal(copied(layer)(x)[0], layer(x)[0])


def test_reset_parameters_is_fixed_by_its_generator():
    one, other = tp.PlasticLinear(50, 40), tp.PlasticLinear(50, 40)
    for layer in (one, other):
        layer.reset_parameters(torch.Generator().manual_seed(3))
    for value, twin in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(value, twin)
    assert one.w.std().item() == pytest.approx(0.01, rel=0.06)


def test_repr_names_what_was_chosen():
    text = repr(tp.PlasticLinear(I, J, alpha="shared", activation="relu", batch_first=True))
    for part in ("4, 5", "alpha='shared'", "rule='oja'", "activation='relu'", "batch_first=True"):
        assert part in text
