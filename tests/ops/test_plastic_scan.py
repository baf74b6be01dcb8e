"""Values and gradients of the scan: the reference against closed forms, the others against the reference."""

from functools import partial
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import torchplastic as tp
from tests.closed_forms import TRACES, away_from_zero
from tests.ops.parity import (
    ALPHAS,
    CLAMPS,
    ETAS,
    NAMES,
    OUTPUTS,
    assert_parity,
    chunked,
    compiled,
    evaluate,
    random_clamp,
    random_inputs,
    recurrent,
    runs_here,
    scan_of,
)
from torchplastic.functional import plastic_scan
from torchplastic.ops.nonlinearity import NONLINEARITIES
from torchplastic.ops.plastic_scan import chunked as in_pytorch
from torchplastic.ops.plastic_scan import dispatch
from torchplastic.ops.plastic_scan.chunked.algebra import FewRows
from torchplastic.ops.plastic_scan.schedule import cut

IMPLS = ("reference", "chunked", "recurrent")
PLASTIC = tuple(kind for kind in ALPHAS if kind != "none")
SIZES = ((3, 5), (1, 7), (2, 1), (None, 4))  # B, N


@pytest.fixture(scope="module", params=["compiled", "pytorch"], autouse=True)
def free_steps(request):
    """Every test of this file runs the chunked implementation with the kernels and without."""
    if request.param == "compiled":
        if not runs_here("recurrent"):
            pytest.skip("needs the extra fast, and an OpenMP runtime beside PyTorch")
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "BACKENDS", [backend for backend in dispatch.BACKENDS if not compiled(backend)])
        yield


@pytest.fixture(autouse=True)
def kernels_where_needed(request, free_steps):
    named = getattr(request.node, "callspec", None)
    if named and not runs_here(named.params.get("impl", "reference")):
        pytest.skip("without kernels there is no recurrent implementation")


def test_the_compiled_steps_serve_where_they_can(free_steps, request):
    def serves(**scan):
        return compiled(dispatch.choose("test", scan_of(3, **scan), "chunked"))

    assert serves(rule="oja") == ("compiled" in request.node.name.split("[")[1])
    own = tp.Rule(tp.RULES["oja"].update, lambda v, eta: (1 - eta, eta * v))
    for scan in ({"rule": own}, {"dtype": torch.half}, {"device": "meta"}, {"alpha": "neuron"}):
        assert not serves(**scan)


@pytest.mark.parametrize("rule", tp.RULES)
def test_a_rule_that_takes_a_known_name_is_not_mistaken(rule, monkeypatch):
    own = tp.Rule(lambda H, u, v, eta: 0.5 * H + u.unsqueeze(-1) * v.unsqueeze(-2), lambda v, eta: (0.5 + 0 * eta, v))
    monkeypatch.setitem(tp.RULES, rule, own)
    assert_parity(random_inputs(5, 2, 3), partial(chunked, chunk_size=2), plastic_scan, rule=rule)


