"""What README.md shows runs, and what it names exists: commands, experiments, forms, flags, links, make targets."""

import contextlib
import io
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

pytest.importorskip("tyro", reason="the command needs the extra lab")

from torchplastic import cli
from torchplastic.bench import suites
from torchplastic.cli.commands import COMMANDS as COMMANDS_THERE
from torchplastic.experiments import registry
from torchplastic.experiments.catalog import CATALOG

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.M | re.S)
PYTHON = [text for language, text in BLOCKS if language == "python"]
#: Commands in a block end where their explanation starts, two spaces on; those in a sentence at the closing mark.
COMMANDS = [
    *(line.split("  ")[0] for _, text in BLOCKS for line in text.splitlines() if line.startswith("plastic ")),
    *(code for code in re.findall(r"`(plastic [^`]+)`", re.sub(r"^```.*?^```$", "", README, flags=re.M | re.S))),
]


@cache
def help_of(*command):
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), pytest.raises(SystemExit) as stop:
        cli.main([*command, "--help"])
    assert stop.value.code == 0
    return shown.getvalue()


def test_there_is_something_to_test():
    assert PYTHON
    assert {shlex.split(command)[1] for command in COMMANDS} == set(COMMANDS_THERE)


@pytest.mark.parametrize("block", PYTHON)
def test_python_blocks_run(block):
    exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("text", COMMANDS)
def test_commands_name_what_exists(text):
    _, command, *words = shlex.split(text)
    assert command in COMMANDS_THERE
    names = [word for word in words if re.fullmatch(r"[a-z][a-z-]*", word)]
    described = help_of(command)
    if command in ("train", "sweep") and "--resume" not in words:
        described += help_of("train", words[0])
        form = words[words.index("--form") + 1] if "--form" in words else "quick"
        assert form in registry.get(words[0]).forms
    elif command == "bench":
        assert set(names) <= set(suites.SUITES)
    for flag in (word for word in words if word.startswith("--")):
        assert re.search(rf"{re.escape(flag)}\b", described), flag


RESULTS = {page.stem: page.read_text() for page in (ROOT / "docs" / "results").glob("*.md")}


@pytest.mark.parametrize(
    ("experiment", "preset"), [("images", "quick"), ("omniglot", "quick"), ("omniglot", "paper"), ("maze", "quick")]
)
def test_list_has_the_times_that_were_measured(experiment, preset):
    assert CATALOG[experiment].presets[preset].cost in RESULTS[CATALOG[experiment].module]


def test_times_in_the_readme_are_those_of_the_results():
    for time in re.findall(r"[\d.]+ minutes", README):
        assert any(re.search(rf"(?<![\d.]){re.escape(time)}", page) for page in RESULTS.values()), time


def test_links_lead_to_files():
    links = [*re.findall(r"\]\(([^)]+)\)", README), *re.findall(r'src="([^"]+)"', README)]
    assert links
    for link in links:
        path, _, heading = link.partition("#")
        assert (ROOT / path).exists(), link
        if heading:
            titles = re.findall(r"^#+ (.*)$", (ROOT / path).read_text(), re.M)
            assert heading in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, link


def test_make_targets_exist():
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    named = re.findall(r"^make (\w+)", README, re.M)
    assert named
    assert set(named) <= set(targets)


def test_lines_are_short():
    assert max(len(line) for line in README.splitlines()) <= 120
