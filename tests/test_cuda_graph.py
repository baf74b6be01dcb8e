"""A captured step, with a fake of CUDA's recorder: what is copied, what is captured when, what comes back."""

import pytest
import torch

import torchplastic as tp
from torchplastic import cuda_graph


def learner(seed=0):
    """A network and its update."""
    torch.manual_seed(seed)
    rnn = tp.PlasticRNN(None, 6)
    optimizer = torch.optim.Adam(rnn.parameters(), lr=1e-2)

    def update(episode):
        optimizer.zero_grad()
        y, _ = rnn(episode["inputs"], clamp=episode["clamp"], clamped_steps=episode["told"])
        loss = (y[-1] - episode["target"]).square().sum()
        loss.backward()
        optimizer.step()
        return {"loss": loss.detach()}

    return rnn, update


def episodes(count, T=4, told=(True, False, False, False)):
    generator = torch.Generator().manual_seed(1)
    return [
        {
            "inputs": torch.randn(T, 1, 6, generator=generator),
            "clamp": torch.tensor(told).view(-1, 1).expand(T, 6),
            "told": told,
            "target": torch.randn(1, 6, generator=generator),
        }
        for _ in range(count)
    ]


def test_it_learns_what_the_plain_step_learns(recorder):
    plain, update = learner()
    expected = [update(episode)["loss"] for episode in episodes(8)]
    captured, update = learner()
    step = tp.CapturedStep(update, warmup=3)
    losses = [step(episode)["loss"] for episode in episodes(8)]
    assert (recorder.captured, recorder.replayed) == (1, 5)
    assert torch.equal(torch.stack(losses), torch.stack(expected))
    for name, parameter in plain.state_dict().items():
        assert torch.equal(parameter, captured.state_dict()[name]), name


def test_other_shapes_and_other_values_are_captured_apart(recorder):
    step = tp.CapturedStep(learner()[1], warmup=1)
    for sequence in (episodes(3), episodes(3, T=5, told=(True,) * 2 + (False,) * 3), episodes(3, told=(False,) * 4)):
        for episode in sequence:
            step(episode)
    assert (recorder.captured, recorder.replayed) == (3, 6)


def test_lengths_without_end_do_not_take_memory_without_end(recorder, monkeypatch):
    monkeypatch.setattr(cuda_graph, "MOST", 2)
    step = tp.CapturedStep(learner()[1], warmup=1)
    for T in (2, 3, 4, 5):
        for episode in episodes(3, T=T, told=(False,) * T):
            step(episode)
    assert (recorder.captured, recorder.replayed) == (2, 4)


def test_what_is_returned_is_not_written_again(recorder):
    step = tp.CapturedStep(learner()[1], warmup=1)
    first, second, third = (step(episode)["loss"] for episode in episodes(3))
    kept = second.clone()
    step(episodes(4)[3])
    assert torch.equal(second, kept)
    assert len({first.data_ptr(), second.data_ptr(), third.data_ptr()}) == 3


def test_on_a_cpu_it_is_the_function_itself():
    rnn, update = learner()
    step = tp.CapturedStep(update, warmup=1)
    before = rnn.w.detach().clone()
    for episode in episodes(4):
        step(episode)
    assert not torch.equal(rnn.w, before)
    with pytest.raises(ValueError, match="warmup must be at least 1; got 0"):
        tp.CapturedStep(update, warmup=0)