class NothingFromTheHost(TorchDispatchMode):
    """Refuses operations that copy host data to a GPU or wait for it, which no CUDA graph can capture."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in {"index", "index_put_", "lift_fresh", "_local_scalar_dense", "nonzero", "_to_copy"}, name
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("grads", [NAMES, ("w", "alpha"), ("eta", "hidden")])
@pytest.mark.parametrize("alpha", PLASTIC)
@pytest.mark.parametrize("rule", tp.RULES)
def test_the_pytorch_steps_use_no_number_of_the_host(rule, alpha, grads, free_steps):
    if runs_here("recurrent"):
        pytest.skip("the compiled steps run on a CPU alone")
    told = [True, False, False, True, True, False, True, False, False, False, True]
    leaves = {k: v.requires_grad_(k in grads) for k, v in random_inputs(len(told), 2, 5, alpha=alpha).items()}
    drive, w, alpha, eta, *state = leaves.values()
    clamp = torch.tensor(told).view(-1, 1, 1).expand(drive.shape)
    run = partial(chunked, rule=rule, clamp=clamp, clamped_steps=told, chunk_size=5)
    run(drive, w, alpha, eta)  # cuts time, on the host
    with NothingFromTheHost():
        y, state = run(drive, w, alpha, eta, tp.PlasticState(*state))
        (y.sum() + state.trace.sum()).backward()


@pytest.mark.parametrize("alpha", PLASTIC)
def test_a_chosen_length_is_that_length_given(alpha):
    T, B, N = 23, 2, 7
    inputs = random_inputs(T, B, N, alpha=alpha)
    spec = scan_of(N, B, T, alpha=alpha)
    if runs_here("recurrent", spec) and alpha == "full":
        from torchplastic.ops.plastic_scan.numba_cpu import chunked as kernels
    else:
        kernels = in_pytorch
    chosen = kernels.schedule(spec).chunk_size
    expected = evaluate(partial(chunked, chunk_size=chosen), inputs)
    for name, got in evaluate(chunked, inputs).items():
        assert torch.equal(got, expected[name]), name


@pytest.mark.parametrize("alpha", PLASTIC)
def test_an_empty_batch(alpha):
    inputs = random_inputs(4, 0, 3, alpha=alpha)
    assert_parity(inputs, *with_chunks(2), grads=("drive", "w", "eta", "hidden", "trace"))


@pytest.mark.thorough
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("B", [1, 2])
def test_parity_on_several_cores_and_with_inputs_in_any_layout(B, threads, two_threads):
    torch.set_num_threads(threads)
    inputs = random_inputs(9, B, 301)
    inputs["drive"] = inputs["drive"].transpose(0, 1).contiguous().transpose(0, 1)
    inputs["alpha"] = inputs["alpha"].T.contiguous().T
    clamp = random_clamp("mixed", 9, 1, 301).expand(9, B, 301)
    for rule in tp.RULES:
        assert_parity(inputs, *with_chunks(4), rule=rule, clamp=clamp)


def with_chunks(*chunks):
    impls = [chunked, recurrent] if runs_here("recurrent") else [chunked]
    return [partial(impl, chunk_size=chunk) for impl in impls for chunk in chunks]


def subsets(names):
    return [chosen for size in range(1, len(names) + 1) for chosen in combinations(names, size)]


# --- closed forms


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("rule", TRACES)
@pytest.mark.parametrize("T", [1, 4, 19])
def test_a_held_pattern_is_written_into_the_trace(impl, rule, T, generator):
    B, N = 2, 5
    x = away_from_zero(B, N, generator=generator)
    eta = torch.tensor(0.11, dtype=torch.float64, requires_grad=True)
    w, alpha = torch.randn(2, N, N, generator=generator, dtype=torch.float64).unbind()
    start = tp.PlasticState(x, torch.zeros(B, N, N, dtype=torch.float64))
    y, (hidden, trace, _) = plastic_scan(
        x.expand(T, B, N),
        w,
        alpha,
        eta,
        start,
        rule=rule,
        clamp=torch.ones(T, N, dtype=torch.bool),
        impl=impl,
        chunk_size=3,
    )
    closed, by_eta = TRACES[rule]
    assert torch.equal(y, x.expand(T, B, N))
    assert torch.equal(hidden, x)
    torch.testing.assert_close(trace, closed(x, x, eta, T), rtol=1e-13, atol=0)
    direction = torch.randn(B, N, N, generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((direction * trace).sum(), eta)
    torch.testing.assert_close(gradient, (direction * by_eta(x, x, eta, T)).sum(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("impl", IMPLS)
def test_a_step_reads_the_trace_written_before_it(impl):
    """Two neurons, no fixed weights. The first is shown, then the second; the association recalls 1 -> 2."""
    eta, one, nothing = 0.5, [1.0, 0.0], [0.0, 0.0]
    shown = torch.tensor([one, [0.0, 1.0], one, nothing], dtype=torch.float64)
    clamp = torch.tensor([True, True, True, False]).unsqueeze(1).expand(4, 2)
    w, alpha = torch.zeros(2, 2, dtype=torch.float64), torch.ones(2, 2, dtype=torch.float64)
    y, state = plastic_scan(shown, w, alpha, eta, rule="hebb", clamp=clamp, impl=impl, nonlinearity="identity")
    # step 2 writes eta at [0, 1]; step 3 halves it and writes [1, 0]; step 4 recalls
    torch.testing.assert_close(y[3], torch.tensor([0, eta * (1 - eta)], dtype=torch.float64))
    # step 4 halves both and associates neuron 0 with what was recalled
    last = [[0, eta * (1 - eta) ** 2 + eta * eta * (1 - eta)], [eta * (1 - eta), 0]]
    torch.testing.assert_close(state.trace, torch.tensor(last, dtype=torch.float64))


# --- the fast implementations against the reference


@pytest.mark.parametrize("eta", ETAS)
@pytest.mark.parametrize("clamp", CLAMPS)
@pytest.mark.parametrize("alpha", PLASTIC)
@pytest.mark.parametrize("rule", tp.RULES)
def test_parity(rule, alpha, clamp, eta):
    for T, B, N, chunks in (
        (1, 2, 3, [None]),
        (2, 1, 4, [1]),
        (3, 3, 1, [2, None]),
        (6, 1, 1, [2, 3, None]),
        (23, 3, 5, [1, 5, None]),
        (23, 1, 7, [2, 8]),
        (9, None, 4, [5]),
    ):
        inputs = random_inputs(T, B, N, alpha=alpha, eta=eta, seed=T)
        assert_parity(inputs, *with_chunks(*chunks), rule=rule, clamp=random_clamp(clamp, T, B, N, seed=N))


@pytest.mark.parametrize("clamp", CLAMPS)
def test_parity_without_plasticity(clamp):
    for T, (B, N) in zip((1, 3, 23, 8), SIZES, strict=True):
        inputs = random_inputs(T, B, N, alpha="none")
        grads = ("drive", "w", "hidden")  # eta is not used
        for through in subsets(("y", "final hidden")):
            mask = random_clamp(clamp, T, B, N)
            assert_parity(inputs, chunked, plastic_scan, grads=grads, through=through, clamp=mask)


@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
@pytest.mark.parametrize("rule", tp.RULES)
def test_parity_of_every_nonlinearity(rule, nonlinearity):
    inputs = random_inputs(11, 2, 5)
    inputs["w"] = inputs["w"] * 0.5  # without saturation, values must not run away
    for clamp in (None, random_clamp("mixed", 11, 2, 5)):
        assert_parity(inputs, *with_chunks(4), rule=rule, nonlinearity=nonlinearity, clamp=clamp)
    plain = random_inputs(11, 2, 5, alpha="none")
    assert_parity(plain, chunked, grads=("drive", "w", "hidden"), nonlinearity=nonlinearity)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("rule", "alpha", "clamp", "eta"),
    [
        ("hebb", "full", "free", "scalar"),
        ("oja", "full", "steps", "neuron"),
        ("hebb", "neuron", "steps", "neuron"),
        ("oja", "shared", "mixed", "scalar"),
    ],
)
def test_parity_of_any_subset_of_gradients(rule, alpha, clamp, eta):
    inputs = random_inputs(9, 2, 3, alpha=alpha, eta=eta)
    for grads in subsets(NAMES):
        assert_parity(inputs, *with_chunks(3), grads=grads, rule=rule, clamp=random_clamp(clamp, 9, 2, 3))


@pytest.mark.thorough
@pytest.mark.parametrize("clamp", CLAMPS)
@pytest.mark.parametrize("rule", tp.RULES)
def test_parity_of_gradients_from_any_subset_of_outputs(rule, clamp):
    for alpha in PLASTIC:
        inputs = random_inputs(9, 2, 3, alpha=alpha)
        for through in subsets(OUTPUTS):
            mask = random_clamp(clamp, 9, 2, 3)
            assert_parity(inputs, *with_chunks(4), through=through, rule=rule, clamp=mask)


@given(st.data())
def test_parity_of_anything(data):
    def pick(options):
        return data.draw(st.sampled_from(options))

    T, seed = data.draw(st.integers(1, 16)), data.draw(st.integers(0, 99))
    B, N = pick(SIZES)
    inputs = random_inputs(T, B, N, alpha=pick(PLASTIC), eta=pick(ETAS), seed=seed)
    assert_parity(
        inputs,
        *with_chunks(pick([1, 2, 3, 5, None])),
        grads=pick(subsets(NAMES)),
        through=pick(subsets(OUTPUTS)),
        rule=pick(sorted(tp.RULES)),
        clamp=random_clamp(pick(CLAMPS), T, B, N, seed),
    )


@pytest.mark.parametrize("eta", [4.0, 1.3])
def test_parity_where_the_decay_is_zero_or_negative(eta):
    """Oja's 1 - eta v^2 is exactly 0 for v = 0.5, eta = 4, and below zero for larger v: no quotient, no logarithm."""
    T, B, N = 8, 2, 4
    inputs = random_inputs(T, B, N, seed=3) | {"eta": torch.tensor(eta, dtype=torch.float64)}
    inputs["drive"] = inputs["drive"].sign() * torch.tensor([0.5, 0.5, 0.9, 0.2], dtype=torch.float64)
    for kind in ("steps", "mixed", "all"):
        clamp = random_clamp(kind, T, B, N)
        if eta == 4:
            assert ((1 - eta * inputs["drive"] ** 2)[clamp] == 0).any()
        assert_parity(inputs, *with_chunks(1, 3, None), rule="oja", clamp=clamp)
    assert_parity(inputs | {"eta": torch.tensor(1.0, dtype=torch.float64)}, *with_chunks(3), rule="hebb")


