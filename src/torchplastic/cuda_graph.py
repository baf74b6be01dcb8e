"""Replay a training step as one CUDA graph, so that kernel launches cost no time in Python or the driver."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

CAPTURED_ON = "cuda"
MOST = 16  # graphs per step; each keeps the memory of a whole training step


class CapturedStep:
    """Replay a training step as one CUDA graph: forward, backward and optimiser without a launch from Python.

    The first `warmup` calls with tensors of given shapes run `update` itself, the next call captures it, and later
    calls copy their tensors into the captured inputs and replay the graph. Other shapes, or other values of arguments
    that are no tensors (such as `clamped_steps`), get a graph of their own; after 16 graphs, new ones run uncaptured.
    On a CPU every call runs `update` itself.

    `update` must not read values back to the host (`.item()`, `print`, a mask without `clamped_steps`). Parameters and
    everything else that is not an argument may change only in place: a learning rate that changes must be a tensor, and
    the optimiser needs `capturable=True`. Free other autograd graphs of the same parameters before a capture.

    Args:
        update: a function whose arguments and results are tensors, or tuples, lists and dicts of them.
        warmup: calls before the capture, at least 1, so that all memory is allocated before it.

    Raises:
        ValueError: a warmup below 1.
        RuntimeError: from CUDA, if `update` does something that a graph cannot capture.

    Examples:
        >>> rnn = tp.PlasticRNN(8, 32)
        >>> optimizer = torch.optim.Adam(rnn.parameters())
        >>> def update(inputs, target):
        ...     optimizer.zero_grad()
        ...     y, _ = rnn(inputs)
        ...     loss = (y[-1] - target).square().sum()
        ...     loss.backward()
        ...     optimizer.step()
        ...     return loss
        >>> step = tp.CapturedStep(update)
        >>> loss = step(torch.randn(10, 4, 8), torch.zeros(4, 32))  # every call is an update
    """

    def __init__(self, update: Callable[..., Any], warmup: int = 3) -> None:
        if warmup < 1:
            raise ValueError(f"CapturedStep: warmup must be at least 1; got {warmup}.")
        self.update, self.warmup = update, warmup
        self._calls: dict[Any, int] = {}
        self._graphs: dict[Any, Graph] = {}

    def __call__(self, *arguments: Any) -> Any:
        """Run the step: captured if a graph exists for these shapes.

        Args:
            *arguments: the arguments of `update`.

        Returns:
            The result of `update`, on CUDA detached from the autograd graph; results of a replay are copies.

        Examples:
            >>> tp.CapturedStep(lambda x: 2 * x)(torch.ones(2))
            tensor([2., 2.])
        """
        leaves, spec = tree_flatten(arguments)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if not tensors or tensors[0].device.type != CAPTURED_ON:
            return self.update(*arguments)
        others = tuple(Tensor if isinstance(leaf, Tensor) else leaf for leaf in leaves)
        key = (spec, others, tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in tensors))
        if key in self._graphs:
            return self._graphs[key](tensors)
        self._calls[key] = self._calls.get(key, 0) + 1
        copies = [tensor.detach().clone() for tensor in tensors]  # in warm-up too, for the alignment of the capture
        remaining = iter(copies)
        inputs = tree_unflatten([next(remaining) if isinstance(leaf, Tensor) else leaf for leaf in leaves], spec)
        if self._calls[key] <= self.warmup or len(self._graphs) >= MOST:
            with aside():
                return detached(self.update(*inputs))
        self._graphs[key] = Graph(lambda: self.update(*inputs), copies)
        return self._graphs[key](tensors)


class Graph:
    """One captured call and its input tensors."""

    def __init__(self, function: Callable[[], Any], inputs: list[Tensor]) -> None:
        self.inputs = inputs
        self.replay = capture(function)

    def __call__(self, tensors: list[Tensor]) -> Any:
        for captured, tensor in zip(self.inputs, tensors, strict=True):
            captured.copy_(tensor.detach(), non_blocking=True)
        return tree_map(lambda output: output.clone() if isinstance(output, Tensor) else output, self.replay())


def detached(outputs: Any) -> Any:
    """Cut tensors from their autograd graph, whose streams would disturb a later capture."""
    return tree_map(lambda output: output.detach() if isinstance(output, Tensor) else output, outputs)


def capture(function: Callable[[], Any]) -> Callable[[], Any]:
    """Capture a call without running it. The returned function runs it, and returns the same tensors, filled anew."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(graph):  # restores the stream on errors too
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
            warnings.filterwarnings("ignore", "This instance was constructed with capturable=True")  # intended
            yield
    finally:
        torch.cuda.current_stream().wait_stream(stream)


def aside() -> AbstractContextManager[None]:
    """Run on a separate stream, as CUDA requires before a capture."""
    return _side_stream()
