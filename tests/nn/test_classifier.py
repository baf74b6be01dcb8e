"""PlasticClassifier against a plain loop over steps, and how it is used on drawings."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import torchplastic as tp
from torchplastic.bench.omniglot import plain_logits
from torchplastic.data import omniglot
from torchplastic.data.classes import synthetic_glyphs
from torchplastic.tasks.omniglot import FewShot, FewShotEpisodes
from torchplastic.train.objectives import classification


def network(**options):
    torch.manual_seed(0)
    made = tp.PlasticClassifier(features=6, ways=4, **options).double()
    with torch.no_grad():
        made.head.w.normal_(0, 0.5)
        if made.head.alpha is not None:
            made.head.alpha.normal_(0, 1)
        if made.head.eta is not None:
            made.head.eta.fill_(0.3)
    return made


def batch_of(queries=1, shots=1, pool=0, count=5):
    task = FewShot(ways=4, shots=shots, queries=queries, pool=pool)
    return FewShotEpisodes(task, synthetic_glyphs(31)).episodes(count, torch.Generator().manual_seed(1))


@pytest.mark.thorough
@pytest.mark.parametrize("alpha", ["full", "neuron", "shared", "none"])
@pytest.mark.parametrize("shots", [1, 3])
def test_one_call_is_the_plain_loop(alpha, shots):
    """Logits and every gradient in float64: all pictures at once, against one picture after the other."""
    batch = batch_of(shots=shots)
    found = []
    for run in (
        lambda net: batch.answer(net)[:, 0],
        lambda net: torch.cat([plain_logits(net, batch, b) for b in range(5)]),
    ):
        net = network(alpha=alpha)
        logits = run(net)
        torch.nn.functional.cross_entropy(logits, batch.target[:, 0]).backward()
        found.append((logits.detach(), {name: p.grad for name, p in net.named_parameters()}))
    (logits, gradients), (expected, expected_gradients) = found
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-12)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name], rtol=1e-8, atol=1e-12, msg=name)


def test_a_question_is_a_further_step():
    """The published order: the query is the last step of the same scan."""
    net, batch = network(), batch_of()
    x = net.features(batch.frames)
    labels = torch.nn.functional.one_hot(batch.labels, 4).double()
    drive = torch.cat([1000 * labels, torch.zeros(1, 5, 4, dtype=torch.float64)])
    y, _ = net.head(torch.cat([x[batch.support], x[batch.query].transpose(0, 1)]), drive=drive)
    torch.testing.assert_close(batch.answer(net)[:, 0].softmax(-1), y[-1])
    assert torch.equal(y[:-1], labels)  # the label decides what is shown


def test_questions_do_not_disturb_each_other():
    net, batch = network(), batch_of(queries=8)
    together = batch.answer(net)
    for q in range(8):
        alone = net(batch.frames, batch.support, batch.labels, batch.query[:, q : q + 1])
        torch.testing.assert_close(alone[:, 0], together[:, q])


def test_one_shot_in_closed_form():
    """Oja from an empty trace: after one picture of each class its column is eta times the picture's features."""
    net, batch = network(), batch_of(queries=4)
    x = net.features(batch.frames)
    place = batch.labels.argsort(0)  # when each label was shown
    remembered = x[batch.support.gather(0, place)].permute(1, 2, 0)  # [B, I, W]
    expected = x[batch.query] @ (net.head.w + net.head.alpha * net.head.eta * remembered)
    torch.testing.assert_close(batch.answer(net), expected)


@pytest.mark.thorough
@pytest.mark.parametrize("pool", [0, 6])
def test_classification_scores_each_episode(pool):
    batch = batch_of(queries=8, pool=pool)
    logits = torch.randn(5, 8, 4, generator=torch.Generator().manual_seed(0))
    score = classification(logits, batch.target)
    for b in range(5):
        probabilities = logits[b].softmax(-1)[torch.arange(8), batch.target[b]]
        torch.testing.assert_close(score.loss[b], -probabilities.log().mean())
        wrong = (logits[b].argmax(-1) != batch.target[b]).float().mean()
        assert score.measured[b] == wrong


def test_classify_is_one_episode_of_ones_own():
    net, batch = network(), batch_of(queries=8)
    b = 2
    support, query = batch.frames[batch.support[:, b]], batch.frames[batch.query[b]]
    probabilities = net.classify(support, batch.labels[:, b], query)
    torch.testing.assert_close(probabilities, batch.answer(net)[b].softmax(-1))
    assert not probabilities.requires_grad
    torch.testing.assert_close(
        net.classify(support.double() / 255, batch.labels[:, b], query.double() / 255), probabilities
    )


def test_several_pictures_of_a_label():
    """One after the other, as an episode shows them; or as one with their mean features, in any order."""
    net, batch = network(), batch_of(queries=4, shots=3)
    b = 1
    support, labels, query = batch.frames[batch.support[:, b]], batch.labels[:, b], batch.frames[batch.query[b]]
    torch.testing.assert_close(net.classify(support, labels, query, mean=False), batch.answer(net)[b].softmax(-1))
    averaged = net.classify(support, labels, query)
    torch.testing.assert_close(net.classify(support.flip(0), labels.flip(0), query), averaged)
    middle = torch.stack([net.features(support[labels == label]).mean(0) for label in range(4)])
    state = net.learn(middle.unsqueeze(1), torch.arange(4).unsqueeze(-1))
    torch.testing.assert_close(averaged, net.logits(net.features(query)[None], state)[0].softmax(-1))


