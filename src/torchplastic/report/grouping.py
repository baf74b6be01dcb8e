"""Group the runs of an experiment by their recipe, and label each group by what differs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torchplastic.report.sources import Json
from torchplastic.runs import RunRecord, flatten

#: Keys (last part) that may differ within a group: seed, length, place and machine, but not the recipe.
IGNORED = {
    *("seed", "episodes", "out", "path", "dir", "data_dir", "device", "devices", "threads", "jobs"),
    *("log_every", "save_seconds", "capture"),
    *("command", "date", "hardware", "versions"),
}

#: Keys of the task that only size the network: neurons without input do not change the task.
OF_THE_NETWORK = {"extra"}

#: Differences that a label always names, in this order. Others are named only to make labels distinct.
NAMED_FIRST = ("model.kind", "model.alpha", "preset", "model.rule")

#: Settings without effect on a network without a trace.
OF_PLASTICITY = {"model.alpha", "model.rule", "model.eta", "model.learn_eta", "model.alpha_init_std"}

KINDS = {"plastic": "plastic", "rnn": "RNN", "lstm": "LSTM", "gru": "GRU"}
ALPHAS = {"full": "α per connection", "neuron": "α per neuron", "shared": "one α for all", "none": ""}


@dataclass(frozen=True)
class Group:
    """Runs that differ only in the keys of `IGNORED`, ordered by seed."""

    label: str
    runs: tuple[RunRecord, ...]

    @property
    def config(self) -> Json:
        """The configuration of the first run."""
        return self.runs[0].config

    @property
    def task(self) -> str:
        """The task's configuration as a string; groups with equal ones can be compared directly."""
        task = self.config.get("task") or {}
        kept = {key: value for key, value in task.items() if key not in OF_THE_NETWORK}
        return json.dumps(kept, sort_keys=True, default=str)

    @property
    def whole(self) -> tuple[RunRecord, ...]:
        """The finished runs, or all runs if none has finished: means and intervals are over these."""
        return tuple(run for run in self.runs if run.finished) or self.runs

    @property
    def shown(self) -> RunRecord:
        """The run whose samples are drawn for the group: the first finished one, or else the first."""
        return self.whole[0]


def group_runs(runs: Iterable[RunRecord]) -> dict[str, list[Group]]:
    """The groups of each experiment, in the order of the runs; within a group the runs are ordered by seed."""
    experiments: dict[str, dict[str, list[RunRecord]]] = {}
    for run in runs:
        recipe = json.dumps(_recipe(run.config), sort_keys=True, default=str)
        experiments.setdefault(run.experiment, {}).setdefault(recipe, []).append(run)
    found: dict[str, list[Group]] = {}
    for experiment, recipes in experiments.items():
        members = [sorted(group, key=_seed_order) for group in recipes.values()]
        labels = _labels([_recipe(group[0].config) for group in members])
        found[experiment] = [Group(label, tuple(group)) for label, group in zip(labels, members, strict=True)]
    return found


def differing_keys(recipes: list[Json]) -> list[str]:
    """The keys whose values differ between recipes: those of `NAMED_FIRST` first, then others by name.

    Keys that a network without a trace lacks are compared only between the networks that have them.
    """
    keys = {key for recipe in recipes for key in recipe}
    values = {key: {_text(r.get(key)) for r in recipes if key in r or key not in OF_PLASTICITY} for key in keys}
    different = {key for key in keys if len(values[key]) > 1}
    return [key for key in NAMED_FIRST if key in different] + sorted(different - set(NAMED_FIRST))


def _recipe(config: Json) -> Json:
    recipe = {key: value for key, value in flatten(config).items() if key.rpartition(".")[2] not in IGNORED}
    if recipe.get("model.kind", "plastic") != "plastic":
        recipe = {key: value for key, value in recipe.items() if key not in OF_PLASTICITY}
    return recipe


def _labels(recipes: list[Json]) -> list[str]:
    different = differing_keys(recipes)
    parts = [[_kind(recipe)] for recipe in recipes]
    for key in different:
        if key == "model.kind":
            continue
        texts = [_part(key, recipe) for recipe in recipes]
        before = {tuple(part) for part in parts}
        after = {(*part, text) for part, text in zip(parts, texts, strict=True)}
        if key in NAMED_FIRST or len(after) > len(before):
            parts = [[*part, text] if text else part for part, text in zip(parts, texts, strict=True)]
    labels = [", ".join(text for text in part if text) or "run" for part in parts]
    # Different values may give the same text, but tables and figures need distinct labels.
    repeats = [labels[:index].count(label) for index, label in enumerate(labels)]
    return [f"{label} ({repeat + 1})" if repeat else label for label, repeat in zip(labels, repeats, strict=True)]


def _kind(recipe: Json) -> str:
    kind = str(recipe.get("model.kind", "plastic" if "model.alpha" in recipe else ""))
    if kind == "plastic" and recipe.get("model.alpha") == "none":
        return "not plastic"
    return KINDS.get(kind, kind)


def _part(key: str, recipe: Json) -> str:
    if key not in recipe:
        return ""
    value = recipe[key]
    if key == "model.alpha":
        return ALPHAS.get(str(value), f"α {value}")
    if key == "preset":
        return f"preset {value}"
    if key == "model.rule":
        return f"rule {value}"
    return f"{key.rpartition('.')[2]} {_text(value)}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _seed_order(run: RunRecord) -> tuple[bool, float, str]:
    is_number = isinstance(run.seed, int)
    return not is_number, float(run.seed) if is_number else 0.0, str(run.path)
