"""What tests start hears signals, and is ended with all that it started."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from tests.processes import MARK, Processes

SLEEP = "import time; print('ready', flush=True); time.sleep(60)"


@pytest.fixture
def one_that_left(run_process):
    """A process whose parent has gone, in a session of its own, and what ends it."""
    processes = Processes("the mark of one test")
    code = (
        "import subprocess, sys; process = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], "
        "start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL); print(process.pid)"
    )
    return psutil.Process(int(processes([sys.executable, "-c", code]).out)), processes


def test_what_a_child_leaves_behind_is_ended(one_that_left):
    left, processes = one_that_left
    assert left.is_running()
    beside = processes.start([sys.executable, "-c", SLEEP])
    processes.end()
    left.wait(timeout=20)
    assert beside.returncode == -signal.SIGKILL


def test_signals_are_heard_where_the_caller_ignores_them(run_process):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        child = run_process.start([sys.executable, "-c", SLEEP])
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGINT)
    _, error = child.finish()
    assert "KeyboardInterrupt" in error


def test_a_process_that_takes_too_long_fails_the_test(run_process):
    with pytest.raises(subprocess.TimeoutExpired):
        run_process([sys.executable, "-c", SLEEP], seconds=0.1)
    child = run_process.start([sys.executable, "-c", SLEEP], seconds=0.1)
    with pytest.raises(AssertionError, match="not ready in time"):
        child.wait_for(lambda: False)


def test_an_exit_code_that_is_not_expected_fails_the_test(run_process):
    with pytest.raises(AssertionError, match="what went wrong"):
        run_process([sys.executable, "-c", "import sys; sys.exit('what went wrong')"])
    assert run_process([sys.executable, "-c", "import sys; sys.exit(3)"], code=3).out == ""


def test_no_process_is_started_without_the_fixture(request):
    assert MARK not in os.environ
    with pytest.raises(RuntimeError, match="takes the fixture run_process"):
        subprocess.run([sys.executable, "-c", ""])
    assert request.node.get_closest_marker("children") is None


def test_tests_that_start_processes_are_marked(request, run_process):
    assert request.node.get_closest_marker("children")
