"""The memory that this process may use, where a container or the shell allows less than the machine has.

Control groups limit a container: version 2 has one tree of folders, version 1 one for each resource. A process is
subject to the limits of its group and of all groups above it. RLIMIT_AS (`ulimit -v`) limits the address space.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path("/")
NONE = 1 << 60  # version 1 writes a number beyond this for no limit


class Limit(NamedTuple):
    """A limit in bytes, and how much of it is left."""

    total: int
    left: int


def memory_limit() -> Limit | None:
    """The limit that leaves least; None if there is none, or the system has no such limits."""
    found = [*_control_groups(ROOT), *_address_space()]
    return min(found, key=lambda limit: limit.left) if found else None


def _control_groups(root: Path) -> Iterator[Limit]:
    """The limits of this process's memory group and of those above it."""
    for line in _lines(root / "proc/self/cgroup"):
        number, _, named = line.partition(":")
        controllers, _, inside = named.partition(":")
        if number == "0":
            tree, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            tree = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = tree / inside.lstrip("/")
        for folder in (group, *group.parents):  # seen from inside a container, some of them are not there
            if (limit := _limit_of(folder, *names)) is not None:
                yield limit
            if folder == tree:
                break


def _limit_of(folder: Path, maximum: str, current: str, reclaimable: str) -> Limit | None:
    total, used = (_number(next(_lines(folder / name), "")) for name in (maximum, current))
    if total is None or used is None or total >= NONE:
        return None
    pages = dict(line.split(" ", 1) for line in _lines(folder / "memory.stat") if " " in line)
    used -= _number(pages.get(reclaimable, "")) or 0  # cached files make room when memory is short
    return Limit(total, max(0, total - used))


def _address_space() -> Iterator[Limit]:
    try:
        import resource
    except ImportError:  # Windows
        return
    total, _ = resource.getrlimit(resource.RLIMIT_AS)
    pages = _number(next(_lines(ROOT / "proc/self/statm"), "").split(" ")[0])
    if total != resource.RLIM_INFINITY and pages is not None:
        yield Limit(total, max(0, total - pages * resource.getpagesize()))


def _lines(file: Path) -> Iterator[str]:
    try:
        yield from file.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None
