"""Time and memory of a training step.

Implementations run in turn: each round runs every one twice, first to warm its caches, then to be timed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

COPIED = 1 << 28  # bytes


def seconds_in_turn(
    steps: Mapping[str, Callable[[], Any]], rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of `rounds` timed calls of each step, in turn, in this process."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in range(rounds):
        for name, step in steps.items():
            step()
            _wait(device)
            start = time.perf_counter()
            step()
            _wait(device)
            seconds[name].append(time.perf_counter() - start)
    return seconds


def copy_bandwidth(device: torch.device, nbytes: int = COPIED, rounds: int = 9) -> float:
    """Bytes that a copy of a tensor larger than any cache reads and writes per second; median over `rounds`."""
    source = torch.zeros(nbytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = seconds_in_turn({"copy": lambda: target.copy_(source)}, rounds, device)["copy"]
    return 2 * nbytes / statistics.median(seconds)


def tensors_of(module: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The tensors that persist between training steps: parameters, buffers, the optimiser's state."""
    state = [value for values in optimizer.state.values() for value in values.values()]
    return [*module.parameters(), *module.buffers(), *state]


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "q1": q1, "q3": q3, "n": len(values)}


def peak_bytes(step: Callable[[], Any], persistent: list[Tensor], device: torch.device) -> int:
    """The most bytes that tensors hold during `step`, not counting the tensors `persistent`, which exist before it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with _StorageWatch(persistent) as watch:
        step()
    return watch.peak


class _StorageWatch(TorchDispatchMode):
    """Counts the bytes of every storage that an operation reads or makes, until it is freed."""

    def __init__(self, persistent: list[Tensor]) -> None:
        super().__init__()
        self.known = {StorageWeakRef(tensor.untyped_storage()).cdata for tensor in persistent}
        self.live: dict[int, tuple[StorageWeakRef, int]] = {}
        self.total = 0
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs, result)):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                reference = StorageWeakRef(storage)
                if reference.cdata not in self.known and reference.cdata not in self.live:
                    self.live[reference.cdata] = (reference, storage.nbytes())
                    self.total += storage.nbytes()
        if self.total > self.peak:
            for key, (reference, size) in list(self.live.items()):
                if reference.expired():
                    del self.live[key]
                    self.total -= size
            self.peak = max(self.peak, self.total)
        return result


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
