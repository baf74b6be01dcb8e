"""The one comparison with the reference: outputs, final state, and every gradient; needs no package but torch."""

from functools import partial

import torch

import torchplastic as tp
from torchplastic import PlasticState
from torchplastic.functional import plastic_scan
from torchplastic.ops.plastic_scan import dispatch
from torchplastic.ops.plastic_scan.spec import ScanSpec
from torchplastic.rules import get_rule

NAMES = ("drive", "w", "alpha", "eta", "hidden", "trace")
OUTPUTS = ("y", "final hidden", "final trace")
ALPHAS = ("full", "neuron", "shared", "none")
CLAMPS = ("free", "steps", "mixed", "all")
ETAS = ("number", "scalar", "neuron")
SIZES = ((1, 3, 5), (23, 1, 7), (23, 2, 301), (3, None, 4))  # T, B, N
LARGE = ((1, 500), (1, 1001), (4, 256), (1, 1100), (5, 600))  # B, N: in a GPU's registers, and beyond them

chunked = partial(plastic_scan, impl="chunked")
recurrent = partial(plastic_scan, impl="recurrent")
triton = partial(plastic_scan, impl="triton")


def scan_of(N, B=1, T=1, *, rule="hebb", alpha="full", clamped_steps=None, device="cpu", dtype=torch.float64, **more):
    """The description of a scan, as the list of implementations reads it."""
    steps = (False,) * T if clamped_steps is None else tuple(clamped_steps)
    return ScanSpec(len(steps), B, N, alpha, get_rule(rule), "tanh", steps, device, dtype, **more)


def runs_here(impl, spec=None):
    """Whether an implementation is there, and can run here."""
    return impl in dispatch.impls() and dispatch.runs(spec or scan_of(3), impl)


def compiled(backend):
    """Whether an implementation is compiled for the CPU."""
    return "compiled for the CPU" in backend.name


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
    results = dict(zip(OUTPUTS, (y, *final[:2]), strict=True))

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


def on(device, inputs):
    """The same inputs on a device."""
    return {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in inputs.items()}


def assert_float32_parity(inputs, *fast_forms, **options):
    """In float32 the error of every fast implementation is at most 4 times that of the reference, up to rounding.

    inputs: in float64, which tells the error.
    """
    reference = partial(plastic_scan, impl="reference")
    short = {name: value.float() if isinstance(value, torch.Tensor) else value for name, value in inputs.items()}
    exact, plain = evaluate(reference, inputs, **options), evaluate(reference, short, **options)
    for fast in fast_forms:
        for name, got in evaluate(fast, short, **options).items():
            want, loop = exact[name], plain[name]
            if want is None or loop is None:  # no gradient: zeros
                assert got is None or not got.any(), name
                continue
            error, of_loop = (got - want).abs().max(), (loop - want).abs().max()
            assert error <= 4 * of_loop + 4e-6 * want.abs().max(), f"{name}: off by {error:.1e}, the loop {of_loop:.1e}"


def assert_captured_parity(impl, device, N=40):
    """A captured training step (a CUDA graph on a GPU) gives the losses and weights of the step itself."""
    generator = torch.Generator().manual_seed(0)
    told = (True, True, False, False, False, True, False)
    shapes = (7, 2, N), (2, N)
    batches = [[torch.randn(shape, generator=generator).to(device) for shape in shapes] for _ in range(8)]
    clamp = torch.tensor(told, device=device).view(7, 1).expand(7, N)

    def learner():
        torch.manual_seed(0)
        rnn = tp.PlasticRNN(None, N, impl=impl, device=device)
        capturable = torch.device(device).type == "cuda"
        optimizer = torch.optim.Adam(rnn.parameters(), lr=1e-3, fused=True, capturable=capturable)

        def update(inputs, target):
            optimizer.zero_grad()
            y, _ = rnn(inputs, clamp=clamp, clamped_steps=told)
            loss = (y[-1] - target).square().sum()
            loss.backward()
            optimizer.step()
            return loss.detach()

        return rnn, update

    plain, update = learner()
    expected = [update(*batch) for batch in batches]
    captured, update = learner()
    step = tp.CapturedStep(update)
    losses = [step(*batch) for batch in batches]
    torch.testing.assert_close(torch.stack(losses), torch.stack(expected), rtol=1e-4, atol=1e-5)
    for name, weights in plain.state_dict().items():
        torch.testing.assert_close(captured.state_dict()[name], weights, rtol=1e-4, atol=1e-5)
