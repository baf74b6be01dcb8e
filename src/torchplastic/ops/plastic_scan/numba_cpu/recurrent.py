"""The recurrent algorithm on a CPU, for small networks: step by step, with an example's matrices in a core's cache.

A step is one pass over the example's trace, alpha and w, which stay in the cache for all its steps; there are no
products of pairs of steps. One trace per chunk of steps is stored; the backward pass recomputes the others.

Axes: T time, B batch, N neurons; matrices are `[pre, post]`. Rows are stored M long, N rounded up to whole lines of the
cache; passes that take two rows at a time have R of them, an even number. A returned trace is a view of such rows, so
that the next call needs no copy.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torchplastic.ops import cpu_cache
from torchplastic.ops.plastic_scan.autograd import outputs_of
from torchplastic.ops.plastic_scan.numba_cpu.scan import Scan, fill, reason_against
from torchplastic.ops.plastic_scan.schedule import Schedule, in_steps
from torchplastic.ops.plastic_scan.spec import Call, Grads, ScanSpec
from torchplastic.rules import key_of

SMALL, MEDIUM = 128, 512  # neurons: it is faster than chunked up to SMALL, and up to MEDIUM if most steps are free
LONGEST_PADDING = 15  # zeros after a row
CHUNK = 8  # steps whose traces fit into the cache together
GROUPS = 16  # of examples, whose sums are formed apart
SERIAL = 1 << 16  # numbers of all traces: below, one thread is enough


def supports(spec: ScanSpec) -> str | None:
    """Whether the kernels can take a scan: None or the reason."""
    return "this network has no plasticity" if spec.alpha == "none" else reason_against(spec)


def is_preferred(spec: ScanSpec) -> bool:
    """Clamped patterns cost the chunked algorithm little."""
    return spec.N <= SMALL or (spec.N <= MEDIUM and 2 * sum(spec.clamped_steps) <= spec.T)


def schedule(spec: ScanSpec) -> Schedule:
    """Chunks of a few steps."""
    return in_steps(spec.clamped_steps, min(spec.chunk_size or CHUNK, spec.T))


def training_bytes(spec: ScanSpec) -> int:
    """Rows of the traces at the starts of chunks, and of some more."""
    chunks = -(-spec.T // min(spec.chunk_size or CHUNK, spec.T))
    matrices = (chunks + 4) * spec.B + min(spec.B, GROUPS) + 2 * CHUNK
    return spec.itemsize * matrices * spec.N * (spec.N + LONGEST_PADDING)


class Recurrent(Scan):
    """A scan, step by step."""

    def __init__(self, call: Call, made: Sequence[Tensor] = ()) -> None:
        """made: as `made` gives it, if it is kept."""
        super().__init__(call)
        self.R = self.N + self.N % 2
        self.threads = 1 if self.B * self.w.numel() < SERIAL else min(self.B, torch.get_num_threads())
        w, alpha, eta = made or (self.even(self.w), self.even(self.alpha), self.rows(self.eta))  # [R, M], [M]
        self.common |= {
            "R": self.R, "chunk": call.chunk_size, "threads": self.threads, "w": w, "alpha": alpha, "eta": eta
        }  # fmt: skip

    def made(self) -> Sequence[Tensor]:
        """The rows of w, alpha and eta, where they are copies, and small."""
        keeps = self.N < self.M and self.N <= SMALL
        return [self.common[name] for name in ("w", "alpha", "eta")] if keeps else []

    def even(self, given: Tensor) -> Tensor:
        """`[N, N]` as `[R, M]`."""
        if self.R == self.N:
            return self.rows(given)
        made = self.empty(self.R)
        made[: self.N, : self.N] = given
        made[self.N :] = 0
        return made

    def forward(self) -> tuple[Tensor, ...]:
        """-> y, hidden, trace; kept: x `[T + 1, B, M]`, the traces at starts of chunks `[chunks, B, R, M]`, `made`."""
        call, drive, B, N, M = self.call, self.drive, self.B, self.N, self.M
        keep, T = any(call.needs), len(drive)
        x = drive.new_zeros(T + 1, B, M)
        x[0, :, :N] = call.hidden
        out = cpu_cache.empty((B, N, M), drive)
        kept = cpu_cache.empty((-(-T // call.chunk_size) if keep else 0, B, self.R, M), drive)
        if self.R > N:
            kept[..., N:, :] = 0
        self.run(
            "recurrent_forward", self.kernels.recurrent.FORWARD, **self.common,
            **self.of_forward(self.rows(self.trace), out), T=T, chunks=len(kept), settle=True, drive=drive, x=x,
            kept=kept,
        )  # fmt: skip
        y, last = outputs_of(x, N, keep)
        results = y, last, out if M == N else out[..., :N].contiguous()
        return (*results, x, kept, *self.made()) if keep else results

    def of_forward(self, H: Tensor, out: Tensor) -> dict[str, Tensor | int]:
        """What a record of the forward pass holds whatever its steps are."""
        return {
            "tanh_at": self.at("tanh"), "H": H, "out": out, "pending": self.nothing_pending(),
            "sums": self.w.new_zeros(self.threads, self.M),
        }  # fmt: skip

    def nothing_pending(self) -> Tensor:
        """`[B, 3, M]`: a pending update that leaves the trace unchanged."""
        pending = self.w.new_zeros(self.B, 3, self.M)
        pending[:, 1] = 1
        return pending

    def backward(self, x: Tensor, starts: Tensor, grads: Grads) -> tuple[Tensor, ...]:
        """gx `[T + 1, B, M]`, ga `[T, B, M]`, G `[B, R, M]`; dalpha `[groups, R, M]`, geta `[groups, M]`."""
        gy, ghidden, gtrace = grads
        T, B, N, M, R = len(x) - 1, self.B, self.N, self.M, self.R
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
        traces = cpu_cache.empty((self.threads, self.call.chunk_size, R, M), x)
        if R > N:
            traces[:, :, N:] = 0
        self.run(
            "recurrent_backward", self.kernels.recurrent.BACKWARD, **self.common, T=T,
            chunks=len(starts), groups=groups, given=gtrace is not None, x=x, kept=starts, G=G, gx=gx, ga=ga,
            dalpha=dalpha, geta=geta, scratch=x.new_zeros(self.threads, 7, M), traces=traces,
        )  # fmt: skip
        return gx, ga, G, dalpha, geta


class Steps:
    """Single steps without gradients, with the weights at the time of construction; updates its trace in place.

    Initial state: hidden `[B, N]`, trace `[B, N, N]`, which is copied.
    """

    def __init__(self, spec: ScanSpec, w: Tensor, alpha: Tensor, eta: Tensor, hidden: Tensor, trace: Tensor) -> None:
        N, B = len(w), len(hidden)
        call = Call(
            hidden.new_empty(1, B, N), w.detach().unsqueeze(0), alpha.detach().expand(1, N, N),
            eta.detach().expand(1, N), hidden.detach(), trace.detach(), None, *in_steps((False,), 1),
            key_of(spec.rule), spec.nonlinearity, False, (False,) * 6,
        )  # fmt: skip
        run = self._run = Recurrent(call)
        self._x = hidden.new_zeros(2, B, run.M)
        self._before, self._after, self._y = self._x[0], self._x[1], self._x[1, :, :N]
        self._y.copy_(hidden.detach())
        self._trace = cpu_cache.empty((B, N, run.M), hidden)
        self._trace[...] = run.rows(trace.detach())
        self._values = {**run.common, **run.of_forward(self._trace, self._trace), "x": self._x}  # kept alive
        self._places = run.kernels.recurrent.FORWARD
        self._record = fill(self._places, **self._values, T=1, chunks=0, settle=False, drive=None, kept=None)
        self._at = run.at("recurrent_forward")

    def __call__(self, drive: Tensor) -> Tensor:
        """`[B, N]` -> y `[B, N]`."""
        self._before.copy_(self._after)
        drive = drive.contiguous()
        self._record[self._places.drive] = drive.data_ptr()
        self._run.start(self._at, self._record)
        return self._y.clone()

    def state(self) -> tuple[Tensor, Tensor]:
        """Hidden and trace, copies."""
        places = self._places
        self._record[[places.T, places.settle]] = 0, 1
        self._run.start(self._at, self._record)
        self._record[[places.T, places.settle]] = 1, 0
        self._values["pending"].copy_(self._run.nothing_pending())
        return self._y.clone(), self._trace[..., : self._run.N].clone()


def forward(call: Call) -> Sequence[Tensor]:
    """As `Kernel.forward`."""
    return Recurrent(call).forward()


def backward(call: Call, kept: Sequence[Tensor], grads: Grads) -> Grads:
    """As `Kernel.backward`."""
    (x, starts, *made), N = kept, call.hidden.shape[-1]
    gx, ga, G, dalpha, geta = Recurrent(call, made).backward(x, starts, grads)  # its rows and buffers are free now
    gw = x[:-1, :, :N].flatten(0, 1).t() @ ga[..., :N].flatten(0, 1)
    galpha = dalpha.sum(0)[:N, :N].contiguous()
    gdrive = ga[..., :N] if call.clamp is None else torch.where(call.clamp, gx[1:, :, :N], ga[..., :N])
    return gdrive, gw, galpha, geta.sum(0)[:N], gx[0, :, :N].clone(), G[:, :N, :N]
