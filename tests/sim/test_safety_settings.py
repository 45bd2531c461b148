"""Safety that is switched off by its numbers is named; so are robots that move while held.

Each case is the shipped omni (10 Hz, commands from -1 to 1 m/s) with one change.
"""

import copy
import re
import shutil

import mujoco
import pytest
import yaml

from sim.errors import UserError
from sim.interface import interface_from_dict
from sim.interface.robot_file import SIMULATION_ONLY
from sim.physics.robot_model import ROBOTS, load_robot, robot_names
from sim.robot_setup.rest_test import unrest
from sim.robot_setup.safety_settings import switched_off
from sim.robot_setup.step_test import LONGEST, run_step_tests
from sim.robot_setup.validation import find_warnings
from tests.support.cli import run_mlsh

OMNI = yaml.safe_load((ROBOTS / "omni" / "robot.yaml").read_text())


def changed(**changes):
    """The omni with entries such as `action__0__rate_limit` changed."""
    data = copy.deepcopy(OMNI)
    for path, value in changes.items():
        *parents, leaf = [int(key) if key.isdigit() else key for key in path.split("__")]
        place = data
        for key in parents:
            place = place[key]
        place[leaf] = value
    return data


def made(data):
    """The interface that robot.yaml states."""
    left_out = ("schema", *SIMULATION_ONLY)
    data = {key: value for key, value in data.items() if key not in left_out}
    return interface_from_dict(data, "robot")


def said(**changes):
    return list(switched_off(made(changed(**changes))))


@pytest.fixture
def folder(tmp_path):
    def written(**changes):
        path = tmp_path / "omni"
        if not path.exists():
            shutil.copytree(ROBOTS / "omni", path)
        (path / "robot.yaml").write_text(yaml.safe_dump(changed(**changes)))
        return path

    return written


def both(value):
    return {f"observation__{i}__max_age": value for i in (0, 1)}


OFF = {
    "max_age in ms": (
        both(300),
        "term position: max_age 300 s: a sensor that falls silent stops the robot only after",
    ),
    "max_age of one of two": (
        {"observation__0__max_age": 300},
        "term position: max_age 300 s has no effect, the 0.3 s of velocity count for topic odom",
    ),
    "timeout in ms": (
        {"action__0__tracking__timeout": 500},
        "action base_velocity: tracking.timeout 500 s: a command that is not obeyed stops the",
    ),
    "tolerance": (
        {"action__0__tracking__tolerance": 1e9},
        "action base_velocity.0: tracking.tolerance 1e+09 m/s is not below its largest command, 1",
    ),
    "tolerance of a base that stands": (
        {"action__0__tracking__tolerance": [0.5, 1.0]},
        "action base_velocity.1: tracking.tolerance 1 m/s is not below its largest command, 1",
    ),
    "rate limit": (
        {"action__0__rate_limit": 1e9},
        "action base_velocity.0: rate_limit 1e+09 m/s per s limits nothing: it permits 1e+08 per",
    ),
    "rate limit of a tick": (
        {"action__0__rate_limit": [5.0, 20.0]},  # 20 m/s2 for 0.1 s are the 2 m/s from -1 to 1
        "action base_velocity.1: rate_limit 20 m/s per s limits nothing: it permits 2 per tick",
    ),
    "limit of a measurement": (
        {"observation__1__limit": [-1e6, 1e6]},
        "term velocity: limit [-1e+06, 1e+06] m/s is never passed",
    ),
    "limit of a command": (
        {"action__0__limit": [-1e6, 1e6]},
        "action base_velocity.0: limit [-1e+06, 1e+06] m/s is beyond what a robot is told",
    ),
}


@pytest.mark.parametrize("name", OFF)
def test_what_is_switched_off_is_named_with_what_is_usual(name):
    changes, words = OFF[name]
    assert said() == []
    found = said(**changes)
    assert found[0].startswith(words), found
    assert "usual" in found[0]
    assert not any("\n" in each for each in found)


@pytest.mark.parametrize(
    "changes",
    [
        both(1.0),  # 10 ticks
        {"action__0__tracking__timeout": 3.0},
        {"action__0__tracking__tolerance": 0.99},
        {"action__0__rate_limit": 19.9},
        {"observation__1__limit": [-9e3, 9e3]},
        {"action__0__smoothing_time": 0.5},
    ],
)
def test_what_is_at_the_bound_is_not_named(changes):
    assert said(**changes) == []


def test_ten_ticks_of_a_slow_robot_are_not_long():
    slow = {"control_dt": 0.5, "action__0__rate_limit": 1.0}
    assert said(**both(4.9), **slow, action__0__tracking__timeout=4.9) == []
    assert len(said(**both(5.1), **slow, action__0__tracking__timeout=5.1)) == 3


