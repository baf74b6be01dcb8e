"""Trained networks that ship with the package, each with a model card NAME.md."""

from __future__ import annotations

from importlib import resources

from torchplastic.nn.classifier import PlasticClassifier


def pretrained(name: str) -> PlasticClassifier:
    """Load a trained network that ships with the package.

    "omniglot" classifies line drawings of up to 5 new classes from one or a few examples of each. Its model card
    `weights/omniglot.md` describes its training, its accuracy and its limits.

    Args:
        name: "omniglot", a network for up to 5 classes and pictures of 31 x 31 pixels.

    Returns:
        The network on the CPU, in evaluation mode.

    Raises:
        ValueError: an unknown name.

    Examples:
        >>> network = tp.pretrained("omniglot")
        >>> support = torch.rand(5, 31, 31).round()  # five drawings, ink 1, paper 0
        >>> network.classify(support, torch.arange(5), support).argmax(-1)
        tensor([0, 1, 2, 3, 4])
    """
    folder = resources.files("torchplastic.weights")
    names = sorted(file.name.removesuffix(".safetensors") for file in folder.iterdir() if ".safetensors" in file.name)
    if name not in names:
        raise ValueError(f"no pretrained network {name!r}; choose one of {', '.join(names)}.")
    with resources.as_file(folder / f"{name}.safetensors") as path:
        return PlasticClassifier.from_file(path)
