"""Start, resume and evaluate runs; the command and sweeps call it."""

from __future__ import annotations

import logging
import os
import platform
import signal
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities.rank_zero import rank_zero_only

import torchplastic
from torchplastic import functional
from torchplastic.experiments import registry, signals
from torchplastic.experiments.build import generator, make_optimizer
from torchplastic.experiments.config import Config, from_dict
from torchplastic.runs import RunDirectory, RunError, refuse_link
from torchplastic.train import memory
from torchplastic.train.precision import whole_inputs
from torchplastic.train.progress import Progress
from torchplastic.train.trainer import NotFiniteError, Trainer, TrainingSchedule

LOG = logging.getLogger("torchplastic")
FORMAT = 1  # of checkpoints
HARDWARE_IMPLS = ("stepwise", "triton")  # implementations that need certain hardware
SHAPE_SETTINGS = {"kind", "alpha", "rule", "learn_eta", "channels"}  # settings that determine the shapes of the tensors


@dataclass(frozen=True)
class RunResult:
    """The outcome of `start` or `resume`."""

    run: RunDirectory | None
    """None in a process that only trains for the first one."""
    finished: bool
    signal: int | None = None
    devices: int = 1
    trained: bool = True
    """False if the run was already finished."""


def start(config: Config, out: Path | None = None, device: str = "auto", devices: int = 1) -> RunResult:
    """Train in a new run directory. ValueError if the config cannot run here; it is raised before the first update."""
    config = replace(config, threads=config.threads or torch.get_num_threads())
    fabric = _fabric(config, device, devices)
    if not _first(devices):
        return _train_as_worker(config, fabric)
    if config.capture and not captures(fabric):
        raise ValueError(f"--capture needs one GPU; this run has {devices} of {fabric.device.type}. Omit it.")
    _require_impl(config, fabric.device)
    _require_memory(config, fabric, devices)
    registry.get(config.experiment).data(config)  # raises before anything is written
    _require_division(config, config.episodes, devices)
    run = RunDirectory.create(out or _default_out(config))
    LOG.info("run %s", run.path)
    with run.locked(), signals.handle() as received:
        trainer = _trainer(config, fabric, run)
        _save(run, config)(trainer.checkpoint())
        run.write_config(config.to_dict())
        return _train(run, config, trainer, received)


def resume(
    path: Path, episodes: int | None = None, device: str = "auto", devices: int = 1, data_dir: Path | None = None
) -> RunResult:
    """Continue a run exactly where it stopped, with its own settings; `episodes` may extend it.

    data_dir: the current folder of the data, which must be the same.
    """
    run = RunDirectory.open(path)
    config = _with_data(load_config(run), data_dir)
    if not _first(devices):
        config = replace(config, episodes=episodes or config.episodes)
        return _train_as_worker(config, _fabric(config, device, devices), run.checkpoint())
    with run.locked(), signals.handle() as received:
        checkpoint = run.checkpoint()
        done = checkpoint["episode"]
        if episodes is not None and episodes < done:
            raise RunError(f"{path} has trained on {done} episodes already; --episodes {episodes} is fewer.")
        total = config.episodes if episodes is None else episodes
        if done >= total and run.summary is not None:
            return RunResult(run, finished=True, trained=False)
        config = replace(config, episodes=total)
        _check_signature(checkpoint, config)
        fabric = _fabric(config, device, devices)
        _require_memory(config, fabric, devices)
        _require_division(config, total - done, devices)
        trainer = _trainer(config, fabric, run)
        trainer.restore(checkpoint)
        LOG.info("run %s continues after episode %s of %s", run.path, f"{done:,}", f"{total:,}")
        run.reopen()
        started = trainer.state.row.get("episodes", 0)
        run.cut_metrics(lambda row: row["episode"] <= done - started)
        run.change_last_row(_restored_row(trainer))
        run.write_config(config.to_dict())
        return _train(run, config, trainer, received)


def _train_as_worker(config: Config, fabric: Fabric, checkpoint: dict[str, Any] | None = None) -> RunResult:
    """Train as one of several processes; only the first one prints and writes."""
    with signals.handle() as received:
        trainer = _trainer(config, fabric, None)
        if checkpoint is not None:
            trainer.restore(checkpoint)
        return RunResult(None, finished=trainer.train(stopped=lambda: trainer.any_process(bool(received))))


