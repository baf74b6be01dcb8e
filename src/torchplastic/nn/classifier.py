"""A network that classifies pictures from a few examples: an embedding, and a plastic layer on its features.

Miconi et al. 2018, section 4.3. Axes: F frames (pictures), T support pictures, B batch, Q queries, W ways (labels),
I features, S pixels a side.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.functional import one_hot

from torchplastic.nn.linear import PlasticLinear
from torchplastic.rules import Rule
from torchplastic.state import PlasticState

LABEL_DRIVE = 1000.0  # what the output of a picture's own label is given while it is shown
CONVOLUTIONS = 4  # of 3 x 3, stride 2, without padding: 31 -> 15 -> 7 -> 3 -> 1


def conv_embedding(channels: int = 64) -> nn.Sequential:
    """The published embedding: four convolutions 3 x 3, stride 2, no padding, each with tanh.

    `[F, 1, 31, 31]` to `[F, channels]`.
    """
    layers: list[nn.Module] = []
    for inputs in (1, *[channels] * (CONVOLUTIONS - 1)):
        layers += [nn.Conv2d(inputs, channels, 3, stride=2), nn.Tanh()]
    embedding = nn.Sequential(*layers, nn.Flatten())
    return embedding.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class PlasticClassifier(nn.Module):
    """`logits = classifier(frames, support, labels, query)`: episodes of few-shot classification, all in one call.

    A picture that is shown goes with its label: the label's output is driven to one, and the trace of its connections
    takes up the picture's features. A query is classified from its features and the trace, which stays unchanged.

    Args:
        embedding: pictures `[F, 1, S, S]` (ink 1, paper 0) to features `[F, I]`; default `conv_embedding(features)`,
            for 31 x 31 pixels.
        features: I.
        ways: W, the most labels of an episode.
        rule: as in `PlasticLinear`.
        alpha: as in `PlasticLinear`.
        eta: as in `PlasticLinear`.
        learn_eta: as in `PlasticLinear`.
    """

    def __init__(
        self,
        embedding: nn.Module | None = None,
        features: int = 64,
        ways: int = 5,
        *,
        rule: str | Rule = "oja",
        alpha: str = "full",
        eta: float | Tensor = 0.01,
        learn_eta: bool = True,
    ) -> None:
        super().__init__()
        self.embedding = conv_embedding(features) if embedding is None else embedding
        self.head = PlasticLinear(features, ways, rule=rule, alpha=alpha, eta=eta, learn_eta=learn_eta)

        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Convolutions start as He's for tanh (variance 25 / 9 over the inputs), their biases at zero.

        Those of the first are three times as large: of a drawing a tenth is ink, the rest is zero.
        """
        convolutions = [layer for layer in self.embedding.modules() if isinstance(layer, nn.Conv2d)]
        for layer in convolutions:
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="tanh", generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        if convolutions:
            with torch.no_grad():
                convolutions[0].weight.mul_(3)
        self.head.reset_parameters(generator)

    @property
    def ways(self) -> int:
        """W."""
        return self.head.out_features

    def forward(self, frames: Tensor, support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        """Logits `[B, Q, W]`.

        frames: pictures, uint8 `[F, S, S]` with ink 255, or float with ink 1; each goes through the embedding once.
        support, labels: int64 `[T, B]`, which frame is shown at each step, with which label.
        query: int64 `[B, Q]`, which frames are to be classified.
        """
        features = self.features(frames)
        return self.logits(features[query], self.learn(features[support], labels))

    def features(self, frames: Tensor) -> Tensor:
        """Pictures `[F, S, S]` to features `[F, I]`."""
        if frames.dim() != 3:
            raise ValueError(f"frames must be [F, S, S]; got {tuple(frames.shape)}.")
        scaled = frames.to(self.head.w.dtype) / 255 if frames.dtype == torch.uint8 else frames
        features: Tensor = self.embedding(scaled.unsqueeze(1).contiguous(memory_format=torch.channels_last))
        return features.to(self.head.w.dtype)

    def learn(self, features: Tensor, labels: Tensor, state: PlasticState | None = None) -> PlasticState:
        """Show features `[T, B, I]` with labels int64 `[T, B]`: the state that is left."""
        drive = LABEL_DRIVE * one_hot(labels, self.ways).to(features.dtype)
        return self.head(features, state, drive)[1]

    def logits(self, features: Tensor, state: PlasticState) -> Tensor:
        """Logits of features under a state, `[B, Q, I]`, `[B, Q, W]`."""
        with torch.autocast(features.device.type, enabled=False):  # traces stay in the dtype of w
            return features @ self.head.effective_weight(state)

    @classmethod
    def from_file(cls, path: Path | str) -> PlasticClassifier:
        """The network of a file `model.safetensors` that `plastic train omniglot` wrote, ready to classify.

        ValueError, in one line, for any other file. Nothing in the file is executed.
        """
        try:
            with safe_open(path, "pt") as file:
                rule = (file.metadata() or {}).get("rule", "oja")
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            features, ways = weights["head.w"].shape
            alpha = {None: "none", 0: "shared", 1: "neuron", 2: "full"}[
                weights["head.alpha"].dim() if "head.alpha" in weights else None
            ]
            made = cls(features=features, ways=ways, rule=rule, alpha=alpha)
            made.load_state_dict(weights)
        except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
            why = " ".join(str(error).split())
            raise ValueError(f"{path} holds no weights of a PlasticClassifier: {why[:200]}") from None
        return made.eval()

    @torch.no_grad()
    def classify(self, support: Tensor, labels: Tensor, query: Tensor, *, mean: bool = True) -> Tensor:
        """Learn pictures `[T, S, S]` with labels int64 `[T]`, and say of others `[Q, S, S]` how probable each label is.

        mean: several pictures of a label are shown as one, with the mean of their features. A network that was trained
            on one picture of each has never seen a label twice, and its trace need not bear it. False: one after the
            other, as a network wants it that was trained so.

        Returns probabilities `[Q, W]`; a label of which nothing was shown has probability 0. ValueError for labels
        outside 0 … W - 1.
        """
        if labels.shape != support.shape[:1] or not len(labels):
            raise ValueError(f"each support picture needs a label; got {len(support)} and {tuple(labels.shape)}.")
        if not 0 <= int(labels.min()) <= int(labels.max()) < self.ways:
            raise ValueError(
                f"labels must lie in 0 … {self.ways - 1}; got {int(labels.min())} … {int(labels.max())}. This network "
                f"tells at most {self.ways} classes apart."
            )
        given = labels.unique()
        known = torch.zeros(self.ways, dtype=torch.bool, device=labels.device).index_fill(0, given, True)
        features = self.features(support)
        if mean:
            features = torch.stack([features[labels == label].mean(0) for label in given])
            labels = given
        state = self.learn(features.unsqueeze(1), labels.unsqueeze(-1))
        logits = self.logits(self.features(query).unsqueeze(0), state)[0]
        return logits.masked_fill(~known, -torch.inf).softmax(-1)

    def extra_repr(self) -> str:
        return f"ways={self.ways}"
