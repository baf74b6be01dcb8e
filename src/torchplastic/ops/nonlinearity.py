"""Nonlinearities with their derivative as a function of the output; activations of feed-forward layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Nonlinearity(NamedTuple):
    """`f(a)`, and `backward(g, x) = g * f'(a)` computed from the output `x = f(a)`."""

    f: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]


NONLINEARITIES: dict[str, Nonlinearity] = {
    "tanh": Nonlinearity(torch.tanh, torch.ops.aten.tanh_backward),
    "relu": Nonlinearity(torch.relu, lambda g, x: g * (x > 0)),
    "sigmoid": Nonlinearity(torch.sigmoid, torch.ops.aten.sigmoid_backward),
    "identity": Nonlinearity(lambda a: a, lambda g, x: g),
}

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda a: torch.softmax(a, -1),
    **{name: nonlinearity.f for name, nonlinearity in NONLINEARITIES.items()},
}
