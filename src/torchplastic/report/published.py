"""What others published, from published.json: by experiment, preset and model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

from torchplastic.report.grouping import Group
from torchplastic.report.loading import Json
from torchplastic.runs import flatten

DEFAULT_LABELS = {
    "loss": "loss per episode",
    "error": "error",
    "reward": "reward per episode",
    "eta": "plasticity rate η",
}


@dataclass(frozen=True)
class Published:
    """One published curve.

    measure: the key of our rows that it compares with.
    name: what was trained.
    presets, model: the presets and the model settings of ours that it belongs to.
    points: (episode, low, high); low and high are the same where one value was given.
    source, read, protocol: the paper, how its numbers were taken from it, and what was trained on what.
    settings, data: what else a run of ours must share: settings by their dotted names, how the name of its data begins.
    level, says: for a value to be reached rather than a curve, the value and the claim in words.
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
    says: str = ""
    settings: Json = field(default_factory=dict)
    data: str = ""

    def belongs_to(self, group: Group) -> bool:
        """Whether a group's task and model are those of the published protocol."""
        model = group.config.get("model", {})
        return self.fits(group) and all(model.get(key) == value for key, value in self.model.items() if key in model)

    def fits(self, group: Group) -> bool:
        """Whether a group's task is that of the published protocol, whatever its model."""
        told = flatten(group.config)
        same = all(told.get(key, value) == value for key, value in self.settings.items())
        data = [run.noted("data") for run in group.runs if run.noted("data")]
        return group.config.get("preset") in self.presets and same and all(name.startswith(self.data) for name in data)


@dataclass(frozen=True)
class Literature:
    """All that is known of one experiment: axis labels by measure, and published curves and levels."""

    labels: dict[str, str] = field(default_factory=dict)
    entries: tuple[Published, ...] = ()

    def label(self, measure: str) -> str:
        """The axis label of a measure."""
        return self.labels.get(measure, DEFAULT_LABELS.get(measure, measure.replace("_", " ")))

    def about(self, groups: Sequence[Group]) -> Literature:
        """What compares with the tasks of these groups: other models of the same task stay in."""
        return Literature(self.labels, tuple(entry for entry in self.entries if any(map(entry.fits, groups))))

    def of(self, measure: str) -> list[Published]:
        """The entries on one measure."""
        return [entry for entry in self.entries if entry.measure == measure]


@cache
def _content() -> dict[str, Json]:
    text = resources.files("torchplastic.report").joinpath("published.json").read_text(encoding="utf-8")
    content: dict[str, Json] = json.loads(text)
    return content


def published(experiment: str) -> Literature:
    """What is published on an experiment; empty for one that is not in the file."""
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
        says=entry.get("says", ""),
        settings=entry.get("settings", {}),
        data=entry.get("data", ""),
    )
