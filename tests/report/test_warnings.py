"""What a report warns of."""

import pytest

from tests.report.builders import write_run
from torchplastic.report.page_sections import make_sections
from torchplastic.report.sources import read_sources


@pytest.mark.parametrize(("eta", "warned"), [(-0.06, True), (1.2, True), (0.0, False), (1.0, False), (None, False)])
def test_a_learned_eta_that_is_no_rate(tmp_path, eta, warned):
    write_run(tmp_path / "run", extra=lambda e: {"eta": 0.01 if e < 200 else eta})
    (section,) = make_sections(read_sources([tmp_path / "run"]))
    assert ("Warning: eta has left 0 … 1" in section.note) == warned
    if warned:
        assert f"run ({eta})" in section.note