def test_labels_of_which_nothing_was_shown_have_no_chance():
    net, batch = network(), batch_of()
    probabilities = net.classify(batch.frames[:3], torch.tensor([2, 0, 2]), batch.frames[3:7])
    assert probabilities.shape == (4, 4)
    assert (probabilities[:, [1, 3]] == 0).all()
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(4, dtype=torch.float64))


def test_effective_weight():
    layer = tp.PlasticLinear(3, 2, alpha="full")
    x = torch.randn(4, 5, 3)
    _, state = layer(x)
    weight = layer.effective_weight(state)
    torch.testing.assert_close(weight, layer.w + layer.alpha * state.trace)
    y, _ = layer(x[:1], state)
    torch.testing.assert_close((x[0].unsqueeze(1) @ weight).squeeze(1).softmax(-1), y[0])
    assert layer.effective_weight() is layer.w
    assert tp.PlasticLinear(3, 2, alpha="none").effective_weight(state) is not None
    with pytest.raises(ValueError, match="trace"):
        tp.PlasticLinear(4, 2).effective_weight(state)


def test_an_embedding_of_ones_own():
    embedding = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 7))
    net = tp.PlasticClassifier(embedding, features=7, ways=3)
    frames = torch.randint(0, 256, (6, 4, 4), dtype=torch.uint8)
    probabilities = net.classify(frames[:3], torch.arange(3), frames[3:])
    assert probabilities.shape == (3, 3)


def test_reset_parameters_takes_a_generator():
    one, other = (tp.PlasticClassifier(features=4) for _ in range(2))
    for net in (one, other):
        net.reset_parameters(torch.Generator().manual_seed(5))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert one.embedding[2].weight.var().item() == pytest.approx(25 / 9 / 36, rel=0.3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            (torch.zeros(2, 31, 31), torch.tensor([0, 4]), torch.zeros(1, 31, 31)),
            r"labels must be in 0 … 3; got 0 … 4",
        ),
        (
            (torch.zeros(2, 31, 31), torch.tensor([0]), torch.zeros(1, 31, 31)),
            "each support picture needs a label; got 2",
        ),
        ((torch.zeros(2, 1, 31), torch.tensor([0, 1]), torch.zeros(1, 1, 31)), "frames|Kernel size|kernel size"),
    ],
)
def test_errors(arguments, words):
    net = tp.PlasticClassifier(features=4, ways=4)
    with pytest.raises((ValueError, RuntimeError), match=words):
        net.classify(*arguments)
    with pytest.raises(ValueError, match=r"frames must be \[F, S, S\]"):
        net.features(torch.zeros(2, 1, 31, 31))


@pytest.mark.thorough
def test_weights_come_back_from_a_file(tmp_path):
    for rule, alpha in (("oja", "full"), ("hebb", "neuron"), ("oja", "shared"), ("hebb", "none")):
        net = tp.PlasticClassifier(features=6, ways=4, rule=rule, alpha=alpha)
        save_file(
            {name: value.contiguous() for name, value in net.state_dict().items()}, tmp_path / "w", {"rule": rule}
        )
        back = tp.PlasticClassifier.from_file(tmp_path / "w")
        assert (back.ways, back.head.rule, back.head.alpha_kind) == (4, rule, alpha)
        batch = batch_of(shots=2)
        assert torch.equal(back(*batch[:4]), net(*batch[:4]))


@pytest.mark.parametrize("content", [b"", b"text that is long enough to have a header", None])
def test_other_files_are_refused_in_one_line(tmp_path, content):
    path = tmp_path / "w"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="holds no weights of a PlasticClassifier: ") as refusal:
        tp.PlasticClassifier.from_file(path)
    assert "\n" not in str(refusal.value)
    save_file({"head.w": torch.zeros(3, 2)}, tmp_path / "other")
    with pytest.raises(ValueError, match="holds no weights"):
        tp.PlasticClassifier.from_file(tmp_path / "other")


def test_the_weights_of_the_package():
    net = tp.pretrained("omniglot")
    assert (net.ways, sum(parameter.numel() for parameter in net.parameters())) == (5, 112_065)
    assert not net.training
    with pytest.raises(ValueError, match="no pretrained network 'mnist'; choose one of omniglot"):
        tp.pretrained("mnist")


@pytest.mark.data
def test_the_weights_of_the_package_on_characters_they_were_never_trained_on():
    """What the card says, on the real data: 1,000 episodes of the 100 test characters."""
    place = os.environ.get("TORCHPLASTIC_DATA")
    paths = omniglot.find(Path(place)) if place else None
    if paths is None:
        pytest.skip("TORCHPLASTIC_DATA names no folder with Omniglot")
    characters = omniglot.load(paths)
    test = FewShotEpisodes(FewShot(), characters.classes(31).part(characters.split("fixed")[1], "test"))
    net, right = tp.pretrained("omniglot"), []
    for seed in range(10):
        batch = test.episodes(100, torch.Generator().manual_seed(seed))
        with torch.no_grad():
            right.append((batch.answer(net).argmax(-1) == batch.target).double().mean())
    assert torch.stack(right).mean() > 0.98
