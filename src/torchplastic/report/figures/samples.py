"""Figures of samples.npz: pictures, animations, matrices, the joint distribution of w and α, lines."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import Colormap, LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from torchplastic.report.curves import Floats
from torchplastic.report.figures.style import (
    COLOURS,
    COLUMN,
    FAINT,
    GREY,
    INK,
    PAGE,
    SIGNED,
    few_ticks,
    label_plainly,
    legend_below,
    line_style,
    new_figure,
)
from torchplastic.report.formatting import number, percent
from torchplastic.report.sources import Samples

#: Bits: an exact zero, a missing bit, has a separate colour instead of a grey between black and white.
BITS = LinearSegmentedColormap.from_list("bits", ["#101010", "#f0b429", "#ffffff"])
SHADES = LinearSegmentedColormap.from_list("shades", ["#000000", "#ffffff"])

#: Milliseconds per step of an animation: of activity, and of a path that the eye must follow.
STEP, COLOURED_STEP = 60, 120

#: Matrices up to this many neurons are drawn pixel by pixel.
LARGEST_WHOLE = 1100


def by_kind(samples: Samples, kind: str) -> dict[str, NDArray]:
    """The arrays whose keys begin with `kind/`, by the rest of the key, in sorted order."""
    return {key.partition("/")[2]: samples[key] for key in sorted(samples) if key.startswith(f"{kind}/")}


def picture_rows(samples: Samples) -> dict[str, dict[str, Floats]]:
    """The pictures `pictures/GROUP/NN LABEL`, by GROUP and LABEL; groups that begin with "before" come first."""
    rows: dict[str, dict[str, Floats]] = {}
    for key, picture in by_kind(samples, "pictures").items():
        group, _, name = key.rpartition("/")
        if picture.ndim == 2:
            order, _, label = name.partition(" ")
            rows.setdefault(group, {})[label if order.isdigit() and label else name] = np.asarray(picture, float)
    return dict(sorted(rows.items(), key=lambda row: not row[0].startswith("before")))


def verdict(row: Mapping[str, Floats]) -> str:
    """The error of a row's "answer" against its "target": wrong signs of bits, or the squared error of shades."""
    answer, target = row.get("answer"), row.get("target")
    if answer is None or target is None or answer.shape != target.shape:
        return ""
    if not _are_bits([target]):
        return f"squared error {number(float(np.sum((answer - target) ** 2)))}"
    wrong = int(np.sum(np.sign(answer) != target))
    return f"{wrong:,} of {target.size:,} wrong"


def shades(rows: Mapping[str, Mapping[str, Floats]]) -> tuple[float, float]:
    """The scale of the pictures: 0 to 1 if no picture but the answers is negative, otherwise −1 to 1."""
    targets = [picture for row in rows.values() for label, picture in row.items() if label != "answer"]
    return (0.0 if targets and min(float(picture.min()) for picture in targets) >= 0 else -1.0), 1.0


def animate(frames: NDArray) -> bytes:
    """A GIF of frames `[T, height, width]` from −1 black to 1 white, or of colour frames uint8 `[T, height, width, 3]`.

    Consecutive equal frames become one longer frame.
    """
    size = max(1, round(256 / max(frames.shape[1:3])))
    coloured = frames.ndim == 4
    shown = frames if coloured else np.clip((np.asarray(frames, float) + 1) * 127.5, 0, 255).round().astype(np.uint8)
    changes = [0, *(np.flatnonzero((shown[1:] != shown[:-1]).reshape(len(shown) - 1, -1).any(1)) + 1).tolist()]
    lengths = np.diff([*changes, len(shown)])
    pictures = [Image.fromarray(shown[t].repeat(size, 0).repeat(size, 1)) for t in changes]
    # Equal frames last half a second at most; the last frame lasts longer, so that it can be seen.
    durations = [min(500, (COLOURED_STEP if coloured else STEP) * int(length)) for length in lengths]
    durations[-1] += 1500
    file = io.BytesIO()
    pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0, optimize=False)
    return file.getvalue()


