"""The folder of a report. Files are replaced as a whole; only files that the program wrote are replaced or removed.

OUT/index.html  the page
OUT/figures/    PNG, SVG, GIF
OUT/files.json  a digest of each of these files as the program wrote it
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from torchplastic.runs import read_json, refuse_link, replace_file, write_json

PAGE = "index.html"
FIGURES = "figures"
DIGESTS = "files.json"
MARK = b"torchplastic report</title>"  # in every page, also of versions that wrote no files.json

Digests = Mapping[str, list[str]]


def require_own(folder: Path) -> None:
    """Raise ValueError if a run's report or its figures are a link, which would lead out of the run, or a file."""
    for place in (folder, folder / FIGURES):
        refuse_link(place)
        if place.exists() and not place.is_dir():
            raise ValueError(f"{place} is no folder; move it away, or choose a new folder with --out.")


def require_free(folder: Path) -> None:
    """Raise ValueError if the folder of a new report exists, is not empty, and has no report in it."""
    free = folder.is_dir() and (_holds_report(folder) or not any(folder.iterdir()))
    if not free and os.path.lexists(folder):
        raise ValueError(f"{folder} exists, is not empty, and has no report in it; choose a new folder with --out.")


def _holds_report(folder: Path) -> bool:
    page = folder / PAGE
    return (folder / DIGESTS).is_file() or (page.is_file() and MARK in page.read_bytes())


def write(folder: Path, page: bytes, figures: Mapping[str, bytes]) -> Path:
    """Write the figures, remove figures of an earlier report that are no longer drawn, write the page -> its path.

    figures: contents by file name. Files that the program did not write, or that were changed since, stay. Raises
    ValueError, before anything is written, if one of them has the name of a new file.
    """
    files = {**{f"{FIGURES}/{name}": content for name, content in figures.items()}, PAGE: page}
    known = _known(folder, files)
    for name in files:
        path = folder / name
        if (path.is_symlink() or path.exists()) and not _is_own(folder, name, known):
            raise ValueError(
                f"{path} is not as plastic report wrote it; move it away, or choose a new folder with --out."
            )
    (folder / FIGURES).mkdir(parents=True, exist_ok=True)
    digests = {name: [_digest(content)] for name, content in files.items()}
    # Both the old and the new digest of each file, so that its files are known if the program is killed.
    write_json(folder / DIGESTS, {name: known.get(name, []) + digests.get(name, []) for name in known | digests})
    for name, content in files.items():
        if name != PAGE:
            _replace(folder / name, content)
    for old in (folder / FIGURES).iterdir():
        name = f"{FIGURES}/{old.name}"
        if name not in files and _is_own(folder, name, known):
            old.unlink()
    _replace(folder / PAGE, page)
    write_json(folder / DIGESTS, digests)
    return folder / PAGE


def _known(folder: Path, files: Mapping[str, bytes]) -> dict[str, list[str]]:
    """Digests of the files that the program wrote there before, by name."""
    refuse_link(folder / DIGESTS)
    if (folder / DIGESTS).exists():
        known = read_json(folder / DIGESTS)
        if not all(isinstance(digests, list) for digests in known.values()):
            raise ValueError(f"{folder / DIGESTS} is not what plastic report writes; move it away.")
        return known
    if _holds_report(folder):  # of a version that wrote no files.json
        return {name: [_digest((folder / name).read_bytes())] for name in files if (folder / name).is_file()}
    return {}


def _is_own(folder: Path, name: str, known: Digests) -> bool:
    """Whether a file is as the program wrote it; False for a link."""
    path = folder / name
    return not path.is_symlink() and path.is_file() and _digest(path.read_bytes()) in known.get(name, [])


def _digest(content: bytes) -> str:
    return sha256(content).hexdigest()


def _replace(path: Path, content: bytes) -> None:
    replace_file(path, lambda file: file.write(content))
