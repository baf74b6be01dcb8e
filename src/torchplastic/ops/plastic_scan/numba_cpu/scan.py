"""What both algorithms share: whether the kernels can run here, and a scan in the layout that they read.

Axes: B batch, N neurons, M = N rounded up to whole lines of the cache.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchplastic.ops import cpu_cache
from torchplastic.ops.plastic_scan.autograd import only_set
from torchplastic.ops.plastic_scan.spec import Call, ScanSpec
from torchplastic.rules import HEBB, OJA, key_of

DTYPES = (torch.float32, torch.float64)


@cache
def find_kernels() -> ModuleType | None:
    """The kernels, or None without numba or an OpenMP runtime of PyTorch's that they can use."""
    try:
        from torchplastic.ops.plastic_scan.numba_cpu import kernels
    except ImportError:
        return None
    return kernels


def reason_against(spec: ScanSpec) -> str | None:
    """Why the kernels cannot take a scan, whatever its alpha; None if they can."""
    if spec.rule is not HEBB and spec.rule is not OJA:
        return "it runs hebb and oja, and this is another rule"
    if spec.device != "cpu" or spec.dtype not in DTYPES:
        return f"it runs on a CPU in float32 or float64, not in {spec.dtype} on {spec.device}"
    if spec.sets != 1:
        return f"it runs one parameter set, not {spec.sets}"
    if find_kernels() is None:
        return "it needs numba (extra fast) and PyTorch's OpenMP runtime under Linux"
    return None


def fill(places: Any, **values: Tensor | int | None) -> np.ndarray:
    """A record: a tensor's address, a number, or 0 for None. The tensors must stay alive, and be contiguous."""
    try:
        named = type(places)(**values)
    except TypeError:
        names = places._fields
        wrong = ", ".join(sorted(values.keys() ^ set(names)))
        raise TypeError(f"a record has the fields {', '.join(names)}; missing or unknown: {wrong}.") from None
    record = []
    for value in named:
        if isinstance(value, Tensor):
            assert value.is_contiguous()
            record.append(value.data_ptr())
        else:
            record.append(value or 0)
    return np.array(record, np.int64)


class Scan:
    """A scan in the layout of the kernels."""

    def __init__(self, call: Call) -> None:
        kernels = find_kernels()
        assert kernels is not None
        self.kernels, self.call = kernels, call
        self.w, self.alpha, self.eta, self.trace = only_set(call)
        self.B, self.N = call.hidden.shape
        self.M = -(-self.N // kernels.LINE) * kernels.LINE
        self.dtype = str(self.w.dtype).removeprefix("torch.")
        self.clamp = None if call.clamp is None else call.clamp.contiguous()
        self.drive = call.drive.contiguous()
        self.common = {
            "B": self.B,
            "N": self.N,
            "M": self.M,
            "rule": {key_of(HEBB): kernels.jit.HEBB, key_of(OJA): kernels.jit.OJA}[call.rule],
            "nonlinearity": kernels.jit.NONLINEARITIES[call.nonlinearity],
            "clamp": self.clamp,
        }
        """The fields of every record; each algorithm adds eta in rows"""

    def at(self, name: str) -> int:
        """The address of a kernel."""
        return int(self.kernels.jit.find(name, self.dtype))

    threads: int
    """The most threads that run it"""

    def run(self, name: str, places: Any, **values: Tensor | int | None) -> None:
        """Run a kernel with the record of these values."""
        self.start(self.at(name), fill(places, **values))

    def start(self, at: int, record: np.ndarray) -> None:
        """A team of at most `threads` threads, each of which calls the kernel at an address with the record."""
        self.kernels.jit.entry()(at, record.__array_interface__["data"][0], self.threads)

    def rows(self, given: Tensor) -> Tensor:
        """`[…, N]` with zeros behind each row, `[…, M]`."""
        if given.is_contiguous() and given.shape[-1] == self.M:
            return given
        made = self.empty(*given.shape[:-1])
        made[..., : self.N] = given
        return made

    def empty(self, *shape: int) -> Tensor:
        """`[*shape, M]`, zeros from N on."""
        made = cpu_cache.empty((*shape, self.M), self.w)
        if self.M > self.N:
            made[..., self.N :] = 0
        return made
