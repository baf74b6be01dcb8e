"""Classes of pictures: folders of the user's, drawings with dark and light ink, synthetic glyphs."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.files import picture
from torchplastic.data.classes import Classes, read_drawing, read_folder, smaller, synthetic_glyphs


def stroke(path, ink, paper, size=(62, 62), mode="L"):
    """A thick vertical line in the left half."""
    pixels = np.full(size, paper, np.uint8)
    pixels[10:-10, 14:20] = ink
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def test_dark_and_light_ink_are_the_same(tmp_path):
    dark = read_drawing(stroke(tmp_path / "dark.png", 0, 255))
    light = read_drawing(stroke(tmp_path / "light.png", 255, 0))
    coloured = read_drawing(stroke(tmp_path / "rgb.png", 0, 255, mode="RGB"))
    assert dark.dtype == torch.uint8
    assert dark.shape == (31, 31)
    assert torch.equal(dark, light)
    assert torch.equal(dark, coloured)
    assert dark[15, 8] == 255
    assert dark[15, 20] == dark[0, 0] == 0
    assert torch.equal(read_drawing(tmp_path / "dark.png", ink="light"), 255 - dark)


def test_what_is_transparent_is_paper(tmp_path):
    pixels = np.zeros((40, 40, 4), np.uint8)  # black and transparent
    pixels[10:30, 18:22, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "clear.png")
    drawing = read_drawing(tmp_path / "clear.png", 20)
    assert drawing[10, 9] == 255
    assert drawing[0].max() == 0


@pytest.mark.parametrize(("size", "expected"), [((40, 20), (0, 20)), ((20, 40), (20, 0))])
def test_a_picture_that_is_not_square_is_set_on_paper(tmp_path, size, expected):
    pixels = np.full(size, 255, np.uint8)
    pixels[0, 0] = 0
    Image.fromarray(pixels).save(tmp_path / "a.png")
    drawing = read_drawing(tmp_path / "a.png", 40)
    assert drawing.shape == (40, 40)
    row, column = (place // 2 for place in expected)
    assert drawing.nonzero().tolist() == [[row, column]]


def test_smaller_is_the_mean_of_the_area():
    pictures = torch.arange(3 * 16, dtype=torch.uint8).view(3, 4, 4)
    expected = pictures.float().unflatten(1, (2, 2)).unflatten(3, (2, 2)).mean((2, 4)).round()
    assert torch.equal(smaller(pictures, 2), expected.byte())
    assert smaller(torch.ones(1, 105, 105, dtype=torch.bool), 31).eq(255).all()


def test_a_folder(tmp_path):
    for name, count in (("b/one", 3), ("b/two", 2), ("a/three", 4)):
        for i in range(count):
            picture(tmp_path / name / f"{i}.jpg", seed=i)
    classes = read_folder(tmp_path, 12)
    assert classes.names == ("a/three", "b/one", "b/two")
    assert classes.groups == ("a", "b", "b")
    assert classes.counts.tolist() == [4, 3, 2]
    assert classes.first.tolist() == [0, 4, 7]
    assert classes.pictures.shape == (9, 12, 12)
    part = classes.part(torch.tensor([True, False, True]), "some")
    assert part.names == ("a/three", "b/two")
    assert part.groups == ("a", "b")
    assert torch.equal(part.pictures, classes.pictures[[0, 1, 2, 3, 7, 8]])
    assert part.digest != classes.digest


def test_a_folder_without_classes(tmp_path):
    picture(tmp_path / "a" / "1.png")
    with pytest.raises(ValueError, match="holds 1 folders with pictures; few-shot learning needs at least 2"):
        read_folder(tmp_path, 12)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "2.png").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"b.2\.png is no readable picture"):
        read_folder(tmp_path, 12)


def test_counts_must_fit():
    with pytest.raises(ValueError, match="3 pictures, 2 counts of 4 pictures and 2 names"):
        Classes(torch.zeros(3, 2, 2, dtype=torch.uint8), torch.tensor([2, 2]), ("a", "b"))


def test_the_stand_in_is_labelled_and_the_same_each_time():
    classes = synthetic_glyphs(16)
    assert classes.source.startswith("synthetic data, not Omniglot: ")
    assert torch.equal(classes.pictures, synthetic_glyphs(16).pictures)
    each = classes.pictures.float().flatten(1).unflatten(0, (len(classes), -1))
    within = (each[:, :1] - each[:, 1:]).norm(dim=-1).mean()
    between = (each[:-1, :1] - each[1:, 1:]).norm(dim=-1).mean()
    assert 0 < within < between
