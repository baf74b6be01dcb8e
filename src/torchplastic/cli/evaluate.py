"""`plastic eval`: evaluate a run on new episodes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from torchplastic.cli.console import loading
from torchplastic.cli.parsing import parse


@dataclass
class Eval:
    """Evaluate a run on new episodes, and keep the result in RUN/eval. A run in progress: its last checkpoint."""

    run: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="RUN")] = None
    """The run directory."""
    episodes: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Number of new episodes, from a separate random stream. Default 1,000; omniglot 10,000."""
    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of the data. Default: the one that the run used."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    json: bool = False
    """Print one JSON object on stdout and nothing else."""


def run(args: Sequence[str]) -> int:
    """Evaluate, and print the result."""
    flags = parse(Eval, "plastic eval", args)
    if flags.run is None:
        raise ValueError("name a run: plastic eval RUN.")
    if flags.episodes is not None and flags.episodes < 2:
        raise ValueError(f"--episodes must be at least 2; got {flags.episodes}.")
    with loading("torch", "PyTorch"):
        from torchplastic.experiments import launch

    result = launch.evaluate(flags.run, flags.episodes, flags.data_dir, flags.device)
    if flags.json:
        print(json.dumps(result))
    else:
        _print(result)
    return 0


def _print(result: dict[str, Any]) -> None:
    split = "" if result["split"] == "new episodes" else f" ({result['split']})"
    print(f"{result['experiment']} {result['preset']}: {result['episodes']:,} new episodes{split}")
    for name in ("accuracy", "error", "reward"):
        if name in result:
            mean, (low, high), chance = (result[name][key] for key in ("mean", "ci95", "chance"))
            print(f"  {name:28} {mean:.5f}  95 % interval {low:.5f} … {high:.5f}  chance {chance:.4g}")
    for name, value in result["baselines"].items():
        print(f"  {name:28} {value:.5f}")
    for name, reward in {"complete": result.get("reward", {}), **result.get("variants", {})}.items():
        if "steps_to_first" in reward:
            low, high = reward["ci95"]
            print(
                f"  {name + ':':36} reward {reward['mean']:.1f} ({low:.1f} … {high:.1f}), "
                f"{reward['steps_to_first']:.1f} steps to the first reward, "
                f"{reward['steps_between']:.1f} between later ones"
            )
    if by_position := result.get("by_position"):
        print("  by position: " + ", ".join(f"{t + 1} {value:.4f}" for t, value in enumerate(by_position)))
    if medians := result.get("medians"):
        print("  medians: " + ", ".join(f"{name} {value:.5g}" for name, value in medians.items()))
    if "data" in result:
        print(f"  {result['data']}")
