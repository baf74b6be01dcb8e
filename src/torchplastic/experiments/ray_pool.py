"""Run jobs as tasks of a Ray cluster (extra `cluster`), whose machines must share the folder of the sweep."""

from __future__ import annotations

import contextlib
import logging
import signal
import subprocess
from collections.abc import Sequence
from types import TracebackType

import ray

from torchplastic.experiments.workers import SeedJob, launch, send

POLL = 0.5  # seconds between two checks of a process
PATIENCE = 60.0  # seconds that a process has to save


def work(job: SeedJob) -> int:
    """A Ray task: run the job on the task's machine; when cancelled, let it save and end."""
    process = launch(job)
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):  # a cancellation arrives between two waits
                return process.wait(POLL)
    except KeyboardInterrupt:
        send(process, signal.SIGTERM)  # Ray's workers block SIGINT, and so do their children
        return process.wait(PATIENCE)
    finally:
        send(process, signal.SIGKILL)


class RayPool:
    """Child processes on the running Ray cluster, or on a local one started for this pool."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self._waiting: list[SeedJob] = []
        self._tasks: dict[ray.ObjectRef, SeedJob] = {}
        self._stopping = False

    def __enter__(self) -> RayPool:
        try:
            ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
        except ConnectionError:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.unfinished():
            self.interrupt()
        while self.unfinished():
            self.ended(POLL)
        ray.shutdown()

    def start(self, jobs: Sequence[SeedJob]) -> None:
        for job in jobs:
            for name, needed in (("CPU", job.threads), ("GPU", job.gpus)):
                most = max((node["Resources"].get(name, 0) for node in ray.nodes() if node["Alive"]), default=0)
                if needed > most:
                    raise ValueError(
                        f"a seed needs {needed} {name}, but no machine of the Ray cluster has more than {most:g}; "
                        "lower --threads or --devices."
                    )
        self._waiting += jobs
        self._fill()

    def unfinished(self) -> bool:
        return bool(self._tasks or self._waiting)

    def running(self) -> list[SeedJob]:
        return list(self._tasks.values())

    def ended(self, timeout: float) -> list[tuple[SeedJob, int]]:
        done, _ = ray.wait(list(self._tasks), timeout=timeout) if self._tasks else ([], [])
        found = [(self._tasks.pop(task), _code(task)) for task in done]
        self._fill()
        return found

    def interrupt(self) -> None:
        for task in self._tasks:
            ray.cancel(task, force=self._stopping)
        self._waiting.clear()
        self._stopping = True

    def _fill(self) -> None:
        while self._waiting and not self._stopping and len(self._tasks) < self.jobs:
            job = self._waiting.pop(0)
            task = ray.remote(work).options(num_cpus=job.threads, num_gpus=job.gpus, max_retries=0).remote(job)
            self._tasks[task] = job
            if self._stopping:  # a signal arrived meanwhile
                ray.cancel(task)


def _code(task: ray.ObjectRef) -> int:
    try:
        return int(ray.get(task))
    except ray.exceptions.TaskCancelledError:
        return -signal.SIGTERM
    except ray.exceptions.RayError:  # the machine or the worker was lost
        return -signal.SIGKILL
