"""Few-shot classification of pictures: an embedding, and a plastic layer on its features.

Miconi et al. 2018, section 4.3. Axes: F frames (pictures), T support pictures, B batch, Q queries, W ways (labels),
I features, S pixels a side.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from torchplastic.nn.linear import PlasticLinear
from torchplastic.reading import one_line, read_weights, shown
from torchplastic.rules import Rule
from torchplastic.state import PlasticState

LABEL_DRIVE = 1000.0  # drive of the label's output while a support picture is shown
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
    """Few-shot classification, `logits = classifier(frames, support, labels, query)`: whole episodes in one call.

    An embedding turns pictures into features; a `PlasticLinear` with softmax classifies them (Miconi et al. 2018,
    section 4.3). A support picture is shown with its label: a strong drive sets the label's output to one, and the
    trace of its connections stores the features. A query is classified with that trace, which it does not change.

    Args:
        embedding: module from pictures `[F, 1, S, S]` (ink 1, paper 0) to features `[F, I]`; None is the published
            one, four convolutions for 31 x 31 pixels.
        features: I, the number of features.
        ways: W, the largest number of classes in an episode.
        rule: "hebb", "oja" or a `Rule`; see `RULES`.
        alpha: plasticity coefficients: "full" has one per connection, `[I, W]`; "neuron" one per postsynaptic
            neuron, `[W]`; "shared" one in all, 0-dim; "none" has no plasticity and no trace.
        eta: initial plasticity rate per step, a number or `[W]`.
        learn_eta: train eta as a parameter; False makes it a buffer.

    Attributes:
        embedding (Module): the embedding.
        head (PlasticLinear): the plastic layer from features to labels.

    Raises:
        ValueError: a size below 1, an unknown name, or eta of another shape.

    Examples:
        Two episodes with 5 classes, one support picture of each, and 3 queries:

        >>> network = tp.PlasticClassifier(features=16, ways=5)
        >>> frames = torch.rand(20, 31, 31).round()
        >>> support, query = torch.randint(20, (5, 2)), torch.randint(20, (2, 3))
        >>> labels = torch.arange(5).unsqueeze(1).expand(5, 2)
        >>> network(frames, support, labels, query).shape
        torch.Size([2, 3, 5])
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
        """Draw convolutions from He's distribution for tanh, set their biases to zero, and reset the plastic layer.

        The weights of the first convolution are three times as large, because a drawing is nine tenths paper (zero).

        Args:
            generator: source of the random numbers; None uses PyTorch's global one.

        Examples:
            >>> tp.PlasticClassifier(features=16, ways=5).reset_parameters(torch.Generator().manual_seed(0))
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
        """W, the largest number of classes in an episode."""
        return self.head.out_features

    def forward(self, frames: Tensor, support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        """Learn the support pictures of every episode and classify its queries.

        Args:
            frames: the pictures of all episodes, `[F, S, S]`, uint8 with ink 255 or float with ink 1. The embedding
                runs once on each.
            support: int64 `[T, B]`, the index in frames of the picture shown at each step.
            labels: int64 `[T, B]`, its label, 0 … W - 1.
            query: int64 `[B, Q]`, the indices in frames of the pictures to classify.

        Returns:
            Logits, `[B, Q, W]`.

        Raises:
            ValueError: frames of another shape.

        Examples:
            >>> network = tp.PlasticClassifier(features=16, ways=2)
            >>> frames, support, query = torch.rand(3, 31, 31), torch.tensor([[0], [1]]), torch.tensor([[2]])
            >>> network(frames, support, support, query).shape
            torch.Size([1, 1, 2])
        """
        features = self.features(frames)
        return self.logits(features[query], self.learn(features[support], labels))

    def features(self, frames: Tensor) -> Tensor:
        """Embed pictures.

        Args:
            frames: pictures, `[F, S, S]`, uint8 with ink 255 or float with ink 1.

        Returns:
            Features, `[F, I]`.

        Raises:
            ValueError: frames of another shape.

        Examples:
            >>> tp.PlasticClassifier(features=16, ways=5).features(torch.rand(20, 31, 31)).shape
            torch.Size([20, 16])
        """
        if frames.dim() != 3:
            raise ValueError(f"frames must be [F, S, S]; got {tuple(frames.shape)}.")
        if frames.dtype != torch.uint8 and not frames.is_floating_point():
            raise ValueError(f"frames must be uint8 with ink 255, or float with ink 1; got {frames.dtype}.")
        scaled = frames.to(self.head.w.dtype)
        scaled = scaled / 255 if frames.dtype == torch.uint8 else scaled
        features: Tensor = self.embedding(scaled.unsqueeze(1).contiguous(memory_format=torch.channels_last))
        return features.to(self.head.w.dtype)

    def learn(self, features: Tensor, labels: Tensor, state: PlasticState | None = None) -> PlasticState:
        """Show features with their labels, one per step.

        Args:
            features: `[T, B, I]`.
            labels: int64 `[T, B]`, 0 … W - 1.
            state: state to continue from; None means a trace of zeros.

        Returns:
            The state after the last step, whose trace stores the features.

        Examples:
            >>> network = tp.PlasticClassifier(features=16, ways=5)
            >>> network.learn(torch.randn(5, 2, 16), torch.zeros(5, 2, dtype=torch.long)).trace.shape
            torch.Size([2, 16, 5])
        """
        drive = LABEL_DRIVE * one_hot(labels, self.ways).to(features.dtype)
        return self.head(features, state, drive)[1]

    def logits(self, features: Tensor, state: PlasticState) -> Tensor:
        """Classify features with the trace of a state, which stays unchanged.

        Args:
            features: queries, `[B, Q, I]`.
            state: the state that `learn` returned.

        Returns:
            Logits, `[B, Q, W]`.

        Examples:
            >>> network = tp.PlasticClassifier(features=16, ways=5)
            >>> state = network.learn(torch.randn(5, 2, 16), torch.zeros(5, 2, dtype=torch.long))
            >>> network.logits(torch.randn(2, 3, 16), state).shape
            torch.Size([2, 3, 5])
        """
        with torch.autocast(features.device.type, enabled=False):  # traces stay in the dtype of w
            return features @ self.head.effective_weight(state)

    @classmethod
    def from_file(cls, path: Path | str) -> PlasticClassifier:
        """Load a network from a file `model.safetensors` that `plastic train omniglot` wrote.

        Nothing in the file is executed.

        Args:
            path: the file.

        Returns:
            The network on the CPU, in evaluation mode.

        Raises:
            ValueError: the file is missing, unreadable, or holds another model.

        Examples:
            >>> from importlib.resources import files
            >>> network = tp.PlasticClassifier.from_file(str(files("torchplastic.weights") / "omniglot.safetensors"))
            >>> network.ways
            5
        """
        try:
            weights, metadata = read_weights(path)
            rule = metadata.get("rule", "oja")
            features, ways = weights["head.w"].shape
            alpha = {None: "none", 0: "shared", 1: "neuron", 2: "full"}[
                weights["head.alpha"].dim() if "head.alpha" in weights else None
            ]
            made = cls(features=features, ways=ways, rule=rule, alpha=alpha)
            made.load_state_dict(weights)
        except (KeyError, ValueError, RuntimeError) as error:
            raise ValueError(f"{shown(path)} holds no weights of a PlasticClassifier: {one_line(error)}") from None
        return made.eval()

    @torch.no_grad()
    def classify(self, support: Tensor, labels: Tensor, query: Tensor, *, mean: bool = True) -> Tensor:
        """Learn labelled pictures, then classify others; without gradients.

        Args:
            support: labelled pictures, `[T, S, S]`, uint8 with ink 255 or float with ink 1.
            labels: int64 `[T]`, 0 … W - 1.
            query: pictures to classify, `[Q, S, S]`.
            mean: True shows the pictures of a label as one, with the mean of their features. This suits a network
                trained with one picture per label, whose trace may fail when a label comes twice. False shows them one
                after the other, for a network trained that way.

        Returns:
            Probabilities, `[Q, W]`; 0 for a label without a support picture.

        Raises:
            ValueError: no support pictures, another number of labels, a label outside 0 … W - 1, or floats outside
                0 … 1.

        Examples:
            >>> network = tp.pretrained("omniglot")
            >>> support = torch.rand(5, 31, 31).round()
            >>> network.classify(support, torch.arange(5), support).argmax(-1)
            tensor([0, 1, 2, 3, 4])
        """
        if labels.shape != support.shape[:1] or not len(labels):
            raise ValueError(
                f"each support picture needs a label; got {len(support)} pictures and labels {tuple(labels.shape)}."
            )
        if not 0 <= int(labels.min()) <= int(labels.max()) < self.ways:
            raise ValueError(
                f"labels must be in 0 … {self.ways - 1}; got {int(labels.min())} … {int(labels.max())}. This network "
                f"distinguishes at most {self.ways} classes."
            )
        for name, pictures in (("support", support), ("query", query)):
            if pictures.is_floating_point() and not bool(((pictures >= 0) & (pictures <= 1)).all()):
                raise ValueError(
                    f"{name} must be from 0 (paper) to 1 (ink), or uint8; got {pictures.min():g} … {pictures.max():g}."
                )
        present = labels.unique()
        known = torch.zeros(self.ways, dtype=torch.bool, device=labels.device).index_fill(0, present, True)
        features = self.features(support)
        if mean:
            features = torch.stack([features[labels == label].mean(0) for label in present])
            labels = present
        state = self.learn(features.unsqueeze(1), labels.unsqueeze(-1))
        logits = self.logits(self.features(query).unsqueeze(0), state)[0]
        return logits.masked_fill(~known, -torch.inf).softmax(-1)

    def extra_repr(self) -> str:
        return f"ways={self.ways}"
