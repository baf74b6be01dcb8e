"""Configs are checked where they are built, and come back from JSON as they were."""

import json
from dataclasses import replace

import pytest

from torchplastic import PlasticRNN
from torchplastic.experiments import catalog
from torchplastic.experiments.build import make_optimizer
from torchplastic.experiments.catalog import CATALOG
from torchplastic.experiments.config import Config, Model, Optim, from_dict

PRESETS = [(name, preset) for name in CATALOG for preset in catalog.get(name).presets]


@pytest.mark.parametrize("kind", ["plastic", "rnn", "lstm", "gru"])
@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_every_preset_is_complete_and_survives_json(name, preset, kind):
    if (name == "omniglot" and kind != "plastic") or (kind == "gru" and name != "maze"):
        with pytest.raises(ValueError, match=f"{name} has no network of kind {kind}; it has plastic"):
            catalog.settings(name, preset, kind)
        return
    config = catalog.settings(name, preset, kind)
    assert (config.experiment, config.preset, getattr(config.model, "kind", "plastic")) == (name, preset, kind)
    assert from_dict(type(config), json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Config(batch=0), "batch must be at least 1"),
        (lambda: Config(episodes=0), "episodes must be at least 1"),
        (lambda: Config(seed=-1), "seed"),
        (lambda: Config(log_every=0), "log_every"),
        (lambda: Model(eta=1.5), "model.eta"),
        (lambda: Optim(lr=0.0), "optim.lr"),
        (lambda: Optim(lr=float("nan")), "optim.lr"),
        (lambda: Optim(schedule="cosine"), "schedule_episodes"),
        (lambda: Optim(warmup=1.0), "optim.warmup must lie in 0 … 1, 1 excluded; got 1"),
    ],
)
def test_ranges(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_config_of_another_version_is_one_line():
    values = catalog.settings("patterns", "smoke").to_dict()
    with pytest.raises(ValueError, match="does not fit this version"):
        from_dict(catalog.get("patterns").config, {**values, "colour": "blue"})
    with pytest.raises(ValueError, match="does not fit this version"):
        from_dict(catalog.get("patterns").config, {**values, "batch": "many"})


def test_cosine_schedule_has_its_own_length():
    optim = Optim(schedule="cosine", schedule_episodes=100, final=0.1)
    assert optim.factor(0) == 1.0
    assert optim.factor(50) == pytest.approx(0.55)
    assert optim.factor(100) == pytest.approx(0.1)
    assert optim.factor(500) == pytest.approx(0.1)
    assert Optim().factor(10**6) == 1.0


def test_warm_up_is_a_part_of_the_schedule():
    optim = Optim(schedule="cosine", schedule_episodes=100, warmup=0.2)
    assert [optim.factor(episode) for episode in (0, 10, 20, 60, 100)] == pytest.approx([0, 0.5, 1, 0.5, 0])


def test_steps():
    optim = Optim(schedule="steps", schedule_episodes=100, final=0.5)
    assert [optim.factor(episode) for episode in (0, 99, 100, 250)] == [1, 1, 0.5, 0.25]


def test_unknown_names():
    with pytest.raises(ValueError, match="unknown experiment"):
        catalog.get("nothing")
    with pytest.raises(ValueError, match="has no preset"):
        catalog.settings("patterns", "nothing")


def test_model_start_scales_follow_the_config():
    from torchplastic.experiments.build import make_network

    plain = make_network(Model(), 0, 9, lstm_cells=4, clamped_inputs=2)
    scaled = make_network(replace(Model(), w_init_std=0.1, alpha_init_std=0.001), 0, 9, lstm_cells=4, clamped_inputs=2)
    assert (scaled.w / plain.w).allclose(plain.w.new_tensor(10.0))
    assert (scaled.alpha / plain.alpha).allclose(plain.alpha.new_tensor(0.1))


def test_rates_of_w_and_of_alpha():
    rnn = PlasticRNN(3, 4, learn_eta=True)
    names = {id(parameter): name for name, parameter in rnn.named_parameters()}

    def rates(**settings):
        groups = make_optimizer(Optim(lr=1.0, **settings), rnn).param_groups
        return {names[id(parameter)]: group["lr"] for group in groups for parameter in group["params"]}

    rest = {name: 1.0 for name in names.values() if name not in ("w", "alpha", "eta")}
    assert rates() == rest | {"w": 1, "alpha": 1, "eta": 1}
    assert rates(lr_w=0.5) == rest | {"w": 0.5, "alpha": 1, "eta": 1}
    assert rates(lr_w=0.5, lr_alpha=0.25) == rest | {"w": 0.5, "alpha": 0.25, "eta": 0.25}


@pytest.mark.parametrize("experiment", ["fifty-bit", "images", "maze"])
def test_forget_gates_are_opened(experiment):
    config = catalog.settings(experiment, "smoke", "lstm")
    more = replace(config, model=replace(config.model, forget_bias=1.5))
    one, other = (dict(catalog.get(experiment).build(each).model.named_parameters()) for each in (config, more))
    for name in one:
        if "policy" in name or "value" in name:
            continue
        difference = (other[name] - one[name]).chunk(4)
        forget = 1.5 if name.endswith("bias_ih_l0") else 0
        assert [part.mean().item() for part in difference] == pytest.approx([0, forget, 0, 0])
