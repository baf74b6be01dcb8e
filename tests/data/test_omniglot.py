"""Omniglot in its usual layouts, the fixed split, the compact copy, and what is refused."""

import hashlib
import os
import shutil
import zipfile
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.data.files import drawing, omniglot_folder, zipped
from torchplastic.data import omniglot, resolve
from torchplastic.data.omniglot import digest, find, fixed_split, load, read


def same(one, other):
    assert one.digests == other.digests
    assert torch.equal(one.drawings, other.drawings)
    assert torch.equal(one.background, other.background)


def test_every_layout_gives_the_same(small_omniglot, tmp_path):
    plain = read(find(small_omniglot))
    assert plain.drawings.shape == (16, 20, 105, 105)
    assert plain.background.tolist() == [True] * 9 + [False] * 7
    assert plain.split("fixed")[1].sum() == 6
    assert torch.equal(plain.split("background")[1], ~plain.background)
    assert set(plain.alphabets) == {"alphabet0", "alphabet1"}
    third = np.stack([~drawing(200 + d) for d in range(20)])
    assert torch.equal(plain.drawings[plain.digests.index(digest(third))], torch.from_numpy(third))

    zips = tmp_path / "zips" / "omniglot" / "python"
    zips.mkdir(parents=True)
    for part in ("images_background", "images_evaluation"):
        zipped(small_omniglot / part, zips / f"{part}.zip")
    paths = find(tmp_path / "zips")
    assert [path.suffix for path in paths] == [".zip", ".zip"]
    same(plain, read(paths))

    mixed = tmp_path / "mixed"
    shutil.copytree(small_omniglot / "images_background", mixed / "images_background")
    zipped(small_omniglot / "images_evaluation", mixed / "images_evaluation.zip", "some/folder/")
    same(plain, read(find(mixed)))


def test_what_other_systems_make_of_it(small_omniglot, tmp_path):
    """Zips with backslashes, names in capitals, and what a Mac or a network drive leaves beside the drawings."""
    plain, odd = read(find(small_omniglot)), tmp_path / "odd"
    shutil.copytree(small_omniglot / "images_background", odd / "images_background")
    first = next((odd / "images_background").rglob("*.png"))
    first.rename(first.with_suffix(".PNG"))
    for left in (first.with_name("._0001_01.png"), first.parent / "@eaDir" / first.name):
        left.parent.mkdir(exist_ok=True)
        left.write_bytes(b"no drawing")
    with zipfile.ZipFile(odd / "images_evaluation.zip", "w") as archive:
        for path in sorted((small_omniglot / "images_evaluation").rglob("*.png")):
            name = path.relative_to(small_omniglot).as_posix()
            archive.writestr(name.replace("/", "\\").replace(".png", ".PNG"), path.read_bytes())
            archive.writestr(f"__MACOSX/{name}", b"no drawing")
    same(plain, read(find(odd)))


def test_alphabets_may_be_lost(small_omniglot, tmp_path):
    lost = omniglot_folder(tmp_path / "lost", 9, 7, alphabet=lambda c: omniglot.UNKNOWN)
    characters = read(find(lost))
    assert set(characters.digests) == set(read(find(small_omniglot)).digests)
    assert characters.classes(31).groups is None
    assert set(read(find(small_omniglot)).classes(31).groups) == {"alphabet0", "alphabet1"}


@given(st.permutations(range(5)), st.integers(0, 4), st.integers(0, 10), st.integers(0, 10))
def test_a_digest_is_of_the_pixels_in_any_order(order, which, row, column):
    drawings = np.stack([~drawing(seed, 11) for seed in range(5)])
    assert digest(drawings[list(order)]) == digest(drawings)
    changed = drawings.copy()
    changed[which, row, column] ^= True
    assert digest(changed) != digest(drawings)


def test_the_fixed_split_is_the_file():
    split = fixed_split()
    assert (len(split.known), len(split.test)) == (1623, 100)
    assert split.test < split.known
    assert sorted(split.known)[:100] == sorted(split.test)  # the rule that the file states
    text = resources.files("torchplastic.data").joinpath("omniglot_split.txt").read_bytes()
    assert sorted(split.known)[100:200] == sorted(split.validation)
    assert split.digest == hashlib.sha256(text).hexdigest()[:16]


