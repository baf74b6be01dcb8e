"""The recurrent layer and its cell: equal to torch.nn.RNN without plasticity, and well-behaved as modules."""

import copy
import pickle
from functools import partial

import pytest
import torch
from torch import nn

import torchplastic as tp

T, B, I, N = 7, 3, 4, 5
DOUBLE = {"dtype": torch.float64}
LAYERS = (tp.PlasticRNN, tp.PlasticRNNCell)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def larger(layer):
    """Starts of 0.01 leave most of what is tested close to zero."""
    with torch.no_grad():
        layer.w.copy_(0.4 * normal(N, N, seed=11))
        if layer.alpha is not None:
            layer.alpha.copy_(0.4 * normal(*layer.alpha.shape, seed=12))
    return layer


def torch_twin(layer, nonlinearity="tanh", bias=True, batch_first=False):
    twin = nn.RNN(I, N, nonlinearity=nonlinearity, bias=bias, batch_first=batch_first, **DOUBLE)
    with torch.no_grad():
        twin.weight_hh_l0.copy_(layer.w.T)
        twin.weight_ih_l0.copy_(layer.i2h.weight)
        if bias:
            twin.bias_ih_l0.copy_(layer.i2h.bias)
            twin.bias_hh_l0.zero_()
    return twin


@pytest.mark.parametrize("impl", ["auto", "reference", "chunked"])
@pytest.mark.parametrize("alpha", ["none", "full", "neuron", "shared"])
@pytest.mark.parametrize(
    ("nonlinearity", "bias", "layout"),
    [("tanh", True, "time first"), ("relu", False, "batch first"), ("tanh", True, "unbatched"), ("relu", True, "long")],
)
def test_without_plasticity_it_is_torch_rnn(alpha, impl, nonlinearity, bias, layout):
    """alpha="none", and any alpha of zeros whatever its trace holds."""
    batch_first = layout == "batch first"
    layer = larger(
        tp.PlasticRNN(
            I, N, alpha=alpha, bias=bias, nonlinearity=nonlinearity, batch_first=batch_first, impl=impl, **DOUBLE
        )
    )
    if alpha != "none":
        nn.init.zeros_(layer.alpha)
    twin = torch_twin(layer, nonlinearity, bias, batch_first)
    shape = {"time first": (T, B), "batch first": (B, T), "unbatched": (T,), "long": (40, B)}[layout]
    x, h = normal(*shape, I), normal(B, N, seed=1)
    if layout == "unbatched":
        h = h[0]
    inputs = [tensor.clone().requires_grad_() for tensor in (x, h, x, h)]
    trace = None if alpha == "none" else normal(*h.shape, N, seed=3)
    y, state = layer(inputs[0], tp.PlasticState(inputs[1], trace))
    expected, last = twin(inputs[2], inputs[3].unsqueeze(0))
    close = {"rtol": 1e-12, "atol": 1e-13}
    torch.testing.assert_close(y, expected, **close)
    torch.testing.assert_close(state.hidden, last.squeeze(0), **close)

    direction = normal(*y.shape, seed=2)
    ((direction * y).sum() + state.hidden.sum()).backward()
    ((direction * expected).sum() + last.sum()).backward()
    torch.testing.assert_close(inputs[0].grad, inputs[2].grad, **close)
    torch.testing.assert_close(inputs[1].grad, inputs[3].grad, **close)
    torch.testing.assert_close(layer.w.grad, twin.weight_hh_l0.grad.T, **close)
    torch.testing.assert_close(layer.i2h.weight.grad, twin.weight_ih_l0.grad, **close)
    if bias:
        torch.testing.assert_close(layer.i2h.bias.grad, twin.bias_ih_l0.grad, **close)


@pytest.mark.parametrize("alpha", ["full", "neuron", "shared", "none"])
@pytest.mark.parametrize("input_size", [I, None])
def test_parameters(alpha, input_size):
    shapes = {"full": (N, N), "neuron": (N,), "shared": ()}
    for layer in (kind(input_size, N, alpha=alpha) for kind in LAYERS):
        expected = {"w": (N, N)}
        if alpha in shapes:
            expected |= {"alpha": shapes[alpha], "eta": ()}
        else:
            assert layer.alpha is None
            assert layer.eta is None
        if input_size:
            expected |= {"i2h.weight": (N, I), "i2h.bias": (N,)}
        else:
            assert layer.i2h is None
        assert {name: tuple(value.shape) for name, value in layer.named_parameters()} == expected
        assert list(layer.state_dict()) == list(expected)


