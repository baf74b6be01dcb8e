"""Small data sets in the official layouts."""

import io
import pickle
import tarfile

import numpy as np
from PIL import Image

BATCHES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


def records(count, seed=0):
    """Labels and planes, uint8 `[count, 3073]`."""
    made = np.random.default_rng(seed).integers(0, 256, (count, 3073), np.uint8)
    made[:, 0] %= 10
    return made


def binary_folder(folder, count=4):
    """cifar-10-batches-bin with so many pictures in each batch -> their records by batch."""
    inside = folder / "cifar-10-batches-bin"
    inside.mkdir(parents=True)
    made = {name: records(count, seed) for seed, name in enumerate(BATCHES)}
    for name, rows in made.items():
        (inside / f"{name}.bin").write_bytes(rows.tobytes())
    return made


def python_folder(folder, count=4):
    """cifar-10-batches-py likewise."""
    inside = folder / "cifar-10-batches-py"
    inside.mkdir(parents=True)
    made = {name: records(count, seed) for seed, name in enumerate(BATCHES)}
    for name, rows in made.items():
        content = {b"data": rows[:, 1:], b"labels": rows[:, 0].tolist(), b"batch_label": name.encode()}
        (inside / name).write_bytes(pickle.dumps(content, protocol=2))
    return made


def archive(folder, path):
    """A folder as a tar.gz."""
    with tarfile.open(path, "w:gz") as file:
        file.add(folder, folder.name)


def picture(path, width=40, height=30, seed=0):
    """A picture of noise, in the format its name says."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def jpeg_bytes():
    """The bytes of a small JPEG."""
    file = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file, "JPEG")
    return file.getvalue()