def test_a_servo_may_be_off_by_less_than_the_range_of_its_commands():
    """The Go2's 1.18 rad are more than its hip's way from safe, 1.05, and less than its 2.09."""
    data = yaml.safe_load((ROBOTS / "go2" / "robot.yaml").read_text())
    data["action"][0]["tracking"]["tolerance"] = 2.1
    (found,) = switched_off(made(data))
    assert "joint_position.0: tracking.tolerance 2.1 rad is not below the range" in found


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (("observation", "tilt", "limit", [0.0, 1.6]), "a robot that lies on its side"),
        (("start_pose", "tilt", "tolerance", 3.2), "may begin in any pose"),
    ],
)
def test_limits_of_the_tilt_that_nobody_passes(place, words):
    data = yaml.safe_load((ROBOTS / "go2" / "robot.yaml").read_text())
    part, name, key, value = place
    terms = data[part] if part == "observation" else data[part]["measured"]
    (term,) = (each for each in terms if name in (each.get("name"), each.get("term")))
    assert list(switched_off(made(data))) == []
    term[key] = value
    (found,) = switched_off(made(data))
    assert words in found


# Held at its safe command -----------------------------------------------------------------------


@pytest.mark.parametrize("safe", [[0.5, 0.5], [0.03, 0.0]])
def test_who_moves_while_held_is_not_called_sound(folder, safe):
    path = folder(action__0__safe_command=safe)
    status, out, _ = run_mlsh("check-robot", path, "--seconds", "1", cwd=path.parent)
    assert status == 0
    assert "it still moves under its `safe_command`: slide_" in out
    assert "sound" not in out
    assert out.splitlines()[-1].endswith("where `safe_command` holds it, 1 warning")


def test_a_warning_of_safety_is_counted(folder):
    path = folder(action__0__tracking__timeout=500)
    _, out, _ = run_mlsh("check-robot", path, "--seconds", "1", cwd=path.parent)
    assert out.splitlines()[-1] == "robot omni: sound, 1 warning"


@pytest.mark.parametrize("name", robot_names())
def test_the_shipped_robots_stand_and_nothing_of_them_is_switched_off(name):
    robot = load_robot(name)
    assert list(switched_off(robot.interface)) == []
    assert list(unrest(robot.interface, robot.compile(), 1.0)) == []


SLIDING = """<mujoco><option timestep="0.02" gravity="0 0 0"/><worldbody>
<body name="base"><freejoint/><geom name="hull" size=".1" mass="1"/>
<body><joint name="a" type="slide" axis="1 0 0"/><geom size=".1" mass="1"/></body></body>
</worldbody><actuator><motor name="drive" joint="a" ctrlrange="-1 1"/></actuator>
<keyframe><key name="going" qvel="0.3 0 0 0 0 0 0"/></keyframe></mujoco>"""


def test_a_base_that_goes_over_the_ground_does_not_stand(tmp_path):
    """It floats with 0.3 m/s, as nothing slows it down, from the pose in which it begins."""
    model = mujoco.MjModel.from_xml_string(SLIDING)
    data = changed(start_pose={"keyframe": "going"})
    (action,) = data["action"]
    action |= {"size": 1, "safe_command": [0.0], "mujoco": {"actuators": ["drive"]}}
    action |= {"tracking": None, "initial_command": "safe"}
    action["ros"]["fields"] = action["ros"]["fields"][:1]
    interface = made(data)
    (found,) = unrest(interface, model, 2.0)
    assert found.startswith("it still moves under its safe command: base at 0.3 m/s;")


# Slow commands ----------------------------------------------------------------------------------

SLOW = {
    "1e-4 m/s2": ({"action__0__rate_limit": 1e-4}, "1e+04 s"),
    "1e-9 m/s2": ({"action__0__rate_limit": 1e-9}, "1e+09 s"),
    "smoothed": ({"action__0__smoothing_time": 1e8}, "3e+08 s"),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", SLOW)
def test_a_command_that_takes_for_ever_is_not_tested(folder, name):
    changes, seconds = SLOW[name]
    path = folder(**changes)
    status, out, _ = run_mlsh("check-robot", path, "--seconds", "1", cwd=path.parent)
    assert status == 0
    (line,) = [line for line in out.splitlines() if "is not tested" in line]
    assert f"takes {seconds} under rate_limit and smoothing_time, more than 100 s" in line
    assert "robot omni: no errors, but not every command was tested, " in out


@pytest.mark.timeout(30)
def test_a_wide_limit_without_ctrlrange_is_not_tested_to_its_end(folder):
    path = folder(action__0__limit=[-1e6, 1e6])
    model = (path / "model.xml").read_text()
    with pytest.raises(UserError, match="beyond the ctrlrange"):
        load_robot(str(path)).compile()
    (path / "model.xml").write_text(re.sub(r' ctrlrange="[^"]*"', "", model))
    _, out, _ = run_mlsh("check-robot", path, "--seconds", "1", cwd=path.parent)
    assert "beyond what a robot is told" in out
    assert "to reach 1e+06 takes 2e+05 s" in out or "to reach -1e+06 takes 2e+05 s" in out


def test_only_the_slow_element_is_left_out(folder):
    """1 m/s at 0.009 m/s2 takes 111 s; the other one is tested."""
    robot = load_robot(str(folder(action__0__rate_limit=[0.009, 5.0])))
    model = robot.compile()
    trial = run_step_tests(robot.interface, model, 0.5)
    assert {(each.element, round(each.seconds)) for each in trial.skipped} == {(0, 111)}
    assert all(each.most == LONGEST for each in trial.skipped)
    assert [(each.element, each.target) for each in trial.drives] == [(1, -1.0), (1, 1.0)]
    found = [each for each in find_warnings(robot.interface, model, trial) if "not tested" in each]
    assert len(found) == 1
