"""What ends a run or a sweep in good order: a signal, or the end of the process that started it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
ONE_REQUEST = 1.0  # seconds in which several signals are one request: terminals and wrappers send some twice
PARENT = "PLASTIC_PARENT"  # environment variable of a process that must not outlive the one of this number


@contextmanager
def noted(act: Callable[[], None] | None = None) -> Iterator[list[int]]:
    """Note the signals that ask for an end, and call `act` at each; without `act` a second one ends the process.

    Signals that are ignored (nohup) stay so.
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
    heard = {number: action for number, action in previous.items() if action not in (signal.SIG_IGN, None)}
    for number in heard:
        signal.signal(number, handler)
    try:
        yield received
    finally:
        for number, action in heard.items():
            signal.signal(number, action)


def orphaned() -> bool:
    """Whether the process that started this one, and said so, has gone."""
    parent = os.environ.get(PARENT)
    return parent is not None and os.getppid() != int(parent)
