"""The stepwise implementation, for small networks: exact, step by step, with an example's matrices in a core's cache.

A step is one pass over the example's trace, alpha and w, which stay in the cache for all its steps; there are no
products of pairs of steps. One trace per chunk of steps is stored; the backward pass recomputes the others.

Axes: T time, B batch, N neurons; matrices are `[pre, post]`. Rows are stored M long, N rounded up to whole lines of the
cache; passes that take two rows at a time have R of them, an even number. A returned trace is a view of such rows, so
that the next call needs no copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from torchplastic.ops import cpu_cache
from torchplastic.ops.plastic_scan.numba_cpu import chunked as fast
from torchplastic.ops.plastic_scan.autograd import run_episode
from torchplastic.rules import Rule

SMALL, MEDIUM = 128, 512  # neurons: stepwise is faster up to SMALL, and up to MEDIUM if most steps are free
LONGEST_PADDING = 15  # zeros after a row
CHUNK = 8  # steps whose traces fit into the cache together
GROUPS = 16  # of examples, whose sums are formed apart
SERIAL = 1 << 16  # numbers of all traces: below, one thread is enough


class RecurrentSpec(NamedTuple):
    """The arguments of a scan that have no gradient."""

    rule: Rule
    clamp: Tensor | None  # [T, B, N] bool
    nonlinearity: str
    chunk: int = CHUNK


@cache
def find_kernels() -> ModuleType | None:
    """The kernels, or None if those of the chunked implementation are missing."""
    if fast.find_kernels() is None:
        return None
    from torchplastic.ops.plastic_scan.numba_cpu import recurrent_kernels as stepwise_kernels

    return stepwise_kernels


def supports(rule: Rule, like: Tensor) -> bool:
    """Whether the kernels can take this scan."""
    return fast.supports(rule, like) and find_kernels() is not None


def is_preferred(clamped_steps: Sequence[bool], N: int) -> bool:
    """Whether "auto" prefers this implementation: clamped patterns cost the chunked one little."""
    return N <= SMALL or (N <= MEDIUM and 2 * sum(clamped_steps) <= len(clamped_steps))


def stepwise(
    drive: Tensor, w: Tensor, alpha: Tensor, eta: Tensor, hidden: Tensor, trace: Tensor, problem: RecurrentSpec
) -> tuple[Tensor, Tensor, Tensor]:
    """`drive [T, B, N]`, `w [N, N]`, `hidden [B, N]`, `trace [B, N, N]` -> y `[T, B, N]`, hidden, trace.

    Equal to `reference` in values and gradients. Without gradients nothing is stored, whatever T.
    """
    N = len(w)
    return run_episode(NumbaRecurrent, problem, drive, w, alpha.expand(N, N), eta.expand(N), hidden, trace)


class NumbaRecurrent(fast.Kernels):
    """The kernels with what both passes share."""

    def __init__(self, problem: RecurrentSpec, w: Tensor, alpha: Tensor, eta: Tensor, batch: int) -> None:
        super().__init__(find_kernels(), problem, w, alpha, eta)
        self.R = self.N + self.N % 2
        self.chunk = problem.chunk
        self.tanh_at = self.at("tanh")
        self.threads = 1 if batch * w.numel() < SERIAL else min(batch, torch.get_num_threads())

    def even(self, given: Tensor) -> Tensor:
        """`[N, N]` as `[R, M]`."""
        return self.rows(torch.cat([given, given.new_zeros(self.R - self.N, self.N)]))

    def forward(
        self, drive: Tensor, hidden: Tensor, trace: Tensor, needs: Sequence[bool] | None
    ) -> tuple[Tensor, Tensor, Sequence[Tensor]]:
        """-> x `[T + 1, B, M]`, trace; kept: the traces at the starts of chunks `[chunks, B, R, M]`."""
        T, B, N = drive.shape
        keep = needs is not None
        x = drive.new_zeros(T + 1, B, self.M)
        x[0, :, :N] = hidden.detach()
        H = self.in_rows(trace.detach())
        out = cpu_cache.empty((B, N, self.M), H)
        kept = cpu_cache.empty((-(-T // self.chunk) if keep else 0, B, self.R, self.M), drive)
        kept[..., N:, :] = 0
        self.kernels.forward(
            self.at("forward"), drive.detach().contiguous().numpy(), self.clamp, self.rows(self.w).numpy(),
            self.rows(self.alpha).numpy(), self.eta, self.rule, self.nonlinearity, self.chunk, x.numpy(), H.numpy(),
            out.numpy(), kept.numpy(), self.nothing_pending(drive).numpy(),
            drive.new_zeros(self.threads, self.M).numpy(), True, self.tanh_at, self.threads,
        )  # fmt: skip
        return x, out if self.M == N else out[..., :N], (kept,)

    def nothing_pending(self, like: Tensor) -> Tensor:
        """`[B, 3, M]`: a pending update that leaves the trace unchanged."""
        pending = like.new_zeros(like.shape[-2], 3, self.M)
        pending[:, 1] = 1
        return pending

    def in_rows(self, trace: Tensor) -> Tensor:
        """A trace as `[B, N, M]`: a view if its memory has this layout; padding is not read."""
        B, N, M = len(trace), self.N, self.M
        stored = trace.untyped_storage().nbytes() // trace.element_size()
        if trace.stride() == (N * M, M, 1) and trace.storage_offset() + B * N * M <= stored:
            return trace.as_strided((B, N, M), (N * M, M, 1))
        return self.rows(trace)

    def backward(
        self, x: Tensor, kept: Sequence[Tensor], grads: Sequence[Tensor | None], needs: Sequence[bool]
    ) -> tuple[Tensor, ...]:
        """Gradients of drive, w, alpha, eta, hidden, trace."""
        (gy, ghidden, gtrace), (starts,), clamp = grads, kept, self.problem.clamp
        T, B, N, M, R = len(x) - 1, x.shape[1], self.N, self.M, self.R
        gx = x.new_zeros(T + 1, B, M)
        if gy is not None:
            gx[1:, :, :N] = gy
        if ghidden is not None:
            gx[-1, :, :N] += ghidden
        G = cpu_cache.empty((B, R, M), x).zero_()
        if gtrace is not None:
            G[:, :N, :N] = gtrace
        ga = x.new_empty(T, B, M)
        groups = min(B, GROUPS)
        dalpha, geta = cpu_cache.empty((groups, R, M), x), x.new_empty(groups, M)
        traces = cpu_cache.empty((self.threads, self.chunk, R, M), x)
        traces[:, :, N:] = 0
        scratch = x.new_zeros(self.threads, 7, M)
        self.kernels.backward(
            self.at("backward"), x.numpy(), self.clamp, self.even(self.w).numpy(), self.even(self.alpha).numpy(),
            self.eta, self.rule, self.nonlinearity, self.chunk, starts.numpy(), G.numpy(), gtrace is not None,
            gx.numpy(), ga.numpy(), dalpha.numpy(), geta.numpy(), scratch.numpy(), traces.numpy(), self.threads,
        )  # fmt: skip
        gw = x[:-1, :, :N].flatten(0, 1).t() @ ga[..., :N].flatten(0, 1)
        galpha = dalpha.sum(0)[:N, :N].contiguous()
        gdrive = ga[..., :N] if clamp is None else torch.where(clamp, gx[1:, :, :N], ga[..., :N])
        return gdrive, gw, galpha, geta.sum(0)[:N], gx[0, :, :N].clone(), G[:, :N, :N]


class Steps:
    """Single steps without gradients, with the weights at the time of construction; updates its trace in place.

    Initial state: hidden `[B, N]`, trace `[B, N, N]`, which is copied.
    """

    def __init__(
        self, w: Tensor, alpha: Tensor, eta: Tensor, hidden: Tensor, trace: Tensor, rule: Rule, nonlinearity: str
    ) -> None:
        N, B = len(w), len(hidden)
        run = NumbaRecurrent(RecurrentSpec(rule, None, nonlinearity), w, alpha.expand(N, N), eta.expand(N), B)
        self._N, self._run = N, run
        self._x = hidden.new_zeros(2, B, run.M)
        self._before, self._after, self._y = self._x[0], self._x[1], self._x[1, :, :N]
        self._y.copy_(hidden.detach())
        self._trace = cpu_cache.empty((B, N, run.M), hidden)
        self._trace[...] = run.in_rows(trace.detach())
        self._pending = run.nothing_pending(hidden)
        self._at = run.at("forward")
        self._arguments = (
            run.clamp, run.rows(run.w).numpy(), run.rows(run.alpha).numpy(), run.eta, run.rule, run.nonlinearity,
            run.chunk, self._x.numpy(), self._trace.numpy(), self._trace.numpy(),
            hidden.new_empty(0, 0, 0, 0).numpy(), self._pending.numpy(), hidden.new_zeros(run.threads, run.M).numpy(),
        )  # fmt: skip

    def __call__(self, drive: Tensor) -> Tensor:
        """`[B, N]` -> y `[B, N]`."""
        self._before.copy_(self._after)
        self._forward(drive.contiguous().unsqueeze(0), settle=False)
        return self._y.clone()

    def state(self) -> tuple[Tensor, Tensor]:
        """Hidden and trace, copies."""
        self._forward(self._x.new_empty(0, *self._y.shape), settle=True)
        self._pending.copy_(self._run.nothing_pending(self._x))
        return self._y.clone(), self._trace[..., : self._N].clone()

    def _forward(self, drive: Tensor, settle: bool) -> None:
        run = self._run
        run.kernels.forward(self._at, drive.numpy(), *self._arguments, settle, run.tanh_at, run.threads)
