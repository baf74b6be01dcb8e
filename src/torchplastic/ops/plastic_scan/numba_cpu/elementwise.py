"""The elementwise operations of a step: the rule, the nonlinearity, and the gradients of both, as vectors.

Rows are whole cache lines; a function works on the neurons low … end - 1, whole lines too.
"""

from __future__ import annotations

import math
from typing import Any

from torchplastic.ops.plastic_scan.numba_cpu.jit import HEBB, RELU, SIGMOID, TANH, inner
from torchplastic.ops.plastic_scan.numba_cpu.simd import LINE, load, splat, store, tanh

Array = Any  # array.Array, of the dtype of w


@inner
def decay_of(rule: int, one: Any, rate: Any, y: Any) -> Any:
    """d of a line of neurons, with outputs y and eta `rate`: `H' = d * H + u (x) s`, and s is rate * y."""
    return one - (rate if rule == HEBB else rate * y * y)


@inner
def decay_and_source(rule: int, v: Array, eta: Array, low: int, end: int, d: Array, s: Array) -> None:
    """d and s of `H' = d * H + u (x) s`."""
    one = splat(v.dtype.type(1))
    for j in range(low, end, LINE):
        rate, y = load(eta, j), load(v, j)
        store(s, j, rate * y)
        store(d, j, decay_of(rule, one, rate, y))


@inner
def fill(value: float, low: int, end: int, out: Array) -> None:
    """`out = value`."""
    for j in range(low, end, LINE):
        store(out, j, splat(out.dtype.type(value)))


@inner
def multiply(row: Array, low: int, end: int, out: Array) -> None:
    """`out *= row`."""
    for j in range(low, end, LINE):
        store(out, j, load(out, j) * load(row, j))


@inner
def add(row: Array, low: int, end: int, out: Array) -> None:
    """`out += row`."""
    for j in range(low, end, LINE):
        store(out, j, load(out, j) + load(row, j))


@inner
def add_product_of(row: Array, other: Array, low: int, end: int, out: Array) -> None:
    """`out += row * other`."""
    for j in range(low, end, LINE):
        store(out, j, load(out, j) + load(row, j) * load(other, j))


@inner
def copy(row: Array, low: int, end: int, out: Array) -> None:
    """`out = row`."""
    for j in range(low, end, LINE):
        store(out, j, load(row, j))


@inner
def activate(nonlinearity: int, tanh_at: int, a: Array, low: int, high: int, end: int, out: Array) -> None:
    """`out = f(a)` up to high, and zeros from there on. tanh_at: the address of a tanh for vectors, or 0."""
    one = a.dtype.type(1)
    if nonlinearity == TANH and tanh_at != 0:
        for j in range(low, end, LINE):
            store(out, j, tanh(load(a, j), tanh_at))
        for j in range(high, end):
            out[j] = 0
        return
    for j in range(low, high):
        now = a[j]
        if nonlinearity == TANH:
            now = math.tanh(now)
        elif nonlinearity == RELU:
            now = now if now > 0 or now != now else one - one
        elif nonlinearity == SIGMOID:
            now = one / (one + math.exp(-now))
        out[j] = now


@inner
def through_the_rule(
    rule: int, v: Array, eta: Array, low: int, end: int, gd: Array, gs: Array, gv: Array, geta: Array
) -> None:
    """Back through d and s to v and eta."""
    for j in range(low, end, LINE):
        y, rate, of_d, of_s = load(v, j), load(eta, j), load(gd, j), load(gs, j)
        if rule == HEBB:
            store(gv, j, load(gv, j) + rate * of_s)
            store(geta, j, load(geta, j) + y * of_s - of_d)
        else:
            both = of_s - y * of_d
            store(gv, j, load(gv, j) + rate * (both - y * of_d))
            store(geta, j, load(geta, j) + y * both)


@inner
def through_the_activation(nonlinearity: int, v: Array, gv: Array, low: int, end: int, ga: Array) -> None:
    """`ga = gv * f'`, from v = f(a)."""
    one = splat(v.dtype.type(1))
    for j in range(low, end, LINE):
        y, slope = load(v, j), one
        if nonlinearity == TANH:
            slope = one - y * y
        elif nonlinearity == SIGMOID:
            slope = y * (one - y)
        store(ga, j, load(gv, j) * slope)
    if nonlinearity == RELU:
        for j in range(low, end):
            if v[j] <= 0:
                ga[j] = 0
