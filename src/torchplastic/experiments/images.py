"""Natural images: memorise three pictures, complete one from its half (Miconi et al. 2018, section 4.2).

Axes: T time, B batch, N neurons, S pixels a side.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torchplastic import functional
from torchplastic.data.pictures import Pictures, photograph_patches
from torchplastic.data.resolve import load_pictures
from torchplastic.experiments.base import Components, Experiment
from torchplastic.experiments.build import generator, lstm_training_bytes, make_network
from torchplastic.experiments.config import DataConfig, Model, Optim, at_least
from torchplastic.experiments.samples import matrices, picture_row
from torchplastic.tasks.images import ImageEpisodes, Images, training_and_validation, trivial_answers
from torchplastic.train.evaluate import evaluate, interval
from torchplastic.train.objectives import squared_error
from torchplastic.train.supervised import SupervisedLearner

EVALUATION_BATCH = 20
EVALUATION_TRACES = 4  # matrices in memory per episode: two traces, P, and room
EVALUATION_BYTES = 1 << 29
BASELINE_EPISODES = 1000
SAMPLED_EPISODES = 6


def squared_errors(answer: Tensor, target: Tensor) -> Tensor:
    """Squared error of each episode, summed over its pixels, `[B, S S]` twice -> `[B]`."""
    return (answer - target).square().sum(-1)


OBJECTIVE = squared_error(squared_errors)


@dataclass(frozen=True)
class ImagesModel(Model):
    """A recurrent network."""

    cells: int = 0
    """LSTM only: number of cells, with a linear readout of the pixels; 0: one clamped cell per pixel is the answer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("model.cells", self.cells, 0)


@dataclass(frozen=True)
class ImagesConfig(DataConfig):
    """Settings of the experiment on natural images."""

    data_dir: str | None = None
    """CIFAR-10 (archive or extracted) or any folder of pictures; default: $TORCHPLASTIC_DATA, then the cache
    folder."""
    builtin_data: bool = False
    """Use patches of a photograph instead of CIFAR-10; ignored with --data-dir."""
    model: ImagesModel = field(default_factory=ImagesModel)
    task: Images = field(default_factory=Images)


@lru_cache(maxsize=1)
def _pictures(place: str | None, side: int, photograph: bool) -> Pictures:
    return photograph_patches(side) if photograph else load_pictures(None if place is None else Path(place), side)


def pictures_of(config: ImagesConfig) -> Pictures:
    """The pictures that a config names. ValueError, in one line, if there are none."""
    return _pictures(config.data_dir, config.task.side, config.builtin_data and config.data_dir is None)


def data(config: ImagesConfig) -> str:
    """The number of pictures and a digest of their pixels, independent of their folder."""
    return pictures_of(config).digest


def build(config: ImagesConfig) -> Components:
    """The learner on training pictures, the network, and its evaluation on validation pictures."""
    training, validation = training_and_validation(config.task, pictures_of(config))
    pixels, cells = config.task.pixels, _cells(config)
    model = make_network(config.model, config.seed, config.task.neurons, lstm_cells=cells, clamped_inputs=pixels)

    def validate(network: nn.Module) -> dict[str, float]:
        stream = generator(config.seed, "validation")
        _, errors = evaluate(network, validation, OBJECTIVE, config.eval_episodes, evaluation_batch(config), stream)
        return {"val_error": errors.mean().item(), "val_error_median": errors.double().quantile(0.5).item()}

    learner = SupervisedLearner(training, OBJECTIVE)
    return Components(learner, model, validate, medians=True, eval_every=config.eval_every)


def _cells(config: ImagesConfig) -> int:
    return config.model.cells or config.task.pixels


def needed_bytes(config: ImagesConfig) -> int:
    """Bytes that training and validation need, pictures included."""
    task, model = config.task, config.model
    sums = 2 * 60_000 * task.pixels
    if model.kind == "lstm":
        return sums + lstm_training_bytes(task.steps, config.batch, task.neurons, _cells(config))
    training = functional.training_bytes(
        task.clamped_steps(), config.batch, task.neurons, alpha=model.coefficients, impl=model.impl
    )
    evaluation = EVALUATION_TRACES * evaluation_batch(config) * 4 * task.neurons**2
    return sums + training + evaluation


