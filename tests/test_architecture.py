"""Imports go one way, as ARCHITECTURE.md says. Change the table there and here together with the code."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "torchplastic"

PUBLIC = {"", "functional"}  # the public names: torchplastic itself, and its functions
EVERYWHERE = {"torch", "numpy"}

# layer: (own layers it may import, packages beyond torch and numpy); inside itself a layer imports as it likes
TABLE = {
    "rules": (set(), set()),
    "state": (set(), set()),
    "limits": (set(), set()),
    "reading": (set(), {"safetensors"}),
    "ops": ({"rules", "state", "limits"}, {"triton", "numba", "llvmlite", "filelock"}),
    "nn": ({"ops", "rules", "state", "reading"}, set()),
    "cuda_graph": (set(), set()),
    "legacy": (set(), set()),
    "machine": ({""}, set()),
    "functional": ({"ops", "nn", "rules", "state"}, set()),
    "weights": ({"nn"}, set()),
    "": ({"functional", "cuda_graph", "ops", "nn", "rules", "state", "weights"}, set()),
    "data": ({"reading"}, {"pooch", "requests", "rich", "PIL", "matplotlib"}),
    "tasks": ({"data"}, {"gymnasium"}),
    "runs": ({"legacy", "reading"}, {"filelock"}),
    "train": ({"cuda_graph", "state", "tasks", "runs", "limits"}, {"lightning_fabric", "rich", "psutil"}),
    "experiments": (
        PUBLIC | {"tasks", "data", "train", "runs", "legacy", "machine"},
        {"tyro", "dacite", "lightning_fabric", "ray"},
    ),
    "bench": (PUBLIC | {"ops", "data", "tasks", "train", "experiments", "runs", "machine"}, {"rich"}),
    "report": ({"runs", "legacy"}, {"matplotlib", "scipy", "PIL", "jinja2"}),
    "__main__": ({"cli"}, set()),
    "cli": ({"", "experiments", "bench", "report", "data"}, {"tyro"}),
}

LABORATORY = {"runs", "legacy", "data", "tasks", "train", "experiments", "bench", "report", "cli"}


def layer_of(file):
    first = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def layer_of_module(module, names):
    """Layers that `from module import names` reaches, for a module under torchplastic."""
    parts = module.split(".")[1:]
    if parts:
        return {parts[0]}
    return {name if name in TABLE else "" for name in names} or {""}


def imports(file):
    """(own layers, other packages) that a file imports anywhere, inside functions too."""
    own, other = set(), set()
    package = ("torchplastic", *file.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found = [(alias.name, []) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *(node.module or "").split("."))).rstrip(".")
            found = [(module, [alias.name for alias in node.names])]
        else:
            continue
        for module, names in found:
            top = module.split(".")[0]
            if top == "torchplastic":
                own |= layer_of_module(module, names)
            elif top not in sys.stdlib_module_names:
                other.add(top)
    return own, other


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("layer", sorted({layer_of(file) for file in FILES}))
def test_imports_go_one_way(layer):
    assert layer in TABLE, f"{layer} is a new layer: give it a row in ARCHITECTURE.md and in this table"
    may_own, may_other = TABLE[layer]
    for file in FILES:
        if layer_of(file) == layer:
            own, other = imports(file)
            name = file.relative_to(PACKAGE)
            assert own <= may_own | {layer}, f"{name} imports {own - may_own - {layer}}"
            assert other <= may_other | EVERYWHERE, f"{name} imports {other - may_other - EVERYWHERE}"


def test_the_table_has_no_cycle():
    reached = set()
    while len(reached) < len(TABLE):
        ready = {layer for layer, (own, _) in TABLE.items() if layer not in reached and own <= reached}
        assert ready, f"a cycle among {set(TABLE) - reached}"
        reached |= ready


def files_imported(file):
    """The package's files that a file imports anywhere, for types too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            top, *parts = name.split(".")
            if top == "torchplastic":
                places = [PACKAGE.joinpath(*parts[:n]) for n in range(len(parts), 0, -1)]
                files = [each for place in places for each in (place.with_suffix(".py"), place / "__init__.py")]
                found |= set([each for each in files if each.is_file()][:1])
    return found


def test_no_files_of_the_laboratory_import_each_other():
    left = {file: files_imported(file) for file in FILES if layer_of(file) in LABORATORY}
    while ready := [file for file, needed in left.items() if not needed & left.keys()]:
        for file in ready:
            del left[file]
    assert not left, f"a circle among {sorted(str(file.relative_to(PACKAGE)) for file in left)}"


def test_the_parser_sees_every_kind_of_import(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    (tmp_path / "nn").mkdir()
    file = tmp_path / "nn" / "rnn.py"
    file.write_text(
        "import os, rich.console\nimport torchplastic as tp\nfrom torchplastic import functional, PlasticRNN\n"
        "from . import linear\nfrom .. import rules\nfrom ..ops.checks import one_of\n"
        "def f():\n    from scipy import stats\n    import torchplastic.train.a2c\n"
    )
    assert imports(file) == ({"", "functional", "nn", "rules", "ops", "train"}, {"rich", "scipy"})


@pytest.mark.parametrize("name", ["plastic_scan", "plastic_linear"])
def test_a_reference_stays_short(name):
    assert len((PACKAGE / "ops" / name / "reference.py").read_text(encoding="utf-8").splitlines()) < 100
