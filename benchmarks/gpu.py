"""Check and measure the package on a GPU: `make gpu`, again and again until it says that all is done.

A call lasts nine minutes at most, and does what is left. It needs PyTorch, NumPy and Triton, and no network; with the
extra lab it also measures whole updates of omniglot and the maze, and trains.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import sys
import threading
import time
import traceback
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

import torch  # noqa: E402
from gpu_steps import TINY, Sizes, Step, bench_steps, parity_steps  # noqa: E402
from gpu_training import RUNS, SHORTEST, TINY_RUNS, missing_lab, train  # noqa: E402

from torchplastic.bench import as_file  # noqa: E402

TRIES = 2  # of a step that ends the program
OVERTIME = 20  # seconds that a step may go on after the end of the call
HANGS = 6  # times its estimate; a step that takes longer is given up


class Progress:
    """What is done, in steps.json, which is replaced as a whole after every step."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "steps.json"
        found = json.loads(self.file.read_text()) if self.file.exists() else {}
        self.done: dict[str, dict[str, Any]] = found.get("done", {})
        self.begun: dict[str, int] = found.get("begun", {})
        self.results: str | None = found.get("results")

    def save(self) -> None:
        """Write all."""
        replace(self.file, {"results": self.results, "begun": self.begun, "done": self.done})

    def begin(self, step: Step) -> None:
        """Note that a step runs now, in case it ends the program."""
        self.begun[step.name] = self.begun.get(step.name, 0) + 1
        self.save()

    def finish(self, step: Step, **result: Any) -> None:
        """Keep the result of a step."""
        self.done[step.name] = {"kind": step.kind, **result}
        self.save()

    def estimate(self, step: Step) -> float:
        """Seconds of a step: as many as the slowest of its kind so far."""
        known = [found["seconds"] for found in self.done.values() if found["kind"] == step.kind and "seconds" in found]
        return max(known, default=step.seconds)

    @property
    def bandwidth(self) -> float | None:
        """Bytes that a copy moves in a second, once that is measured."""
        return self.done.get("copy", {}).get("bandwidth")


