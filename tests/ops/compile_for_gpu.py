"""Compile every kernel for a Hopper GPU, without one, and print the resources of each as JSON."""

import json
import re
import subprocess
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from torchplastic.ops.plastic_scan.triton_gpu import fused, kernels, persistent

HOPPER = GPUTarget("cuda", 90, 32)
NUMBERS = {"float32": "fp32", "float64": "fp64"}
BYTES = {"clamp", "flags"}
COUNTERS = {"arrived"}
DIVISIBLE = {"N", "M"}
SIZES = {"T", "B", "N", "M", "chunk", "blocks", "first_program", "t", "k", "inner", "steps"}
STRIDES = {"between_k", "between_l", "between_b", "between_j", "total_b", "total_j"}


def compiled(kernel, dtype, warps, **constants):
    """-> registers of a thread, bytes of its stack, where registers spill, and of shared memory of a program."""
    names = kernel.arg_names
    types = {}
    for name in names:
        number = NUMBERS[dtype] if name not in BYTES else "i8"
        pointer = "*i32" if name in COUNTERS else f"*{number}"
        types[name] = "constexpr" if name in constants else "i32" if name in SIZES | STRIDES else pointer
    aligned = [["tt.divisibility", 16]]
    attributes = {(names.index(n),): aligned for n in names if types[n].startswith("*") or n in DIVISIBLE}
    source = ASTSource(kernel, types, {(names.index(name),): value for name, value in constants.items()}, attributes)
    made = triton.compile(source, target=HOPPER, options={"num_warps": warps})
    binary = made.asm["cubin"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(binary)
        tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
        report = subprocess.run([tool, "-res-usage", file], capture_output=True, text=True, check=True).stdout
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", report).groups()
    return {"registers": int(registers), "stack": int(stack), "shared": made.metadata.shared}


def main():
    found = {}
    step = {"RULE": kernels.RULES["oja"], "F": kernels.NONLINEARITIES["tanh"], "CLAMP": True}
    for dtype, N, itemsize in (("float32", 1001, 4), ("float64", 500, 8)):
        grid = persistent.grid_of(N, 1, itemsize, 132)
        tile = {"R": grid.R, "BN": grid.BN}
        found[f"resident_forward {dtype}"] = compiled(
            kernels.resident_forward, dtype, persistent.FORWARD_WARPS, **step, **tile, KEEP=True
        )
        found[f"resident_backward {dtype}"] = compiled(
            kernels.resident_backward, dtype, persistent.BACKWARD_WARPS, **step, **tile,
            NEED_DRIVE=True, NEED_ETA=True, BQ=128,
        )  # fmt: skip
        for batch, pairs in ((1, 1), (1, 16), (16, 16), (16, fused.LONGEST)):
            shared = fused.tile_of(batch, 4096, pairs, itemsize)
            sizes = {"BB": shared.BB, "R": shared.R, "BN": shared.BN, "PAIRS": pairs, "ZERO": False}
            of = f"{dtype}, {batch} examples, {pairs} pairs"
            found[f"step_forward {of}"] = compiled(
                kernels.step_forward, dtype, shared.warps, **step, **sizes, MORE=True
            )
            found[f"step_backward {of}"] = compiled(
                kernels.step_backward, dtype, shared.warps, **step, **sizes, DECAY=True
            )
        found[f"last_step_backward {dtype}"] = compiled(
            kernels.last_step_backward, dtype, 4, **step, DECAY=True, BB=1, R=16
        )
        found[f"next_trace {dtype}"] = compiled(kernels.next_trace, dtype, 4, ZERO=False, **fused.PASS)
        found[f"through_the_trace {dtype}"] = compiled(
            kernels.through_the_trace,
            dtype,
            4,
            RULE=kernels.RULES["oja"],
            ZERO=False,
            FRESH=False,
            CARRY=True,
            LEARN=True,
            **fused.PASS,
        )
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
