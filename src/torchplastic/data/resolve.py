"""Find and load the data of a run: pictures, or Omniglot's characters."""

from __future__ import annotations

import os
from pathlib import Path

from torchplastic.data import cifar10, files, omniglot
from torchplastic.data.download import cache_folder
from torchplastic.data.pictures import Pictures, read_folder


def load_pictures(place: Path | None, side: int) -> Pictures:
    """Load CIFAR-10 or a folder of pictures from `place`.

    None: CIFAR-10 in the folder TORCHPLASTIC_DATA, then in the user's cache folder. ValueError, in one line with the
    way out, if nothing is found.
    """
    if place is not None:
        return _at(place, side)
    places = _usual_places()
    found = next((path for path in map(cifar10.find, places) if path is not None), None)
    if found is None:
        raise ValueError(
            f"CIFAR-10 not found in {' or '.join(map(str, places))}. Put cifar-10-binary.tar.gz there, run "
            "'plastic data fetch cifar10', set TORCHPLASTIC_DATA, or name a folder of pictures with --data-dir."
        )
    return _cifar10(found, side)


def load_characters(place: Path | None) -> omniglot.Characters:
    """Load Omniglot from `place`, or from the usual folders, as `load_pictures` does."""
    if place is not None and not place.exists():
        raise ValueError(f"--data-dir {place} does not exist.")
    places = [place] if place is not None else _usual_places()
    found = next((paths for paths in map(omniglot.find, places) if paths is not None), None)
    if found is None:
        raise ValueError(
            f"Omniglot not found in {' or '.join(map(str, places))}. Put images_background.zip and "
            "images_evaluation.zip there, run 'plastic data fetch omniglot', or set TORCHPLASTIC_DATA."
        )
    with files.many_pictures():
        return omniglot.load(found)


def _usual_places() -> list[Path]:
    named = os.environ.get("TORCHPLASTIC_DATA")
    return [*([Path(named)] if named else []), cache_folder()]


def _at(place: Path, side: int) -> Pictures:
    if not place.exists():
        raise ValueError(f"--data-dir {place} does not exist.")
    found = cifar10.find(place)
    if found is not None:
        return _cifar10(found, side)
    if place.is_dir() and files.holds_pictures(place):
        with files.many_pictures():
            return read_folder(place, side)
    what = "is empty" if place.is_dir() and not any(place.iterdir()) else "holds neither CIFAR-10 nor pictures"
    raise ValueError(
        f"{place} {what}. Put cifar-10-binary.tar.gz or pictures there, or run 'plastic data fetch cifar10 --data-dir "
        f"{place if place.is_dir() else place.parent}'."
    )


def _cifar10(path: Path, side: int) -> Pictures:
    if side != cifar10.SIDE:
        raise ValueError(f"the pictures of CIFAR-10 are {cifar10.SIDE} × {cifar10.SIDE}; task.side is {side}.")
    return cifar10.read(path)
