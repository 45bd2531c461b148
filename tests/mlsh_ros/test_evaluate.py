"""mlsh evaluate: results say what was measured, are kept, and mean something."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mlsh_ros.evaluation.case import resolve_cases
from mlsh_ros.evaluation.measured import measured
from mlsh_ros.evaluation.report.report import render
from mlsh_ros.evaluation.scores import reference_returns, summarize
from policies.bundle.bundle import load_bundle
from sim.envs.reference_returns import ReferenceReturns
from sim.errors import UserError
from sim.physics.robot_model import ROBOTS
from tests.support.cli import run_mlsh

B = "moving_bandits"
FEW = ["--episodes", "1", "--task", f"{B}/goal-0"]


def mlsh(arguments, cwd, **more):
    return subprocess.run(
        [sys.executable, "-m", "mlsh_ros.cli.main", *arguments],
        cwd=cwd,
        capture_output=True,
        check=False,
        **more,
    )


@pytest.fixture
def mine(tmp_path) -> Path:
    """A robot called omni that is another one: heavier, and slower to obey."""
    folder = Path(shutil.copytree(ROBOTS / "omni", tmp_path / "mine"))
    model = (folder / "model.xml").read_text()
    assert 'mass="20"' in model
    (folder / "model.xml").write_text(model.replace('mass="20"', 'mass="21"'))
    return folder


# What was measured ------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_result_names_the_robot_that_was_driven(tmp_path, mine):
    for robot, output in (("omni", "a"), ("mine", "b")):
        done = mlsh(["evaluate", B, *FEW, "--robot", robot, "-o", output], tmp_path)
        assert done.returncode == 0, done.stderr
    shipped, other = (json.loads((tmp_path / o / "report.json").read_text()) for o in "ab")
    assert (shipped["robot"], shipped["robot_given"]) == ("omni", "omni")
    assert (other["robot"], other["robot_given"]) == ("omni", "mine")
    assert shipped["interface_digest"] == other["interface_digest"]
    assert shipped["model_digest"] != other["model_digest"]
    assert (shipped["sim_params"], shipped["seed"]) == (None, 0)
    page = (tmp_path / "b" / "report.html").read_text()
    assert "<dd>mine</dd>" in page
    assert other["model_digest"][:12] in page
    assert str(tmp_path) not in page + json.dumps(other)


def test_what_differs_from_the_model_has_a_digest(tmp_path):
    bundle = load_bundle(B)
    file = tmp_path / "mine.yaml"
    found = []
    for mass in ("1.1", "1.2", "1.1   # the same"):
        file.write_text(f"schema: 2\nphysics: {{mass_factor: {mass}\n}}\n")
        found.append(measured(resolve_cases(bundle, sim_params=str(file))[0]))
    assert found[0] == found[2]
    assert found[0].sim_params == found[1].sim_params == str(file)
    assert found[0].sim_params_digest != found[1].sim_params_digest
    nominal = measured(resolve_cases(bundle)[0])
    assert (nominal.sim_params, nominal.sim_params_digest) == (None, None)


def test_a_digest_is_the_same_in_every_process(tmp_path):
    code = (
        "from mlsh_ros.evaluation.measured import *\n"
        "from mlsh_ros.evaluation.case import resolve_cases\n"
        f"from policies.bundle.bundle import load_bundle\n"
        f"print(measured(resolve_cases(load_bundle({B!r}))[0]).model_digest)"
    )
    outputs = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
        for _ in range(2)
    }
    assert outputs == {measured(resolve_cases(load_bundle(B))[0]).model_digest.encode() + b"\n"}


def test_a_map_names_the_robot_the_tasks_and_the_sim_params(tmp_path, mine, monkeypatch):
    from mlsh_ros.cli import evaluate
    from mlsh_ros.evaluation import robustness

    monkeypatch.setattr(robustness, "POINTS", 2)
    monkeypatch.chdir(tmp_path)
    evaluate.evaluate(
        B,
        task=f"{B}/goal-0",
        episodes=1,
        robot="mine",
        sim_params="heavy",
        robustness=["mass=1:2"],
        output=Path("out"),
    )
    data = json.loads(Path("out/robustness.json").read_text())
    assert (data["robot"], data["robot_given"], data["sim_params"]) == ("omni", "mine", "heavy")
    assert data["tasks"] == [{"task": f"{B}/goal-0", "master": "goal-0"}]
    assert (
        data["model_digest"]
        == measured(resolve_cases(load_bundle(B), robot="mine")[0]).model_digest
    )


# What cannot be meant ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--mode", "realtime"], "--mode realtime is for backend ros; sim has no nodes"),
        (["--domain", "99999"], "--domain 99999 is for backend ros; sim has no nodes"),
        (["--robustness", "mass=300:3000ms"], "mass is in x nominal"),
    ],
)
def test_an_option_that_has_no_effect_is_refused(tmp_path, options, words):
    status, _, err = run_mlsh("evaluate", B, "--backend", "sim", *options, cwd=tmp_path)
    assert status == 1
    assert words in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_robot_that_cannot_move_is_refused_before_it_drives(tmp_path, mine):
    model = (mine / "model.xml").read_text()
    (mine / "model.xml").write_text(model.replace('mass="21"', 'mass="1e9"'))
    for more in ([], ["--robustness", "mass=1:2"]):
        status, _, said = run_mlsh("evaluate", B, "--robot", "mine", *FEW, *more, cwd=tmp_path)
        assert status == 1, said
        assert said.startswith(f"error: robot 'omni' cannot be scored on {B}/goal-0: ")
        assert said.count("\n") == 1
        assert not (tmp_path / "reports").exists()


@pytest.mark.parametrize(("random", "optimum"), [(3.0, 3.0), (0.0, 0.0), (-5.0, -6.0), (1e9, 1e9)])
def test_returns_that_tell_nothing_apart_give_no_score(random, optimum):
    limit = ReferenceReturns(random=random, task_blind=0.0, optimum=optimum)
    assert not limit.tell_apart
    with pytest.raises(UserError, match="cannot be scored: a random policy returns"):
        limit.normalize(1.0)


# Printing ---------------------------------------------------------------------------------------


def test_files_are_written_before_anything_is_printed(tmp_path):
    """A reader that is gone, or a full disk behind stdout, must not cost the result."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "mlsh_ros.cli.main", "evaluate", B, *FEW],
            cwd=tmp_path,
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert sorted(p.name for p in (tmp_path / "reports").iterdir()) == [
        "report.html",
        "report.json",
    ]


