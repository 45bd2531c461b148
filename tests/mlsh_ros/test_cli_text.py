"""What `mlsh` prints: data as it is, never as markup; a fault of ours is one line too."""

import errno
import io
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, get_args, get_origin, get_type_hints

import pytest
import typer
from rich.table import Table

import mlsh_ros.cli
from mlsh_ros.cli import console as console_module
from mlsh_ros.cli.app import app
from mlsh_ros.cli.console import Screen, progress_bar
from mlsh_ros.cli.train import Display
from policies.bundle.bundle import PRETRAINED
from sim.physics.robot_model import ROBOTS
from tests.support.mutations import fresh

HOSTILE = ["a[/x]", "foo[red]x", "[bold]", "a[link=http://b]c[/link]", ":smile:", "[/]"]
TREE = typer.main.get_command(app)
COMMANDS = sorted(Path(mlsh_ros.cli.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_path_is_shown_as_it_is(mlsh, tmp_path, name):
    folder = tmp_path / name.replace("/", "_")
    shutil.copytree(PRETRAINED / "moving_bandits", folder)
    code, out, err = mlsh("check-bundle", folder)
    assert (code, err) == (0, "")
    assert str(folder) in out.replace("\n", "")


@pytest.mark.parametrize("name", ["[/x]", "[red]x"])
def test_the_folder_of_a_report_is_shown_as_it_is(mlsh, name):
    code, out, err = mlsh("evaluate", "moving_bandits", "--episodes", "1e0", "-o", name)
    assert (code, err) == (0, "")
    assert f"report: {name}/report.html" in out


@pytest.mark.parametrize("name", [*HOSTILE, "a\nb", "a\x1b[31mb", "a" * 5000])
@pytest.mark.parametrize(
    "words",
    [
        ["check-bundle"],
        ["check-robot"],
        ["evaluate"],
        ["evaluate", "moving_bandits", "--robot"],
        ["evaluate", "moving_bandits", "--sim-params"],
        ["evaluate", "moving_bandits", "--task"],
        ["evaluate", "moving_bandits", "--backend"],
        ["train"],
        ["train", "moving_bandits", "--set"],
        ["export"],
        ["compare-runs"],
        ["launch"],
        ["--x"],
    ],
    ids=" ".join,
)
def test_a_wrong_name_is_one_line_that_shows_it(mlsh, words, name):
    code, _, err = mlsh(*words, name)
    assert code in (1, 2)
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert err.rstrip("\n").isprintable()


@pytest.mark.parametrize("text", [*HOSTILE, "a\x1b[31mb", "a\nb", "\u202eb"])
def test_the_screen_interprets_nothing(text):
    screen = Screen(200)
    with screen.capture() as caught:
        screen.print(text)
    shown = caught.get().rstrip("\n")
    assert shown == text.encode("unicode_escape").decode() or shown == text
    table = Table(box=None, title=text)
    table.add_column(text)
    table.add_row(text)
    with screen.capture() as caught:
        screen.print(table)
    assert caught.get().count(shown) == 3
    assert all(line.isprintable() for line in caught.get().splitlines())


def test_a_bar_interprets_nothing():
    bar = progress_bar()
    bar.add_task("a\x1b[31m[red]b\n")
    shown = bar.columns[0].render(bar.tasks[0])
    assert (shown.plain, shown.spans) == (r"a\x1b[31m[red]b\n", [])


def test_a_training_shows_the_name_of_its_robot_as_it_is():
    config = SimpleNamespace(iterations=1, family="moving_bandits", robot="x\x1b[31m")
    display = Display(SimpleNamespace(config=config, path=Path("run")))
    text = io.StringIO()
    screen = Screen(80)
    screen.file = text
    screen.print(display.bar)
    assert r"moving_bandits on x\x1b[31m" in text.getvalue()
    assert "\x1b" not in text.getvalue()


def test_commands_print_through_one_screen():
    for path in COMMANDS:
        source = path.read_text()
        if path.name == "console.py":
            continue
        assert not re.search(r"\bprint\(", source.replace("console.print(table)", "")) or (
            path.name == "check_robot.py"
        ), path
        assert "Console(" not in source, path
        assert "console.print(f" not in source, path
        assert "TextColumn" not in source, path  # `Words` are


def test_help_shows_its_brackets(mlsh):
    code, out, _ = mlsh("export", "--help")
    assert code == 0
    assert "[lowest, highest]" in re.sub(r"[\s│]+", " ", out)


def words_of(text):
    """The visible words of a help page or of a help text, however the lines are broken."""
    return re.sub(r"[\s│╭╰─╮╯]+", "", text)


@pytest.mark.parametrize("name", sorted(TREE.commands))
def test_every_help_text_is_shown_whole(mlsh, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    raw = TREE.commands[name]
    code, out, err = mlsh(name, "--help")
    assert (code, err) == (0, "")
    shown = words_of(out)
    for described in (raw, *raw.params):
        for part in re.split(r"\n\s*\n", described.help or ""):
            for word in part.split():  # a table may put another column between two words
                assert words_of(word) in shown, (described.name, word)


@pytest.mark.parametrize("name", sorted(TREE.commands))
def test_every_parameter_has_a_help_text(name):
    for parameter in TREE.commands[name].params:
        assert parameter.help, parameter.name
        assert parameter.help[-1] == ".", parameter.help


@pytest.mark.parametrize("error", [OverflowError, RecursionError, KeyError, MemoryError])
def test_a_fault_of_ours_is_one_line_and_a_file(mlsh, monkeypatch, tmp_path, error):
    def fail(_):
        raise error("int too\nlarge \x1b[31m")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("policies.bundle.bound_bundle.load_bundle", fail)
    code, _, err = mlsh("check-bundle", "moving_bandits")
    assert code == 70
    assert err.startswith(f"error: internal error: {error.__name__}: ")
    assert err.count("\n") == 1
    assert err.rstrip("\n").isprintable()
    assert "Traceback" not in err
    (path,) = re.findall(r"details in (\S+); ", err)
    assert "Traceback" in Path(path).read_text()
    assert "moving_bandits" in Path(path).read_text()


def test_an_interrupt_that_became_another_error_is_one(mlsh, monkeypatch):
    """An extension module that is being imported makes an ImportError of it."""

    def fail(_):
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise ImportError("initialization failed")

    monkeypatch.setattr("policies.bundle.bound_bundle.load_bundle", fail)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code, _, err = mlsh("check-bundle", "moving_bandits")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (code, err) == (130, "interrupted\n")


def test_a_fault_of_ours_without_a_place_for_it(mlsh, monkeypatch, tmp_path):
    def fail(_):
        raise OverflowError

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    monkeypatch.setattr("policies.bundle.bound_bundle.load_bundle", fail)
    code, _, err = mlsh("check-bundle", "moving_bandits")
    assert code == 70
    assert "nowhere to write the details" in err


@pytest.mark.parametrize("words", [["check-bundle"], ["evaluate"], ["play", "-o", "a.png"]])
def test_a_bundle_of_the_same_name_in_the_folder_is_not_passed_over(mlsh, tmp_path, words):
    fresh(tmp_path).bundle.rename(tmp_path / "rooms")
    code, _, err = mlsh(words[0], "rooms", *words[1:])
    assert code == 1
    assert "write ./rooms" in err
    assert mlsh("check-bundle", "./rooms")[0] == 0


def test_a_robot_of_the_same_name_in_the_folder_is_not_passed_over(mlsh, tmp_path):
    shutil.copytree(ROBOTS / "omni", tmp_path / "omni")
    for words in (["check-robot", "omni"], ["evaluate", "moving_bandits"]):
        code, _, err = mlsh(*words)
        assert code == 1
        assert "robot 'omni' is a shipped one, and 'omni' stands in the current folder too" in err
    code, _, err = mlsh("evaluate", "moving_bandits", "--episodes", "1", "--robot", "./omni")
    assert (code, err) == (0, "")


def test_a_sim_params_of_the_same_name_in_the_folder_is_not_passed_over(mlsh, tmp_path):
    name = sorted(ROBOTS.glob("*/sim_params/*.yaml"))[0]
    (tmp_path / name.stem).write_text("schema: 2\n")
    robot = name.parent.parent.name
    bundle = {"omni": "moving_bandits", "rover": "body_bandits", "ant": "ant_four"}[robot]
    code, _, err = mlsh("evaluate", bundle, "--sim-params", name.stem)
    assert code == 1
    assert f"sim parameters '{name.stem}' is a shipped one, and" in err


@pytest.mark.parametrize("words", [["--seed", "1e0"], ["--episodes", "1E0"]])
def test_whole_numbers_may_be_written_in_powers_of_ten(mlsh, words):
    assert mlsh("evaluate", "moving_bandits", "--episodes", "1", *words)[0] == 0


def test_every_whole_number_may():
    found = {
        (each.callback.__name__, name): option.parser
        for each in app.registered_commands
        for name, hint in get_type_hints(each.callback, include_extras=True).items()
        if get_origin(hint) is Annotated
        for kind, option in [get_args(hint)]
        if int in (kind, *get_args(kind)) and name != "domain"
    }
    assert ("import_skill", "decision_ticks") in found
    assert [place for place, parser in found.items() if parser is None] == []


def test_the_width_of_a_pipe_cuts_no_line(monkeypatch):
    screen = Screen(40)
    monkeypatch.setattr(console_module, "console", screen)
    with screen.capture() as caught:
        console_module.say("a " * 100)
    assert caught.get().count("\n") == 1


# Nothing is made before the input has been checked ----------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "moving_bandits", "--sim-params", "nope"],
        ["evaluate", "moving_bandits", "--robustness", "nope=0:1"],
        ["evaluate", "moving_bandits", "--task", "moving_bandits/nope"],
        ["evaluate", "moving_bandits", "--master", "nope"],
        ["evaluate", "moving_bandits", "--robot", "rover"],
        ["plot", "moving_bandits", "--robot", "rover", "-o", "new/a.png"],
        ["play", "moving_bandits", "--master", "nope", "-o", "a.gif"],
        ["demo", "--bundle", "nope"],
        ["finetune", "moving_bandits", "--task", "nope/nope"],
        ["finetune", "moving_bandits", "--task", "moving_bandits/goal-0", "--sim-params", "nope"],
        ["eval-transfer", "moving_bandits", "nope"],
        ["export", "nope"],
        ["train", "moving_bandits", "--set", "nope=1"],
        ["train", "moving_bandits", "--sim-params", "nope"],
        ["train", "nope"],
        ["sweep", "nope"],
        ["sweep", "moving_bandits", "--variant", "nope"],
        ["gap", "moving_bandits", "nope.mcap"],
        ["sysid", "moving_bandits", "nope.mcap"],
        ["replay", "nope.mcap", "moving_bandits"],
        ["compare-runs", "nope"],
        ["launch", "sim", "bundle:=nope"],
        ["new-robot", "mine", "--mjcf", "nope.xml", "-o", "new/mine"],
        ["check-robot", "nope"],
    ],
    ids=" ".join,
)
def test_wrong_input_leaves_nothing_behind(mlsh, tmp_path, words):
    code, _, err = mlsh(*words)
    assert code in (1, 2)
    assert err.startswith("error: ")
    assert list(tmp_path.iterdir()) == []


def test_files_of_users_are_read_strictly():
    root = Path(mlsh_ros.cli.__file__).parents[2]
    for package in ("sim", "policies", "mlsh_ros"):
        for path in (root / package).rglob("*.py"):
            if path.parent.name != "files":
                assert not re.search(r"yaml\.(safe_)?load|json\.loads?\(", path.read_text()), path


def test_the_work_goes_on_when_nobody_reads_its_output(tmp_path):
    """`| head -1`: the report is written, and the status says that output was lost."""
    command = f"{sys.executable} -m mlsh_ros.cli.main evaluate moving_bandits --episodes 1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} | true"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert (tmp_path / "reports" / "report.json").is_file()


def test_output_that_cannot_be_written_is_said_once_and_ends_nothing(monkeypatch, capsys):
    screen = Screen(80)

    class Full(io.StringIO):
        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    screen.file = Full()
    for _ in range(3):
        screen.print("a line")
    assert screen.failed.strerror == "No space left on device"


TWICE = ("--set", "threads=1", "--set", "threads=2")


@pytest.mark.parametrize(
    "words",
    [
        ("train", "moving_bandits", *TWICE),
        ("finetune", "moving_bandits", "--task", "ring_bandits/sector-0", *TWICE),
        ("eval-transfer", "moving_bandits", "ring_bandits", *TWICE),
        ("sweep", "moving_bandits", "--set", "steps=1", "--set", "steps=2"),
    ],
)
def test_a_setting_that_is_given_twice_is_one_line(mlsh, tmp_path, words):
    code, out, err = mlsh(*words)
    assert (code, out, err.count("\n")) == (1, "", 1), err
    assert ": give it once" in err
    assert not list(tmp_path.iterdir())
