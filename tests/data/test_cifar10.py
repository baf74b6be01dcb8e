"""CIFAR-10 in each of its layouts, and what is refused."""

import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.files import BATCHES, archive, binary_folder, python_folder
from torchplastic.data import cifar10


def sums(rows):
    return torch.from_numpy(rows[:, 1:].reshape(-1, 3, 32, 32).sum(1, dtype=np.int16))


@pytest.mark.parametrize("make", [binary_folder, python_folder])
@pytest.mark.parametrize("inside", [False, True])
def test_a_folder(tmp_path, make, inside):
    made = make(tmp_path)
    folder = next(tmp_path.iterdir())
    pictures = cifar10.read(cifar10.find(folder if inside else tmp_path))
    assert torch.equal(pictures.train, torch.cat([sums(made[name]) for name in BATCHES[:5]]))
    assert torch.equal(pictures.validation, sums(made["test_batch"]))
    assert "20 to train on, 4 for validation (the official set has 50,000 and 10,000)" in pictures.source


@pytest.mark.parametrize("make", [binary_folder, python_folder])
def test_an_archive_must_hold_all(tmp_path, make, monkeypatch):
    made = make(tmp_path / "made")
    folder = next((tmp_path / "made").iterdir())
    path = tmp_path / ("cifar-10-binary.tar.gz" if make is binary_folder else "cifar-10-python.tar.gz")
    archive(folder, path)
    with pytest.raises(ValueError, match=r"holds 24 pictures; the official archive has 60,000"):
        cifar10.read(cifar10.find(tmp_path))
    monkeypatch.setattr(cifar10, "FULL", (20, 4))
    pictures = cifar10.read(cifar10.find(tmp_path))
    assert torch.equal(pictures.validation, sums(made["test_batch"]))
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:40], b"words", b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=path.name):
            cifar10.read(path)


def refused(tmp_path, *words):
    with pytest.raises(ValueError, match=r".") as error:
        cifar10.read(cifar10.find(tmp_path))
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_damaged_batches_are_named(tmp_path):
    binary_folder(tmp_path)
    path = tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    refused(tmp_path, "data_batch_3.bin is truncated or foreign", "12,291 bytes")
    path.write_bytes(b"")
    refused(tmp_path, "data_batch_3.bin is truncated")
    path.write_bytes(b"\xff" * len(whole))
    refused(tmp_path, "a label is 255")
    path.unlink()
    refused(tmp_path, "lacks data_batch_3.bin")


def test_a_pickle_executes_nothing(tmp_path):
    python_folder(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_2"
    proof = tmp_path / "executed"

    class Poison:
        def __reduce__(self):
            return os.mkdir, (str(proof),)

    for content in ({b"data": Poison()}, Poison(), {b"data": [np.zeros(3), Poison()]}):
        path.write_bytes(pickle.dumps(content, protocol=2))
        refused(tmp_path, "data_batch_2 is refused: it asks for posix.mkdir")
    assert not proof.exists()
    path.write_bytes(pickle.dumps(Path("x")))
    refused(tmp_path, "is refused")
    whole = pickle.dumps({b"data": np.zeros((2, 3072), np.uint8)})
    for content in (whole[:60], b"words", b"", pickle.dumps(7), pickle.dumps({b"data": 7}), pickle.dumps({})):
        path.write_bytes(content)
        refused(tmp_path, "data_batch_2 is")
    path.write_bytes(pickle.dumps({b"data": np.zeros((2, 3), np.uint8)}))
    refused(tmp_path, "not uint8 [n, 3,072]")


def test_nothing_is_found_where_nothing_is(tmp_path):
    assert cifar10.find(tmp_path) is None
    (tmp_path / "notes.txt").write_text("words")
    assert cifar10.find(tmp_path / "notes.txt") is None
    with tarfile.open(tmp_path / "other.tar", "w") as file:
        file.add(tmp_path / "notes.txt", "notes.txt")
    with pytest.raises(ValueError, match="lacks data_batch_1, data_batch_2"):
        cifar10.read(cifar10.find(tmp_path / "other.tar"))


@pytest.mark.data
def test_the_real_pictures():
    folder = os.environ.get("TORCHPLASTIC_DATA")
    found = cifar10.find(Path(folder)) if folder else None
    if found is None:
        pytest.skip("needs TORCHPLASTIC_DATA with CIFAR-10")
    pictures = cifar10.read(found)
    assert (len(pictures.train), len(pictures.validation)) == cifar10.FULL
    assert pictures.train.float().mean().item() == pytest.approx(3 * 121, rel=0.02)  # the mean gray of CIFAR-10
