"""1000-bit memory (Backpropagated plasticity, 2017; Miconi et al. 2018)."""

from __future__ import annotations

from dataclasses import replace

from torchplastic.experiments.config import Model, Optim
from torchplastic.experiments.pattern_recall import RecallConfig, experiment
from torchplastic.tasks.patterns import Patterns


def paper() -> RecallConfig:
    """5 patterns of 1000 bits, clamped; eta fixed at 0.01; Adam 1e-3, one episode per update."""
    return RecallConfig(
        experiment="patterns",
        preset="paper",
        episodes=1000,
        log_every=10,
        model=Model(eta=0.01, learn_eta=False),
        optim=Optim(lr=1e-3),
        task=Patterns(),
    )


def published() -> RecallConfig:
    """Same as `paper`: our recipe is the published one."""
    return replace(paper(), preset="published")


def quick() -> RecallConfig:
    """The paper's task for 300 episodes."""
    return replace(paper(), preset="quick", episodes=300)


def smoke() -> RecallConfig:
    """3 patterns of 120 bits."""
    task = Patterns(bits=120, patterns=3, shown=5, gap=2, cycles=2, test=5)
    return replace(paper(), preset="smoke", episodes=300, task=task, optim=Optim(lr=3e-3), threads=1)


def additive() -> RecallConfig:
    """The released program's variant: balanced patterns, input × 20 added inside tanh, eta learned, Adam 3e-4."""
    return replace(
        paper(),
        preset="additive",
        model=Model(eta=0.01, learn_eta=True),
        optim=Optim(lr=3e-4),
        task=Patterns(shown=6, gap=4, cycles=2, test=6, input="additive", balanced=True),
    )


EXPERIMENT = experiment(
    presets={"smoke": smoke, "quick": quick, "paper": paper, "published": published, "additive": additive},
)
