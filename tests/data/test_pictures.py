"""Folders of pictures, and the built-in photograph."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.files import binary_folder, jpeg_bytes, picture
from torchplastic.data.pictures import channel_sums, photograph_patches, read_folder
from torchplastic.data.resolve import load_pictures


def test_pictures_of_mixed_sizes_become_squares_and_the_last_are_for_validation(tmp_path):
    for i in range(40):
        ending = (".jpg", ".png", ".JPEG", ".bmp")[i % 4]
        picture(tmp_path / f"sub{i % 3}" / f"{i:02d}{ending}", 20 + i, 60 - i, seed=i)
    (tmp_path / "sub0" / "notes.txt").write_text("not a picture")
    pictures = read_folder(tmp_path, 8)
    assert pictures.train.shape == (36, 8, 8)
    assert pictures.validation.shape == (4, 8, 8)
    assert pictures.side == 8
    assert pictures.train.min() >= 0
    assert pictures.train.max() <= 765
    names = sorted(tmp_path.rglob("*.*"))
    last = [path for path in names if path.suffix != ".txt"][-1]
    with Image.open(last) as image:
        width, height = image.size
        edge = min(width, height)
        left, top = (width - edge) // 2, (height - edge) // 2
        cut = image.convert("RGB").resize((8, 8), Image.Resampling.LANCZOS, (left, top, left + edge, top + edge))
    difference = pictures.validation[-1] - channel_sums(np.asarray(cut))
    assert difference.abs().max() <= 30  # a JPEG is shrunk on the way
    assert "36 to train on, 4 for validation" in pictures.source


def test_sixteen_bits_are_not_cut_off(tmp_path):
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    for i in range(6):
        Image.fromarray(ramp).save(tmp_path / f"{i}.png")
    pictures = read_folder(tmp_path, 8)
    expected = torch.from_numpy(3 * (ramp.astype(np.int64) // 257)).short()
    assert torch.equal(pictures.train[0], expected)


def test_three_are_for_validation_of_few(tmp_path):
    for i in range(10):
        picture(tmp_path / f"{i}.png", seed=i)
    pictures = load_pictures(tmp_path, 6)
    assert (len(pictures.train), len(pictures.validation)) == (7, 3)


def test_the_sum_of_the_channels(generator):
    pixels = torch.randint(0, 256, (2, 4, 4, 3), generator=generator, dtype=torch.uint8)
    assert torch.equal(channel_sums(pixels.numpy()), pixels.short().sum(-1).short())


def test_what_is_no_data(tmp_path, monkeypatch):
    def refused(place, *words):
        with pytest.raises(ValueError, match=r".") as error:
            load_pictures(place, 32)
        for word in words:
            assert word in str(error.value)
        assert "\n" not in str(error.value)

    refused(tmp_path / "nothing", "nothing does not exist")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "empty is empty", "plastic data fetch cifar10")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("words")
    refused(tmp_path / "text", "holds neither CIFAR-10 nor pictures")
    refused(tmp_path / "text" / "a.txt", "holds neither")
    picture(tmp_path / "few" / "1.png")
    refused(tmp_path / "few", "holds 1 picture ", "at least 6")
    for i in range(7):
        picture(tmp_path / "torn" / f"{i}.jpg", seed=i)
    whole = (tmp_path / "torn" / "3.jpg").read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"words", jpeg_bytes()[:20]):
        (tmp_path / "torn" / "3.jpg").write_bytes(content)
        refused(tmp_path / "torn", "3.jpg is no readable picture")
    monkeypatch.setenv("TORCHPLASTIC_DATA", str(tmp_path / "empty"))
    monkeypatch.setattr("torchplastic.data.resolve.cache_folder", lambda: tmp_path / "cache")
    refused(None, "CIFAR-10 not found in", "or", "Put cifar-10-binary.tar.gz there", "--data-dir")


def test_without_a_name_cifar_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHPLASTIC_DATA", str(tmp_path))
    binary_folder(tmp_path)
    assert load_pictures(None, 32).source.startswith("CIFAR-10: 20 to train on, 4 for validation (the official set has")
    with pytest.raises(ValueError, match=r"32 × 32; task.side is 16"):
        load_pictures(None, 16)


def test_the_stand_in_says_that_it_is_one():
    pictures = photograph_patches(12)
    assert pictures.source.startswith("built-in data, no data set of natural images")
    assert pictures.train.shape[1:] == (12, 12)
    assert min(len(pictures.train), len(pictures.validation)) >= 20
    assert torch.equal(photograph_patches(12).train, pictures.train)
    train = {tuple(patch.flatten().tolist()) for patch in pictures.train}
    assert not train & {tuple(patch.flatten().tolist()) for patch in pictures.validation}
