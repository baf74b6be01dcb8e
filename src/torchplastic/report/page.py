"""The page: one self-contained HTML file of runs, sweeps and bench files."""

from __future__ import annotations

import base64
import logging
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

import jinja2

from torchplastic.report.figures.style import Animation, Drawing, render, style
from torchplastic.report.folder import require_free, require_own, write
from torchplastic.report.loading import Sources, read_sources
from torchplastic.report.page_sections import Part, sections

LOG = logging.getLogger("torchplastic")

Rendered = dict[str, tuple[Drawing, bytes, bytes]]


def make_report(paths: Sequence[Path], out: Path | None = None) -> Path:
    """Draw runs, sweeps and bench files, in any mixture, on one self-contained page.

    paths: run directories, sweep directories (with `seed-*` runs in them) or bench JSON files.
    out: a new or empty directory, or one with an earlier report, which is drawn again. Default: RUN/report or
        SWEEP/report for a single run or sweep, or else `runs/reports/DATE-TIME`, a new one each time.

    Returns the path of the page, OUT/index.html; the figures lie as PNG and SVG in OUT/figures. Everything is drawn
    before anything is written, and the page comes after its figures, at once. A second drawing replaces and removes
    what the first one wrote (OUT/files.json has its digests) and no other file.

    Raises ValueError, in one line, for no path, for a path that is no run directory, sweep or bench file, for files
    in it that cannot be read, for an `out` that holds something else already, for a RUN/report that is a link or has
    one in the place of its figures, and for a file of yours where one of the report would be written.
    """
    paths = [Path(path) for path in paths]
    if not paths:
        raise ValueError("a report needs at least one run directory, sweep or bench file.")
    own = paths[0] / "report" if len(paths) == 1 and paths[0].is_dir() else None
    folder = own if out is None else Path(out)
    if own is not None and folder is not None and folder.absolute() == own.absolute():
        require_own(own)
    elif folder is not None:
        require_free(folder)
    sources = read_sources(paths)
    LOG.info("drawing %s", _title(sources))
    with style():
        parts = sections(sources)
        rendered = {d.name: (d, *render(d)) for part in parts for d in part.every_drawing()}
    animations = [animation for part in parts for animation in part.every_animation()]
    html = _page(parts, rendered, _title(sources), f"plastic report {shlex.join(str(path) for path in paths)}")
    figures = {f"{name}.png": png for name, (_, png, _) in rendered.items()}
    figures |= {f"{name}.svg": svg for name, (_, _, svg) in rendered.items()}
    figures |= {f"{animation.name}.gif": animation.gif for animation in animations}
    return write(folder or _new_folder(Path("runs/reports")), html.encode(), figures)


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
