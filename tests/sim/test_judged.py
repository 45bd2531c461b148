"""What check-robot judges: standing, staying, stopping, and whether the steps are fine enough."""

import re
import shutil
from dataclasses import replace

import pytest
import yaml

from sim.physics.robot_model import ROBOTS, load_robot, robot_names
from sim.robot_setup.import_mjcf import import_mjcf
from sim.robot_setup.placeholders import TODO
from sim.robot_setup.rest_test import unrest
from sim.robot_setup.step_test import run_step_tests
from sim.robot_setup.time_step_test import coarse
from sim.robot_setup.validation import find_errors, find_warnings

FLOOR = '<geom type="plane" size="5 5 .1"/>'
# A trunk of 4 kg on one leg whose foot is a plate: it stands as long as its knee is held.
LEGGED = """<mujoco><compiler angle="radian"/><option timestep="0.005"/><worldbody>{floor}
  <body name="trunk" pos="0 0 .52"><freejoint name="root"/><geom size=".1" mass="4"/>
    <body name="shin"><joint name="knee" type="slide" axis="0 0 1" range="-.3 .3" damping="40"/>
      <geom type="box" size=".2 .2 .02" pos="0 0 -.5" mass="1"/></body></body>
  </worldbody><actuator>{actuator}</actuator></mujoco>"""
SERVO = '<position name="k" joint="knee" kp="4000" ctrlrange="-.2 .2"/>'
MOTOR = '<motor name="k" joint="knee" ctrlrange="-90 90"/>'


def robot(folder, model: str, **values):
    """A draft of a model with what is open filled in."""
    (folder / "m.xml").write_text(model)
    import_mjcf("it", folder / "m.xml", folder / "it")
    data = yaml.safe_load((folder / "it/robot.yaml").read_text())
    data["control_dt"] = 0.02
    fill = {"noise": 0.0, "max_age": 0.1, "limit": None, "smoothing_time": 0.0, "rate_limit": 5.0}
    fill |= {"scale": 1.0, "offset": 0.0, "wraps": False}
    for term in (*data["observation"], *data["action"]):
        term.update({k: v for k, v in fill.items() if term.get(k) == TODO})
        if term.get("safe_command") == TODO:
            term["safe_command"] = [0.0] * term["size"]
        if "tracking" in term:
            term["tracking"] = None
        term.update({k: v for k, v in values.items() if k in term and "rate_limit" in term})
    (folder / "it/robot.yaml").write_text(yaml.safe_dump(data))
    assert find_errors(folder / "it") == []
    return load_robot(str(folder / "it"))


def rests(made, seconds=2.0) -> list[str]:
    return list(unrest(made.interface, made.compile(), seconds))


def test_who_stands_and_stays_is_not_complained_of(tmp_path):
    assert rests(robot(tmp_path, LEGGED.format(floor=FLOOR, actuator=SERVO))) == []


@pytest.mark.parametrize("name", robot_names())
def test_shipped_robots_stand_and_stay(name):
    assert rests(load_robot(name)) == []


def test_a_model_without_a_floor_falls(tmp_path):
    found = rests(robot(tmp_path, LEGGED.format(floor="", actuator=SERVO)))
    # 9.81 * 2 = 19.6 m/s; 9.81 * 2 * 2 / 2 = 19.6 m
    assert found[0].startswith(
        "it does not stand: trunk is 20 m lower after 2 s of its safe command and falls at 20 m/s;"
        " there is no floor in model.xml"
    )


def test_a_robot_that_falls_over_leans(tmp_path):
    model = LEGGED.format(floor=FLOOR, actuator=SERVO).replace(
        'size=".2 .2 .02"', 'size=".01 .01 .02"'
    )
    model = model.replace('size=".1" mass="4"', 'size=".1" pos=".05 0 0" mass="4"')
    assert "it does not stand: trunk leans by 1." in rests(robot(tmp_path, model))[0]


def test_torques_that_do_not_hold_the_robot(tmp_path):
    found = rests(robot(tmp_path, LEGGED.format(floor=FLOOR, actuator=MOTOR)))
    (text,) = [each for each in found if each.startswith("action slide_effort: ")]
    assert "it does not stay where `safe_command` holds it: knee moves by 0." in text
    # What holds the trunk's 4 kg from the plate: 39.2 N downwards on the plate, against its axis.
    held = robot(
        tmp_path / "it", LEGGED.format(floor=FLOOR, actuator=MOTOR), safe_command=[-39.24]
    )
    assert rests(held) == []


