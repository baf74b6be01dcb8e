"""The kernels of a GPU through Triton's interpreter: values, gradients, programs that wait for each other; compiling.

test_on_gpu.py runs them on a GPU.
"""

import json
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import torchplastic as tp
from tests.ops.parity import (
    CLAMPS,
    ETAS,
    NAMES,
    OUTPUTS,
    assert_float32_parity,
    assert_parity,
    random_clamp,
    random_inputs,
    scan_of,
    triton,
)
from torchplastic.functional import plastic_scan, training_bytes
from torchplastic.ops.nonlinearity import NONLINEARITIES
from torchplastic.ops.plastic_scan.autograd import make_call
from torchplastic.ops.plastic_scan.spec import Kernel

persistent = pytest.importorskip("torchplastic.ops.plastic_scan.triton_gpu.persistent")
support = pytest.importorskip("torchplastic.ops.plastic_scan.triton_gpu.support")

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(not support.interpreted(), reason="no Triton of the extra gpu, or a GPU: see test_on_gpu.py"),
]
SOME_GRADIENTS = (("w", "alpha"), ("eta",), ("drive",), ("hidden",), ("trace",))


@pytest.fixture(params=["persistent", "fused"])
def impl(request, monkeypatch):
    """Networks that fit into a GPU's registers, and those that do not."""
    monkeypatch.setattr(support, "INTERPRETED", 8 if request.param == "persistent" else 0)
    monkeypatch.setattr(persistent, "COLUMNS", (32,))
    return request.param


@pytest.mark.parametrize("eta", ETAS)
@pytest.mark.parametrize("clamp", CLAMPS)
@pytest.mark.parametrize("rule", tp.RULES)
def test_parity(impl, rule, clamp, eta, poisoned_buffers):
    inputs, mask = random_inputs(6, 2, 4, eta=eta), random_clamp(clamp, 6, 2, 4)
    grads = NAMES if eta != "number" else tuple(name for name in NAMES if name != "eta")
    assert_parity(inputs, triton, grads=grads, rule=rule, clamp=mask, chunk_size=3)


@pytest.mark.parametrize("alpha", ["neuron", "shared", "none"])
@pytest.mark.parametrize("rule", tp.RULES)
def test_other_kinds_of_alpha(impl, rule, alpha, poisoned_buffers):
    inputs, mask = random_inputs(6, 2, 4, alpha=alpha), random_clamp("steps", 6, 2, 4)
    grads = NAMES if alpha != "none" else ("drive", "w", "hidden")
    assert_parity(inputs, triton, grads=grads, rule=rule, clamp=mask, chunk_size=3)


@pytest.mark.parametrize("clamp", ["steps", "mixed"])
@pytest.mark.parametrize("rule", tp.RULES)
@pytest.mark.parametrize("grads", SOME_GRADIENTS, ids=["weights", "eta", "drive", "hidden", "trace"])
def test_some_gradients_alone(impl, grads, rule, clamp, poisoned_buffers):
    B, eta = (1, "neuron") if rule == "hebb" else (5, "scalar")
    inputs = random_inputs(6, B, 4, eta=eta)
    assert_parity(inputs, triton, grads=grads, rule=rule, clamp=random_clamp(clamp, 6, B, 4), chunk_size=4)


@pytest.mark.parametrize("through", OUTPUTS)
def test_gradients_through_one_output(impl, through, poisoned_buffers):
    inputs = random_inputs(5, 2, 4)
    assert_parity(inputs, triton, through=(through,), clamp=random_clamp("steps", 5, 2, 4), chunk_size=2)


@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
def test_nonlinearities(impl, nonlinearity):
    inputs = random_inputs(5, 1, 6)
    inputs["drive"][0, 0, :2] = torch.tensor([300.0, -300.0])
    assert_parity(inputs, triton, nonlinearity=nonlinearity)


@settings(max_examples=8)
@given(
    T=st.integers(1, 6), B=st.sampled_from([None, 1, 3]), N=st.integers(1, 9), chunk=st.integers(1, 7),
    seed=st.integers(0, 99), held=st.booleans(),
)  # fmt: skip
def test_any_size_and_any_chunk(T, B, N, chunk, seed, held):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(persistent, "COLUMNS", (32,))
        inputs = random_inputs(T, B, N, seed=seed)
        mask = random_clamp("steps" if seed % 2 else "free", T, B, N, seed)
        for programs in (0, 8) if held else (0,):
            patch.setattr(support, "INTERPRETED", programs)
            assert_parity(inputs, triton, clamp=mask, chunk_size=chunk)


def test_a_scan_without_a_state_and_without_gradients(impl, poisoned_buffers):
    inputs = random_inputs(9, 2, 5)
    drive, w, alpha, eta = (inputs[name] for name in NAMES[:4])
    y, state = triton(drive, w, alpha, eta, chunk_size=4)
    expected, final = plastic_scan(drive, w, alpha, eta, impl="reference")
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(state.trace, final.trace)
    leaf = w.clone().requires_grad_()
    triton(drive, leaf, alpha, eta, chunk_size=4)[0].sum().backward()
    again = w.clone().requires_grad_()
    plastic_scan(drive, again, alpha, eta, impl="reference")[0].sum().backward()
    torch.testing.assert_close(leaf.grad, again.grad)


