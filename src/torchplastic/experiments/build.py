"""Build the network and the optimiser of a config; all randomness derives from its seed.

Axes: N neurons.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from torchplastic import LSTM, LSTMState, PlasticRNN
from torchplastic.experiments.config import Model, Optim

STREAMS = {"initialisation": 0, "episodes": 1, "evaluation": 2, "samples": 3, "validation": 4}


def generator(seed: int, stream: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A separate generator for each use of randomness, derived from one seed."""
    state = np.random.SeedSequence(seed, spawn_key=(STREAMS[stream],)).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state) >> 1)


class BitLSTM(LSTM):
    """The LSTM on a clamped task: bits clamp their cells, the bias and other units are plain inputs."""

    def _check_units(self, clamp: Tensor) -> None:
        """Accept a clamp on other units too; it has no effect."""


class ReadoutLSTM(nn.Module):
    """An LSTM with a linear readout of the clamped inputs, for fewer cells than outputs; called like a plastic layer.

    What is clamped overrides its output, as it does in a plastic layer.
    """

    def __init__(self, inputs: int, cells: int, outputs: int) -> None:
        super().__init__()
        self.lstm = LSTM(inputs, cells)
        self.readout = nn.Linear(cells, outputs)

    @property
    def core(self) -> nn.LSTM:
        """The LSTM's parameters, as `LSTM.core`."""
        return self.lstm.core

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights uniformly from ±1 / sqrt(cells)."""
        draw_uniformly(self, self.lstm.hidden_size, generator)

    def forward(
        self,
        x: Tensor,
        state: LSTMState | None = None,
        clamp: Tensor | None = None,
        clamped_steps: Sequence[bool] | None = None,
    ) -> tuple[Tensor, LSTMState]:
        """x `[T, B, I]` -> the outputs `[T, B, O]`, the state."""
        y, state = self.lstm(x, state)
        outputs = self.readout(y)
        if clamp is not None:
            shown = slice(self.readout.out_features)
            outputs = torch.where(clamp[..., shown], x[..., shown], outputs)
        return outputs, state


def lstm_training_bytes(T: int, B: int, inputs: int, cells: int) -> int:
    """Bytes of weights, gradients, Adam and the activations of T steps, in float32."""
    weights = 4 * cells * (inputs + cells + 2)
    return 4 * (4 * weights + 8 * T * B * cells)


def make_network(config: Model, seed: int, neurons: int, *, lstm_cells: int, clamped_inputs: int) -> nn.Module:
    """A network with one input unit per neuron, initialised from the seed.

    An LSTM has `lstm_cells` cells; if these are fewer than the clamped inputs, a linear readout of the inputs.
    """
    stream = generator(seed, "initialisation")
    if config.kind == "lstm":
        lstm: BitLSTM | ReadoutLSTM = (
            ReadoutLSTM(neurons, lstm_cells, clamped_inputs)
            if lstm_cells < clamped_inputs
            else BitLSTM(neurons, lstm_cells, clamped_inputs=clamped_inputs if config.clamped else 0)
        )
        lstm.reset_parameters(stream)
        open_forget_gates(lstm.core, config.forget_bias)
        return lstm
    rnn = PlasticRNN(
        None,
        neurons,
        rule=config.rule,
        alpha=config.coefficients,
        eta=config.eta,
        learn_eta=config.learn_eta,
        impl=config.impl,
    )
    rnn.reset_parameters(stream)
    rescale(rnn, config)
    return rnn


def draw_uniformly(module: nn.Module, inputs: int, generator: torch.Generator | None) -> None:
    """Draw all parameters uniformly from ±1 / sqrt(inputs), as torch.nn's recurrent and linear layers do."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.uniform_(-(inputs**-0.5), inputs**-0.5, generator=generator)


def open_forget_gates(lstm: nn.LSTM, bias: float) -> None:
    """Add to the biases of the forget gates, the second quarter in torch.nn.LSTM's order."""
    with torch.no_grad():
        lstm.get_parameter("bias_ih_l0").chunk(4)[1].add_(bias)


def rescale(layer: PlasticRNN, config: Model) -> None:
    """Scale the layer's initial 0.01 N(0, 1) to the config's standard deviations."""
    with torch.no_grad():
        layer.w.mul_(config.w_init_std / 0.01)
        if layer.alpha is not None:
            layer.alpha.mul_(config.alpha_init_std / 0.01)


def make_optimizer(config: Optim, model: nn.Module) -> torch.optim.AdamW:
    """AdamW (fused; equal to Adam without weight decay), with the learning rates that w, and alpha and eta have."""
    own = {"w": "w"} | ({} if config.lr_alpha is None else {"alpha": "alpha", "eta": "alpha"})
    rates = {"": config.lr, "w": config.lr_w or config.lr, "alpha": config.lr_alpha}
    groups: list[dict[str, object]] = []
    for group, lr in rates.items():
        parameters = [p for name, p in model.named_parameters() if own.get(name.split(".")[-1], "") == group]
        if parameters:
            groups.append({"params": parameters, "lr": lr})
    betas = (0.9, config.beta2)
    return torch.optim.AdamW(groups, lr=config.lr, betas=betas, weight_decay=config.weight_decay, fused=True)
