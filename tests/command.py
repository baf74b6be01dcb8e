"""The command in tests: a tiny task, calls in this process and in one of their own, what a run wrote."""

import json
import sys

import pytest

from torchplastic import cli

TINY = ["--task.bits", "16", "--task.patterns", "2", "--task.shown", "2", "--task.cycles", "1", "--threads", "1"]
COMMAND = [sys.executable, "-m", "torchplastic"]


def plastic(*args):
    """Run in this process -> exit code."""
    with pytest.raises(SystemExit) as stop:
        cli.main([str(a) for a in args])
    return stop.value.code


def tiny(out, *more):
    """Train the tiny task."""
    return ["train", "patterns", "--preset", "smoke", *TINY, "--out", out, *more]


def rows(path):
    """The rows of metrics.jsonl."""
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def timeless(path):
    """The same without what depends on the clock."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows(path)]
