"""Compiles the CPU kernels with numba, and defines the codes of rules and nonlinearities in them.

numba caches compiled code on disk by the date of the function's own file, although callees from other files are part
of it. After a change in openmp.py, simd.py, elementwise.py, matmul.py or trace_update.py, touch kernels.py and
stepwise_kernels.py.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import numpy as np
from numba import njit, types
from numba.core import event

from torchplastic.ops.plastic_scan.numba_cpu.openmp import address
from torchplastic.ops.plastic_scan.numba_cpu.simd import find_tanh

LOG = logging.getLogger("torchplastic")
HEBB, OJA = 0, 1
TANH, RELU, SIGMOID, IDENTITY = 0, 1, 2, 3
NONLINEARITIES = {"tanh": TANH, "relu": RELU, "sigmoid": SIGMOID, "identity": IDENTITY}
EMPTY_CLAMP = np.empty((0, 0, 0), np.bool_)

# sums may be taken in any order
OPTIONS: dict[str, Any] = {
    "nogil": True,
    "no_cfunc_wrapper": True,
    "error_model": "numpy",
    "fastmath": {"contract", "reassoc", "nsz"},
}


def jitted(function: Any, **more: Any) -> Any:
    """Compile at the first call, and cache on disk if a folder is writable."""
    try:
        return njit(cache=True, **OPTIONS, **more)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache is writable
        return njit(**OPTIONS, **more)(function)


def inner(function: Any) -> Any:
    """`jitted` for functions never called from Python."""
    return jitted(function, no_cpython_wrapper=True)


class _Compiling(event.Listener):
    """numba calls this when it compiles because its cache on disk has no code for this machine."""

    def on_start(self, event: Any) -> None:
        _log_once()

    def on_end(self, event: Any) -> None:
        pass


@cache
def _log_once() -> None:
    LOG.info("compiling kernels for this machine, once (about 20 s)")


def find(functions: dict[str, tuple[Any, str]], name: str, dtype: str) -> int:
    """The address of one of the functions, each with its argument types; "tanh" is PyTorch's, 0 if missing."""
    return find_tanh(dtype) if name == "tanh" else _address_of(*functions[name], dtype)


@cache
def _address_of(function: Any, takes: str, dtype: str) -> int:
    """The address of a function's machine code; compiles it, or reads it from the cache on disk.

    takes: for each argument, the axes of an array of that dtype; m a mask `[T, B, N]`, n a list of numbers, i an
    integer, b a flag.
    """
    kinds: dict[str, Any] = {str(axes): types.Array(getattr(types, dtype), axes, "C") for axes in (1, 2, 3, 4)}
    kinds |= {"m": types.Array(types.boolean, 3, "C"), "n": types.Array(types.int64, 1, "C")}
    kinds |= {"i": types.int64, "b": types.boolean}
    with event.install_listener("numba:compile", _Compiling()):
        return address(function, [kinds[kind] for kind in takes.split()])
