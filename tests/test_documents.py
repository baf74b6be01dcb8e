"""What documents name exists: paths, headings, tests, functions, public names, commands, make targets. Examples run.

Every Markdown file of the repository is read. A word in capitals (RUN, NAME, EXPERIMENT) stands for something else.
"""

import contextlib
import io
import os
import pkgutil
import re
import shlex
import tomllib
from fnmatch import fnmatch
from functools import cache
from pathlib import Path, PurePosixPath

import pytest
import torch

pytest.importorskip("tyro", reason="the command needs the extra lab")

from torchplastic import cli
from torchplastic.bench import suites
from torchplastic.cli.help import COMMANDS
from torchplastic.experiments import catalog
from torchplastic.experiments.catalog import CATALOG

ROOT = Path(__file__).parents[1]
IGNORED = {".git", "site", *(line.strip("/") for line in (ROOT / ".gitignore").read_text().split())}
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"].get("urls", {}).get("Repository", "")


def walk():
    """Every path of the repository, folders too, as POSIX paths relative to its root."""
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in IGNORED]
        yield from ((Path(folder) / name).relative_to(ROOT).as_posix() for name in (*folders, *files))


PATHS = sorted(walk())
FOLDERS = {PurePosixPath(path).name for path in PATHS if (ROOT / path).is_dir()}
DOCUMENTS = [path for path in PATHS if path.endswith(".md")]
TESTS = [path for path in PATHS if re.fullmatch(r"tests/.*\.py", path)]

FENCE = re.compile(r"^( *)```([\w-]*)[^\n]*\n(.*?)^\1```\s*$", re.M | re.S)
PLACEHOLDER = re.compile(r"(?<![A-Za-z])[A-Z]+(?![a-z])")
BACKENDS = ("numba_cpu", "triton_gpu")  # a copy of the package may leave them out, with their line in dispatch.py
LEFT_OUT = tuple(f"{name}/" for name in BACKENDS if name not in FOLDERS)
OLDER = {"CHANGELOG.md"}  # which names flags of earlier versions
IDENTIFIER = re.compile(r"[A-Za-z_][\w.]*")


class Document:
    """A Markdown file: its blocks of code, its sentences, and what stands between backticks in these."""

    def __init__(self, path):
        self.path = path
        self.text = (ROOT / path).read_text(encoding="utf-8")
        self.blocks = [(language, text) for _, language, text in FENCE.findall(self.text)]
        self.prose = FENCE.sub("", self.text)
        self.code = re.findall(r"`([^`\n]+)`", self.prose)

    def headings(self):
        """Anchors that GitHub and the site make of headings, and those that are written out."""
        titles = re.findall(r"^#+ +(.*?) *#*$", self.prose, re.M)
        made = {
            re.sub(r"[^\w -]", "", re.sub(r"\{.*\}", "", title).lower()).strip().replace(" ", "-") for title in titles
        }
        return made | set(re.findall(r"(?:\{ *#|id=\"|name=\")([\w-]+)", self.text))

    def links(self):
        """Targets of links and pictures."""
        found = re.findall(r"\]\(<?([^)\s>]+)", self.prose)
        return found + re.findall(r"(?:src|href)=\"([^\"]+)\"", self.prose)

    def commands(self):
        """In a block a command ends where its explanation starts, two spaces on; in a sentence at the closing mark."""
        lines = [line.strip().removeprefix("$ ") for _, text in self.blocks for line in text.splitlines()]
        return [line.split("  ")[0].split(" #")[0] for line in lines] + self.code


@cache
def document(path):
    return Document(path)


def every(find):
    """-> a document and the list of what `find` gives of it, for all that have some: parameters of a test."""
    found = {path: list(dict.fromkeys(find(document(path)))) for path in DOCUMENTS}
    some = [pytest.param(path, items, id=path) for path, items in found.items() if items]
    assert some, "there is nothing to test"
    return pytest.mark.parametrize(("path", "found"), some)


