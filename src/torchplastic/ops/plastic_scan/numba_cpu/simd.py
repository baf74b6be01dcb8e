"""Vectors of `LINE` numbers in compiled functions.

The compiler vectorises a loop over several arrays only if it can prove, or checks at every entry, that they do not
overlap; with short rows the check and the rest of the row cost as much as the work. Here the loop is explicit:
`store(out, j, a * load(x, j) + load(y, j))`. Products and sums contract.

Arrays are contiguous; an index counts from the array's first number.
"""

from __future__ import annotations

import ctypes
import operator
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import torch
from llvmlite import ir
from numba import types
from numba.core.datamodel import models
from numba.core.extending import intrinsic, lower_builtin, register_model
from numba.core.typing.templates import AbstractTemplate, infer_global

from torchplastic.ops.plastic_scan.numba_cpu.array import parts

LINE = 16  # numbers to which rows are rounded up: a line of the cache in float32, two in float64
REGISTER = 32  # bytes that a function of PyTorch's for vectors takes
FLAGS = ("contract", "reassoc", "nsz")


class Lanes(types.Type):
    """A vector of `LINE` numbers."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(f"Lanes({dtype})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Lanes) -> None:
        super().__init__(manager, kind, ir.VectorType(manager.lookup(kind.dtype).get_value_type(), LINE))


def _place(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> Any:
    data, _ = parts(context, builder, array_type, array)
    vector = context.get_value_type(Lanes(array_type.dtype))
    return builder.bitcast(builder.gep(data, [at]), vector.as_pointer())


def _load(typing_context: Any, array: Any, at: Any) -> Any:
    """`load(array, at)`: the numbers at … at + LINE - 1."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        loaded = builder.load(_place(context, builder, array, *values))
        loaded.align = array.dtype.bitwidth // 8
        return loaded

    return Lanes(array.dtype)(array, types.intp), generate


def _store(typing_context: Any, array: Any, at: Any, lanes: Any) -> Any:
    """`store(array, at, lanes)`."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        stored = builder.store(values[2], _place(context, builder, array, *values[:2]))
        stored.align = array.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), generate


def _splat(typing_context: Any, number: Any) -> Any:
    """`splat(number)`: that number in every lane."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        vector = context.get_value_type(signature.return_type)
        none = ir.Constant(vector, ir.Undefined)
        first = builder.insert_element(none, values[0], ir.Constant(ir.IntType(32), 0))
        return builder.shuffle_vector(first, none, _indices([0] * LINE))

    return Lanes(number)(number), generate


def _total(typing_context: Any, lanes: Any) -> Any:
    """`total(lanes)`: their sum, in any order."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        number, vector = (context.get_value_type(kind) for kind in (lanes.dtype, lanes))
        name = f"llvm.vector.reduce.fadd.v{LINE}f{lanes.dtype.bitwidth}"
        total = builder.module.declare_intrinsic(name, fnty=ir.FunctionType(number, [number, vector]))
        return builder.call(total, [ir.Constant(number, 0.0), values[0]], fastmath=FLAGS)

    return lanes.dtype(lanes), generate


def _tanh(typing_context: Any, lanes: Any, at: Any) -> Any:
    """`tanh(lanes, at)` by the function at that address, from `find_tanh`."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        whole, count = values[0], REGISTER * 8 // lanes.dtype.bitwidth
        part = ir.VectorType(context.get_value_type(lanes.dtype), count)
        function = builder.inttoptr(values[1], ir.FunctionType(part, [part]).as_pointer())
        for first in range(0, LINE, count):
            piece = builder.shuffle_vector(whole, whole, _indices(range(first, first + count)))
            made = builder.call(function, [piece])
            long = builder.shuffle_vector(made, made, _indices(place % count for place in range(LINE)))
            mixed = (LINE + place if first <= place < first + count else place for place in range(LINE))
            whole = builder.shuffle_vector(whole, long, _indices(mixed))
        return whole

    return lanes(lanes, types.intp), generate


def _indices(places: Iterable[int]) -> Any:
    listed = list(places)
    return ir.Constant(ir.VectorType(ir.IntType(32), len(listed)), listed)


@cache
def find_tanh(dtype: str) -> int:
    """The address of PyTorch's own tanh of a register of numbers; 0 if it has none."""
    name = {"float32": "Sleef_tanhf8_u10", "float64": "Sleef_tanhd4_u10"}[dtype]
    if not llvm.get_host_cpu_features().get("avx"):
        return 0
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        return ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0
    except (OSError, AttributeError):
        return 0


load: Any = intrinsic(_load)
store: Any = intrinsic(_store)
splat: Any = intrinsic(_splat)
total: Any = intrinsic(_total)
tanh: Any = intrinsic(_tanh)


def _operator(symbol: Any, instruction: str) -> None:
    """An operator of two vectors is one instruction. (An overload would be a function, which costs time to compile.)"""

    class OfLanes(AbstractTemplate):
        def generic(self, arguments: Any, keywords: Any) -> Any:
            left, *others = arguments
            return left(*arguments) if isinstance(left, Lanes) and others == [left] else None

    def compute(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return getattr(builder, instruction)(*values, flags=FLAGS)

    infer_global(symbol)(OfLanes)
    lower_builtin(symbol, Lanes, Lanes)(compute)


_operator(operator.add, "fadd")
_operator(operator.sub, "fsub")
_operator(operator.mul, "fmul")
