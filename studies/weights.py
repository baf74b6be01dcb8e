"""What alpha and w do: how they are distributed, and what the error is when they are changed.

Run: python studies/weights.py RUN… [--episodes N] [--data-dir DIR] [--out FILE.json] [--figures FOLDER]

RUN is a run directory of `plastic train` with one alpha per connection. The results of all runs go into one file;
docs/results/weights.md is written from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from torch import Tensor, nn

from torchplastic.experiments import launch
from torchplastic.experiments.build import generator
from torchplastic.experiments.images import ImagesConfig
from torchplastic.report.figures.style import COLOURS, GREY, PAGE, Drawing, label_plainly, new_figure, render, style

RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
SHUFFLES = 5
BINS = 81  # of the joint histogram, each way


@dataclass
class Flags:
    """Study the weights of trained runs."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run directories with one alpha per connection."""
    episodes: int = 200
    """New episodes for each change; the same ones for all changes of a run."""
    data_dir: Path | None = None
    """Folder of the data sets; default: the one in the run's config."""
    out: Path = Path("weights.json")
    """Where the results are written."""
    figures: Path | None = None
    """Folder of the figures; default: none are drawn."""


def plastic_layer(model: nn.Module) -> nn.Module:
    """The layer with one alpha per connection. ValueError if there is none."""
    for module in model.modules():
        if isinstance(alpha := getattr(module, "alpha", None), Tensor) and alpha.dim() == 2:
            return module
    raise ValueError("the run has no alpha per connection; train it with --model.alpha full.")


# --- how they are distributed


def joint(w: Tensor, alpha: Tensor) -> dict[str, float]:
    """Spread of w and alpha over connections, and how they go together; `[pre, post]` each."""
    w, alpha = w.flatten().double(), alpha.flatten().double()
    both = torch.stack([w, alpha])
    return {
        "connections": w.numel(),
        "w_std": w.std().item(),
        "alpha_std": alpha.std().item(),
        "w_mean": w.mean().item(),
        "alpha_mean": alpha.mean().item(),
        "alpha_above_0": (alpha > 0).double().mean().item(),
        "correlation": torch.corrcoef(both)[0, 1].item(),
        "correlation_of_magnitudes": torch.corrcoef(both.abs())[0, 1].item(),
        "equal_sign": (w * alpha > 0).double().mean().item(),
    }


