"""What a user of torch.nn tries: it works, or one line says what to do."""

import re
import warnings

import pytest
import torch

import torchplastic as tp

LAYERS = {
    "PlasticRNN": lambda **more: tp.PlasticRNN(3, 5, **more),
    "PlasticRNNCell": lambda **more: tp.PlasticRNNCell(3, 5, **more),
    "PlasticLinear": lambda **more: tp.PlasticLinear(3, 5, **more),
}
every_layer = pytest.mark.parametrize("name", LAYERS)


def refusal(call, *words):
    """Call, which must raise a ValueError of one line that holds all words."""
    with pytest.raises(ValueError, match=re.escape(words[0])) as caught:
        call()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("alpha", ["full", "neuron", "shared", "none"])
def test_an_output_may_be_changed_in_place(alpha):
    layer = tp.PlasticRNN(3, 5, alpha=alpha)
    y, state = layer(torch.randn(4, 2, 3))
    y.mul_(2)
    (y.sum() + state.hidden.sum()).backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())


@every_layer
@pytest.mark.parametrize("eta", [0.25, torch.full((1,), 0.25), torch.full((5,), 0.25)])
@pytest.mark.parametrize("learn_eta", [True, False])
def test_construction_on_the_meta_device(name, eta, learn_eta):
    def inside():
        with torch.device("meta"):
            return LAYERS[name](eta=eta, learn_eta=learn_eta)

    skipped = type(LAYERS[name]())
    for layer in (
        inside(),
        LAYERS[name](eta=eta, learn_eta=learn_eta, device="meta"),
        torch.nn.utils.skip_init(skipped, 3, 5, eta=eta, learn_eta=learn_eta),
    ):
        layer.to_empty(device="cpu")
        for tensor in (*layer.parameters(), *layer.buffers()):
            tensor.detach().fill_(torch.nan)
        layer.reset_parameters()
        assert torch.equal(layer.eta, torch.as_tensor(eta))
        assert layer.w.isfinite().all()
        assert layer.w.std() < 0.1


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize(
    "layer",
    [
        tp.PlasticRNN(3, 12), tp.PlasticRNN(3, 12, alpha="neuron", rule="oja"), tp.PlasticRNN(3, 12, alpha="none"),
        tp.PlasticLinear(3, 4), tp.PlasticLinear(3, 4, alpha="none"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("grad", [True, False])
def test_a_trace_of_torch_jit_computes_what_the_layer_does(layer, grad):
    with torch.set_grad_enabled(grad):
        traced = torch.jit.trace(layer, torch.randn(4, 2, 3), check_trace=False)
        x = torch.randn(4, 2, 3)
        (y, state), (expected, after) = traced(x), layer(x)
        torch.testing.assert_close(y, expected)
        for found, wanted in zip(state, after[: len(state)], strict=True):
            torch.testing.assert_close(found, wanted)
        onward = torch.jit.trace(layer, (x, state), check_trace=False)
        torch.testing.assert_close(onward(x, state)[0], layer(x, after)[0])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_named_implementation_is_not_traced():
    layer = tp.PlasticRNN(3, 5, impl="chunked")
    refusal(lambda: torch.jit.trace(layer, torch.randn(4, 2, 3)), 'impl="chunked" has no trace of torch.jit', '"auto"')


@pytest.mark.parametrize("N", [5, 16, 20, 300])
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("impl", ["auto", "reference", "chunked"])
def test_a_state_is_contiguous_and_no_larger_than_it_looks(N, grad, impl):
    with torch.set_grad_enabled(grad):
        y, state = tp.PlasticRNN(3, N, impl=impl)(torch.randn(4, 2, 3))
    assert y.is_contiguous()
    for tensor in (state.hidden, state.trace):
        assert tensor.is_contiguous()
        assert tensor.untyped_storage().nbytes() == 4 * tensor.numel()
    state.trace.view(2, -1)


def test_eta_of_one_number_in_a_vector():
    torch.manual_seed(0)
    scalar, vector = tp.PlasticRNN(3, 5, eta=0.1), tp.PlasticRNN(3, 5, eta=torch.tensor([0.1]))
    weights = scalar.state_dict()
    vector.load_state_dict(weights | {"eta": weights["eta"].view(1)})
    x = torch.randn(6, 2, 3)
    for layer in (scalar, vector):
        layer(x)[0].square().sum().backward()
    assert torch.equal(scalar.eta.grad.view(1), vector.eta.grad)
    assert torch.equal(scalar.stepper(2)(x[0]), vector.stepper(2)(x[0]))
    assert "eta=[1]" in repr(vector)


@every_layer
@pytest.mark.parametrize("eta", [1.5, -0.1, float("nan"), torch.tensor([0.1, 0.1, 7.0, 0.1, 0.1])])
def test_an_initial_eta_outside_0_to_1_is_refused(name, eta):
    refusal(lambda: LAYERS[name](eta=eta), f"{name}: eta must lie in 0 … 1; got")


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.bool, torch.float16])
def test_inputs_of_another_dtype_are_refused(dtype):
    x = torch.ones(4, 2, 3).to(dtype)
    calls = {
        "PlasticRNN": lambda: tp.PlasticRNN(3, 5)(x), "PlasticRNNCell": lambda: tp.PlasticRNNCell(3, 5)(x[0]),
        "LSTM": lambda: tp.LSTM(3, 5)(x),
    }  # fmt: skip
    for name, call in calls.items():
        refusal(call, f"{name}: x must be torch.float32 on cpu, like the parameters; got {dtype}", "x.to(layer.w)")
    refusal(lambda: tp.PlasticRNN(3, 5).stepper(2)(x[0]), "PlasticRNN: x must be torch.float32")
    refusal(lambda: tp.PlasticLinear(3, 5)(x), "PlasticLinear: tensors must share dtype and device")


def test_states_of_other_kinds_are_refused():
    x, h0 = torch.randn(4, 2, 3), torch.zeros(1, 2, 5)
    for state in (h0, [h0], {"hidden": h0}, 3):
        for layer in (tp.PlasticRNN(3, 5), tp.PlasticLinear(3, 5)):
            refusal(lambda layer=layer, state=state: layer(x, state), "state must be a PlasticState or None, and is a")
        refusal(lambda state=state: tp.LSTM(3, 5)(x, state), "state must be an LSTMState or None, and is a")


@every_layer
def test_a_wrong_call_names_the_class(name):
    kind = type(LAYERS[name]())
    with pytest.raises(TypeError, match=rf"{name}\.__init__\(\) missing 1 required positional argument"):
        kind(3)
    with pytest.raises(TypeError, match=rf"{name}\.__init__\(\) got an unexpected keyword argument 'hidden'"):
        kind(3, 5, hidden=1)
    for size in ("5", 5.0, None):
        with pytest.raises(TypeError, match=f"{name}: a size must be an int; got {size!r}"):
            kind(3, size)
    for dtype in (torch.half, torch.bfloat16, torch.int32):
        refusal(
            lambda dtype=dtype: kind(3, 5, dtype=dtype), f"{name} computes in float32 or float64; got dtype {dtype}"
        )


def test_a_subclass_has_its_own_name():
    class Mine(tp.PlasticRNN):
        pass

    with pytest.raises(TypeError, match=r"Mine\.__init__\(\) missing"):
        Mine(3)
    assert Mine(3, 5)(torch.randn(4, 2, 3))[0].shape == (4, 2, 5)


def test_a_classifier_takes_what_it_says():
    network, labels = tp.pretrained("omniglot"), torch.arange(5)
    pictures = torch.rand(5, 31, 31).round()
    expected = network.classify(pictures, labels, pictures)
    assert torch.equal(network.classify((pictures * 255).byte(), labels, pictures.double()), expected)
    refusal(
        lambda: network.classify(pictures * 2 - 1, labels, pictures), "support must be from 0 (paper) to 1 (ink)", "-1"
    )
    refusal(lambda: network.classify(pictures, labels, pictures * 255), "query must be from 0", "255")
    refusal(lambda: network.classify(pictures.long(), labels, pictures), "frames must be uint8 with ink 255, or float")
    broken = pictures.clone()
    broken[0, 0, 0] = torch.nan
    refusal(lambda: network.classify(broken, labels, pictures), "support must be from 0")


def test_nothing_warns():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        print(tp.PlasticRNN(3, 5), tp.PlasticLinear(3, 5), tp.LSTM(3, 5))