def test_float32_is_as_near_to_float64_as_the_reference(impl):
    assert_float32_parity(random_inputs(20, 2, 24), triton)


@pytest.mark.parametrize("impl", ["persistent"], indirect=True)
def test_the_trace_is_kept_once_a_chunk(impl):
    kernel = Kernel(persistent.schedule, persistent.forward, persistent.backward)
    inputs = list(random_inputs(9, 2, 5, eta="neuron").values())
    call = make_call(kernel, scan_of(5, 2, 9, chunk_size=4), inputs, None, (True,) * 6)
    *_, kept = persistent.forward(call)
    assert kept.shape == (3, 2, 5, 32)


def test_what_is_kept_is_counted_beforehand(impl):
    """The tensors that autograd saves, beside the inputs, are below the count of a whole training step."""
    T, B, N = 40, 2, 24
    inputs = random_inputs(T, B, N)
    leaves = [inputs[name].requires_grad_() for name in NAMES]
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        triton(*leaves[:4], tp.PlasticState(*leaves[4:]))
    own = sum(kept.values()) - sum(leaf.untyped_storage().nbytes() for leaf in leaves)
    assert 0 < own < training_bytes([False] * T, B, N, impl="triton", itemsize=8)


@pytest.mark.parametrize(
    ("N", "B", "itemsize", "blocks"),
    [(1001, 1, 4, 126), (1024, 1, 4, 128), (1025, 1, 4, None), (1001, 2, 4, None), (256, 4, 4, 32), (256, 16, 4, 8),
     (100, 30, 4, 4), (100, 8, 4, 13), (1001, 1, 8, None), (500, 1, 8, 63), (1, 1, 4, 1)],
)  # fmt: skip
def test_what_a_gpu_of_132_multiprocessors_holds(N, B, itemsize, blocks):
    grid = persistent.grid_of(N, B, itemsize, 132)
    assert (grid and grid.blocks) == blocks
    if grid:
        assert grid.R * grid.blocks >= N
        assert grid.BN >= N


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of threads, beside fork
@pytest.mark.parametrize(("rule", "clamp"), [("hebb", "steps"), ("oja", "mixed")])
def test_programs_that_share_an_example_wait_for_each_other(rule, clamp, monkeypatch, run_process):
    def each_in_a_process(kernel, programs, tensors, sizes, **options):
        """Programs that wait for each other, each in a process of its own, over shared memory."""
        for tensor in tensors:
            tensor.share_memory_()
        each = [(kernel, (1,), tensors, (*sizes, program)) for program in range(programs)]
        assert run_process.fork(support.launch, each, **options) == [0] * programs

    monkeypatch.setattr(support, "run_together", each_in_a_process)
    monkeypatch.setattr(support, "INTERPRETED", 6)
    inputs = random_inputs(6, 2, 19, eta="neuron")
    assert persistent.grid_of(19, 2, 8, 6).blocks == 3
    assert_parity(inputs, triton, rule=rule, clamp=random_clamp(clamp, 6, 2, 19))


def test_where_it_cannot_run(monkeypatch):
    inputs = random_inputs(3, 1, 4)
    leaves = [inputs[name] for name in NAMES[:4]]
    with pytest.raises(
        ValueError, match='impl="triton" cannot run this: it runs hebb and oja, and this is another rule'
    ):
        triton(*leaves, rule=tp.Rule(tp.RULES["hebb"].update, tp.RULES["hebb"].linear))
    monkeypatch.setattr(support, "interpreted", lambda: False)
    with pytest.raises(
        ValueError, match=r"it runs on a CUDA device .*, not in torch.float64 on cpu. Use impl=\"auto\""
    ):
        triton(*leaves)
    monkeypatch.setattr(support, "find_kernels", lambda: None)
    torch.testing.assert_close(plastic_scan(*leaves)[0], plastic_scan(*leaves, impl="reference")[0])


def test_the_kernels_compile_for_a_gpu(run_process):
    """Without one: down to machine code, in another process, because here they are interpreted."""
    script = Path(__file__).with_name("compile_for_gpu.py")
    found = json.loads(run_process([sys.executable, script], env={"TRITON_INTERPRET": None}, seconds=280).out)
    assert len(found) >= 10
    assert max(kernel["shared"] for kernel in found.values()) <= 232_448  # of a program on Hopper
    assert found["resident_forward float32"]["stack"] == 0  # w, alpha and the trace stay in registers


def test_a_gradient_that_comes_in_is_not_written_to(impl):
    """Also if rows need no padding."""
    N = persistent.LINE
    inputs = random_inputs(2, 1, N)
    w = inputs["w"].requires_grad_()
    _, state = triton(inputs["drive"], w, *(inputs[name] for name in ("alpha", "eta")))
    given = torch.ones_like(state.trace)
    state.trace.backward(given)
    assert (given == 1).all()
