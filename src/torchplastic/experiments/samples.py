"""Arrays of samples.npz that several experiments write, under the keys that reports read."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from torchplastic import PlasticLinear, PlasticRNN


def picture_row(group: str, pictures: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Pictures `[height, width]` by their labels, in their order, as one row of a figure."""
    return {f"pictures/{group}/{place:02d} {label}": picture for place, (label, picture) in enumerate(pictures.items())}


def matrices(network: nn.Module) -> dict[str, np.ndarray]:
    """w and, if it is a matrix, alpha of a plastic network; nothing for other networks."""
    return layer_matrices(network) if isinstance(network, PlasticRNN) else {}


def layer_matrices(layer: PlasticRNN | PlasticLinear) -> dict[str, np.ndarray]:
    """w and, if it is a matrix, alpha of a plastic layer."""
    found = {"matrix/w": layer.w.detach().numpy()}
    if layer.alpha is not None and layer.alpha.dim() == 2:
        found["matrix/alpha"] = layer.alpha.detach().numpy()
    return found


def feature_map(name: str, features: Tensor, labels: Tensor, pictures: np.ndarray) -> dict[str, np.ndarray]:
    """Project features `[n, I]` with labels `[n]` onto the two axes in which the class means vary most.

    pictures: `[C, height, width]`, one per class.
    """
    means = torch.stack([features[labels == c].mean(0) for c in range(len(pictures))])
    centre = means.mean(0)
    axes = torch.linalg.svd((means - centre).double(), full_matrices=False).Vh[:2].T
    points = (features - centre).double() @ axes
    arrays = {"points": points.numpy(), "labels": labels.numpy(), "pictures": pictures.astype(np.float32)}
    return {f"map/{name}/{key}": array for key, array in arrays.items()}
