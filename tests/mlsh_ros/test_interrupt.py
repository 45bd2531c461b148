"""Ctrl-C at any moment of a command: one line, status 130, never lost."""

import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest
import typer

from mlsh_ros.cli import main as cli
from mlsh_ros.cli.console import bundle_interrupted, interrupted

# Modules that are interrupted as they are imported; some lose it or make another error of it.
SEND = "signal.raise_signal(signal.SIGINT)"
LOSE = f"try:\n    {SEND}\nexcept BaseException:\n    pass\n"
TURN = f"try:\n    {SEND}\nexcept BaseException:\n    raise ImportError('not initialized')\n"
LOADING = {
    "plain": SEND,
    "loses it": LOSE,
    "turns it": TURN,
    "twice": f"{SEND}\n{SEND}",
    "loses both": LOSE * 2,
    "loses one, turns one": LOSE + TURN,
    "in a callback": f"class A:\n    def __del__(self):\n        {SEND}\nA()",
}

# A process that is interrupted as it imports a module, where that would be lost.
PROCESS = """
import signal, sys
awaited = sys.argv.pop(1)
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == awaited:
            del sys.meta_path[0]
            try:
                signal.raise_signal(signal.SIGINT)
            except BaseException:
                pass
from mlsh_ros.cli.main import main
sys.meta_path.insert(0, Finder())
main()
"""


def send():
    signal.raise_signal(signal.SIGINT)


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a function as a command in this process; returns status, stdout, stderr."""
    monkeypatch.setattr(sys, "argv", ["mlsh", "command"])
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def call(function):
        app = typer.Typer()
        app.command("command")(function)
        app.callback()(lambda: None)
        monkeypatch.setattr("mlsh_ros.cli.app.command", lambda: typer.main.get_command(app))
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return caught.value.code, *capsys.readouterr()

    yield call
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def load(monkeypatch, tmp_path, request):
    """Imports the module with the given text."""
    (tmp_path / "loading.py").write_text(f"import signal\n{LOADING[request.param]}\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda: __import__("loading")
    sys.modules.pop("loading", None)


@pytest.mark.parametrize("load", LOADING, indirect=True)
@pytest.mark.parametrize("optional", [False, True])
@pytest.mark.parametrize("kept", ["", "nothing was written"])
def test_one_that_comes_during_an_import_is_not_lost(run, load, optional, kept):
    went_on = []

    def work():
        try:
            load()
        except ImportError:
            if not optional:
                raise
        time.sleep(10)
        went_on.append(True)

    def command():
        if not kept:
            return work()
        with interrupted(lambda: kept):
            return work()

    code, out, err = run(command)
    assert (code, out) == (130, "")
    assert err in ("interrupted\n", f"interrupted; {kept}\n")
    assert not went_on


@pytest.mark.parametrize("existed", [False, True])
@pytest.mark.parametrize("moved", [False, True])
def test_whether_a_bundle_was_written_is_seen_and_not_assumed(run, tmp_path, existed, moved):
    target, fresh = tmp_path / "bundle", tmp_path / "fresh"
    for folder in [fresh, *([target] if existed else [])]:
        folder.mkdir()

    def command():
        with bundle_interrupted(target):
            if moved:
                if existed:
                    target.rename(tmp_path / "old")
                fresh.rename(target)
            send()

    said = f"bundle {target} is written" if moved else "no bundle was written"
    assert run(command) == (130, "", f"interrupted; {said}\n")


@pytest.mark.parametrize("load", ["plain", "loses it"], indirect=True)
def test_it_is_delivered_to_the_handler_of_the_command(run, load):
    """As of mlsh train, which ends with what it has learned."""
    stop = threading.Event()

    def command():
        load()
        before = signal.signal(signal.SIGINT, lambda *_: stop.set())
        stopped = stop.wait(10)
        signal.signal(signal.SIGINT, before)
        return 7 if stopped else 8

    assert run(command) == (7, "", "")


def test_two_during_an_import_are_one(run, monkeypatch, tmp_path):
    """The second is raised at once, and the first does not come into what ends then."""
    (tmp_path / "loading.py").write_text(
        "import signal\n" + 2 * "signal.raise_signal(signal.SIGINT)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    ended = []

    def command():
        try:
            import loading  # noqa: F401
        finally:
            time.sleep(0.1)
            ended.append(True)

    assert run(command) == (130, "", "interrupted\n")
    assert ended == [True]


@pytest.mark.parametrize("load", ["plain"], indirect=True)
def test_one_that_comes_as_the_command_ends_is_not_lost(run, load):
    assert run(load) == (130, "", "interrupted\n")


def test_one_that_was_lost_in_a_destructor_is_not(run):
    class Lost:
        def __del__(self):
            with suppress(KeyboardInterrupt):
                send()

    assert run(lambda: print(bool(Lost()))) == (130, "True\n", "interrupted\n")


def test_it_ends_a_command_that_parses(run, monkeypatch):
    """Where typer ends without a word."""
    monkeypatch.setattr("typer.core.TyperGroup.parse_args", lambda *_: send())
    assert run(lambda: None) == (130, "", "interrupted\n")


def test_after_the_line_another_one_ends_the_process(run, monkeypatch):
    ended = []
    monkeypatch.setattr("os._exit", ended.append)

    def command():
        try:
            with interrupted(lambda: "all"):
                send()
        finally:
            send()  # cleaning up takes too long

    assert run(command) == (130, "", "interrupted; all\n")
    assert ended == [130]


def test_one_that_comes_as_the_process_ends_is_one_line(run, monkeypatch, capsys):
    ended = []
    monkeypatch.setattr("os._exit", ended.append)
    assert run(lambda: None) == (0, "", "")
    send()
    assert ended == [130]
    assert capsys.readouterr().err == "interrupted\n"


def test_where_it_is_ignored_it_stays_so(run):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert run(send) == (0, "", "")


@pytest.mark.parametrize(
    "name", ["typer", "mlsh_ros.cli.app", "numpy", "onnxruntime", "policies.bundle.runtime"]
)
def test_a_process_that_loads_ends_with_one_line(tmp_path, name):
    done = subprocess.run(
        [sys.executable, "-c", PROCESS, name, "check-bundle", "moving_bandits"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    # What it printed does not matter: it may be done before the interrupt is delivered.
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
