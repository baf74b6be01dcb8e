"""A report replaces and removes what the program wrote there, unchanged, and nothing else."""

import json

import pytest

from torchplastic.report import folder as module
from torchplastic.report.folder import MARK, write

PAGE = b"<title>1 \xe2\x80\x93 " + MARK
OLD = {"loss.png": b"loss 1", "map.png": b"map 1", "way.gif": b"way 1"}
NEW = {"loss.png": b"loss 2", "error.svg": b"error 2"}


@pytest.fixture
def folder(tmp_path):
    """Drawn once."""
    write(tmp_path / "report", PAGE, OLD)
    return tmp_path / "report"


def held(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "files.json"
    }


def named(figures, page=PAGE):
    return {"index.html": page} | {f"figures/{name}": content for name, content in figures.items()}


def test_figures_that_are_not_drawn_any_more_go(folder):
    assert held(folder) == named(OLD)
    assert write(folder, b"page 2", NEW) == folder / "index.html"
    assert held(folder) == named(NEW, b"page 2")
    write(folder, b"page 3", OLD)  # as often as one likes
    assert held(folder) == named(OLD, b"page 3")


def test_files_of_the_user_stay(folder):
    """Also one that was drawn and then changed, and copies of drawn ones under other names."""
    mine = {"figures/mine.png": b"mine", "figures/map.png": b"map 1, annotated", "figures/copy.png": b"map 1"}
    for name, content in mine.items():
        (folder / name).write_bytes(content)
    write(folder, b"page 2", NEW)
    assert held(folder) == named(NEW, b"page 2") | mine
    write(folder, b"page 3", {})
    assert held(folder) == {"index.html": b"page 3"} | mine


@pytest.mark.parametrize("name", ["index.html", "figures/loss.png", "figures/error.svg"])
def test_a_file_of_the_user_is_not_written_over(folder, name):
    (folder / name).write_bytes(b"annotated")
    before = held(folder)
    with pytest.raises(ValueError, match=f"{name} is not as plastic report wrote it; move it away") as caught:
        write(folder, b"page 2", NEW)
    assert "\n" not in str(caught.value)
    assert held(folder) == before


@pytest.mark.parametrize("name", ["index.html", "figures/loss.png", "figures/error.svg", "files.json"])
def test_nothing_is_written_through_a_link(folder, name, tmp_path):
    kept = tmp_path / "kept"
    kept.write_bytes((folder / name).read_bytes() if (folder / name).exists() else b"mine")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(kept)
    before = kept.read_bytes()
    with pytest.raises(ValueError, match=f"{name} is"):
        write(folder, b"page 2", NEW)
    assert (folder / name).is_symlink()
    assert kept.read_bytes() == before


def test_a_link_in_the_place_of_an_old_figure_stays(folder, tmp_path):
    (folder / "figures" / "map.png").rename(tmp_path / "map.png")
    (folder / "figures" / "map.png").symlink_to(tmp_path / "map.png")
    write(folder, b"page 2", NEW)
    assert (folder / "figures" / "map.png").read_bytes() == b"map 1"


def test_a_report_from_before_there_were_digests(folder):
    """It is drawn again; what is not drawn any more stays."""
    (folder / "files.json").unlink()
    write(folder, b"page 2", NEW)
    assert held(folder) == named(OLD | NEW, b"page 2")


def test_a_page_of_the_user_is_no_report(tmp_path):
    (tmp_path / "index.html").write_text("<title>my notes</title>")
    with pytest.raises(ValueError, match=r"index\.html is not as plastic report wrote it"):
        write(tmp_path, PAGE, NEW)
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_names_lead_nowhere_else(folder, tmp_path):
    (tmp_path / "thesis.png").write_bytes(b"map 1")
    digests = json.loads((folder / "files.json").read_text())
    digests |= {
        "figures/../../thesis.png": digests["figures/map.png"],
        str(tmp_path / "thesis.png"): digests["index.html"],
    }
    (folder / "files.json").write_text(json.dumps(digests))
    write(folder, b"page 2", NEW)
    assert (tmp_path / "thesis.png").exists()
    (folder / "files.json").write_text('{"index.html": 1}')
    with pytest.raises(ValueError, match=r"files\.json is not what plastic report writes"):
        write(folder, b"page 3", NEW)


class Killed(BaseException):
    pass


def test_killed_at_any_moment_it_is_drawn_again(tmp_path, monkeypatch):
    from torchplastic import runs

    replace_file = runs.replace_file
    for fatal in range(6):
        folder, count = tmp_path / str(fatal), iter(range(100))
        write(folder, PAGE, OLD)

        def dies(path, content, count=count, fatal=fatal):
            if next(count) == fatal:
                raise Killed
            replace_file(path, content)

        with monkeypatch.context() as patched:
            patched.setattr(module, "replace_file", dies)
            patched.setattr(runs, "replace_file", dies)
            if fatal < 5:  # digests, two figures, the page, digests
                with pytest.raises(Killed):
                    write(folder, b"page 2", NEW)
            else:
                write(folder, b"page 2", NEW)
        write(folder, b"page 3", {"error.svg": b"error 3"})
        assert held(folder) == named({"error.svg": b"error 3"}, b"page 3")
