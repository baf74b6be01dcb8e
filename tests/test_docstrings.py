"""Examples in docstrings run, and print what they say they print. They have torch and tp, and start from seed 0."""

import ast
import doctest
from pathlib import Path

import pytest
import torch

import torchplastic as tp

PACKAGE = Path(__file__).parents[1] / "src" / "torchplastic"
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)


def docstrings(source):
    """(name, docstring) of a module and all that it defines, without importing it."""

    def walk(node, name):
        if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node)):
            yield name, text
        for child in ast.iter_child_nodes(node):
            if isinstance(child, DOCUMENTED):
                yield from walk(child, f"{name}.{child.name}".strip("."))

    return walk(ast.parse(source), "")


def examples():
    """(where, docstring) of every docstring with an example."""
    for file in sorted(PACKAGE.rglob("*.py")):
        for name, text in docstrings(file.read_text(encoding="utf-8")):
            if ">>>" in text:
                yield pytest.param(text, id=f"{file.relative_to(PACKAGE).as_posix()}::{name}")


def run(text):
    test = doctest.DocTestParser().get_doctest(text, {"torch": torch, "tp": tp}, "example", None, None)
    said = []
    doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=said.append)
    return "".join(said)


@pytest.mark.parametrize("text", list(examples()))
def test_examples_run(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        said = run(text)
    assert not said, said


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