def evaluation_batch(config: ImagesConfig) -> int:
    """Batch size of an evaluation, limited by the memory of the traces."""
    return max(1, min(EVALUATION_BATCH, EVALUATION_BYTES // (EVALUATION_TRACES * 4 * config.task.neurons**2)))


@torch.no_grad()
def _baselines(
    validation: ImageEpisodes, training: ImageEpisodes, episodes: int, stream: torch.Generator, batch: int
) -> dict[str, Tensor]:
    """Errors of the trivial answers on validation episodes, `[episodes]` for each name."""
    options = validation.options
    mean = options.scaled(training.sums[:: max(1, len(training.sums) // 10_000)]).mean(0)
    found: dict[str, list[Tensor]] = {}
    for start in range(0, episodes, batch):
        episode = validation.episodes(min(batch, episodes - start), stream)
        for name, answer in trivial_answers(episode, mean, options.side).items():
            found.setdefault(name, []).append(squared_errors(answer, episode.target))
    return {name: torch.cat(parts).double() for name, parts in found.items()}


def notes(config: ImagesConfig) -> dict[str, Any]:
    """For the summary: the source of the pictures, and median errors of the trivial answers."""
    training, validation = training_and_validation(config.task, pictures_of(config))
    stream = generator(config.seed, "validation")
    baselines = _baselines(validation, training, BASELINE_EPISODES, stream, evaluation_batch(config))
    medians = {name: errors.quantile(0.5).item() for name, errors in baselines.items()}
    return {
        "data": pictures_of(config).source,
        "data_digest": data(config),
        "baselines": {"val_error_median": medians},
    }


@torch.no_grad()
def samples(config: ImagesConfig, before: nn.Module, after: nn.Module) -> dict[str, np.ndarray]:
    """Validation episodes with answers before and after training, activity over one episode, and w and alpha."""
    _, validation = training_and_validation(config.task, pictures_of(config))
    task, side = config.task, config.task.side
    episode = validation.episodes(SAMPLED_EPISODES, generator(config.seed, "samples"))
    found: dict[str, np.ndarray] = {}

    def picture(pixels: Tensor) -> np.ndarray:
        return pixels.reshape(side, side).numpy()

    for when, model, count in (("before training", before, 1), ("validation episode", after, SAMPLED_EPISODES)):
        y, _ = model(episode.inputs, clamp=episode.clamp, clamped_steps=episode.clamped_steps)
        for b in range(count):
            group = when if count == 1 else f"{when} {b + 1}"
            shown = {f"picture {i + 1}": pixels for i, pixels in enumerate(episode.info["pictures"][b])}
            shown |= {
                "cue": episode.info["cue"][b],
                "answer": y[-1, b, : task.pixels],
                "target": episode.target[b],
            }
            found |= picture_row(group, {label: picture(pixels) for label, pixels in shown.items()})
        if model is after:
            found["frames/activity"] = y[:, 0, : task.pixels].unflatten(-1, (side, side)).numpy()
    return found | matrices(after)


def evaluation(config: ImagesConfig, model: nn.Module, episodes: int, stream: torch.Generator) -> dict[str, Any]:
    """Squared error on validation pictures: mean, 95 % interval, median, and the same of the trivial answers."""
    training, validation = training_and_validation(config.task, pictures_of(config))
    state = stream.get_state()
    _, error = evaluate(model, validation, OBJECTIVE, episodes, evaluation_batch(config), stream)
    trivial = _baselines(validation, training, episodes, stream.set_state(state), evaluation_batch(config))
    medians = {"answer": error.double().quantile(0.5).item()}
    medians |= {name: errors.quantile(0.5).item() for name, errors in trivial.items()}
    return {
        "split": "validation pictures",
        "data": pictures_of(config).source,
        "error": {**interval(error), "median": medians["answer"], "chance": trivial["zeros"].mean().item()},
        "baselines": {name: errors.mean().item() for name, errors in trivial.items()},
        "medians": medians,
    }


# --- presets


def paper() -> ImagesConfig:
    """Three pictures of CIFAR-10, the released program's timing and scaling, our recipe."""
    recipe = Optim(lr=1e-3, lr_w=1e-4, schedule="cosine", schedule_episodes=40_000)
    return replace(published(), preset="paper", optim=recipe)


def published() -> ImagesConfig:
    """The released program's optimiser: Adam 1e-4, eta learned from 0.01, one episode per update."""
    return ImagesConfig(
        experiment="images",
        preset="published",
        episodes=40_000,
        log_every=100,
        model=ImagesModel(eta=0.01, learn_eta=True),
        optim=Optim(lr=1e-4),
    )


def quick() -> ImagesConfig:
    """The paper's task for 10,000 episodes."""
    config = paper()
    return replace(config, preset="quick", episodes=10_000, optim=replace(config.optim, schedule_episodes=10_000))


def text() -> ImagesConfig:
    """The variant that the paper's text describes: 3 steps between pictures, gray from 0 to 1."""
    return replace(paper(), preset="text", task=Images(gap=3, scaling="gray"))


def smoke() -> ImagesConfig:
    """Pictures of 12 × 12 from a photograph."""
    return replace(
        published(),
        preset="smoke",
        episodes=600,
        log_every=10,
        threads=1,
        builtin_data=True,
        eval_every=100,
        task=Images(side=12, shown=5, cycles=2),
        optim=Optim(lr=3e-3, lr_w=3e-4),
    )


EXPERIMENT = Experiment(
    config=ImagesConfig,
    presets={"smoke": smoke, "quick": quick, "paper": paper, "published": published, "text": text},
    build=build,
    needed_bytes=needed_bytes,
    samples=samples,
    evaluate=evaluation,
    notes=notes,
    data=data,
)
