import base64
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.report.builders import some_samples, write_bench, write_run, write_sweep
from torchplastic.report import make_report, page, page_sections

pytestmark = pytest.mark.thorough


def test_a_run_on_one_self_contained_page(tmp_path):
    run = write_run(tmp_path / "run", samples=some_samples())
    index = make_report([run])
    assert index == run / "report" / "index.html"
    html = index.read_text()
    assert not re.search(r"https?://", html)
    assert "<script src" not in html
    assert html.count("<script") == 1  # to look closer at a matrix
    assert "<link" in html
    sources = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert all(source.startswith(("data:", "#")) for source in sources)
    names = {path.name for path in (run / "report" / "figures").iterdir()}
    stems = ["loss", "error", "pictures", "matrix-w", "matrix-alpha", "joint", "line-wrong-bits-by-step"]
    assert names == {f"patterns-{stem}.{ending}" for stem in stems for ending in ("png", "svg")}
    assert html.count("<figure") == len(stems)
    svg = (run / "report" / "figures" / "patterns-loss.svg").read_bytes()
    assert base64.b64encode(svg).decode() in html
    # No reference out of the figures either: an SVG in the page may hold its pixels, not fetch them.
    links = re.findall(
        rb'xlink:href="([^"]*)"', b"".join(path.read_bytes() for path in index.parent.glob("figures/*.svg"))
    )
    assert all(link.startswith((b"#", b"data:")) for link in links)


def test_the_page_says_what_was_run(tmp_path):
    run = write_run(tmp_path / "run", seed=7, samples=some_samples(), note='<b>"quoted"</b>')
    html = make_report([run], tmp_path / "out").read_text()
    for text in (
        "preset paper; seed 7", "plastic train patterns --preset paper --seed 7 --episodes 300", "Imaginary CPU 3000",
        "torch 2.13.0", "random bits", "<details>", "&#34;alpha&#34;: &#34;full&#34;", "NIPS 2017 workshop",
        "Same sign:", "0 of 40 wrong", f"plastic report {run}",
    ):  # fmt: skip
        assert text in html
    assert "<b>" not in html


def test_a_noted_command_is_shown_as_it_was(tmp_path):
    run = write_run(tmp_path / "run", command=["plastic", "train", "patterns", "--task.bits", "40"])
    assert "plastic train patterns --task.bits 40" in make_report([run]).read_text()


def test_several_runs_grouped_by_experiment(tmp_path):
    paths = [
        write_sweep(tmp_path / "p", range(5), samples=some_samples()),
        write_sweep(tmp_path / "n", range(2), model={"alpha": "none"}),
        write_run(tmp_path / "f", experiment="fifty-bit", preset="released", task={"bits": 50}, model={"kind": "rnn"}),
        write_bench(tmp_path / "b.json"),
    ]
    index = make_report(paths, tmp_path / "out")
    html = index.read_text()
    assert re.findall(r'<h2 id="([^"]*)"', html) == ["patterns", "fifty-bit", "speed-and-memory"]
    for text in (
        "7 runs; preset paper; seeds 0–4",
        "not plastic",
        "plastic, α per connection",
        "How cost grows",
        "12.5 ×",
        "With fewer than 5 runs, each is a thin line.",
        "Line: median over runs; band: first to third quartile.",
    ):
        assert text in html
    figures = {path.stem for path in (tmp_path / "out" / "figures").glob("*.png")}
    assert {
        "patterns-error",
        "patterns-error-median",
        "fifty-bit-error",
        "bench-n-seconds",
        "bench-b-peak-bytes",
    } <= figures
    assert "patterns-plastic-alpha-per-connection-pictures" in figures
    ids = re.findall(r' id="([^"]*)"', html)
    assert len(ids) == len(set(ids))


def test_two_bench_files_keep_their_figures(tmp_path):
    index = make_report([write_bench(tmp_path / "a.json"), write_bench(tmp_path / "b.json")], tmp_path / "out")
    assert len(list((tmp_path / "out" / "figures").glob("*.svg"))) == 12
    assert 'id="speed-and-memory-2"' in index.read_text()


def test_a_run_that_has_just_started(tmp_path):
    run = write_run(tmp_path / "run", finished=False)
    (run / "metrics.jsonl").unlink()
    html = make_report([run]).read_text()
    assert "No metrics have been written yet." in html
    assert "at episode 0 of 300" in html
    (run / "metrics.jsonl").write_text(
        '{"episode": 10, "seconds": 1.0, "loss": 5.0, "error": 0.2, "eta": 0.01}\n{"epis'
    )
    html = make_report([run]).read_text()
    assert "at episode 10 of 300" in html
    assert "not reached in 10" in html


