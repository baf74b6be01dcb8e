"""Child processes in tests: each is started here, hears signals whatever the calling shell ignores, and is ended."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import uuid

import psutil
import pytest

from torchplastic.experiments.signals import ENDING

MARK = "TORCHPLASTIC_TEST"  # environment variable of what a test starts, and of what that starts in turn
WAITED = 0.01  # seconds between two looks at what a process has written


class Child(subprocess.Popen):
    """A process that a test started, with the time it may take."""

    def __init__(self, command, seconds, env, **options):
        self.ends = time.monotonic() + seconds
        environment = {"OMP_NUM_THREADS": "1", **os.environ, **env}
        with heard():
            super().__init__(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
                env={name: value for name, value in environment.items() if value is not None},
                **options,
            )

    def left(self):
        """Seconds that it still has."""
        return max(0, self.ends - time.monotonic())

    def finish(self):
        """Wait for its end -> what it wrote to stdout and to stderr."""
        return self.communicate(timeout=self.left())

    def wait_for(self, ready):
        """Wait until `ready()` is true, and return it; the process may neither end nor run out of time before."""
        while not (found := ready()):
            assert self.poll() is None, self.finish()
            assert self.left(), f"not ready in time: {self.args}"
            time.sleep(WAITED)
        return found


class Processes:
    """Starts processes, and ends them with all that they have started.

    A child has a session of its own and one thread. `env` adds to the environment, and takes from it what is None.
    """

    def __init__(self, mark):
        self._mark = mark
        self._children = []
        self._forks = []

    def __call__(self, command, *, code=0, seconds=120, env=(), **options):
        """Run a command to its end, which is exit code `code` -> the process, with `out` and `error`."""
        child = self.start(command, seconds=seconds, env=env, **options)
        child.out, child.error = child.finish()
        assert child.returncode == code, child.error
        return child

    def start(self, command, *, seconds=120, env=(), **options):
        """Start a command and go on beside it."""
        child = Child(command, seconds, {**dict(env), MARK: self._mark}, **options)
        self._children.append(child)
        return child

    def fork(self, function, each, seconds=120, **options):
        """Call a function in a copy of this process for each tuple of arguments -> their exit codes."""
        make = multiprocessing.get_context("fork").Process
        started = [make(target=function, args=arguments, kwargs=options) for arguments in each]
        self._forks += started
        for process in started:
            process.start()
        end = time.monotonic() + seconds
        for process in started:
            process.join(max(0, end - time.monotonic()))
        return [process.exitcode for process in started]

    def end(self):
        """Kill all that is left."""
        for process in self._forks:
            if process.is_alive():
                process.kill()
                process.join()
        end = time.monotonic() + 20
        while left := marked(self._mark):
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            assert time.monotonic() < end, f"cannot be killed: {left}"
            time.sleep(WAITED)
        for child in self._children:
            child.communicate()


@contextlib.contextmanager
def heard():
    """Signals that this process ignores (`make test &`, nohup) have their usual action in those started meanwhile."""
    ignored = [number for number in ENDING if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, _nothing)  # a function is not inherited
    try:
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)


def _nothing(number, frame):
    pass


def marked(mark):
    """Processes with this mark, wherever they stand in the tree."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                found.append(process)
    return found


# --- no process without the fixture

_allowed = False


def _refuse(event, arguments):
    if not _allowed and (event == "os.fork" or (event == "subprocess.Popen" and arguments[0] == sys.executable)):
        raise RuntimeError("a test that starts a process takes the fixture run_process")


def refuse_unmarked():
    """From now on Python starts Python only in tests that have the fixture."""
    sys.addaudithook(_refuse)


@pytest.fixture
def run_process():
    """Every child process of a test; one that starts some by calling the command has it too."""
    global _allowed
    mark = uuid.uuid4().hex
    processes = Processes(mark)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARK, mark)
        _allowed = True
        try:
            yield processes
        finally:
            _allowed = False
            processes.end()
