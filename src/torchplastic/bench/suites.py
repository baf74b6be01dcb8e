"""The suites of `plastic bench`: the experiments at their sizes, and how cost grows with each size.

`NETWORKS` need no package of the laboratory; what the other suites need is imported when they are made.

Axes: T time, B batch, N neurons.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from torchplastic import RULES, CapturedStep, PlasticRNN, Rule
from torchplastic.bench.measure import tensors_of
from torchplastic.ops.plastic_scan import dispatch
from torchplastic.ops.plastic_scan.spec import ScanSpec
from torchplastic.tasks.base import Episode, RecallTask, unclamped
from torchplastic.tasks.patterns import Patterns


class Implementation(NamedTuple):
    """A way to make a training step."""

    impl: str
    compiled: bool = False
    """Whether the plain loop's step runs under torch.compile."""
    graph: bool = False
    """Whether a CUDA graph replays the training step, optimiser included."""


def implementations(device: str) -> dict[str, Implementation]:
    """The ways to make a step on a device, the reference first: every implementation of the package, by its name."""
    ways = {"reference": Implementation("reference"), "compiled step": Implementation("reference", compiled=True)}
    for impl in dispatch.impls():
        if impl not in ("auto", "reference"):
            ways[impl] = Implementation(impl)
            if device == "cuda":
                ways[f"{impl}, CUDA graph"] = Implementation(impl, graph=True)
    return ways


NEEDED = ("reference", "chunked")  # a case fails without these; others are skipped if they cannot run
PLAIN = ("reference", "compiled step")
ONLY_ON_GPU = ("large",)  # suites that take too long, or too much memory, on a CPU


@dataclass(frozen=True)
class Case:
    """One network on one task."""

    suite: str
    name: str
    label: str
    task: RecallTask
    batch: int = 1
    learn_eta: bool = False
    part: Callable[[Episode], Episode] = lambda episode: episode
    """The part of the episode that the network runs."""
    counted: str = "episodes"
    plain: bool = True
    """Whether the plain loop runs too, which keeps every trace of every step."""

    def count(self) -> int:
        """Episodes of a step."""
        return self.batch

    def sizes(self) -> dict[str, int]:
        """N, T and B."""
        episode = self.part(self.task.episodes(1, torch.Generator().manual_seed(0)))
        return {"N": self.task.neurons, "T": len(episode.clamped_steps), "B": self.batch}

    def floor_bytes(self, impl: str, device: torch.device) -> int | None:
        """The bytes that a training step of this implementation must move, if plastic_scan/README.md counts them."""
        way = implementations(device.type)[impl]
        spec = self.spec(device)
        moved = dispatch.choose("bench", spec, way.impl).moved_bytes
        return None if moved is None else moved(spec)

    def spec(self, device: torch.device) -> ScanSpec:
        """The scan of a step."""
        steps = tuple(self.part(self.task.episodes(1, torch.Generator().manual_seed(0))).clamped_steps)
        return ScanSpec(
            len(steps), self.batch, self.task.neurons, "full", RULES["hebb"], "tanh", steps, device.type,
            torch.float32,
        )  # fmt: skip

    def steps(self, device: torch.device) -> tuple[dict[str, Callable[[], None]], list[Tensor]]:
        """The training step of each implementation (forward, backward, Adam), and the tensors that persist."""
        generator = torch.Generator().manual_seed(0)
        episode = self.part(self.task.episodes(self.batch, generator)).to(device)
        steps: dict[str, Callable[[], None]] = {}
        spec = self.spec(device)
        persistent = [episode.inputs, episode.target, *([] if episode.clamp is None else [episode.clamp])]
        for name, (impl, compiled, graph) in implementations(device.type).items():
            if (name in PLAIN and not self.plain) or not dispatch.runs(spec, impl):
                continue
            rnn = PlasticRNN(None, self.task.neurons, learn_eta=self.learn_eta, impl=impl, device=device)
            run = compiled_loop(rnn) if compiled else rnn
            optimizer = torch.optim.Adam(rnn.parameters(), lr=1e-4, fused=True, capturable=graph)
            step = TrainingStep(run, optimizer, episode, CapturedStep if graph else None)
            try:
                step.once()  # creates the optimiser's state, which persists
            except (RuntimeError, ValueError) as error:
                if name in NEEDED:
                    raise
                print(f"{self.label}: {name} skipped: {str(error).splitlines()[0]}", file=sys.stderr)
                continue
            optimizer.zero_grad()
            steps[name] = step
            persistent += tensors_of(rnn, optimizer)
        return steps, persistent


