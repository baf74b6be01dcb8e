"""The page: one self-contained HTML file, and how it and its figures are written."""

from __future__ import annotations

import base64
import logging
import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

import jinja2

from torchplastic.report.figures.style import Animation, Drawing, render, style
from torchplastic.report.reading import Sources, read_sources
from torchplastic.report.sections import Part, sections

LOG = logging.getLogger("torchplastic")
GENERATOR = b'<meta name="generator" content="torchplastic">'  # in the head of every page

Rendered = dict[str, tuple[Drawing, bytes, bytes]]


def make_report(paths: Sequence[Path], out: Path | None = None) -> Path:
    """Draw runs, sweeps and bench files, in any mixture, on one self-contained page.

    paths: run directories, sweep directories (with `seed-*` runs in them) or bench JSON files.
    out: a new or empty directory, or one with an earlier report, which is drawn again. Default: RUN/report or
        SWEEP/report for a single run or sweep, or else `runs/reports/DATE-TIME`, a new one each time.

    Returns the path of the page, OUT/index.html; the figures lie as PNG and SVG in OUT/figures. Everything is drawn
    before anything is written, and the page is written last and at once.

    Raises ValueError, in one line, for no path, for a path that is no run directory, sweep or bench file, for files
    in it that cannot be read, and for an `out` that holds something else already.
    """
    paths = [Path(path) for path in paths]
    if not paths:
        raise ValueError("a report needs at least one run directory, sweep or bench file.")
    own = paths[0] / "report" if len(paths) == 1 and paths[0].is_dir() else None
    again = out is None or (own is not None and Path(out).resolve() == own.resolve()) or _holds_report(Path(out))
    if out is not None and not again and (Path(out).is_file() or (Path(out).is_dir() and any(Path(out).iterdir()))):
        raise ValueError(f"{out} exists and is not empty, and holds no report; name a new directory for the report.")
    sources = read_sources(paths)
    LOG.info("drawing %s", _title(sources))
    with style():
        parts = sections(sources)
        rendered = {d.name: (d, *render(d)) for part in parts for d in part.every_drawing()}
    animations = [animation for part in parts for animation in part.every_animation()]
    html = _page(parts, rendered, _title(sources), f"plastic report {shlex.join(str(path) for path in paths)}")
    folder = Path(out) if out is not None else own or _new_folder(Path("runs/reports"))
    return _write(folder, html, rendered, animations)


def _holds_report(folder: Path) -> bool:
    """Whether this program wrote a report there."""
    page = folder / "index.html"
    return page.is_file() and GENERATOR in page.read_bytes()[:4096]


def _title(sources: Sources) -> str:
    experiments = list(dict.fromkeys(run.experiment for run in sources.runs))
    return " · ".join(experiments + (["speed and memory"] if sources.benches else []))


def _page(parts: Sequence[Part], rendered: Rendered, title: str, command: str) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("torchplastic.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def source(drawing: Drawing) -> str:
        _, png, svg = rendered[drawing.name]
        kind, content = ("png", png) if drawing.raster else ("svg+xml", svg)
        return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"

    def moving(animation: Animation) -> str:
        return f"data:image/gif;base64,{base64.b64encode(animation.gif).decode()}"

    numbers = {d.name: n for n, d in enumerate((d for part in parts for d in part.every_drawing()), start=1)}
    return environment.get_template("page.html").render(
        title=title,
        parts=parts,
        source=source,
        moving=moving,
        numbers=numbers,
        command=command,
        date=time.strftime("%d %B %Y, %H:%M"),
    )


def _new_folder(parent: Path) -> Path:
    """A directory under `parent` named by the time, made now, so that no other report can take it."""
    stem = time.strftime("%Y%m%d-%H%M%S")
    count = 1
    while True:
        folder = parent / (stem if count == 1 else f"{stem}-{count}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            count += 1
        else:
            return folder


def _write(folder: Path, html: str, rendered: Rendered, animations: Sequence[Animation]) -> Path:
    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    for name, (_, png, svg) in rendered.items():
        _replace(figures / f"{name}.png", png)
        _replace(figures / f"{name}.svg", svg)
    for animation in animations:
        _replace(figures / f"{animation.name}.gif", animation.gif)
    current = {*rendered, *(animation.name for animation in animations)}
    for old in figures.iterdir():
        # Figures of an earlier drawing that are not drawn any more would pass for current ones.
        if old.suffix in {".png", ".svg", ".gif"} and old.stem not in current:
            old.unlink()
    page = folder / "index.html"
    _replace(page, html.encode())
    return page


def _replace(path: Path, content: bytes) -> None:
    """Write beside it, then rename over it: a reader sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
