"""Run directories that version 0.1.0 wrote before its settings were renamed: resumed, evaluated, reported, swept.

`tests/older_runs/NAME/run` is a finished run of each experiment. `continued.jsonl` and `continued-eval.json` are what
that version wrote when it went on to twice the episodes: today's version has to give the same, up to rounding between
machines.
"""

import json
import re
import shutil
from pathlib import Path

import pytest

pytest.importorskip("tyro", reason="the command needs the extra lab")

from tests.command import plastic, rows
from torchplastic.experiments import catalog
from torchplastic.experiments.launch import load
from torchplastic.legacy import modern
from torchplastic.report.grouping import group_runs
from torchplastic.report.sources import read_sources
from torchplastic.runs import RunDirectory, RunError, flatten

OLDER = Path(__file__).parent / "older_runs"
NAMES = ("patterns", "fifty-bit", "images", "omniglot", "maze")
DIALECT = re.compile(r'withheld|stand[-_ ]in|\bform\b|"held"|w_start|alpha_start|concentration')


@pytest.fixture
def run(request, tmp_path):
    return Path(shutil.copytree(OLDER / request.param / "run", tmp_path / "run"))


def values(path):
    return json.loads(path.read_text())


def numbers(row):
    return {key: value for key, value in row.items() if key != "seconds" and value is not None}


@pytest.mark.parametrize("run", NAMES, indirect=True)
def test_settings_have_todays_names(run):
    opened = RunDirectory.open(run)
    for found in (opened.config, opened.summary, *opened.metrics(), *opened.evals()):
        assert not DIALECT.search(json.dumps(found))
    assert opened.config["preset"] == "smoke"


@pytest.mark.parametrize("run", NAMES, indirect=True)
def test_every_setting_is_there(run, tmp_path):
    """A setting that a later version added has a row in legacy.ADDED; a run that lacks another is refused."""
    now = tmp_path / "now"
    config = RunDirectory.open(run).config
    assert config["preset"] == "smoke"
    expected = catalog.settings(config["experiment"], "smoke")
    assert flatten(config).keys() == flatten(expected.to_dict()).keys()
    shutil.copytree(run, now)
    written = values(now / "config.json")
    del written["model"]["eta"]
    (now / "config.json").write_text(json.dumps(written))
    with pytest.raises(RunError, match=r"config\.json lacks model\.eta\.$"):
        load(now)


@pytest.mark.parametrize("run", ["patterns"], indirect=True)
def test_an_implementation_has_its_present_name(run, capsys):
    config = values(run / "config.json")
    config["model"]["impl"] = "stepwise"
    (run / "config.json").write_text(json.dumps(config))
    assert RunDirectory.open(run).config["model"]["impl"] == "recurrent"
    bench = run / "bench.json"
    bench.write_text(json.dumps({"kind": "bench", "rows": [{"impl": "stepwise"}]}))
    (found,) = read_sources([bench]).benches
    assert found.rows == [{"impl": "recurrent"}]


@pytest.mark.parametrize("run", NAMES, indirect=True)
def test_a_run_goes_on_as_it_would_have(run, capsys):
    name, before = values(run / "config.json")["experiment"], (run / "metrics.jsonl").read_text()
    assert plastic("train", "--resume", run, "--episodes", 2 * values(run / "config.json")["episodes"]) == 0
    expected = [modern(json.loads(line), name) for line in (OLDER / name / "continued.jsonl").read_text().splitlines()]
    written = rows(run)
    assert [set(row) for row in written] == [set(row) for row in expected]
    for got, wanted in zip(written, expected, strict=True):
        assert numbers(got) == pytest.approx(numbers(wanted), rel=2e-3, abs=2e-4)
    assert len(written) > len(before.splitlines())
    assert not DIALECT.search((run / "metrics.jsonl").read_text() + (run / "config.json").read_text())

    capsys.readouterr()
    assert plastic("eval", run, "--episodes", 30, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    expected = modern(values(OLDER / name / "continued-eval.json"), name)
    assert result["split"] == expected["split"]
    measure = next(key for key in ("accuracy", "error", "reward") if key in expected)
    assert result[measure]["mean"] == pytest.approx(expected[measure]["mean"], rel=2e-3, abs=2e-3)
    assert set(result) == set(expected)


@pytest.mark.parametrize("run", NAMES, indirect=True)
def test_a_finished_run_is_evaluated_and_reported(run, capsys):
    assert plastic("eval", run, "--episodes", 20, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["preset"] == "smoke"
    assert result["trained_episodes"] == values(run / "config.json")["episodes"]
    assert plastic("report", run) == 0
    page = (run / "report" / "index.html").read_text()
    page = re.sub(r"<style.*?</style>|<script.*?</script>|data:image/[^\"']*", "", page, flags=re.S)
    text = re.sub(r"<[^>]*>", " ", page)
    assert not re.search(r"withheld|stand-in|\bform smoke\b", text)
    assert "preset smoke" in text


def test_measures_on_other_data_are_named_by_what_they_are():
    told = {"withheld_error": 1.0, "withheld_error_median": 2.0, "error": 3.0}
    assert modern(told, "omniglot") == {"test_error": 1.0, "test_error_median": 2.0, "error": 3.0}
    assert modern(told, "images") == {"val_error": 1.0, "val_error_median": 2.0, "error": 3.0}


def test_what_is_called_so_today_stays():
    for name in NAMES:
        once = modern(values(OLDER / name / "run" / "config.json"), name)
        assert modern(once, name) == once


def test_old_and_new_runs_are_one_group(tmp_path):
    old = shutil.copytree(OLDER / "images" / "run", tmp_path / "old")
    new = shutil.copytree(OLDER / "images" / "run", tmp_path / "new")
    config = {**RunDirectory.open(new).config, "seed": 4}
    (new / "config.json").write_text(json.dumps(config))
    (group,) = group_runs(read_sources([old, new]).runs)["images"]
    assert len(group.runs) == 2


def test_a_sweep_goes_on(tmp_path, capsys):
    sweep = shutil.copytree(OLDER / "sweep", tmp_path / "sweep")
    flags = ["--task.bits", 16, "--task.patterns", 2, "--task.shown", 2, "--task.cycles", 1]
    command = ["sweep", "patterns", "--preset", "smoke", *flags, "--jobs", 1, "--threads", 1, "--out", sweep]
    assert plastic(*command, "--episodes", 12, "--seeds", 2) == 0
    assert "2 of 2 seeds finished" in capsys.readouterr().out
