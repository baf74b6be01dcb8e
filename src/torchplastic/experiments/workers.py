"""Run jobs as child processes on this machine, several at a time; sweeps use it."""

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


class SeedJob(NamedTuple):
    """A process to run: its command, its log and its resources."""

    seed: int
    command: tuple[str, ...]
    """Arguments of the Python interpreter."""
    log: Path
    threads: int
    gpus: int = 0


class Pool(Protocol):
    """Runs a limited number of jobs at a time; leaving the context interrupts the rest."""

    def __enter__(self) -> Pool: ...

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def start(self, jobs: Sequence[SeedJob]) -> None:
        """Start the jobs; returns at once."""

    def unfinished(self) -> bool:
        """Whether any job is running or waiting."""

    def running(self) -> list[SeedJob]:
        """The running jobs."""

    def ended(self, timeout: float) -> list[tuple[SeedJob, int]]:
        """Wait up to `timeout` seconds -> ended jobs with their return codes (negative: the signal)."""

    def interrupt(self) -> None:
        """Start no further job and let the running ones save and end; a second call kills them."""


def launch(job: SeedJob) -> subprocess.Popen[bytes]:
    """Start a job in its own process group, appending its output to its log; it ends with this process."""
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
                "PYTHONSAFEPATH": "1",  # do not import modules from the working directory
                PARENT: str(os.getpid()),
            },
        )


def send(process: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to a job and to the processes that it has started."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


class LocalPool:
    """Child processes on this machine, with a waiting thread for each."""

    def __init__(self, jobs: int) -> None:
        self._executor = ThreadPoolExecutor(jobs)
        self._waiting: dict[Future[int | None], SeedJob] = {}
        self._processes: dict[SeedJob, subprocess.Popen[bytes]] = {}
        self._lock = threading.RLock()  # reentrant: a signal handler may run while it is held
        self._stopping = False

    def __enter__(self) -> LocalPool:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.unfinished():
            self.interrupt()
        self._executor.shutdown()

    def start(self, jobs: Sequence[SeedJob]) -> None:
        self._waiting |= {self._executor.submit(self._run, job): job for job in jobs}

    def unfinished(self) -> bool:
        return bool(self._waiting)

    def running(self) -> list[SeedJob]:
        return list(self._processes)

    def ended(self, timeout: float) -> list[tuple[SeedJob, int]]:
        done = wait(self._waiting, timeout, FIRST_COMPLETED).done
        codes = [(self._waiting.pop(future), future.result()) for future in done]
        return [(job, code) for job, code in codes if code is not None]

    def interrupt(self) -> None:
        with self._lock:
            number = signal.SIGKILL if self._stopping else signal.SIGTERM
            self._stopping = True
            for process in self._processes.values():
                send(process, number)

    def _run(self, job: SeedJob) -> int | None:
        """Run a job -> its return code; None if it was never started."""
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