def exists(written):
    """Whether a path is there, or is the end of one that is: each document starts where its reader is."""
    if any(name in f"{written}/" for name in LEFT_OUT):
        return True
    wanted = re.sub(r"^(\.\./|\./)+", "", written).rstrip("/").replace("…", "*")
    return any(fnmatch(there, wanted) or fnmatch(there, f"*/{wanted}") for there in PATHS)


# --- links and paths


def leads_somewhere(path, link):
    target, _, heading = link.partition("#")
    own = [f"{REPOSITORY}/{view}/main/" for view in ("blob", "tree", "raw")]
    own += [REPOSITORY.replace("github.com", "raw.githubusercontent.com") + "/main/"]
    for start in own if REPOSITORY else ():
        if target.startswith(start):
            place = ROOT / target.removeprefix(start)
            break
    else:
        if re.match(r"[a-z]+:", target):
            return True
        place = (ROOT / path).parent / target if target else ROOT / path
    if not (place.exists() and heading and place.suffix == ".md"):
        return place.exists()
    return heading in document(place.resolve().relative_to(ROOT.resolve()).as_posix()).headings()


@every(Document.links)
def test_links_lead_somewhere(path, found):
    assert not [link for link in found if not leads_somewhere(path, link)]


def paths_of(self):
    """Python and Markdown files anywhere; other paths between backticks that begin with a folder of ours."""
    text = re.sub(r"\w+://[^\s)>\"]+", "", self.text)
    found = re.findall(r"(?<![\w./-])[\w./-]*\w\.(?:py|md)\b(?![\w/-])", text)
    ours = FOLDERS - {"torchplastic"}  # which begins the names of environments
    found += [code for code in self.code if re.fullmatch(r"[\w.-]+/[\w./…*-]*", code) and code.split("/")[0] in ours]
    return [each for each in found if not PLACEHOLDER.search(each) or re.search(r"[A-Z]{5,}\.md$", each)]


@every(paths_of)
def test_paths_exist(path, found):
    assert not [written for written in found if not exists(written)]


# --- tests and functions


def named_in_files(self):
    """(file, name): names between backticks that come right after a Python file, one after the other."""
    for line in self.prose.splitlines():
        file = None
        for code, after in re.findall(r"`([^`]+)`([^`]*)", line):
            name = code.partition("[")[0].partition("(")[0]
            if re.fullmatch(r"[\w./]+\.py", code):
                file = code
            elif re.fullmatch(r"[\w./]+\.py::\w+", code):
                yield tuple(code.split("::"))
            elif file and IDENTIFIER.fullmatch(name):
                yield file, name
            if after.strip(" ,"):
                file = None


@every(named_in_files)
def test_names_stand_in_their_files(path, found):
    def stands(file, name):
        files = [ROOT / there for there in PATHS if there == file or there.endswith(f"/{file}")]
        word = re.compile(rf"\b{re.escape(name.rpartition('.')[2])}\b")
        return any(word.search(there.read_text(encoding="utf-8")) for there in files)

    assert not [pair for pair in found if not stands(*pair)]


@every(lambda self: [code for code in self.code if re.fullmatch(r"test_(?!error$)\w+", code)])  # a key of metrics
def test_tests_that_are_named_exist(path, found):
    assert set(found) <= functions_of_tests()


@cache
def functions_of_tests():
    return {name for there in TESTS for name in re.findall(r"def (test_\w+)", (ROOT / there).read_text("utf-8"))}


# --- names in Python


@every(lambda self: re.findall(r"(?<![\w./])(?:tp|torchplastic)\.[A-Za-z_][\w.]*\w", self.text))
def test_public_names_exist(path, found):
    for name in found:
        if not re.search(r"\.(py|md|git|com|org|io)$", name):
            pkgutil.resolve_name(re.sub(r"^tp\.", "torchplastic.", name))


@every(lambda self: [text for language, text in self.blocks if language in ("py", "python")])
def test_python_blocks_run(path, found, tmp_path, monkeypatch):
    """Those of a document in turn: a later one has the names of those before it."""
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    with torch.random.fork_rng(devices=[]):
        for text in found:
            exec(compile(text, path, "exec"), names)


