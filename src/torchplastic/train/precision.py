"""Mixed precision like torch.autocast: layers compute in bfloat16, inputs of a model stay in float32."""

from __future__ import annotations

from typing import Any

from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision


class _Autocast(MixedPrecision):
    def convert_input(self, data: Any) -> Any:
        return data


def whole_inputs(fabric: Fabric) -> Fabric:
    """Make a Fabric (32-true or bf16-mixed) keep the dtype of inputs.

    By default it casts them to bfloat16, which would round pictures to 8 bits before they are clamped and memorised.
    """
    precision = fabric.strategy.precision
    if isinstance(precision, MixedPrecision):
        fabric.strategy.precision = _Autocast("bf16-mixed", precision.device)
    return fabric
