"""Tell which implementation runs a scan, and why."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from torchplastic.ops import checks
from torchplastic.ops.plastic_scan import dispatch
from torchplastic.ops.plastic_scan.dispatch import Choice
from torchplastic.ops.plastic_scan.spec import ScanSpec
from torchplastic.rules import Rule, get_rule


def which_impl(
    N: int,
    B: int = 1,
    T: int = 1,
    *,
    rule: str | Rule = "hebb",
    alpha: str = "full",
    clamped_steps: Sequence[bool] | None = None,
    impl: str = "auto",
    chunk_size: int | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Choice:
    """Tell which implementation runs a scan of these sizes on this machine, and why the others do not.

    Args:
        N: number of neurons.
        B: number of sequences in a batch.
        T: number of steps; that of `clamped_steps` if it is given.
        rule: a name in `RULES` or a `Rule`. One that trains tensors of its own runs in the reference, whatever this
            says.
        alpha: "full", "neuron", "shared" or "none", as in `PlasticRNN`.
        clamped_steps: T bools, as in `plastic_scan`; None: no step is clamped.
        impl: as in `plastic_scan`.
        chunk_size: as in `plastic_scan`.
        device: where the tensors are.
        dtype: of the tensors.

    Returns:
        The choice: `impl`, the name to pass as `impl=`; `name`, what runs, in words; `reasons`, by name why each
        implementation runs or does not. Printed, it is a table.

    Raises:
        ValueError: an unknown name, or an impl that cannot run this.

    Examples:
        >>> tp.functional.which_impl(300, rule="oja", impl="reference").impl
        'reference'
        >>> print(tp.functional.which_impl(300, rule="oja"))  # doctest: +SKIP
    """
    checks.one_of("alpha", alpha, ("full", "neuron", "shared", "none"))
    steps = (False,) * T if clamped_steps is None else tuple(clamped_steps)
    spec = ScanSpec(
        len(steps), B, N, alpha, get_rule(rule), "tanh", steps, torch.device(device).type, dtype, chunk_size
    )
    return dispatch.explain("which_impl", spec, checks.impl(impl, dispatch.impls(), dispatch.ALIASES))
