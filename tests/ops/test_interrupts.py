"""An exception that a signal handler raises reaches the caller, whatever the layers are doing."""

import ast
import random
import signal
import sys
import time
from pathlib import Path

import pytest

import torchplastic as tp

PACKAGE = Path(tp.__file__).parent
TRAINING = """
import signal, time
import torch
import torchplastic as tp

def raise_timeout(number, frame):
    raise TimeoutError

signal.signal(signal.SIGALRM, raise_timeout)
torch.set_num_threads(1)
rnn = tp.PlasticRNN(8, 1000)
x = torch.randn(3, 1, 8)

def step():
    y, _ = rnn(x)
    y.square().mean().backward()

step()
for _ in range(%d):
    end = time.monotonic() + 5
    try:
        print("training", flush=True)
        while time.monotonic() < end:
            step()
        print("lost", flush=True)
    except (KeyboardInterrupt, TimeoutError) as error:
        print(type(error).__name__, flush=True)
"""


def test_what_a_signal_handler_raises_ends_training(run_process):
    """Signals arrive at random moments of a training loop."""
    waits, numbers = random.Random(0), [signal.SIGINT, signal.SIGALRM] * 3
    child = run_process.start([sys.executable, "-c", TRAINING % len(numbers)], seconds=240)
    caught = []
    for number in numbers:
        assert child.stdout.readline() == "training\n"  # after imports, and kernels compiled where they are new
        time.sleep(waits.uniform(0.02, 0.2))
        child.send_signal(number)
        caught.append(child.stdout.readline().strip())
    _, errors = child.finish()
    assert caught == ["KeyboardInterrupt", "TimeoutError"] * 3, errors
    assert errors == ""


def runs_when_freed(tree):
    """Lines that let Python code run when an object is freed, where Python drops what a signal handler raises."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == "__del__":
            yield node.lineno
        if name_of(node) in {"finalize", "WeakSet", "WeakKeyDictionary", "WeakValueDictionary"}:
            yield node.lineno
        if isinstance(node, ast.Call) and name_of(node.func) in {"ref", "proxy", "WeakMethod"}:
            callback = node.args[1:] or node.keywords
            yield from [node.lineno] if callback else []


def name_of(node):
    """The name of a variable, attribute or import; None for other nodes."""
    return getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "name", None)


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_python_code_runs_when_an_object_is_freed(file):
    assert list(runs_when_freed(ast.parse(file.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    "code",
    [
        "weakref.finalize(array, give_back)",
        "from weakref import finalize",
        "weakref.ref(array, give_back)",
        "proxy(array, callback=give_back)",
        "held = weakref.WeakValueDictionary()",
        "class Buffer:\n    def __del__(self): pass",
    ],
)
def test_code_that_runs_when_an_object_is_freed_is_seen(code):
    assert list(runs_when_freed(ast.parse(code)))


def test_a_weak_reference_without_a_callback_runs_no_code():
    assert not list(runs_when_freed(ast.parse("lease = weakref.ref(array)")))
