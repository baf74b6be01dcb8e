"""The operations behind the layers, as functions of tensors."""

from torchplastic.ops.cpu_cache import empty_cache
from torchplastic.ops.memory import training_bytes
from torchplastic.ops.plastic_linear import plastic_linear
from torchplastic.ops.plastic_scan import plastic_scan
from torchplastic.ops.plastic_scan.dispatch import impls
from torchplastic.ops.which_impl import which_impl

__all__ = ["empty_cache", "impls", "plastic_linear", "plastic_scan", "training_bytes", "which_impl"]