@pytest.mark.thorough
@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("B", [1, 2])
@pytest.mark.parametrize("N", [300, 301])  # odd: the rows do not split evenly
def test_parity_of_products_split_over_threads(alpha, B, N, two_threads, poisoned_buffers):
    assert len(FewRows(torch.zeros(300, 300, dtype=torch.float64)).blocks) == 2
    inputs = random_inputs(5, B, N, alpha=alpha, eta="scalar")
    clamp = random_clamp("mixed", 5, B, N, seed=2)
    assert not clamp.all(-1).all()
    grads = tuple(name for name in NAMES if alpha != "none" or name != "eta")
    for rule in tp.RULES:
        assert_parity(inputs, chunked, grads=grads, rule=rule, clamp=clamp)


@pytest.mark.thorough
def test_parity_of_a_long_clamped_run_split_over_threads(two_threads, poisoned_buffers):
    inputs = random_inputs(6, 1, 301, alpha="full", eta="scalar")
    clamp = torch.zeros(6, 1, 301, dtype=torch.bool)
    clamp[:3] = True
    for grads in combinations(NAMES, 3):  # without the drive's gradient the clamped start has no rows at all
        assert_parity(inputs, *with_chunks(2, None), grads=grads, rule="hebb", clamp=clamp)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("rule", "alpha", "B", "N"),
    [*((rule, alpha, B, 7) for rule in tp.RULES for alpha in PLASTIC for B in (1, 2)), ("hebb", "full", 1, 301)],
)
def test_parity_of_patterns_held_between_free_steps(rule, alpha, B, N, two_threads, poisoned_buffers):
    """A clamped pattern is one row of pairs inside a chunk if the drive needs no gradient."""
    told = torch.tensor([*[True] * 3, *[False] * 2, *[True] * 5, *[False] * 3, *[True] * 4, False, True, True, False])
    T = len(told)
    inputs = random_inputs(T, B, N, alpha=alpha, eta="neuron")
    for t in range(1, T):
        if told[t] and told[t - 1] and t != 7:  # one run changes its pattern half-way
            inputs["drive"][t] = inputs["drive"][t - 1]
    clamp = told.view(T, 1, 1).expand(T, B, N)
    assert len(cut(told.tolist(), 20)) == 2
    for grads in (NAMES, NAMES[1:], ("w", "alpha"), ("eta",), ("hidden", "trace")):
        assert_parity(inputs, *with_chunks(4, None, 20), grads=grads, rule=rule, clamp=clamp)