def test_a_pose_that_a_weak_servo_does_not_reach(tmp_path):
    weak = SERVO.replace("/>", ' forcerange="-9 9"/>')
    found = rests(robot(tmp_path, LEGGED.format(floor=FLOOR, actuator=weak)))
    assert any("knee is at 0." in text and "`safe_command` says 0" in text for text in found)


# Stops ------------------------------------------------------------------------------------------


def said(made) -> list[str]:
    model = made.compile()
    return find_warnings(made.interface, model, run_step_tests(made.interface, model, 0.5))


def test_a_stop_that_takes_long_is_named_with_its_seconds(tmp_path):
    model = LEGGED.format(floor=FLOOR, actuator=SERVO)
    # From -0.2 to 0.1 at 0.06 m/s: 5 s.
    slow = robot(tmp_path, model, rate_limit=0.06, safe_command=[0.1])
    assert any(
        "action slide_position.0: a stop takes up to 5.00 s, from its limit to `safe_command`"
        in text
        for text in said(slow)
    )
    (tmp_path / "b").mkdir()
    quick = robot(tmp_path / "b", model, rate_limit=0.11, safe_command=[0.1])  # 2.7 s
    assert not any("a stop takes" in text for text in said(quick))


def test_a_control_that_is_not_what_is_sent_is_named(tmp_path):
    made = robot(tmp_path, LEGGED.format(floor=FLOOR, actuator=SERVO))
    assert not any("is sent as it is" in text for text in said(made))
    model = tmp_path / "it/model.xml"
    model.write_text(model.read_text().replace('kp="4000"', 'gear="50" kp="4000"'))
    (text,) = [t for t in said(load_robot(str(tmp_path / "it"))) if "is sent as it is" in t]
    assert text.startswith("actuator k: position[knee] is sent as it is, but the joint's position")
    assert "0.02 times its control (gear 50)" in text


# Messages ---------------------------------------------------------------------------------------


def test_two_terms_that_read_one_field_are_a_mistake_unless_they_are_the_same(tmp_path):
    robot(tmp_path, LEGGED.format(floor=FLOOR, actuator=SERVO))
    path = tmp_path / "it/robot.yaml"
    data = yaml.safe_load(path.read_text())
    where = next(t for t in data["observation"] if t["name"] == "trunk_position")
    data["observation"].append({**where, "name": "again"})
    path.write_text(yaml.safe_dump(data))
    assert find_errors(tmp_path / "it") == []
    odd = {**where, "name": "other", "mujoco": {"qpos": ["root[0]", "root[1]", "root[2]"]}}
    data["observation"][-1] = odd
    path.write_text(yaml.safe_dump(data))
    (found,) = find_errors(tmp_path / "it")
    assert "trunk_position and other both read pose.pose.position.x of topic odom" in found


# Steps ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dt", ["0.01", "0.005"])
def test_an_integrator_that_drops_a_part_of_the_dynamics_is_found(tmp_path, dt):
    """The rover, its two wheels driven through one tendon, integrated implicitly."""
    folder = tmp_path / "rover"
    shutil.copytree(ROBOTS / "rover", folder)
    for name, old, new in (
        (
            "model.xml",
            r'timestep="\S+" integrator="\w+"',
            f'timestep="{dt}" integrator="implicitfast"',
        ),
        ("robot.yaml", r"physics_dt: \S+", f"physics_dt: {dt}"),
    ):
        text, count = re.subn(old, new, (folder / name).read_text())
        assert count == 1
        (folder / name).write_text(text)
    made = load_robot(str(folder))
    (found,) = coarse(made.interface, made.compile())
    numbers = re.fullmatch(
        rf"speed.0 at -0.22: its acceleration is (\S+) m/s per s at physics_dt {dt} s, and (\S+) "
        "m/s per s with steps 10 times finer: .*",
        found,
    )
    assert numbers is not None, found
    known, finer = map(float, numbers.groups())
    assert known < 0.9 * finer
    # 1.22 kg and the wheels' inertia against 2.5 N: 2 m/s2 by the masses.
    assert finer == pytest.approx(1.95, abs=0.1)


@pytest.mark.parametrize("name", robot_names())
def test_shipped_robots_have_steps_that_are_fine_enough(name):
    made = load_robot(name)
    assert list(coarse(made.interface, made.compile())) == []


def test_steps_that_cannot_be_finer_are_not_compared_with_finer_ones():
    robot = load_robot("omni")
    short = replace(robot.interface, physics_dt=5e-6)  # a tenth of it is no step
    many = replace(robot.interface, physics_dt=robot.interface.control_dt / 50_000)
    assert [*coarse(short, robot.compile()), *coarse(many, robot.compile())] == []
