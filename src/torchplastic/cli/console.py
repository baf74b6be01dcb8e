"""Messages on stderr while the command works: what takes time, and the library's log."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

NARROWEST = 40  # columns
INTERRUPTED = 128 + signal.SIGINT  # the exit code after Ctrl-C


class Forgiving:
    """A stream that drops what it cannot write: a message must not end the training it tells of."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):  # a full disk, a closed pipe; a closed stream
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def prepare_streams(own: bool) -> None:
    """Let no text fail for its letters; in a process of our own let no message on stderr fail, nor a closed stream."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a question mark if the encoding has no α or ×
    if not own:
        return
    if sys.stdout is None:
        sys.stdout = _nowhere()
    sys.stderr = Forgiving(_nowhere() if sys.stderr is None else sys.stderr)
    if shutil.get_terminal_size().columns < NARROWEST:
        os.environ["COLUMNS"] = str(NARROWEST)  # the parser's help never ends in a very narrow terminal


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w")


def say(line: str) -> None:
    """Print a line on stderr, if possible. If several processes share a run, only the first prints."""
    if sys.stderr is not None and os.environ.get("LOCAL_RANK", "0") == "0":
        with contextlib.suppress(OSError, ValueError):
            print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def loading(package: str, name: str) -> Iterator[None]:
    """Around the import of a large package: Ctrl-C ends the process at once.

    A terminal shows a line meanwhile. It goes when the import ends, so that an error stays the only line.
    """
    if package in sys.modules:
        yield
        return
    with ended_by_ctrl_c(), _shown_meanwhile(f"loading {name} …"):
        yield


@contextlib.contextmanager
def _shown_meanwhile(text: str) -> Iterator[None]:
    """Show a text on a terminal until the context ends; nothing elsewhere."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield
        return
    print(text, end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def ended_by_ctrl_c() -> Iterator[None]:
    """Around imports: Ctrl-C ends the process. There is nothing to save, and an import may swallow an exception."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler or not _in_main_thread():
        yield
        return
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


class _Lines(logging.Handler):
    """Print each message as a line on stderr; above the progress bars, which replace stderr while they are shown."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


@contextlib.contextmanager
def messages_shown() -> Iterator[None]:
    """Show the log of the package on stderr; the library itself is silent."""
    log, lines = logging.getLogger("torchplastic"), _Lines()
    level = log.level
    log.addHandler(lines)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(lines)
        log.setLevel(level)
