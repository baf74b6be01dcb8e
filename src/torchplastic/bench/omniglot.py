"""Omniglot's training step: batches of episodes against a plain loop over steps, one episode per update.

Axes: T support pictures, then one query; B episodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from torchplastic import RULES, PlasticClassifier
from torchplastic.data.classes import synthetic_glyphs
from torchplastic.experiments import catalog
from torchplastic.experiments.omniglot import OmniglotConfig, network
from torchplastic.tasks.omniglot import FewShotBatch, FewShotEpisodes
from torchplastic.train.objectives import classification


def plain_logits(classifier: PlasticClassifier, batch: FewShotBatch, b: int) -> Tensor:
    """The logits of episode b, `[1, W]`: one step after the other, each with one picture."""
    head = classifier.head
    alpha = torch.zeros_like(head.w) if head.alpha is None else head.alpha
    H = torch.zeros_like(head.w)
    for t in range(len(batch.support)):
        x = classifier.embedding(batch.frames[batch.support[t, b]].to(head.w.dtype).div(255)[None, None])[0]
        label = torch.nn.functional.one_hot(batch.labels[t, b], classifier.ways)
        y = (x @ (head.w + alpha * H) + 1000 * label).softmax(-1)
        if head.eta is not None:
            H = RULES["oja"].update(H, x, y, head.eta)
    x = classifier.embedding(batch.frames[batch.query[b, 0]].to(head.w.dtype).div(255)[None, None])
    return x @ (head.w + alpha * H)


@dataclass(frozen=True)
class OmniglotCase:
    """The published network on a batch of episodes of glyphs: forward, backward, Adam.

    reference: an update for each episode. batched: one update. shared: one update on as many episodes with five
    queries, which share a pool of 16 classes with 4 pictures each, as `plastic train omniglot` does in larger batches.
    """

    batch: int = 32
    suite: str = "omniglot"
    name: str = "paper"
    counted: str = "episodes"

    def count(self) -> int:
        """Episodes of a step."""
        return self.batch

    @property
    def label(self) -> str:
        """In words."""
        return f"5-way 1-shot, {self.batch} episodes"

    def sizes(self) -> dict[str, int]:
        """N features, T pictures, B episodes."""
        return {"N": 64, "T": 6, "B": self.batch}

    def floor_bytes(self, impl: str, device: torch.device) -> int | None:
        """Not counted."""
        return None

    def steps(self, device: torch.device) -> tuple[dict[str, Callable[[], None]], list[Tensor]]:
        """The steps by implementation, and the tensors that persist."""
        config = catalog.settings("omniglot", "paper")
        assert isinstance(config, OmniglotConfig)
        glyphs = synthetic_glyphs(config.task.side)
        single = replace(config.task, pool=0, queries=1)
        persistent: list[Tensor] = []

        def prepared(task: FewShotEpisodes) -> tuple[PlasticClassifier, torch.optim.Adam, FewShotBatch]:
            episodes = task.episodes(self.batch, torch.Generator().manual_seed(0)).to(device)
            classifier = network(config).to(device)
            optimizer = torch.optim.Adam(classifier.parameters(), lr=1e-4, fused=True)
            persistent.extend([*episodes, *classifier.parameters()])
            return classifier, optimizer, episodes

        def reference() -> Callable[[], None]:
            classifier, optimizer, episodes = prepared(FewShotEpisodes(single, glyphs))

            def step() -> None:
                for b in range(self.batch):
                    optimizer.zero_grad()
                    cross_entropy(plain_logits(classifier, episodes, b), episodes.target[b]).backward()
                    optimizer.step()

            return step

        def together(task: FewShotEpisodes) -> Callable[[], None]:
            classifier, optimizer, episodes = prepared(task)

            def step() -> None:
                optimizer.zero_grad()
                classification(episodes.answer(classifier), episodes.target).loss.mean().backward()
                optimizer.step()

            return step

        return {
            "reference": reference(),
            "batched": together(FewShotEpisodes(single, glyphs)),
            "shared": together(FewShotEpisodes(replace(config.task, pool=16, jitter=0.0), glyphs)),
        }, persistent
