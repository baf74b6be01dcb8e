"""Arrays in kernels: an address, and the sizes of a contiguous array of one dtype.

numba's own arrays also carry strides and owners, and check each index: to compile that takes a tenth of the first call.
An index is one integer for each of the first axes, and maybe a slice of the axis after them: what it selects is
contiguous too. No index is negative, and none is checked. A number is written into all that an index selects.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.core.extending import infer_getattr, lower_builtin, lower_getattr, register_model
from numba.core.typing.templates import AbstractTemplate, AttributeTemplate, infer_global, signature

INT64 = ir.IntType(64)


class Array(types.Type):
    """A contiguous array with so many axes."""

    def __init__(self, dtype: Any, axes: int) -> None:
        self.dtype, self.axes = dtype, axes
        super().__init__(f"Array({dtype}, {axes})")


@register_model(Array)
class _ArrayModel(models.StructModel):
    def __init__(self, manager: Any, kind: Array) -> None:
        sizes = [(f"size{axis}", types.intp) for axis in range(kind.axes)]
        super().__init__(manager, kind, [("data", types.CPointer(kind.dtype)), *sizes])


def make(context: Any, builder: Any, kind: Array, data: Any, sizes: Any) -> Any:
    """The array at a pointer."""
    made = cgutils.create_struct_proxy(kind)(context, builder)
    made.data = data
    for axis, size in enumerate(sizes):
        setattr(made, f"size{axis}", size)
    return made._getvalue()


def parts(context: Any, builder: Any, kind: Array, value: Any) -> tuple[Any, list[Any]]:
    """Its pointer and sizes."""
    opened = cgutils.create_struct_proxy(kind)(context, builder, value=value)
    return opened.data, [getattr(opened, f"size{axis}") for axis in range(kind.axes)]


def _product(builder: Any, sizes: Any) -> Any:
    product = ir.Constant(INT64, 1)
    for size in sizes:
        product = builder.mul(product, size, flags=("nsw",))
    return product


# --- attributes


@infer_getattr
class _Attributes(AttributeTemplate):
    key = Array

    def resolve_shape(self, kind: Array) -> Any:
        return types.UniTuple(types.intp, kind.axes)

    def resolve_size(self, kind: Array) -> Any:
        return types.intp

    def resolve_dtype(self, kind: Array) -> Any:
        return types.DType(kind.dtype)


@lower_getattr(Array, "shape")
def _shape(context: Any, builder: Any, kind: Array, value: Any) -> Any:
    return cgutils.pack_array(builder, parts(context, builder, kind, value)[1])


@lower_getattr(Array, "size")
def _size(context: Any, builder: Any, kind: Array, value: Any) -> Any:
    return _product(builder, parts(context, builder, kind, value)[1])


@lower_getattr(Array, "dtype")
def _dtype(context: Any, builder: Any, kind: Array, value: Any) -> Any:
    return context.get_dummy_value()


@infer_global(len)
class _Len(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        return signature(types.intp, *args) if isinstance(args[0], Array) else None


@lower_builtin(len, Array)
def _len(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return parts(context, builder, sig.args[0], args[0])[1][0]


# --- what an index selects


def _places(index: Any) -> tuple[Any, ...]:
    """The types of its integers and slices."""
    return tuple(index.types) if isinstance(index, types.Tuple | types.UniTuple) else (index,)


def _selected(kind: Array, index: Any) -> Any:
    """The type of what an index selects: a number, or an array; None if it is no index of such an array."""
    places = _places(index)
    numbers = [isinstance(place, types.Integer) for place in places]
    if not (all(numbers[:-1]) and len(places) <= kind.axes):
        return None
    if not (numbers[-1] or isinstance(places[-1], types.SliceType)):
        return None
    axes = kind.axes - sum(numbers)
    return Array(kind.dtype, axes) if axes else kind.dtype


def _select(context: Any, builder: Any, kind: Array, array: Any, index_kind: Any, index: Any) -> tuple[Any, list[Any]]:
    """The pointer to what an index selects, and its sizes; none for a number."""
    data, sizes = parts(context, builder, kind, array)
    kinds = _places(index_kind)
    places = [index] if kinds == (index_kind,) else cgutils.unpack_tuple(builder, index, len(kinds))
    at, kept = ir.Constant(INT64, 0), sizes[len(kinds) :]
    for axis, (place_kind, place) in enumerate(zip(kinds, places, strict=True)):
        start = place
        if isinstance(place_kind, types.SliceType):
            cut = context.make_helper(builder, place_kind, place)
            start = cut.start
            beyond = builder.icmp_signed("<", sizes[axis], cut.stop)  # a slice without an end
            stop = builder.select(beyond, sizes[axis], cut.stop)
            kept = [builder.sub(stop, start, flags=("nsw",)), *kept]
        else:
            start = context.cast(builder, place, place_kind, types.intp)
        stride = _product(builder, sizes[axis + 1 :])
        at = builder.add(at, builder.mul(start, stride, flags=("nsw",)), flags=("nsw",))
    return builder.gep(data, [at], inbounds=True), kept


@infer_global(operator.getitem)
class _GetItem(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        array, index = args
        selected = _selected(array, index) if isinstance(array, Array) else None
        return selected and signature(selected, array, index)


@lower_builtin(operator.getitem, Array, types.Any)
def _getitem(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    pointer, sizes = _select(context, builder, sig.args[0], args[0], sig.args[1], args[1])
    if isinstance(sig.return_type, Array):
        return make(context, builder, sig.return_type, pointer, sizes)
    return context.unpack_value(builder, sig.return_type, pointer)


@infer_global(operator.setitem)
class _SetItem(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        array, index, value = args
        if isinstance(array, Array) and isinstance(value, types.Number) and _selected(array, index):
            return signature(types.none, array, index, array.dtype)
        return None


@lower_builtin(operator.setitem, Array, types.Any, types.Any)
def _setitem(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    pointer, sizes = _select(context, builder, sig.args[0], args[0], sig.args[1], args[1])
    if not sizes:
        context.pack_value(builder, sig.args[2], args[2], pointer)
    else:
        with cgutils.for_range(builder, _product(builder, sizes)) as loop:
            context.pack_value(builder, sig.args[2], args[2], builder.gep(pointer, [loop.index], inbounds=True))
    return context.get_dummy_value()