def test_drawing_again_leaves_no_old_figure_and_nothing_else_is_touched(tmp_path):
    run = write_run(tmp_path / "run", samples=some_samples())
    index = make_report([run])
    mine = [index.parent / name for name in ("notes.md", "figures/mine.png", "figures/mine.svg", "figures/mine.gif")]
    for path in mine:
        path.write_text("mine")
    (run / "samples.npz").unlink()
    assert make_report([run]) == index
    assert {path.stem for path in index.parent.glob("figures/*")} == {"patterns-loss", "patterns-error", "mine"}
    assert all(path.read_text() == "mine" for path in mine)


def test_a_failed_drawing_leaves_the_old_page(tmp_path):
    run = write_run(tmp_path / "run")
    before = make_report([run]).read_bytes()
    (run / "samples.npz").write_bytes(b"torn")
    with pytest.raises(ValueError, match="cannot be read"):
        make_report([run])
    with pytest.raises(ValueError, match="cannot be read"):
        make_report([run, write_run(tmp_path / "two", seed=1)], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert (run / "report" / "index.html").read_bytes() == before
    assert not list((run / "report").rglob(".*"))


def test_default_folder_of_several_is_always_new(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(page.time, "strftime", lambda _: "20250102-030405")
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", seed=1)]
    first, second = make_report(runs), make_report(runs)
    assert first == Path("runs/reports/20250102-030405/index.html")
    assert second == Path("runs/reports/20250102-030405-2/index.html")


def test_a_report_of_a_sweep_lies_in_it_and_is_drawn_again(tmp_path):
    sweep = write_sweep(tmp_path / "s", range(2))
    assert make_report([sweep]) == make_report([sweep]) == sweep / "report" / "index.html"


def test_a_folder_with_a_report_takes_the_next_one(tmp_path):
    run, out = write_run(tmp_path / "run"), tmp_path / "out"
    first = make_report([run], out).read_text()
    write_run(tmp_path / "two", seed=1)
    assert make_report([run, tmp_path / "two"], out).read_text() != first
    (out / "index.html").write_text("<title>my site</title>")
    with pytest.raises(ValueError, match=r"index\.html is not as plastic report wrote it"):
        make_report([run], out)
    assert (out / "index.html").read_text() == "<title>my site</title>"


def test_a_full_folder_is_refused(tmp_path):
    run = write_run(tmp_path / "run")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("…")
    with pytest.raises(ValueError, match="exists, is not empty, and has no report in it"):
        make_report([run], tmp_path / "out")
    with pytest.raises(ValueError, match="exists, is not empty"):
        make_report([run], run)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="exists, is not empty"):
        make_report([run], tmp_path / "link")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]
    (tmp_path / "empty").mkdir()
    assert make_report([run], tmp_path / "empty").exists()


@pytest.mark.parametrize("place", ["report", "report/figures"])
def test_a_link_is_not_followed_out_of_a_run(place, tmp_path):
    run, album = write_run(tmp_path / "run"), tmp_path / "album"
    album.mkdir()
    (album / "holiday.png").write_text("mine")
    (run / place).parent.mkdir(exist_ok=True)
    (run / place).symlink_to(album)
    for out in (None, run / "report"):
        with pytest.raises(ValueError, match=f"{place} is a link to {album}; links are not followed"):
            make_report([run], out)
    assert [path.name for path in album.iterdir()] == ["holiday.png"]


@pytest.mark.parametrize("place", ["report", "report/figures"])
def test_a_file_in_the_place_of_a_folder_stays(place, tmp_path):
    run = write_run(tmp_path / "run")
    (run / place).parent.mkdir(exist_ok=True)
    (run / place).write_text("mine")
    with pytest.raises(ValueError, match=f"{place} is no folder; move it away"):
        make_report([run])
    assert (run / place).read_text() == "mine"


def test_wrong_paths(tmp_path):
    with pytest.raises(ValueError, match="at least one"):
        make_report([])
    with pytest.raises(ValueError, match="is no run directory, sweep or bench file: it does not exist"):
        make_report([tmp_path / "x"])


def test_chance_that_is_a_drawn_level_is_not_drawn_twice():
    told = {"reward": {"chance": 0.5}, "baselines": {"random walk": 0.5, "perfect knowledge": 9.0}}
    groups = [SimpleNamespace(runs=[SimpleNamespace(evaluations=[told])])]
    assert page_sections._chance(groups, "reward", {"random walk": 0.6}) is None
    assert page_sections._chance(groups, "reward", {"perfect knowledge": 9.1}) == 0.5
    assert page_sections._chance(groups, "reward", {}) == 0.5
