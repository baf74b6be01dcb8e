"""What every test starts from: warnings are errors, two threads, seeded property tests."""

import pytest
import torch
from hypothesis import settings


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "error")
    settings.register_profile("torchplastic", deadline=None, max_examples=40, derandomize=True)
    settings.load_profile("torchplastic")
    torch.set_num_threads(min(2, torch.get_num_threads()))


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def two_threads():
    """Products of a few rows are split over threads, so tests of the split must not depend on the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
