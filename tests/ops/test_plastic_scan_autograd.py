"""The scan under autograd: graphs kept, freed and used twice; memory; mixed precision."""

import sys
from functools import partial

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

import torchplastic as tp
from tests.ops.parity import ALPHAS, evaluate, random_clamp, random_inputs, runs_here
from torchplastic.functional import plastic_scan
from torchplastic.ops import cpu_cache
from torchplastic.ops.plastic_scan.schedule import cut

FREED = (
    "this state belongs to a graph that backward() has freed. Call state.detach() between optimiser steps, "
    "or pass state=None for a new episode."
)


def leaves_of(inputs):
    return {name: None if value is None else value.clone().requires_grad_() for name, value in inputs.items()}


OPTIONS = {"impl": "chunked"}


@pytest.fixture(scope="module", params=["chunked", "recurrent"], autouse=True)
def impl(request):
    """Every test of this file runs with each fast implementation."""
    if not runs_here(request.param):
        pytest.skip("needs the extra fast, and an OpenMP runtime beside PyTorch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OPTIONS, "impl", request.param)
        yield request.param


def run(leaves, state=None, **options):
    return plastic_scan(leaves["drive"], leaves["w"], leaves["alpha"], leaves["eta"], state, **OPTIONS, **options)


def plastic_leaves(leaves):
    return [value for name, value in leaves.items() if name in ("drive", "w", "alpha") and value is not None]


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_state_of_a_freed_graph_is_an_error_that_says_what_to_do(alpha):
    leaves = leaves_of(random_inputs(4, 2, 3, alpha=alpha))
    y, state = run(leaves)
    y.sum().backward()
    y, _ = run(leaves, state)
    with pytest.raises(RuntimeError) as error:
        y.sum().backward()
    assert str(error.value) == FREED
    y, _ = run(leaves, state.detach())
    y.sum().backward()


@pytest.mark.parametrize("alpha", ALPHAS)
def test_weights_changed_before_backward_are_torch_own_error(alpha):
    leaves = leaves_of(random_inputs(4, 2, 3, alpha=alpha))
    y, _ = run(leaves)
    with torch.no_grad():
        leaves["w"].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_retained_graph_can_be_used_twice(alpha):
    leaves = leaves_of(random_inputs(6, 2, 3, alpha=alpha))
    y, state = run(leaves, chunk_size=2)
    loss = (y**2).sum() + sum((part**2).sum() for part in state if part is not None)
    loss.backward(retain_graph=True)
    first = [leaf.grad.clone() for leaf in plastic_leaves(leaves)]
    loss.backward()
    for once, leaf in zip(first, plastic_leaves(leaves), strict=True):
        torch.testing.assert_close(leaf.grad, 2 * once, rtol=1e-14, atol=0)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_second_derivative_is_refused(alpha):
    leaves = leaves_of(random_inputs(4, 2, 3, alpha=alpha))
    y, _ = run(leaves)
    targets = plastic_leaves(leaves)
    gradients = torch.autograd.grad((y**2).sum(), targets, create_graph=True)
    for gradient, target in zip(gradients, targets, strict=True):
        assert gradient.shape == target.shape
        with pytest.raises(RuntimeError, match='impl="reference"'):
            torch.autograd.grad((gradient**2).sum(), targets, retain_graph=True)


@pytest.mark.parametrize("name", ["drive", "hidden", "trace"])
@pytest.mark.parametrize("alpha", ["full", "none"])
def test_a_second_derivative_by_the_inputs_alone_is_refused(alpha, name):
    if alpha == "none" and name == "trace":
        pytest.skip("no trace")
    inputs = random_inputs(4, 2, 3, alpha=alpha)
    inputs[name].requires_grad_()
    state = tp.PlasticState(inputs["hidden"], inputs["trace"])
    y, _ = plastic_scan(inputs["drive"], inputs["w"], inputs["alpha"], inputs["eta"], state, **OPTIONS)
    (gradient,) = torch.autograd.grad((y**2).sum(), inputs[name], create_graph=True)
    with pytest.raises(RuntimeError, match='impl="reference"'):
        gradient.square().sum().backward()


def test_a_graph_that_is_done_keeps_no_matrix():
    """Keeping a loss keeps no matrices of its graph."""
    N, kept = 200, []
    leaves = leaves_of(random_inputs(4, 1, N))
    given = {leaf.data_ptr() for leaf in leaves.values()}
    y, _ = run(leaves)
    loss = (y**2).sum()
    before = loss.grad_fn.next_functions[0][0]
    while "_Scan" not in before.name():
        before = before.next_functions[0][0]
    for tensor in before.saved_tensors:
        if tensor is not None and tensor.data_ptr() not in given:
            kept.append(StorageWeakRef(tensor.untyped_storage()))
    tensor = None
    assert len(kept) > 1
    loss.backward()
    assert all(storage.expired() for storage in kept)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_create_graph_without_a_second_derivative(alpha):
    leaves = leaves_of(random_inputs(4, 2, 3, alpha=alpha))
    targets = plastic_leaves(leaves)
    y, _ = run(leaves)
    kept = torch.autograd.grad((y**2).sum(), targets, create_graph=True)
    y, _ = run(leaves)
    for one, other in zip(kept, torch.autograd.grad((y**2).sum(), targets), strict=True):
        assert torch.equal(one, other)


def test_the_reference_has_a_second_derivative():
    inputs = random_inputs(3, 2, 3)

    def scan(w):
        return plastic_scan(inputs["drive"], w, inputs["alpha"], inputs["eta"], impl="reference")[0]

    assert torch.autograd.gradgradcheck(scan, inputs["w"].requires_grad_())


def test_two_graphs_alive_do_not_disturb_each_other():
    """Their buffers are large enough for the cache to reuse them."""
    inputs = [random_inputs(5, 1, 190, seed=seed) for seed in range(2)]
    alone = [evaluate(partial(plastic_scan, **OPTIONS), each) for each in inputs]
    leaves = [leaves_of(each) for each in inputs]
    outputs = [run(each, tp.PlasticState(each["hidden"], each["trace"])) for each in leaves]
    values = [(y.detach().clone(), state.trace.detach().clone()) for y, state in outputs]
    losses = []
    for y, state in outputs:
        generator = torch.Generator().manual_seed(1)  # the projection that evaluate takes
        losses.append(
            sum(
                (torch.randn(part.shape, generator=generator, dtype=part.dtype) * part).sum()
                for part in (y, *state[:2])
            )
        )
    for loss in losses:
        loss.backward()
    for (y, state), (old_y, old_trace), expected, each in zip(outputs, values, alone, leaves, strict=True):
        assert torch.equal(y, old_y)
        assert torch.equal(state.trace, old_trace)
        for name, leaf in each.items():
            torch.testing.assert_close(leaf.grad, expected[f"gradient of {name}"], rtol=1e-12, atol=1e-14)


class Peak(TorchDispatchMode):
    """The peak of the bytes of all tensors but the given ones."""

    def __init__(self, given):
        super().__init__()
        self.bytes = 0
        self._given = {tensor.untyped_storage()._cdata for tensor in given}
        self._alive = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self._alive = {key: entry for key, entry in self._alive.items() if not entry[0].expired()}
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._given:
                    self._alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.bytes = max(self.bytes, sum(size for _, size in self._alive.values()))
        return result


def clamp_of(T, N=40):
    return random_clamp("mixed", 8, 2, N).repeat(T // 8, 1, 1)


def chunks_of(T):
    """Of at most 8 steps."""
    clamped = clamp_of(T).all(-1).all(-1).tolist()
    return T // 8 if OPTIONS["impl"] == "recurrent" else len(cut(clamped, 8))


def peak_of(T, *, with_grad, chunk=4, N=40):
    """Peak memory beside the output, in traces of the batch."""
    inputs = random_inputs(T, 2, N)
    leaves = {name: value.requires_grad_(with_grad) for name, value in inputs.items()}
    clamp = clamp_of(T, N)
    with Peak([*leaves.values(), clamp]) as peak, pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu_cache, "SMALLEST", sys.maxsize)  # the mode does not see reused buffers
        y, state = run(leaves, tp.PlasticState(leaves["hidden"], leaves["trace"]), clamp=clamp, chunk_size=chunk)
    assert peak.bytes >= y.nbytes + state.trace.nbytes
    return (peak.bytes - y.nbytes) / state.trace.nbytes


def test_without_gradients_memory_does_not_grow_with_time():
    with torch.no_grad():
        short, long = peak_of(32, with_grad=True, N=48), peak_of(320, with_grad=True, N=48)
    assert long <= short + 0.2
    assert peak_of(320, with_grad=False, N=48) <= short + 0.2  # nothing requires a gradient: the same


def test_training_keeps_one_trace_per_chunk():
    growth = peak_of(80, with_grad=True, chunk=8) - peak_of(40, with_grad=True, chunk=8)
    per_chunk = growth / (chunks_of(80) - chunks_of(40))
    assert 1 <= per_chunk < 3.5  # the trace, and at N = 40 a table of up to 8 x 8 vectors


@pytest.mark.parametrize("impl", ["reference", "chunked"])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_autocast_leaves_the_scan_in_single_precision(alpha, impl):
    inputs = random_inputs(9, 2, 5, alpha=alpha, dtype=torch.float32)
    low = inputs["drive"].bfloat16()
    state = tp.PlasticState(inputs["hidden"], inputs["trace"])
    leaves = [inputs[name].requires_grad_() for name in ("w", "alpha") if inputs[name] is not None]
    arguments = inputs["w"], inputs["alpha"], inputs["eta"], state
    with torch.autocast("cpu", torch.bfloat16):
        y, final = plastic_scan(low, *arguments, impl=impl)
    gradients = torch.autograd.grad(y.sum(), leaves)
    expected, expected_final = plastic_scan(low.float(), *arguments, impl=impl)
    assert torch.equal(y, expected)
    assert y.dtype == torch.float32
    for got, want in zip(final, expected_final, strict=True):
        assert (got is None) == (want is None)
        if got is not None:
            assert got.dtype == torch.float32
            assert torch.equal(got, want)
    for got, want in zip(gradients, torch.autograd.grad(expected.sum(), leaves), strict=True):
        assert torch.equal(got, want)
