"""Traces with closed forms: presynaptic u and postsynaptic v stay the same for T steps, from a trace of zeros."""

import torch


def hebb_trace(u, v, eta, T):
    """(1 - (1 - eta)^T) u (x) v, of `u [..., pre]` and `v [..., post]`."""
    return (1 - (1 - eta) ** T) * u.unsqueeze(-1) * v.unsqueeze(-2)


def hebb_trace_by_eta(u, v, eta, T):
    """The derivative of `hebb_trace` by eta."""
    return T * (1 - eta) ** (T - 1) * u.unsqueeze(-1) * v.unsqueeze(-2)


def oja_trace(u, v, eta, T):
    """u (x) (1 - (1 - eta v^2)^T) / v; v has no zeros."""
    return u.unsqueeze(-1) * ((1 - (1 - eta * v**2) ** T) / v).unsqueeze(-2)


def oja_trace_by_eta(u, v, eta, T):
    """The derivative of `oja_trace` by eta."""
    return u.unsqueeze(-1) * (T * (1 - eta * v**2) ** (T - 1) * v).unsqueeze(-2)


TRACES = {"hebb": (hebb_trace, hebb_trace_by_eta), "oja": (oja_trace, oja_trace_by_eta)}


def away_from_zero(*shape, generator):
    """Values between 0.2 and 1 of both signs, float64."""
    size = 0.2 + 0.8 * torch.rand(shape, generator=generator, dtype=torch.float64)
    return size * (torch.randint(0, 2, shape, generator=generator) * 2 - 1)
