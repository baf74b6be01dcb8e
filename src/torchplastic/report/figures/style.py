"""The style that all figures share, and how they become PNG and SVG."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from PIL import Image

#: Width in inches of a figure in one column, and of one across an A4 page.
COLUMN, PAGE = 3.5, 7.0

#: Okabe and Ito's colours, distinct to colour-blind readers, without yellow, which is too faint on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5)))
INK, GREY, FAINT = "#1a1a1a", "#5a5a5a", "#d9d9d9"

#: The colour map of signed matrices.
SIGNED = "RdBu_r"

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "axes.linewidth": 0.7,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.minor.width": 0.5,
    "ytick.minor.width": 0.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8e8e8",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "image.interpolation": "nearest",
    "svg.fonttype": "path",
    # Makes the SVG a function of the data.
    "svg.hashsalt": "torchplastic",
}


@dataclass
class Drawing:
    """A figure and its caption.

    name: file name without suffix.
    figure: the figure itself.
    caption: sentences for the reader; also the alternative text.
    wide: whether it has the full width of the page.
    raster: whether the page shows the PNG, with fewer colours; for a signed matrix, whose SVG is no sharper.
    dpi: resolution of the PNG, and of images inside the SVG.
    """

    name: str
    figure: Figure
    caption: str
    wide: bool = False
    raster: bool = False
    dpi: float = 300


@dataclass
class Animation:
    """An animation and its caption.

    name: file name without suffix.
    gif: the file.
    caption: sentences for the reader; also the alternative text.
    """

    name: str
    gif: bytes
    caption: str


@contextmanager
def style() -> Iterator[None]:
    """A context in which figures are drawn and rendered in the common style; it restores global settings."""
    with matplotlib.rc_context(STYLE):
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, with constrained layout."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03)  # type: ignore[union-attr, call-arg]
    return figure


def render(drawing: Drawing) -> tuple[bytes, bytes]:
    """The drawing as PNG and as SVG."""
    png, svg = io.BytesIO(), io.BytesIO()
    with style():
        drawing.figure.savefig(png, format="png", dpi=drawing.dpi, metadata={"Software": None})
        drawing.figure.savefig(svg, format="svg", dpi=drawing.dpi, metadata={"Date": None, "Creator": None})
    return _palette(png) if drawing.raster else png.getvalue(), svg.getvalue()


def _palette(png: io.BytesIO) -> bytes:
    # The colours of a signed matrix, and greys for the text: looks the same at a third of the size.
    colours = [*matplotlib.colormaps[SIGNED](np.linspace(0, 1, 216)), *((g, g, g, 1) for g in np.linspace(0, 1, 40))]
    palette = Image.new("P", (1, 1))
    palette.putpalette([round(255 * part) for colour in colours for part in colour[:3]])
    smaller = io.BytesIO()
    with Image.open(png) as image:
        few = image.convert("RGB").quantize(palette=palette, dither=Image.Dither.NONE)
        few.save(smaller, "PNG", optimize=True, dpi=image.info.get("dpi"))
    return smaller.getvalue()


def line_style(index: int) -> dict[str, Any]:
    """Colour and dashes of the group with this index; the pairs stay distinct when colours repeat."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index % len(DASHES)]}


def legend_below(figure: Figure, axes: Axes) -> None:
    """Put a legend of all labelled lines below the axes, where it hides no data; the figure becomes higher."""
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    rows = sum(label.count("\n") + 1 for label in labels)
    figure.set_figheight(figure.get_figheight() + 0.155 * rows + 0.05)
    figure.legend(handles, labels, loc="outside lower left", ncols=1, borderpad=0.1, labelspacing=0.35)


def plain(value: float) -> str:
    """A tick label: `0.01`, `1024`, `50k`, `1M`; in full unless a unit makes it shorter."""
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= 1e4 and abs(value) >= unit and (value / unit * 10).is_integer():
            return f"{value / unit:g}{letter}".replace("-", "−")
    return f"{value:.7g}".replace("-", "−")


def few_ticks(low: float, high: float) -> list[float]:
    """Ticks of a logarithmic axis from low to high: powers of ten, or 1, 2, 5, … if these are too few."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 200 else (1,)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    return [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]


def label_plainly(axes: Axes, which: str) -> None:
    """Label the axis `which` ("x" or "y") with plain numbers instead of powers of ten."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    axis.set_minor_formatter(NullFormatter())
