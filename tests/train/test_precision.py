"""Mixed precision, end to end on a CPU: what stays in float32, and how far a training step is from one in float32."""

from dataclasses import replace

import pytest
import torch
from lightning_fabric import Fabric

from tests.command import plastic, rows, timeless, tiny
from torchplastic.experiments import catalog
from torchplastic.runs import RunDirectory
from torchplastic.tasks.envs import BatchedMaze
from torchplastic.train.a2c import rollout
from torchplastic.train.precision import whole_inputs

TOLERANCE = 0.03  # of a gradient's norm; bfloat16 has 8 bits, and 0.012 was the most on 2026-11-22


def config_of(name, kind="plastic"):
    config = catalog.settings(name, "smoke", kind)
    if name == "maze":
        return replace(config, model=replace(config.model, neurons=12), task=replace(config.task, steps=30))
    return config


def fabric_of(precision):
    return whole_inputs(Fabric(accelerator="cpu", devices=1, precision=precision))


def update(name, precision, kind="plastic"):
    """Loss of 8 episodes and the gradients of one update, in that precision; of mazes, of one and the same rollout."""
    config = config_of(name, kind)
    parts, fabric = catalog.get(name).build(config), fabric_of(precision)
    generator = torch.Generator().manual_seed(0)
    taken = rollout(parts.model, BatchedMaze(config.task), 8, generator) if name == "maze" else None
    model, _ = fabric.setup(parts.model, torch.optim.Adam(parts.model.parameters()))
    if taken is None:
        loss = parts.learner.score(model, parts.learner.draw(model, 8, generator, fabric)).loss
    else:
        logits, values, _ = model(taken.observations)
        assert logits.dtype == values.dtype == torch.float32
        loss = config.a2c.loss(logits, values, taken)
    fabric.backward(loss.mean())
    return loss.detach(), {name: parameter.grad for name, parameter in parts.model.named_parameters()}


@pytest.mark.parametrize(
    ("name", "kind"),
    [("patterns", "plastic"), ("patterns", "lstm"), ("images", "plastic"), ("omniglot", "plastic"), ("maze", "plastic"),
     ("maze", "rnn"), ("maze", "lstm")],
)  # fmt: skip
def test_loss_and_gradients_are_float32_and_near_those_of_float32(name, kind):
    loss, gradients = update(name, "bf16-mixed", kind)
    exact_loss, exact = update(name, "32-true", kind)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact_loss, rtol=TOLERANCE, atol=TOLERANCE)
    for parameter, gradient in gradients.items():
        assert gradient.dtype == torch.float32
        far = (gradient - exact[parameter]).norm() / exact[parameter].norm()
        assert far <= TOLERANCE, parameter


@pytest.mark.parametrize("name", ["patterns", "images"])
def test_a_network_without_input_weights_loses_nothing(name):
    """Its only products are those with the trace, and the pictures that it sees keep their bits."""
    (loss, gradients), (exact_loss, exact) = (update(name, precision) for precision in ("bf16-mixed", "32-true"))
    assert torch.equal(loss, exact_loss)
    assert all(torch.equal(gradient, exact[parameter]) for parameter, gradient in gradients.items())


@pytest.mark.parametrize("kind", ["plastic", "rnn", "lstm"])
def test_a_lesson_of_mazes_in_mixed_precision(kind):
    """Rollout, scan and loss; observations, rewards and what is carried stay in float32."""
    parts = catalog.get("maze").build(config_of("maze", kind))
    fabric = fabric_of("bf16-mixed")
    model, _ = fabric.setup(parts.model, torch.optim.Adam(parts.model.parameters()))
    score = parts.learner.score(model, parts.learner.draw(parts.model, 4, torch.Generator().manual_seed(0), fabric))
    assert score.loss.dtype == score.measured.dtype == torch.float32
    assert score.loss.isfinite().all()
    with fabric.autocast():
        _, _, state = parts.model(torch.zeros(2, 4, parts.model.core.input_size))
    assert {part.dtype for part in state if part is not None} == {torch.float32}


SMALL = {
    "maze": ["--model.neurons", "6", "--task.size", "5", "--task.steps", "12", "--batch", "4"],
    "omniglot": ["--model.channels", "8", "--batch", "4", "--eval-episodes", "10"],
    "images": ["--task.side", "6", "--eval-episodes", "4"],
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", SMALL)
def test_a_run_is_trained_resumed_and_measured(name, tmp_path, capsys):
    def run(out, episodes):
        flags = ["--threads", 1, "--precision", "bf16-mixed", "--log-every", 4, "--episodes", episodes, "--out", out]
        return plastic("train", name, "--preset", "smoke", *SMALL[name], *flags)

    assert run(tmp_path / "whole", 24) == 0
    assert run(tmp_path / "parted", 12) == 0
    assert plastic("train", "--resume", tmp_path / "parted", "--episodes", 24) == 0
    assert timeless(tmp_path / "parted") == timeless(tmp_path / "whole")
    weights, others = (RunDirectory(tmp_path / each).weights() for each in ("whole", "parted"))
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert all(torch.equal(tensor, others[part]) for part, tensor in weights.items())
    assert plastic("eval", tmp_path / "whole", "--episodes", 10, "--json") == 0


def test_evaluation_is_in_the_precision_of_the_weights(tmp_path, capsys):
    """A run without input weights gives the same rows and the same evaluation in both precisions."""
    for precision in ("32-true", "bf16-mixed"):
        assert plastic(*tiny(tmp_path / precision, "--episodes", "12", "--precision", precision)) == 0
        assert plastic("eval", tmp_path / precision, "--episodes", 10, "--device", "cpu") == 0
    one, other = (tmp_path / precision for precision in ("32-true", "bf16-mixed"))
    assert [row["loss"] for row in rows(one)] == [row["loss"] for row in rows(other)]
    assert RunDirectory(one).evals() == RunDirectory(other).evals()