@pytest.mark.parametrize(
    "arguments", [["check-bundle", B], ["evaluate", B, *FEW], ["launch", "--show-args"]]
)
def test_an_output_that_knows_ascii_only_gets_ascii(tmp_path, arguments):
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    done = mlsh(arguments, tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode("ascii")
    assert b"error" not in done.stderr


@pytest.mark.parametrize(
    "closed",
    [
        *(pytest.param(each, marks=pytest.mark.slow) for each in (">&-", "2>&-", "<&-")),
        ">&- 2>&- <&-",
    ],
)
def test_a_closed_stream_is_no_fault(tmp_path, closed):
    for arguments in (f"check-bundle {B}", f"evaluate {B} {' '.join(FEW)} -o out --overwrite"):
        command = f"{sys.executable} -m mlsh_ros.cli.main {arguments} {closed}"
        done = subprocess.run(
            ["sh", "-c", command], cwd=tmp_path, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert b"error" not in done.stderr
    json.loads((tmp_path / "out" / "report.json").read_text())


def test_more_than_the_optimum_is_explained(capsys):
    from mlsh_ros.cli.evaluate import show
    from mlsh_ros.evaluation.backends import run_offline

    bundle = load_bundle(B)
    cases = resolve_cases(bundle, task=f"{B}/goal-0")
    done = run_offline(cases, episodes=1, seed=0)
    limits = reference_returns(cases, seed=0, episodes=1)
    value = done[0].value
    below = replace(limits[cases[0].task], random=value - 5, optimum=value + 1)
    above = replace(below, optimum=value - 1)
    for limit, told in ((below, False), (above, True)):
        result = summarize(cases, "sim", 0, done, limits={cases[0].task: limit})
        show(result)
        assert ("not an upper bound" in capsys.readouterr().out.replace("\n", " ")) is told
        assert "can score more than 100 %" in render(result)
