"""Numbers as text, for the tables, captions and axes of a report."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

MISSING = "–"
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: Any, digits: int = 3) -> str:
    """A number with `digits` significant digits and thousands separators; a dash for None, nan and infinity."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    if abs(value) >= 10 ** (digits - 1) or (isinstance(value, int) and abs(value) >= 1):
        return f"{value:,.0f}".replace("-", "−")
    # The exponent after rounding: 0.0099999 is 0.0100.
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    if int(exponent) < -4:
        return f"{mantissa}·10{str(int(exponent)).translate(RAISED)}".replace("-", "−")
    decimals = max(0, digits - 1 - int(exponent))
    return f"{value:.{decimals}f}".replace("-", "−")


def with_interval(value: float | None, interval: Sequence[float] | None) -> str:
    """`0.00830 [0.00610, 0.01050]`, all with the decimals of the number; without an interval only the number."""
    text = number(value)
    if value is None or interval is None or not all(math.isfinite(end) for end in interval):
        return text
    if not value or "·" in text:
        return f"{text} [{number(interval[0])}, {number(interval[1])}]"
    decimals = len(text.partition(".")[2])
    low, high = (f"{end:,.{decimals}f}".replace("-", "−") for end in interval)
    return f"{text} [{low}, {high}]"


def with_range(value: float, low: float, high: float) -> str:
    """`120 (90 to 150)`; only the number if all three are equal."""
    return number(value) if low == high else f"{number(value)} ({number(low)} to {number(high)})"


def duration(seconds: float | None) -> str:
    """Seconds in a suitable unit, from microseconds to hours."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    for limit, size, unit in ((1e-3, 1e-6, "µs"), (1, 1e-3, "ms"), (120, 1, "s"), (7200, 60, "min")):
        if abs(seconds) < limit:
            return f"{number(seconds / size)} {unit}"
    return f"{number(seconds / 3600)} h"


def size(count: float | None) -> str:
    """Bytes in a suitable binary unit."""
    if count is None:
        return MISSING
    for unit in ("B", "KiB", "MiB"):
        if abs(count) < 1024:
            return f"{number(count)} {unit}"
        count /= 1024
    return f"{number(count)} GiB"


def factor(value: float | None) -> str:
    """`12.3 ×`."""
    return MISSING if value is None else f"{number(value)} ×"


def rate(count: float | None, counted: str | None) -> str:
    """`1,230 episodes/s`."""
    return MISSING if count is None else f"{number(count)} {counted or ''}/s"


def percent(share: float | None, decimals: int | None = None) -> str:
    """A share as a percentage. decimals: None means one, or two below 1 %."""
    if share is None:
        return MISSING
    shown = 100 * share
    if decimals is not None:
        return f"{shown:.{decimals}f} %"
    return f"{shown:.2f} %" if 0 < abs(shown) < 1 else f"{shown:.1f} %"


def listing(values: Iterable[Any]) -> str:
    """Distinct values in one line; consecutive integers are joined: `0–4, 7`."""
    items = list(dict.fromkeys(values))
    if not items or not all(isinstance(item, int) for item in items):
        return ", ".join(str(item) for item in items) or MISSING
    runs: list[list[int]] = []
    for item in sorted(items):
        if runs and item == runs[-1][-1] + 1:
            runs[-1].append(item)
        else:
            runs.append([item])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)


def plural(count: int, word: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def slug(text: str) -> str:
    """The text as part of a file name: lower-case letters, digits and hyphens."""
    words = text.lower().replace("α", "alpha").replace("η", "eta")
    return re.sub(r"[^a-z0-9]+", "-", words).strip("-") or "x"
