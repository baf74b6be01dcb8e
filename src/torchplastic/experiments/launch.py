"""Start, resume and evaluate runs; the command and sweeps call it."""

from __future__ import annotations

import logging
import signal
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import nn

from torchplastic.experiments import catalog, checkpoints, environment, signals
from torchplastic.experiments.base import Experiment
from torchplastic.experiments.build import generator, make_optimizer
from torchplastic.experiments.config import Config, DataConfig, from_dict
from torchplastic.machine import hardware, versions
from torchplastic.runs import RunDirectory, RunError, flatten, refuse_link
from torchplastic.train.progress import Progress
from torchplastic.train.trainer import NotFiniteError, Trainer, TrainingSchedule

LOG = logging.getLogger("torchplastic")


@dataclass(frozen=True)
class Job:
    """A run to train: its experiment and settings, where it computes, and where it is written."""

    experiment: Experiment
    config: Config
    fabric: Fabric
    run: RunDirectory | None
    """None in a process that only trains for the first one"""


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


def start(
    experiment: Experiment, config: Config, out: Path | None = None, device: str = "auto", devices: int = 1
) -> RunResult:
    """Train in a new run directory. ValueError if the config cannot run here; it is raised before the first update."""
    config = replace(config, threads=config.threads or torch.get_num_threads())
    fabric = environment.make_fabric(config, device, devices)
    if not environment.is_first(devices):
        return _train_as_worker(Job(experiment, config, fabric, None))
    if config.capture and not environment.captures(fabric):
        raise ValueError(f"--capture needs one GPU; this run has {devices} of {fabric.device.type}. Omit it.")
    environment.require_impl(config, fabric.device)
    environment.require_memory(experiment, config, fabric, devices)
    signature = checkpoints.signature(experiment, config)  # raises before anything is written if data are missing
    environment.require_division(config, config.episodes, devices)
    run = RunDirectory.create(out or _default_out(config))
    job = Job(experiment, config, fabric, run)
    LOG.info("run %s", run.path)
    with run.locked(), signals.handle() as received:
        trainer, untrained = _trainer(job, signature)
        trainer.save(trainer.checkpoint())
        run.write_config(config.to_dict())
        return _train(job, trainer, untrained, received)


def resume(
    path: Path, episodes: int | None = None, device: str = "auto", devices: int = 1, data_dir: Path | None = None
) -> RunResult:
    """Continue a run exactly where it stopped, with its own settings; `episodes` may extend it.

    data_dir: the current folder of the data, which must be the same.
    """
    run = RunDirectory.open(path)
    experiment, config = _load(run, data_dir)
    if not environment.is_first(devices):
        config = replace(config, episodes=episodes or config.episodes)
        fabric = environment.make_fabric(config, device, devices)
        return _train_as_worker(Job(experiment, config, fabric, None), run.checkpoint())
    with run.locked(), signals.handle() as received:
        checkpoint = run.checkpoint()
        done = checkpoint["episode"]
        if episodes is not None and episodes < done:
            raise RunError(f"{path} has trained on {done} episodes already; --episodes {episodes} is fewer.")
        total = config.episodes if episodes is None else episodes
        if done >= total and run.summary is not None:
            return RunResult(run, finished=True, trained=False)
        config = replace(config, episodes=total)
        signature = checkpoints.signature(experiment, config)
        checkpoints.check_signature(checkpoint, signature)
        job = Job(experiment, config, environment.make_fabric(config, device, devices), run)
        environment.require_memory(experiment, config, job.fabric, devices)
        environment.require_division(config, total - done, devices)
        trainer, untrained = _trainer(job, signature)
        trainer.restore(checkpoint)
        LOG.info("run %s continues after episode %s of %s", run.path, f"{done:,}", f"{total:,}")
        run.reopen()
        started = trainer.state.row.get("episodes", 0)
        run.cut_metrics(lambda row: row["episode"] <= done - started)
        last = run.last_row().get("episode", 0)
        if last < done - started:
            LOG.warning(
                "metrics.jsonl has no rows of episodes %s to %s: they are lost, the training is not",
                f"{last + 1:,}", f"{done - started:,}",
            )  # fmt: skip
        run.change_last_row(checkpoints.restored_row(trainer))
        run.write_config(config.to_dict())
        return _train(job, trainer, untrained, received)


def _train_as_worker(job: Job, checkpoint: dict[str, Any] | None = None) -> RunResult:
    """Train as one of several processes; only the first one prints and writes."""
    with signals.handle() as received:
        trainer, _ = _trainer(job)
        if checkpoint is not None:
            trainer.restore(checkpoint)
        return RunResult(None, finished=trainer.train(stopped=lambda: trainer.any_process(bool(received))))


class Trained(NamedTuple):
    """The network of a run, with its experiment and settings."""

    experiment: Experiment
    config: Config
    model: nn.Module


