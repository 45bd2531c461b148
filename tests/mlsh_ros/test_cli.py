"""The command `mlsh`: what goes wrong is one line and a status, what goes well is done."""

import csv
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlsh_ros.cli import main as cli
from mlsh_ros.cli.renamed import COMMANDS, OPTIONS
from policies.bundle.bundle import load_bundle, pretrained_names
from sim.files import output
from tests.support.changelog import renamed

B = "moving_bandits"
TINY = {
    "mlsh.groups": 2,
    "mlsh.envs": 4,
    "mlsh.warmup": 1,
    "mlsh.joint": 1,
    "skill.epochs": 2,
    "steps": 1200,
    "checkpoint_every": 1,
    "threads": 1,
}


def settings(**changes):
    values = TINY | {key.replace("__", "."): value for key, value in changes.items()}
    return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]


def assert_refused(result, *said):
    """Exactly one line on stderr, a status, no traceback."""
    code, _, err = result
    assert code in (1, 2), (code, err)
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    assert err.endswith("\n")
    assert "Traceback" not in err
    for text in said:
        assert text in err, err


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "0", "1e9", "fast"])
@pytest.mark.parametrize(
    "command", [("check-robot", "omni", "--seconds"), ("play", "moving_bandits", "--speed")]
)
def test_a_number_that_is_none_or_out_of_its_range_is_refused(mlsh, command, number):
    assert_refused(mlsh(*command, number), number if number == "fast" else "is not at least")


