"""The public names, their signatures, and what importing them costs."""

import ast
import dataclasses
import inspect
import pickle
import sys
from pathlib import Path

import pytest
import torch

import torchplastic as tp

REQUIRED = inspect.Parameter.empty
RNN = {
    "input_size": REQUIRED, "hidden_size": REQUIRED, "rule": "hebb", "alpha": "full", "eta": 0.01, "learn_eta": True,
    "bias": True, "nonlinearity": "tanh", "batch_first": False, "impl": "auto", "chunk_size": None, "device": None,
    "dtype": None,
}  # fmt: skip
STEP = {"x": REQUIRED, "state": None, "clamp": None}

# callable: (number of positional parameters, the documented parameters in order with their defaults)
SIGNATURES = {
    tp.PlasticRNN: (2, RNN),
    tp.PlasticRNNCell: (2, RNN),
    tp.LSTM: (2, {"input_size": REQUIRED, "hidden_size": REQUIRED, "clamped_inputs": 0, "batch_first": False}),
    tp.PlasticLinear: (
        2,
        {"in_features": REQUIRED, "out_features": REQUIRED, "rule": "oja", "alpha": "full", "eta": 0.01,
         "learn_eta": True, "activation": "softmax"},
    ),
    tp.PlasticClassifier: (
        3,
        {"embedding": None, "features": 64, "ways": 5, "rule": "oja", "alpha": "full", "eta": 0.01, "learn_eta": True},
    ),
    tp.functional.plastic_scan: (
        5,
        {"drive": REQUIRED, "w": REQUIRED, "alpha": REQUIRED, "eta": REQUIRED, "state": None, "rule": "hebb",
         "clamp": None, "nonlinearity": "tanh", "impl": "auto", "chunk_size": None},
    ),
}  # fmt: skip
FORWARDS = {
    tp.PlasticRNN: STEP,
    tp.PlasticRNNCell: STEP,
    tp.LSTM: STEP,
    tp.PlasticLinear: {"x": REQUIRED, "state": None, "drive": None},
}
LAB_ONLY = {"tyro", "rich", "matplotlib", "scipy", "lightning_fabric", "gymnasium", "PIL", "pooch", "psutil", "jinja2"}


def test_names():
    names = {
        "LSTM", "LSTMState", "PlasticClassifier", "PlasticLinear", "PlasticRNN", "PlasticRNNCell", "PlasticState",
        "RULES", "Rule", "functional", "pretrained", "CapturedStep",
    }  # fmt: skip
    assert set(tp.__all__) >= names
    assert all(hasattr(tp, name) for name in tp.__all__)
    assert {"plastic_scan", "plastic_linear", "empty_cache"} <= set(tp.functional.__all__)
    assert all(hasattr(tp.functional, name) for name in tp.functional.__all__)
    assert list(tp.RULES) == ["hebb", "oja"]
    assert tp.__version__.count(".") == 2


@pytest.mark.parametrize("callable_", SIGNATURES, ids=lambda c: c.__name__)
def test_signatures(callable_):
    positional, documented = SIGNATURES[callable_]
    parameters = inspect.signature(callable_).parameters
    assert [name for name in parameters if name in documented] == list(documented)
    for number, name in enumerate(documented):
        by_position = parameters[name].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        assert by_position == (number < positional), name
        assert parameters[name].default == documented[name], name
    added = [parameter for name, parameter in parameters.items() if name not in documented]
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in added)
    assert all(parameter.default is not REQUIRED for parameter in added)


@pytest.mark.parametrize("layer", FORWARDS, ids=lambda c: c.__name__)
def test_calls(layer):
    parameters = list(inspect.signature(layer.forward).parameters.values())[1:]
    assert {p.name: p.default for p in parameters[:3]} == FORWARDS[layer]
    assert all(p.default is not REQUIRED for p in parameters[3:])


