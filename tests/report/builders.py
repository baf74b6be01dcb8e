"""Small fake runs and bench files, of the formats that `plastic` writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

HARDWARE = {"cpu": "Imaginary CPU 3000", "cores": 2, "device": "cpu"}
VERSIONS = {"torch": "2.13.0", "torchplastic": "0.1.0"}


def write_run(
    path: Path,
    *,
    experiment: str = "patterns",
    preset: str = "paper",
    seed: int = 0,
    model: dict[str, Any] | None = None,
    task: dict[str, Any] | None = None,
    error: Callable[[float], float] = lambda e: 0.25 * 0.98**e,
    episodes: int = 300,
    every: int = 10,
    finished: bool = True,
    measure: str = "error",
    samples: dict[str, np.ndarray] | None = None,
    evaluations: dict[str, Any] | None = None,
    extra: Callable[[float], dict[str, Any]] = lambda e: {},
    noted: dict[str, Any] | None = None,
    **config: Any,
) -> Path:
    """A run directory; `error(e)` is the value of the row that ends at episode e, the loss 1000 times as much.

    noted: further keys of its summary.
    """
    path.mkdir(parents=True)
    full = {"experiment": experiment, "preset": preset, "seed": seed, "episodes": episodes, "batch": 1}
    full["model"] = {"kind": "plastic", "alpha": "full", "rule": "hebb"} | (model or {})
    full["task"] = {"bits": 1000, "patterns": 5} if task is None else task
    write_json(path / "config.json", full | config)
    rows = [
        {"episode": e, "seconds": e / 5, "loss": 1000 * error(e), measure: error(e), "eta": 0.01} | extra(e)
        for e in range(every, episodes + 1, every)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if finished:
        summary = {
            "experiment": experiment,
            "preset": preset,
            "seed": seed,
            "episodes": episodes,
            "seconds": episodes / 5,
        }
        summary |= {"parameters": 2004002, "final": {"loss": rows[-1]["loss"], measure: rows[-1][measure]}}
        summary |= {"hardware": HARDWARE, "versions": VERSIONS, "data": "random bits"} | (noted or {})
        write_json(path / "summary.json", summary)
    if samples is not None:
        np.savez(path / "samples.npz", **samples)
    for name, content in (evaluations or {}).items():
        write_json(path / "eval" / f"{name}.json", content)
    return path


def some_samples(neurons: int = 41, seed: int = 0) -> dict[str, np.ndarray]:
    """Pictures before and after training, w and α, and a line."""
    rng = np.random.default_rng(seed)
    shape = (5, 8)
    arrays: dict[str, np.ndarray] = {}
    patterns = rng.choice([-1.0, 1.0], (5, *shape))
    cue = patterns[2] * (np.arange(40).reshape(shape) % 2)
    for group, answer in (
        ("before training", 0.05 * rng.standard_normal(shape)),
        ("after training", 0.95 * patterns[2]),
    ):
        for number, pattern in enumerate(patterns):
            arrays[f"pictures/{group}/{number:02d} pattern {number + 1}"] = pattern
        arrays[f"pictures/{group}/05 cue"] = cue
        arrays[f"pictures/{group}/06 answer"] = answer
        arrays[f"pictures/{group}/07 target"] = patterns[2]
    arrays["matrix/w"] = 0.01 * rng.standard_normal((neurons, neurons))
    arrays["matrix/alpha"] = 0.5 * arrays["matrix/w"] + 0.01 * rng.standard_normal((neurons, neurons))
    arrays["line/wrong bits by step"] = np.linspace(0.5, 0.0, 10)
    arrays["way/first episode"] = np.zeros((4, 2))
    return arrays


def write_bench(path: Path) -> Path:
    """A bench file of one case and three scaling suites."""
    rows = [
        bench_row("patterns", "paper", "reference", 2.0, 1 << 30, N=1001, T=205),
        bench_row("patterns", "paper", "chunked", 0.16, 1 << 26, N=1001, T=205),
    ]
    for size, values in {"N": (100, 200, 400, 800), "T": (25, 50, 100, 200), "B": (1, 2, 4)}.items():
        for value in values:
            sizes = {"N": 200, "T": 50, "B": 1} | {size: value}
            work = sizes["N"] ** 2 * sizes["T"] * sizes["B"] * 1e-9
            for impl, gain in (("reference", 1.0), ("chunked", 0.1)):
                row = bench_row(
                    f"scaling {size}", f"{size}={value}", impl, work * gain, int(1e9 * work * gain), **sizes
                )
                rows.append(row)
    content = {"kind": "bench", "date": "2025-01-02", "hardware": HARDWARE, "versions": VERSIONS, "rows": rows}
    content["ratios"] = [{"suite": "patterns", "case": "paper", "impl": "chunked", "speed": 12.5, "memory": 16.0}]
    write_json(path, content)
    return path


def bench_row(suite: str, case: str, impl: str, median: float, peak: int, **sizes: int) -> dict[str, Any]:
    """One measurement with a middle half of ± 10 %."""
    label = "1001 neurons, 205 steps, clamped" if suite == "patterns" else case
    seconds = {"median": median, "q1": 0.9 * median, "q3": 1.1 * median, "n": 20}
    row = {"suite": suite, "case": case, "label": label, "impl": impl, "seconds": seconds, "peak_bytes": peak}
    counted = {"counted": "episodes", "per_second": 1 / median, "floor_share": None if impl == "reference" else 0.8}
    return row | counted | {"N": 1001, "T": 205, "B": 1} | sizes


def write_sweep(path: Path, seeds: Sequence[int], **run: Any) -> Path:
    """A sweep directory; the error of seed s is that of the run times 1 + s / 10."""
    error = run.pop("error", lambda e: 0.25 * 0.98**e)
    for seed in seeds:
        factor = 1 + seed / 10
        write_run(path / f"seed-{seed}", seed=seed, error=lambda e, factor=factor: factor * error(e), **run)
    return path


def write_json(path: Path, content: Any) -> None:
    """An object as a JSON file, its folder made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
