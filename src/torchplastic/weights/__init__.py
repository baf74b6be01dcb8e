"""Trained networks that come with the package. Each has a card beside it: NAME.md."""

from __future__ import annotations

from importlib import resources

from torchplastic.nn.classifier import PlasticClassifier


def pretrained(name: str) -> PlasticClassifier:
    """A trained network by its name, ready to use; now there is one: "omniglot", 5 ways, 31 x 31 pixels.

    `pretrained("omniglot").classify(support, labels, query)` tells drawings apart that it was never trained on. How it
    was trained and what it can and cannot do is in `weights/omniglot.md`. ValueError for another name.
    """
    folder = resources.files("torchplastic.weights")
    names = sorted(file.name.removesuffix(".safetensors") for file in folder.iterdir() if ".safetensors" in file.name)
    if name not in names:
        raise ValueError(f"no pretrained network {name!r}; choose one of {', '.join(names)}.")
    with resources.as_file(folder / f"{name}.safetensors") as path:
        return PlasticClassifier.from_file(path)
