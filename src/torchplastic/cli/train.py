"""`plastic train`: train an experiment in a new run directory, or resume a run."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from torchplastic.cli.console import loading
from torchplastic.cli.help import wants_help
from torchplastic.cli.parsing import before, parse
from torchplastic.experiments import catalog

if TYPE_CHECKING:
    from torchplastic.experiments.base import Experiment
    from torchplastic.experiments.launch import RunResult

KINDS = ("plastic", "rnn", "lstm", "gru")


def run(args: Sequence[str]) -> int:
    """Train an experiment, or go on with a run."""
    experiment = args[0] if args and not args[0].startswith("-") else None
    if any(argument == "--resume" or argument.startswith("--resume=") for argument in args):
        if experiment is not None:
            raise ValueError("--resume takes the experiment from the run; omit the name: plastic train --resume RUN.")
        return _resume(args)
    if experiment is None and not wants_help(args):
        raise ValueError(
            "name an experiment first: plastic train EXPERIMENT [--preset PRESET], or --resume RUN. See plastic list."
        )
    if experiment is None:
        print(f"usage: plastic train {{{','.join(catalog.CATALOG)}}} [--preset PRESET] [flags]")
        print("       plastic train --resume RUN [--episodes N] [--device DEVICE] [--devices N] [--data-dir DIR]")
        print("\nplastic train EXPERIMENT --help lists the flags of an experiment; plastic list describes the presets.")
        return 0
    found, flags = train_flags("plastic train", "Train an experiment in a new run directory.", experiment, args[1:])
    from torchplastic.experiments import launch

    return _print_result(launch.start(found, flags.config, flags.out, flags.device, flags.devices))


def train_flags(prog: str, about: str, experiment: str, args: Sequence[str]) -> tuple["Experiment", Any]:
    """Parse the flags that train an experiment -> the experiment; config, out, device, devices."""
    chosen, rest = before(args, preset={"default": "quick"}, model__kind={"default": "plastic", "choices": KINDS})
    kind, presets = vars(chosen)["model.kind"], tuple(catalog.entry(experiment).presets)
    catalog.preset(experiment, chosen.preset)
    with loading("torch", "PyTorch"):
        found = catalog.get(experiment)
    settings, config = found.config, found.settings(chosen.preset, kind)

    @dataclass
    class Train:  # the most used flags first
        preset: Literal[presets]  # type: ignore[valid-type]
        """Preset of all settings; plastic list describes each."""
        device: str
        """auto, cpu, cuda or cuda:N."""
        out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")]
        """Run directory, which must not exist yet; default runs/EXPERIMENT/PRESET-seedS-DATE-TIME."""
        devices: int
        """Processes that share every batch, one per device; on a CPU they share its threads."""
        config: Annotated[settings, tyro.conf.arg(name="")]  # type: ignore[valid-type]

    Train.__doc__ = (
        f"{about} First the most used flags, then those of the network (model), the optimiser (optim) and the task. "
        f"The defaults below belong to --preset {chosen.preset} with --model.kind {kind}."
    )
    flags = parse(Train, f"{prog} {experiment}", rest, Train(chosen.preset, "auto", None, 1, config))
    if flags.devices < 1:
        raise ValueError(f"--devices must be at least 1; got {flags.devices}.")
    return found, flags


def _resume(args: Sequence[str]) -> int:
    @dataclass
    class Resume:
        """Continue a run exactly where it stopped, with its settings."""

        resume: Path
        """The run directory."""
        episodes: int | None = None
        """Total number of episodes, instead of the run's setting."""
        device: str = "auto"
        """auto, cpu, cuda or cuda:N."""
        devices: int = 1
        """Processes that share every batch."""
        data_dir: Path | None = None
        """Folder of the run's data, if they were moved."""

    flags = parse(Resume, "plastic train", args)
    if flags.episodes is not None and flags.episodes < 1:
        raise ValueError(f"--episodes must be at least 1; got {flags.episodes}.")
    with loading("torch", "PyTorch"):
        from torchplastic.experiments import launch

    return _print_result(launch.resume(flags.resume, flags.episodes, flags.device, flags.devices, flags.data_dir))


def _print_result(outcome: "RunResult") -> int:
    """Print how training ended, and the next command -> the exit code."""
    from torchplastic.experiments import signals

    with signals.handle():  # a second Ctrl-C does not cut the output short
        return _print_summary(outcome)


def _print_summary(outcome: "RunResult") -> int:
    run = outcome.run
    if run is None:  # only the first process prints
        return 0
    path = shlex.quote(str(run.path))
    if not outcome.finished:
        shared = f" --devices {outcome.devices}" if outcome.devices > 1 else ""
        print(f"stopped and saved; continue with: plastic train --resume {path}{shared}", file=sys.stderr)
        return 128 + (outcome.signal or 0)
    summary = run.summary
    assert summary is not None
    if not outcome.trained:
        print(f"{run.path} is finished: {summary['episodes']} episodes.", file=sys.stderr)
    *_, start, end = [0, 0, *(row["episode"] for row in run.metrics())]
    last = "  ".join(f"{name} {value:.4g}" for name, value in summary["final"].items() if isinstance(value, float))
    print(
        f"{run.path}  {summary['episodes']:,} episodes in {summary['seconds']:.1f} s; "
        f"last row ({end - start:,} episodes): {last}"
    )
    print(f"plastic report {path}")
    return 0
