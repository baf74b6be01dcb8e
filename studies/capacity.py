"""How many patterns a trained plastic network holds, against a Hopfield network of its size.

Run: python studies/capacity.py RUN… [--patterns 5 10 20 40 80] [--episodes N] [--out FILE.json] [--figures FOLDER]

RUN is a run of `plastic train patterns`, plastic, without extra neurons. Each is measured on new episodes with another
number of patterns, with cues that lack more bits, and with cues of which some bits are wrong; the Hopfield network is
measured on the same episodes. docs/results/capacity.md is written from the results.

Axes: T time, B batch, P patterns, N neurons (bits, then the bias).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch import Tensor

from torchplastic.experiments import launch
from torchplastic.experiments.pattern_recall import RecallConfig
from torchplastic.report.figures.style import PAGE, Drawing, label_plainly, line_style, new_figure, render, style
from torchplastic.tasks.base import Episode
from torchplastic.tasks.patterns import Patterns
from torchplastic.train.evaluate import interval

HOPFIELD = "Hopfield network"
CUES = ((0.5, 0.0), (0.7, 0.0), (0.9, 0.0), (0.5, 0.1), (0.5, 0.2))  # share of missing bits, share of wrong bits
AT_ONCE = 5  # episodes


@dataclass
class Flags:
    """Measure how many patterns trained networks hold."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run directories of `plastic train patterns`."""
    patterns: tuple[int, ...] = (5, 10, 20, 40, 80)
    """Numbers of patterns to measure with."""
    episodes: int = 20
    """New episodes for each measurement."""
    out: Path = Path("capacity.json")
    """Where the results are written."""
    figures: Path | None = None
    """Folder of the figure; default: none is drawn."""


def with_wrong_bits(episode: Episode, task: Patterns, share: float, generator: torch.Generator) -> Episode:
    """The same episode with this share of the cue's shown bits turned around."""
    cue = episode.info["cue"]
    shown = cue != 0
    wrong = shown & (torch.rand(cue.shape, generator=generator) < share)
    inputs = episode.inputs.clone()
    inputs[-task.test :, :, : task.bits] = torch.where(wrong, -cue, cue)
    return episode._replace(inputs=inputs)


def hopfield(episode: Episode, task: Patterns) -> Tensor:
    """A Hopfield network of one neuron per bit: its answer `[B, bits]` after as many steps as the test has.

    w = sum of p p' / bits over the patterns, diagonal zero (Hopfield 1982). All neurons start at the cue, with zero
    for a missing bit, and change at once to the sign of their input; the cue's bits are clamped, as in the task.
    """
    patterns = episode.info["patterns"]
    w = patterns.mT @ patterns / task.bits
    w.diagonal(dim1=1, dim2=2).zero_()
    cue = episode.inputs[-1, :, : task.bits]
    y = cue
    for _ in range(task.test):
        y = torch.where(cue != 0, cue, (y.unsqueeze(1) @ w).squeeze(1).sign())
    return y


@torch.no_grad()
def wrong_among_missing(
    answer: Callable[[Episode, Patterns], Tensor], task: Patterns, wrong: float, episodes: int
) -> dict[str, Any]:
    """The share of wrong bits among those that the cue lacks (chance: 0.5), with its interval over episodes."""
    stream, found = torch.Generator().manual_seed(7), list[Tensor]()
    for start in range(0, episodes, AT_ONCE):
        drawn = task.episodes(min(AT_ONCE, episodes - start), stream)
        episode = with_wrong_bits(drawn, task, wrong, stream)
        missing = episode.info["cue"] == 0
        bad = (answer(episode, task)[:, : task.bits] * episode.target <= 0) & missing
        found.append(bad.sum(-1) / missing.sum(-1))
    return interval(torch.cat(found))


def study(name: str, answer: Callable[[Episode, Patterns], Tensor], task: Patterns, flags: Flags) -> dict[str, Any]:
    """One network at every number of patterns and every kind of cue."""
    rows = []
    for patterns in flags.patterns:
        for hidden, wrong in CUES:
            now = replace(task, patterns=patterns, hidden=hidden)
            found = wrong_among_missing(answer, now, wrong, flags.episodes)
            rows.append({"patterns": patterns, "missing": hidden, "wrong": wrong, **found})
            print(f"{name}  {patterns} patterns, missing {hidden}, wrong {wrong}: {found['mean']:.4f}", flush=True)
    return {"network": name, "rows": rows}


def draw(results: list[dict[str, Any]], folder: Path) -> None:
    """Wrong bits by the number of patterns, a panel for each kind of cue."""
    folder.mkdir(parents=True, exist_ok=True)
    with style():
        figure = new_figure(PAGE, 2.6)
        for ax, (missing, wrong) in zip(figure.subplots(1, len(CUES), sharey=True), CUES, strict=True):
            for index, found in enumerate(results):
                rows = [row for row in found["rows"] if (row["missing"], row["wrong"]) == (missing, wrong)]
                points = [(row["patterns"], row["mean"]) for row in rows]
                ax.plot(
                    *zip(*points, strict=True), marker="o", markersize=3, label=found["network"], **line_style(index)
                )
            title = f"{100 * missing:.0f} % missing" + (f"\n{100 * wrong:.0f} % wrong" if wrong else "")
            ax.set(xscale="log", title=title, xlabel="patterns", xticks=[row["patterns"] for row in rows])
            label_plainly(ax, "x")
        figure.axes[0].set_ylabel("wrong among missing")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
        png, _ = render(Drawing("capacity", figure, ""))
    (folder / "capacity.png").write_bytes(png)


def main() -> None:
    """Measure every run and the Hopfield network, write the results, and draw them."""
    flags = tyro.cli(Flags)
    results, task = [], Patterns()
    for path in flags.runs:
        config, model = launch.load(path)[1:]
        if not isinstance(config, RecallConfig) or config.task.extra or config.task.input != "clamped":
            raise ValueError(f"{path} is no run of patterns with clamped input and without extra neurons.")

        def answer(episode: Episode, _: Patterns, model: torch.nn.Module = model) -> Tensor:
            return episode.answer(model)

        task = config.task
        name = f"trained on {task.patterns}, seed {config.seed}{', eta learned' if config.model.learn_eta else ''}"
        results.append(study(name, answer, task, flags))
    results.append(study(HOPFIELD, hopfield, task, flags))
    flags.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if flags.figures is not None:
        draw(results, flags.figures)


if __name__ == "__main__":
    main()