def evaluate(
    path: Path, episodes: int | None = None, data_dir: Path | None = None, device: str = "auto"
) -> dict[str, Any]:
    """Evaluate a run on new episodes and store the result under eval/; of an unfinished run, the last checkpoint.

    episodes: default: the experiment's `evaluation_episodes`.
    data_dir: the folder of the data; default: the one in the run's config.
    device: of the network; the episodes are the same on every device.
    """
    run = RunDirectory.open(path)
    refuse_link(path / "eval")  # before anything is measured
    config = load_config(run)
    config = _with_data(config, data_dir)
    torch.set_num_threads(config.threads)
    target = place(config, device)
    experiment = registry.get(config.experiment)
    episodes = episodes or experiment.evaluation_episodes
    data, trained_on = experiment.data(config), _data_of(run)
    if data != trained_on and data_dir is None:
        raise RunError(
            f"{path} was trained with {trained_on}; its data folder now has {data}. Name the folder of the "
            "original data, or of others to evaluate on, with --data-dir."
        )
    model = experiment.build(_portable(config)).model
    trained = (run.summary or run.checkpoint()).get("episodes" if run.summary else "episode")
    try:
        model.load_state_dict(run.weights())
    except RuntimeError as error:
        raise RunError(f"the weights in {path} do not fit its config.json: {error}") from None
    LOG.info("measuring %s on %s new episodes", path, f"{episodes:,}")
    result = experiment.evaluate(config, model.to(target), episodes, generator(config.seed, "evaluation"))
    head = {"experiment": config.experiment, "preset": config.preset, "episodes": episodes, "trained_episodes": trained}
    result = {**head, **result}
    name = f"episodes-{episodes}"
    if data != trained_on:
        result["split"] = f"{result['split']} of another set ({data})"
        name += f"-{data.split()[-1]}"
    run.write_eval(name, result)
    return result


def _with_data(config: Config, data_dir: Path | None) -> Config:
    if data_dir is None:
        return config
    if not hasattr(config, "data_dir"):
        raise ValueError(f"{config.experiment} takes no data; omit --data-dir.")
    return replace(config, data_dir=str(data_dir))  # type: ignore[call-arg]


def _data_of(run: RunDirectory) -> str:
    """The data that a run was trained on, as `Experiment.data` describes them."""
    written = run.summary or run.checkpoint().get("signature", {})
    return str(written.get("data_digest", ""))


def _restored_row(trainer: Trainer) -> Callable[[dict[str, Any], int], dict[str, Any]]:
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


def place(config: Config, device: str) -> torch.device:
    """The device that --device names. ValueError if it is not available."""
    return _fabric(replace(config, precision="32-true"), device, 1).device  # any precision: only the device matters


def captures(fabric: Fabric) -> bool:
    """Whether updates can be replayed as a CUDA graph. Elsewhere a resumed run continues without."""
    return fabric.device.type == "cuda" and fabric.world_size == 1


def load_config(run: RunDirectory) -> Config:
    """The config of a run, as an instance of its experiment's config class."""
    values = run.config
    return from_dict(registry.get(str(values.get("experiment"))).config, values)


