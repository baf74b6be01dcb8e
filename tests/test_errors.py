"""Wrong use is one line with the numbers and the way out, in exactly these words."""

import pytest
import torch
from torch import zeros

import torchplastic as tp
from torchplastic.functional import impls, plastic_linear, plastic_scan

LAYOUTS = "x must be [T, B, I], [B, T, I] with batch_first=True, or [T, I] unbatched; "
ROWS = "Pass state=None, or pick rows with state.index_select(rows)."
MIXED = "For mixed precision keep float32 parameters and use torch.autocast."

T, B, I, N = 4, 20, 20, 5
TRAINED = torch.ones((), requires_grad=True)


def plastic(B=B, I=N, N=N, dtype=None):
    return tp.PlasticState(zeros(B, N, dtype=dtype), zeros(B, I, N, dtype=dtype))


def scan(drive=(T, 2, N), w=(N, N), alpha=(N, N), eta=0.1, state=None, **options):
    alpha = None if alpha is None else zeros(alpha)
    return plastic_scan(zeros(drive), zeros(w), alpha, eta, state, **options)


def mask(*shape):
    return zeros(shape, dtype=torch.bool)


def broadcasting_rule(v, eta):
    return 1 - eta * (v**2).mean(-1, keepdim=True), eta * v


ERRORS = [
    # the published words
    (
        lambda: tp.PlasticRNN(I, N)(zeros(T, B, I), plastic(B=32)),
        f"PlasticRNN: state has batch 32 but the input has batch 20. {ROWS}",
    ),
    (lambda: tp.PlasticRNN(20, N)(zeros(64, 10)), f"{LAYOUTS}got (64, 10) with input_size=20."),
    # the same for the other layers
    (
        lambda: tp.PlasticRNNCell(I, N)(zeros(B, I), plastic(B=32)),
        f"PlasticRNNCell: state has batch 32 but the input has batch 20. {ROWS}",
    ),
    (
        lambda: tp.PlasticLinear(I, N)(zeros(T, B, I), plastic(B=32, I=I)),
        f"PlasticLinear: state has batch 32 but the input has batch 20. {ROWS}",
    ),
    (
        lambda: tp.LSTM(I, N)(zeros(T, B, I), tp.LSTMState(zeros(32, N), zeros(32, N))),
        f"LSTM: state has batch 32 but the input has batch 20. {ROWS}",
    ),
    (
        lambda: scan(state=plastic(B=3)),
        f"plastic_scan: state has batch 3 but the input has batch 2. {ROWS}",
    ),
    (lambda: tp.PlasticLinear(20, N)(zeros(64, 10)), f"{LAYOUTS}got (64, 10) with in_features=20."),
    (lambda: tp.LSTM(20, N)(zeros(64, 10)), f"{LAYOUTS}got (64, 10) with input_size=20."),
    (lambda: tp.PlasticRNN(None, N)(zeros(64, 10)), f"{LAYOUTS}got (64, 10) with input_size=None."),
    (
        lambda: tp.PlasticRNNCell(20, N)(zeros(T, B, 20)),
        "x must be [B, I], or [I] unbatched; got (4, 20, 20) with input_size=20.",
    ),
    # constructors
    (lambda: tp.PlasticRNN(I, 0), "PlasticRNN: sizes must be at least 1; got 0."),
    (lambda: tp.PlasticRNN(0, N), "PlasticRNN: sizes must be at least 1; got 0."),
    (lambda: tp.PlasticLinear(I, 0), "PlasticLinear: sizes must be at least 1; got 0."),
    (lambda: tp.LSTM(0, N), "LSTM: sizes must be at least 1; got 0."),
    (
        lambda: tp.LSTM(I, N, clamped_inputs=6),
        "LSTM: clamped_inputs must be between 0 and 5, the smaller of input_size and hidden_size; got 6.",
    ),
    (lambda: tp.PlasticRNN(I, N, alpha="each"), "alpha must be one of full, neuron, shared, none; got 'each'."),
    (
        lambda: tp.PlasticRNN(I, N, impl="fast"),
        f"impl must be one of {', '.join(impls())}; got 'fast'.",
    ),
    (
        lambda: tp.PlasticRNN(I, N, nonlinearity="softmax"),
        "nonlinearity must be one of tanh, relu, sigmoid, identity; got 'softmax'.",
    ),
    (
        lambda: tp.PlasticLinear(I, N, activation="elu"),
        "activation must be one of softmax, tanh, relu, sigmoid, identity; got 'elu'.",
    ),
    (lambda: tp.PlasticRNN(I, N, rule="bcm"), "rule must be a torchplastic.Rule or one of hebb, oja; got 'bcm'."),
    (
        lambda: tp.PlasticRNN(I, N, eta=zeros(3)),
        "PlasticRNN: eta must be a number, 0-dim, (1,) or (5,); got (3,).",
    ),
    # state
    (
        lambda: tp.PlasticRNN(I, N)(zeros(T, B, I), tp.PlasticState(zeros(B, N), None)),
        "PlasticRNN: the state has no trace but the layer is plastic. "
        "Pass state=None, or a state from a layer with the same alpha.",
    ),
    (
        lambda: tp.PlasticRNN(I, N, alpha="none")(zeros(T, B, I), plastic()),
        "PlasticRNN: the state has a trace but the layer is not plastic. "
        "Pass state=None, or a state from a layer with the same alpha.",
    ),
    (
        lambda: tp.PlasticRNN(I, N)(zeros(T, I), plastic()),
        "PlasticRNN: state.hidden must be (5,); got (20, 5). Pass state=None for zeros.",
    ),
    (
        lambda: tp.PlasticLinear(I, N)(zeros(T, B, I), plastic()),
        "PlasticLinear: state.trace must be (20, 20, 5); got (20, 5, 5). Pass state=None for zeros.",
    ),
    (
        lambda: tp.LSTM(I, N)(zeros(T, B, I), tp.LSTMState(zeros(B, N), zeros(B, 3))),
        "LSTM: state.cell must be (20, 5); got (20, 3). Pass state=None for zeros.",
    ),
    (
        lambda: scan(state=plastic(B=2, dtype=torch.float64)),
        "plastic_scan: tensors must share dtype and device; got input torch.float32 on cpu, "
        "hidden torch.float64 on cpu, trace torch.float64 on cpu.",
    ),
    (lambda: plastic().reset(mask(3)), "reset: mask must be bool [20]; got torch.bool [3]."),
    (lambda: plastic().reset(zeros(B)), "reset: mask must be bool [20]; got torch.float32 [20]."),
    (
        lambda: tp.PlasticState(zeros(N), zeros(N, N)).index_select(torch.tensor([0])),
        "index_select: an unbatched state has no rows to pick; hidden must be [B, N], got [5].",
    ),
    # clamp
    (
        lambda: tp.PlasticRNN(I, N)(zeros(T, B, I), clamp=mask(T, B, I)),
        "PlasticRNN: clamp needs input_size=None, one input unit per neuron; got input_size=20.",
    ),
    (
        lambda: scan(clamp=mask(T, 3, N)),
        "plastic_scan: clamp must be bool (4, 2, 5) or (4, 5); got torch.bool (4, 3, 5).",
    ),
    (
        lambda: scan(drive=(T, N), clamp=zeros(T, N)),
        "plastic_scan: clamp must be bool (4, 5); got torch.float32 (4, 5).",
    ),
    (
        lambda: scan(clamp=mask(T, N), clamped_steps=[True]),
        "plastic_scan: clamped_steps must have 4 entries, one per step; got 1.",
    ),
    (
        lambda: tp.LSTM(I, N, clamped_inputs=2)(zeros(T, B, I), clamp=~mask(T, B, I)),
        "LSTM: clamp may be true on the first clamped_inputs=2 units only.",
    ),
    (
        lambda: tp.LSTM(I, N, clamped_inputs=2)(zeros(T, B, I), clamp=mask(T, B, N)),
        "LSTM: clamp must be bool (4, 20, 20); got torch.bool (4, 20, 5).",
    ),
    # the functions
    (
        lambda: scan(drive=(N,)),
        "plastic_scan: drive must be [T, B, N] or [T, N] with T >= 1; got (5,).",
    ),
    (
        lambda: scan(drive=(0, 2, N)),
        "plastic_scan: drive must be [T, B, N] or [T, N] with T >= 1; got (0, 2, 5).",
    ),
    (lambda: scan(w=(N, 4)), "plastic_scan: w must be [pre, post] (5, 5); got (5, 4)."),
    (lambda: scan(alpha=(4,)), "plastic_scan: alpha must be (5, 5), (5,), 0-dim or None; got (4,)."),
    (
        lambda: scan(eta=None),
        "plastic_scan: a plastic network needs eta; pass a float, a 0-dim tensor or (5,).",
    ),
    (lambda: scan(eta=zeros(4)), "plastic_scan: eta must be a number, 0-dim, (1,) or (5,); got (4,)."),
    (lambda: scan(chunk_size=0), "plastic_scan: chunk_size must be at least 1; got 0."),
    (
        lambda: scan(rule=tp.Rule(lambda H, u, v, eta: H), impl="chunked"),
        'plastic_scan: impl="chunked" cannot run this: this rule has no `linear` form. Use impl="auto".',
    ),
    (
        lambda: scan(rule=tp.Rule(lambda H, u, v, eta: TRAINED * H, lambda v, eta: (TRAINED, v)), impl="chunked"),
        'plastic_scan: impl="chunked" cannot run this: this rule uses tensors of its own that require a gradient, and '
        'it computes none for them (requires_grad_(False) freezes them). Use impl="auto".',
    ),
    (
        lambda: scan(rule=tp.Rule(lambda H, u, v, eta: H, lambda v, eta: (TRAINED, v))),
        "plastic_scan: this rule's `linear` uses tensors that require a gradient and its `update`, the equation that "
        "defines the gradient, does not. Use the same tensors in both.",
    ),
    (
        lambda: scan(rule=tp.Rule(lambda H, u, v, eta: H, broadcasting_rule)),
        "a rule's `linear(v, eta)` must return d of the shape of v or of eta and s of the shape of v; "
        "got (4, 2, 1) and (4, 2, 5) for v (4, 2, 5) and eta ().",
    ),
    (
        lambda: plastic_scan(zeros(T, N).half(), zeros(N, N).half(), None, None),
        f"plastic_scan computes in float32 or float64; got drive torch.float16. {MIXED}",
    ),
    (
        lambda: plastic_scan(zeros(T, N), zeros(N, N).double(), None, None),
        "plastic_scan: tensors must share dtype and device; got drive torch.float32 on cpu, w torch.float64 on cpu.",
    ),
    (
        lambda: plastic_linear(zeros(I), zeros(I, N), None, None),
        "plastic_linear: x must be [T, B, I] or [T, I] with T >= 1; got (20,).",
    ),
    (
        lambda: plastic_linear(zeros(T, B, I), zeros(N), None, None),
        "plastic_linear: w must be [pre, post]; got (5,).",
    ),
    (
        lambda: plastic_linear(zeros(T, B, I), zeros(3, N), None, None),
        "plastic_linear: w must be [pre, post] (20, 5); got (3, 5).",
    ),
    (
        lambda: plastic_linear(zeros(T, B, I), zeros(I, N), None, None, drive=zeros(T, B, I)),
        "plastic_linear: drive must be (4, 20, 5); got (4, 20, 20).",
    ),
]


@pytest.mark.parametrize(("wrong", "text"), ERRORS, ids=[str(number) for number in range(len(ERRORS))])
def test_the_words(wrong, text):
    with pytest.raises(ValueError) as error:
        wrong()
    assert str(error.value) == text
    assert "\n" not in text


def test_a_freed_state():
    rnn = tp.PlasticRNN(3, N)
    y, state = rnn(zeros(T, 2, 3))
    y.sum().backward()
    y, _ = rnn(zeros(T, 2, 3), state)
    with pytest.raises(RuntimeError) as error:
        y.sum().backward()
    assert str(error.value) == (
        "this state belongs to a graph that backward() has freed. Call state.detach() between optimiser steps, "
        "or pass state=None for a new episode."
    )


def test_the_reference_shows_torch_own_words():
    rnn = tp.PlasticRNN(3, N, impl="reference")
    y, state = rnn(zeros(T, 2, 3))
    y.sum().backward()
    y, _ = rnn(zeros(T, 2, 3), state)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        y.sum().backward()


def test_a_state_of_batch_one_is_not_broadcast():
    with pytest.raises(ValueError, match="state has batch 1 but the input has batch 20"):
        tp.PlasticRNN(I, N)(zeros(T, B, I), plastic(B=1))
