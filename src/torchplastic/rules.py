"""Plasticity rules: the equations by which the Hebbian trace changes, each in one place.

Axes: B batch, N neurons; the trace is `[..., pre, post]`.
u = x(t-1) is the presynaptic activity, v = x(t) the postsynaptic activity, eta the plasticity rate.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from types import FunctionType
from typing import Any
from weakref import ref

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rule:
    """A plasticity rule: how the trace H changes in a step. Pass it as `rule=` to a layer.

    u = x(t-1) is the presynaptic activity, v = x(t) the postsynaptic activity. eta is a 0-dim tensor or `[post]`;
    `update` also receives a float.

    The functions may use tensors of their own, such as parameters of a module. If `update` uses a tensor that requires
    a gradient, impl="auto" runs the reference implementation, which computes that gradient, and impl="chunked" raises
    an error. If the tensor is frozen, or under `torch.no_grad()`, the rule runs in the chunked implementation. `update`
    and `linear` must use the same tensors.

    Attributes:
        update: `(H, u, v, eta) -> H'`, the equation itself, with H `[B, pre, post]`, u `[B, pre]` and v `[B, post]`.
            The reference implementation calls it under autograd.
        linear: for a rule that is linear in the trace, `H' = d * H + u (x) s`: `(v, eta) -> (d, s)` with v
            `[..., post]`. s has the shape of v; d has the shape of v, or of eta if it does not depend on v. The
            chunked implementation needs it; a rule without it runs in the reference implementation.
        vjp: the vector-Jacobian product of `linear`, `(v, eta, gd, gs) -> (gv, geta)`, with gd = dL/dd, gs = dL/ds, and
            all of the shape of v. gd is None if it is not needed. Without `vjp`, autograd differentiates `linear`.

    Examples:
        A trace that grows without decay:

        >>> def update(H, u, v, eta):
        ...     return H + eta * u.unsqueeze(-1) * v.unsqueeze(-2)
        >>> def linear(v, eta):
        ...     return torch.ones_like(v), eta * v
        >>> rnn = tp.PlasticRNN(8, 32, rule=tp.Rule(update, linear))
        >>> y, state = rnn(torch.randn(50, 4, 8))
        >>> state.trace.shape
        torch.Size([4, 32, 32])
    """

    update: Callable[..., Tensor]
    linear: Callable[..., tuple[Tensor, Tensor]] | None = None
    vjp: Callable[..., tuple[Tensor, Tensor]] | None = None

    @cached_property
    def _key(self) -> str:
        """A hash of the formula. A function that reads more than its arguments is known by its identity."""
        parts = (self.update, self.linear, self.vjp)
        return sha256(b"".join(map(_formula, parts))).hexdigest()[:16]


def _formula(function: Callable[..., Any] | None) -> bytes:
    if isinstance(function, FunctionType) and not (function.__closure__ or function.__defaults__):
        return marshal.dumps((function.__code__, id(function.__globals__)))
    return str(id(function)).encode()


_TABLE: dict[str, ref[Rule]] = {}
"""Rules by their keys. It keeps no rule alive, and has no callback: Python drops an exception raised in one."""


def key_of(rule: Rule) -> str:
    """The key by which an implementation looks the rule up, as long as `rule_of(key)` is alive."""
    key = rule._key
    if key not in _TABLE or _TABLE[key]() is None:
        for gone in [other for other, known in _TABLE.items() if known() is None]:
            del _TABLE[gone]
        _TABLE[key] = ref(rule)
    return key


def rule_of(key: str) -> Rule:
    """The rule of a key."""
    rule = _TABLE[key]()
    assert rule is not None
    return rule


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
"""The published rules by the names that `rule=` accepts.

`"hebb"` is decaying Hebb, `H' = (1 - eta) H + eta u (x) v` (Miconi et al. 2018, eq. 2): the trace forgets at the rate
eta. `"oja"` is Oja's rule, `H' = H + eta v (u - v H)` (Miconi et al. 2018, eq. 3): the trace keeps what it holds until
other activity overwrites it. u is the presynaptic and v the postsynaptic activity; in Oja's rule column j of H changes
with v_j.

Examples:
    >>> list(tp.RULES)
    ['hebb', 'oja']
    >>> H, u, v = torch.zeros(1, 2, 2), torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]])
    >>> tp.RULES["hebb"].update(H, u, v, 0.5)
    tensor([[[0.5000, 0.5000],
             [0.0000, 0.0000]]])
"""


def get_rule(rule: str | Rule) -> Rule:
    """Look up a rule by its name; a `Rule` is returned unchanged. ValueError for an unknown name."""
    if isinstance(rule, Rule):
        return rule
    if rule not in RULES:
        raise ValueError(f"rule must be a torchplastic.Rule or one of {', '.join(RULES)}; got {rule!r}.")
    return RULES[rule]


def trains_its_own(rule: Rule, N: int, like: Tensor, eta: Tensor | None) -> bool:
    """Whether a rule's functions use tensors that require a gradient, which only the reference computes.

    Runs both functions once, on one example without gradients. ValueError if only `linear` uses such tensors.
    """
    if rule is HEBB or rule is OJA or rule.linear is None or eta is None or not torch.is_grad_enabled():
        return False
    v, H, rate = like.new_zeros(1, N), like.new_zeros(1, N, N), eta.detach()
    updated = rule.update(H, v, v, rate).requires_grad
    if any(part.requires_grad for part in rule.linear(v, rate)) and not updated:
        raise ValueError(
            "plastic_scan: this rule's `linear` uses tensors that require a gradient and its `update`, the equation "
            "that defines the gradient, does not. Use the same tensors in both."
        )
    return updated
