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


class Job(NamedTuple):
    """One process to run: its command, where its output goes, and what it uses."""

    seed: int
    command: tuple[str, ...]
    """Arguments of the Python interpreter."""
    log: Path
    threads: int
    gpus: int = 0


class Pool(Protocol):
    """Runs jobs, so many at a time; what is left is interrupted on leaving the context."""

    def __enter__(self) -> Pool: ...

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def start(self, jobs: Sequence[Job]) -> None:
        """Begin; returns at once."""

    def unfinished(self) -> bool:
        """Whether a job runs or waits."""

    def running(self) -> list[Job]:
        """Those that run now."""

    def ended(self, timeout: float) -> list[tuple[Job, int]]:
        """Waits for jobs to end -> those that have, with their return codes (negative: the signal)."""

    def interrupt(self) -> None:
        """Start no more, and let those that run save and end; called again, kill them."""


def launch(job: Job) -> subprocess.Popen[bytes]:
    """Start a job in a process group of its own, its output appended to its log; it ends when this process does."""
    job.log.parent.mkdir(exist_ok=True)
    with job.log.open("ab") as log:
        return subprocess.Popen(
            (sys.executable, *job.command),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the terminal does not reach it
            env={
                **os.environ,
                "OMP_NUM_THREADS": str(job.threads),
                "PYTHONSAFEPATH": "1",  # the working directory holds no modules of ours
                PARENT: str(os.getpid()),
            },
        )


def send(process: subprocess.Popen[bytes], number: int) -> None:
    """A signal to a job and to the processes that it has started."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


class LocalPool:
    """Children on this machine, a thread waiting for each."""

    def __init__(self, jobs: int) -> None:
        self._executor = ThreadPoolExecutor(jobs)
        self._waiting: dict[Future[int | None], Job] = {}
        self._processes: dict[Job, subprocess.Popen[bytes]] = {}
        self._lock = threading.RLock()  # a signal handler may come while it is held
        self._stopping = False

    def __enter__(self) -> LocalPool:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.unfinished():
            self.interrupt()
        self._executor.shutdown()

    def start(self, jobs: Sequence[Job]) -> None:
        self._waiting |= {self._executor.submit(self._run, job): job for job in jobs}

    def unfinished(self) -> bool:
        return bool(self._waiting)

    def running(self) -> list[Job]:
        return list(self._processes)

    def ended(self, timeout: float) -> list[tuple[Job, int]]:
        done = wait(self._waiting, timeout, FIRST_COMPLETED).done
        codes = [(self._waiting.pop(future), future.result()) for future in done]
        return [(job, code) for job, code in codes if code is not None]

    def interrupt(self) -> None:
        with self._lock:
            number = signal.SIGKILL if self._stopping else signal.SIGTERM
            self._stopping = True
            for process in self._processes.values():
                send(process, number)

    def _run(self, job: Job) -> int | None:
        """The return code; None if it was never started."""
        with self._lock:
            if self._stopping:
                return None
            try:
                process = self._processes[job] = launch(job)
            except OSError as error:
                with contextlib.suppress(OSError), job.log.open("a") as log:
                    print(error, file=log)
                return 1
        code = process.wait()
        with self._lock:
            del self._processes[job]
        return code
