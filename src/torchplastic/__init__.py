"""Differentiable plasticity for PyTorch: networks that learn how to learn."""

from torchplastic import functional
from torchplastic.cuda_graph import CapturedStep
from torchplastic.nn.classifier import PlasticClassifier
from torchplastic.nn.linear import PlasticLinear
from torchplastic.nn.lstm import LSTM
from torchplastic.nn.rnn import PlasticRNN, PlasticRNNCell
from torchplastic.rules import RULES, Rule
from torchplastic.state import LSTMState, PlasticState
from torchplastic.weights import pretrained

__version__ = "0.1.0"

__all__ = [
    "LSTM",
    "RULES",
    "CapturedStep",
    "LSTMState",
    "PlasticClassifier",
    "PlasticLinear",
    "PlasticRNN",
    "PlasticRNNCell",
    "PlasticState",
    "Rule",
    "functional",
    "pretrained",
]