class TrainingStep:
    """Forward, backward and Adam on one batch of episodes; a call replays the CUDA graph, `once` runs without it."""

    def __init__(
        self,
        run: Callable[..., Any],
        optimizer: torch.optim.Optimizer,
        episode: Episode,
        captured: type[CapturedStep] | None = None,
    ) -> None:
        self.run, self.optimizer, self.episode = run, optimizer, episode
        self.update = captured(self.learn, 1) if captured else self.learn

    def learn(self, inputs: Tensor, clamp: Tensor | None, target: Tensor, clamped_steps: tuple[bool, ...]) -> None:
        """The step itself."""
        self.optimizer.zero_grad()
        y, _ = self.run(inputs, clamp=clamp, clamped_steps=clamped_steps)
        (y[-1, :, : target.shape[1]] - target).square().sum().div(len(target)).backward()
        self.optimizer.step()

    def once(self) -> None:
        """Run without a graph, whose memory could not be measured."""
        inputs, clamp, clamped_steps, target, _ = self.episode
        self.learn(inputs, clamp, target, clamped_steps)

    def __call__(self) -> None:
        inputs, clamp, clamped_steps, target, _ = self.episode
        self.update(inputs, clamp, target, clamped_steps)


def compiled_loop(rnn: PlasticRNN) -> Callable[..., tuple[Tensor, None]]:
    """The plain loop, its step under torch.compile."""
    rule, alpha = rnn.rule if isinstance(rnn.rule, Rule) else RULES[rnn.rule], rnn.alpha
    assert alpha is not None
    torch.compiler.reset()  # compiled code for other sizes counts towards a limit

    def step(u: Tensor, H: Tensor, drive: Tensor, clamp: Tensor | None) -> tuple[Tensor, Tensor]:
        x = torch.tanh((u.unsqueeze(-2) @ (rnn.w + alpha * H)).squeeze(-2) + drive)
        x = x if clamp is None else torch.where(clamp, drive, x)
        return x, rule.update(H, u, x, rnn.eta)

    fused = torch.compile(step, dynamic=False)

    def run(inputs: Tensor, *, clamp: Tensor | None, clamped_steps: object) -> tuple[Tensor, None]:
        T, B, N = inputs.shape
        x, H = inputs.new_zeros(B, N), inputs.new_zeros(B, N, N)
        outputs = []
        for t in range(T):
            x, H = fused(x, H, inputs[t], None if clamp is None else clamp[t])
            outputs.append(x)
        return torch.stack(outputs), None

    return run


# --- the networks of the experiments; the tests compare them with the presets


def _patterns() -> list[Case]:
    """1000 bits: the paper's episode, and the released program's."""
    additive = Patterns(shown=6, gap=4, cycles=2, test=6, input="additive", balanced=True)
    return [_recall("patterns", "paper", Patterns(), False), _recall("patterns", "additive", additive, True)]


def _fifty_bit() -> list[Case]:
    """The paper's episode of 50 bits."""
    task = Patterns(bits=50, patterns=2, shown=3, gap=1, cycles=3, test=3)
    return [_recall("fifty-bit", "paper", task, True)]


def _recall(suite: str, preset: str, task: Patterns, learn_eta: bool) -> Case:
    label = f"{task.neurons} neurons, {task.steps} steps, {task.input}"
    return Case(suite, preset, label, task, learn_eta=learn_eta)


