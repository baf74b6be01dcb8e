"""Stop a run or a sweep cleanly: on a signal, or when its parent process ends."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
ONE_REQUEST = 1.0  # seconds in which several signals count as one: terminals and wrappers send some twice
PARENT = "PLASTIC_PARENT"  # environment variable: the process id that a child must not outlive


@contextmanager
def handle(act: Callable[[], None] | None = None) -> Iterator[list[int]]:
    """Collect SIGINT, SIGTERM and SIGHUP and call `act` at each; without `act` a second signal ends the process.

    Ignored signals (nohup) stay ignored.
    """
    received: list[int] = []
    first = 0.0

    def handler(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if received and time.monotonic() - first < ONE_REQUEST:
            return
        first = first or time.monotonic()
        received.append(number)
        if act is not None:
            act()
        elif len(received) > 1:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    previous = {number: signal.getsignal(number) for number in ENDING}
    handled = {number: action for number, action in previous.items() if action not in (signal.SIG_IGN, None)}
    for number in handled:
        signal.signal(number, handler)
    try:
        yield received
    finally:
        for number, action in handled.items():
            signal.signal(number, action)


def orphaned() -> bool:
    """Whether the parent process named in the environment has ended."""
    parent = os.environ.get(PARENT)
    return parent is not None and parent.isdecimal() and os.getppid() != int(parent)