def draw_pictures(rows: Mapping[str, Mapping[str, Floats]]) -> Figure:
    """Draw a row of pictures for each group, all on one scale."""
    low, high = shades(rows)
    columns = max(len(row) for row in rows.values())
    pictures = [picture for row in rows.values() for picture in row.values()]
    colours = _colours(pictures)
    tallest = max(picture.shape[0] / picture.shape[1] for picture in pictures)
    # Sizes in inches, so that all pictures have the same size.
    gap, above, below, key = 0.1, 0.42, 0.2, 0.42
    side = min(1.3, (PAGE - 0.04 - gap * (columns - 1)) / columns)
    width = max(3.0, 0.04 + columns * (side + gap) - gap)
    height = len(rows) * (above + side * tallest + below) + key
    figure = Figure(figsize=(width, height))
    top = height
    for group, row in rows.items():
        figure.text(0.02 / width, (top - 0.13) / height, group, fontsize=8.5, fontweight="bold", va="center")
        bottom = top - above - side * tallest
        for column, (label, picture) in enumerate(row.items()):
            box = ((0.02 + column * (side + gap)) / width, bottom / height, side / width, side * tallest / height)
            axes = figure.add_axes(box, anchor="N")
            shown = axes.imshow(picture, cmap=colours, vmin=low, vmax=high)
            axes.set_title(label, fontsize=7.5, pad=3)
            axes.set_xlabel(verdict(row) if label == "answer" else "", fontsize=7)
            axes.set(xticks=[], yticks=[])
            axes.grid(False)
            axes.spines[:].set(visible=True, color=GREY, linewidth=0.5)
        top = bottom - below
    bar_axes = figure.add_axes((0.15 / width, 0.24 / height, 1.6 / width, 0.09 / height))
    bar = figure.colorbar(shown, cax=bar_axes, orientation="horizontal", ticks=sorted({low, 0, high}))
    bar.ax.set_xticklabels([*(["−1"] if low < 0 else []), "0 (missing)" if colours is BITS else "0", "1"], fontsize=7)
    bar.outline.set_linewidth(0.5)
    return figure


def draw_matrix(matrix: Floats, name: str) -> tuple[Figure, float, float]:
    """Draw a matrix `[pre, post]` with zero in white -> the figure, its dpi, the value at which the colours end.

    Colours end at the 99.5 % quantile of the magnitudes, so that a few large connections do not hide the others.
    """
    limit = float(np.quantile(np.abs(matrix), 0.995)) or float(np.max(np.abs(matrix))) or 1.0
    longest = max(matrix.shape)
    side, left, bottom, gap, bar_width, above = 2.16, 0.6, 0.42, 0.08, 0.09, 0.24
    # A matrix with few neurons on one side is drawn wider than its shape, to stay readable.
    height, width = (side * max(length / longest, 0.4) for length in matrix.shape)
    figure = Figure(figsize=(COLUMN, bottom + height + above))
    total_width, total_height = figure.get_size_inches()
    span = (bottom / total_height, height / total_height)
    axes = figure.add_axes((left / total_width, span[0], width / total_width, span[1]))
    small = longest <= LARGEST_WHOLE
    image = axes.imshow(
        matrix, cmap=SIGNED, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest" if small else "antialiased"
    )
    axes.set(xlabel="postsynaptic neuron", ylabel="presynaptic neuron", title=SYMBOLS.get(name, name))
    axes.grid(False)
    axes.spines[:].set_visible(True)
    for axis, inches in ((axes.xaxis, width), (axes.yaxis, height)):
        axis.set_major_locator(MaxNLocator(5 if inches > 1.5 else 3, integer=True))
    beyond = bool(np.any(np.abs(matrix) > limit))
    bar_axes = figure.add_axes(((left + width + gap) / total_width, span[0], bar_width / total_width, span[1]))
    bar = figure.colorbar(image, cax=bar_axes, extend="both" if beyond else "neither", extendfrac=0.03)
    bar.ax.tick_params(labelsize=7)
    bar.ax.yaxis.set_major_locator(MaxNLocator(5, symmetric=True))
    bar.outline.set_linewidth(0.5)
    # An integer number of dots per connection prevents moiré.
    return figure, math.ceil(300 * side / longest) * longest / side if small else 300.0, limit


@dataclass(frozen=True)
class SignAgreement:
    """Shares of all connections by the signs of w and α.

    quadrants: shares by (sign of w, sign of α), each 1 or −1.
    same, opposite, zero: shares with equal signs, with opposite signs, with w or α exactly zero; they sum to 1.
    correlation: Pearson's r of w and α; nan if one of them is constant.
    """

    quadrants: dict[tuple[int, int], float]
    same: float
    opposite: float
    zero: float
    correlation: float


def sign_agreement(w: Floats, alpha: Floats) -> SignAgreement:
    """How often the signs of w `[pre, post]` and α agree; the shape of α broadcasts to that of w."""
    alpha = np.broadcast_to(alpha, w.shape)
    signs = [(a, b) for a in (1, -1) for b in (1, -1)]
    quadrants = {(a, b): float(np.mean((np.sign(w) == a) & (np.sign(alpha) == b))) for a, b in signs}
    same, opposite = quadrants[1, 1] + quadrants[-1, -1], quadrants[1, -1] + quadrants[-1, 1]
    zero = float(np.mean((w == 0) | (alpha == 0)))
    varies = bool(np.ptp(w) > 0 and np.ptp(alpha) > 0)
    correlation = float(np.corrcoef(w.ravel(), alpha.ravel())[0, 1]) if varies else math.nan
    return SignAgreement(quadrants, same, opposite, zero, correlation)


