"""Arguments of a kernel: one record of addresses and sizes, which is filled and read by name.

`NAMES = fields("x T B N")` numbers the fields once. `fill(NAMES, x=tensor, T=3, …)` of scan.py fills a record; a name
that is missing or unknown is an error. A kernel takes the record as its only argument and reads `number(args, NAMES.T)`
and `array(args, NAMES.x, (T, B, N))`. The type of the argument holds the dtype of its arrays.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any

from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.core.extending import intrinsic, register_model

from torchplastic.ops.plastic_scan.numba_cpu.array import INT64, Array, make


def fields(names: str) -> Any:
    """The places of fields in a record: a named tuple of 0, 1, 2, …, which kernels read as constants."""
    made: Any = namedtuple("Fields", names.split())  # type: ignore[misc]
    return made._make(range(len(made._fields)))


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
        kind = Array(dtype_of(record), len(shape))

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            pointer = context.get_value_type(types.CPointer(kind.dtype))
            data = builder.inttoptr(_value(builder, *values[:2]), pointer)
            return make(context, builder, kind, data, cgutils.unpack_tuple(builder, values[2], len(shape)))

        return kind(record, types.intp, shape), generate

    return typed


number: Any = intrinsic(_number)
array: Any = intrinsic(_array_of(lambda record: record.dtype))
"""`array(record, place, (…))`: the contiguous array of this shape at an address."""
mask: Any = intrinsic(_array_of(lambda record: types.boolean))
"""The same of flags."""
numbers: Any = intrinsic(_array_of(lambda record: types.int64))
"""The same of integers."""
