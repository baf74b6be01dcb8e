"""The same parity on a GPU, and that nothing there is synchronised or kept that need not be."""

import pytest
import torch

import torchplastic as tp
from tests.ops.parity import ALPHAS, CLAMPS, ETAS, NAMES, assert_parity, chunked, random_clamp, random_inputs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is available here"),
]


def moved(value):
    return value.cuda() if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize("eta", ETAS)
@pytest.mark.parametrize("clamp", CLAMPS)
@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("rule", tp.RULES)
def test_parity(rule, alpha, clamp, eta):
    for T, B, N in ((1, 3, 5), (23, 1, 7), (23, 2, 301), (3, None, 4)):
        inputs = {name: moved(value) for name, value in random_inputs(T, B, N, alpha=alpha, eta=eta).items()}
        mask = moved(random_clamp(clamp, T, B, N))
        grads = tuple(name for name in NAMES if alpha != "none" or name != "eta")
        assert_parity(inputs, chunked, grads=grads, rule=rule, clamp=mask)


def test_steps_told_beforehand_need_no_synchronisation():
    inputs = {name: moved(value) for name, value in random_inputs(9, 2, 7).items()}
    told = [True, True, False, False, True, False, False, False, True]
    mask = torch.tensor(told, device="cuda").view(9, 1, 1).expand(9, 2, 7)
    leaves = [inputs[name].requires_grad_() for name in NAMES]
    torch.cuda.set_sync_debug_mode("error")
    try:
        drive, w, alpha, eta, hidden, trace = leaves
        state = tp.PlasticState(hidden, trace)
        y, state = chunked(drive, w, alpha, eta, state, clamp=mask, clamped_steps=told)
        (y.sum() + state.trace.sum()).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
