"""The list of implementations: who runs, why, and that adding one is one entry. The boundary that each is behind."""

import ast
import sys
from functools import partial
from itertools import combinations
from pathlib import Path

import pytest
import torch

import torchplastic as tp
from tests.ops.parity import compiled, random_clamp, random_inputs, runs_here, scan_of
from torchplastic.functional import plastic_scan, training_bytes, which_impl
from torchplastic.ops.plastic_scan import dispatch, reference
from torchplastic.ops.plastic_scan.autograd import make_call
from torchplastic.rules import key_of, rule_of

KERNELS = {b.name: b.run.args[0] for b in dispatch.BACKENDS if isinstance(b.run, partial)}
OWN = tp.Rule(tp.RULES["hebb"].update, tp.RULES["hebb"].linear)
DUMMY = dispatch.Backend(
    impl="dummy",
    name="a dummy",
    best_for="tests",
    supports=lambda spec: None if spec.N == 7 else "it runs 7 neurons",
    is_preferred=lambda spec: spec.T == 9,
    run=lambda spec, *tensors: reference.reference(spec, *tensors),
    training_bytes=lambda spec: 12345,
)

# --- which one runs, and why


def test_the_reason_of_each_is_one_call():
    choice = which_impl(300, rule="oja")
    assert choice.reasons.keys() == {backend.name for backend in dispatch.BACKENDS}
    assert choice.name in choice.reasons
    assert choice.impl == ("recurrent" if runs_here("recurrent") else "chunked")
    lines = str(choice).splitlines()
    assert len(lines) == len(dispatch.BACKENDS)
    assert [line for line in lines if line.startswith(">")] == [line for line in lines if choice.name in line]
    assert "this network has plasticity" in choice.reasons["the recurrence without plasticity"]
    assert "later in the list" in choice.reasons["the plain loop, under autograd"]


@pytest.mark.parametrize(
    ("sizes", "impl"),
    [
        ({"N": 128}, "recurrent"),
        ({"N": 129, "clamped_steps": [True, True, False]}, "chunked"),
        ({"N": 512, "T": 9}, "recurrent"),
        ({"N": 513, "T": 9}, "chunked"),
        ({"N": 1000, "alpha": "neuron"}, "chunked"),
        ({"N": 10, "rule": OWN}, "chunked"),
        ({"N": 10, "rule": tp.Rule(OWN.update)}, "reference"),
        ({"N": 10, "dtype": torch.bfloat16, "rule": OWN}, "chunked"),
        ({"N": 10, "impl": "reference"}, "reference"),
        ({"N": 10, "impl": "chunked"}, "chunked"),
        ({"N": 10, "alpha": "none"}, "auto"),
    ],
)
def test_what_auto_takes(sizes, impl):
    if impl == "recurrent" and not runs_here("recurrent"):
        impl = "chunked"
    assert which_impl(**sizes).impl == impl


def test_what_which_impl_says_is_what_runs(monkeypatch):
    ran = []

    def recorded(backend):
        return backend._replace(run=lambda *given: ran.append(backend.name) or backend.run(*given))

    monkeypatch.setattr(dispatch, "BACKENDS", [recorded(backend) for backend in dispatch.BACKENDS])
    for N, alpha, rule in ((3, "full", "hebb"), (200, "full", "oja"), (3, "shared", OWN), (3, "none", "hebb")):
        inputs = random_inputs(4, 2, N, alpha=alpha)
        plastic_scan(*(inputs[name] for name in ("drive", "w", "alpha", "eta")), rule=rule)
        assert ran.pop() == which_impl(N, 2, 4, rule=rule, alpha=alpha, dtype=torch.float64).name
        assert not ran


def test_errors():
    with pytest.raises(ValueError, match="impl must be one of auto, reference"):
        which_impl(3, impl="none")
    with pytest.raises(ValueError, match='which_impl: impl="chunked" cannot run this: this rule has no `linear` form'):
        which_impl(3, rule=tp.Rule(OWN.update), impl="chunked")