def _images() -> list[Case]:
    """The paper's episode, with random bits for pictures, and the same without its clamped steps."""
    task = Patterns(bits=1024, patterns=3, shown=20, gap=2, cycles=3, test=3)
    free = task.clamped_steps().count(False)

    def case(name: str, steps: str, part: Callable[[Episode], Episode] = lambda episode: episode) -> Case:
        return Case("images", name, f"{task.neurons} neurons, {steps}", task, learn_eta=True, part=part)

    return [
        case("paper", f"{task.steps} steps, {free} of them free"),
        case("free steps", f"only its {free} free steps", unclamped),
    ]


def _network_of_the_maze() -> Case:
    """Only the network, with the size and batch of an update; no step is clamped."""
    task = Patterns(bits=99, patterns=1, shown=186, gap=4, cycles=1, test=10, input="additive")
    label = f"{task.neurons} neurons, {task.steps} steps, batch 30, only the network"
    return Case("maze", "network", label, task, batch=30, learn_eta=True)


def _scaling(what: str) -> list[Case]:
    """One size grows, the others are fixed; the input is additive, so that no step is clamped."""
    base = Patterns(bits=255, patterns=2, shown=6, gap=4, cycles=2, test=10, input="additive")  # 256 neurons, 50 steps
    cases = []
    for size in {"N": (64, 128, 256, 512, 1024), "T": (25, 50, 100, 200, 400), "B": (1, 2, 4, 8, 16)}[what]:
        task, batch = base, 1
        if what == "N":
            task = replace(base, bits=size - 1)
        elif what == "T":
            task = replace(base, patterns=1, cycles=1, shown=size - 14, gap=4, test=10)
        else:
            batch = size
        label = f"{task.neurons} neurons, {task.steps} steps, batch {batch}"
        cases.append(Case(f"scaling {what}", str(size), label, task, batch, learn_eta=True))
    return cases


def _large() -> list[Case]:
    """A network and a batch whose matrices exceed every cache, so that memory is the bottleneck."""
    task = Patterns(bits=4095, patterns=2, shown=3, gap=2, cycles=1, test=10, input="additive")
    label = f"{task.neurons} neurons, {task.steps} steps, batch 16"
    return [Case("large", "batch", label, task, batch=16, learn_eta=True, plain=False)]


class Measured(Protocol):
    """The protocol of a case, as `run_bench` uses it."""

    @property
    def suite(self) -> str:
        """The name of its suite."""

    @property
    def name(self) -> str:
        """Its name within the suite."""

    @property
    def label(self) -> str:
        """A description, in words."""

    @property
    def counted(self) -> str:
        """What `count` counts: episodes or moves."""

    def count(self) -> int:
        """How many of them a step runs."""

    def sizes(self) -> dict[str, int]:
        """N, T and B."""

    def floor_bytes(self, impl: str, device: torch.device) -> int | None:
        """The bytes that a step of this implementation must move, by count; None if they are not counted."""

    def steps(self, device: torch.device) -> tuple[dict[str, Callable[[], None]], list[Tensor]]:
        """The steps to time, by implementation, the reference first, and the tensors that persist between steps."""


def _omniglot() -> Sequence[Measured]:
    from torchplastic.bench.omniglot import OmniglotCase

    return [OmniglotCase()]


def _maze() -> Sequence[Measured]:
    from torchplastic.bench.maze import CASES

    return [*CASES, _network_of_the_maze()]


NETWORKS: dict[str, Callable[[], Sequence[Measured]]] = {
    "patterns": _patterns,
    "fifty-bit": _fifty_bit,
    "images": _images,
    "maze": lambda: [_network_of_the_maze()],
    "large": _large,
    "scaling-n": lambda: _scaling("N"),
    "scaling-t": lambda: _scaling("T"),
    "scaling-b": lambda: _scaling("B"),
}
SUITES: dict[str, Callable[[], Sequence[Measured]]] = {**NETWORKS, "maze": _maze, "omniglot": _omniglot}
