"""Mixed precision as torch.autocast has it: what a model is given keeps its bits, and its layers take fewer of them."""

from __future__ import annotations

from typing import Any

from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision


class _Autocast(MixedPrecision):
    def convert_input(self, data: Any) -> Any:
        return data


def whole_inputs(fabric: Fabric) -> Fabric:
    """The same Fabric, of 32-true or bf16-mixed, which does not shorten inputs.

    Without it pictures would be rounded to 8 bits before they are clamped, and learned as they then are.
    """
    precision = fabric.strategy.precision
    if isinstance(precision, MixedPrecision):
        fabric.strategy.precision = _Autocast("bf16-mixed", precision.device)
    return fabric
