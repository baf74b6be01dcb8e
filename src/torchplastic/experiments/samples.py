"""The arrays of samples.npz that several experiments leave, under the keys that reports know."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import nn

from torchplastic import PlasticRNN


def picture_row(group: str, pictures: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Pictures `[height, width]` by their labels, in their order, as one row of a figure."""
    return {f"pictures/{group}/{place:02d} {label}": picture for place, (label, picture) in enumerate(pictures.items())}


def matrices(network: nn.Module) -> dict[str, np.ndarray]:
    """w and, where there is one per connection, alpha of a plastic network; nothing of another."""
    if not isinstance(network, PlasticRNN):
        return {}
    found = {"matrix/w": network.w.detach().numpy()}
    if network.alpha is not None and network.alpha.dim() == 2:
        found["matrix/alpha"] = network.alpha.detach().numpy()
    return found
