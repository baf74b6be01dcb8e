"""Omniglot: classify characters from one example (Miconi et al. 2018, section 4.3).

Axes: B batch, Q queries, W ways, F frames, S pixels a side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from torchplastic import PlasticClassifier
from torchplastic.data.classes import Classes, synthetic_glyphs
from torchplastic.data.resolve import load_characters
from torchplastic.experiments.base import Components, Experiment
from torchplastic.experiments.build import generator
from torchplastic.experiments.config import DataConfig, Optim, PlasticConfig, at_least
from torchplastic.experiments.samples import feature_map, layer_matrices, picture_row
from torchplastic.tasks.omniglot import FewShot, FewShotBatch, FewShotEpisodes, nearest_in_pixels
from torchplastic.train.evaluate import evaluate, interval
from torchplastic.train.objectives import classification
from torchplastic.train.supervised import SupervisedLearner

SIDES = (31, 46)  # smallest and largest picture that the convolutions reduce to 1 x 1
FRAMES_AT_ONCE = 300  # of an evaluation
BASELINE_EPISODES = 2000
SAMPLED_EPISODES = 6
MAPPED = 12  # classes on the map of features
SYNTHETIC_TEST = 50  # test glyphs, and as many validation glyphs
PARTS = {"val": "validation", "test": "test"}


@dataclass(frozen=True)
class Classifier(PlasticConfig):
    """An embedding and a plastic layer."""

    rule: Literal["hebb", "oja"] = "oja"
    """Plasticity rule: decaying Hebb, or Oja."""
    learn_eta: bool = True
    """Train eta by gradient descent."""
    alpha_init_std: float = 0.01
    """Initial plasticity coefficients alpha are uniform from 0 to this."""
    channels: int = 64
    """Channels of each convolution, and features per picture."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("model.channels", self.channels, 1)


@dataclass(frozen=True)
class OmniglotConfig(DataConfig):
    """Settings of the experiment on Omniglot."""

    data_dir: str | None = None
    """Folder of Omniglot (its two zips, or extracted); default: $TORCHPLASTIC_DATA, then the cache folder."""
    builtin_data: bool = False
    """Use synthetic glyphs instead of Omniglot; ignored with --data-dir."""
    split: Literal["fixed", "validation", "background"] = "fixed"
    """Training and held-out characters. fixed: 1,523 and 100 to test; validation: 1,423 and 100 to choose settings by,
    without the test characters; background: the official sets, 964 and 659."""
    eval_every: int = 50_000
    """Training episodes between two evaluations on the held-out characters."""
    eval_episodes: int = 1000
    """Episodes per evaluation, the same ones each time."""
    model: Classifier = field(default_factory=Classifier)
    task: FewShot = field(default_factory=FewShot)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not SIDES[0] <= self.task.side <= SIDES[1]:
            raise ValueError(
                f"task.side must lie in {SIDES[0]} … {SIDES[1]}, so that four convolutions leave one pixel; got "
                f"{self.task.side}."
            )


@dataclass(frozen=True)
class Data:
    """Training and held-out classes, with the part they are (val or test), their source and digest."""

    train: Classes
    held_out: Classes
    part: Literal["val", "test"]
    source: str
    digest: str


@lru_cache(maxsize=1)
def _data(place: str | None, side: int, glyphs: bool, split: str) -> Data:
    if glyphs:
        classes = synthetic_glyphs(side)
        nth = torch.arange(len(classes)) // SYNTHETIC_TEST
        held_out, how = (nth == 1, "the second fifty") if split == "validation" else (nth == 0, "the first")
        train = nth > nth[held_out][0]
    else:
        characters = load_characters(None if place is None else Path(place))
        classes = characters.classes(side)
        train, held_out, how = characters.split(split)
    part: Literal["val", "test"] = "val" if split == "validation" else "test"
    verb = "validate" if part == "val" else "test"
    count = f"{int(train.sum()):,} to train on, {int(held_out.sum()):,} to {verb} ({how})"
    source = f"{classes.source}: {count}"
    digest = f"{count}, digest {classes.digest}"
    return Data(classes.part(train, source), classes.part(held_out, source), part, source, digest)


def data_of(config: OmniglotConfig) -> Data:
    """The classes that a config names. ValueError, in one line, if there are none."""
    return _data(config.data_dir, config.task.side, config.builtin_data and config.data_dir is None, config.split)


def training_episodes(config: OmniglotConfig) -> FewShotEpisodes:
    """Episodes of the training classes."""
    return FewShotEpisodes(config.task, data_of(config).train)


