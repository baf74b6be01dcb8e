"""How the command starts: at once where it needs little, with a line where it takes time, and quietly under Ctrl-C."""

import logging
import os
import signal
import sys
import time

import pytest

import torchplastic
from tests.command import plastic
from torchplastic.cli import console
from torchplastic.experiments import catalog
from torchplastic.experiments.catalog import CATALOG

HEAVY = ("torch", "numpy", "tyro", "rich", "lightning_fabric", "matplotlib", "numba", "jinja2", "scipy")
BARE = f"""
import sys
sys.modules |= dict.fromkeys({HEAVY}, None)  # cannot be imported
sys.argv = ["plastic", *sys.argv[1:]]
from torchplastic.cli import main
main()
"""


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["list"], ["list", "--help"]])
def test_help_version_and_list_need_python_alone(args, run_process):
    before = os.times()
    done = run_process([sys.executable, "-c", BARE, *args])
    after = os.times()
    assert done.error == ""
    assert done.out
    user, system = after.children_user - before.children_user, after.children_system - before.children_system
    assert user + system < 0.5  # seconds of processor time


def test_wrong_use_that_needs_no_torch_answers_without_it(run_process):
    for args, words in ((["traim"], "did you mean train?"), (["list", "x"], "takes no options")):
        assert words in run_process([sys.executable, "-c", BARE, *args], code=2).error


@pytest.mark.parametrize("name", CATALOG)
def test_the_catalog_names_the_presets_that_are_there(name):
    assert list(catalog.get(name).presets) == list(CATALOG[name].presets)
    for preset in CATALOG[name].presets:
        config = catalog.settings(name, preset)
        assert (config.experiment, config.preset) == (name, preset)


def test_list_in_a_terminal_fits_its_width(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    assert plastic("list") == 0
    text = capsys.readouterr().out
    assert max(len(line) for line in text.splitlines()) <= 60
    words = " ".join(text.split())
    for name, entry in CATALOG.items():
        assert f"{name}: {entry.about}" in words
        assert all("; ".join(preset) in words for preset in entry.presets.values())


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals between processes")
@pytest.mark.parametrize("delay", [0.03, 0.1, 0.2, 0.4, 0.6])
def test_ctrl_c_while_it_starts_is_quiet(delay, tmp_path, run_process):
    code = (
        f"import sys; sys.argv = ['plastic', 'train', 'patterns', '--out', {str(tmp_path / 'run')!r}]; "
        "print('Python runs', flush=True); from torchplastic.cli import main; main()"
    )
    process = run_process.start([sys.executable, "-c", code])
    process.stdout.readline()
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    assert process.finish() == ("", "")
    assert process.returncode == 130
    assert not (tmp_path / "run").exists()


def test_ctrl_c_of_a_command_that_imports_nothing_is_quiet(monkeypatch, capsys):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr("torchplastic.cli.listing.run", interrupted)
    assert plastic("list") == 130
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


def test_loading_is_shown_on_a_terminal_until_it_ends(monkeypatch, capsys):
    handler = signal.getsignal(signal.SIGINT)
    with console.loading("imaginary", "Imaginary"):
        assert capsys.readouterr().err == ""  # a pipe
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with console.loading("torch", "PyTorch"):
        assert capsys.readouterr().err == ""  # it is loaded
    with console.loading("imaginary", "Imaginary"):
        assert capsys.readouterr().err == "loading Imaginary …"
    assert capsys.readouterr().err == "\r\x1b[K"
    assert signal.getsignal(signal.SIGINT) is handler


def test_the_package_speaks_only_where_the_command_asks(monkeypatch, capsys):
    log = logging.getLogger("torchplastic")
    log.info("one")
    with console.messages_shown():
        log.info("two")
        monkeypatch.setenv("LOCAL_RANK", "1")  # of several processes the first speaks
        log.info("three")
    log.info("four")
    assert capsys.readouterr().err == "two\n"


def test_reading_omniglot_is_said_once(small_omniglot, caplog):
    from torchplastic.data.resolve import load_characters

    with caplog.at_level(logging.INFO, "torchplastic"):
        for _ in range(2):
            load_characters(small_omniglot)
    (line,) = caplog.messages
    assert line.startswith(f"reading Omniglot from {small_omniglot}")


def test_compiling_is_said_once(caplog):
    numba = pytest.importorskip("numba")
    jit = pytest.importorskip("torchplastic.ops.plastic_scan.numba_cpu.jit")

    def fresh():
        def add(x):
            x[0] += 1

        return numba.njit(add, **jit.OPTIONS)

    jit._log_once.cache_clear()
    kernels = [fresh(), fresh()]
    with caplog.at_level(logging.INFO, "torchplastic"):
        for kernel in (kernels[0], *kernels):
            jit._address_of("add", kernel, "1", "float32")
    assert caplog.messages == ["compiling kernels for this machine, once (some seconds)"]


@pytest.mark.thorough
def test_compiling_is_said_where_the_cache_on_disk_has_nothing(tmp_path, run_process):
    pytest.importorskip("torchplastic.ops.plastic_scan.numba_cpu.jit")
    code = (
        "import logging, sys, torch, torchplastic as tp; logging.basicConfig(format='%(message)s', level='INFO'); "
        "tp.PlasticRNN(3, 8, impl='recurrent')(torch.zeros(2, 1, 3))"
    )
    for said in (["compiling kernels for this machine, once (some seconds)"], []):
        done = run_process([sys.executable, "-c", code], seconds=240, env={"NUMBA_CACHE_DIR": str(tmp_path)})
        assert [line for line in done.error.splitlines() if line.startswith("compiling")] == said


def test_version_is_the_package_s(capsys):
    assert plastic("--version") == 0
    assert capsys.readouterr().out == f"torchplastic {torchplastic.__version__}\n"
