"""The layer as it acts, step after step, against the layer over the whole sequence."""

import pytest
import torch

import torchplastic as tp
from tests.ops.parity import compiled, runs_here
from torchplastic.ops.plastic_scan import dispatch

T, B, I = 9, 3, 4
DOUBLE = {"dtype": torch.float64}


def made(N=5, inputs=I, **options):
    torch.manual_seed(0)
    layer = tp.PlasticRNN(inputs, N, **({"eta": 0.3} | DOUBLE | options))
    with torch.no_grad():
        for parameter in layer.parameters():
            if parameter.dim():
                parameter.normal_(0, 0.4)
    return layer


def normal(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def assert_same(layer, state, x):
    step = layer.stepper(x.shape[1], state)
    with torch.no_grad():
        y, end = layer(x, state)
    for t, now in enumerate(x):
        torch.testing.assert_close(step(now), y[t], rtol=1e-12, atol=1e-13)
        if t == len(x) // 2:  # a look on the way changes nothing
            with torch.no_grad():
                _, middle = layer(x[: t + 1], state)
            torch.testing.assert_close(step.state(), middle, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(step.state(), end, rtol=1e-12, atol=1e-13)


OWN = tp.Rule(lambda H, u, v, eta: 0.5 * H + eta * u.unsqueeze(-1) * v.unsqueeze(-2))


def named(options):
    """The same in every process, so that they can share the tests."""
    return " ".join(f"{name}={value}" if isinstance(value, str | int) else name for name, value in options.items())


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("options", [
    {"rule": "hebb"}, {"rule": "oja", "N": 33}, {"alpha": "shared", "nonlinearity": "sigmoid"}, {"alpha": "neuron"},
    {"alpha": "none", "nonlinearity": "relu"}, {"rule": OWN}, {"impl": "reference"}, {"impl": "chunked"},
    {"inputs": None}, {"eta": torch.linspace(0.1, 0.9, 5)},
], ids=named)  # fmt: skip
def test_steps_are_the_sequence(options, kernels, monkeypatch):
    if not kernels:
        monkeypatch.setattr(dispatch, "BACKENDS", [backend for backend in dispatch.BACKENDS if not compiled(backend)])
    elif not runs_here("recurrent"):
        pytest.skip("needs the extra fast, and an OpenMP runtime beside PyTorch")
    layer = made(**options)
    x = normal(T, B, layer.hidden_size if layer.input_size is None else I)
    assert_same(layer, None, x)
    with torch.no_grad():
        _, state = layer(x)
    before = None if state.trace is None else state.trace.clone()
    assert_same(layer, state, x)
    if before is not None:
        assert torch.equal(state.trace, before)  # where it started is a value


@pytest.mark.parametrize("options", [{}, {"alpha": "none"}, {"rule": OWN}], ids=named)
def test_what_it_gives_is_kept(options):
    layer = made(**options)
    step = layer.stepper(B)
    first = step(normal(B, I))
    value, state = first.clone(), step.state()
    kept = [None if part is None else part.clone() for part in state]
    second = step(normal(B, I) + 1)
    assert torch.equal(first, value)
    assert all(old is None or torch.equal(part, old) for part, old in zip(state, kept, strict=True))
    assert not first.requires_grad
    again = layer.stepper(B)  # whose outputs and states may be written to
    again(normal(B, I)).zero_()
    for part in again.state():
        if part is not None:
            part.zero_()
    assert torch.equal(again(normal(B, I) + 1), second)


def test_a_state_with_a_graph_is_cut_off():
    layer = made()
    _, state = layer(normal(T, B, I))
    assert state.trace.requires_grad
    assert not layer.stepper(B, state)(normal(B, I)).requires_grad


@pytest.mark.parametrize("alpha", ["full", "none"])
def test_autocast_ends_before_the_trace(alpha):
    layer = made(dtype=torch.float32, alpha=alpha)
    x = normal(B, I).float()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer.stepper(B)(x)
        expected, _ = layer(x.unsqueeze(0))
        with pytest.raises(ValueError, match=r"x must be torch\.float64"), torch.autocast("cpu", enabled=False):
            made(inputs=None).stepper(B)(normal(B, 5).float())
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, expected[0].detach())


@pytest.mark.parametrize(("batch", "shape"), [(2, (3, I)), (2, (2, I + 1)), (2, (1, 2, I))])
def test_a_shape_that_does_not_fit(batch, shape):
    with pytest.raises(
        ValueError, match=rf"^stepper: x must be \[B, I\] = \(2, {I}\); got .* call layer\.stepper\(batch\)\.$"
    ):
        made().stepper(batch)(normal(*shape))


def test_a_state_that_does_not_fit():
    layer = made()
    with torch.no_grad():
        _, state = layer(normal(T, B, I))
    with pytest.raises(ValueError, match="state has batch 3 but the input has batch 2"):
        layer.stepper(2, state)
