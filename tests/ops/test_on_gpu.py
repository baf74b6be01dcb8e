"""Parity on a GPU, without needless synchronisation or memory."""

import pytest
import torch

import torchplastic as tp
from tests.ops.parity import (
    ALPHAS,
    CLAMPS,
    ETAS,
    NAMES,
    assert_parity,
    chunked,
    evaluate,
    random_clamp,
    random_inputs,
    triton,
)
from torchplastic.functional import plastic_scan
from torchplastic.ops.nonlinearity import NONLINEARITIES
from torchplastic.ops.plastic_scan.triton_gpu import support as triton_support

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is available here"),
]


def moved(value):
    return value.cuda() if isinstance(value, torch.Tensor) else value


@pytest.fixture(params=[chunked, triton], ids=["chunked", "triton"])
def impl(request):
    if request.param is triton and triton_support.find_kernels() is None:
        pytest.skip("needs the extra gpu")
    return request.param


def on_gpu(*sizes, **options):
    return {name: moved(value) for name, value in random_inputs(*sizes, **options).items()}


@pytest.mark.parametrize("eta", ETAS)
@pytest.mark.parametrize("clamp", CLAMPS)
@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("rule", tp.RULES)
def test_parity(impl, rule, alpha, clamp, eta):
    for T, B, N in ((1, 3, 5), (23, 1, 7), (23, 2, 301), (3, None, 4)):
        mask = moved(random_clamp(clamp, T, B, N))
        grads = tuple(name for name in NAMES if alpha != "none" or name != "eta")
        assert_parity(on_gpu(T, B, N, alpha=alpha, eta=eta), impl, grads=grads, rule=rule, clamp=mask)


@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
def test_nonlinearities(impl, nonlinearity):
    assert_parity(on_gpu(9, 2, 33), impl, nonlinearity=nonlinearity)


@pytest.mark.parametrize(("B", "N"), [(1, 500), (1, 1001), (4, 256), (1, 1100), (5, 600)])
@pytest.mark.parametrize("rule", tp.RULES)
def test_parity_of_large_networks(impl, rule, B, N):
    """In float64, with up to 500 neurons in registers; the float32 error is at most 4 times that of the plain loop."""
    inputs, mask = on_gpu(40, B, N, eta="neuron"), moved(random_clamp("steps", 40, B, N))
    assert_parity(inputs, impl, rule=rule, clamp=mask)
    exact = evaluate(plastic_scan, inputs, rule=rule, clamp=mask, impl="reference")
    short = {name: value.float() for name, value in inputs.items()}
    plain = evaluate(plastic_scan, short, rule=rule, clamp=mask, impl="reference")
    for name, got in evaluate(impl, short, rule=rule, clamp=mask).items():
        error, of_plain = (got - exact[name]).abs().max(), (plain[name] - exact[name]).abs().max()
        assert error <= 4 * of_plain + 2e-6 * exact[name].abs().max(), name


def test_long_chunks_of_a_batch():
    """They have the largest table of pairs."""
    if triton_support.find_kernels() is None:
        pytest.skip("needs the extra gpu")
    for dtype, rtol in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        assert_parity(on_gpu(80, 4, 300, dtype=dtype), triton, chunk_size=100, rtol=rtol)


def test_a_graph_replays_the_same_steps(impl):
    generator = torch.Generator().manual_seed(0)
    told = (True, True, False, False, False, True, False)
    batches = [(torch.randn(7, 2, 40, generator=generator).cuda(), torch.randn(2, 40).cuda()) for _ in range(8)]
    clamp = torch.tensor(told, device="cuda").view(7, 1).expand(7, 40)

    def learner():
        torch.manual_seed(0)
        rnn = tp.PlasticRNN(None, 40, impl=impl.keywords["impl"], device="cuda")
        optimizer = torch.optim.Adam(rnn.parameters(), lr=1e-3, fused=True, capturable=True)

        def update(inputs, target):
            optimizer.zero_grad()
            y, _ = rnn(inputs, clamp=clamp, clamped_steps=told)
            loss = (y[-1] - target).square().sum()
            loss.backward()
            optimizer.step()
            return loss

        return rnn, update

    plain, update = learner()
    expected = [update(*batch) for batch in batches]
    captured, update = learner()
    step = tp.CapturedStep(update)
    losses = [step(*batch) for batch in batches]
    torch.testing.assert_close(torch.stack(losses), torch.stack(expected), rtol=1e-4, atol=1e-5)
    for name, weights in plain.state_dict().items():
        torch.testing.assert_close(captured.state_dict()[name], weights, rtol=1e-4, atol=1e-5)


def test_steps_told_beforehand_need_no_synchronisation(impl):
    inputs = on_gpu(9, 2, 7)
    told = [True, True, False, False, True, False, False, False, True]
    mask = torch.tensor(told, device="cuda").view(9, 1, 1).expand(9, 2, 7)
    leaves = [inputs[name].requires_grad_() for name in NAMES]
    drive, w, alpha, eta, hidden, trace = leaves
    state = tp.PlasticState(hidden, trace)

    def there_and_back():
        y, final = impl(drive, w, alpha, eta, state, clamp=mask, clamped_steps=told)
        (y.sum() + final.trace.sum()).backward()

    there_and_back()  # clamped_steps are sent once
    torch.cuda.set_sync_debug_mode("error")
    try:
        there_and_back()
    finally:
        torch.cuda.set_sync_debug_mode("default")