def test_gradcheck():
    for rule, alpha, eta, kind in (
        ("hebb", "full", "neuron", "mixed"),
        ("oja", "full", "scalar", "steps"),
        ("oja", "neuron", "neuron", "free"),
    ):
        inputs = random_inputs(4, 2, 3, alpha=alpha, eta=eta)
        clamp = random_clamp(kind, 4, 2, 3, seed=1)

        def scan(drive, w, alpha, eta, hidden, trace, rule=rule, clamp=clamp):
            state = tp.PlasticState(hidden, trace)
            y, state = chunked(drive, w, alpha, eta, state, rule=rule, clamp=clamp, chunk_size=2)
            return y, *state[:2]

        assert torch.autograd.gradcheck(scan, [inputs[name].requires_grad_() for name in NAMES])


def test_single_precision_follows_double():
    clamp = random_clamp("mixed", 50, 2, 20)
    for rule in tp.RULES:
        for alpha in PLASTIC:
            inputs = random_inputs(50, 2, 20, alpha=alpha, dtype=torch.float32)
            double = {name: value.double() for name, value in inputs.items()}
            expected = evaluate(partial(plastic_scan, impl="reference"), double, rule=rule, clamp=clamp)
            for name, got in evaluate(chunked, inputs, rule=rule, clamp=clamp).items():
                assert got.dtype == torch.float32
                assert (got - expected[name]).abs().max() <= 1e-4 * expected[name].abs().max(), (rule, alpha, name)


