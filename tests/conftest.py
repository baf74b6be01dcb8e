"""What every test starts from: warnings are errors, one thread, seeded property tests."""

import os
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from filelock import FileLock
from hypothesis import settings
from torch.utils._pytree import tree_flatten, tree_unflatten

from tests.data.files import drawing, omniglot_folder
from tests.ops.parity import runs_here
from tests.processes import refuse_unmarked, run_process
from torchplastic import cuda_graph
from torchplastic.data import omniglot
from torchplastic.functional import plastic_scan
from torchplastic.ops import cpu_cache

__all__ = ["run_process"]

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read where Triton's kernels are first imported: they then run on the CPU


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "error")
    settings.register_profile("torchplastic", deadline=None, max_examples=40, derandomize=True)
    settings.load_profile("torchplastic")
    # small tensors gain nothing from a second thread, and threads of a busy machine wait for each other
    torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)  # before the marks are looked at
def pytest_collection_modifyitems(items):
    for item in items:
        if "run_process" in item.fixturenames:
            item.add_marker("children")


@pytest.fixture(scope="session", autouse=True)
def no_process_without_its_fixture():
    refuse_unmarked()


@pytest.fixture(scope="session", autouse=True)
def kernels_compiled_once(tmp_path_factory):
    """Of several workers the first compiles the kernels of the CPU, and the others read what it has left on disk."""
    if "PYTEST_XDIST_WORKER" in os.environ and runs_here("recurrent"):
        with FileLock(tmp_path_factory.getbasetemp().parent / "kernels.lock"):
            for dtype in (torch.float32, torch.float64):
                for impl in ("chunked", "recurrent"):
                    inputs = torch.zeros(3, 1, 2), torch.zeros(2, 2), torch.ones(2, 2), torch.tensor(0.1)
                    leaves = (tensor.to(dtype).requires_grad_() for tensor in inputs)
                    plastic_scan(*leaves, impl=impl)[0].sum().backward()


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def two_threads():
    """Products of a few rows are split over threads, whatever the machine has."""
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.fixture
def poisoned_buffers(monkeypatch):
    """Memory that was never written holds NaN, so that a read of it shows."""
    empty = cpu_cache.empty
    monkeypatch.setattr(cpu_cache, "empty", lambda shape, like: empty(shape, like).fill_(torch.nan))


class Recorder:
    """As CUDA's: recording does nothing, a replay runs on the recorded tensors and fills the same outputs again."""

    def __init__(self):
        self.captured = self.replayed = 0

    def capture(self, function):
        self.captured += 1
        outputs = []

        def replay():
            self.replayed += 1
            leaves, spec = tree_flatten(function())
            outputs.extend(leaf.clone() for leaf in leaves[len(outputs) :])
            for place, leaf in zip(outputs, leaves, strict=True):
                place.copy_(leaf)
            return tree_unflatten(outputs, spec)

        return replay


@pytest.fixture
def recorder(monkeypatch):
    """CUDA graphs on the CPU: what is recorded runs again."""
    recorder = Recorder()
    monkeypatch.setattr(cuda_graph, "CAPTURED_ON", "cpu")
    monkeypatch.setattr(cuda_graph, "capture", recorder.capture)
    monkeypatch.setattr(cuda_graph, "aside", nullcontext)
    return recorder


@pytest.fixture
def small_omniglot(monkeypatch, tmp_path):
    """Sixteen characters that count as Omniglot, six of them test characters -> their folder."""
    names = [omniglot.digest(~np.stack([drawing(100 * c + d) for d in range(20)])) for c in range(16)]
    monkeypatch.setattr(omniglot, "CHARACTERS", {"images_background": 9, "images_evaluation": 7})
    split = omniglot.Split(frozenset(names), frozenset(names[::3]), "0123")
    monkeypatch.setattr(omniglot, "fixed_split", lambda: split)
    monkeypatch.setattr(omniglot, "VALIDATION", 3)
    monkeypatch.setattr(omniglot, "cache_folder", lambda: tmp_path / "cache")
    return omniglot_folder(tmp_path / "set", 9, 7)
