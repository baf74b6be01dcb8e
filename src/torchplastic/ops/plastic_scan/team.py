"""Compiled functions on the threads of PyTorch.

A second pool of threads would fight PyTorch's for the cores: after a parallel operation its threads wait busily for
the next. So a team is started through the OpenMP runtime that PyTorch itself links (GNU's, or one that speaks its
interface, as LLVM's and Intel's do on Linux): a region costs about a microsecond, a barrier half of one.
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

ENTRIES = ("GOMP_parallel", "GOMP_barrier", "omp_get_thread_num", "omp_get_num_threads")


def _find_entries() -> None:
    """Tell the compiler where the runtime is. ImportError where PyTorch links none of this interface."""
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


def _in_team(typing_context: Any, function: Any, arguments: Any, count: Any) -> Any:
    """`in_team(function, arguments, count)`: every thread of a team of at most `count` calls the compiled function.

    It returns nothing and must not raise.
    """
    call = typing_context.resolve_function_type(function, tuple(arguments), {})

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        byte, int32 = cgutils.voidptr_t, ir.IntType(32)
        made = function.dispatcher.get_compile_result(call)
        context.active_code_library.add_linking_library(made.library)

        shape = ir.FunctionType(ir.VoidType(), [byte])
        member = ir.Function(builder.module, shape, builder.module.get_unique_name("member"))
        member.linkage = "internal"
        packed = cgutils.alloca_once_value(builder, values[1])
        inside = ir.IRBuilder(member.append_basic_block())
        unpacked = cgutils.unpack_tuple(inside, inside.load(inside.bitcast(member.args[0], packed.type)))
        target = context.declare_function(builder.module, made.fndesc)
        context.call_conv.call_function(inside, target, call.return_type, call.args, unpacked)
        inside.ret_void()

        start_type = ir.FunctionType(ir.VoidType(), [shape.as_pointer(), byte, int32, int32])
        start = cgutils.get_or_insert_function(builder.module, start_type, "GOMP_parallel")
        builder.call(start, [member, builder.bitcast(packed, byte), values[2], int32(0)])
        return context.get_dummy_value()

    return types.void(function, arguments, types.int32), generate


in_team: Any = intrinsic(_in_team)
