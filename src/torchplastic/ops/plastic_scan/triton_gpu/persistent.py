"""The recurrent algorithm on a GPU, for networks that fit into its registers: an episode is one kernel per pass.

Each program owns a few postsynaptic neurons of one example and keeps their columns of w, alpha and the trace in its
registers for the whole episode. All programs run at once, exchange one vector per step and synchronise once per free
step. One trace per chunk of steps is stored; the backward pass recomputes the others.

Axes: T time, B batch, N neurons; matrices are `[pre, post]`, rows are stored M long.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from torchplastic.ops import cpu_cache
from torchplastic.ops.plastic_scan.autograd import only_set, outputs_of
from torchplastic.ops.plastic_scan.schedule import Schedule, in_steps
from torchplastic.ops.plastic_scan.spec import Call, Grads, ScanSpec
from torchplastic.ops.plastic_scan.triton_gpu import support

CHUNK = 16  # steps between two stored traces
LINE = 32  # numbers to which rows are rounded up
COLUMNS = (8, 16, 32)  # postsynaptic neurons of a program; 8 float32 numbers are the shortest run that memory moves
TILE_BYTES = 1 << 15  # of a program's columns of one matrix: a few of them must fit into a multiprocessor's registers
FORWARD_WARPS, BACKWARD_WARPS = 16, 8  # the backward pass needs more registers per thread


class Grid(NamedTuple):
    """How programs share a scan: `blocks` for each example, with R columns each, in tiles of BN rows."""

    blocks: int
    R: int
    BN: int


def grid_of(N: int, B: int, itemsize: int, programs: int) -> Grid | None:
    """The fewest columns per program with which all programs run at once on `programs` multiprocessors, or None."""
    BN = max(16, 1 << (N - 1).bit_length())
    for R in COLUMNS:
        blocks = -(-N // R)
        if blocks * B <= programs and BN * R * itemsize <= TILE_BYTES:
            return Grid(blocks, R, BN)
    return None


def supports(spec: ScanSpec) -> str | None:
    """Whether all examples fit into the GPU's registers at once: None or the reason."""
    if (reason := support.supports(spec)) is not None:
        return reason
    if grid_of(spec.N, spec.B, spec.itemsize, support.multiprocessors(spec.device)) is None:
        return f"{spec.B} examples of {spec.N} neurons do not fit into the registers of all multiprocessors at once"
    return None


def schedule(spec: ScanSpec) -> Schedule:
    """Chunks of a fixed number of steps."""
    return in_steps(spec.clamped_steps, spec.chunk_size or CHUNK)