def test_eta_is_a_parameter_or_a_buffer_of_a_number_or_per_neuron():
    learned = tp.PlasticRNN(I, N, eta=0.2)
    assert isinstance(learned.eta, nn.Parameter)
    assert learned.eta.item() == pytest.approx(0.2)
    fixed = tp.PlasticRNN(I, N, eta=0.2, learn_eta=False)
    assert dict(fixed.named_buffers())["eta"] is fixed.eta
    assert "eta" in fixed.state_dict()
    assert not fixed.eta.requires_grad
    rates = torch.linspace(0.1, 0.5, N)
    each = tp.PlasticRNN(I, N, eta=rates)
    assert torch.equal(each.eta, rates)
    with torch.no_grad():
        each.eta.zero_()
    each.reset_parameters()
    assert torch.equal(each.eta, rates)  # the start is a value of its own, not the tensor passed in
    assert rates[0] == pytest.approx(0.1)
    y, _ = each(torch.randn(T, B, I))
    y.sum().backward()
    assert each.eta.grad.shape == (N,)


@pytest.mark.parametrize("rule", tp.RULES)
def test_the_rate_per_neuron_of_equal_entries_is_the_one_rate(rule):
    one = larger(tp.PlasticRNN(I, N, rule=rule, eta=0.3, **DOUBLE))
    each = larger(tp.PlasticRNN(I, N, rule=rule, eta=torch.full((N,), 0.3), **DOUBLE))
    each.load_state_dict(one.state_dict() | {"eta": one.eta.detach().expand(N)})
    x = normal(T, B, I)
    y, state = one(x)
    other, other_state = each(x)
    torch.testing.assert_close(other, y, rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(other_state.trace, state.trace, rtol=1e-13, atol=1e-15)
    y.sum().backward()
    other.sum().backward()
    torch.testing.assert_close(each.eta.grad.sum(), one.eta.grad, rtol=1e-12, atol=1e-15)


def test_plasticity_changes_the_output():
    layer = larger(tp.PlasticRNN(I, N, eta=0.3, **DOUBLE))
    plain = larger(tp.PlasticRNN(I, N, alpha="none", **DOUBLE))
    plain.load_state_dict({name: value for name, value in layer.state_dict().items() if name not in {"alpha", "eta"}})
    x = normal(T, B, I)
    difference = (layer(x)[0] - plain(x)[0]).abs().amax((1, 2))
    assert difference[:2].max() < 1e-15  # the first trace is zeros, the second was written with a zero pre
    assert (difference[2:] > 1e-4).all()


def test_layouts_agree():
    layer = larger(tp.PlasticRNN(I, N, eta=0.3, **DOUBLE))
    batch_first = tp.PlasticRNN(I, N, eta=0.3, batch_first=True, **DOUBLE)
    batch_first.load_state_dict(layer.state_dict())
    x = normal(T, B, I)
    y, state = layer(x)
    other, other_state = batch_first(x.transpose(0, 1))
    assert y.shape == (T, B, N)
    torch.testing.assert_close(other.transpose(0, 1), y, rtol=1e-13, atol=0)
    torch.testing.assert_close(other_state, state, rtol=1e-13, atol=0)
    for each in (layer, batch_first):  # unbatched input has no batch axis to come first
        single, single_state = each(x[:, 1])
        torch.testing.assert_close(single, y[:, 1], rtol=1e-12, atol=1e-15)
        torch.testing.assert_close(single_state.trace, state.trace[1], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("impl", ["reference", "chunked", "auto"])
def test_a_clamp_shows_values_and_a_shown_zero_holds_too(impl):
    layer = larger(tp.PlasticRNN(None, N, eta=0.3, impl=impl, **DOUBLE))
    x = normal(T, B, N)
    x[:, :, 0] = 0
    clamp = torch.rand(T, B, N, generator=torch.Generator().manual_seed(5)) < 0.5
    clamp[:, :, 0] = True
    x.requires_grad_()
    y, _ = layer(x, clamp=clamp)
    assert torch.equal(y[clamp], x[clamp])
    assert not (y == x)[~clamp].any()
    y[-1].sum().backward()
    assert torch.equal(x.grad[-1][clamp[-1]], torch.ones(int(clamp[-1].sum()), dtype=torch.float64))
    expected = 1 - y[-1][~clamp[-1]] ** 2
    torch.testing.assert_close(x.grad[-1][~clamp[-1]], expected.detach(), rtol=1e-12, atol=0)

    free, _ = layer(x.detach())
    assert not torch.equal(free[:, :, 0], x[:, :, 0])  # without a clamp a zero is no input at all

    batch_first = tp.PlasticRNN(None, N, eta=0.3, impl=impl, batch_first=True, **DOUBLE)
    batch_first.load_state_dict(layer.state_dict())
    other, _ = batch_first(x.transpose(0, 1), clamp=clamp.transpose(0, 1))
    torch.testing.assert_close(other.transpose(0, 1), y, rtol=1e-13, atol=0)
    # [T, N], one mask for the whole batch, is time first in any layout
    whole, _ = layer(x, clamp=clamp[:, 0])
    other, _ = batch_first(x.transpose(0, 1), clamp=clamp[:, 0])
    torch.testing.assert_close(other.transpose(0, 1), whole, rtol=1e-13, atol=0)


def test_without_input_size_the_input_is_added_inside_the_nonlinearity():
    layer = tp.PlasticRNN(None, N, alpha="none", **DOUBLE)
    x = normal(1, B, N)
    torch.testing.assert_close(layer(x)[0], torch.tanh(x), rtol=1e-14, atol=0)


@pytest.mark.parametrize("rule", tp.RULES)
@pytest.mark.parametrize("alpha", ["full", "neuron", "shared", "none"])
def test_stepping_the_cell_is_the_layer(rule, alpha):
    layer = larger(tp.PlasticRNN(None, N, rule=rule, alpha=alpha, eta=0.3, **DOUBLE))
    cell = tp.PlasticRNNCell(None, N, rule=rule, alpha=alpha, eta=0.3, **DOUBLE)
    cell.load_state_dict(layer.state_dict())
    x = normal(T, B, N)
    clamp = torch.rand(T, B, N, generator=torch.Generator().manual_seed(5)) < 0.3
    y, final = layer(x, clamp=clamp)
    state, outputs = None, []
    for now, mask in zip(x, clamp, strict=True):
        out, state = cell(now, state, clamp=mask)
        assert out.shape == (B, N)
        outputs.append(out)
    stepped = torch.stack(outputs)
    torch.testing.assert_close(stepped, y, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(state, final, rtol=1e-12, atol=1e-15)
    direction = normal(T, B, N, seed=2)
    (direction * y).sum().backward()
    (direction * stepped).sum().backward()
    for (name, one), other in zip(layer.named_parameters(), cell.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-10, atol=1e-13, msg=name)
    single, single_state = cell(x[0, 0])
    assert single.shape == single_state.hidden.shape == (N,)


@pytest.mark.parametrize("kind", LAYERS)
def test_no_state_stays_on_the_module(kind):
    layer = kind(I, N)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    attributes = set(vars(layer))
    x = torch.randn(*([T] if kind is tp.PlasticRNN else []), B, I)
    first, _ = layer(x)
    second, _ = layer(x)
    assert torch.equal(first, second)
    assert set(vars(layer)) == attributes
    assert set(layer.state_dict()) == set(before)
    assert all(torch.equal(layer.state_dict()[name], value) for name, value in before.items())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
@pytest.mark.parametrize("alpha", ["full", "none"])
def test_copies_are_equal_and_separate(copied, alpha):
    layer = larger(tp.PlasticRNN(I, N, rule="oja", alpha=alpha, eta=torch.full((N,), 0.3), **DOUBLE))
    x = normal(T, B, I)
    y, _ = layer(x)
    y.sum().backward()  # a copy after use
    other = copied(layer)
    assert torch.equal(other(x)[0], y)
    nn.init.zeros_(other.w)
    assert torch.equal(layer(x)[0], y)
    assert not torch.equal(other(x)[0], y)


# the compiler looks at .grad of every input, and silences its warning in a way that "error" overrules
@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("impl", ["chunked", "reference", "auto"])
def test_compile(impl):
    layer = larger(tp.PlasticRNN(I, N, eta=0.3, impl=impl, **DOUBLE))
    x = normal(3, B, I)
    y, state = layer(x)
    (y.sum() + state.trace.sum()).backward()
    expected = {name: parameter.grad for name, parameter in layer.named_parameters()}
    layer.zero_grad()
    compiled = torch.compile(layer, backend="eager")
    got, got_state = compiled(x)
    assert isinstance(got_state, tp.PlasticState)
    (got.sum() + got_state.trace.sum()).backward()
    torch.testing.assert_close(got, y, rtol=1e-13, atol=0)
    torch.testing.assert_close(got_state, state, rtol=1e-13, atol=0)
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-12, atol=1e-15)
    torch.compiler.reset()


def test_reset_parameters_is_fixed_by_its_generator():
    one, other = tp.PlasticRNN(I, 50, eta=0.2), tp.PlasticRNN(I, 50, eta=0.2)
    with torch.no_grad():
        other.eta.fill_(7)
    global_state = torch.get_rng_state()
    for layer in (one, other):
        layer.reset_parameters(torch.Generator().manual_seed(3))
    assert torch.equal(torch.get_rng_state(), global_state)
    for (name, value), twin in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(value, twin), name
    other.reset_parameters(torch.Generator().manual_seed(4))
    assert not torch.equal(one.w, other.w)
    # the published start, 0.01 N(0, 1); 2500 draws put the standard deviation within 5 %
    assert one.w.std().item() == pytest.approx(0.01, rel=0.05)
    assert one.alpha.std().item() == pytest.approx(0.01, rel=0.05)
    assert one.eta.item() == pytest.approx(0.2)
    assert one.i2h.weight.abs().max() <= I**-0.5


def test_autocast_keeps_the_trace_in_single_precision():
    layer = tp.PlasticRNN(I, N)
    with torch.autocast("cpu", torch.bfloat16):
        y, state = layer(torch.randn(T, B, I))
        y, state = layer(torch.randn(T, B, I), state)
    assert y.dtype == state.hidden.dtype == state.trace.dtype == torch.float32
    y.sum().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in layer.parameters())


def test_a_model_learns_through_its_episode():
    """Two patterns are shown for one step each; half of the first must bring back the rest. Chance is an error of 4."""
    torch.manual_seed(0)
    layer = tp.PlasticRNN(None, 8, eta=0.5)
    adam = torch.optim.Adam(layer.parameters(), lr=0.03)
    errors = []
    for _ in range(120):
        patterns = torch.randint(0, 2, (2, 64, 8)) * 2.0 - 1
        cue = patterns[0].masked_fill(torch.arange(8) >= 4, 0)
        shown = torch.stack([patterns[0]] * 3 + [patterns[1]] * 3 + [cue] * 3)
        y, _ = layer(shown, clamp=shown != 0)
        loss = ((y[-1] - patterns[0]) ** 2).sum(-1).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        errors.append(loss.item())
    assert errors[0] == pytest.approx(4, abs=0.5)
    assert min(errors[-10:]) < 1


def test_repr_names_what_was_chosen():
    text = repr(tp.PlasticRNN(I, N, rule="oja", eta=0.2, learn_eta=False, nonlinearity="relu", batch_first=True))
    for part in ("4, 5", "alpha='full'", "rule='oja'", "eta=0.2", "learn_eta=False", "'relu'", "batch_first=True"):
        assert part in text
    assert "None, 5" in repr(tp.PlasticRNNCell(None, N, alpha="none"))


class Decay(torch.nn.Module):
    def forward(self, H, u, v, eta):
        return (1 - eta) * H


def decay(H, u, v, eta, by):
    return by * H


@pytest.mark.parametrize(
    ("update", "name"),
    [
        (decay, "decay"),
        (partial(decay, by=0.5), "decay"),
        (Decay(), "Decay"),
        (Decay().forward, "forward"),
        (partial(Decay()), "Decay"),
        (lambda H, u, v, eta: H, "<lambda>"),
    ],
)
def test_a_layer_prints_whatever_callable_its_rule_is(update, name):
    for layer in (tp.PlasticRNN(I, N, rule=tp.Rule(update)), tp.PlasticLinear(I, N, rule=tp.Rule(update))):
        assert f"rule={name!r}" in repr(layer)