def draw_joint(w: Floats, alpha: Floats) -> tuple[Figure, float]:
    """Draw the joint distribution of w and α over the connections -> the figure, the share outside its axes."""
    agreement = sign_agreement(w, alpha)
    x, y = w.ravel(), np.broadcast_to(alpha, w.shape).ravel()
    edges_x, edges_y = (_edges(values, 100 if w.size >= 100_000 else 50) for values in (x, y))
    counts, _, _ = np.histogram2d(x, y, bins=(edges_x, edges_y))
    figure = new_figure(COLUMN, 3.55)
    grid = figure.add_gridspec(2, 2, width_ratios=(4, 1), height_ratios=(1, 4), wspace=0.02, hspace=0.02)
    axes = figure.add_subplot(grid[1, 0])
    top, right = figure.add_subplot(grid[0, 0], sharex=axes), figure.add_subplot(grid[1, 1], sharey=axes)
    image = axes.imshow(
        np.ma.masked_equal(counts.T, 0), origin="lower", extent=(edges_x[0], edges_x[-1], edges_y[0], edges_y[-1]),
        aspect="auto", cmap="viridis_r", norm=LogNorm(1, max(2.0, float(counts.max()))),
    )  # fmt: skip
    axes.grid(False)
    axes.axhline(0, color=INK, linewidth=0.6)
    axes.axvline(0, color=INK, linewidth=0.6)
    for (a, b), share in agreement.quadrants.items():
        axes.text(
            0.97 if a > 0 else 0.03, 0.97 if b > 0 else 0.03, percent(share), transform=axes.transAxes, fontsize=8,
            ha="right" if a > 0 else "left", va="top" if b > 0 else "bottom", fontweight="bold",
            color=COLOURS[0] if a == b else COLOURS[1], bbox={"facecolor": "white", "alpha": 0.8, "pad": 1.5, "lw": 0},
        )  # fmt: skip
    axes.set(xlabel="fixed weight w", ylabel="plasticity coefficient α")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    corner = figure.add_subplot(grid[0, 1])
    corner.axis("off")
    for height, words, share, colour in (
        (0.95, "same sign", agreement.same, COLOURS[0]),
        (0.45, "opposite", agreement.opposite, COLOURS[1]),
    ):
        text = f"{words}\n{percent(share)}"
        corner.text(0.5, height, text, color=colour, fontsize=7, ha="center", va="top", fontweight="bold")
    top.stairs(counts.sum(1), edges_x, fill=True, color=GREY)
    right.stairs(counts.sum(0), edges_y, fill=True, color=GREY, orientation="horizontal")
    for side, which in ((top, "y"), (right, "x")):
        (side.set_yscale if which == "y" else side.set_xscale)("log")
        side.tick_params(labelbottom=False, labelleft=False, left=False, bottom=False, which="both")
        side.grid(False)
        side.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=[axes, right], orientation="horizontal", aspect=35, shrink=0.95, pad=0.02)
    bar.ax.xaxis.set_major_locator(FixedLocator(few_ticks(1, max(2.0, float(counts.max())))))
    label_plainly(bar.ax, "x")
    bar.set_label("connections per cell", fontsize=7.5)
    bar.outline.set_linewidth(0.5)
    bar.ax.tick_params(labelsize=7)
    return figure, 1 - float(counts.sum()) / x.size


def _edges(values: Floats, bins: int) -> Floats:
    """The edges of about `bins` bins over nearly all values; zero is an edge, so that each cell is in one quadrant."""
    low, high = (float(end) for end in np.quantile(values, (0.0005, 0.9995)))
    reach = max(high, -low) or 1.0
    # Leaves room on both sides of zero, so that quadrants with few connections are visible.
    low, high = min(low, -0.2 * reach), max(high, 0.2 * reach)
    width = (high - low) / bins
    return np.asarray(np.arange(math.floor(low / width), math.ceil(high / width) + 1) * width, float)


def line_groups(samples: Samples) -> dict[str, dict[str, Floats]]:
    """The arrays `line/NAME`, one per figure; the arrays `line/FIGURE/NAME` share a figure."""
    found: dict[str, dict[str, Floats]] = {}
    for key, values in by_kind(samples, "line").items():
        title, _, name = key.rpartition("/")
        if values.ndim == 1 and len(values):
            found.setdefault(title or name, {})[name] = np.asarray(values, float)
    return found


def draw_lines(title: str, lines: Mapping[str, Floats]) -> Figure:
    """Draw one-dimensional arrays against their index."""
    figure = new_figure(COLUMN, 1.8)
    axes = figure.add_subplot()
    for index, (name, values) in enumerate(lines.items()):
        few = {"marker": "o", "markersize": 3} if len(values) <= 30 else {}
        axes.plot(np.arange(len(values)), values, **line_style(index), **few, label=name)  # type: ignore[arg-type]
    axes.axhline(0, color=FAINT, linewidth=0.8, zorder=1)
    axes.set(xlabel="index", ylabel=title)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if len(lines) > 1:
        legend_below(figure, axes)
    return figure


SYMBOLS = {"w": "fixed weights w", "alpha": "plasticity coefficients α"}


def _are_bits(pictures: list[Floats]) -> bool:
    return all(bool(np.all(np.abs(picture) == 1)) for picture in pictures)


def _colours(pictures: list[Floats]) -> Colormap:
    # If one picture has only ±1, all are bits: cues and answers of bits have other values too.
    return BITS if any(_are_bits([picture]) for picture in pictures) else SHADES