# --- the command, and make


@cache
def help_of(*command):
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), pytest.raises(SystemExit) as stop:
        cli.main([*command, "--help"])
    assert stop.value.code == 0
    return shown.getvalue()


@cache
def help_of_every_experiment():
    return "".join(help_of("train", name) for name in CATALOG)


def is_placeholder(word):
    return bool(PLACEHOLDER.search(word) or "…" in word)


def commands_of(self):
    return [text for text in self.commands() if re.match(r"plastic [a-z-]", text)]


@every(commands_of)
def test_commands_name_what_exists(path, found):
    for text in found:
        check_command(text)


def check_command(text):
    _, command, *words = shlex.split(text)
    if command in ("--help", "--version"):
        return
    assert command in COMMANDS
    names = [word for word in words if re.fullmatch(r"[a-z][a-z-]*", word)]
    described = help_of(command)
    if command in ("train", "sweep") and "--resume" not in words and words:
        if is_placeholder(words[0]):
            described += help_of_every_experiment()
        else:
            described += help_of("train", words[0])
            preset = words[words.index("--preset") + 1] if "--preset" in words else "quick"
            assert is_placeholder(preset) or preset in catalog.get(words[0]).presets
    elif command == "bench":
        assert {name for name in names if words[words.index(name) - 1][:2] != "--"} <= set(suites.SUITES)
    for flag in (word for word in words if word.startswith("--")):
        assert re.search(rf"{re.escape(flag)}(?![\w-])", described), flag


def test_workflows_run_commands_that_exist():
    files = [path for path in PATHS if path.startswith(".github/workflows/")]
    found = [text for path in files for text in re.findall(r"/(plastic [a-z-].*)", (ROOT / path).read_text("utf-8"))]
    assert len(found) > 2
    for text in found:
        check_command(text)


def test_every_command_is_shown_somewhere():
    shown = {shlex.split(text)[1] for path in DOCUMENTS for text in commands_of(document(path))}
    assert set(COMMANDS) <= shown


@pytest.mark.parametrize(
    ("experiment", "preset"), [("images", "quick"), ("omniglot", "quick"), ("omniglot", "paper"), ("maze", "quick")]
)
def test_list_has_the_times_that_were_measured(experiment, preset):
    entry = CATALOG[experiment]
    assert entry.presets[preset].cost in (ROOT / "docs" / "results" / f"{entry.module}.md").read_text(encoding="utf-8")


@every(lambda self: [code for code in self.code if re.match(r"--[a-z]", code) and self.path not in OLDER])
def test_flags_exist(path, found):
    known = "".join(help_of(command) for command in COMMANDS) + help_of_every_experiment()
    flags = [flag for flag in (code.split()[0] for code in found) if not is_placeholder(flag)]
    assert not [flag for flag in flags if not re.search(rf"{re.escape(flag)}(?![\w-])", known)]


@every(lambda self: [word for text in self.commands() for word in re.findall(r"^make ([a-z][\w-]*)", text)])
def test_make_targets_exist(path, found):
    assert set(found) <= set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))


PAGE = """
# A heading

[a](nowhere.md) [b](page.md#no-heading) [c](page.md#a-heading) `ops/nothing/`, `ops/test_none.py` `test_unwritten`.

```
plastic list  what there is
make nothing
```
`plastic fly`
"""


def test_what_is_not_there_is_found(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    monkeypatch.setitem(globals(), "document", Document)
    (tmp_path / "page.md").write_text(PAGE)
    page = Document("page.md")
    assert [leads_somewhere("page.md", link) for link in page.links()] == [False, False, True]
    missing = {path for path in paths_of(page) if not exists(path)}
    assert missing == {"nowhere.md", "page.md", "ops/nothing/", "ops/test_none.py"}
    assert list(named_in_files(page)) == [("ops/test_none.py", "test_unwritten")]
    assert commands_of(page) == ["plastic list", "plastic fly"]
    for text in ("plastic fly", "plastic train maze --no-flag", "plastic bench nothing"):
        with pytest.raises(AssertionError):
            check_command(text)
