"""The reference of the site has every public name and every command."""

import re
from pathlib import Path

import pytest

import torchplastic as tp

ROOT = Path(__file__).parents[1]
SHOWN = {
    name
    for page in (ROOT / "docs" / "reference").glob("*.md")
    for name in re.findall(r"^::: (.+)$", page.read_text(), re.M)
}


def test_the_reference_has_every_public_name_and_no_other():
    public = {f"torchplastic.{name}" for name in tp.__all__ if name != "functional"}
    public |= {f"torchplastic.functional.{name}" for name in tp.functional.__all__}
    assert {name for name in SHOWN if name.startswith("torchplastic.")} == public


def test_the_reference_has_every_command():
    pytest.importorskip("tyro", reason="the command needs the extra lab")
    from torchplastic.cli.commands import COMMANDS

    assert {name.split()[1] for name in SHOWN if name.startswith("plastic ")} == set(COMMANDS)
