"""`plastic sweep`: train the same settings with many seeds."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from torchplastic.cli.help import wants_help
from torchplastic.cli.parsing import before
from torchplastic.cli.train import train_flags

USAGE = """usage: plastic sweep EXPERIMENT [--seeds 10] [--jobs N] [--backend local|ray] [--out DIR]
                     [any flag of plastic train]

Trains seeds 0 to N - 1, each in a separate process. Called again, it continues with the seeds that are not finished;
--seeds, --jobs, --episodes and --threads may then differ.

  --seeds N          number of seeds; default 10
  --jobs N           processes at a time, which share the CPU's threads. Default: 2; if each seed uses one GPU
                     (--device cuda, or auto on a machine with a GPU), as many as fit its memory, at most one per CPU
                     core
  --backend ray      run as tasks of the running Ray cluster, or of a local one; its machines must share the folder
  --out DIR          folder of the sweep; default runs/sweeps/EXPERIMENT-PRESET-HASH, a hash of the settings

All flags of plastic train except --seed and --out, which the sweep sets for each run."""


def run(args: Sequence[str]) -> int:
    """Train the seeds that are not finished, and print the status of each."""
    if wants_help(args):
        print(USAGE, flush=True)
        if args[0].startswith("-"):
            return 0
    if not args or args[0].startswith("-"):
        raise ValueError("name an experiment first: plastic sweep EXPERIMENT --seeds N. See plastic list.")
    experiment = args[0]
    own, rest = before(
        args[1:],
        seeds={"type": int, "default": 10},
        jobs={"type": int},
        backend={"choices": ("local", "ray"), "default": "local"},
        out={"type": Path},
        data_dir={"type": Path},
        debug={"action": "store_true"},
    )
    if own.data_dir is not None:  # each process has its own working directory
        rest += ["--data-dir", str(own.data_dir.absolute())]
    for name in ("seeds", "jobs"):
        if getattr(own, name) is not None and getattr(own, name) < 1:
            raise ValueError(f"--{name} must be at least 1; got {getattr(own, name)}.")
    if any(argument == "--seed" or argument.startswith("--seed=") for argument in rest):
        raise ValueError("a sweep sets the seeds itself, 0 to N - 1; omit --seed and set their number with --seeds N.")
    _, flags = train_flags("plastic sweep", "Train each seed as plastic train does.", experiment, rest)
    from torchplastic.experiments import signals
    from torchplastic.experiments.sweep import Sweep, default_jobs, default_path, make_pool, run_sweep

    config = flags.config
    path = own.out or default_path(config)
    what = Sweep(config, tuple(range(own.seeds)), tuple(rest), flags.device, flags.devices, path.absolute(), own.debug)
    jobs = own.jobs or default_jobs(what, own.backend)
    statuses, number = run_sweep(what, make_pool(own.backend, jobs), jobs)
    with signals.handle():  # a second Ctrl-C does not cut the output short
        for one in statuses:
            measured = "" if one.measured is None else f"  last row: {one.measure} {one.measured:.4g}"
            why = f"  ({one.why})" if one.why else ""
            print(f"seed {one.seed}  {one.state}  episodes {one.episode}{measured}{why}")
        finished = sum(one.state == "finished" for one in statuses)
        print(f"{path}  {finished} of {len(statuses)} seeds finished")
        print(f"plastic report {shlex.quote(str(path))}")
        if finished < len(statuses):
            print("the same command continues with the others", file=sys.stderr)
    if number is not None:
        return 128 + number
    return 0 if finished == len(statuses) else 1
