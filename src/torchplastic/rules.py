"""The equations of the Hebbian trace, each in one place.

Axes: B batch, N neurons; the trace is `[..., pre, post]`.
u = x(t-1) is the presynaptic activity, v = x(t) the postsynaptic activity, eta the plasticity rate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Rule(NamedTuple):
    """A plasticity rule.

    update: `(H [B, pre, post], u [B, pre], v [B, post], eta) -> H` of the next step, the paper's
        equation. The reference implementation calls it under autograd.
    linear: for rules that are linear in the trace, `H' = d * H + u (x) s`: `(v [..., post], eta) ->
        (d, s)`. `s` has the shape of v; `d` has it too, or that of eta where it does not depend on v.
        Serves the chunked implementation. A rule without it runs in the reference implementation only.
    vjp: the derivative of `linear` in closed form, `(v, eta, gd, gs) -> (gv, geta)`, all of the shape of
        v. `gd` is None where dL/dd is not needed. Without it, autograd differentiates `linear`.

    eta is a 0-dim tensor, `[post]`, or (for `update` alone) a float.

    The functions may use tensors of their own, such as parameters of the module whose methods they are. Where `update`
    uses one that requires a gradient, impl="auto" takes the reference form, which gives it the gradient, and
    impl="chunked" is an error. Frozen, and under no_grad, such a rule runs in the chunked form. Both functions must use
    the same tensors.
    """

    update: Callable[..., Tensor]
    linear: Callable[..., tuple[Tensor, Tensor]] | None = None
    vjp: Callable[..., tuple[Tensor, Tensor]] | None = None


# --- Decaying Hebb (Miconi et al. 2018, eq. 2):  H' = eta u (x) v + (1 - eta) H


def _hebb(H: Tensor, u: Tensor, v: Tensor, eta: Tensor | float) -> Tensor:
    return eta * (u.unsqueeze(-1) * v.unsqueeze(-2)) + (1 - eta) * H


def _hebb_linear(v: Tensor, eta: Tensor) -> tuple[Tensor, Tensor]:
    return 1 - eta, eta * v


def _hebb_vjp(v: Tensor, eta: Tensor, gd: Tensor | None, gs: Tensor) -> tuple[Tensor, Tensor]:
    return eta * gs, v * gs if gd is None else torch.addcmul(-gd, v, gs)


# --- Oja's rule (Miconi et al. 2018, eq. 3):  H' = H + eta v (u - v H)


def _oja(H: Tensor, u: Tensor, v: Tensor, eta: Tensor | float) -> Tensor:
    post = v.unsqueeze(-2)
    return H + eta * post * (u.unsqueeze(-1) - post * H)


def _oja_linear(v: Tensor, eta: Tensor) -> tuple[Tensor, Tensor]:
    s = eta * v
    return 1 - s * v, s


def _oja_vjp(v: Tensor, eta: Tensor, gd: Tensor, gs: Tensor) -> tuple[Tensor, Tensor]:
    h = gs - v * gd
    return eta * (h - v * gd), v * h


HEBB = Rule(_hebb, _hebb_linear, _hebb_vjp)
OJA = Rule(_oja, _oja_linear, _oja_vjp)
RULES: dict[str, Rule] = {"hebb": HEBB, "oja": OJA}


def get_rule(rule: str | Rule) -> Rule:
    """The rule of that name, or the rule itself. ValueError for an unknown name."""
    if isinstance(rule, Rule):
        return rule
    if rule not in RULES:
        raise ValueError(f"rule must be a torchplastic.Rule or one of {', '.join(RULES)}; got {rule!r}.")
    return RULES[rule]
