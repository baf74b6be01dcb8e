"""The examples in docstrings run and print what they show, with torch and tp given and seed 0.

Every public name, and every method a user calls, documents its arguments and its result and has an example.
"""

import ast
import doctest
import inspect
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch

import torchplastic as tp
from torchplastic.nn.stepper import Stepper

PACKAGE = Path(__file__).parents[1] / "src" / "torchplastic"
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)


def docstrings(source):
    """(name, docstring) of a module and all that it defines, without importing it."""

    def walk(node, name):
        if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node)):
            yield name, text
        children = list(ast.iter_child_nodes(node))
        for child in children:
            if isinstance(child, DOCUMENTED):
                yield from walk(child, f"{name}.{child.name}".strip("."))
        for child, after in pairwise(children):  # a string below an attribute documents it
            if (
                isinstance(child, ast.AnnAssign)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                yield f"{name}.{ast.unparse(child.target)}".strip("."), inspect.cleandoc(str(after.value.value))

    return walk(ast.parse(source), "")


def examples():
    """(where, docstring) of every docstring with an example."""
    for file in sorted(PACKAGE.rglob("*.py")):
        for name, text in docstrings(file.read_text(encoding="utf-8")):
            if ">>>" in text:
                yield pytest.param(text, id=f"{file.relative_to(PACKAGE).as_posix()}::{name}")


def run(text):
    test = doctest.DocTestParser().get_doctest(text, {"torch": torch, "tp": tp}, "example", None, None)
    failures = []
    doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=failures.append)
    return "".join(failures)


@pytest.mark.parametrize("text", list(examples()))
def test_examples_run(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        failures = run(text)
    assert not failures, failures


CLASS = '''
class Layer:
    """A layer.

    Examples:
        >>> tp.PlasticRNN(2, 3)(torch.zeros(5, 1, 2))[0].shape
        torch.Size([5, 1, 3])
    """

    def forward(self):
        """Wrong.

        >>> 1 + 1
        3
        """
'''


def test_a_wrong_example_is_found():
    found = dict(docstrings(CLASS))
    assert set(found) == {"Layer", "Layer.forward"}
    assert run(found["Layer"]) == ""
    assert "Got:\n    2" in run(found["Layer.forward"])


def test_an_example_below_an_attribute_is_found():
    found = dict(docstrings('A: int = 1\n"""One.\n\n>>> 1 + 1\n3\n"""\n'))
    assert set(found) == {"A"}
    assert run(found["A"])


# --- what each public docstring must have

NAMED = [getattr(tp, name) for name in tp.__all__ if name not in {"RULES", "functional"}]
NAMED += [Stepper, *(getattr(tp.functional, name) for name in tp.functional.__all__)]


def methods(owner):
    """(name, function) of the methods of a class that a user calls and that this package defines."""
    for name, method in inspect.getmembers(owner, inspect.isroutine):
        home = getattr(method, "__module__", None) or ""
        called = name == "__call__" or not name.startswith("_")
        if called and name not in {"extra_repr", "reset_plasticity"} and home.startswith("torchplastic"):
            yield name, method


def section(text, *titles):
    """The body of the first of these Google-style sections, or ""."""
    found = re.search(rf"^(?:{'|'.join(titles)}):\n((?:(?: .*)?\n)*)", text + "\n", re.M)
    return inspect.cleandoc(found[1]) if found else ""


def faults(function, is_class=False):
    """What the docstring of a function or class lacks."""
    text, signature = inspect.getdoc(function) or "", inspect.signature(function)
    arguments = [name for name in signature.parameters if name != "self"]
    described = re.findall(r"^\**(\w+)(?: \(.*?\))?: ", section(text, "Args", "Attributes"), re.M)
    if set(arguments) - set(described):
        yield f"Args lacks {sorted(set(arguments) - set(described))}"
    if not is_class and section(text, "Args") and set(described) - set(arguments):
        yield f"Args describes {sorted(set(described) - set(arguments))}, which it does not take"
    if not is_class and signature.return_annotation not in {None, "None"} and not section(text, "Returns"):
        yield "no Returns"
    if ">>> " not in section(text, "Examples"):
        yield "no Examples"


def documented():
    for public in NAMED:
        yield pytest.param(public, id=public.__name__)
        if inspect.isclass(public):
            for name, method in methods(public):
                yield pytest.param(method, id=f"{public.__name__}.{name}")


@pytest.mark.parametrize("public", list(documented()))
def test_every_public_docstring_is_complete(public):
    assert not list(faults(public, inspect.isclass(public)))


def test_the_methods_checked_are_those_a_user_calls():
    checked = {parameter.id for parameter in documented()}
    assert checked >= {
        "CapturedStep.__call__", "LSTM.forward", "LSTMState.to", "PlasticClassifier.classify",
        "PlasticClassifier.from_file", "PlasticLinear.effective_weight", "PlasticRNN.reset_parameters",
        "PlasticRNN.stepper", "PlasticRNNCell.forward", "PlasticState.detach", "PlasticState.index_select",
        "PlasticState.reset", "Stepper.state", "plastic_scan", "pretrained",
    }  # fmt: skip


def test_an_incomplete_docstring_is_found():
    def half(x, y: int) -> int:
        """Half.

        Args:
            x: the first.
            z: no argument.
        """

    assert list(faults(half)) == [
        "Args lacks ['y']", "Args describes ['z'], which it does not take", "no Returns", "no Examples",
    ]  # fmt: skip
