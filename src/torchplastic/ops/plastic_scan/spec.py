"""A scan as the caller sees it, and as an implementation sees it.

`ScanSpec` describes a scan to the list of backends, which choose by it. `Call` is what crosses the boundary to the one
that runs: tensors, numbers and strings alone, in one flat tuple, so that it can become an operator of torch.library.

Axes: T time, B batch, N neurons, K parameter sets (1 today: an ensemble would have one for each of K groups of
examples); matrices are `[pre, post]`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

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
    sets: int = 1
    """K"""

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""
        return self.dtype.itemsize


class Call(NamedTuple):
    """The arguments of an implementation: a flat tuple of tensors, numbers and strings.

    An implementation has two functions, both of which run without autograd and return tensors that alias neither each
    other nor an argument:

        forward(call) -> (y [T, B, N], hidden [B, N], trace [B, N, N], *kept)
        backward(call, y, kept, grads) -> gradients of the first six fields, in their shapes

    `kept` is empty if nothing needs a gradient. The sizes of what is kept follow from shapes and numbers of the call,
    never from the values of its tensors. `y` is the output, and grads are those of y, hidden and trace, None where there
    is none. A gradient that is not needed may be None or anything.
    """

    drive: Tensor
    """`[T, B, N]`"""
    w: Tensor
    """`[K, N, N]`"""
    alpha: Tensor
    """`[K, N, N]`, `[K, N]` or `[K]`"""
    eta: Tensor
    """`[K, N]` or `[K]`"""
    hidden: Tensor
    """`[B, N]`"""
    trace: Tensor
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
    """The sum over free steps of the steps before it in its chunk"""
    chunk_size: int
    rule: str
    """The rule's key, for `rules.rule_of`"""
    nonlinearity: str
    fresh: bool
    """Whether the trace is zero; it is then not read"""
    needs: tuple[bool, bool, bool, bool, bool, bool]
    """Which of the first six fields need a gradient"""