def training_bytes(spec: ScanSpec) -> int:
    """Rows of the traces at the starts of chunks, and of some more."""
    matrices = (-(-spec.T // (spec.chunk_size or CHUNK)) + 6) * spec.B
    return spec.itemsize * matrices * spec.N * (spec.N + LINE - 1)


class Persistent:
    """A scan, with what both passes share."""

    def __init__(self, call: Call) -> None:
        w, alpha, eta, self.trace = only_set(call)
        self.call, self.batch, self.N = call, len(call.hidden), len(w)
        self.M = -(-self.N // LINE) * LINE
        grid = grid_of(self.N, self.batch, w.element_size(), support.multiprocessors(w.device))
        assert grid is not None
        self.grid = grid
        self.w, self.alpha, self.eta = self.rows(w), self.rows(alpha), eta.contiguous()
        self.clamp = self.eta if call.clamp is None else call.clamp.contiguous().view(torch.uint8)

    def rows(self, given: Tensor) -> Tensor:
        """`[…, N]` with zeros behind each row, `[…, M]`."""
        return pad(given, (0, self.M - self.N)).contiguous()

    def forward(self) -> tuple[Tensor, ...]:
        """-> y, hidden, trace; kept: x `[T + 1, B, M]`, the traces at the starts of chunks."""
        call, drive = self.call, self.call.drive
        T, B, N = drive.shape
        keep, chunk = any(call.needs), call.chunk_size
        x = drive.new_zeros(T + 1, B, self.M)
        x[0, :, :N] = call.hidden
        x[1:, :, :N] = drive  # the outputs of fully clamped steps; the kernel writes the others
        final = cpu_cache.empty((B, N, self.M), drive)
        kept = cpu_cache.empty((-(-T // chunk) if keep else 0, B, N, self.M), drive)
        flags = self._flags(False, False)
        self._launch(
            "resident_forward",
            drive.contiguous(), self.clamp, self.w, self.alpha, self.eta, self.rows(self.trace), flags,
            x, kept, final, self._counters(),
            sizes=(T, B, N, self.M, chunk, self.grid.blocks), num_warps=FORWARD_WARPS,
            KEEP=keep,
        )  # fmt: skip
        y, last = outputs_of(x, N, keep)
        H = final[..., :N].contiguous()
        return (y, last, H, x, kept) if keep else (y, last, H)

    def backward(self, kept: Sequence[Tensor], grads: Grads) -> Grads:
        """Gradients of drive, w, alpha, eta, hidden, trace."""
        x, traces = kept
        T, B, N, M = len(x) - 1, x.shape[1], self.N, self.M
        need_drive, _, _, need_eta, need_hidden, _ = self.call.needs
        g_y, g_hidden, g_trace = grads
        gy = x.new_zeros(T, B, N) if g_y is None else g_y.contiguous()
        if g_hidden is not None:
            gy = torch.cat([gy[:-1], gy[-1:] + g_hidden])
        G = x.new_zeros(B, N, M) if g_trace is None else self.rows(g_trace)
        g_a, g_alpha = cpu_cache.empty((T, B, N), x), cpu_cache.empty_like(G)
        g_drive = cpu_cache.empty_like(g_a) if need_drive else g_a
        g_eta, g_x = cpu_cache.empty((2, B, N), x)
        partial = cpu_cache.empty((2, B, self.grid.blocks, M), x)
        flags = self._flags(need_drive, need_hidden)
        self._launch(
            "resident_backward",
            x, self.clamp, self.w, self.alpha, self.eta, flags, traces, gy, G, g_a, g_drive, g_alpha, g_eta, g_x,
            partial, self._counters(), sizes=(T, B, N, M, self.call.chunk_size, self.grid.blocks),
            num_warps=BACKWARD_WARPS, NEED_DRIVE=need_drive, NEED_ETA=need_eta,
            BQ=1 << (self.grid.blocks - 1).bit_length(),
        )  # fmt: skip
        g_w = x[:-1, :, :N].flatten(0, 1).t() @ g_a.flatten(0, 1)
        return g_drive, g_w, g_alpha.sum(0)[:, :N].contiguous(), g_eta.sum(0), g_x, G[..., :N].contiguous()

    def _counters(self) -> Tensor:
        return torch.zeros(self.batch, dtype=torch.int32, device=self.w.device)

    def _launch(self, name: str, *tensors: Tensor, sizes: tuple[int, ...], **flags: Any) -> None:
        grid = self.grid
        support.run_together(
            getattr(support.find_kernels(), name), grid.blocks * self.batch, tensors, sizes,
            **support.options(self.call), R=grid.R, BN=grid.BN, **flags,
        )  # fmt: skip

    def _flags(self, need_drive: bool, need_hidden: bool) -> Tensor:
        return _flags(tuple(self.call.free.tolist()), need_drive, need_hidden, self.w.device)


@cache  # never freed: a CUDA graph reads them by address
def _flags(free: tuple[int, ...], need_drive: bool, need_hidden: bool, device: torch.device) -> Tensor:
    """Flags of each step: whether it is free, and whether dL/d(output of the step before it) is needed."""
    from torchplastic.ops.plastic_scan.triton_gpu.kernels import IS_FREE, PASSES_ON

    passes = [need_hidden, *(need_drive or bool(f) for f in free[:-1])]
    flags = [IS_FREE * f + PASSES_ON * p for f, p in zip(free, passes, strict=True)]
    return torch.tensor(flags, dtype=torch.int8, device=device)


def forward(call: Call) -> Sequence[Tensor]:
    """As `Kernel.forward`."""
    return Persistent(call).forward()


def backward(call: Call, kept: Sequence[Tensor], grads: Grads) -> Grads:
    """As `Kernel.backward`."""
    return Persistent(call).backward(kept, grads)