# --- time, batch, clamp


def in_pieces(drive, w, alpha, eta, state, *, pieces, clamp, **options):
    """The scan over consecutive pieces of time with the state carried from each to the next."""
    outputs = []
    masks = [None] * len(pieces) if clamp is None else clamp.split(pieces)
    for part, mask in zip(drive.split(pieces), masks, strict=True):
        y, state = plastic_scan(part, w, alpha, eta, state, clamp=mask, **options)
        outputs.append(y)
    return torch.cat(outputs), state


@given(
    pieces=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    rule=st.sampled_from(sorted(tp.RULES)),
    alpha=st.sampled_from(ALPHAS),
    kind=st.sampled_from(CLAMPS),
    seed=st.integers(0, 99),
)
def test_any_split_of_time_with_carried_state_is_the_whole(pieces, rule, alpha, kind, seed):
    T, B, N = sum(pieces), 2, 3
    inputs = random_inputs(T, B, N, alpha=alpha, seed=seed)
    grads = tuple(name for name in NAMES if alpha != "none" or name != "eta")
    split = partial(in_pieces, pieces=pieces, impl="chunked", chunk_size=3)
    assert_parity(inputs, split, grads=grads, rule=rule, clamp=random_clamp(kind, T, B, N, seed))


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("rule", tp.RULES)
def test_a_batch_is_its_examples_one_by_one(rule, alpha, impl):
    T, B, N = 7, 4, 3
    inputs = random_inputs(T, B, N, alpha=alpha)
    clamp = random_clamp("mixed", T, B, N)
    scan = partial(plastic_scan, rule=rule, impl=impl)

    def one_by_one(drive, w, alpha, eta, state, *, clamp):
        results = []
        for b in range(B):
            single = tp.PlasticState(*(None if part is None else part[b] for part in state))
            results.append(scan(drive[:, b], w, alpha, eta, single, clamp=clamp[:, b]))
        states = zip(*(state for _, state in results), strict=True)
        parts = [None if part[0] is None else torch.stack(part) for part in states]
        return torch.stack([y for y, _ in results], 1), tp.PlasticState(*parts)

    def permuted(drive, w, alpha, eta, state, *, clamp):
        order = torch.tensor([2, 0, 3, 1])
        back = order.argsort()
        y, state = scan(drive[:, order], w, alpha, eta, state.index_select(order), clamp=clamp[:, order])
        return y[:, back], state.index_select(back)

    whole = evaluate(scan, inputs, clamp=clamp)
    for other in (one_by_one, permuted):
        for name, got in evaluate(other, inputs, clamp=clamp).items():
            if whole[name] is not None:
                torch.testing.assert_close(got, whole[name], rtol=1e-12, atol=1e-14, msg=name)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_clamped_neuron_is_its_drive_and_takes_its_gradient(impl, alpha, generator):
    T, B, N = 6, 2, 4
    inputs = random_inputs(T, B, N, alpha=alpha)
    inputs["drive"][:, :, 0] = 0  # a value of 0 clamps its neuron too
    clamp = torch.zeros(T, B, N, dtype=torch.bool)
    clamp[:, :, :2] = True
    drive = inputs["drive"].requires_grad_()
    state = tp.PlasticState(inputs["hidden"], inputs["trace"])
    y, _ = plastic_scan(drive, inputs["w"], inputs["alpha"], inputs["eta"], state, clamp=clamp, impl=impl)
    assert torch.equal(y[..., :2], drive[..., :2])
    assert not torch.equal(y[..., 2:], drive[..., 2:])
    # at the last step nothing comes after, so dL/dx is the cotangent itself
    cotangent = torch.randn(B, N, generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((cotangent * y[-1]).sum(), drive)
    torch.testing.assert_close(gradient[-1, :, :2], cotangent[:, :2], rtol=1e-14, atol=0)
    through_tanh = cotangent * (1 - y[-1].detach() ** 2)
    torch.testing.assert_close(gradient[-1, :, 2:], through_tanh[:, 2:], rtol=1e-12, atol=0)


def test_clamp_of_the_whole_batch_and_steps_told_beforehand():
    T, B, N = 12, 3, 4
    inputs = random_inputs(T, B, N)
    whole = random_clamp("mixed", T, None, N, seed=4)
    told = whole.all(-1).tolist()
    assert 0 < sum(told) < T
    assert_parity(inputs, chunked, clamp=whole)
    assert_parity(inputs, partial(chunked, clamped_steps=told, chunk_size=2), clamp=whole)
    # clamped_steps may omit a step: it runs as a free one
    assert_parity(inputs, partial(chunked, clamped_steps=[False] * T), clamp=whole)
    each = evaluate(chunked, inputs, clamp=whole.unsqueeze(1).expand(T, B, N))
    for name, got in evaluate(chunked, inputs, clamp=whole).items():
        assert torch.equal(got, each[name]), name


@pytest.mark.parametrize("impl", IMPLS)
def test_no_state_is_zeros(impl):
    inputs = random_inputs(5, 2, 3)
    arguments = [inputs[name] for name in ("drive", "w", "alpha", "eta")]
    zeros = tp.PlasticState(torch.zeros_like(inputs["hidden"]), torch.zeros_like(inputs["trace"]))
    y, state = plastic_scan(*arguments, impl=impl)
    expected, expected_state = plastic_scan(*arguments, zeros, impl=impl)
    assert torch.equal(y, expected)
    assert all(torch.equal(a, b) for a, b in zip(state[:2], expected_state[:2], strict=True))


@pytest.mark.parametrize("with_grad", [False, True])
def test_inputs_are_not_written(with_grad):
    inputs = random_inputs(7, 2, 3)
    leaves = {name: value.clone().requires_grad_(with_grad) for name, value in inputs.items()}
    state = tp.PlasticState(leaves["hidden"], leaves["trace"])
    _, after = chunked(leaves["drive"], leaves["w"], leaves["alpha"], leaves["eta"], state, chunk_size=2)
    if with_grad:
        after.trace.sum().backward()
    assert all(torch.equal(leaves[name], inputs[name]) for name in NAMES)


# --- custom rules


def additive(H, u, v, eta):
    return H + eta * u.unsqueeze(-1) * v.unsqueeze(-2)


def own(H, u, v, eta):
    d = 1 - eta * torch.sin(v) ** 2
    return d.unsqueeze(-2) * H + u.unsqueeze(-1) * (eta * v**3).unsqueeze(-2)


def clipped(H, u, v, eta):
    return additive(H, u, v, eta).clamp(-1, 1)


OWN_RULES = {
    "additive": tp.Rule(additive, lambda v, eta: (torch.ones_like(eta), eta * v)),
    "own": tp.Rule(own, lambda v, eta: (1 - eta * torch.sin(v) ** 2, eta * v**3)),
    "without eta": tp.Rule(lambda H, u, v, eta: additive(H, u, v, 1), lambda v, eta: (torch.ones_like(eta), v)),
}


@pytest.mark.parametrize("name", OWN_RULES)
def test_own_rules_are_differentiated_by_autograd(name):
    for eta in ETAS:
        for kind in ("free", "mixed", "steps"):
            inputs = random_inputs(7, 2, 3, eta=eta)
            assert_parity(
                inputs, partial(chunked, chunk_size=3), rule=OWN_RULES[name], clamp=random_clamp(kind, 7, 2, 3)
            )


def test_a_rule_that_is_not_linear_runs_in_the_reference_form():
    inputs = random_inputs(12, 2, 3)
    rule = tp.Rule(clipped)
    assert_parity(inputs, plastic_scan, rule=rule)
    got = evaluate(plastic_scan, inputs, rule=rule)
    assert (got["final trace"].abs() == 1).any()  # the clip does something here
    with pytest.raises(ValueError, match='impl="chunked" cannot run this: this rule has no `linear` form'):
        evaluate(chunked, inputs, rule=rule)


def test_a_rule_of_ones_own_has_no_recurrent_impl(free_steps):
    if not runs_here("recurrent"):
        pytest.skip("without kernels there is no recurrent implementation")
    with pytest.raises(ValueError, match='impl="recurrent" cannot run this: it runs hebb and oja'):
        evaluate(recurrent, random_inputs(4, 2, 3), rule=OWN_RULES["own"])


def same(left, right):
    return all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize(("N", "held"), [(3, True), (129, True), (129, False)])
def test_auto_is_recurrent_for_small_networks_and_else_chunked(N, held):
    inputs = random_inputs(12, 2, N)
    clamp = (torch.arange(12) < 8).unsqueeze(-1).expand(12, N) if held else None
    auto, parts = evaluate(plastic_scan, inputs, clamp=clamp), evaluate(chunked, inputs, clamp=clamp)
    small = (N == 3 or not held) and runs_here("recurrent")
    assert same(auto, evaluate(recurrent, inputs, clamp=clamp) if small else parts)
    assert same(auto, parts) != small


@pytest.mark.parametrize("impl", ["recurrent"])
@pytest.mark.parametrize("B", [3, 40])
def test_sums_do_not_depend_on_the_number_of_threads(B, impl, two_threads, monkeypatch):
    monkeypatch.setattr("torchplastic.ops.plastic_scan.numba_cpu.recurrent.SERIAL", 0)
    inputs = random_inputs(19, B, 21)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(evaluate(partial(plastic_scan, impl=impl), inputs, rule="oja"))
    assert same(results[0], results[1])
    assert same(results[0], results[2])
    assert_parity(inputs, recurrent, rule="oja")


@pytest.mark.parametrize("impl", ["recurrent"])
@pytest.mark.parametrize("N", [15, 16, 20])
def test_a_trace_goes_on_from_memory_of_any_layout(N, impl):
    inputs = random_inputs(6, 2, N)
    forward = partial(plastic_scan, inputs["drive"], inputs["w"], inputs["alpha"], inputs["eta"], impl=impl)
    _, state = forward(tp.PlasticState(inputs["hidden"], inputs["trace"]))
    line = -(-N // 16) * 16
    around = torch.full((2, N, line), torch.nan, dtype=torch.float64)
    around[..., :N] = state.trace
    y, expected = forward(tp.PlasticState(state.hidden, state.trace.clone().contiguous()))
    for trace in (state.trace, around[..., :N], state.trace.transpose(-1, -2).contiguous().transpose(-1, -2)):
        before = trace.clone()
        again, after = forward(tp.PlasticState(state.hidden, trace))
        assert torch.equal(again, y)
        assert torch.equal(after.trace, expected.trace)
        learned = inputs["w"].clone().requires_grad_()
        start = tp.PlasticState(state.hidden, trace)
        out, _ = plastic_scan(inputs["drive"], learned, inputs["alpha"], inputs["eta"], start, impl=impl)
        out.sum().backward()
        assert torch.isfinite(learned.grad).all()
        assert torch.equal(trace, before)  # a state is a value


@pytest.mark.parametrize("impl", ["chunked", "recurrent"])  # autograd's own graph of the reference forbids such writes
@pytest.mark.parametrize("N", [5, 16, 300, 304])
@pytest.mark.parametrize("learns", [True, False])
def test_outputs_share_no_memory(learns, N, impl):
    inputs = random_inputs(3, 2, N)
    w = inputs["w"].requires_grad_(learns)
    y, state = plastic_scan(inputs["drive"], w, inputs["alpha"], inputs["eta"], impl=impl)
    hidden, trace = state.hidden.detach().clone(), state.trace.detach().clone()
    y.mul_(0)
    assert torch.equal(state.hidden, hidden)
    state.hidden.mul_(2)
    state.trace.mul_(2)
    assert torch.equal(state.trace, 2 * trace)
    assert not y.any()
    if learns:
        (y.sum() + state.hidden.sum() + state.trace.sum()).backward()
        assert torch.isfinite(w.grad).all()


@pytest.mark.parametrize("impl", IMPLS)
def test_a_final_trace_that_is_not_read_may_overflow(impl):
    w = torch.zeros(3, 3, requires_grad=True)
    y, _ = plastic_scan(torch.full((2, 1, 3), 1e20), w, torch.zeros(3, 3), 0.5, impl=impl, nonlinearity="identity")
    (9e-21 * y).sum().backward()
    torch.testing.assert_close(w.grad, torch.full((3, 3), 0.9))
