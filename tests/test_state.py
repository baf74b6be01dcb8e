"""States are values with a few methods, the same for every kind of layer."""

import pytest
import torch

import torchplastic as tp

B, N = 3, 4


def states(B=B, requires_grad=False):
    generator = torch.Generator().manual_seed(0)
    lead = () if B is None else (B,)

    def normal(*shape):
        return torch.randn(*lead, *shape, generator=generator).requires_grad_(requires_grad)

    return {
        "plastic": tp.PlasticState(normal(N), normal(N, N)),
        "feed-forward": tp.PlasticState(normal(N), normal(2, N)),
        "none": tp.PlasticState(normal(N), None),
        "lstm": tp.LSTMState(normal(N), normal(N)),
    }


KINDS = list(states())


def parts(state):
    return [part for part in state if part is not None]


def test_a_state_prints_shapes_dtype_and_device():
    """And no values: a trace may fill megabytes."""
    big = tp.PlasticState(torch.zeros(4, 32), torch.zeros(4, 32, 32))
    assert repr(big) == str(big) == f"{big}" == "PlasticState(hidden=[4, 32], trace=[4, 32, 32], float32, cpu)"
    assert (
        repr(tp.PlasticState(torch.zeros(N), None).to("meta")) == "PlasticState(hidden=[4], trace=None, float32, meta)"
    )
    lstm = tp.LSTMState(torch.zeros(2, N), torch.zeros(2, N)).to(torch.float64)
    assert repr(lstm) == "LSTMState(hidden=[2, 4], cell=[2, 4], float64, cpu)"
    assert repr(tp.PlasticState(torch.zeros(2), torch.zeros(2).half())) == (
        "PlasticState(hidden=[2], trace=[2], float32, cpu, float16, cpu)"
    )
    # a tree of other values, such as in_dims of vmap
    assert repr(tp.PlasticState(0, None)) == "PlasticState(hidden=0, trace=None)"


@pytest.mark.parametrize("kind", KINDS)
class TestEveryState:
    def test_detach_keeps_values_and_cuts_the_graph(self, kind):
        state = states(requires_grad=True)[kind]
        detached = state.detach()
        assert type(detached) is type(state)
        assert len(parts(detached)) == len(parts(state))
        for before, after in zip(parts(state), parts(detached), strict=True):
            assert before.requires_grad
            assert not after.requires_grad
            assert torch.equal(before, after)

    def test_to_converts_every_part(self, kind):
        state = states()[kind]
        converted = state.to(torch.float64)
        assert type(converted) is type(state)
        assert all(part.dtype == torch.float64 for part in parts(converted))
        assert all(part.device.type == "meta" for part in parts(state.to("meta")))

    def test_reset_of_some_rows(self, kind):
        state = states()[kind]
        after = state.reset(torch.tensor([False, True, False]))
        for old, new in zip(parts(state), parts(after), strict=True):
            assert torch.equal(new[[0, 2]], old[[0, 2]])
            assert not new[1].any()
            assert old[1].any()  # the state itself is unchanged

    def test_reset_of_all(self, kind):
        for part in parts(states()[kind].reset()):
            assert not part.any()

    def test_reset_hides_even_what_is_not_finite(self, kind):
        state = states()[kind]
        broken = type(state)(*(None if part is None else part * float("nan") for part in state))
        for part in parts(broken.reset(torch.ones(B, dtype=torch.bool))):
            assert not part.any()

    def test_reset_of_an_unbatched_state(self, kind):
        state = states(B=None)[kind]
        assert all(
            torch.equal(a, b) for a, b in zip(parts(state.reset(torch.tensor(False))), parts(state), strict=True)
        )
        assert not any(part.any() for part in parts(state.reset(torch.tensor(True))))

    def test_no_gradient_passes_a_reset_row(self, kind):
        state = states(requires_grad=True)[kind]
        sum(part.sum() for part in parts(state.reset(torch.tensor([False, True, False])))).backward()
        for part in parts(state):
            assert not part.grad[1].any()
            assert part.grad[[0, 2]].all()

    def test_index_select_picks_in_its_order(self, kind):
        state = states()[kind]
        rows = torch.tensor([2, 0, 2, 1])
        picked = state.index_select(rows)
        assert type(picked) is type(state)
        for old, new in zip(parts(state), parts(picked), strict=True):
            assert torch.equal(new, old[rows])

    def test_unpacks_and_compares_as_a_tuple(self, kind):
        state = states()[kind]
        first, second, *_ = state
        assert first is state.hidden
        assert second is state[1]
