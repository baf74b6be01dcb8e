"""Processor seconds of the first call with an empty cache of compiled kernels, for each implementation.

python benchmarks/first_call.py            of the package in this checkout, or wherever PYTHONPATH leads
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

CALL = """
import sys, time, warnings
import torch, torchplastic as tp
warnings.simplefilter("ignore")
impl, gradients = sys.argv[1], sys.argv[2] == "True"
rnn, x = tp.PlasticRNN(3, 40, impl="reference"), torch.randn(20, 2, 3)
rnn(x)[0].sum().backward()  # what PyTorch does once is not counted
rnn.impl = impl
before = time.process_time()
with torch.set_grad_enabled(gradients):
    y, _ = rnn(x)
if gradients:
    y.sum().backward()
print(time.process_time() - before)
"""


def seconds(impl: str, gradients: bool) -> float:
    """Processor seconds of a call in a new process."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", CALL, impl, str(gradients)]
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300)
    return float(done.stdout)


def main() -> None:
    """A line for each."""
    for impl in sys.argv[1:] or ("recurrent", "chunked"):
        print(f"{impl:10} forward {seconds(impl, False):5.1f} s, with gradients {seconds(impl, True):5.1f} s")


if __name__ == "__main__":
    main()