def main() -> int:
    """Do what is left, in time."""
    options = parsed()
    end = time.monotonic() + options.seconds
    if options.device == "cuda" and not torch.cuda.is_available():
        print("make gpu: no GPU is available to PyTorch here; nothing was measured.", file=sys.stderr)
        return 2
    device = torch.device(options.device)
    name = re.sub(r"\W+", "-", torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu").lower()
    folder = (options.out or ROOT / "runs" / "gpu") / name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print(f"make gpu: another call is at work in {folder}; wait for its end.", file=sys.stderr)
            return 2
        try:
            return work(options, device, folder, end)
        except KeyboardInterrupt:
            print(f"stopped; go on with: {again()}", file=sys.stderr)
            return 130


def work(options: argparse.Namespace, device: torch.device, folder: Path, end: float) -> int:
    """Steps, then training -> the exit code."""
    progress, no_lab = Progress(folder), missing_lab()
    sizes = TINY if options.tiny else Sizes()
    steps = [*parity_steps(device, sizes), *bench_steps(device, sizes, no_lab is None)]
    left = [step for step in steps if step.name not in progress.done]
    runs = {} if no_lab else TINY_RUNS if options.tiny else RUNS
    runs = {name: settings for name, settings in runs.items() if f"train: {name}" not in progress.done}
    minutes = sum(map(progress.estimate, left)) / 60
    print(f"{folder.name}: {len(steps) - len(left)} of {len(steps)} steps done, {len(left)} left (about {minutes:.0f}")
    print(f"minutes), then training: {', '.join(runs) or 'none'}; this call: {options.seconds:g} s", flush=True)
    if no_lab:
        print(f"training of {', '.join(RUNS)} skipped: the extra lab is not installed ({no_lab})")
    results = options.out or ROOT / "benchmarks" / "results"
    for step in left:
        if progress.estimate(step) <= end - time.monotonic():
            do(step, progress, end)
            write(progress, device, results, folder.name)
    waiting = [step for step in left if step.name not in progress.done]
    if not waiting and runs and (options.tiny or end - time.monotonic() > SHORTEST):
        for name in train(runs, folder / "training", device.type, end - time.monotonic()):
            progress.done[f"train: {name}"] = {"kind": "train"}
            runs.pop(name)
        progress.save()
    summary(progress)
    if not waiting and not runs:
        print(f"all is done: {results / str(progress.results)}; to measure anew, remove {folder}")
        return 0
    print(f"{len(waiting)} steps and {len(runs)} runs left; go on with: {again()}")
    if len(waiting) == len(left) > 0:
        seconds = progress.estimate(waiting[0])
        print(
            f"make gpu: {waiting[0].name} needs about {seconds:.0f} s; allow --seconds {2 * seconds:.0f}.",
            file=sys.stderr,
        )
        return 2
    return 0


def do(step: Step, progress: Progress, end: float) -> None:
    """Run a step, and keep its result or its failure. What hangs ends the program, and is not tried again."""
    if progress.begun.get(step.name, 0) >= TRIES:
        progress.finish(step, error=f"it ended the program {TRIES} times")
        return
    started, estimate = time.monotonic(), progress.estimate(step)
    allowed = HANGS * max(estimate, step.seconds)

    def give_up() -> None:
        if time.monotonic() - started >= allowed:
            progress.finish(step, error=f"given up after {allowed:.0f} s")
        print(f"{step.name}: too slow, or it hangs; go on with: {again()}", file=sys.stderr, flush=True)
        os._exit(1)

    print(f"{step.name} (about {estimate:.0f} s) …", end=" ", flush=True)
    progress.begin(step)
    watch = threading.Timer(min(allowed, end + OVERTIME - started), give_up)
    watch.daemon = True
    watch.start()
    try:
        result = step.run(progress.bandwidth)
        watch.cancel()
    except KeyboardInterrupt:
        progress.begun[step.name] -= 1
        progress.save()
        raise
    except Exception as error:
        watch.cancel()
        traceback.print_exc()
        progress.finish(step, error=f"{type(error).__name__}: {error}".splitlines()[0])
        if torch.cuda.is_available():
            try:
                torch.cuda.synchronize()
            except RuntimeError:  # only a new process can use the device again
                sys.exit(f"{step.name}: the error took the GPU with it; go on with: {again()}")
        return
    seconds = time.monotonic() - started
    progress.finish(step, seconds=seconds, **result)
    told = result.get("skipped") or (f"{result['failures']} of {result['checks']} failed" if "checks" in result else "")
    print(f"{seconds:.1f} s {told}", flush=True)


def rows_of(progress: Progress) -> list[dict[str, Any]]:
    """Every row that was measured."""
    return [row for found in progress.done.values() for row in found.get("rows", [])]


def write(progress: Progress, device: torch.device, folder: Path, name: str) -> None:
    """The bench file so far, for `plastic report`, with what the steps found of parity. No other file is replaced."""
    if progress.results is None:
        stem = f"{date.today()}-{name}"
        names = (f"{stem}{suffix}.json" for suffix in ("", *(f"-{i}" for i in range(2, 100))))
        progress.results = next(name for name in names if not (folder / name).exists())
        progress.save()
    steps = {
        name: {key: value for key, value in found.items() if key != "rows"} for name, found in progress.done.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    replace(folder / progress.results, {**as_file(rows_of(progress), device, progress.bandwidth), "steps": steps})


def summary(progress: Progress) -> None:
    """What failed, and in one line which implementation won at each size."""
    for name, found in progress.done.items():
        for line in [found["error"]] if "error" in found else found.get("failed", []):
            print(f"FAILED {name}: {line}")
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows_of(progress):
        if row["impl"] in ("reference", "chunked", "recurrent", "triton"):
            size = row["suite"], row["case"]
            best[size] = min(best.get(size, row), row, key=lambda row: row["seconds"]["median"])
    if best:
        won = (
            f"{suite} {case}: {row['impl']} {1e3 * row['seconds']['median']:.2f} ms"
            for (suite, case), row in best.items()
        )
        print(f'fastest, so "auto" would take: {"; ".join(won)}')


def replace(file: Path, content: dict[str, Any]) -> None:
    """Write a JSON file as a whole."""
    part = file.with_name(f"{file.name}.part")
    part.write_text(json.dumps(content, indent=1))
    part.replace(file)


def again() -> str:
    """The command that goes on."""
    return " ".join(["make gpu"] if len(sys.argv) == 1 else ["python", *sys.argv])


def parsed() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--seconds", type=float, default=540, help="time of this call; default: 540")
    parser.add_argument("--out", type=Path, help="default: runs/gpu, and benchmarks/results for the bench file")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to test this program")
    parser.add_argument("--tiny", action="store_true", help="small sizes that end within seconds")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
