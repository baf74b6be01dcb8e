"""What every test starts from: warnings are errors, one thread, seeded property tests."""

import pytest
import torch
from hypothesis import settings

from torchplastic.ops import workspace


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "error")
    settings.register_profile("torchplastic", deadline=None, max_examples=40, derandomize=True)
    settings.load_profile("torchplastic")
    torch.set_num_threads(
        1
    )  # small tensors gain nothing from a second, and threads of a busy machine wait for each other


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
    """Memory that nobody has written holds NaN, so that whoever reads it shows."""
    empty = workspace.empty
    monkeypatch.setattr(workspace, "empty", lambda shape, like: empty(shape, like).fill_(torch.nan))
