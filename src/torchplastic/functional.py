"""The operations as functions of tensors."""

from torchplastic.ops.memory import training_bytes
from torchplastic.ops.plastic_linear import plastic_linear
from torchplastic.ops.plastic_scan import plastic_scan
from torchplastic.ops.workspace import empty_cache

__all__ = ["empty_cache", "plastic_linear", "plastic_scan", "training_bytes"]
