"""Build the network and the optimiser of a config; all randomness derives from its seed.

Axes: N neurons.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from torchplastic import LSTM, PlasticRNN
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


def lstm_training_bytes(T: int, B: int, inputs: int, cells: int) -> int:
    """Bytes of weights, gradients, Adam and the activations of T steps, in float32."""
    weights = 4 * cells * (inputs + cells + 2)
    return 4 * (4 * weights + 8 * T * B * cells)


def make_network(config: Model, seed: int, neurons: int, *, lstm_cells: int, clamped_inputs: int) -> nn.Module:
    """A network with one input unit per neuron (LSTM: `lstm_cells` cells), initialised from the seed."""
    stream = generator(seed, "initialisation")
    if config.kind == "lstm":
        lstm = BitLSTM(neurons, lstm_cells, clamped_inputs=clamped_inputs if config.clamped else 0)
        lstm.reset_parameters(stream)
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


def rescale(layer: PlasticRNN, config: Model) -> None:
    """Scale the layer's initial 0.01 N(0, 1) to the config's standard deviations."""
    with torch.no_grad():
        layer.w.mul_(config.w_init_std / 0.01)
        if layer.alpha is not None:
            layer.alpha.mul_(config.alpha_init_std / 0.01)


def make_optimizer(config: Optim, model: nn.Module) -> torch.optim.AdamW:
    """AdamW (fused; equal to Adam without weight decay), with a separate learning rate for w if the config has one."""
    groups: list[dict[str, object]] = []
    for lr, chosen in ((config.lr, False), (config.lr_w or config.lr, True)):
        parameters = [p for name, p in model.named_parameters() if (name.split(".")[-1] == "w") == chosen]
        if parameters:
            groups.append({"params": parameters, "lr": lr})
    betas = (0.9, config.beta2)
    return torch.optim.AdamW(groups, lr=config.lr, betas=betas, weight_decay=config.weight_decay, fused=True)
