"""A plastic recurrent network through time. dispatch.py has the list of its implementations.

Axes: T time, B batch, N neurons; matrices are `[pre, post]`.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from torchplastic.ops.plastic_scan.run import run
from torchplastic.rules import Rule
from torchplastic.state import PlasticState


def plastic_scan(
    drive: Tensor,
    w: Tensor,
    alpha: Tensor | None,
    eta: Tensor | float | None,
    state: PlasticState | None = None,
    *,
    rule: str | Rule = "hebb",
    clamp: Tensor | None = None,
    clamped_steps: Sequence[bool] | None = None,
    nonlinearity: str = "tanh",
    impl: str = "auto",
    chunk_size: int | None = None,
) -> tuple[Tensor, PlasticState]:
    """Run a plastic recurrent network through time (Miconi et al. 2018, eq. 1 to 3).

        x(t) = f(x(t-1) (w + alpha * H(t)) + drive(t)),    H(t+1) = rule(H(t), x(t-1), x(t), eta)

    It computes in float32 or float64; under autocast in the dtype of w.

    Args:
        drive: the external input current of each neuron, added before the nonlinearity, `[T, B, N]` or unbatched
            `[T, N]`.
        w: fixed weights `[pre, post]`, `[N, N]`.
        alpha: plasticity coefficients, `[N, N]` one per connection, `[N]` one per postsynaptic neuron, 0-dim one in
            all, or None for no plasticity.
        eta: plasticity rate per step, a float, 0-dim or `[N]`. Ignored if alpha is None.
        state: state to continue from, hidden `[B, N]` and trace `[B, N, N]`; None means zeros.
        rule: a name in `RULES` or a `Rule`.
        clamp: bool `[T, B, N]`, or `[T, N]` for all sequences. Where true, the neuron's output is its drive, and the
            gradient of the drive is dL/dx of that neuron.
        clamped_steps: T bools on the host: whether the step is clamped for every neuron of every sequence. None reads
            them from `clamp`, which synchronises with a GPU.
        nonlinearity: "tanh", "relu", "sigmoid" or "identity".
        impl: the implementation; all give the same values and gradients. "reference" is the plain loop under autograd.
            The others store one trace per chunk of steps and have no second derivative: "chunked" is fastest for
            large networks and for clamped patterns; "recurrent" is fastest for up to some hundred neurons, and needs a
            CPU under Linux, numba (extra fast), and hebb or oja; "triton" needs a CUDA device, Triton (extra gpu), and
            hebb or oja. "auto" chooses one of the first three; it chooses "reference" for a rule without `linear`, and
            for one that trains tensors of its own.
        chunk_size: steps between two stored traces. For "chunked" it is the largest number of free (not fully clamped)
            steps in a chunk; a clamped run between them counts as two. None chooses it from N, B and the clamped steps.

    Returns:
        y: outputs of all steps, `[T, B, N]` or `[T, N]`.
        state: the state after the last step; its trace is None if alpha is None.

    Raises:
        ValueError: shapes, dtypes or devices that do not match; an unknown rule, nonlinearity or impl; an impl that
            cannot run here or cannot run this rule; a rule whose `linear` trains tensors that `update` does not use.
        RuntimeError: from backward(), through a state whose graph was freed.

    Examples:
        Two neurons clamped to 1 write the trace H(t+1) = 0.5 H(t) + 0.5:

        >>> y, state = tp.functional.plastic_scan(
        ...     torch.ones(3, 1, 2), torch.zeros(2, 2), torch.zeros(2, 2), 0.5, clamp=torch.ones(3, 2, dtype=torch.bool)
        ... )
        >>> state.trace  # 0 before the first step, then 0.5, then 0.75
        tensor([[[0.7500, 0.7500],
                 [0.7500, 0.7500]]])
    """
    return run(
        "plastic_scan", drive, w, alpha, eta, state, rule, clamp, clamped_steps, nonlinearity, impl, chunk_size
    )  # fmt: skip
