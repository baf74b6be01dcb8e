"""Losses that are read later: the same rows and checkpoints, no update that waits, nothing bad that is saved."""

import contextlib
import math
from dataclasses import replace

import pytest
import torch
from lightning_fabric import Fabric
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.train.test_trainer import Kept, plain, trainer
from torchplastic.experiments import catalog
from torchplastic.train.metric_buffer import PATIENCE, MetricBuffer
from torchplastic.train.objectives import Score
from torchplastic.train.precision import whole_inputs
from torchplastic.train.progress import Progress
from torchplastic.train.trainer import NotFiniteError, Trainer, TrainingSchedule

FOREVER = math.inf


def both(**options):
    """The same training with values read at once and at the ends of rows -> two trainers, what each kept."""
    found = []
    for patience in (0, FOREVER):
        kept = Kept()
        run = trainer(kept, patience=patience, **options)
        run.train()
        found += [(run, kept)]
    return found


@pytest.mark.parametrize("options", [{}, {"batch": 4}, {"medians": True, "batch": 3}, {"save_seconds": 0}])
def test_rows_and_checkpoints_are_those_of_values_read_at_once(options):
    (_, at_once), (_, later) = both(**options)
    assert plain(later.rows) == plain(at_once.rows)
    assert len(later.checkpoints) == len(at_once.checkpoints)
    for one, other in zip(later.checkpoints, at_once.checkpoints, strict=True):
        assert {name: one[name] for name in ("episode", "row", "errors")} == {
            name: other[name] for name in ("episode", "row", "errors")
        }
        assert torch.equal(one["generator"], other["generator"])
        assert all(torch.equal(one["model"][name], value) for name, value in other["model"].items())


@pytest.mark.parametrize("stop", [1, 6, 9, 19])
def test_stopped_with_values_unread_and_restored(stop):
    whole, first, second = Kept(), Kept(), Kept()
    trainer(whole).train()
    run = trainer(first, patience=FOREVER)
    assert not run.train(stopped=lambda: run.state.episode >= stop)
    rest = trainer(second)
    rest.restore(first.checkpoints[-1])
    rest.train()
    assert plain(first.rows + second.rows) == plain(whole.rows)


class Spoiled:
    """A learner whose loss is no number at one episode."""

    measure = "error"

    def __init__(self, learner, at):
        self.learner, self.left = learner, at
        self.draw = learner.draw

    def score(self, *args):
        score = self.learner.score(*args)
        self.left -= 1
        return Score(score.loss * math.nan, score.measured) if self.left == 0 else score


@pytest.mark.parametrize(("at", "saves"), [(3, 0), (8, 1)])
def test_a_loss_that_is_no_number_is_named_and_nothing_is_saved_after_it(at, saves):
    """It is found at the end of its row, two updates later; later losses are no numbers either."""
    kept = Kept()
    run = trainer(kept, log_every=5, save_seconds=0, patience=FOREVER)
    run.learner = Spoiled(run.learner, at)
    run._save = lambda save=run._save: save() if run.state.episode % 5 == 0 else None
    with pytest.raises(NotFiniteError, match=f"the loss is nan at episode {at} .*learning rate"):
        run.train()
    assert run.state.episode == 5 * (at // 5 + 1)
    assert [checkpoint["episode"] for checkpoint in kept.checkpoints] == [5] * saves
    assert len(kept.rows) == saves


def test_what_waits_is_read_before_a_checkpoint():
    kept = Kept()
    run = trainer(kept, log_every=100, save_seconds=0, patience=FOREVER)
    run.learner = Spoiled(run.learner, 3)
    with pytest.raises(NotFiniteError, match="at episode 3 "):
        run.train()
    assert [checkpoint["episode"] for checkpoint in kept.checkpoints] == [1, 2]


def test_values_are_read_in_the_order_of_the_updates_when_they_have_waited():
    metric_buffer = MetricBuffer(FOREVER)
    assert metric_buffer.read() == []
    metric_buffer.add(0, 2, torch.tensor([1.0, 0.5]), torch.tensor([0.25, 0.75]))
    metric_buffer.add(2, 1, torch.tensor([2.0, 0.1]), None)
    assert not metric_buffer.due
    first, second = metric_buffer.read()
    assert (first.episode, first.batch, first.loss, first.measured, first.errors) == (0, 2, 1.0, 0.5, [0.25, 0.75])
    assert (second.episode, second.batch, second.loss, second.errors) == (2, 1, 2.0, [])
    assert second.measured == torch.tensor(0.1).item()
    assert metric_buffer.read() == []
    assert MetricBuffer(0).at_once
    assert MetricBuffer(-1).due


def test_a_cpu_reads_at_once_and_a_lone_accelerator_does_not():
    assert trainer(Kept())._buffer.at_once
    for device, processes, patience in (("meta", 1, PATIENCE), ("meta", 2, 0), ("cpu", 2, 0)):
        fabric = Nowhere()
        fabric.device, fabric.world_size = torch.device(device), processes
        assert trainer_on(fabric, torch.nn.Linear(1, 1), None)._buffer.patience == patience


# --- no update waits. Tensors of the device "meta" have no values: reading one fails.


class Nowhere:
    """What a learner and the trainer take of Fabric, on a device without values."""

    device, world_size, global_rank = torch.device("meta"), 1, 0
    autocast = staticmethod(contextlib.nullcontext)

    def setup(self, *parts):
        return parts

    def all_gather(self, tensor):
        return tensor

    def backward(self, loss):
        loss.backward()

    def clip_gradients(self, model, optimizer, max_norm, error_if_nonfinite):
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm, error_if_nonfinite=error_if_nonfinite)


