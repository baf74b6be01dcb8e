"""The examples run, learn, and agree."""

import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from torchplastic.data.classes import synthetic_glyphs

EXAMPLES = Path(__file__).parents[1] / "examples"
LEARNING = ("01_whole_method.py", "02_same_with_torchplastic.py")
BITS = 30


@pytest.fixture
def run_example(run_process):
    """Start an example -> a function that waits for its end and returns the printed lines; a warning ends it."""

    def start(name, *arguments):
        process = run_process.start([sys.executable, "-W", "error", EXAMPLES / name, *arguments])

        def lines():
            out, error = process.finish()
            assert process.returncode == 0, error
            return out.splitlines()

        return lines

    return start


def errors(lines):
    """(squared error, wrong bits in %) of every line."""
    found = [re.search(r"squared error +([\d.]+) +wrong bits +([\d.]+) %", line) for line in lines]
    return [(float(squared), float(wrong)) for squared, wrong in (match.groups() for match in found)]


def test_both_learn_and_are_the_same_network(run_example):
    """The same seed and start: the first error is equal to the digits printed, later ones up to rounding that grows."""
    plain, layer = (errors(lines()) for lines in [run_example(name) for name in LEARNING])
    for (first_squared, first_wrong), *_, (last_squared, last_wrong) in (plain, layer):
        # half the bits are dark and unknown: an expected square of 1 each, and half of them wrong
        assert first_squared == pytest.approx(BITS / 2, rel=0.1)
        assert first_wrong == pytest.approx(25, abs=5)
        assert last_squared < first_squared / 5
        assert last_wrong < 5
    assert plain[0] == layer[0]
    assert plain[1][0] == pytest.approx(layer[1][0], rel=0.2)


def pen_drawing(path, points, seed):
    """A closed or open stroke through points 0 … 1, by an unsteady hand, black on white."""
    random = np.random.default_rng(seed)
    picture = Image.new("L", (105, 105), 255)
    moved = np.asarray(points) * 0.7 + 0.15 + random.normal(0, 0.02, (len(points), 2))
    ImageDraw.Draw(picture).line([(float(x), float(y)) for x, y in 104 * moved], fill=0, width=3, joint="curve")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


ROUND = [(0.5 + 0.5 * math.cos(k / 3), 0.5 + 0.5 * math.sin(k / 3)) for k in range(20)]
SHAPES = {
    "circle": ROUND,
    "cross": [(0, 0), (1, 1), (0.5, 0.5), (1, 0), (0, 1)],
    "stairs": [(0, 0), (0, 0.33), (0.33, 0.33), (0.33, 0.66), (0.66, 0.66), (0.66, 1), (1, 1)],
    "triangle": [(0.5, 0), (1, 1), (0, 1), (0.5, 0)],
    "fork": [(0, 0), (0, 0.5), (1, 0.5), (1, 0), (1, 0.5), (0.5, 0.5), (0.5, 0), (0.5, 1)],
}


def test_five_drawings_of_ones_own(tmp_path, run_example):
    """The trained network classifies shapes from one drawing of each."""
    for seed, (name, points) in enumerate(SHAPES.items()):
        pen_drawing(tmp_path / "support" / f"{name}.png", points, seed)
        pen_drawing(tmp_path / "query" / f"my {name}.png", points, 100 + seed)
    lines = run_example("03_classify_your_drawings.py", tmp_path / "support", tmp_path / "query")()
    assert len(lines) == 5
    expected = [rf"my {name}\.png looks like {name}\.png \(\d+%\)" for name in sorted(SHAPES)]
    assert sum(bool(re.fullmatch(words, line)) for words, line in zip(expected, lines, strict=True)) >= 4


def test_few_shot_on_a_folder(tmp_path, run_example):
    glyphs = synthetic_glyphs(62)
    for c in range(45):
        for d in range(6):
            path = tmp_path / f"glyph {c:02d}" / f"{d}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(255 - glyphs.pictures[glyphs.first[c] + d].numpy()).save(path)
    lines = run_example("04_few_shot_on_your_folder.py", tmp_path)()
    learned(lines)


def learned(lines):
    """The network of example 04 classifies classes that its training never used."""
    right = [float(re.search(r"not used in training ([\d.]+)%", line)[1]) for line in lines]
    assert len(right) == 4
    assert right[-1] > max(70, right[0] + 10)


def test_synthetic_glyphs_without_a_folder(tmp_path, run_example, monkeypatch):
    """Both examples print that they draw glyphs, and into which folder; the drawings remain there."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("TEMP", str(tmp_path))  # on Windows
    note, *answers = run_example("03_classify_your_drawings.py")()
    assert "synthetic glyphs, drawn into" in note
    assert len(list(Path(note.rpartition(" into ")[2]).glob("*/*.png"))) == 10
    assert len(answers) == 5
    found = [re.fullmatch(r"(glyph_\d\.png) looks like (glyph_\d\.png) \(\d+%\)", line).groups() for line in answers]
    assert sum(query == support for query, support in found) >= 4
    note, *lines = run_example("04_few_shot_on_your_folder.py")()
    assert len(list(Path(note.rpartition(" into ")[2]).glob("*/*.png"))) == 45 * 6
    learned(lines)


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("03_classify_your_drawings.py", ["one"], "expected two folders, or none to try synthetic glyphs; got 1"),
        ("03_classify_your_drawings.py", ["none", "empty"], "expected 1 to 5 and at least 1 PNG drawings; got 0 and 0"),
        ("04_few_shot_on_your_folder.py", ["one", "two"], "unrecognized arguments: two"),
        ("04_few_shot_on_your_folder.py", ["empty"], "empty holds 0 folders with pictures"),
    ],
)
def test_wrong_use_is_one_line(name, arguments, words, tmp_path, run_process):
    (tmp_path / "empty").mkdir()
    error = run_process([sys.executable, "-W", "error", EXAMPLES / name, *arguments], code=2, cwd=tmp_path).error
    assert error.startswith(f"usage: {name} [")
    assert words in error
    assert "Traceback" not in error


def matched(lines):
    """(accuracy on new episodes, parameters) that the delayed match-to-sample prints."""
    (line,) = lines
    found = re.fullmatch(r"\w+: ([\d.]+)% of 2000 new episodes .* ([\d,]+) parameters", line)
    return float(found[1]), int(found[2].replace(",", ""))


def test_a_plastic_network_matches_to_sample_after_a_delay(run_example):
    accuracy, parameters = matched(run_example("05_delayed_match_to_sample.py")())
    assert accuracy > 95
    # w and alpha, eta, the input weights and bias, the readout
    assert parameters == 2 * 64 * 64 + 1 + (16 + 1) * 64 + (64 + 1) * 2


@pytest.mark.parametrize("layer", ["lstm", "fixed"])
def test_without_plasticity_as_many_updates_leave_it_at_chance(layer, run_example):
    """Of 2000 guesses the share that is right lies more than 5 % from a half once in some 100,000 times."""
    assert matched(run_example("05_delayed_match_to_sample.py", f"--{layer}")())[0] == pytest.approx(50, abs=5)
