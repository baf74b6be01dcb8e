"""Runs compiled functions on the threads of PyTorch.

A second pool of threads would fight PyTorch's for the cores: after a parallel operation its threads wait busily for
the next. So `in_team` starts a team in the OpenMP runtime that PyTorch itself links (GNU's, or one with its interface,
as LLVM's and Intel's on Linux).
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from torchplastic.ops.plastic_scan.numba_cpu.record import Record

ENTRIES = ("GOMP_parallel", "GOMP_barrier", "omp_get_thread_num", "omp_get_num_threads")


def _find_entries() -> None:
    """Register the runtime with the compiler. ImportError if PyTorch links none with this interface."""
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        for name in ENTRIES:
            llvm.add_symbol(name, ctypes.cast(getattr(library, name), ctypes.c_void_p).value)
    except (OSError, AttributeError) as error:
        raise ImportError(f"no OpenMP runtime beside PyTorch: {error}") from error


_find_entries()
barrier: Any = types.ExternalFunction("GOMP_barrier", types.void())
"""All threads of the team wait here for each other."""
thread: Any = types.ExternalFunction("omp_get_thread_num", types.int32())
threads: Any = types.ExternalFunction("omp_get_num_threads", types.int32())


def _call(context: Any, builder: Any, at: Any, call: Any, arguments: Any) -> None:
    """Call machine code at an address instead of linking it: shared functions are compiled once."""
    shape = context.call_conv.get_function_type(call.return_type, call.args)
    target = builder.inttoptr(at, shape.as_pointer())
    context.call_conv.call_function(builder, target, call.return_type, call.args, arguments)


def _call_at(typing_context: Any, at: Any, function: Any, arguments: Any) -> Any:
    """`call_at(address, function, arguments)`. It returns nothing and must not raise."""
    call = typing_context.resolve_function_type(function, tuple(arguments), {})

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        _call(context, builder, values[0], call, cgutils.unpack_tuple(builder, values[2]))
        return context.get_dummy_value()

    return types.void(types.intp, function, arguments), generate


def _in_team(typing_context: Any, at: Any, record: Any, count: Any) -> Any:
    """`in_team(address, record, count)`: every thread of a team of at most `count` calls the kernel at that address.

    A kernel takes a record and returns nothing; its machine code takes an address, whatever the dtype of its arrays.
    """
    call = types.void(Record(types.float32))

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        byte, int32, int64 = cgutils.voidptr_t, ir.IntType(32), ir.IntType(64)
        shape = ir.FunctionType(ir.VoidType(), [byte])
        member = ir.Function(builder.module, shape, builder.module.get_unique_name("member"))
        member.linkage = "internal"
        packed = cgutils.alloca_once_value(builder, cgutils.pack_array(builder, values[:2]))
        inside = ir.IRBuilder(member.append_basic_block())
        given = inside.load(inside.bitcast(member.args[0], packed.type))
        argument = inside.inttoptr(inside.extract_value(given, 1), int64.as_pointer())
        _call(context, inside, inside.extract_value(given, 0), call, [argument])
        inside.ret_void()

        start_type = ir.FunctionType(ir.VoidType(), [shape.as_pointer(), byte, int32, int32])
        start = cgutils.get_or_insert_function(builder.module, start_type, "GOMP_parallel")
        builder.call(start, [member, builder.bitcast(packed, byte), values[2], int32(0)])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int32), generate


call_at: Any = intrinsic(_call_at)
in_team: Any = intrinsic(_in_team)
