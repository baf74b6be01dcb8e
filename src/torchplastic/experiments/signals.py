"""Signals that end a run or a sweep in good order."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextmanager
def noted(act: Callable[[], None] | None = None) -> Iterator[list[int]]:
    """Note the signals that ask for an end, and call `act` at each; without `act` a second one ends the process."""
    caught: list[int] = []

    def handler(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        if act is not None:
            act()
        else:
            signal.signal(number, previous[number])

    previous: dict[int, Any] = {number: signal.signal(number, handler) for number in ENDING}
    try:
        yield caught
    finally:
        for number, action in previous.items():
            signal.signal(number, action)
