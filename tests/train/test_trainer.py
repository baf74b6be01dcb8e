"""The loop learns, counts its rows by episodes alone, and goes on bit for bit."""

import math

import pytest
import torch
from lightning_fabric import Fabric

from torchplastic import PlasticRNN
from torchplastic.tasks.patterns import Patterns, wrong_bits
from torchplastic.train.evaluate import evaluate, interval
from torchplastic.train.memory import TooLargeError, require
from torchplastic.train.objectives import squared_error
from torchplastic.train.progress import Progress
from torchplastic.train.supervised import SupervisedLearner
from torchplastic.train.trainer import NotFiniteError, Trainer, TrainingSchedule

TASK = Patterns(bits=12, patterns=2, shown=2, gap=1, cycles=2, test=2)


class Kept:
    """Rows and checkpoints, in memory."""

    def __init__(self):
        self.rows, self.checkpoints = [], []


def trainer(kept, episodes=20, batch=1, log_every=6, lr=1e-3, patience=None, capture=False, **plan):
    model = PlasticRNN(None, TASK.neurons)
    model.reset_parameters(torch.Generator().manual_seed(0))
    return Trainer(
        fabric=Fabric(accelerator="cpu", devices=1),
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), lr=lr),
        learner=SupervisedLearner(TASK, squared_error(wrong_bits)),
        schedule=TrainingSchedule(episodes, batch, log_every, **plan),
        generator=torch.Generator().manual_seed(1),
        progress=Progress("test", episodes),
        append=kept.rows.append,
        save=kept.checkpoints.append,
        patience=patience,
        capture=capture,
    )


def plain(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_rows_end_at_multiples_and_at_the_end():
    kept = Kept()
    assert trainer(kept).train()
    assert [row["episode"] for row in kept.rows] == [6, 12, 18, 20]
    kept = Kept()
    trainer(kept, batch=4, log_every=6).train()
    assert [row["episode"] for row in kept.rows] == [8, 12, 20]


def test_a_graph_replays_the_same_training(recorder):
    """Rates that change, gradients that are clipped, a stop and a resume; checkpoints are those of training without."""
    plan = {"batch": 2, "clip": 0.1, "lr_factor": lambda episode: 1 - episode / 40, "medians": True}
    plain_kept, kept, resumed = Kept(), Kept(), Kept()
    run = trainer(plain_kept, **plan)
    run.train()
    captured = trainer(kept, capture=True, patience=100.0, **plan)
    captured.train(stopped=lambda: captured.state.episode >= 12)
    assert (recorder.captured, recorder.replayed) == (1, 3)
    rest = trainer(resumed, capture=True, patience=100.0, **plan)
    rest.restore(kept.checkpoints[-1])
    rest.train()
    for got, want in zip(plain(kept.rows + resumed.rows), plain(plain_kept.rows), strict=True):
        assert got == pytest.approx(want, rel=1e-5)  # rates are tensors of float32
    expected, found = plain_kept.checkpoints[-1], resumed.checkpoints[-1]
    (group,), (group_found,) = (state["optimizer"]["param_groups"] for state in (expected, found))
    assert group_found == group | {"lr": pytest.approx(group["lr"])}
    for name, weights in expected["model"].items():
        torch.testing.assert_close(found["model"][name], weights)


def test_the_last_batch_is_what_is_left():
    kept = Kept()
    run = trainer(kept, episodes=10, batch=4, log_every=100)
    run.train()
    assert run.state.episode == 10
    assert kept.rows[-1]["episode"] == 10


def test_means_are_over_the_episodes_of_the_row():
    single, double = Kept(), Kept()
    trainer(single, episodes=4, log_every=1, lr=1e-12).train()
    trainer(double, episodes=4, log_every=2, lr=1e-12).train()
    losses = [row["loss"] for row in single.rows]
    assert [row["loss"] for row in double.rows] == pytest.approx([sum(losses[:2]) / 2, sum(losses[2:]) / 2], rel=1e-4)


@pytest.mark.parametrize("stop", [1, 6, 9, 19])
def test_stopped_and_restored_equals_undisturbed(stop):
    whole = Kept()
    undisturbed = trainer(whole)
    undisturbed.train()

    first = Kept()
    run = trainer(first)
    assert not run.train(stopped=lambda: run.state.episode >= stop)
    second = Kept()
    rest = trainer(second)
    rest.restore(first.checkpoints[-1])
    rest.train()
    assert plain(first.rows + second.rows) == plain(whole.rows)
    for a, b in zip(rest.module.parameters(), undisturbed.module.parameters(), strict=True):
        assert torch.equal(a, b)


def test_going_on_further_equals_one_longer_run():
    whole, first, second = Kept(), Kept(), Kept()
    trainer(whole, episodes=20).train()
    short = trainer(first, episodes=10)
    short.train()
    longer = trainer(second, episodes=20)
    longer.restore(first.checkpoints[-1])
    longer.train()
    started = first.checkpoints[-1]["row"]["episodes"]
    rows = [row for row in first.rows if row["episode"] <= 10 - started] + second.rows
    assert plain(rows) == plain(whole.rows)


def test_a_loss_that_is_not_finite_stops_before_the_update():
    kept = Kept()
    run = trainer(kept)
    with torch.no_grad():
        run.module.w.fill_(math.nan)
    with pytest.raises(NotFiniteError, match=r"the loss is nan at episode 1 .*learning rate"):
        run.train()
    assert kept.checkpoints == []


def test_weights_that_are_not_finite_are_never_saved():
    kept = Kept()
    run = trainer(kept, lr=math.inf)
    with pytest.raises(NotFiniteError):
        run.train()
    assert kept.checkpoints == []


def test_an_eta_outside_its_range_is_named():
    kept = Kept()
    run = trainer(kept)
    with torch.no_grad():
        run.module.eta.fill_(-9.0)
        run.module.w.fill_(math.nan)
    with pytest.raises(NotFiniteError, match="eta has left"):
        run.train()


def test_the_schedule_scales_every_rate():
    kept = Kept()
    run = trainer(kept, episodes=3, lr_factor=lambda episode: 1.0 / (1 + episode))
    run.train()
    assert run.optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 / 3)


def test_it_learns():
    kept = Kept()
    trainer(kept, episodes=300, log_every=50, lr=1e-2).train()
    assert kept.rows[-1]["loss"] < 0.6 * kept.rows[0]["loss"]


def test_evaluation_is_reproducible_and_its_interval_is_the_textbook_one():
    model = PlasticRNN(None, TASK.neurons)
    score = [evaluate(model, TASK, squared_error(wrong_bits), 7, 3, torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(score[0][0], score[1][0])
    assert len(score[0][1]) == 7
    found = interval(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    half = 1.96 * (5 / 3) ** 0.5 / 2
    assert found["mean"] == 2.5
    assert found["ci95"] == pytest.approx([2.5 - half, 2.5 + half])


def test_a_run_that_cannot_fit_is_refused_with_a_way_out():
    with pytest.raises(TooLargeError, match=r"needs about 1048576\.0 GiB .* GiB are free\. lower --batch"):
        require(2**50, torch.device("cpu"), "lower --batch")
    require(1, torch.device("cpu"), "")
