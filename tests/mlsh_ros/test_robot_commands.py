"""`mlsh check-robot` and `mlsh new-robot`; tests/docs executes docs/add-a-robot.md."""

import re
import shutil
from pathlib import Path

import pytest

from sim.physics.robot_model import ROBOTS
from tests.support.cli import run_mlsh


def run(arguments: list[str], cwd: Path) -> tuple[int, str]:
    """Status and all that is printed."""
    status, out, err = run_mlsh(*arguments, cwd=cwd)
    return status, out + err


# check-robot ------------------------------------------------------------------------------------


@pytest.fixture
def omni(tmp_path) -> Path:
    return Path(shutil.copytree(ROBOTS / "omni", tmp_path / "omni"))


def edited(folder: Path, *changes: tuple[str, str]) -> None:
    text = (folder / "robot.yaml").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "robot.yaml").write_text(text)


def test_a_sound_robot_is_shown_with_its_addresses(tmp_path):
    status, out = run(["check-robot", "omni", "--seconds", "1"], tmp_path)
    assert status == 0
    for words in (
        "qpos slide_y = qpos[1]",
        "drive_y = ctrl[1]",
        "odom Odometry twist.twist.linear.y",
        "velocity 0.5 for 0.5 s",
        "base_velocity.1 at 1",
        "robot omni: sound, 0 warnings",
    ):
        assert words in out


def test_a_folder_with_the_name_of_a_shipped_robot_is_checked_by_its_path(omni):
    status, out = run(["check-robot", "./omni", "--seconds", "0.5"], omni.parent)
    assert status == 0, out
    assert run(["check-robot", "omni"], omni.parent)[0] == 1


def test_the_shipped_go2_is_sound_and_stands(tmp_path):
    status, out = run(["check-robot", "go2"], tmp_path)
    assert status == 0
    assert out.splitlines()[-1] == "robot go2: sound, 5 warnings"
    assert "does not stand" not in out


def test_who_runs_away_when_driven_is_not_called_sound(omni):
    model = (omni / "model.xml").read_text()
    # Held at 0 it stays; driven, each step answers with more than the step before.
    away, count = re.subn(r'(<velocity [^>]*?kv=")[^"]*"', r'\g<1>1e6"', model)
    away = re.sub(r' integrator="\w+"', "", re.sub(r' forcerange="[^"]*"', "", away))
    assert count
    (omni / "model.xml").write_text(away)
    status, out = run(["check-robot", str(omni), "--seconds", "0.5"], omni.parent)
    assert status == 1
    assert out.splitlines()[-1].endswith("the simulation diverges with base_velocity.0 at -1")
    assert "sound" not in out


def test_who_does_not_stand_is_not_called_sound(tmp_path):
    folder = Path(shutil.copytree(ROBOTS / "ant", tmp_path / "ant"))
    model = (folder / "model.xml").read_text()
    model, count = re.subn(r'<geom name="floor"[^>]*/>', "", model)
    assert count == 1
    (folder / "model.xml").write_text(model)
    status, out = run(["check-robot", str(folder), "--seconds", "0.5"], tmp_path)
    assert status == 0
    first = next(line for line in out.splitlines() if "warning" in line)
    assert "it does not stand: " in first
    assert "there is no floor in model.xml" in first
    assert "robot ant: no errors, but it does not stay where `safe_command` holds it, " in out


def test_wrong_topics_types_and_paths_are_all_named(omni, tmp_path):
    edited(
        omni,
        ("pose.pose.position.x", "pose.position.x"),
        ("twist.twist.linear.y]", "twist.twist.linear.u]"),
        ("geometry_msgs/msg/TwistStamped  ", "geometry_msgs/msg/TwistStampt  "),
    )
    status, out = run(["check-robot", "omni/../omni"], omni.parent)
    assert status == 1
    for words in (
        "observation term 'position': ros.fields: nav_msgs/msg/Odometry",
        "twist.twist.linear.u: geometry_msgs/Vector3 has no field 'u'. Valid: x, y, z",
        "package geometry_msgs has no message 'TwistStampt'",
        "error: omni/../omni: ",
    ):
        assert words in out
    assert "Traceback" not in out


def test_an_index_where_names_are_is_told(omni):
    edited(
        omni,
        ("nav_msgs/msg/Odometry", "sensor_msgs/msg/JointState"),
        ("[pose.pose.position.x, pose.pose.position.y]", '["position[0]", "position[slide_y]"]'),
        ("[twist.twist.linear.x, twist.twist.linear.y]", '["velocity[0]", "velocity[slide_y]"]'),
    )
    status, out = run(["check-robot", str(omni), "--seconds", "1"], omni.parent)
    assert status == 0, out
    assert "warning: topic odom: '0' is looked up by name" in " ".join(out.split())