def held_out_episodes(config: OmniglotConfig) -> FewShotEpisodes:
    """Episodes of the held-out classes: one query each, no pool, no jitter."""
    return FewShotEpisodes(replace(config.task, pool=0, queries=1, jitter=0.0), data_of(config).held_out)


def data(config: OmniglotConfig) -> str:
    """The number of classes, the split and a digest of the pixels, independent of the folder."""
    training_episodes(config), held_out_episodes(config)  # both must be possible
    return data_of(config).digest


def build(config: OmniglotConfig) -> Components:
    """The learner on training classes, the network, and its evaluation on held-out classes."""
    held_out, part = held_out_episodes(config), data_of(config).part

    def held_out_values(network: nn.Module) -> dict[str, float]:
        stream = generator(config.seed, "validation")
        _, errors = evaluate(network, held_out, classification, config.eval_episodes, _at_once(config), stream)
        return {f"{part}_error": errors.mean().item()}

    learner = SupervisedLearner(training_episodes(config), classification)
    return Components(learner, network(config), held_out_values, eval_every=config.eval_every)


def network(config: OmniglotConfig) -> PlasticClassifier:
    """The published network, initialised from the config's seed."""
    model, stream = config.model, generator(config.seed, "initialisation")
    made = PlasticClassifier(
        features=model.channels, ways=config.task.ways, rule=model.rule, alpha=model.alpha, eta=model.eta,
        learn_eta=model.learn_eta,
    )  # fmt: skip
    made.reset_parameters(stream)
    with torch.no_grad():
        made.head.w.mul_(model.w_init_std / 0.01)
        if made.head.alpha is not None:
            made.head.alpha.uniform_(0, model.alpha_init_std, generator=stream)
    return made


