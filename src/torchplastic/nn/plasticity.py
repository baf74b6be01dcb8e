"""The parameters that all plastic layers have.

Axes: I presynaptic and N postsynaptic neurons; matrices are `[pre, post]`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
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
        if pre < 1 or post < 1:
            raise ValueError(f"{who}: sizes must be at least 1; got {pre} and {post}.")
        checks.one_of("alpha", alpha, ALPHAS)
        get_rule(rule)
        self.rule = rule
        self.alpha_kind = alpha
        self.learn_eta = learn_eta
        kind: dict[str, Any] = {"device": device, "dtype": dtype}
        self.w = nn.Parameter(torch.empty(pre, post, **kind))
        shape = {"full": (pre, post), "neuron": (post,), "shared": (), "none": None}[alpha]
        self.alpha = None if shape is None else nn.Parameter(torch.empty(shape, **kind))
        rate = None
        if shape is not None:
            rate = torch.as_tensor(eta).detach().to(self.w, copy=True)
            if tuple(rate.shape) not in {(), (post,)}:
                raise ValueError(f"{who}: eta must be a number, 0-dim or ({post},); got {tuple(rate.shape)}.")
        if learn_eta and rate is not None:
            self.eta = nn.Parameter(rate)
        else:
            self.register_buffer("eta", rate)
        self._eta_start = None if rate is None else rate.detach().cpu().tolist()

    def reset_plasticity(self, generator: torch.Generator | None) -> None:
        """Draw w and alpha from 0.01 N(0, 1) and set eta to its initial value."""
        with torch.no_grad():
            self.w.normal_(0, INIT_STD, generator=generator)
            if self.alpha is not None:
                self.alpha.normal_(0, INIT_STD, generator=generator)
            if self.eta is not None:
                self.eta.copy_(torch.tensor(self._eta_start))

    def extra_repr(self) -> str:
        text = f"{self.w.shape[0]}, {self.w.shape[1]}, alpha={self.alpha_kind!r}"
        if self._eta_start is None:
            return text
        name = self.rule if isinstance(self.rule, str) else _function_name(self.rule.update)
        start = f"{self._eta_start:g}" if isinstance(self._eta_start, float) else f"[{self.w.shape[1]}]"
        return f"{text}, rule={name!r}, eta={start}, learn_eta={self.learn_eta}"


def _function_name(function: Callable[..., Any]) -> str:
    """The name of a function, of the function that a partial wraps, or of a callable's class (an nn.Module)."""
    while isinstance(function, partial):
        function = function.func
    return getattr(function, "__name__", type(function).__name__)
