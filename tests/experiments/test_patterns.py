"""The published result of the 1000-bit memory."""

import json

import pytest

from torchplastic.cli import main


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_fewer_than_one_bit_in_a_hundred_is_wrong_after_200_episodes(seed, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(SystemExit) as stop:
        main(["train", "patterns", "--preset", "paper", "--episodes", "200", "--seed", str(seed), "--out", str(run)])
    assert stop.value.code == 0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["episode"] == 200
    assert sum(row["error"] for row in rows[-2:]) / 2 < 0.01  # rows of 10 episodes