def needed_bytes(config: OmniglotConfig) -> int:
    """Bytes that training needs: pictures, activations and their gradients, traces."""
    task, channels, batch = config.task, config.model.channels, config.batch
    frames = task.pool * task.pool_pictures if task.pool else batch * (task.steps + task.queries)
    sizes = [task.side]
    while sizes[-1] >= 3:
        sizes.append((sizes[-1] - 3) // 2 + 1)
    activations = 4 * channels * sum(size * size for size in sizes[1:])
    traces = 4 * batch * channels * task.ways * task.steps
    return 32_460 * task.side**2 + 5 * frames * activations + 6 * traces


def _at_once(config: OmniglotConfig) -> int:
    """Batch size of an evaluation."""
    return max(1, FRAMES_AT_ONCE // (config.task.steps + 1))


def _batches(held_out: FewShotEpisodes, episodes: int, batch: int, stream: torch.Generator) -> Iterator[FewShotBatch]:
    for start in range(0, episodes, batch):
        yield held_out.episodes(min(batch, episodes - start), stream)


def _right_in_pixels(held_out: FewShotEpisodes, episodes: int, batch: int, stream: torch.Generator) -> float:
    """Accuracy of the nearest neighbour in pixels."""
    right = sum(int((nearest_in_pixels(b) == b.target).sum()) for b in _batches(held_out, episodes, batch, stream))
    return right / (episodes * held_out.options.queries)


def notes(config: OmniglotConfig) -> dict[str, Any]:
    """For the summary: the source of the classes, and the held-out error of guessing and of the nearest neighbour."""
    held_out, stream = held_out_episodes(config), generator(config.seed, "validation")
    nearest = _right_in_pixels(held_out, BASELINE_EPISODES, _at_once(config), stream)
    baselines = {"guessing": 1 - config.task.chance, "nearest neighbour in pixels": 1 - nearest}
    return {
        "data": data_of(config).source,
        "data_digest": data(config),
        "baselines": {f"{data_of(config).part}_error": baselines},
    }


@torch.no_grad()
def evaluation(config: OmniglotConfig, model: nn.Module, episodes: int, stream: torch.Generator) -> dict[str, Any]:
    """Accuracy on held-out classes with its 95 % interval, by position, and that of the nearest neighbour in pixels."""
    held_out, batch = held_out_episodes(config), _at_once(config)
    state = stream.get_state()
    _, error = evaluate(model, held_out, classification, episodes, batch, stream)
    right = 1 - error.double()
    last_shown = [_last_position(b) for b in _batches(held_out, episodes, batch, stream.set_state(state))]
    places = torch.cat(last_shown)
    by_position = [right[places == t].mean().item() for t in range(config.task.steps)]
    nearest = _right_in_pixels(held_out, episodes, batch, stream.set_state(state))
    return {
        "split": f"{len(held_out.classes):,} {PARTS[data_of(config).part]} classes",
        "data": data_of(config).source,
        "accuracy": {**interval(right), "chance": config.task.chance},
        "by_position": by_position,
        "baselines": {"nearest neighbour in pixels": nearest},
    }


def _last_position(batch: FewShotBatch) -> Tensor:
    """The step, 0 to T - 1, that showed the query's class last, `[B]`."""
    steps = torch.arange(len(batch.labels)).unsqueeze(-1)
    return torch.where(batch.labels == batch.target[:, 0], steps, -1).amax(0)


@torch.no_grad()
def samples(config: OmniglotConfig, before: nn.Module, after: nn.Module) -> dict[str, np.ndarray]:
    """Held-out episodes with answer probabilities, w and alpha, and a map of held-out features."""
    assert isinstance(after, PlasticClassifier)
    held_out, part = held_out_episodes(config), PARTS[data_of(config).part]
    batch = held_out.episodes(SAMPLED_EPISODES, generator(config.seed, "samples"))
    found: dict[str, np.ndarray] = {}
    for when, model, count in (("before training", before, 1), (f"{part} episode", after, SAMPLED_EPISODES)):
        probabilities = batch.answer(model).softmax(-1)[:, 0]
        for b in range(count):
            group = when if count == 1 else f"{when} {b + 1}"
            target = int(batch.target[b, 0])
            shown: dict[str, Tensor] = {}
            for place, label in zip(batch.support[:, b].tolist(), batch.labels[:, b].tolist(), strict=True):
                caption = f"{_letter(label)}: {100 * probabilities[b, label]:.1f} %"
                shown.setdefault(caption, batch.frames[place])
            verdict = "right" if int(probabilities[b].argmax()) == target else "wrong"
            shown[f"query: {_letter(target)}, {verdict}"] = batch.frames[batch.query[b, 0]]
            found |= picture_row(group, {label: 1 - picture.numpy() / 255 for label, picture in shown.items()})
    classes = held_out.classes.part(torch.arange(len(held_out.classes)) < MAPPED, "")
    members = torch.arange(len(classes)).repeat_interleave(classes.counts)
    pictures = 1 - classes.pictures[classes.first].numpy() / 255
    found |= feature_map(f"features of {part} classes", after.features(classes.pictures), members, pictures)
    return found | layer_matrices(after.head)


def _letter(label: int) -> str:
    return chr(ord("A") + label) if label < 26 else str(label)


# --- presets


def published() -> OmniglotConfig:
    """The paper's optimiser: one episode per update, Adam 3e-5, times 0.666 every million episodes."""
    return OmniglotConfig(
        experiment="omniglot",
        preset="published",
        episodes=5_000_000,
        log_every=10_000,
        optim=Optim(lr=3e-5, schedule="steps", schedule_episodes=1_000_000, final=0.666),
    )


def paper() -> OmniglotConfig:
    """The paper's task and network with our recipe."""
    return OmniglotConfig(
        experiment="omniglot",
        preset="paper",
        episodes=16_000_000,
        batch=512,
        log_every=51_200,
        eval_every=250_000,
        model=Classifier(eta=0.5, alpha_init_std=1.0),
        optim=Optim(lr=2e-3, beta2=0.99, weight_decay=0.3, schedule="cosine", schedule_episodes=16_000_000, warmup=0.1),
        task=FewShot(queries=5, pool=48, jitter=0.05),
    )


def quick() -> OmniglotConfig:
    """The same for 6,000,000 episodes."""
    config = paper()
    optim = replace(config.optim, schedule_episodes=6_000_000)
    task = replace(config.task, jitter=0.0)  # it helps in longer training only
    return replace(config, preset="quick", episodes=6_000_000, eval_every=100_000, optim=optim, task=task)


def smoke() -> OmniglotConfig:
    """Glyphs that the program draws."""
    config = quick()
    return replace(
        config,
        preset="smoke",
        batch=128,
        episodes=64_000,
        log_every=1280,
        threads=1,
        builtin_data=True,
        eval_every=6400,
        eval_episodes=300,
        model=replace(config.model, channels=32),
        optim=replace(config.optim, lr=3e-3, schedule_episodes=64_000),
        task=replace(config.task, pool=24),
    )


EXPERIMENT = Experiment(
    config=OmniglotConfig,
    presets={"smoke": smoke, "quick": quick, "paper": paper, "published": published},
    build=build,
    needed_bytes=needed_bytes,
    samples=samples,
    evaluate=evaluation,
    notes=notes,
    data=data,
    evaluation_episodes=10_000,
)
