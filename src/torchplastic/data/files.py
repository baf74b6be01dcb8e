"""Read pictures and archives that others wrote: what is read is bounded, and every error is one line with the name.

No file, however small, makes this package take memory without bound or start another program.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from torchplastic.reading import UnreadableError, readable, shown

MOST_BYTES = 1 << 28  # of a file, or of a member of an archive
MOST_PIXELS = 1 << 26  # of a picture
MOST_MEMBERS = 1 << 18  # of an archive
GZIP = b"\x1f\x8b"
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")  # Pillow has others, some of which start programs
ORIENTED = (b"Exif", b"eXIf", b"EXIF", b"exif", b"Orientation")  # in pictures that may be stored turned
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
SYSTEM = {"__macosx", "thumbs.db", "desktop.ini", "lost+found", "$recycle.bin", "system volume information"}
Source = Path | str | bytes


# --- which files are data


def is_data(inside: str) -> bool:
    """Whether a path inside a folder or an archive is data, and not what a browser, an editor or a system left there.

    Hidden files and folders, and those that begin with @ (of network drives), are not.
    """
    parts = inside.replace("\\", "/").split("/")
    return not any(part.startswith((".", "@")) or part.lower() in SYSTEM for part in parts)


def pictures_below(folder: Path) -> list[Path]:
    """The pictures in a folder and below, by their names, sorted."""
    return sorted(_pictures(folder))


def holds_pictures(folder: Path) -> bool:
    """Whether there are pictures in a folder or below; it is listed up to the first."""
    return next(_pictures(folder), None) is not None


def _pictures(folder: Path) -> Iterator[Path]:
    with readable(folder, "cannot be listed"):
        inside = ((path, path.relative_to(folder).as_posix()) for path in folder.rglob("*"))
        yield from (p for p, name in inside if p.suffix.lower() in SUFFIXES and is_data(name) and p.is_file())


# --- bytes


def file_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """The content of a file of at most `most` bytes."""
    with readable(path):
        if (size := path.stat().st_size) > most:
            raise UnreadableError(f"{shown(path)} is too large: {size:,} bytes; at most {most:,} are read.")
        with path.open("rb") as file:
            return file.read(size)


def bounded(file: IO[bytes], most: int, where: Path | str) -> bytes:
    """The rest of a stream. UnreadableError if it is longer than `most` bytes; no more are read."""
    content = file.read(most + 1)
    if len(content) > most:
        raise UnreadableError(f"{shown(where)} is too large: more than {most:,} bytes.")
    return content


def zip_members(path: Path, suffix: str, most: int = MOST_BYTES) -> Iterator[tuple[str, bytes]]:
    """Name and content of every member whose name ends so, in any case, sorted by name; separators are slashes."""
    with readable(path), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len(members) > MOST_MEMBERS:
            raise UnreadableError(f"{shown(path)} is too large: {len(members):,} members.")
        for name, member in sorted(_named(members, suffix), key=lambda pair: pair[0]):
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others may ask for gigabytes
                raise ValueError(f"{name} is neither stored nor deflated.")
            with archive.open(member) as file:
                yield name, bounded(file, most, f"{name} in {path}")


def _named(members: Iterable[zipfile.ZipInfo], suffix: str) -> Iterator[tuple[str, zipfile.ZipInfo]]:
    for member in members:
        name = member.filename.replace("\\", "/")
        if name.lower().endswith(suffix) and is_data(name) and not member.is_dir():
            yield name, member


def tar_members(path: Path, wanted: Callable[[str], bool], most: int = MOST_BYTES) -> Iterator[tuple[str, bytes]]:
    """Path and content of every file of a tar archive, plain or of gzip, whose name is wanted, in its order."""
    what = "cannot be read, it is truncated or foreign"
    with readable(path, what), path.open("rb") as file, gzip.GzipFile(fileobj=file) as unpacked:
        packed = file.read(len(GZIP)) == GZIP
        file.seek(0)
        stream = _ShortReads(unpacked if packed else file, most)
        with tarfile.open(fileobj=stream, mode="r:") as archive:  # type: ignore[call-overload]
            for member in archive:
                where = f"{member.name} in {path}"
                if member.size > most:  # to skip it would unpack it
                    raise UnreadableError(f"{shown(where)} is too large: {member.size:,} bytes.")
                if member.isfile() and is_data(member.name) and wanted(PurePosixPath(member.name).name):
                    content = archive.extractfile(member)
                    assert content is not None
                    yield member.name, bounded(content, most, where)


class _ShortReads:
    """A stream that refuses to read more than `most` bytes at once, as the headers of an archive may ask for."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile, most: int) -> None:
        self.file, self.most, self.seek, self.tell = file, most, file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self.most + 1:
            raise ValueError(f"it asks for {size:,} bytes at once.")
        return self.file.read(size)


# --- pictures


def rgb(source: Source, where: Path | str | None = None) -> Image.Image:
    """A picture in 8-bit RGB, upright, on white. UnreadableError if it is no picture, or too large.

    source: a path, or the bytes of a file; where: its name for errors. 16-bit gray 0 … 65535 and floats 0 … 1 become
    0 … 255, as their 8-bit twins have it.
    """
    return _decoded(source, where, "RGB")


def gray(source: Source, where: Path | str | None = None) -> np.ndarray:
    """`rgb` in gray, uint8 `[height, width]`."""
    return np.asarray(_decoded(source, where, "L"))


def _decoded(source: Source, where: Path | str | None, mode: str) -> Image.Image:
    where = where or (source if isinstance(source, (Path, str)) else "the picture")
    content = source if isinstance(source, bytes) else file_bytes(Path(source))
    with readable(where, "is no readable picture"), _opened(content) as picture:
        width, height = picture.size
        if width * height > MOST_PIXELS:
            raise UnreadableError(
                f"{shown(where)} is too large: {width:,} × {height:,} pixels; at most {MOST_PIXELS:,} are read."
            )
        turned = picture.format == "TIFF" or any(mark in content for mark in ORIENTED)
        upright = ImageOps.exif_transpose(picture) if turned else picture
        return _on_white(_eight_bits(upright)).convert(mode)


@contextmanager
def many_pictures() -> Iterator[None]:
    """While pictures are read: without Pillow's warning of a large one, which is refused anyway."""
    with warnings.catch_warnings():  # too slow for each picture
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _opened(content: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        raise ValueError(f"it is none of {', '.join(FORMATS)}.") from None


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Convert wide integers and floats to 8 bits; Pillow would clip them at 255."""
    if not picture.mode.startswith(("I", "F")):
        return picture
    pixels = np.asarray(picture)
    low, high = pixels.min(), pixels.max()
    largest = 65535 if picture.mode.startswith("I") else 1
    if not 0 <= low <= high <= largest:
        raise ValueError(f"its pixels are {low:g} … {high:g}; {picture.mode} has 0 … {largest}.")
    if picture.mode.startswith("I"):
        bright = pixels // 257
        if isinstance(clear := picture.info.get("transparency"), int):
            bright = np.where(pixels == clear, 255, bright)
        return Image.fromarray(bright.astype(np.uint8))
    return Image.fromarray((pixels * 255).round().astype(np.uint8))


def _on_white(picture: Image.Image) -> Image.Image:
    """Replace transparency by white."""
    if not picture.has_transparency_data:
        return picture
    coloured = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", coloured.size, "white"), coloured)
