"""Maps: features of pictures on a plane, and how often an agent visits each cell of a maze."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from numpy.typing import NDArray

from torchplastic.report.curves import Floats
from torchplastic.report.figures.samples import SHADES, by_kind
from torchplastic.report.figures.style import COLOURS, PAGE, new_figure
from torchplastic.report.sources import Samples

#: Markers of a map's classes; the next one is taken when all colours are used.
MARKERS = ("o", "^", "s", "D")


def feature_maps(samples: Samples) -> dict[str, dict[str, NDArray]]:
    """The arrays `map/NAME/points`, `labels` and `pictures`, by NAME; a NAME needs all three."""
    found: dict[str, dict[str, NDArray]] = {}
    for key, values in by_kind(samples, "map").items():
        name, _, part = key.rpartition("/")
        found.setdefault(name, {})[part] = values
    return {name: parts for name, parts in found.items() if parts.keys() >= {"points", "labels", "pictures"}}


def draw_map(points: Floats, labels: NDArray, pictures: Floats) -> Figure:
    """Draw points `[n, 2]`, coloured by label `[n]`, and the picture `[labels, h, w]` of each label at its mean."""
    figure = new_figure(PAGE * 0.75, PAGE * 0.62)
    axes = figure.add_subplot()
    for label, picture in enumerate(pictures):
        own = points[labels == label]
        colour, marker = COLOURS[label % len(COLOURS)], MARKERS[label // len(COLOURS) % len(MARKERS)]
        axes.scatter(own[:, 0], own[:, 1], s=14, alpha=0.65, linewidths=0, color=colour, marker=marker)
        image = OffsetImage(picture, zoom=0.6, cmap=SHADES, norm=Normalize(0, 1))
        frame = {"edgecolor": colour, "linewidth": 1.2}
        middle = (float(own[:, 0].mean()), float(own[:, 1].mean()))
        axes.add_artist(AnnotationBbox(image, middle, pad=0.1, bboxprops=frame))
    axes.set(xlabel="first direction", ylabel="second direction")
    axes.set_aspect("equal", adjustable="datalim")
    return figure


def draw_heat(shares: Mapping[str, Floats]) -> Figure:
    """Draw shares `[rows, columns]`, by name, side by side on one scale; nan is gray."""
    figure = new_figure(PAGE * 0.4 * len(shares), PAGE * 0.4)
    highest = max(float(np.nanmax(share)) for share in shares.values())
    every = figure.subplots(1, len(shares), squeeze=False)[0]
    for axes, (name, share) in zip(every, shares.items(), strict=True):
        axes.set_facecolor("#b0b0b0")
        image = axes.imshow(np.ma.masked_invalid(share), cmap="viridis", vmin=0, vmax=highest)
        axes.set(title=name, xlabel="column", ylabel="row")
        axes.grid(False)
        axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=list(every), shrink=0.8, pad=0.02)
    bar.set_label("share of all steps", fontsize=7.5)
    bar.outline.set_linewidth(0.5)
    return figure
