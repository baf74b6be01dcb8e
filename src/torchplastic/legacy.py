"""Read run directories of earlier versions: translate their old names to the current ones.

The files of a run are never rewritten. `runs` reads them through this module.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

#: Old key -> new key, by the key of the object that contains it; "" is any object. From version 0.1.0.
RENAMED = {
    "": {
        "form": "preset",
        "stand_in": "builtin_data",
        "withheld_every": "eval_every",
        "withheld_episodes": "eval_episodes",
    },
    "model": {"w_start": "w_init_std", "alpha_start": "alpha_init_std", "held": "clamped"},
    "a2c": {
        "discount": "gamma",
        "value": "vf_coef",
        "entropy": "ent_coef",
        "concentration": "prob_l2",
        "gae": "gae_lambda",
    },
}

#: Settings that later versions added, by the object that contains them and the experiment ("" is any): the key beside
#: which each belongs, and the value that earlier versions worked with.
ADDED: dict[tuple[str, str], dict[str, tuple[str, Any]]] = {
    ("model", ""): {"forget_bias": ("clamped", 0.0)},
    ("model", "images"): {"cells": ("clamped", 0)},
    ("optim", ""): {"lr_alpha": ("lr_w", None)},
}

#: Old and new wording in descriptions of data.
TEXTS = (
    (re.compile(r"\bwithheld (pictures|episode)"), r"validation \1"),
    (re.compile(r"(?<=\d) withheld\b"), " for validation"),
    (re.compile(r"^stand-in, no Omniglot"), "synthetic data, not Omniglot"),
    (re.compile(r"^stand-in, no data set"), "built-in data, no data set"),
    (re.compile(r"^stepwise$"), "recurrent"),  # an implementation
)


def modern(value: Any, experiment: str, holder: str = "") -> Any:
    """Translate the JSON values of a run's file to the current keys and texts.

    experiment: the run's experiment. Old measures on withheld data become test measures in omniglot, and validation
    measures elsewhere. holder: the key of the object that contains the value.
    """
    if isinstance(value, Mapping):
        names = RENAMED[""] | RENAMED.get(holder, {})
        found = {
            names.get(key) or _measure(key, experiment): modern(part, experiment, key) for key, part in value.items()
        }
        for where in ((holder, ""), (holder, experiment)):
            for key, (beside, worked_with) in ADDED.get(where, {}).items():
                if beside in found:
                    found.setdefault(key, worked_with)
        return found
    if isinstance(value, list):
        return [modern(part, experiment, holder) for part in value]
    return modern_text(value) if isinstance(value, str) else value


def modern_text(text: str) -> str:
    """Translate a description of data, or a key of samples.npz, to the current wording."""
    for old, new in TEXTS:
        text = old.sub(new, text)
    return text


def _measure(key: str, experiment: str) -> str:
    """`withheld_error` is `test_error` in omniglot and `val_error` elsewhere."""
    prefix = "test_" if experiment == "omniglot" else "val_"
    return re.sub(r"^withheld_", prefix, key)