def trainer_on(fabric, model, learner, medians=False):
    return Trainer(
        fabric=fabric,
        model=model,
        optimizer=torch.optim.AdamW(model.parameters()),
        learner=learner,
        schedule=TrainingSchedule(1000, 4, 1000, clip=1.0, medians=medians),
        generator=torch.Generator().manual_seed(0),
        progress=Progress("test", 1000),
        append=lambda row: None,
        save=lambda checkpoint: None,
    )


class Waits(TorchDispatchMode):
    """Collects what makes the host wait for a device: copies that are not sent along, and tensors of two devices."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        made = op(*args, **(kwargs or {}))
        devices = {part.device for part in tree_leaves((args, kwargs, made)) if isinstance(part, torch.Tensor)}
        if len(devices) > 1 and not (kwargs or {}).get("non_blocking"):
            self.found.append(str(op))
        return made


def small(name, **model):
    config = catalog.settings(name, "smoke", model.pop("kind", "plastic"))
    config = replace(config, model=replace(config.model, **model))
    if name == "maze":
        return replace(config, task=replace(config.task, steps=5), model=replace(config.model, neurons=6))
    return config


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("patterns", {}),
        ("patterns", {"kind": "rnn"}),
        ("patterns", {"kind": "lstm"}),
        ("fifty-bit", {"alpha": "shared"}),
        ("images", {}),
        ("omniglot", {}),
        ("maze", {}),
        ("maze", {"impl": "reference"}),
        ("maze", {"kind": "rnn"}),
        ("maze", {"kind": "lstm"}),
    ],
)
def test_an_update_never_waits_for_the_device(name, model, monkeypatch):
    """The first update sends what stays on the device; the second sends what is random, and does not wait for it."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: False)  # it does not know this device
    monkeypatch.setattr(torch, "autocast", lambda kind, enabled: contextlib.nullcontext())
    config = small(name, **model)
    parts = catalog.get(name).build(config)
    run = trainer_on(Nowhere(), parts.model.to("meta"), parts.learner, parts.medians)
    run._update(4)
    with Waits() as waits:
        run._update(4)
    assert waits.found == []
    with pytest.raises(RuntimeError, match="meta"):
        run._buffer.read()


def test_the_test_sees_who_waits():
    """A value that is asked for, a list, a mask that selects, and a copy on the way there and back."""
    tensor = torch.ones(3, device="meta")
    asked = (lambda: tensor.sum().item(), tensor.tolist, lambda: bool(tensor.any()), lambda: tensor[tensor > 0])
    for ask in asked:
        with pytest.raises(RuntimeError):
            ask()
    with Waits() as waits:
        tensor.copy_(torch.ones(3))
        torch.ones(3).to("meta", non_blocking=True)
        tensor[torch.tensor([0, 1])]
    assert len(waits.found) == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is available here")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("name", ["patterns", "images", "omniglot", "maze"])
def test_an_update_on_a_gpu_never_waits(name, precision):
    """As PyTorch itself sees it, Fabric included."""
    parts = catalog.get(name).build(small(name))
    fabric = whole_inputs(Fabric(accelerator="cuda", devices=1, precision=precision))
    run = trainer_on(fabric, parts.model, parts.learner, parts.medians)
    run._update(4)
    torch.cuda.set_sync_debug_mode("error")
    try:
        run._update(4)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(math.isfinite(one.loss) for one in run._buffer.read())
