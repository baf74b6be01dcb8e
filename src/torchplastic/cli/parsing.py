"""Parse flags through tyro, and turn its boxed error messages into one line."""

from __future__ import annotations

import argparse
import contextlib
import io
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import tyro

T = TypeVar("T")
SIMILAR = re.compile(r"Perhaps you meant:|Arguments similar to (\S+):")


def parse(kind: Callable[..., T], prog: str, args: Sequence[str], default: Any = None) -> T:
    """Parse the flags of a command. Raises ValueError, in one line, for wrong flags, with similar ones."""
    more = {} if default is None else {"default": default}
    boxed = io.StringIO()
    try:
        with contextlib.redirect_stderr(boxed):
            return tyro.cli(kind, prog=prog, args=args, **more)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise ValueError(f"{one_line(boxed.getvalue())} See {prog} --help.") from None


def before(args: Sequence[str], **flags: dict[str, Any]) -> tuple[Any, list[str]]:
    """Parse flags that the parser of the others depends on -> their values, the remaining arguments."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    for name, options in flags.items():
        parser.add_argument(f"--{name.replace('__', '.').replace('_', '-')}", **options)
    try:
        return parser.parse_known_args(args)
    except argparse.ArgumentError as error:
        raise ValueError(f"{error}.") from None


def one_line(box: str) -> str:
    """A message of the parser without its box: the error, and similar flags."""
    first, *others = _sections(box)
    text = " ".join(first).split(" For full helptext")[0]
    text = re.sub(r"^Error parsing [\w.]*\b(?<!-): (?=\w+\.|\w+ must)", "", text).rstrip(".")
    hints = []
    for section in others:
        if match := SIMILAR.match(section[0]):
            near = [line.split()[0].rstrip(",") for line in section[1:] if line.startswith("--")]
            hints.append(f"{f'for {match[1]} ' if match[1] else ''}perhaps you meant {' or '.join(near[:2])}")
    return "; ".join([text, *hints]) + "."


def _sections(box: str) -> list[list[str]]:
    """The lines of each section of a box."""
    sections: list[list[str]] = [[]]
    for line in box.splitlines()[1:]:
        text = line.strip(" │╭╮╰╯├┤─-") if set(line) <= set(" │╭╮╰╯├┤─-") else line.strip(" │")
        if text:
            sections[-1].append(text)
        elif sections[-1]:
            sections.append([])
    return [section for section in sections if section] or [[]]
