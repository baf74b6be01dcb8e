"""Parity on a GPU, without needless synchronisation or memory."""

import pytest
import torch

import torchplastic as tp
from tests.ops.parity import (
    ALPHAS,
    CLAMPS,
    ETAS,
    LARGE,
    NAMES,
    SIZES,
    assert_captured_parity,
    assert_float32_parity,
    assert_parity,
    chunked,
    on,
    random_clamp,
    random_inputs,
    runs_here,
    scan_of,
    triton,
)
from torchplastic.ops.nonlinearity import NONLINEARITIES

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is available here"),
]


def has_triton():
    return runs_here("triton", scan_of(3, device="cuda"))


def moved(value):
    return value.cuda() if isinstance(value, torch.Tensor) else value


@pytest.fixture(params=[chunked, triton], ids=["chunked", "triton"])
def impl(request):
    if request.param is triton and not has_triton():
        pytest.skip("needs the extra gpu")
    return request.param


def on_gpu(*sizes, **options):
    return on("cuda", random_inputs(*sizes, **options))


@pytest.mark.parametrize("eta", ETAS)
@pytest.mark.parametrize("clamp", CLAMPS)
@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("rule", tp.RULES)
def test_parity(impl, rule, alpha, clamp, eta):
    for T, B, N in SIZES:
        mask = moved(random_clamp(clamp, T, B, N))
        grads = tuple(name for name in NAMES if alpha != "none" or name != "eta")
        assert_parity(on_gpu(T, B, N, alpha=alpha, eta=eta), impl, grads=grads, rule=rule, clamp=mask)


@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
def test_nonlinearities(impl, nonlinearity):
    assert_parity(on_gpu(9, 2, 33), impl, nonlinearity=nonlinearity)


@pytest.mark.parametrize(("B", "N"), LARGE)
@pytest.mark.parametrize("rule", tp.RULES)
def test_parity_of_large_networks(impl, rule, B, N):
    """In float64, with up to 500 neurons in registers; the float32 error is at most 4 times that of the plain loop."""
    inputs, mask = on_gpu(40, B, N, eta="neuron"), moved(random_clamp("steps", 40, B, N))
    assert_parity(inputs, impl, rule=rule, clamp=mask)
    assert_float32_parity(inputs, impl, rule=rule, clamp=mask)


def test_long_chunks_of_a_batch():
    """They have the largest table of pairs."""
    if not has_triton():
        pytest.skip("needs the extra gpu")
    for dtype, rtol in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        assert_parity(on_gpu(80, 4, 300, dtype=dtype), triton, chunk_size=100, rtol=rtol)


def test_a_graph_replays_the_same_steps(impl):
    assert_captured_parity(impl.keywords["impl"], "cuda")


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
