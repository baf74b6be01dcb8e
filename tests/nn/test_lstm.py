"""The LSTM baseline: torch.nn.LSTM, and the override of clamped inputs."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn

import torchplastic as tp

T, B, I, N = 7, 3, 4, 6
DOUBLE = {"dtype": torch.float64}


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bits(*shape, seed=0):
    return torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)).double() * 2 - 1


@pytest.mark.parametrize("layout", ["time first", "batch first", "unbatched"])
def test_without_held_inputs_it_is_torch_lstm(layout):
    batch_first = layout == "batch first"
    layer = tp.LSTM(I, N, batch_first=batch_first, **DOUBLE)
    twin = nn.LSTM(I, N, batch_first=batch_first, **DOUBLE)
    twin.load_state_dict(layer.core.state_dict())
    shape = {"time first": (T, B), "batch first": (B, T), "unbatched": (T,)}[layout]
    lead = () if layout == "unbatched" else (B,)
    start = normal(*shape, I), normal(*lead, N, seed=1), normal(*lead, N, seed=2)
    ours, theirs = ([tensor.clone().requires_grad_() for tensor in start] for _ in range(2))
    y, state = layer(ours[0], tp.LSTMState(*ours[1:]))
    expected, (hidden, cell) = twin(theirs[0], tuple(part.unsqueeze(0) for part in theirs[1:]))
    close = {"rtol": 1e-12, "atol": 1e-14}
    torch.testing.assert_close(y, expected, **close)
    torch.testing.assert_close(state, tp.LSTMState(hidden.squeeze(0), cell.squeeze(0)), **close)
    direction = normal(*y.shape, seed=3)
    ((direction * y).sum() + state.cell.sum()).backward()
    ((direction * expected).sum() + cell.sum()).backward()
    for one, other in zip([*ours, *layer.parameters()], [*theirs, *twin.parameters()], strict=True):
        torch.testing.assert_close(one.grad, other.grad, **close)
    torch.testing.assert_close(layer(start[0])[0], twin(start[0])[0], **close)


@pytest.mark.parametrize("layout", ["time first", "batch first", "unbatched", "one mask"])
def test_a_held_bit_overrides_its_cell(layout):
    """20 on the gates leaves 2e-9 of what was there; candidate and output are tanh(20) and tanh of the bit."""
    n = 3
    layer = tp.LSTM(I, N, clamped_inputs=n, batch_first=layout == "batch first", **DOUBLE)
    x = normal(T, B, I)
    x[..., :n] = bits(T, B, n)
    clamp = torch.zeros(T, B, I, dtype=torch.bool)
    clamp[..., :n] = torch.rand(T, B, n, generator=torch.Generator().manual_seed(4)) < 0.5
    if layout == "one mask":
        clamp[:] = clamp[:, :1]
    state = tp.LSTMState(normal(B, N, seed=1), normal(B, N, seed=2))
    if layout == "unbatched":
        y, _ = layer(x[:, 0], tp.LSTMState(state.hidden[0], state.cell[0]), clamp=clamp[:, 0])
        x, clamp = x[:, 0], clamp[:, 0]
    elif layout == "batch first":
        y, _ = layer(x.transpose(0, 1), state, clamp=clamp.transpose(0, 1))
        y = y.transpose(0, 1)
    else:
        y, _ = layer(x, state, clamp=clamp[:, 0] if layout == "one mask" else clamp)
    held = clamp[..., :n]
    expected = math.tanh(1) * x[..., :n][held]
    assert held.any()
    torch.testing.assert_close(y[..., :n][held], expected, rtol=0, atol=1e-6)
    assert ((y[..., :n][~held].abs() - math.tanh(1)).abs() > 1e-3).all()


def test_a_clamp_of_nothing_changes_nothing():
    layer = tp.LSTM(I, N, clamped_inputs=2, **DOUBLE)
    x = normal(T, B, I)
    y, state = layer(x)
    other, other_state = layer(x, clamp=torch.zeros(T, B, I, dtype=torch.bool))
    torch.testing.assert_close(other, y, rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(other_state, state, rtol=1e-13, atol=1e-15)


def test_gradients_with_held_bits():
    layer = tp.LSTM(3, 4, clamped_inputs=2, **DOUBLE)
    clamp = torch.tensor([[True, False, False], [False, False, False]])
    x, h, c = (tensor.requires_grad_() for tensor in (normal(2, 2, 3), normal(2, 4, seed=1), normal(2, 4, seed=2)))

    def run(x, h, c):
        y, state = layer(x, tp.LSTMState(h, c), clamp=clamp)
        return y, *state

    assert torch.autograd.gradcheck(run, (x, h, c))


def test_time_can_be_cut_and_a_batch_is_its_examples():
    layer = tp.LSTM(I, N, clamped_inputs=2, **DOUBLE)
    x = normal(T, B, I)
    clamp = torch.zeros(T, B, I, dtype=torch.bool)
    clamp[2:4, 1, :2] = True
    y, state = layer(x, clamp=clamp)
    first, carried = layer(x[:3], clamp=clamp[:3])
    second, final = layer(x[3:], carried, clamp=clamp[3:])
    torch.testing.assert_close(torch.cat((first, second)), y, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(final, state, rtol=1e-12, atol=1e-15)
    for b in range(B):
        single, single_state = layer(x[:, b], clamp=clamp[:, b])
        torch.testing.assert_close(single, y[:, b], rtol=1e-12, atol=1e-15)
        torch.testing.assert_close(single_state.cell, state.cell[b], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_are_equal_and_separate(copied):
    layer = tp.LSTM(I, N, **DOUBLE)
    x = normal(T, B, I)
    y, _ = layer(x)
    other = copied(layer)
    assert torch.equal(other(x)[0], y)
    other.reset_parameters()
    assert torch.equal(layer(x)[0], y)
    assert not torch.equal(other(x)[0], y)


def test_reset_parameters_is_fixed_by_its_generator():
    one, other = tp.LSTM(I, N), tp.LSTM(I, N)
    for layer in (one, other):
        layer.reset_parameters(torch.Generator().manual_seed(3))
    for value, twin in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(value, twin)
        assert value.abs().max() <= N**-0.5


@pytest.mark.parametrize("first", [torch.float32, torch.bfloat16])
def test_autocast_leaves_the_state_in_single_precision(first):
    """So that it can be carried on; an input may come from a layer under the same autocast."""
    layer = tp.LSTM(I, N)
    x = torch.randn(T, B, I, generator=torch.Generator().manual_seed(0))
    exact, _ = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        start, state = layer(x[:2].to(first))
        rest, state = layer(x[2:].to(first), state)
    assert {part.dtype for part in state} == {torch.float32}
    torch.testing.assert_close(torch.cat([start, rest]).float(), exact, rtol=0.02, atol=0.02)
