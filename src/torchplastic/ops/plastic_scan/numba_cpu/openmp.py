"""Runs compiled functions on the threads of PyTorch.

A second pool of threads would fight PyTorch's for the cores: after a parallel operation its threads wait busily for
the next. So `in_team` starts a team in the OpenMP runtime that PyTorch itself links (GNU's, or one with its interface,
as LLVM's and Intel's on Linux).

The kernels include this code: jit.py says what to do after a change.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

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


def address(function: Any, types_of: Sequence[Any]) -> int:
    """The address of a compiled function's machine code for arguments of these types; compiles it if needed."""
    function.compile(tuple(types_of))  # as where a kernel calls it: the cache on disk tells this from a signature
    made = function.get_compile_result(types.none(*types_of))
    return int(made.library.get_pointer_to_function(made.fndesc.llvm_func_name))


def _call(context: Any, builder: Any, at: Any, call: Any, arguments: Any) -> None:
    """Call machine code at an address instead of linking it: shared functions are compiled once."""
    shape = context.call_conv.get_function_type(call.return_type, call.args)
    target = builder.inttoptr(at, shape.as_pointer())
    context.call_conv.call_function(
        builder, target, call.return_type, call.args, cgutils.unpack_tuple(builder, arguments)
    )


def _call_at(typing_context: Any, at: Any, function: Any, arguments: Any) -> Any:
    """`call_at(address, function, arguments)`. It returns nothing and must not raise."""
    call = typing_context.resolve_function_type(function, tuple(arguments), {})

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        _call(context, builder, values[0], call, values[2])
        return context.get_dummy_value()

    return types.void(types.intp, function, arguments), generate


def _in_team(typing_context: Any, at: Any, function: Any, arguments: Any, count: Any) -> Any:
    """`in_team(address, function, arguments, count)`: every thread of a team of at most `count` calls the function."""
    call = typing_context.resolve_function_type(function, tuple(arguments), {})

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        byte, int32 = cgutils.voidptr_t, ir.IntType(32)
        shape = ir.FunctionType(ir.VoidType(), [byte])
        member = ir.Function(builder.module, shape, builder.module.get_unique_name("member"))
        member.linkage = "internal"
        packed = cgutils.alloca_once_value(builder, cgutils.pack_struct(builder, [values[0], values[2]]))
        inside = ir.IRBuilder(member.append_basic_block())
        given = inside.load(inside.bitcast(member.args[0], packed.type))
        _call(context, inside, inside.extract_value(given, 0), call, inside.extract_value(given, 1))
        inside.ret_void()

        start_type = ir.FunctionType(ir.VoidType(), [shape.as_pointer(), byte, int32, int32])
        start = cgutils.get_or_insert_function(builder.module, start_type, "GOMP_parallel")
        builder.call(start, [member, builder.bitcast(packed, byte), values[3], int32(0)])
        return context.get_dummy_value()

    return types.void(types.intp, function, arguments, types.int32), generate


call_at: Any = intrinsic(_call_at)
in_team: Any = intrinsic(_in_team)