def hardware(device: torch.device) -> dict[str, Any]:
    """The hardware, for summary.json and benchmarks."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    found = {"cpu": cpu, "cores": os.cpu_count(), "threads": torch.get_num_threads(), "device": device.type}
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def versions() -> dict[str, str]:
    """Versions of the packages that a result depends on."""
    found = {name: version(name) for name in ("torch", "numpy", "lightning-fabric")}
    if find_spec("numba"):
        found["numba"] = version("numba")
    return {"torchplastic": torchplastic.__version__, "python": platform.python_version(), **found}


# --- helpers


def _first(devices: int) -> bool:
    """Whether this is the first process, which writes the run."""
    return devices == 1 or int(getattr(rank_zero_only, "rank", 0)) == 0


def _fabric(config: Config, device: str, processes: int) -> Fabric:
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


def _portable(config: Config) -> Config:
    """The config with impl="auto" in place of one that needs certain hardware, for evaluation on any machine."""
    if getattr(config.model, "impl", None) in HARDWARE_IMPLS:
        return replace(config, model=replace(config.model, impl="auto"))  # type: ignore[call-arg]
    return config


def _require_impl(config: Config, device: torch.device) -> None:
    """Raise a ValueError if the chosen implementation does not run here; a scan of one neuron tries it."""
    impl = getattr(config.model, "impl", "auto")
    if impl in HARDWARE_IMPLS:
        one = torch.zeros(1, 1, 1, device=device)
        functional.plastic_scan(one, one[0], one[0], config.model.eta, rule=config.model.rule, impl=impl)


def _require_memory(config: Config, fabric: Fabric, devices: int) -> None:
    ways = ["lower --batch"] if config.batch > 1 else []
    ways += ["use --model.impl auto"] if getattr(config.model, "impl", None) == "reference" else []
    ways += ["use fewer neurons, or a machine with more memory"]
    share = replace(config, batch=-(-config.batch // devices))
    needed = registry.get(config.experiment).needed_bytes(share)
    if fabric.device.type == "cpu":  # the processes share one memory
        needed *= devices
    memory.require(needed, fabric.device, f"To fit: {', or '.join(ways)}.")


def _require_division(config: Config, episodes: int, devices: int) -> None:
    """Raise a ValueError if a batch, or the last one, does not divide evenly among the devices."""
    if config.batch % devices:
        raise ValueError(f"--batch {config.batch} must be a multiple of --devices {devices}.")
    if (last := episodes % config.batch) % devices:
        raise ValueError(
            f"{episodes} episodes in batches of {config.batch} leave a last batch of {last}, which must be a multiple "
            f"of --devices {devices}; choose another --episodes."
        )


def _trainer(config: Config, fabric: Fabric, run: RunDirectory | None) -> Trainer:
    """Launch the processes and build the trainer; without a run it writes nothing."""
    fabric.launch()
    torch.set_num_threads(max(1, config.threads // fabric.world_size))  # the launcher changes it
    parts = registry.get(config.experiment).build(config)
    optim = config.optim
    schedule = TrainingSchedule(
        config.episodes,
        config.batch,
        config.log_every,
        optim.clip,
        optim.factor,
        config.save_seconds,
        eval_every=getattr(config, "eval_every", 0),
        medians=parts.medians,
    )
    title = f"{config.experiment} {config.preset} seed {config.seed}"
    return Trainer(
        fabric=fabric,
        model=parts.model,
        optimizer=make_optimizer(optim, parts.model),
        learner=parts.learner,
        schedule=schedule,
        generator=generator(config.seed, "episodes"),
        progress=Progress(title, config.episodes, quiet=run is None),
        append=run.append if run else _nothing,
        save=_save(run, config) if run else _nothing,
        evaluate=parts.evaluate,
        capture=config.capture and captures(fabric),
    )


def _nothing(value: object) -> None:
    pass


def _signature(config: Config) -> dict[str, Any]:
    """The settings that a checkpoint depends on: shapes, task and data."""
    values = config.to_dict()
    data = registry.get(config.experiment).data(config)
    return {
        **{f"model.{name}": value for name, value in values["model"].items() if name in SHAPE_SETTINGS},
        **{f"task.{name}": value for name, value in values.get("task", {}).items()},
        **({"data_digest": data} if data else {}),
    }


def _save(run: RunDirectory, config: Config) -> Any:
    signature = _signature(config)

    def save(checkpoint: dict[str, Any]) -> None:
        run.save_checkpoint({"format": FORMAT, "signature": signature, **checkpoint})

    return save


def _check_signature(checkpoint: dict[str, Any], config: Config) -> None:
    written, current = checkpoint.get("signature", {}), _signature(config)
    if differing := [name for name in current if written.get(name) != current[name]]:
        was = ", ".join(f"{name}={written.get(name)!r}" for name in differing)
        now = ", ".join(f"{name}={current[name]!r}" for name in differing)
        raise RunError(f"the checkpoint was written for {was}; this run asks for {now}.")


def _train(run: RunDirectory, config: Config, trainer: Trainer, received: list[int]) -> RunResult:
    trainer.progress.start_at(trainer.state.episode)
    try:
        with trainer.progress:
            finished = trainer.train(stopped=lambda: trainer.any_process(bool(received) or signals.orphaned()))
    except NotFiniteError as error:
        good = run.checkpoint()["episode"]
        raise NotFiniteError(
            f"{error}. The last good checkpoint, of episode {good}, is in {run.path}; start anew with other settings."
        ) from None
    if not finished:
        number = received[0] if received else signal.SIGTERM
        return RunResult(run, finished=False, signal=number, devices=trainer.fabric.world_size)
    _finish(run, config, trainer)
    return RunResult(run, finished=True)


def _finish(run: RunDirectory, config: Config, trainer: Trainer) -> None:
    """Write the results of a finished run: weights, samples, summary."""
    experiment = registry.get(config.experiment)
    before = experiment.build(_portable(config)).model.eval()
    after = deepcopy(before)
    after.load_state_dict(trainer.module.state_dict())
    metadata = {
        "experiment": config.experiment,
        "preset": config.preset,
        "seed": str(config.seed),
        "rule": config.model.rule,
    }
    run.save_weights(after.state_dict(), metadata)
    run.save_samples(experiment.samples(config, before, after))
    last = run.metrics()[-1]
    run.write_summary(
        {
            "experiment": config.experiment,
            "preset": config.preset,
            "seed": config.seed,
            "episodes": trainer.state.episode,
            "seconds": trainer.state.seconds,
            "parameters": sum(p.numel() for p in after.parameters()),
            "final": {name: value for name, value in last.items() if name not in ("episode", "seconds")},
            "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
            **experiment.notes(config),
            "hardware": hardware(trainer.fabric.device),
            "versions": versions(),
        }
    )


def _default_out(config: Config) -> Path:
    """A new path under runs/, numbered if several runs start in the same second."""
    stem = f"{config.preset}-seed{config.seed}-{datetime.now():%Y%m%d-%H%M%S}"
    folder = Path("runs") / config.experiment
    names = (stem if i == 0 else f"{stem}-{i + 1}" for i in range(1000))
    return next(folder / name for name in names if not (folder / name).exists())
