"""The examples run, learn, and agree."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
LEARNING = ("01_whole_method.py", "02_same_with_torchplastic.py")
BITS = 30


@cache
def errors(name):
    """(squared error, wrong bits in %) of every line that the example prints."""
    run = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name], capture_output=True, text=True, check=True, timeout=120
    )
    found = re.findall(r"squared error +([\d.]+) +wrong bits +([\d.]+) %", run.stdout)
    assert len(found) == len(run.stdout.splitlines())
    return [(float(squared), float(wrong)) for squared, wrong in found]


@pytest.mark.parametrize("name", LEARNING)
def test_it_learns(name):
    (first_squared, first_wrong), *_, (last_squared, last_wrong) = errors(name)
    # half the bits are dark and unknown: an expected square of 1 each, and half of them wrong
    assert first_squared == pytest.approx(BITS / 2, rel=0.1)
    assert first_wrong == pytest.approx(25, abs=5)
    assert last_squared < first_squared / 5
    assert last_wrong < 5


def test_both_are_the_same_network():
    """The same seed and start: the first error is equal to the digits printed, later ones up to rounding that grows."""
    plain, layer = (errors(name) for name in LEARNING)
    assert plain[0] == layer[0]
    assert plain[1][0] == pytest.approx(layer[1][0], rel=0.2)
