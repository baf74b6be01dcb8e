"""The operations behind the layers, as functions of tensors."""

from torchplastic.ops.cpu_cache import empty_cache
from torchplastic.ops.memory import training_bytes
from torchplastic.ops.plastic_linear import plastic_linear
from torchplastic.ops.plastic_scan import plastic_scan

__all__ = ["empty_cache", "plastic_linear", "plastic_scan", "training_bytes"]
