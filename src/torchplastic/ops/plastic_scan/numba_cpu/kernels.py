"""All compiled kernels, for the files that fill their records. Its import fails without numba or PyTorch's OpenMP."""

from torchplastic.ops.plastic_scan.numba_cpu import chunked_kernels as chunked
from torchplastic.ops.plastic_scan.numba_cpu import jit, matmul
from torchplastic.ops.plastic_scan.numba_cpu import recurrent_kernels as recurrent
from torchplastic.ops.plastic_scan.numba_cpu.simd import LINE
from torchplastic.ops.plastic_scan.numba_cpu.trace_update import BAND, EDGES

__all__ = ["BAND", "EDGES", "LINE", "chunked", "jit", "matmul", "recurrent"]