def test_a_type_that_is_no_message_is_not_imported(omni):
    edited(omni, ("geometry_msgs/msg/TwistStamped  ", "this/msg/Zen  "))
    status, out = run(["check-robot", str(omni), "--seconds", "1"], omni.parent)
    assert "Beautiful is better" not in out
    assert status == 0, out  # as for any package that is not installed here


def test_a_term_of_many_elements_is_one_line(omni, tmp_path):
    shutil.rmtree(omni / "sim_params")  # pushes need a term `position` of two slides
    (omni / "domain_randomization.yaml").unlink()
    joints = ", ".join(["slide_x"] * 9)
    edited(
        omni,
        ("name: position\n    size: 2", "name: position\n    size: 9"),
        (
            "[slide_x, slide_y]}\n    ros:\n      topic: odom",
            f"[{joints}]}}\n    ros:\n      topic: x",
        ),
    )
    text = (omni / "robot.yaml").read_text()
    fields = ", ".join(["pose.pose.position.x"] * 9)
    text = text.replace("[pose.pose.position.x, pose.pose.position.y]", f"[{fields}]")
    text = text.replace(f"{{qvel: [{joints}]", "{qvel: [slide_x, slide_y]")
    (omni / "robot.yaml").write_text(text)
    status, out = run(["check-robot", str(omni), "--seconds", "1"], tmp_path)
    assert status == 0, out
    (line,) = [each for each in out.splitlines() if "position." in each and "m " in each]
    assert "position.0 .. 8" in line
    assert "x Odometry pose.pose.position.x .. pose.pose.position.x" in line


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("max_age: 0.3", "max_age: TODO", "2 errors"),
        ("rate_limit: 5.0", "rate_limit: TODO", "action.0.rate_limit: TODO; fill in: largest"),
        ("[drive_x, drive_y]", "[drive_x, drive_z]", "no actuator 'drive_z'"),
        ("schema: 2", "schema: 3", "schema 3 is not known"),
        ("schema: 2", "schema: 1", "blend is smoothing_time now, safe is safe_command now"),
    ],
)
def test_a_mistake_is_one_line_and_status_1(omni, old, new, words):
    edited(omni, (old, new))
    status, out = run(["check-robot", str(omni)], omni.parent)
    assert status == 1
    assert words in out.splitlines()[-1]
    assert out.splitlines()[-1].startswith(f"error: {omni}")
    assert "Traceback" not in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check-robot", "omny"], "no robot 'omny'. Did you mean 'omni'?"),
        (["check-robot", "omni", "--seconds", "0"], "--seconds"),
        (["check-robot"], "Missing argument"),
        (["new-robot", "x", "--mjcf", "nope.xml", "-o", "x"], "nope.xml does not exist"),
        (["new-robot", "x", "--mjcf", "nope.xml"], "Missing option"),
        (["new-robot", "x", "-o", "x"], "either --mjcf FILE or --urdf FILE"),
        (["new-robot", "x", "-o", "x", "--urdf", "nope.urdf"], "nope.urdf does not exist; a URDF"),
        (
            ["new-robot", "x", "-o", "x", "--urdf", "n.urdf", "--mjcf", "n.xml"],
            "either --mjcf FILE or --urdf FILE",
        ),
        (
            ["new-robot", "x", "-o", "x", "--mjcf", "n.xml", "--damping", "1", "--joints", "a"],
            "--joints, --damping: of a URDF",
        ),
        (
            ["new-robot", "x", "-o", "x", "--urdf", "n.urdf", "--command", "a=torque"],
            "--command a=torque: Valid: position, velocity, effort",
        ),
        (
            ["new-robot", "x", "-o", "x", "--urdf", "n.urdf", "--damping", "a=-1"],
            "--damping a=-1: a number that is not negative is expected",
        ),
        (
            ["new-robot", "x", "-o", "x", "--urdf", "n.urdf", "--damping", "a=1", "--damping=a=2"],
            "--damping a=2: given twice for a",
        ),
        (
            ["new-robot", "x", "-o", "x", "--urdf", "n.urdf", "--package", "here"],
            "--package here: NAME=FOLDER is expected",
        ),
        (["new-robot", "a b", "--mjcf", "nope.xml", "-o", "x"], "robot name 'a b'"),
    ],
)
def test_a_wrong_word_is_one_line(tmp_path, arguments, words):
    status, out = run(arguments, tmp_path)
    assert status in (1, 2)
    assert words in out
    assert out.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
