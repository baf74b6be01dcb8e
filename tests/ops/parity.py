"""The one comparison with the reference: outputs, final state, and every gradient, in float64."""

from functools import partial

import torch

from torchplastic import PlasticState
from torchplastic.functional import plastic_scan

NAMES = ("drive", "w", "alpha", "eta", "hidden", "trace")
OUTPUTS = ("y", "final hidden", "final trace")
ALPHAS = ("full", "neuron", "shared", "none")
CLAMPS = ("free", "steps", "mixed", "all")
ETAS = ("number", "scalar", "neuron")

chunked = partial(plastic_scan, impl="chunked")
stepwise = partial(plastic_scan, impl="stepwise")
triton = partial(plastic_scan, impl="triton")


def random_inputs(T, B, N, *, alpha="full", eta="scalar", seed=0, dtype=torch.float64):
    """Every input of a scan, B=None unbatched. Large enough that the trace matters, small enough not to saturate."""
    generator = torch.Generator().manual_seed(seed)
    lead = () if B is None else (B,)

    def normal(scale, *shape):
        return (scale * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)

    shape = {"full": (N, N), "neuron": (N,), "shared": (), "none": None}[alpha]
    rate = {"number": 0.3, "scalar": 0.3 + normal(0.05), "neuron": 0.3 + normal(0.1, N)}[eta]
    return {
        "drive": normal(0.7, T, *lead, N),
        "w": normal(0.7 / N**0.5, N, N),
        "alpha": None if shape is None else normal(0.7 / N**0.5, *shape),
        "eta": rate,
        "hidden": normal(0.5, *lead, N),
        "trace": None if shape is None else normal(0.5, *lead, N, N),
    }


def random_clamp(kind, T, B, N, seed=0):
    """A mask `[T, B, N]` (`[T, N]` unbatched): whole steps in runs, single neurons too, or everything; free is None."""
    generator = torch.Generator().manual_seed(seed)
    lead = () if B is None else (B,)
    steps = torch.rand(-(-T // 2), generator=generator).repeat_interleave(2)[:T] < 0.5
    mask = steps.view(T, *(1 for _ in lead), 1).expand(T, *lead, N)
    if kind == "mixed":
        mask = mask | (torch.rand(T, *lead, N, generator=generator) < 0.4)
    return None if kind == "free" else torch.ones_like(mask) if kind == "all" else mask


def evaluate(scan, inputs, *, grads=NAMES, through=OUTPUTS, **options):
    """Run a scan: its outputs, and the gradients of a random projection of those named in `through`."""
    leaves = {
        name: value.detach().clone().requires_grad_(name in grads) if isinstance(value, torch.Tensor) else value
        for name, value in inputs.items()
    }
    state = PlasticState(leaves["hidden"], leaves["trace"])
    y, final = scan(leaves["drive"], leaves["w"], leaves["alpha"], leaves["eta"], state, **options)
    results = dict(zip(OUTPUTS, (y, *final), strict=True))

    generator = torch.Generator().manual_seed(1)
    loss = torch.zeros((), dtype=torch.float64)
    for name, result in results.items():
        direction = torch.randn(() if result is None else result.shape, generator=generator, dtype=torch.float64)
        if name in through and result is not None:
            loss = loss + (direction.to(result.device) * result).sum().cpu()
    if loss.requires_grad:
        loss.backward()
    results |= {
        f"gradient of {name}": leaf.grad
        for name, leaf in leaves.items()
        if isinstance(leaf, torch.Tensor) and leaf.requires_grad
    }
    return {name: None if result is None else result.detach() for name, result in results.items()}


def assert_parity(inputs, *fast_forms, rtol=1e-9, **options):
    """Every fast implementation matches the reference up to rtol of the largest entry of each tensor.

    `options` go to `evaluate`. The reference may leave a gradient None, which counts as zeros; others may not.
    """
    expected = evaluate(partial(plastic_scan, impl="reference"), inputs, **options)
    for fast in fast_forms:
        for name, got in evaluate(fast, inputs, **options).items():
            want = expected[name]
            if name in OUTPUTS and want is None:
                assert got is None, name
                continue
            assert got is not None, f"{name} is None"
            want = torch.zeros_like(got) if want is None else want.to(got.dtype)
            assert got.shape == want.shape, name
            assert torch.isfinite(want).all(), name
            if not got.numel():
                continue
            error, scale = (got - want).abs().max(), want.abs().max()
            assert error <= rtol * scale + 1e-14, f"{name}: off by {error:.1e} at a scale of {scale:.1e}"