def test_state_fields_and_methods():
    assert tp.PlasticState._fields == ("hidden", "trace", "eligibility")
    assert tp.PlasticState._field_defaults == {"eligibility": None}
    assert tp.LSTMState._fields == ("hidden", "cell")
    for state in (tp.PlasticState, tp.LSTMState):
        assert all(callable(getattr(state, name)) for name in ("detach", "to", "reset", "index_select"))
    assert [field.name for field in dataclasses.fields(tp.Rule)] == ["update", "linear", "vjp"]
    rule = tp.Rule(lambda H, u, v, eta: H)
    assert (rule.linear, rule.vjp) == (None, None)


def test_a_state_unpacks_into_three():
    """Two names were enough before the eligibility trace came (CHANGELOG.md)."""
    hidden, trace, eligibility = tp.PlasticState(torch.zeros(1, 2), torch.zeros(1, 2, 2))
    assert hidden.shape == (1, 2)
    assert trace.shape == (1, 2, 2)
    assert eligibility is None
    with pytest.raises(ValueError, match="too many values to unpack"):
        hidden, trace = tp.PlasticState(hidden, trace)


@pytest.mark.parametrize("name", [name for name in tp.__all__ if name not in {"RULES", "functional"}])
def test_every_public_name_is_documented(name):
    assert len(inspect.getdoc(getattr(tp, name))) > 40


def test_what_is_imported_at_first_use_is_what_a_type_checker_sees():
    """`_MODULES` agrees with the imports under TYPE_CHECKING and with `__all__`."""
    tree = ast.parse(Path(tp.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and isinstance(node.body[0], ast.ImportFrom))
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert seen.pop("functional") == "torchplastic"
    homes = {name: f"torchplastic.{module}" for name, module in tp._MODULES.items()}
    assert homes == {**seen, "functional": "torchplastic.functional"}
    assert list(homes) == tp.__all__


def test_names_are_as_if_imported_at_once(run_process):
    code = """
import sys
import torchplastic as tp
assert "torch" not in sys.modules
assert set(tp.__all__) <= set(dir(tp))
assert not hasattr(tp, "nothing")
import torch
x = torch.zeros(2, 1, 3)


@torch.compile(backend="eager", fullgraph=True)  # the first use of these names is in the compiler
def hidden(x):
    return tp.PlasticState(x, x).hidden + 1


assert torch.equal(hidden(x), x + 1)
names = {}
exec("from torchplastic import *", names)
assert set(tp.__all__) <= set(names)
import torchplastic.functional
assert names["functional"] is torchplastic.functional is tp.functional
assert names["PlasticRNN"] is tp.PlasticRNN is sys.modules["torchplastic.nn.rnn"].PlasticRNN
"""
    run_process([sys.executable, "-c", code])
    for name in ("PlasticRNN", "PlasticState", "pretrained"):
        assert pickle.loads(pickle.dumps(getattr(tp, name))) is getattr(tp, name)


@pytest.mark.parametrize("state", [tp.PlasticState, tp.LSTMState])
def test_states_are_named_tuples_under_compile(state):
    """A repr of its own changes nothing for the compiler, pickle and copies by field."""

    @torch.compile(backend="eager", fullgraph=True)
    def carried(before):
        after = state(before[0] + 1, before[1]).detach().to(torch.float64).reset()
        return state(*after).index_select(torch.tensor([0])), before

    before = state(torch.ones(2, 3), torch.ones(2, 3))
    after, same = carried(before)
    assert repr(after) == repr(state(torch.zeros(1, 3), torch.zeros(1, 3)).to(torch.float64))
    assert type(same) is state
    assert isinstance(same, tuple)
    assert repr(pickle.loads(pickle.dumps(before))) == repr(before._replace(hidden=torch.ones(2, 3)))
    assert list(before._asdict()) == list(state._fields)


def test_import_is_light(run_process):
    """Public names import nothing of the laboratory; the best of five runs takes under 0.3 s beyond torch itself."""
    code = (
        "import sys, time, torch; before = set(sys.modules); start = time.perf_counter(); "
        "from torchplastic import *; "
        "print(time.perf_counter() - start, *sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    seconds = []
    while len(seconds) < 5 and min(seconds, default=1) >= 0.3:
        took, *modules = run_process([sys.executable, "-c", code]).out.split()
        seconds.append(float(took))
        assert "torchplastic" in modules
        assert not LAB_ONLY & set(modules)
    assert min(seconds) < 0.3