def contents(folder):
    return {p: p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished tiny run; not to be changed."""
    folder = tmp_path_factory.mktemp("run") / "tiny"
    from policies.training import train as training

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["mlsh", "train", B, "--output", str(folder), *settings()])
        patch.setattr(training, "ADAPTATION_UPDATES", 1)
        patch.setattr("policies.training.adapt.SCORED_TICKS", 32 * 50)
        with pytest.raises(SystemExit) as caught:
            cli.main()
    assert caught.value.code == 0
    return folder


@pytest.fixture
def run(trained, tmp_path):
    """A copy that a test may damage."""
    return Path(shutil.copytree(trained, tmp_path / "tiny"))


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# Wrong words ---------------------------------------------------------------------------------

WRONG = {
    "command": (["trian"], "No such command 'trian'"),
    "option": (["check-bundle", B, "--frobnicate"], "No such option", "--frobnicate"),
    "missing argument": (["check-bundle"], "Missing argument"),
    "missing option": (["finetune", B], "Missing option '--task'"),
    "extra argument": (["check-bundle", B, "more"], "unexpected extra argument", "more"),
    "not a number": (["evaluate", B, "--episodes", "ten"], "--episodes"),
    "too few": (["evaluate", B, "--episodes", "0"], "--episodes"),
    "seed": (["evaluate", B, "--seed", "-1"], "--seed"),
    "large seed": (["train", B, "--seed", str(2**31)], "--seed"),
    "bundle": (["check-bundle", "moving_bandit"], "no bundle 'moving_bandit'. Did you mean"),
    "bundle (evaluate)": (
        ["evaluate", "nope"],
        "no bundle 'nope'",
        f"Valid: {', '.join(pretrained_names())}",
    ),
    "bundle (finetune)": (["finetune", "nope", "--task", f"{B}/goal-0"], "no bundle 'nope'"),
    "bundle (demo)": (["demo", "--bundle", "nope"], "no bundle 'nope'"),
    "task (demo)": (["demo", "--task", "mazes/maze-99"], "no task 'mazes/maze-99'"),
    "another bundle's task (demo)": (
        ["demo", "--bundle", B, "--task", "mazes/maze-2"],
        f"no master of bundle '{B}' was trained on 'mazes/maze-2'",
    ),
    "not a bundle": (["check-bundle", "/"], "is not a bundle"),
    "family": (["train", "moving_bandit"], "no task family", "Did you mean 'moving_bandits'?"),
    "no family": (["train"], "which task family?"),
    "robot": (["train", B, "--robot", "omnii"], "no robot 'omnii'. Did you mean 'omni'?"),
    "robot (evaluate)": (["evaluate", B, "--robot", "omnii"], "no robot 'omnii'"),
    "robot folder": (["train", B, "--robot", "."], "robot.yaml does not exist"),
    "preset": (["train", B, "--preset", "best"], "no preset 'best'", "default, faithful-2017"),
    "setting": (["train", B, "--set", "mlsh.group=2"], "no setting 'mlsh.group'", "mlsh.groups"),
    "setting's value": (["train", B, "--set", "mlsh.groups=two"], "mlsh.groups", "'two'"),
    "setting's form": (["train", B, "--set", "mlsh.groups"], "mlsh.groups"),
    "term to hide": (
        ["train", B, "--set", "network.hidden_from_skills=[altitude]"],
        "hidden_from_skills 'altitude'",
        "position",
    ),
    "family's parameter": (["train", B, "--set", "family_parameters.tick=9"], "tick"),
    "settings that clash": (["train", B, "--set", "mlsh.decision_ticks=7"], "rollout_ticks 50"),
    "settings of another run": (["train", B, "--resume", "x"], "leave out FAMILY"),
    "sim parameters of another run": (
        ["train", "--resume", "x", "--sim-params", "slow"],
        "leave out --sim-params",
    ),
    "sim_params": (
        ["train", B, "--sim-params", "slwo"],
        "no sim parameters 'slwo'. Did you mean 'slow'?",
    ),
    "sim parameters (evaluate)": (
        ["evaluate", B, "--sim-params", "x"],
        "Valid: heavy, noisy, slow; or a file",
    ),
    "sim parameters (finetune)": (
        ["finetune", B, "--task", f"{B}/goal-0", "--name", "n", "--sim-params", "x"],
        "no sim parameters 'x'",
    ),
    "robustness": (["evaluate", B, "--robustness", "delai=0:1"], "Did you mean 'delay'?"),
    "robustness through ROS": (
        ["evaluate", B, "--backend", "ros", "--robustness", "delay=0:1"],
        "backend",
    ),
    "robustness beyond": (
        ["evaluate", B, "--robustness", "delay=0:9"],
        "delay_s: must be 0 or more, 2 at",
    ),
    "sim parameters (launch)": (["launch", "sim", "sim_params:=x"], "no sim parameters 'x'"),
    "run (resume)": (["train", "--resume", "nope"], "no run 'nope'"),
    "run (export)": (["export", "nope"], "no run 'nope'"),
    "run (compare-runs)": (["compare-runs", "nope"], "no run 'nope'"),
    "backend": (["evaluate", B, "--backend", "gazebo"], "no backend 'gazebo'", "sim, ros"),
    "mode": (["evaluate", B, "--mode", "fast"], "no mode 'fast'", "realtime, lockstep"),
    "master": (["evaluate", B, "--master", "goal"], "no master 'goal'", "goal-0, goal-1"),
    "task": (["evaluate", B, "--task", f"{B}/goal-9"], "no task", f"{B}/goal-1"),
    "family as task": (
        ["evaluate", B, "--task", B],
        "names a family only; give one task, or leave it out",
    ),
    "task of others": (
        ["evaluate", B, "--task", "ring_bandits/sector-0"],
        "no master of bundle",
        "goal-0 (moving_bandits/goal-0)",
    ),
    "master's name": (
        ["finetune", B, "--task", f"{B}/goal-0", "--name", "../x", "--updates", "1"],
        "../x",
    ),
    "master's name taken": (["finetune", B, "--task", f"{B}/goal-0"], "'goal-0'", "--name"),
    "master to start from": (
        ["finetune", B, "--task", f"{B}/goal-0", "--name", "n", "--init-from", "goal"],
        "no master 'goal'",
    ),
    "graph": (["launch", "simm"], "no graph 'simm'", "sim, robot"),
    "launch argument": (["launch", "sim", "tsk:=x"], "no argument 'tsk'. Did you mean 'task'?"),
    "launch argument's form": (["launch", "sim", "task=x"], "name:=value"),
    "launch argument's value": (["launch", "sim", "seed:=x"], "seed", "'x'"),
    "robot that starts by itself": (["launch", "robot", "auto_arm:=true"], "auto_arm"),
    "argument twice": (
        ["launch", "sim", "task:=a/b", "task:=c/d"],
        "argument task is given twice: 'a/b' and 'c/d'",
    ),
    "robot that is no text": (
        ["train", B, "--robot", "r\udcff"],
        "robot 'r\\udcff': its path is not",
    ),
    "family that is no text": (["train", "f\udcff.py"], "task family '", "its path is not UTF-8"),
    "domain": (["launch", "sim", "--domain", "500"], "'500' is not valid. Valid: 0 to 101"),
    "domain (evaluate)": (["evaluate", B, "--backend", "ros", "--domain", "-1"], "'-1'"),
    "domain (demo)": (["demo", "--domain", "102"], "'102'"),
    "namespace": (["launch", "sim", "namespace:=a b"], "namespace 'a b'"),
    "params_file": (["launch", "sim", "params_file:=nope.yaml"], "nope.yaml"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_word_is_one_line(mlsh, tmp_path, name):
    arguments, *said = WRONG[name]
    assert_refused(mlsh(*arguments), *said)
    left = [p.name for p in tmp_path.rglob("*") if p.is_file()]
    assert left == []


FORMER = [([old], "command", old, new) for old, new in COMMANDS.items()]
for _command, _options in OPTIONS.items():
    FORMER += [([_command, f"{old}=x"], "option", old, new) for old, new in _options.items()]


@pytest.mark.parametrize(("words", "kind", "old", "new"), FORMER)
def test_a_former_name_is_refused_with_the_new_one(mlsh, monkeypatch, words, kind, old, new):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, err = mlsh(*words)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: no {kind} '{old}'. It is now called '{new}'. Valid: ")
    assert "Did you mean" not in err
    assert err.count("\n") == 1
    # There is such a name, and the changelog has the row.
    help_text = mlsh("--help")[1] if kind == "command" else mlsh(words[0], "--help")[1]
    assert new in help_text
    row = f"``mlsh {old}``" if kind == "command" else f"``mlsh {words[0]} {old}``"
    value = f"``mlsh {new}``" if kind == "command" else f"``{new}``"
    assert (row, value) in renamed()


def test_an_evaluation_says_what_was_other_than_the_model(mlsh, tmp_path):
    (tmp_path / "own.yaml").write_text("schema: 2\nphysics: {mass_factor: 4.0}\n")
    found = {}
    for sim_params in ("", "slow", "own.yaml"):
        chosen = ["--sim-params", sim_params] if sim_params else []
        command = [
            "evaluate",
            B,
            "--task",
            f"{B}/goal-0",
            "--episodes",
            "2",
            "-o",
            "r",
            "--overwrite",
            *chosen,
        ]
        code, _, err = mlsh(*command)
        assert (code, err) == (0, "")
        data = json.loads((tmp_path / "r/report.json").read_text())
        found[data["sim_params"]] = data["tasks"][0]
    assert set(found) == {None, "slow", "own.yaml"}
    assert len({task["return_mean"] for task in found.values()}) == 3
    # The yard-stick is the nominal model's.
    assert len({task["reference_returns"]["optimum"] for task in found.values()}) == 1


def test_help_is_not_an_error(mlsh):
    for arguments in ([], ["--help"], ["-h"], ["train", "-h"]):
        code, out, err = mlsh(*arguments)
        assert (code, err) == (0, "")
        assert "Usage" in out


def test_a_domain_from_the_environment_is_checked_as_well(mlsh, monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", "four")
    assert_refused(mlsh("launch", "sim"), "ROS_DOMAIN_ID 'four' is not valid")


# Folders that are not what they should be ----------------------------------------------------


def test_an_existing_run_is_not_overwritten(mlsh, run):
    before = contents(run)
    assert_refused(mlsh("train", B, "--output", run, *settings()), "exists", "--resume")
    assert contents(run) == before


DAMAGE = {
    "config.yaml": ["train --resume", "export", "compare-runs"],
    "checkpoint.npz": ["train --resume", "export", "compare-runs"],
    "adaptation.csv": ["compare-runs"],
    "versions.json": ["export"],
}


@pytest.mark.parametrize("how", ["missing", "empty", "half", "garbage", "folder"])
@pytest.mark.parametrize("name", DAMAGE)
def test_a_half_written_run_is_refused_by_name(mlsh, run, name, how):
    file = run / name
    data = file.read_bytes()
    file.unlink()
    if how == "folder":
        file.mkdir()
    elif how != "missing":
        file.write_bytes(
            {"empty": b"", "half": data[: len(data) // 2], "garbage": b"\x93\0["}[how]
        )
    before = contents(run)
    for command in DAMAGE[name]:
        assert_refused(mlsh(*command.split(), run), "tiny")
        assert contents(run) == before


def test_output_where_a_file_is(mlsh, run, tmp_path):
    file = tmp_path / "file"
    file.write_text("precious")
    for arguments in (
        ["train", B, "--output", file, *settings()],
        ["train", B, "--output", file / "below", *settings()],
        ["export", run, "-o", file],
        ["evaluate", B, "--episodes", "1", "-o", file],
        ["evaluate", B, "--episodes", "1", "-o", file / "below"],
        ["finetune", B, "--task", f"{B}/goal-0", "--name", "n", "--updates", "1", "-o", file],
        ["demo", "-o", file],
    ):
        assert_refused(mlsh(*arguments), str(file))
        assert file.read_text() == "precious"


def test_output_folder_of_something_else(mlsh, run, tmp_path):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "thesis.tex").write_text("precious")
    for arguments in (
        ["export", run, "-o", folder],
        ["finetune", B, "--task", f"{B}/goal-0", "--name", "n", "--updates", "1", "-o", folder],
    ):
        assert_refused(mlsh(*arguments), str(folder), "not a bundle")
        assert [p.name for p in folder.iterdir()] == ["thesis.tex"]


def test_limits_of_skills_are_refused_before_anything_is_learned(mlsh, run, tmp_path):
    (tmp_path / "limits.yaml").write_text("skill-1: {velocity: [-0.5, 9.0]}")
    before = contents(run)
    result = mlsh("export", run, "--skill-limits", "limits.yaml")
    assert_refused(result, "limits.yaml: ", "beyond the robot's own limit (-1.3, 1.3)")
    assert_refused(mlsh("export", run, "--skill-limits", "none.yaml"), "none.yaml does not exist")
    assert contents(run) == before


def test_reports_where_a_folder_is(mlsh, tmp_path):
    (tmp_path / "reports" / "report.json").mkdir(parents=True)
    assert_refused(mlsh("evaluate", B, "--episodes", "1"), "report.json")
    (tmp_path / "reports" / "report.json").rmdir()
    (tmp_path / "reports" / "report.html").mkdir()
    assert_refused(mlsh("evaluate", B, "--episodes", "1"), "report.html")


def test_a_place_where_nobody_may_write(mlsh, run):
    for arguments in (
        ["train", B, "--output", "/proc/mlsh/run", *settings()],
        ["export", run, "-o", "/proc/mlsh/bundle"],
        ["evaluate", B, "--episodes", "1", "-o", "/proc/mlsh/reports"],
        ["demo", "-o", "/proc/mlsh"],
    ):
        assert_refused(mlsh(*arguments), "/proc/mlsh")


def test_read_only_folder(mlsh, tmp_path, run):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o555)
    try:
        for arguments in (
            ["train", B, *settings()],
            ["export", run, "-o", tmp_path / "b"],
            ["evaluate", B, "--episodes", "1"],
        ):
            assert_refused(mlsh(*arguments))
    finally:
        tmp_path.chmod(0o755)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "mlsh_ros.cli.main", "check-bundle", B],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert_refused((done.returncode, "", done.stderr), "No space left")


def test_a_reader_that_has_gone_is_no_traceback():
    command = f"{sys.executable} -m mlsh_ros.cli.main check-bundle moving_bandits | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") <= 1


# Packages that are not there -----------------------------------------------------------------

BLOCK = """
import os, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in os.environ["BLOCKED"].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
"""


@pytest.mark.parametrize(
    ("blocked", "arguments", "said"),
    [
        ("rclpy", ["launch", "sim"], "mlsh_ros[ros]"),
        ("rclpy", ["evaluate", B, "--backend", "ros"], "mlsh_ros[ros]"),
        pytest.param("rclpy", ["demo"], "mlsh_ros[ros]", marks=pytest.mark.slow),
        ("torch", ["train", B], "torch is not installed; pip install 'mlsh_ros[train]'"),
        pytest.param(
            "torch",
            ["finetune", B, "--task", f"{B}/goal-0"],
            "mlsh_ros[train]",
            marks=pytest.mark.slow,
        ),
        ("onnx", ["finetune", B, "--task", f"{B}/goal-0"], "onnx is not installed"),
        ("mujoco", ["evaluate", B], "mujoco is not installed; pip install 'mlsh_ros[sim]'"),
        ("typer", ["check-bundle", B], "typer is not installed"),
        ("rich", ["check-bundle", B], "rich is not installed"),
    ],
)
def test_a_missing_package_is_named_with_the_way_to_get_it(tmp_path, blocked, arguments, said):
    # A .pth-like hook of our own, because the environment may have a sitecustomize already.
    code = BLOCK + "from mlsh_ros.cli.main import main\nmain()"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path,
        env={**os.environ, "BLOCKED": blocked},
        capture_output=True,
        text=True,
    )
    assert_refused((done.returncode, done.stdout, done.stderr), said)
    assert not list(tmp_path.iterdir())


def test_check_and_offline_evaluation_need_no_torch_and_no_ros(tmp_path):
    code = BLOCK + "from mlsh_ros.cli.main import main\nmain()"
    for arguments in (["check-bundle", B], ["evaluate", B, "--episodes", "1"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=tmp_path,
            env={**os.environ, "BLOCKED": "torch,onnx,tensorboard,rclpy"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr


# The good path -------------------------------------------------------------------------------


def test_check_says_what_a_bundle_is(mlsh):
    code, out, err = mlsh("check-bundle", B)
    assert (code, err) == (0, "")
    for text in ("valid", "robot omni", "8 observations, 2 actions", "goal-0", "sha256"):
        assert text in out


def test_evaluate_offline_leaves_report_and_json(mlsh, tmp_path):
    code, out, err = mlsh("evaluate", B, "--episodes", "4", "--master", "goal-1", "-o", "a/b")
    assert (code, err) == (0, "")
    data = json.loads((tmp_path / "a/b/report.json").read_text())
    assert (data["backend"], data["seed"]) == ("sim", 0)
    (task,) = data["tasks"]
    assert (task["task"], task["master"], task["episodes"]) == (f"{B}/goal-1", "goal-1", 4)
    assert task["normalized"] > 0.9
    assert task["late_decisions"] == 0
    assert f"{task['return_mean']:.2f}" in out
    assert (tmp_path / "a/b/report.html").stat().st_size > 1000
    again = mlsh("evaluate", B, "--episodes", "4", "--master", "goal-1", "-o", "c")
    assert again[0] == 0
    assert (tmp_path / "c/report.json").read_text() == (tmp_path / "a/b/report.json").read_text()


def test_an_evaluation_takes_nothing_s_place(mlsh, tmp_path):
    (tmp_path / "reports").mkdir()
    (tmp_path / "precious").write_text("precious")
    for name in ("report.json", "report.html"):
        place = tmp_path / "reports" / name
        place.symlink_to("../precious")
        for more in ([], ["--overwrite"]):
            result = mlsh("evaluate", B, "--episodes", "1", *more)
            assert_refused(result, name, "is a symbolic link")
        place.unlink()
        place.write_text("precious")
        assert_refused(mlsh("evaluate", B, "--episodes", "1"), f"{name} exists", "--overwrite")
        assert place.read_text() == "precious"
        place.unlink()
    assert (tmp_path / "precious").read_text() == "precious"
    (tmp_path / "reports" / "report.html").write_text("old")
    assert mlsh("evaluate", B, "--episodes", "1", "--overwrite")[0] == 0
    assert "evaluation" in (tmp_path / "reports" / "report.html").read_text()


@pytest.mark.parametrize("more", [[], ["--robustness", "mass=0.9:1.1"]])
def test_a_new_report_does_not_stand_beside_a_part_of_an_old_one(
    mlsh, tmp_path, monkeypatch, more
):
    words = ["evaluate", B, "--task", f"{B}/goal-0", "--episodes", "1", *more]
    first, second = (
        ("robustness.json", "robustness.png") if more else ("report.json", "report.html")
    )
    monkeypatch.setattr("mlsh_ros.evaluation.robustness.POINTS", 2)
    folder = tmp_path / "reports"
    folder.mkdir()
    (folder / first).write_text("of monday")
    (folder / second).write_text("of monday")
    write = output.write_file
    monkeypatch.setattr(
        "sim.files.output.write_file",
        lambda path, *a, **k: no_space() if path.name == second else write(path, *a, **k),
    )
    assert_refused(mlsh(*words, "--overwrite"), "No space left")
    assert [each.name for each in folder.iterdir()] == [first]
    assert json.loads((folder / first).read_text())["episodes" if more else "tasks"]


@pytest.mark.parametrize("more", [["--sim-params", "nope"], ["--robot", "nope"]])
def test_a_refused_evaluation_leaves_no_folder(mlsh, tmp_path, more):
    assert_refused(mlsh("evaluate", B, "--episodes", "1", *more), "nope")
    assert not list(tmp_path.iterdir())


def test_train_export_check_finetune_and_evaluate(mlsh, run, tmp_path):
    names = {"config.yaml", "checkpoint.npz", "metrics.csv", "adaptation.csv", "curves.png"}
    assert names <= {p.name for p in run.iterdir()}
    (tmp_path / "limits.yaml").write_text("skill-1: {velocity: [-0.5, 1.0]}")
    code, out, err = mlsh("export", run, "--name", "mine", "--skill-limits", "limits.yaml")
    assert (code, err) == (0, "")
    assert "parity torch / ONNX Runtime" in out
    assert "may see velocity -0.5 to 1" in out
    bundle = run / "bundle"
    assert mlsh("check-bundle", bundle)[0] == 0

    skills = contents(bundle / "skills")
    code, out, err = mlsh(
        *("finetune", bundle, "--task", f"{B}/goal-1", "--name", "again", "--updates", "1"),
        *("--no-baseline", "-o", "more"),
    )
    assert (code, err) == (0, "")
    more = tmp_path / "more"
    assert list(contents(more / "skills").values()) == list(skills.values())
    assert contents(bundle / "skills") == skills
    assert "may see velocity -0.5 to 1" in out
    assert (tmp_path / "more-finetune.csv").exists()
    code, out, err = mlsh("evaluate", more, "--master", "again", "--episodes", "2")
    assert (code, err) == (0, "")
    assert "again" in out
    code, out, err = mlsh(
        *("finetune", bundle, "--task", "ring_bandits", "--updates", "1", "-o", "all"),
        "--no-baseline",
    )
    assert (code, err) == (0, "")
    assert "ring_bandits/sector-2" in out
    assert load_bundle(tmp_path / "all").manifest.masters.keys() >= {"sector-0", "sector-2"}
    code, out, err = mlsh("compare-runs", run)
    assert (code, err) == (0, "")
    assert "0 of 1 runs" in out or "1 of 1 runs" in out


def test_resume_of_a_finished_run_changes_nothing_that_counts(mlsh, run):
    before = (run / "metrics.csv").read_bytes()
    code, _, err = mlsh("train", "--resume", run)
    assert (code, err) == (0, "")
    assert (run / "metrics.csv").read_bytes() == before


# Ctrl-C --------------------------------------------------------------------------------------


def iterations(folder):
    try:
        with (folder / "metrics.csv").open(newline="") as stream:
            return [int(row["iteration"]) for row in csv.DictReader(stream)]
    except FileNotFoundError:
        return []


@pytest.mark.slow
def test_ctrl_c_leaves_a_checkpoint_to_go_on_from(tmp_path, mlsh):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "mlsh_ros.cli.main", "train", B, "--output", folder]
    command += settings(steps=400_000, checkpoint_every=1000)
    # Popen, not a shell's `&`: that would ignore SIGINT.
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while len(iterations(folder)) < 3 and time.monotonic() < deadline:
            assert running.poll() is None, running.communicate()
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=20)
    finally:
        running.kill()
    assert (running.returncode, err) == (130, "")
    match = re.search(r"stopped after ([\d,]+) steps.*--resume (\S+)", " ".join(out.split()))
    assert match, out
    assert match[2] == str(folder)
    done = iterations(folder)
    assert int(match[1].replace(",", "")) == len(done) * 400  # 2 groups x 4 simulations x 50
    # Ends where it says: shorten the run so that two more iterations finish it.
    config = folder / "config.yaml"
    steps = (len(done) + 2) * 400
    config.write_text(re.sub(r"(?m)^steps: .*$", f"steps: {steps}", config.read_text()))
    code, _, err = mlsh("train", "--resume", folder)
    assert (code, err) == (0, "")
    assert iterations(folder) == list(range(1, len(done) + 3))


def test_ctrl_c_during_an_evaluation_is_one_word(tmp_path):
    command = [sys.executable, "-m", "mlsh_ros.cli.main", "evaluate", B, "--episodes", "100000"]
    running = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 30
        maps = Path(f"/proc/{running.pid}/maps")
        while "libmujoco" not in maps.read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1.5)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=20)
    finally:
        running.kill()
    assert running.returncode == 130
    assert err == "interrupted\n"