def test_the_old_name_of_recurrent_warns():
    if not runs_here("recurrent"):
        pytest.skip("needs the extra fast, and an OpenMP runtime beside PyTorch")
    inputs = random_inputs(3, 1, 4)
    leaves = [inputs[name] for name in ("drive", "w", "alpha", "eta")]
    with pytest.warns(FutureWarning, match='impl="stepwise" has the name "recurrent" now'):
        y, _ = plastic_scan(*leaves, impl="stepwise")
    assert torch.equal(y, plastic_scan(*leaves, impl="recurrent")[0])
    with pytest.warns(FutureWarning, match="stepwise"):
        assert tp.PlasticRNN(2, 3, impl="stepwise").impl == "recurrent"


# --- a new implementation is an entry of the list


@pytest.fixture
def with_dummy(monkeypatch):
    monkeypatch.setattr(dispatch, "BACKENDS", [DUMMY, *dispatch.BACKENDS])


def test_a_new_implementation_is_one_entry(with_dummy):
    inputs = random_inputs(9, 2, 7)
    leaves = [inputs[name].requires_grad_() for name in ("drive", "w", "alpha", "eta")]
    expected = plastic_scan(*leaves, impl="reference")[0]
    assert torch.equal(plastic_scan(*leaves, impl="dummy")[0], expected)
    assert which_impl(7, 2, 9).impl == "dummy"  # "auto" takes what prefers a scan
    assert which_impl(7, 2, 8).reasons["a dummy"] == "could run this, but is for tests"
    assert which_impl(8, 2, 9).reasons["a dummy"] == "it runs 7 neurons"
    with pytest.raises(ValueError, match='impl="dummy" cannot run this: it runs 7 neurons'):
        plastic_scan(*(random_inputs(9, 2, 8)[name] for name in ("drive", "w", "alpha", "eta")), impl="dummy")
    with pytest.raises(ValueError, match=r"impl must be one of auto, .*dummy.*; got 'other'"):
        tp.PlasticRNN(2, 7, impl="other")
    assert tp.PlasticRNN(2, 7, impl="dummy")(torch.zeros(9, 1, 2))[0].shape == (9, 1, 7)
    difference = training_bytes([False], 1, 7, impl="dummy") - training_bytes([False], 1, 7, alpha="none")
    assert difference > 12345


def test_the_bench_and_the_command_know_it(with_dummy, run_process):
    suites = pytest.importorskip("torchplastic.bench.suites", reason="needs the extra lab")
    assert "dummy" in suites.implementations("cpu")
    command = (
        "import tests.ops.test_dispatch as t; t.dispatch.BACKENDS.insert(0, t.DUMMY);"
        "from torchplastic.cli import main; main(['train', 'patterns', '--help'])"
    )
    assert "dummy" in run_process([sys.executable, "-c", command], cwd=Path(__file__).parents[2]).out


# --- what crosses the boundary


@pytest.fixture(params=KERNELS)
def kernel(request, monkeypatch):
    name = request.param
    if "compiled" in name and not runs_here("recurrent"):
        pytest.skip("needs the extra fast, and an OpenMP runtime beside PyTorch")
    if "GPU" in name and not runs_here("triton"):
        pytest.skip("needs the extra gpu, and a GPU or its interpreter")
    if "registers" in name:  # a program for each example: in the interpreter they cannot wait for each other
        monkeypatch.setattr("torchplastic.ops.plastic_scan.triton_gpu.persistent.COLUMNS", (32,))
    return KERNELS[name]


def a_call(kernel, *, N=5, needs=(True,) * 6, clamp=None, seed=0):
    T, B = 12, 2
    inputs = list(random_inputs(T, B, N, eta="neuron", seed=seed).values())
    steps = (False,) * T if clamp is None else clamp.all(-1).all(-1).tolist()
    spec = scan_of(N, B, clamped_steps=steps, chunk_size=4)
    return make_call(kernel, spec, inputs, clamp, needs)


def tensors_in(call):
    return [part for part in call if isinstance(part, torch.Tensor)]


def test_a_call_is_flat(kernel):
    call = a_call(kernel, clamp=random_clamp("mixed", 12, 2, 5))
    for part in call:
        assert isinstance(part, torch.Tensor | int | str) or all(isinstance(flag, bool) for flag in part)
    assert not any(tensor.requires_grad for tensor in tensors_in(call))
    assert rule_of(call.rule) is tp.RULES["hebb"]


