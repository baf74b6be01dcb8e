"""The hardware and the versions that a result depends on; needs no package but torch."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import torchplastic

PACKAGES = ("torch", "numpy", "lightning-fabric", "numba", "triton")


def hardware(device: torch.device) -> dict[str, Any]:
    """The hardware, for summary.json and benchmarks."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    found = {"cpu": cpu, "cores": os.cpu_count(), "threads": torch.get_num_threads(), "device": device.type}
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def versions() -> dict[str, str]:
    """Versions of the package, of Python, and of those packages that a result depends on and that are installed."""
    found = {"torchplastic": torchplastic.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