def load(path: Path, data_dir: Path | None = None, device: str = "cpu") -> Trained:
    """The trained network of a run; of an unfinished run, that of the last checkpoint.

    data_dir: the folder of the data; default: the one in the run's config.
    """
    run = RunDirectory.open(path)
    experiment, config = _load(run, data_dir)
    return Trained(experiment, config, _network(run, experiment, config, environment.place(config, device)))


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
    experiment, config = _load(run, data_dir)
    torch.set_num_threads(config.threads)
    target = environment.place(config, device)
    episodes = episodes or experiment.evaluation_episodes
    data, trained_on = experiment.data(config), _data_of(run)
    if data != trained_on and data_dir is None:
        raise RunError(
            f"{path} was trained with {trained_on}; its data folder now has {data}. Name the folder of the "
            "original data, or of others to evaluate on, with --data-dir."
        )
    trained = (run.summary or run.checkpoint()).get("episodes" if run.summary else "episode")
    model = _network(run, experiment, config, target)
    LOG.info("measuring %s on %s new episodes", path, f"{episodes:,}")
    result = experiment.evaluate(config, model, episodes, generator(config.seed, "evaluation"))
    head = {"experiment": config.experiment, "preset": config.preset, "episodes": episodes, "trained_episodes": trained}
    result = {**head, **result}
    name = f"episodes-{episodes}"
    if data != trained_on:
        result["split"] = f"{result['split']} of another set ({data})"
        name += f"-{data.split()[-1]}"
    run.write_eval(name, result)
    return result


# --- helpers


def _load(run: RunDirectory, data_dir: Path | None) -> tuple[Experiment, Config]:
    """The experiment of a run and its config, with another folder of data if one is given."""
    values = run.config
    experiment = catalog.get(str(values.get("experiment")))
    config = from_dict(experiment.config, values)
    if missing := sorted(flatten(config.to_dict()).keys() - flatten(values).keys()):
        raise RunError(f"{run.path / 'config.json'} lacks {', '.join(missing)}.")
    if data_dir is None:
        return experiment, config
    if not isinstance(config, DataConfig):
        raise ValueError(f"{config.experiment} takes no data; omit --data-dir.")
    return experiment, replace(config, data_dir=str(data_dir))


def _network(run: RunDirectory, experiment: Experiment, config: Config, device: torch.device) -> nn.Module:
    """The network of a run with its weights. RunError if these do not fit."""
    model = environment.use_what_runs(experiment.build(config).model, device)
    try:
        model.load_state_dict(run.weights())
    except RuntimeError as error:
        raise RunError(f"the weights in {run.path} do not fit its config.json: {error}") from None
    return model.to(device)


def _data_of(run: RunDirectory) -> str:
    """The data that a run was trained on, as `Experiment.data` describes them."""
    written = run.summary or run.checkpoint().get("signature", {})
    return str(written.get("data_digest", ""))


def _trainer(job: Job, signature: dict[str, Any] | None = None) -> tuple[Trainer, nn.Module]:
    """Launch the processes -> the trainer, and a copy of the untrained network; without a run it writes nothing."""
    config, fabric, run = job.config, job.fabric, job.run
    fabric.launch()
    torch.set_num_threads(max(1, config.threads // fabric.world_size))  # the launcher changes it
    parts = job.experiment.build(config)
    untrained = deepcopy(parts.model)
    optim = config.optim
    schedule = TrainingSchedule(
        config.episodes,
        config.batch,
        config.log_every,
        optim.clip,
        optim.factor,
        config.save_seconds,
        eval_every=parts.eval_every,
        medians=parts.medians,
    )
    title = f"{config.experiment} {config.preset} seed {config.seed}"
    trainer = Trainer(
        fabric=fabric,
        model=parts.model,
        optimizer=make_optimizer(optim, parts.model),
        learner=parts.learner,
        schedule=schedule,
        generator=generator(config.seed, "episodes"),
        progress=Progress(title, config.episodes, quiet=run is None),
        append=run.append if run else _nothing,
        save=checkpoints.saver(run, signature or {}) if run else _nothing,
        evaluate=parts.evaluate,
        capture=config.capture and environment.captures(fabric),
    )
    return trainer, untrained


def _nothing(value: object) -> None:
    pass


def _train(job: Job, trainer: Trainer, untrained: nn.Module, received: list[int]) -> RunResult:
    run = job.run
    assert run is not None
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
    _finish(job, run, trainer, untrained)
    return RunResult(run, finished=True)


def _finish(job: Job, run: RunDirectory, trainer: Trainer, untrained: nn.Module) -> None:
    """Write the results of a finished run: weights, samples, summary."""
    experiment, config = job.experiment, job.config
    before = environment.use_what_runs(untrained, torch.device("cpu")).eval()
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
