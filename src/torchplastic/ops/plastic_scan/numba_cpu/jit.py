"""Compiles the CPU kernels with numba, and defines the codes of rules and nonlinearities in them.

Kernels, which take a record, and functions that several kernels call by address are compiled by themselves; cache.py
keeps their code on disk. What they call is compiled into them.
"""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Iterator
from functools import cache
from typing import Any

import numba
from numba import types
from numba.core import event

from torchplastic.ops.plastic_scan.numba_cpu import cache as on_disk
from torchplastic.ops.plastic_scan.numba_cpu.array import Array
from torchplastic.ops.plastic_scan.numba_cpu.openmp import in_team
from torchplastic.ops.plastic_scan.numba_cpu.record import Record, number
from torchplastic.ops.plastic_scan.numba_cpu.simd import find_tanh

njit: Any = numba.njit
LOG = logging.getLogger("torchplastic")
HEBB, OJA = 0, 1
TANH, RELU, SIGMOID, IDENTITY = 0, 1, 2, 3
NONLINEARITIES = {"tanh": TANH, "relu": RELU, "sigmoid": SIGMOID, "identity": IDENTITY}

# sums may be taken in any order; no array is made in a kernel, so none is counted; LLVM finds what rewriting would
OPTIONS: dict[str, Any] = {
    "nogil": True,
    "no_cfunc_wrapper": True,
    "error_model": "numpy",
    "fastmath": {"contract", "reassoc", "nsz"},
    "_nrt": False,
    "no_rewrites": True,
}


def inner(function: Any) -> Any:
    """Compile into the kernels that call it."""
    return njit(**OPTIONS, no_cpython_wrapper=True)(function)


def kernel(function: Any) -> Any:
    """Compile by itself, when its address is wanted, and cache on disk."""
    with on_disk.used() as there:
        return njit(**OPTIONS, no_cpython_wrapper=True, cache=there)(function)


@inner
def present(args: Any, place: int, length: int) -> int:
    """The length of the first axis of an array that may be missing: 0 if it is."""
    return length if number(args, place) != 0 else 0


def _start(at: int, record: int, count: int) -> None:
    in_team(at, record, count)


@cache
def entry() -> Any:
    """The one function that Python calls: with the address of a kernel, that of a record, and the number of threads."""
    with on_disk.used() as there, _compiling("start"):
        return njit(types.void(types.int64, types.int64, types.int32), **OPTIONS, cache=there)(_start)


@contextlib.contextmanager
def _compiling(name: str) -> Iterator[None]:
    """While a function of this name is compiled, or read from the cache on disk."""
    with on_disk.locked(name), event.install_listener("numba:compile", _Listener()):
        collects = gc.isenabled()
        gc.disable()  # the compiler makes millions of objects that live on: to visit them takes a tenth of the time
        try:
            yield
        finally:
            if collects:
                gc.enable()


class _Listener(event.Listener):
    """numba calls this when it compiles because its cache on disk has no code for this machine."""

    def on_start(self, event: Any) -> None:
        _log_once()

    def on_end(self, event: Any) -> None:
        pass


@cache
def _log_once() -> None:
    LOG.info("compiling kernels for this machine, once (some seconds)")


@cache
def find(name: str, dtype: str) -> int:
    """The address of a kernel, or of what kernels call by address; "tanh" is PyTorch's, 0 if missing."""
    return find_tanh(dtype) if name == "tanh" else _address_of(name, *TABLE[name], dtype)


TABLE: dict[str, tuple[Any, str]] = {}
"""What has an address: its function, and the kinds of its arguments. Files of kernels add theirs."""


def _address_of(name: str, function: Any, takes: str, dtype: str) -> int:
    """The address of a function's machine code; compiles it, or reads it from the cache on disk.

    takes: for each argument, r a record, the axes of an array of that dtype, n numbers, i an integer, b a flag.
    """
    kinds: dict[str, Any] = {str(axes): Array(getattr(types, dtype), axes) for axes in (1, 2, 3, 4)}
    kinds |= {"r": Record(getattr(types, dtype)), "n": Array(types.int64, 1)}
    kinds |= {"i": types.int64, "b": types.boolean}
    wanted = tuple(kinds[kind] for kind in takes.split())
    with _compiling(f"{name}-{dtype}"):
        function.compile(wanted)  # as where a kernel calls it: the cache on disk tells this from a signature
    made = function.get_compile_result(types.none(*wanted))
    return int(made.library.get_pointer_to_function(made.fndesc.llvm_func_name))