@pytest.mark.parametrize("N", [5, 16])
@pytest.mark.parametrize("needs", [(True,) * 6, (False, True, True, False, False, False), (False,) * 6])
def test_what_comes_out_aliases_nothing(kernel, needs, N):
    call = a_call(kernel, needs=needs, N=N)
    outputs = list(kernel.forward(call))
    assert len(outputs) == 3 or any(needs)
    for one, other in combinations([*outputs, *tensors_in(call)], 2):
        if one.numel() and other.numel() and any(one is output for output in outputs):
            assert one.untyped_storage().data_ptr() != other.untyped_storage().data_ptr()
    if any(needs):
        y, hidden, trace, *kept = outputs
        if call.alpha is not None and trace.numel():
            grads = [torch.ones_like(part) for part in (y, hidden, trace)]
            results = kernel.backward(call, kept, grads)
            wanted = [result for result, need in zip(results, needs, strict=True) if need]
            for result, tensor in zip(results, call[:6], strict=True):
                assert result is None or result.numel() == tensor.numel()
            for one, other in combinations([*wanted, *tensors_in(call), *grads], 2):
                if any(one is result for result in wanted):
                    assert one.untyped_storage().data_ptr() != other.untyped_storage().data_ptr()


@pytest.mark.parametrize("needs", [(True,) * 6, (False, True, True, False, False, False)])
def test_sizes_of_what_is_kept_do_not_depend_on_values(kernel, needs):
    """Other drives, held or not, and other masks with the same whole steps."""
    clamp = torch.zeros(12, 2, 5, dtype=torch.bool)
    clamp[2:6] = True
    shapes = set()
    for seed, more in ((0, False), (1, True)):
        mask = clamp.clone()
        mask[8, 0, 3] = more
        call = a_call(kernel, needs=needs, clamp=mask, seed=seed)
        if more:
            call.drive[2:6] = 1.0  # a pattern that is held
        shapes.add(tuple(tuple(part.shape) for part in kernel.forward(call)))
    assert len(shapes) == 1


def test_a_rule_crosses_as_a_key():
    assert key_of(tp.RULES["hebb"]) != key_of(tp.RULES["oja"])
    rules = [tp.Rule(lambda H, u, v, eta, k=k: k * H) for k in (1, 2)]
    assert len({key_of(rule) for rule in rules}) == 2  # the same code with another default
    for rule in rules:
        assert rule_of(key_of(rule)) is rule


def test_the_table_of_rules_keeps_none_alive():
    rule = tp.Rule(lambda H, u, v, eta: H, lambda v, eta: (1 + 0 * eta, v))
    key = key_of(rule)
    del rule
    key_of(tp.Rule(lambda H, u, v, eta: 2 * H))
    with pytest.raises((KeyError, AssertionError)):
        rule_of(key)


def test_a_rule_that_only_the_graph_knows_is_alive_until_backward():
    inputs = random_inputs(4, 1, 3)
    leaves = [inputs[name].requires_grad_() for name in ("drive", "w", "alpha", "eta")]
    rule = tp.Rule(lambda H, u, v, eta: tp.RULES["hebb"].update(H, u, v, eta), lambda v, eta: (1 - eta, eta * v))
    y, _ = plastic_scan(*leaves, rule=rule)
    del rule
    key_of(tp.Rule(lambda H, u, v, eta: 3 * H))
    y.sum().backward()
    assert leaves[1].grad.abs().sum() > 0


# --- the tree


def imported(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


@pytest.mark.parametrize(("packages", "folder"), [({"numba", "llvmlite"}, "numba_cpu"), ({"triton"}, "triton_gpu")])
def test_a_compiler_is_imported_in_its_folder_only(packages, folder):
    package = Path(tp.__file__).parent
    outside = [file for file in package.rglob("*.py") if folder not in file.parts]
    assert not [file for file in outside if packages & set(imported(file))]


@pytest.mark.parametrize("folder", ["numba_cpu", "triton_gpu"])
def test_one_line_names_a_folder_of_kernels(folder):
    package = Path(tp.__file__).parent
    naming = [
        line
        for file in package.rglob("*.py")
        if folder not in file.parts
        for line in file.read_text(encoding="utf-8").splitlines()
        if f"plastic_scan.{folder}" in line
    ]
    assert len(naming) == (1 if (package / "ops" / "plastic_scan" / folder).is_dir() else 0)


def test_compiled_backends_are_known_by_their_names():
    assert {backend.impl for backend in dispatch.BACKENDS if compiled(backend)} <= {"recurrent", "chunked"}