def explained(matrix: Tensor, side: int) -> float:
    """The share of a matrix's variance that pixel distance and half-field explain.

    matrix: `[pre, post]` over the pixels of a square picture, row by row. Its entries are put into cells by their
    distance in pixels, rounded, and by the halves (top, bottom) of both; the share is that of the cells' means.
    """
    pixels = torch.arange(side * side)
    row, column = pixels // side, pixels % side
    distance = torch.hypot(*(each.unsqueeze(1).sub(each).double() for each in (row, column))).round().long()
    half = (row >= side // 2).long()
    cell = (distance * 4 + half.unsqueeze(1) * 2 + half).flatten()
    values = matrix.flatten().double()
    counts = cell.bincount()
    means = cell.bincount(values) / counts.clamp_min(1)
    return ((means[cell] - values.mean()).square().mean() / values.var(correction=0)).item()


def structure(w: Tensor, alpha: Tensor, side: int, stream: torch.Generator) -> dict[str, Any]:
    """What pixel distance and half-field explain of alpha and w, and of shuffled ones."""
    pixels = side * side
    found: dict[str, Any] = {}
    for name, whole in (("alpha", alpha), ("w", w)):
        matrix = whole[:pixels, :pixels]
        found[name] = explained(matrix, side)
        found[f"{name}_shuffled"] = [explained(shuffled(matrix, stream), side) for _ in range(SHUFFLES)]
    return found


# --- what a change does


def shuffled(matrix: Tensor, stream: torch.Generator) -> Tensor:
    """The same entries in a random order."""
    return matrix.flatten()[torch.randperm(matrix.numel(), generator=stream)].view_as(matrix)


def changes(w: Tensor, alpha: Tensor, stream: torch.Generator) -> Iterator[tuple[str, Tensor, Tensor]]:
    """The name of each change, with w and alpha after it."""
    yield "as trained", w, alpha
    yield "alpha shuffled", w, shuffled(alpha, stream)
    yield "alpha its mean", w, torch.full_like(alpha, alpha.mean().item())
    yield "alpha its root mean square", w, torch.full_like(alpha, alpha.square().mean().sqrt().item())
    yield "alpha zero", w, torch.zeros_like(alpha)
    yield "w shuffled", shuffled(w, stream), alpha
    yield "w zero", torch.zeros_like(w), alpha
    u, s, v = torch.linalg.svd(alpha.double(), full_matrices=False)
    for rank in (rank for rank in RANKS if rank < min(alpha.shape)):
        yield f"alpha of rank {rank}", w, ((u[:, :rank] * s[:rank]) @ v[:rank]).to(alpha.dtype)


def measured(result: dict[str, Any]) -> dict[str, Any]:
    """Name, mean and interval of what an evaluation measures, and the median, where there is one."""
    name = next(name for name in ("error", "accuracy", "reward") if name in result)
    return {"measure": name} | {key: result[name][key] for key in ("mean", "ci95", "median") if key in result[name]}


@torch.no_grad()
def study(path: Path, flags: Flags) -> dict[str, Any]:
    """All of the above for one run."""
    trained = launch.load(path, flags.data_dir)
    config, model = trained.config, trained.model
    layer = plastic_layer(model)
    w, alpha = layer.get_parameter("w"), layer.get_parameter("alpha")
    first = w.clone(), alpha.clone()
    stream = torch.Generator().manual_seed(0)
    found: dict[str, Any] = {
        "experiment": config.experiment, "preset": config.preset, "seed": config.seed, "episodes": flags.episodes,
        "joint": joint(w, alpha), "changes": {},
    }  # fmt: skip
    if isinstance(config, ImagesConfig):
        found["explained"] = structure(*first, config.task.side, stream)
    for name, w_now, alpha_now in changes(*first, stream):
        w.copy_(w_now)
        alpha.copy_(alpha_now)
        result = trained.experiment.evaluate(config, model, flags.episodes, generator(config.seed, "evaluation"))
        found["changes"][name] = measured(result)
        print(f"{config.experiment} seed {config.seed}  {name}: {found['changes'][name]['mean']:.4g}", flush=True)
    found["histogram"] = histogram(*first)
    return found


def histogram(w: Tensor, alpha: Tensor) -> dict[str, Any]:
    """Counts of connections by w (rows) and alpha (columns); the edges are at three standard deviations."""
    x, y = (each.flatten().double().numpy() for each in (w, alpha))
    edges = [np.linspace(-3, 3, BINS + 1) * values.std() + values.mean() for values in (x, y)]
    counts, _, _ = np.histogram2d(x, y, edges)
    return {"w": edges[0][[0, -1]].tolist(), "alpha": edges[1][[0, -1]].tolist(), "counts": counts.astype(int).tolist()}


# --- figures


def draw(results: list[dict[str, Any]], folder: Path) -> None:
    """The joint distributions, and the measure by the rank of alpha; the first run of each experiment."""
    folder.mkdir(parents=True, exist_ok=True)
    once: dict[str, dict[str, Any]] = {}
    for found in results:
        once.setdefault(found["experiment"], found)
    for name, panel in (("weights-joint", joint_panel), ("weights-rank", rank_panel)):
        with style():
            figure = new_figure(PAGE, 1.9)
            for ax, found in zip(figure.subplots(1, len(once), squeeze=False)[0], once.values(), strict=True):
                panel(ax, found)
            png, _ = render(Drawing(name, figure, ""))
        (folder / f"{name}.png").write_bytes(png)


def joint_panel(ax: Axes, found: dict[str, Any]) -> None:
    """Connections by w and alpha, in logarithmic colours."""
    of = found["histogram"]
    counts = np.array(of["counts"], float).T
    ax.imshow(
        np.where(counts > 0, counts, np.nan), origin="lower", aspect="auto", cmap="viridis", norm=LogNorm(),
        extent=(*of["w"], *of["alpha"]), interpolation="nearest",
    )  # fmt: skip
    ax.set(title=found["experiment"], xlabel="w", ylabel="alpha")
    ax.grid(visible=False)


def rank_panel(ax: Axes, found: dict[str, Any]) -> None:
    """The measure by the rank of alpha; lines: as trained (solid), without alpha (dashed)."""
    changed = found["changes"]
    key = "median" if "median" in changed["as trained"] else "mean"
    by_rank = [(int(name.split()[-1]), of[key]) for name, of in changed.items() if name.startswith("alpha of rank")]
    ax.plot(*zip(*by_rank, strict=True), color=COLOURS[0], marker="o", markersize=3)
    for name, dashes in (("as trained", "-"), ("alpha zero", (0, (5, 2)))):
        ax.axhline(changed[name][key], color=GREY, linewidth=0.8, linestyle=dashes)
    ax.set(xscale="log", title=found["experiment"], xlabel="rank of alpha", ylabel=changed["as trained"]["measure"])
    label_plainly(ax, "x")


def main() -> None:
    """Study every run, write the results, and draw them."""
    flags = tyro.cli(Flags)
    results = [study(path, flags) for path in flags.runs]
    flags.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if flags.figures is not None:
        draw(results, flags.figures)


if __name__ == "__main__":
    main()
