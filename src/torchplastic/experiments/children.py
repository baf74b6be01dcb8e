"""Processes that run several at a time, on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol

from torchplastic.experiments.signals import PARENT


class Child(NamedTuple):
    """One process to run: its command, where its output goes, and what it uses."""

    seed: int
    command: tuple[str, ...]
    """Arguments of the Python interpreter."""
    log: Path
    threads: int
    gpus: int = 0


class Pool(Protocol):
    """Runs children, so many at a time; what is left is interrupted on leaving the context."""

    def __enter__(self) -> Pool: ...

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def start(self, children: Sequence[Child]) -> None:
        """Begin; returns at once."""

    def unfinished(self) -> bool:
        """Whether a child runs or waits."""

    def running(self) -> list[Child]:
        """Those that run now."""

    def ended(self, timeout: float) -> list[tuple[Child, int]]:
        """Waits for children to end -> those that have, with their return codes (negative: the signal)."""

    def interrupt(self) -> None:
        """Start no more, and let those that run save and end; called again, kill them."""


def launch(child: Child) -> subprocess.Popen[bytes]:
    """Start a child in a process group of its own, its output appended to its log; it ends when this process does."""
    child.log.parent.mkdir(exist_ok=True)
    with child.log.open("ab") as log:
        return subprocess.Popen(
            (sys.executable, *child.command),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the terminal does not reach it
            env={
                **os.environ,
                "OMP_NUM_THREADS": str(child.threads),
                "PYTHONSAFEPATH": "1",  # the working directory holds no modules of ours
                PARENT: str(os.getpid()),
            },
        )


def send(process: subprocess.Popen[bytes], number: int) -> None:
    """A signal to a child and to the processes that it has started."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


class LocalPool:
    """Children on this machine, a thread waiting for each."""

    def __init__(self, jobs: int) -> None:
        self._executor = ThreadPoolExecutor(jobs)
        self._waiting: dict[Future[int | None], Child] = {}
        self._processes: dict[Child, subprocess.Popen[bytes]] = {}
        self._lock = threading.RLock()  # a signal handler may come while it is held
        self._stopping = False

    def __enter__(self) -> LocalPool:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.unfinished():
            self.interrupt()
        self._executor.shutdown()

    def start(self, children: Sequence[Child]) -> None:
        self._waiting |= {self._executor.submit(self._run, child): child for child in children}

    def unfinished(self) -> bool:
        return bool(self._waiting)

    def running(self) -> list[Child]:
        return list(self._processes)

    def ended(self, timeout: float) -> list[tuple[Child, int]]:
        done = wait(self._waiting, timeout, FIRST_COMPLETED).done
        codes = [(self._waiting.pop(future), future.result()) for future in done]
        return [(child, code) for child, code in codes if code is not None]

    def interrupt(self) -> None:
        with self._lock:
            number = signal.SIGKILL if self._stopping else signal.SIGTERM
            self._stopping = True
            for process in self._processes.values():
                send(process, number)

    def _run(self, child: Child) -> int | None:
        """The return code; None if it was never started."""
        with self._lock:
            if self._stopping:
                return None
            try:
                process = self._processes[child] = launch(child)
            except OSError as error:
                with contextlib.suppress(OSError), child.log.open("a") as log:
                    print(error, file=log)
                return 1
        code = process.wait()
        with self._lock:
            del self._processes[child]
        return code
