"""A scan as the caller sees it, and as an implementation sees it.

`ScanSpec` describes a scan to the list of backends, which choose by it. `Call` is what crosses the boundary to the one
that runs: tensors, numbers and strings only, in one flat tuple, so that it can become an operator of torch.library.
A `Kernel` is an implementation behind that boundary, a `Backend` one that the list of dispatch.py offers.

Axes: T time, B batch, N neurons, K parameter sets (1 today: an ensemble would have one for each of K groups of
examples); matrices are `[pre, post]`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from torchplastic.ops.plastic_scan.schedule import Schedule
from torchplastic.rules import Rule


class ScanSpec(NamedTuple):
    """What an implementation is chosen by."""

    T: int
    B: int
    N: int
    alpha: str
    """As in PlasticRNN: "full" `[K, N, N]`, "neuron" `[K, N]`, "shared" `[K]` or "none"."""
    rule: Rule
    nonlinearity: str
    clamped_steps: tuple[bool, ...]
    """T flags: whether a step is clamped for every neuron of every example."""
    device: str
    dtype: torch.dtype
    chunk_size: int | None = None
    """Steps between two stored traces; None: the implementation's choice."""
    fresh: bool = False
    """Whether the initial trace is known to be zero."""
    trains_rule: bool = False
    """Whether the rule's functions use tensors that require a gradient."""
    sets: int = 1
    """K"""

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""
        return self.dtype.itemsize


class Call(NamedTuple):
    """The arguments of an implementation: a flat tuple of tensors, numbers and strings.

    No tensor of it is part of an autograd graph. Sizes of what an implementation keeps for its backward pass follow
    from shapes and numbers of the call, never from the values of its tensors.
    """

    drive: Tensor
    """`[T, B, N]`"""
    w: Tensor
    """`[K, N, N]`"""
    alpha: Tensor | None
    """`[K, N, N]`, `[K, N]` or `[K]`; None without plasticity, as eta and trace"""
    eta: Tensor | None
    """`[K, N]` or `[K]`"""
    hidden: Tensor
    """`[B, N]`"""
    trace: Tensor | None
    """`[B, N, N]`"""
    clamp: Tensor | None
    """bool `[T, B, N]`"""
    bounds: Tensor
    """int64 `[chunks + 1]` on the CPU: the first step of each chunk, and T"""
    free: Tensor
    """int64 `[T]` on the CPU: 1 for a step that is not clamped for every neuron of every example"""
    free_steps: int
    """How many of these there are"""
    longest: int
    """The most steps of a chunk up to its last free one"""
    pairs: int
    """The sum over free steps of the steps before each in its chunk"""
    chunk_size: int
    rule: str
    """The rule's key, for `rules.rule_of`"""
    nonlinearity: str
    fresh: bool
    """Whether the trace is zero; it is then not read"""
    needs: tuple[bool, ...]
    """Which of the first six fields need a gradient. If none does, nothing is kept"""


Grads = Sequence["Tensor | None"]


class Kernel(NamedTuple):
    """An implementation with a backward pass of its own. Both passes return tensors that alias nothing."""

    schedule: Callable[[ScanSpec], Schedule]
    """How it cuts time"""
    forward: Callable[[Call], Sequence[Tensor]]
    """-> y `[T, B, N]`, hidden `[B, N]`, trace `[B, N, N]` (without plasticity anything), and what it keeps"""
    backward: Callable[[Call, Sequence[Tensor], Grads], Grads]
    """call, kept, gradients of y, hidden and trace (None: zero) -> those of the first six fields, in their shapes.

    A gradient that is not needed may have any value."""


class Steps(Protocol):
    """Single steps without gradients, with the weights at the time of construction."""

    def __call__(self, drive: Tensor) -> Tensor:
        """`[B, N]` -> y `[B, N]`."""

    def state(self) -> tuple[Tensor, Tensor | None]:
        """Hidden and trace, copies."""


class Backend(NamedTuple):
    """An entry of the list in dispatch.py."""

    impl: str | None
    """The name that users choose by: the algorithm, or "triton"; None: they do not choose it"""
    name: str
    """What runs, in a few words"""
    best_for: str
    """What "auto" takes it for, in words"""
    supports: Callable[[ScanSpec], str | None]
    """None, or the reason why it cannot run this scan"""
    is_preferred: Callable[[ScanSpec], bool]
    """Whether "auto" takes it, if it can run"""
    run: Callable[..., tuple[Tensor, Tensor, Tensor | None]]
    """`(spec, drive, w, alpha, eta, hidden, trace, clamp)` as `reference`, differentiable -> y, hidden, trace"""
    training_bytes: Callable[[ScanSpec], int]
    """The memory of its traces and tables, to train"""
    moved_bytes: Callable[[ScanSpec], int] | None = None
    """What a training step must read and write at least, if it is counted"""
    steps: Callable[..., Steps] | None = None
    """`(spec, w, alpha, eta, hidden, trace)` -> single steps without gradients, if it has a faster way than `run`"""
