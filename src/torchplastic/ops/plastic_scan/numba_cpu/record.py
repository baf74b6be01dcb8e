"""Arguments of a kernel: one record of addresses and sizes, which is filled and read by name.

`NAMES = fields("x T B N")` numbers the fields once. Python fills a record with `fill(NAMES, x=tensor, T=3, …)`; a name
that is missing or unknown is an error. A kernel takes the record as its only argument and reads `number(args, NAMES.T)`
and `array(args, NAMES.x, (T, B, N))`. The type of the argument holds the dtype of its arrays.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.core.extending import intrinsic, register_model
from numba.np.arrayobj import populate_array
from torch import Tensor

INT64 = ir.IntType(64)


def fields(names: str) -> Any:
    """The places of fields in a record: a named tuple of 0, 1, 2, …, which kernels read as constants."""
    made: Any = namedtuple("Fields", names.split())  # type: ignore[misc]
    return made._make(range(len(made._fields)))


def fill(places: Any, **values: Tensor | int | None) -> np.ndarray:
    """A record: a tensor's address, a number, or 0 for None. The tensors must stay alive, and be contiguous."""
    names = places._fields
    if len(values) != len(names) or not all(name in values for name in names):
        wrong = sorted(values.keys() ^ set(names))
        raise TypeError(f"a record has the fields {', '.join(names)}; missing or unknown: {', '.join(wrong)}.")
    found = [values[name] for name in names]
    assert all(value.is_contiguous() for value in found if isinstance(value, Tensor))
    return np.array([value.data_ptr() if isinstance(value, Tensor) else value or 0 for value in found], np.int64)


class Record(types.Type):
    """A record in a kernel whose arrays are of this dtype; it is passed by its address."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(f"Record({dtype})")


@register_model(Record)
class _RecordModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Record) -> None:
        super().__init__(manager, kind, INT64.as_pointer())


def _value(builder: Any, record: Any, place: Any) -> Any:
    return builder.load(builder.gep(record, [place]))


def _number(typing_context: Any, record: Any, place: Any) -> Any:
    """`number(record, place)`: an integer."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return _value(builder, *values)

    return types.int64(record, types.intp), generate


def _array_of(dtype_of: Any) -> Any:
    def typed(typing_context: Any, record: Any, place: Any, shape: Any) -> Any:
        kind = types.Array(dtype_of(record), len(shape), "C")

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            item = context.get_value_type(kind.dtype) if kind.dtype != types.boolean else ir.IntType(8)
            itemsize = context.get_abi_sizeof(item)
            made = context.make_array(kind)(context, builder)
            address = _value(builder, *values[:2])
            sizes = cgutils.unpack_tuple(builder, values[2], len(shape))
            strides: list[Any] = []
            stride = ir.Constant(INT64, itemsize)
            for size in reversed(sizes):
                strides.insert(0, stride)
                stride = builder.mul(stride, size)
            populate_array(
                made, data=builder.inttoptr(address, item.as_pointer()), shape=sizes, strides=strides,
                itemsize=ir.Constant(INT64, itemsize), meminfo=None,
            )  # fmt: skip
            return made._getvalue()

        return kind(record, types.intp, shape), generate

    return typed


number: Any = intrinsic(_number)
array: Any = intrinsic(_array_of(lambda record: record.dtype))
"""`array(record, place, (…))`: the contiguous array of this shape at an address."""
mask: Any = intrinsic(_array_of(lambda record: types.boolean))
"""The same of flags."""
numbers: Any = intrinsic(_array_of(lambda record: types.int64))
"""The same of integers."""
