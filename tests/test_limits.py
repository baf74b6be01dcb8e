"""Limits of memory: those of control groups, of both versions, and of the address space."""

import contextlib
import os
import resource
import sys
from pathlib import Path

import pytest

from torchplastic import limits
from torchplastic.limits import Limit, memory_limit
from torchplastic.train import memory

MIB = 1 << 20
V1 = Path("/sys/fs/cgroup/memory")


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A system of files -> a function that writes one of them."""
    monkeypatch.setattr(limits, "ROOT", tmp_path)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY,) * 2)

    def write(name, text):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    return write


def test_no_limits(system):
    assert memory_limit() is None
    system("proc/self/cgroup", "0::/a\n")
    system("sys/fs/cgroup/a/memory.max", "max\n")
    system("sys/fs/cgroup/a/memory.current", "5\n")
    assert memory_limit() is None


def test_version_2_with_the_groups_above_and_the_cached_files(system):
    system("proc/self/cgroup", "0::/a/b\n")
    system("sys/fs/cgroup/a/b/memory.max", f"{900 * MIB}\n")
    system("sys/fs/cgroup/a/b/memory.current", f"{300 * MIB}\n")
    system("sys/fs/cgroup/a/b/memory.stat", f"anon 7\ninactive_file {100 * MIB}\n")
    assert memory_limit() == Limit(900 * MIB, 700 * MIB)
    system("sys/fs/cgroup/a/memory.max", f"{500 * MIB}\n")
    system("sys/fs/cgroup/a/memory.current", f"{450 * MIB}\n")
    assert memory_limit() == Limit(500 * MIB, 50 * MIB)


def test_version_1_seen_from_inside_a_container(system):
    system("proc/self/cgroup", "11:cpu,cpuacct:/docker/7\n4:memory:/docker/7\n0::/\n")
    system("sys/fs/cgroup/memory/memory.limit_in_bytes", f"{900 * MIB}\n")
    system("sys/fs/cgroup/memory/memory.usage_in_bytes", f"{1000 * MIB}\n")
    system("sys/fs/cgroup/memory/memory.stat", f"total_inactive_file {200 * MIB}\n")
    assert memory_limit() == Limit(900 * MIB, 100 * MIB)
    system("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    assert memory_limit() is None


@pytest.mark.parametrize("text", ["", "no colons", "4:memory", "\udc80"])
def test_files_of_another_form(system, tmp_path, text):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(text, errors="surrogateescape")
    assert memory_limit() is None


def test_the_address_space(monkeypatch):
    monkeypatch.setattr(limits, "_control_groups", lambda root: iter(()))
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1 << 45, 1 << 45))
    found = memory_limit()
    assert found.total == 1 << 45
    assert (1 << 45) - (1 << 41) < found.left < 1 << 45


def test_the_limit_counts(monkeypatch):
    monkeypatch.setattr(memory, "memory_limit", lambda: Limit(900 * MIB, 600 * MIB))
    with pytest.raises(memory.TooLargeError, match=r"needs about 0\.7 GiB on cpu and 0\.6 GiB are free"):
        memory.require(700 * MIB, memory.torch.device("cpu"), "")
    memory.require(500 * MIB, memory.torch.device("cpu"), "")


@pytest.fixture
def group():
    """A control group of 900 MiB -> the command that runs another in it."""
    folder = V1 / f"torchplastic-test-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text(str(900 * MIB))
    except OSError:
        pytest.skip("no control group can be made here")
    yield ["bash", "-c", f'echo $$ > {folder}/tasks; exec "$@"', "in-group", sys.executable, "-m", "torchplastic"]
    with contextlib.suppress(OSError):  # still in use for a moment
        folder.rmdir()


@pytest.mark.thorough
def test_a_container_of_900_mib(group, run_process, tmp_path):
    """A fault of use: in a container of 900 MiB a run of 4 GiB was killed instead of refused."""
    flags = ["train", "patterns", "--threads", "1"]
    large = run_process.start([*group, *flags, "--batch", "64", "--out", tmp_path / "large"])
    _, error = large.finish()
    assert large.returncode == 2
    assert "this run needs about" in error
    assert "lower --batch" in error
    small = run_process.start([*group, *flags, "--preset", "smoke", "--episodes", "20", "--out", tmp_path / "small"])
    _, error = small.finish()
    assert small.returncode == 0, error


@pytest.mark.thorough
def test_an_address_space_of_4_gib(run_process, tmp_path):
    shell = ["bash", "-c", 'ulimit -v 4194304; exec "$@"', "limited", sys.executable, "-m", "torchplastic"]
    flags = ["train", "patterns", "--threads", "1"]
    large = run_process.start([*shell, *flags, "--batch", "64", "--out", tmp_path / "large"])
    _, error = large.finish()
    assert large.returncode == 2
    assert "this run needs about" in error
    small = run_process.start([*shell, *flags, "--preset", "smoke", "--episodes", "20", "--out", tmp_path / "small"])
    _, error = small.finish()
    assert small.returncode == 0, error
