"""What README.md shows runs, and what it names exists: commands, experiments, presets, flags, links, make targets."""

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
from torchplastic.experiments import registry

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
FILES = "https://github.com/torchplastic/torchplastic/blob/main/"
PICTURES = "https://raw.githubusercontent.com/torchplastic/torchplastic/main/"
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
    assert {shlex.split(command)[1] for command in COMMANDS} == set(cli.COMMANDS)


@pytest.mark.parametrize("block", PYTHON)
def test_python_blocks_run(block):
    exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("text", COMMANDS)
def test_commands_name_what_exists(text):
    _, command, *words = shlex.split(text)
    assert command in cli.COMMANDS
    names = [word for word in words if re.fullmatch(r"[a-z][a-z-]*", word)]
    described = help_of(command)
    if command in ("train", "sweep") and "--resume" not in words:
        described += help_of("train", words[0])
        preset = words[words.index("--preset") + 1] if "--preset" in words else "quick"
        assert preset in registry.get(words[0]).presets
    elif command == "bench":
        assert set(names) <= set(suites.SUITES)
    for flag in (word for word in words if word.startswith("--")):
        assert re.search(rf"{re.escape(flag)}\b", described), flag


def test_links_lead_to_files():
    """Links are absolute, because the text is also shown away from the repository: those to its files are checked."""
    links = {*re.findall(r"\]\(([^)]+)\)", README), *re.findall(r'src="([^"]+)"', README)}
    named = dict(re.findall(r"^\[([\w-]+)\]: (\S+)$", README, re.M))
    prose = re.sub(r"^```.*?^```$", "", README, flags=re.M | re.S)
    assert set(re.findall(r"\]\[([\w-]+)\]", prose)) == set(named)
    links |= set(named.values())
    assert all(link.startswith("https://") for link in links)
    own = [link.removeprefix(base) for link in links for base in (FILES, PICTURES) if link.startswith(base)]
    assert own
    for link in own:
        path, _, heading = link.partition("#")
        assert (ROOT / path).exists(), link
        if heading:
            titles = re.findall(r"^#+ (.*)$", (ROOT / path).read_text(), re.M)
            assert heading in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, link


def test_make_targets_exist():
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    named = re.findall(r"\bmake ([\w-]+)`", README)
    assert named
    assert set(named) <= set(targets)


def test_lines_are_short():
    assert max(len(line) for line in README.splitlines()) <= 120
