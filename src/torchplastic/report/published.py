"""Published values, from published.json, and which of our runs they can be compared with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

from torchplastic.report.grouping import Group
from torchplastic.report.sources import Json
from torchplastic.runs import flatten

DEFAULT_LABELS = {
    "loss": "loss per episode",
    "error": "error",
    "reward": "reward per episode",
    "eta": "plasticity rate η",
}


@dataclass(frozen=True)
class Published:
    """One published curve or level.

    measure: the key of our rows with the same quantity.
    name: what was trained.
    presets, model: our presets and model settings with the same protocol.
    points: (episode, low, high); low and high are equal if one value was published.
    source, read, protocol: the paper, how the value was read from it, and what was trained how.
    settings, data: what else our run must have: settings by dotted name, and how the name of its data begins.
    level, claim: for a level that is reached instead of a curve, its value and the claim in words.
    """

    measure: str
    name: str
    presets: tuple[str, ...]
    model: Json
    points: tuple[tuple[float, float, float], ...]
    source: str
    read: str
    protocol: str
    level: float | None = None
    claim: str = ""
    settings: Json = field(default_factory=dict)
    data: str = ""

    def belongs_to(self, group: Group) -> bool:
        """Whether a group has the task and the model of the published protocol."""
        model = group.config.get("model", {})
        return self.fits(group) and all(model.get(key) == value for key, value in self.model.items() if key in model)

    def fits(self, group: Group) -> bool:
        """Whether a group has the task of the published protocol, with any model."""
        config = flatten(group.config)
        same = all(config.get(key, value) == value for key, value in self.settings.items())
        data = [run.recorded("data") for run in group.runs if run.recorded("data")]
        return group.config.get("preset") in self.presets and same and all(name.startswith(self.data) for name in data)


@dataclass(frozen=True)
class Literature:
    """The literature on one experiment: axis labels by measure, and published curves and levels."""

    labels: dict[str, str] = field(default_factory=dict)
    entries: tuple[Published, ...] = ()

    def label(self, measure: str) -> str:
        """The axis label of a measure."""
        return self.labels.get(measure, DEFAULT_LABELS.get(measure, measure.replace("_", " ")))

    def about(self, groups: Sequence[Group]) -> Literature:
        """The entries on the tasks of these groups, also for models that are not among them."""
        return Literature(self.labels, tuple(entry for entry in self.entries if any(map(entry.fits, groups))))

    def of(self, measure: str) -> list[Published]:
        """The entries with this measure."""
        return [entry for entry in self.entries if entry.measure == measure]


@cache
def _content() -> dict[str, Json]:
    text = resources.files("torchplastic.report").joinpath("published.json").read_text(encoding="utf-8")
    content: dict[str, Json] = json.loads(text)
    return content


def published(experiment: str) -> Literature:
    """The literature on an experiment; empty if published.json has none."""
    about = _content().get(experiment, {})
    curves = [_entry(entry, entry["points"]) for entry in about.get("curves", [])]
    levels = [_entry(entry, [[entry["episode"], entry["value"]]]) for entry in about.get("levels", [])]
    return Literature(dict(about.get("labels", {})), (*curves, *levels))


def _entry(entry: Json, points: list[list[float]]) -> Published:
    return Published(
        measure=entry["measure"],
        name=entry["name"],
        presets=tuple(entry["presets"]),
        model=entry["model"],
        points=tuple((point[0], point[1], point[-1]) for point in points),
        source=entry["source"],
        read=entry["read"],
        protocol=entry["protocol"],
        level=entry.get("value"),
        claim=entry.get("claim", ""),
        settings=entry.get("settings", {}),
        data=entry.get("data", ""),
    )