def test_the_copy_is_read_until_a_file_changes(small_omniglot, tmp_path, monkeypatch):
    paths = find(small_omniglot)
    first = load(paths)
    (copy,) = (tmp_path / "cache").iterdir()
    with monkeypatch.context() as patched:
        patched.setattr(omniglot, "read", lambda paths: pytest.fail("there is a copy"))
        same(first, load(paths))
    copy.write_bytes(copy.read_bytes()[:-200])  # torn
    same(first, load(paths))
    with monkeypatch.context() as patched:
        patched.setattr(omniglot, "read", lambda paths: pytest.fail("it was written anew"))
        same(first, load(paths))
    os.utime(next(small_omniglot.rglob("*.png")), (1, 1))
    read_again = []
    monkeypatch.setattr(omniglot, "read", lambda paths: read_again.append(paths) or first)
    load(paths)
    assert read_again == [paths]


def test_without_a_place_for_the_copy(small_omniglot, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setattr(omniglot, "cache_folder", lambda: tmp_path / "file")
    same(load(find(small_omniglot)), read(find(small_omniglot)))


def broken_png(small_omniglot):
    path = next((small_omniglot / "images_background").rglob("*.png"))
    path.write_bytes(path.read_bytes()[:60])
    return str(path.relative_to(small_omniglot / "images_background"))


def large_png(small_omniglot):
    path = next((small_omniglot / "images_evaluation").rglob("*.png"))
    Image.fromarray(np.ones((90, 105), bool)).save(path)
    return "105 × 90 pixels; Omniglot has 105 × 105"


def fewer_drawings(small_omniglot):
    next((small_omniglot / "images_evaluation").rglob("*.png")).unlink()
    return "19 drawings of alphabet"


def fewer_characters(small_omniglot):
    shutil.rmtree(next((small_omniglot / "images_background" / "alphabet0").iterdir()))
    return "holds 8 characters; images_background of Omniglot has 9"


def other_pixels(small_omniglot):
    for path in (small_omniglot / "images_background" / "alphabet1").rglob("*_01.png"):
        Image.fromarray(drawing(9999)).save(path)
    return "4 of 16 characters in .* are not in the fixed split"


@pytest.mark.thorough
@pytest.mark.parametrize("damage", [broken_png, large_png, fewer_drawings, fewer_characters, other_pixels])
def test_a_damaged_set_is_refused_in_one_line(small_omniglot, damage):
    words = damage(small_omniglot)
    with pytest.raises(ValueError, match=words) as refusal:
        read(find(small_omniglot))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("content", [b"", b"no zip", "torn"])
def test_a_broken_zip(small_omniglot, content):
    path = zipped(small_omniglot / "images_background", small_omniglot / "images_background.zip")
    shutil.rmtree(small_omniglot / "images_background")
    path.write_bytes(path.read_bytes()[:-3000] if content == "torn" else content)
    with pytest.raises(ValueError, match=r"images_background\.zip cannot be read, it is damaged"):
        read(find(small_omniglot))


def test_one_of_two(small_omniglot):
    shutil.rmtree(small_omniglot / "images_evaluation")
    with pytest.raises(ValueError, match=r"lacks images_evaluation\.zip .*plastic data fetch omniglot"):
        find(small_omniglot)


def test_where_it_is_looked_for(small_omniglot, tmp_path, monkeypatch):
    monkeypatch.setattr(resolve, "cache_folder", lambda: tmp_path / "nothing")
    monkeypatch.delenv("TORCHPLASTIC_DATA", raising=False)
    with pytest.raises(ValueError, match=r"Omniglot not found in .*nothing\. Put .* set TORCHPLASTIC_DATA"):
        resolve.load_characters(None)
    monkeypatch.setenv("TORCHPLASTIC_DATA", str(small_omniglot))
    assert len(resolve.load_characters(None).digests) == 16
    with pytest.raises(ValueError, match="does not exist"):
        resolve.load_characters(tmp_path / "gone")
    (tmp_path / "cache").mkdir(exist_ok=True)
    with pytest.raises(ValueError, match=r"Omniglot not found in .*cache"):
        resolve.load_characters(tmp_path / "cache")


@pytest.mark.data
def test_the_real_set():
    place = os.environ.get("TORCHPLASTIC_DATA")
    paths = find(Path(place)) if place else None
    if paths is None:
        pytest.skip("TORCHPLASTIC_DATA names no folder with Omniglot")
    characters = load(paths)
    assert len(set(characters.digests)) == 1623
    train, test, _ = characters.split("fixed")
    fewer, validation, _ = characters.split("validation")
    assert [int(part.sum()) for part in (train, test, fewer, validation)] == [1523, 100, 1423, 100]
    assert torch.equal(train, fewer | validation)
    assert not (fewer & validation).any()
    assert (int(test.sum()), int((test & characters.background).sum())) == (100, 65)
    assert characters.drawings.float().mean().item() == pytest.approx(0.08, abs=0.05)
