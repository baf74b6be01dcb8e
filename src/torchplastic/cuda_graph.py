"""A training step as one CUDA graph: what Python and the driver spend on each launch is spent once."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

CAPTURED_ON = "cuda"
MOST = 16  # graphs of one step: each holds the memory of a whole step for itself


class CapturedStep:
    """A function of tensors that a CUDA graph replays: forward, backward and optimiser without a launch from Python.

        def update(inputs, target):
            optimizer.zero_grad()
            y, _ = rnn(inputs)
            loss = (y[-1] - target).square().sum()
            loss.backward()
            optimizer.step()
            return loss

        step = CapturedStep(update)
        loss = step(inputs, target)  # every call is an update

    The first `warmup` calls with tensors of some shapes run as they are, the next is captured, and those after it copy
    their tensors into the captured one's and replay it. Other shapes, or other values beside tensors (such as
    `clamped_steps`), are captured apart; after 16 graphs, what is new runs as it is. On a CPU every call does.

    Args:
        update: a function of tensors, also nested in tuples, lists and dicts, that returns such. It reads nothing back
            to the host (`.item()`, `print`, a mask without `clamped_steps`). Parameters, and whatever else it reads
            that is no argument, may change in place alone; a learning rate that changes has to be a tensor, and the
            optimiser `capturable=True`. What it returns comes without gradient. No other result of the
            same parameters may be alive with its graph.
        warmup: calls before a graph is made.

    Raises:
        ValueError: a warmup below 1, because what is allocated once must be there before.
        RuntimeError: from CUDA, where `update` does what a graph cannot hold.
    """

    def __init__(self, update: Callable[..., Any], warmup: int = 3) -> None:
        if warmup < 1:
            raise ValueError(f"CapturedStep: warmup must be at least 1; got {warmup}.")
        self.update, self.warmup = update, warmup
        self._calls: dict[Any, int] = {}
        self._graphs: dict[Any, Graph] = {}

    def __call__(self, *arguments: Any) -> Any:
        """What `update` returns for these arguments, copies where a graph made it."""
        leaves, spec = tree_flatten(arguments)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if not tensors or tensors[0].device.type != CAPTURED_ON:
            return self.update(*arguments)
        others = tuple(Tensor if isinstance(leaf, Tensor) else leaf for leaf in leaves)
        key = (spec, others, tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in tensors))
        if key in self._graphs:
            return self._graphs[key](tensors)
        self._calls[key] = self._calls.get(key, 0) + 1
        places = [tensor.detach().clone() for tensor in tensors]  # also when warming up: aligned as they then will be
        filled = iter(places)
        given = tree_unflatten([next(filled) if isinstance(leaf, Tensor) else leaf for leaf in leaves], spec)
        if self._calls[key] <= self.warmup or len(self._graphs) >= MOST:
            with aside():
                return detached(self.update(*given))
        self._graphs[key] = Graph(lambda: self.update(*given), places)
        return self._graphs[key](tensors)


class Graph:
    """One captured call, and the places of its inputs."""

    def __init__(self, function: Callable[[], Any], places: list[Tensor]) -> None:
        self.places = places
        self.replay = capture(function)

    def __call__(self, tensors: list[Tensor]) -> Any:
        for place, tensor in zip(self.places, tensors, strict=True):
            place.copy_(tensor.detach(), non_blocking=True)
        return tree_map(lambda output: output.clone() if isinstance(output, Tensor) else output, self.replay())


def detached(outputs: Any) -> Any:
    """The same tensors without the autograd graph behind them, whose streams a later capture would meet."""
    return tree_map(lambda output: output.detach() if isinstance(output, Tensor) else output, outputs)


def capture(function: Callable[[], Any]) -> Callable[[], Any]:
    """Record a call without making it -> what makes it, and gives the same tensors each time, filled anew."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(graph):  # the stream comes back on errors too
        outputs = detached(function())

    def replay() -> Any:
        graph.replay()
        return outputs

    return replay


@contextmanager
def _side_stream() -> Any:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    try:
        with torch.cuda.stream(stream), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This instance was constructed with capturable=True")  # as is meant
            yield
    finally:
        torch.cuda.current_stream().wait_stream(stream)


def aside() -> AbstractContextManager[None]:
    """Work on a stream of its own, as CUDA wants of what is captured later."""
    return _side_stream()
