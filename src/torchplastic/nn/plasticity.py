"""The parameters that all plastic layers have.

Axes: I presynaptic and N postsynaptic neurons; matrices are `[pre, post]`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from torchplastic.ops import checks
from torchplastic.rules import Rule, get_rule

ALPHAS = ("full", "neuron", "shared", "none")
INIT_STD = 0.01  # standard deviation of w and alpha at the start (Miconi et al. 2018)


class Plasticity(nn.Module):
    """w `[I, N]`, alpha (`[I, N]`, `[N]`, 0-dim or None) and eta (parameter or buffer) of a layer."""

    w: nn.Parameter
    alpha: nn.Parameter | None
    eta: Tensor | None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" not in vars(cls):  # a copy with a name of its own: a TypeError of a call begins with it
            of = cls.__init__
            own = FunctionType(of.__code__, of.__globals__, of.__name__, of.__defaults__, of.__closure__)
            own.__kwdefaults__, own.__annotations__ = of.__kwdefaults__, of.__annotations__
            own.__qualname__ = f"{cls.__qualname__}.__init__"
            cls.__init__ = own  # type: ignore[method-assign]

    def __init__(
        self,
        pre: int,
        post: int,
        rule: str | Rule,
        alpha: str,
        eta: float | Tensor,
        learn_eta: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        who = type(self).__name__
        pre, post = checks.size(who, pre), checks.size(who, post)
        checks.computes_in(who, torch.get_default_dtype() if dtype is None else dtype)
        checks.one_of("alpha", alpha, ALPHAS)
        get_rule(rule)
        self.rule = rule
        self.alpha_kind = alpha
        self.learn_eta = learn_eta
        kind: dict[str, Any] = {"device": device, "dtype": dtype}
        self.w = nn.Parameter(torch.empty(pre, post, **kind))
        shape = {"full": (pre, post), "neuron": (post,), "shared": (), "none": None}[alpha]
        self.alpha = None if shape is None else nn.Parameter(torch.empty(shape, **kind))
        start = None if shape is None else _initial_rate(who, eta, post)
        rate = None if start is None else torch.empty(start.shape, **kind)
        if learn_eta and rate is not None:
            self.eta = nn.Parameter(rate)
        else:
            self.register_buffer("eta", rate)
        self._eta_start = None if start is None else start.tolist()

    def reset_plasticity(self, generator: torch.Generator | None) -> None:
        """Draw w and alpha from 0.01 N(0, 1) and set eta to its initial value."""
        with torch.no_grad():
            self.w.normal_(0, INIT_STD, generator=generator)
            if self.alpha is not None:
                self.alpha.normal_(0, INIT_STD, generator=generator)
            if self.eta is not None:
                self.eta.copy_(torch.tensor(self._eta_start, device="cpu"))

    def extra_repr(self) -> str:
        text = f"{self.w.shape[0]}, {self.w.shape[1]}, alpha={self.alpha_kind!r}"
        if self._eta_start is None:
            return text
        name = self.rule if isinstance(self.rule, str) else _function_name(self.rule.update)
        start = f"{self._eta_start:g}" if isinstance(self._eta_start, float) else f"[{len(self._eta_start)}]"
        return f"{text}, rule={name!r}, eta={start}, learn_eta={self.learn_eta}"


def _initial_rate(who: str, eta: float | Tensor, N: int) -> Tensor:
    """The initial eta on the CPU, also where layers are made on the meta device. ValueError if it is none."""
    start = torch.as_tensor(eta, dtype=torch.float64, device="cpu").detach()
    checks.eta_shape(who, N, start)
    if not bool(((start >= 0) & (start <= 1)).all()):
        worst = start.flatten()[(start.flatten() - 0.5).abs().nan_to_num(torch.inf).argmax()].item()
        raise ValueError(f"{who}: eta must lie in 0 … 1; got {worst:g}. (Training may take it further.)")
    return start


def _function_name(function: Callable[..., Any]) -> str:
    """The name of a function, of the function that a partial wraps, or of a callable's class (an nn.Module)."""
    while isinstance(function, partial):
        function = function.func
    return getattr(function, "__name__", type(function).__name__)
