"""Differentiable plasticity for PyTorch: networks that learn how to learn.

Public names are imported at first use, so that `plastic --help` does not wait for PyTorch.
"""

TYPE_CHECKING = False  # type checkers assume True; importing typing would take longer
if TYPE_CHECKING:
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

_MODULES = {  # the module of each name; a test compares it with the imports above
    "LSTM": "nn.lstm",
    "RULES": "rules",
    "CapturedStep": "cuda_graph",
    "LSTMState": "state",
    "PlasticClassifier": "nn.classifier",
    "PlasticLinear": "nn.linear",
    "PlasticRNN": "nn.rnn",
    "PlasticRNNCell": "nn.rnn",
    "PlasticState": "state",
    "Rule": "rules",
    "functional": "functional",
    "pretrained": "weights",
}


if not TYPE_CHECKING:  # with __getattr__, a type checker would accept any name

    def __getattr__(name):
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        module = import_module(f"{__name__}.{_MODULES[name]}")
        value = module if name == "functional" else getattr(module, name)
        globals()[name] = value  # later look-ups bypass this function
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
