"""Write the report: one self-contained HTML page and its figures. `plastic report` calls `make_report`."""

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
from torchplastic.report.page_sections import Section, make_sections
from torchplastic.report.sources import Sources, read_sources

LOG = logging.getLogger("torchplastic")

Rendered = dict[str, tuple[Drawing, bytes, bytes]]


def make_report(paths: Sequence[Path], out: Path | None = None) -> Path:
    """Draw any mixture of runs, sweeps and bench files on one self-contained page.

    paths: run directories, sweep directories (with runs `seed-*`) or bench files (JSON).
    out: a new or empty directory, or that of an earlier report, which is drawn again. Default: RUN/report or
        SWEEP/report for a single run or sweep, otherwise a new `runs/reports/DATE-TIME`.

    Returns the path of the page, OUT/index.html. The figures are in OUT/figures, as PNG and SVG. All figures are drawn
    before a file is written, and the page is written last. Drawing again replaces and removes only what the program
    wrote before; OUT/files.json has the digests.

    Raises ValueError, in one line, if `paths` is empty; if a path is no run directory, sweep or bench file, or one of
    its files cannot be read; if `out` has other contents; if RUN/report or its figures are a link; and if the report
    would replace a file that the program did not write.
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
        sections = make_sections(sources)
        rendered = {d.name: (d, *render(d)) for section in sections for d in section.every_drawing()}
    animations = [animation for section in sections for animation in section.every_animation()]
    html = _page(sections, rendered, _title(sources), f"plastic report {shlex.join(str(path) for path in paths)}")
    figures = {f"{name}.png": png for name, (_, png, _) in rendered.items()}
    figures |= {f"{name}.svg": svg for name, (_, _, svg) in rendered.items()}
    figures |= {f"{animation.name}.gif": animation.gif for animation in animations}
    return write(folder or _new_folder(Path("runs/reports")), html.encode(), figures)


def _title(sources: Sources) -> str:
    experiments = list(dict.fromkeys(run.experiment for run in sources.runs))
    return " · ".join(experiments + (["speed and memory"] if sources.benches else []))


def _page(sections: Sequence[Section], rendered: Rendered, title: str, command: str) -> str:
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

    numbers = {d.name: n for n, d in enumerate((d for section in sections for d in section.every_drawing()), start=1)}
    return environment.get_template("page.html").render(
        title=title,
        sections=sections,
        source=source,
        moving=moving,
        numbers=numbers,
        command=command,
        date=time.strftime("%d %B %Y, %H:%M"),
    )


def _new_folder(parent: Path) -> Path:
    """Create a directory under `parent`, named by the time; creating it now keeps other reports out."""
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
