"""Downloads from a server of our own: several places, checksum, resume, offline."""

import hashlib
import http.server
import threading
from typing import ClassVar

import pytest

from torchplastic import cli
from torchplastic.data import download
from torchplastic.data.download import Source, fetch

CONTENT = bytes(range(256)) * 4000


class Server(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT; /half breaks off in the middle, /other has another content, /plain knows no ranges."""

    asked: ClassVar[list] = []

    def do_GET(self):
        place = self.path.split("/")[1]
        wanted = self.headers.get("Range")
        self.asked.append((place, wanted))
        if place == "gone":
            self.send_error(404)
            return
        content = CONTENT[::-1] if place == "other" else CONTENT
        start = int(wanted[6:-1]) if wanted and place != "plain" else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : len(content) // 2 if place == "half" else None])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    Server.asked = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def places(monkeypatch, *urls):
    md5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    monkeypatch.setitem(download.SOURCES, "cifar10", (tuple(Source(f"{url}/set.bin", "set.bin", md5) for url in urls),))


def test_the_first_place_that_gives_it_whole(server, tmp_path, monkeypatch):
    places(monkeypatch, f"{server}/gone", f"{server}/other", f"{server}/good")
    (path,) = fetch("cifar10", tmp_path / "new")
    assert path.read_bytes() == CONTENT
    assert [file.name for file in path.parent.iterdir()] == ["set.bin"]
    before = len(Server.asked)
    assert fetch("cifar10", tmp_path / "new") == [path]
    assert len(Server.asked) == before  # it is there


def test_a_file_of_another_place_is_enough(server, tmp_path, monkeypatch):
    places(monkeypatch, f"{server}/good")
    other = Source(f"{server}/good/other.bin", "other.bin", hashlib.md5(b"other", usedforsecurity=False).hexdigest())
    monkeypatch.setitem(download.SOURCES, "cifar10", ((*download.SOURCES["cifar10"][0], other),))
    (tmp_path / "other.bin").write_bytes(b"other")
    assert fetch("cifar10", tmp_path) == [tmp_path / "other.bin"]
    assert Server.asked == []


def test_stdout_has_the_path_alone(server, tmp_path, monkeypatch, capsys):
    places(monkeypatch, f"{server}/good")
    with pytest.raises(SystemExit) as stop:
        cli.main(["data", "fetch", "cifar10", "--data-dir", str(tmp_path)])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"{tmp_path / 'set.bin'}\n"


@pytest.mark.parametrize("then", ["good", "plain"])
def test_a_download_that_broke_off_goes_on(server, tmp_path, monkeypatch, then):
    places(monkeypatch, f"{server}/half")
    with pytest.raises(ConnectionError, match="could not be downloaded"):
        fetch("cifar10", tmp_path)
    part = tmp_path / "set.bin.torchplastic-part"
    assert 0 < part.stat().st_size <= len(CONTENT) // 2
    places(monkeypatch, f"{server}/{then}")
    have = part.stat().st_size
    assert fetch("cifar10", tmp_path)[0].read_bytes() == CONTENT
    assert Server.asked[-1] == (then, f"bytes={have}-")
    part.write_bytes(CONTENT)  # whole, and only its name was still to be changed
    (tmp_path / "set.bin").unlink()
    places(monkeypatch, f"{server}/good")
    assert fetch("cifar10", tmp_path)[0].read_bytes() == CONTENT


def test_the_part_of_another_program_is_left_alone(server, tmp_path, monkeypatch):
    """A browser that downloads the same file into the same folder."""
    (tmp_path / "set.bin.part").write_bytes(b"the browser's")
    places(monkeypatch, f"{server}/good")
    assert fetch("cifar10", tmp_path)[0].read_bytes() == CONTENT
    assert (tmp_path / "set.bin.part").read_bytes() == b"the browser's"


def test_offline_says_what_is_enough(tmp_path, monkeypatch, capsys):
    places(monkeypatch, "http://127.0.0.1:9")
    with pytest.raises(SystemExit) as stop:
        cli.main(["data", "fetch", "cifar10", "--data-dir", str(tmp_path)])
    assert stop.value.code == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "no connection" in error
    assert f"put set.bin into {tmp_path}" in error


def test_a_foreign_file_is_not_overwritten(server, tmp_path, monkeypatch):
    places(monkeypatch, f"{server}/good")
    (tmp_path / "set.bin").write_bytes(b"mine")
    with pytest.raises(ValueError, match="not the official file"):
        fetch("cifar10", tmp_path)
    assert (tmp_path / "set.bin").read_bytes() == b"mine"
    with pytest.raises(ValueError, match="cannot make the folder"):
        fetch("cifar10", tmp_path / "set.bin")


def test_a_wrong_checksum_is_said(server, tmp_path, monkeypatch):
    places(monkeypatch, f"{server}/other")
    with pytest.raises(ConnectionError, match="its checksum differs"):
        fetch("cifar10", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["data"], ["data", "get"], ["data", "fetch"], ["data", "fetch", "mnist"]])
def test_wrong_use(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("plastic: error:")
