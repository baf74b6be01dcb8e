"""Where a run computes: devices, processes, threads, and whether the run fits there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities.rank_zero import rank_zero_only
from torch import nn

from torchplastic import PlasticRNNCell, functional
from torchplastic.experiments.base import Experiment
from torchplastic.experiments.config import Config, Model
from torchplastic.train import memory
from torchplastic.train.precision import whole_inputs


def is_first(devices: int) -> bool:
    """Whether this is the first process, which writes the run."""
    return devices == 1 or int(getattr(rank_zero_only, "rank", 0)) == 0


def make_fabric(config: Config, device: str, processes: int) -> Fabric:
    """Fabric for the devices, not launched yet."""
    accelerator = "auto" if device == "auto" else device.split(":")[0]
    if ":" in device and processes > 1:
        raise ValueError(f"--device {device} names one device, but --devices is {processes}; omit one of the flags.")
    devices: Any = [int(device.split(":")[1])] if ":" in device else processes
    strategy = "ddp" if processes > 1 else "auto"
    try:
        fabric = Fabric(accelerator=accelerator, devices=devices, strategy=strategy, precision=config.precision)
    except (RuntimeError, ValueError, IndexError) as error:
        raise ValueError(f"--device {device} cannot be used here: {str(error).splitlines()[0]}") from None
    return whole_inputs(fabric)


def place(config: Config, device: str) -> torch.device:
    """The device that --device names. ValueError if it is not available."""
    return make_fabric(replace(config, precision="32-true"), device, 1).device  # any precision: only the device matters


def captures(fabric: Fabric) -> bool:
    """Whether updates can be replayed as a CUDA graph. Elsewhere a resumed run continues without."""
    return fabric.device.type == "cuda" and fabric.world_size == 1


def require_impl(config: Config, device: torch.device) -> None:
    """Raise a ValueError if the chosen implementation of the network does not run on the device."""
    if isinstance(config.model, Model) and config.model.impl != "auto":
        functional.which_impl(1, rule=config.model.rule, impl=config.model.impl, device=device)


def use_what_runs(model: nn.Module, device: torch.device) -> nn.Module:
    """Set impl="auto" in every layer whose implementation does not run on the device."""
    for layer in model.modules():
        if isinstance(layer, PlasticRNNCell):
            try:
                functional.which_impl(
                    layer.hidden_size, rule=layer.rule, alpha=layer.alpha_kind, impl=layer.impl, device=device,
                    dtype=layer.w.dtype,
                )  # fmt: skip
            except ValueError:
                layer.impl = "auto"
    return model


def require_memory(experiment: Experiment, config: Config, fabric: Fabric, devices: int) -> None:
    """Raise a ValueError if training does not fit into the memory of the device."""
    plain = isinstance(config.model, Model) and config.model.impl == "reference"
    ways = ["lower --batch"] if config.batch > 1 else []
    ways += ["use --model.impl auto"] if plain else []
    ways += ["use fewer neurons, or a machine with more memory"]
    share = replace(config, batch=-(-config.batch // devices))
    needed = experiment.needed_bytes(share)
    if fabric.device.type == "cpu":  # the processes share one memory
        needed *= devices
    memory.require(needed, fabric.device, f"To fit: {', or '.join(ways)}.")


def require_division(config: Config, episodes: int, devices: int) -> None:
    """Raise a ValueError if a batch, or the last one, does not divide evenly among the devices."""
    if config.batch % devices:
        raise ValueError(f"--batch {config.batch} must be a multiple of --devices {devices}.")
    if (last := episodes % config.batch) % devices:
        raise ValueError(
            f"{episodes} episodes in batches of {config.batch} leave a last batch of {last}, which must be a multiple "
            f"of --devices {devices}; choose another --episodes."
        )
