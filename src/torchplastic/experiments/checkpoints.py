"""What a run writes while it trains, and what it reads again to continue: checkpoints, and the last row of metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torchplastic.experiments.base import Experiment
from torchplastic.experiments.config import Config
from torchplastic.runs import RunDirectory, RunError
from torchplastic.train.trainer import Trainer

FORMAT = 1
SHAPE_SETTINGS = {"kind", "alpha", "rule", "learn_eta", "channels"}  # settings that determine the shapes of the tensors


def signature(experiment: Experiment, config: Config) -> dict[str, Any]:
    """The settings that a checkpoint depends on: shapes, task and data."""
    values, data = config.to_dict(), experiment.data(config)
    return {
        **{f"model.{name}": value for name, value in values["model"].items() if name in SHAPE_SETTINGS},
        **{f"task.{name}": value for name, value in values.get("task", {}).items()},
        **({"data_digest": data} if data else {}),
    }


def saver(run: RunDirectory, signature: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    """A function that writes a checkpoint."""

    def save(checkpoint: dict[str, Any]) -> None:
        run.save_checkpoint({"format": FORMAT, "signature": signature, **checkpoint})

    return save


def check_signature(checkpoint: dict[str, Any], current: dict[str, Any]) -> None:
    """Raise a RunError if a checkpoint was written with other settings than the current ones."""
    written = checkpoint.get("signature", {})
    if differing := [name for name in current if written.get(name) != current[name]]:
        was = ", ".join(f"{name}={written.get(name)!r}" for name in differing)
        now = ", ".join(f"{name}={current[name]!r}" for name in differing)
        raise RunError(f"the checkpoint was written for {was}; this run asks for {now}.")


def restored_row(trainer: Trainer) -> Callable[[dict[str, Any], int], dict[str, Any]]:
    """Make the row at the checkpoint equal to that of an uninterrupted run: with or without validation values.

    A row has them if they are due, or if training ends there. If training continues, the latter are removed; if it now
    ends at the checkpoint, missing ones are computed with the restored network.
    """

    def change(row: dict[str, Any], before: int) -> dict[str, Any]:
        if row["episode"] != trainer.state.episode or trainer.evaluate is None:
            return row
        bare = {name: value for name, value in row.items() if not name.startswith(("val_", "test_"))}
        if not trainer.schedule.validates(before, row["episode"]):
            return bare
        return row if row != bare else row | trainer.evaluate(trainer.module)

    return change
