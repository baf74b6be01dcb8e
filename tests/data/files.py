"""Small data sets in the official layouts."""

import io
import pickle
import tarfile
import zipfile

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


def drawing(seed, size=105):
    """A 1-bit picture with random ink: True is paper."""
    return np.random.default_rng(seed).random((size, size)) > 0.1


def omniglot_folder(folder, background, evaluation, drawings=20, alphabet=lambda c: f"alphabet{c % 2}"):
    """images_background and images_evaluation with so many characters, drawings of random ink."""
    for part, first, count in (("background", 0, background), ("evaluation", background, evaluation)):
        for c in range(first, first + count):
            inside = folder / f"images_{part}" / alphabet(c) / f"character{c:02d}"
            inside.mkdir(parents=True)
            for d in range(drawings):
                Image.fromarray(drawing(100 * c + d)).save(inside / f"{c:04d}_{d + 1:02d}.png")
    return folder


def zipped(folder, path, inside=""):
    """A folder as a zip, its name first."""
    with zipfile.ZipFile(path, "w") as file:
        for member in sorted(folder.rglob("*.png")):
            file.write(member, f"{inside}{folder.name}/{member.relative_to(folder)}")
    return path
