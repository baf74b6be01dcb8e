"""The files around the package: workflows and forms are what their readers expect, one place holds the addresses."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
MAKEFILE = (ROOT / "Makefile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def read(path):
    return yaml.safe_load(path.read_text())


def steps(workflow):
    return [step for job in read(workflow)["jobs"].values() for step in job.get("steps", [])]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_jobs_have_a_limit_of_time_and_exist_where_they_are_needed(workflow):
    jobs = read(workflow)["jobs"]
    for name, job in jobs.items():
        assert "timeout-minutes" in job or "uses" in job, name
        assert set([job["needs"]] if "needs" in job else []) <= set(jobs), name


def test_workflows_run_targets_of_the_makefile():
    run = [step["run"] for workflow in WORKFLOWS for step in steps(workflow) if "run" in step]
    named = {target for line in run for target in re.findall(r"\bmake ([\w-]+)", line)}
    assert {"lint", "test", "test-fast", "docs"} <= named
    assert named <= set(re.findall(r"^([\w-]+):", MAKEFILE, re.M))


def test_local_actions_and_workflows_exist():
    local = {
        use["uses"]
        for workflow in WORKFLOWS
        for use in (*steps(workflow), *read(workflow)["jobs"].values())
        if use.get("uses", "").startswith("./")
    }
    assert local
    assert all((ROOT / path).exists() for path in local)


def test_every_promised_python_is_tested():
    promised = {line.rsplit(" ", 1)[1] for line in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", line)}
    matrix = read(GITHUB / "workflows" / "ci.yml")["jobs"]["test"]["strategy"]["matrix"]["include"]
    assert {row["python"] for row in matrix} == promised
    oldest = PROJECT["requires-python"].removeprefix(">=")
    assert {"python": oldest, "versions": "oldest"} in matrix


def test_the_oldest_torch_is_read_from_pyproject():
    install = read(GITHUB / "actions" / "environment" / "action.yml")["runs"]["steps"][-1]["run"]
    (sed,) = re.findall(r"\$\((sed .*?pyproject\.toml)\)", install)
    found = subprocess.run(["bash", "-c", sed], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30).stdout
    assert f"torch>={found.strip()}" in PROJECT["dependencies"]


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.stem)
def test_issue_forms_have_what_github_asks_for(form):
    content = read(form)
    assert content["name"]
    assert content["description"]
    identifiers = [field["id"] for field in content["body"]]
    assert len(set(identifiers)) == len(identifiers) > 1
    assert all(field["attributes"]["label"] for field in content["body"])


def test_pre_commit_runs_what_make_lint_runs():
    hooks = read(ROOT / ".pre-commit-config.yaml")["repos"][0]["hooks"]
    commands = re.search(r"^lint:.*\n((?:\t.*\n)+)", MAKEFILE, re.M)[1].replace("$(BIN)", ".venv/bin")
    assert [hook["entry"] for hook in hooks] == [line.strip() for line in commands.splitlines()]


REFUSED = {
    "A withheld character.": "withheld ==> validation, test",  # codespell:ignore
    "Lesson": "Lesson ==> Learner",  # codespell:ignore
    "pass an own rule": "an own ==> one's own, your own, its own",  # codespell:ignore
    "plastic train patterns --form quick": "--form ==> --preset",  # codespell:ignore
    "see `ops/plastic_scan/team.py`": "team.py ==> openmp.py",  # codespell:ignore
    "teh network": "teh ==> the",  # codespell:ignore
}


def test_spelling_refuses_the_words_that_the_project_does_not_use(tmp_path, run_process):
    page = tmp_path / "page.md"
    page.write_text("\n".join([*REFUSED, "a validation episode", "--format", "your own rule", "a team"]))
    done = run_process([sys.executable, "-m", "codespell_lib", page], code=65, cwd=ROOT)
    assert done.out.splitlines() == [f"{page}:{line}: {words}" for line, words in enumerate(REFUSED.values(), start=1)]


def test_every_address_is_that_of_pyproject():
    """Every other address of the repository is the same one."""
    repository = PROJECT["urls"]["Repository"]
    owner, name = repository.split("/")[-2:]
    assert PROJECT["urls"]["Issues"] == f"{repository}/issues"
    assert PROJECT["urls"]["Changelog"] == f"{repository}/blob/main/CHANGELOG.md"
    assert PROJECT["urls"]["Documentation"] == f"https://{owner}.github.io/{name}/"
    texts = [path for pattern in ("*.*", "docs/**/*.*", "src/**/*.*", "paper/*.*") for path in ROOT.glob(pattern)]
    named = {
        address
        for path in (*texts, *GITHUB.rglob("*.*"))
        if path.suffix in {".md", ".toml", ".yml", ".cff", ".py", ".html", ".bib"}
        for address in re.findall(rf"github\.com/[^/\s]+/{name}\b", path.read_text(encoding="utf-8"))
    }
    assert named == {repository.removeprefix("https://")}


def test_the_paper_cites_what_its_bibliography_has():
    paper, bibliography = ((ROOT / "paper" / name).read_text() for name in ("paper.md", "paper.bib"))
    _, front, text = paper.split("---\n", 2)
    front = yaml.safe_load(front)
    assert {"title", "tags", "authors", "affiliations", "date", "bibliography"} <= set(front)
    assert (ROOT / "paper" / front["bibliography"]).exists()
    entries = re.findall(r"^@\w+\{(\w+),", bibliography, re.M)
    assert sorted(entries) == sorted(set(re.findall(r"@(\w+)", text)))
