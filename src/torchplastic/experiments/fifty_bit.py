"""50-bit memory: a plastic network against an RNN and an LSTM (Miconi et al. 2018, sec. 4.2)."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from torchplastic.experiments.config import Model, Optim
from torchplastic.experiments.pattern_recall import RecallConfig, experiment
from torchplastic.tasks.patterns import Patterns

EXTRA = 2000  # additional neurons or cells of the baselines
BASELINE_LR = 3e-5  # of Adam


def published() -> RecallConfig:
    """2 patterns of 50 bits, each shown 3 times for 3 steps, clamped; eta fixed at 0.05; Adam 1e-3."""
    return RecallConfig(
        experiment="fifty-bit",
        preset="published",
        episodes=2000,
        log_every=10,
        threads=1,
        model=Model(eta=0.05, learn_eta=False),
        optim=Optim(lr=1e-3),
        task=Patterns(bits=50, patterns=2, shown=3, gap=1, cycles=3, test=3),
    )


def paper() -> RecallConfig:
    """The published task and network with our recipe: eta learned, a lower rate for w than for alpha, a schedule."""
    return replace(
        published(),
        preset="paper",
        model=Model(eta=0.05, learn_eta=True),
        optim=Optim(lr=1e-2, lr_w=3e-4, schedule="cosine", schedule_episodes=2000),
    )


def quick() -> RecallConfig:
    """`paper` with half of its episodes."""
    config = replace(paper(), preset="quick", episodes=1000)
    return replace(config, optim=replace(config.optim, schedule_episodes=1000))


def smoke() -> RecallConfig:
    """2 patterns of 20 bits."""
    config = replace(published(), preset="smoke", episodes=600)
    return replace(config, task=replace(config.task, bits=20), optim=Optim(lr=3e-3))


def released() -> RecallConfig:
    """The released program's variant: the set shown once, input × 20 added inside tanh, eta learned, Adam 3e-4."""
    config = replace(published(), preset="released", episodes=10_000)
    return replace(
        config,
        model=Model(eta=0.01, learn_eta=True),
        optim=Optim(lr=3e-4),
        task=replace(config.task, cycles=1, input="additive"),
    )


def of_kind(config: RecallConfig, kind: Literal["plastic", "rnn", "lstm"]) -> RecallConfig:
    """The published setting of the baselines: 2,000 additional neurons or cells, Adam 3e-5, all threads."""
    config = replace(config, model=replace(config.model, kind=kind))
    if kind == "plastic":
        return config
    extra = EXTRA if config.preset != "smoke" else 100
    optim = Optim(lr=BASELINE_LR) if config.preset != "smoke" else Optim(lr=1e-3)
    return replace(config, threads=0, optim=optim, task=replace(config.task, extra=extra))


EXPERIMENT = experiment(
    presets={"smoke": smoke, "quick": quick, "paper": paper, "published": published, "released": released},
    of_kind=of_kind,
)
