"""Damaged and foreign files: what is loaded is what was written, or one line names the file."""

import shutil
import struct
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import torchplastic as tp
from tests.command import plastic
from torchplastic.reading import read_weights, readable, weights_file
from torchplastic.runs import RunDirectory, RunError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run, small enough to damage it a thousand times."""
    out = tmp_path_factory.mktemp("runs") / "run"
    task = ["--task.bits", 12, "--task.patterns", 2, "--task.shown", 2, "--task.cycles", 1, "--task.test", 2]
    assert plastic("train", "patterns", "--preset", "smoke", *task, "--episodes", 4, "--out", out) == 0
    return out


def same(one, other):
    """Whether two values of a checkpoint, or of an archive, are equal bit for bit."""
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    return one == other or (one != one and other != other)


LOADERS = {
    "checkpoint.pt": RunDirectory.checkpoint,
    "model.safetensors": RunDirectory.weights,
    "samples.npz": RunDirectory.samples,
    "metrics.jsonl": RunDirectory.metrics,
    "summary.json": lambda run: run.summary,
    "config.json": lambda run: run.config,
}
DIGESTED = ("checkpoint.pt", "model.safetensors", "samples.npz")


def damaged(content, stream):
    """Flip a bit, change a few bytes, cut the end off, or put something else there."""
    content, kind = bytearray(content), stream.integers(6)
    if kind < 3:
        content[stream.integers(len(content))] ^= 1 << int(stream.integers(8))
    elif kind == 3:
        for place in stream.integers(0, len(content), 4):
            content[place] = int(stream.integers(256))
    elif kind == 4:
        content = content[: stream.integers(len(content))]
    else:
        start, stop = sorted(stream.integers(0, len(content), 2))
        content[start:stop] = stream.bytes(int(stream.integers(20)))
    return bytes(content)


def campaign(run, name, count, tmp_path):
    """Damage a file of a run `count` times -> how often it was refused; no other outcome is wrong."""
    copy = RunDirectory(shutil.copytree(run, tmp_path / "copy"))
    whole, path, stream = (run / name).read_bytes(), copy.path / name, np.random.default_rng(0)
    first, refused = LOADERS[name](copy), 0
    for _ in range(count):
        path.write_bytes(damaged(whole, stream))
        try:
            found = LOADERS[name](copy)
        except RunError as error:
            refused += 1
            said = str(error)
            if "\n" in said or str(copy.path) not in said or "weights_only" in said:
                pytest.fail(f"a bad line: {said}")
        else:
            if name in DIGESTED and not same(found, first):
                pytest.fail(f"damage {_} of {name} went unnoticed")
    return refused


@pytest.mark.parametrize("name", LOADERS)
def test_damage_is_noticed(run, name, tmp_path):
    assert campaign(run, name, 60, tmp_path) > 15


@pytest.mark.slow
@pytest.mark.parametrize("name", LOADERS)
def test_damage_is_noticed_a_thousand_times(run, name, tmp_path):
    print(f"{name}: {campaign(run, name, 1000, tmp_path)} of 1,000 refused, the others equal or plain JSON")


def test_a_checkpoint_that_unpacks_to_gigabytes(run, tmp_path):
    copy = RunDirectory(shutil.copytree(run, tmp_path / "copy"))
    path = copy.path / "checkpoint.pt"
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(tmp_path / "bomb", "w", zipfile.ZIP_DEFLATED) as bomb:
        for part in archive.namelist():
            bomb.writestr(part, bytes(1 << 24) if part.endswith("data/0") else archive.read(part))
    shutil.move(tmp_path / "bomb", path)
    with pytest.raises(RunError, match=r"checkpoint\.pt cannot be read.*its parts are compressed"):
        copy.checkpoint()


class Evil:
    def __reduce__(self):
        return print, ("executed",)


def test_nothing_is_executed_and_no_advice_to_do_so(run, tmp_path, capsys):
    copy = RunDirectory(shutil.copytree(run, tmp_path / "copy"))
    torch.save({"model": Evil(), "optimizer": 1, "episode": 1}, copy.path / "checkpoint.pt")
    with pytest.raises(RunError, match=r"checkpoint\.pt cannot be read") as caught:
        copy.checkpoint()
    assert "weights_only" not in str(caught.value)
    assert "executed" not in capsys.readouterr().out


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.integers(0, 3), min_size=1, max_size=3), st.data())
def test_weights_come_back_and_a_flipped_bit_does_not(shapes, data):
    weights = {name: torch.randn((2,) * axes, dtype=torch.float64) for name, axes in shapes.items()}
    content = weights_file(weights, {"rule": "oja"})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w"
        path.write_bytes(content)
        found, metadata = read_weights(path)
        assert metadata == {"rule": "oja"}
        assert found.keys() == weights.keys()
        assert all(torch.equal(found[name], weights[name]) for name in weights)
        changed = bytearray(content)
        header = 8 + struct.unpack("<Q", content[:8])[0]
        changed[data.draw(st.integers(header, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        (path.with_name("changed")).write_bytes(changed)
        with pytest.raises(ValueError, match="its content is not what was written"):
            read_weights(path.with_name("changed"))


def test_weights_without_a_digest_are_read(tmp_path):
    from safetensors.torch import save_file

    save_file({"w": torch.ones(2)}, tmp_path / "old.safetensors")
    assert read_weights(tmp_path / "old.safetensors")[0]["w"].tolist() == [1, 1]


def test_damaged_weights_of_a_classifier(tmp_path):
    from importlib.resources import files

    content = bytearray((files("torchplastic.weights") / "omniglot.safetensors").read_bytes())
    content[-5] ^= 4
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"w\.safetensors holds no weights of a PlasticClassifier.*not what was written"
    ):
        tp.PlasticClassifier.from_file(tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="holds no weights of a PlasticClassifier"):
        tp.PlasticClassifier.from_file(tmp_path / "none")


def test_errors_of_every_kind_are_one_line():
    for error in (MemoryError(), KeyError("x"), struct.error("a\nb"), RecursionError("deep"), OSError(2, "gone")):
        line = r"^place cannot be read, it is damaged or foreign: .+$"
        with pytest.raises(ValueError, match=line) as caught, readable("place"):
            raise error
        assert "\n" not in str(caught.value)
