"""A robot tried in simulation: numbers are those of the arithmetic, warnings have a cause."""

import copy

import numpy as np
import pytest
import yaml

from sim.physics.robot_model import load_robot
from sim.robot_setup.step_test import run_step_tests
from sim.robot_setup.validation import find_errors, find_warnings, mujoco_sources

# Two carts with 2 kg. Servo of velocity, kv 10: time constant 2 / 10 = 0.2 s, and with damping
# 2.5 on the second one 2 / 12.5 = 0.16 s and a gain of 10 / 12.5 = 0.8.
MODEL = """
<mujoco>
  <option timestep="0.01" integrator="implicitfast" gravity="0 0 0"/>
  <worldbody>
    <body>
      <joint name="a" type="slide" axis="1 0 0"/>
      <geom name="g" size=".1" mass="2" contype="0" conaffinity="0"/>
    </body>
    <body>
      <joint name="b" type="slide" axis="1 0 0" damping="2.5"/>
      <geom size=".1" mass="2" contype="0" conaffinity="0"/>
    </body>
  </worldbody>
  <actuator>
    <velocity name="go_a" joint="a" kv="10" ctrlrange="-2 2"/>
    <velocity name="go_b" joint="b" kv="10" ctrlrange="-2 2"/>
  </actuator>
  <sensor><framequat name="turned" objtype="geom" objname="g"/></sensor>
</mujoco>
"""

ROBOT = """
schema: 2
robot: carts
control_dt: 0.05
physics_dt: 0.01
observation:
  - {name: speed, size: 2, unit: m/s, frame: odom, scale: 1.0, clip: null, noise: 0.0,
     max_age: 0.1, limit: [-3.0, 3.0], inf_values: null, mujoco: {qvel: [a, b]},
     ros: {topic: joint_states, type: sensor_msgs/msg/JointState,
           fields: ["velocity[a]", "velocity[b]"], required_values: {}}}
action:
  - {name: speed, size: 2, unit: m/s, frame: odom, scale: 1.0, offset: 0.0, limit: [-2.0, 1.0],
     smoothing_time: 0.0, rate_limit: 4.0, tracking: {term: speed, tolerance: 0.9, timeout: 0.5},
     safe_command: [0.0, 0.0], mujoco: {actuators: [go_a, go_b]},
     ros: {topic: joint_commands, type: sensor_msgs/msg/JointState,
           fields: ["velocity[a]", "velocity[b]"], required_values: {}}}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model.xml").write_text(MODEL)
    (tmp_path / "robot.yaml").write_text(ROBOT)
    return tmp_path


def edit(folder, **changes):
    """Change entries such as `action__0__safe_command` of robot.yaml."""
    data = copy.deepcopy(yaml.safe_load(ROBOT))
    for path, value in changes.items():
        *parents, leaf = [int(key) if key.isdigit() else key for key in path.split("__")]
        place = data
        for key in parents:
            place = place[key]
        place[leaf] = value
    (folder / "robot.yaml").write_text(yaml.safe_dump(data))


def remodel(folder, old, new):
    assert old in MODEL
    (folder / "model.xml").write_text(MODEL.replace(old, new))


def tried(folder, seconds=3.0):
    robot = load_robot(str(folder))
    model = robot.compile()
    trial = run_step_tests(robot.interface, model, seconds)
    return trial, find_warnings(robot.interface, model, trial)


# Numbers ----------------------------------------------------------------------------------------


def test_gain_lag_and_stop_are_those_of_the_arithmetic(folder):
    trial, found = tried(folder)
    assert found == []
    assert trial.held.finite
    assert [(d.element, d.target) for d in trial.drives] == [(0, -2), (0, 1), (1, -2), (1, 1)]
    for drive, tau, gain in zip(
        trial.drives, (0.2, 0.2, 0.16, 0.16), (1, 1, 0.8, 0.8), strict=True
    ):
        did = drive.followed
        assert did.gain == pytest.approx(gain, rel=1e-3)
        # A first-order system's mean delay is its time constant; sampled every 0.01 s.
        assert did.lag == pytest.approx(tau, abs=0.01)
        assert (did.settled, did.overshoot) == (True, pytest.approx(0, abs=1e-9))
        assert drive.ramp == pytest.approx(abs(drive.target) / 4)
        # On a ramp of r = 4 m/s2 for t = way / r the answer trails by r tau (1 - exp(-t / tau)),
        # and from then on the rest falls as exp(-t / tau) to 5 % of the way.
        behind = 4 * tau * (1 - np.exp(-drive.ramp / tau)) * gain
        left = behind / (0.05 * abs(drive.target))
        assert did.stop == pytest.approx(drive.ramp + tau * np.log(left), abs=0.06)
    # The largest error is where the ramp ends: 4 * 0.2 * (1 - exp(-0.5 / 0.2)) = 0.734, and
    # less, because it is looked at after a tick, not at its beginning.
    assert 0.55 < trial.drives[0].followed.error < 0.734


def test_what_was_shown_is_what_the_terms_say(folder):
    trial, _ = tried(folder)
    low, high = (getattr(trial.drives[0].shown, side)["speed"] for side in ("low", "high"))
    assert low[0] == pytest.approx(-2, rel=1e-3)
    assert (low[1], high[1]) == (0, 0)
    robot = load_robot(str(folder))
    assert mujoco_sources(robot.compile(), robot.interface.observation[0]) == [
        "qvel a = qvel[0]",
        "qvel b = qvel[1]",
    ]


# Doubts -----------------------------------------------------------------------------------------


def test_a_tolerance_that_would_trip_is_named_with_what_is_measured(folder):
    edit(folder, action__0__tracking={"term": "speed", "tolerance": 0.3, "timeout": 0.2})
    _, found = tried(folder)
    assert any(
        text.startswith("speed.0 at -2: tracking.tolerance 0.3 would trip: the measured error")
        for text in found
    )


def test_a_limit_that_is_reached_in_normal_driving(folder):
    edit(folder, observation__0__limit=[-1.5, 1.5])
    (text,) = tried(folder)[1]
    assert "term speed: its limit [-1.5, 1.5] is reached in normal driving: it shows -2" in text


def test_a_limit_that_is_passed_at_rest(folder):
    edit(folder, observation__0__limit=[0.5, 3.0])
    assert any("only holds its safe command: it shows 0" in text for text in tried(folder)[1])


def test_a_servo_with_the_wrong_sign(folder):
    remodel(folder, 'joint="a" kv="10"', 'joint="a" kv="10" gear="-1"')
    _, found = tried(folder)
    assert any("speed moves the other way" in text for text in found)


def test_a_servo_that_does_nothing(folder):
    remodel(folder, 'joint="a" kv="10"', 'joint="a" kv="10" forcerange="-.01 .01"')
    _, found = tried(folder)
    assert any("speed.0 at -2: speed hardly follows (gain 0.0" in text for text in found)


def test_no_tracking_is_said(folder):
    edit(folder, action__0__tracking=None)
    trial, found = tried(folder)
    assert "action speed: no tracking" in found[0]
    assert all(drive.followed is None for drive in trial.drives)


def test_an_actuator_that_nobody_drives(folder):
    edit(
        folder,
        action__0__mujoco={"actuators": ["go_a"]},
        action__0__size=1,
        action__0__safe_command=[0.0],
        action__0__tracking=None,
        action__0__ros__fields=["velocity[a]"],
    )
    assert any("go_b: no action term drives it" in text for text in tried(folder)[1])


def test_a_position_servo_without_damping_and_beyond_its_joint(folder):
    remodel(
        folder,
        '<velocity name="go_a" joint="a" kv="10"',
        '<position name="go_a" joint="a" kp="10"',
    )
    text = (folder / "model.xml").read_text()
    (folder / "model.xml").write_text(
        text.replace('name="a"', 'name="a" range="-.5 .5" limited="true"')
    )
    action = yaml.safe_load(ROBOT)["action"][0]
    a, b = (
        action
        | {"name": name, "size": 1, "unit": unit, "safe_command": [0.0], "tracking": None}
        | {"mujoco": {"actuators": [f"go_{name}"]}}
        | {"ros": action["ros"] | {"fields": [f"{array}[{name}]"]}}
        for name, unit, array in (("a", "m", "position"), ("b", "m/s", "velocity"))
    )
    edit(folder, action=[a, b])
    _, found = tried(folder)
    assert any("go_a: position servo without damping" in each for each in found)
    assert any("is beyond the range -0.5 .. 0.5 of joint a" in each for each in found)
    (folder / "model.xml").write_text(text.replace('kp="10"', 'kp="10" kv="9"'))
    assert not any("without damping" in each for each in tried(folder)[1])


@pytest.mark.parametrize(("order", "wrong"), [("wxyz", False), ("xyzw", True)])
def test_the_order_of_a_quaternion(folder, order, wrong):
    term = {
        **yaml.safe_load(ROBOT)["observation"][0],
        "name": "turned",
        "size": 4,
        "unit": "1",
        "mujoco": {"sensor": "turned"},
        "ros": {
            "topic": "imu",
            "type": "sensor_msgs/msg/Imu",
            "fields": [f"orientation.{a}" for a in order],
            "required_values": {},
        },
    }
    edit(folder, observation=[yaml.safe_load(ROBOT)["observation"][0], term])
    assert any("quaternion order: MuJoCo w,x,y,z" in t for t in find_errors(folder)) is wrong


def test_what_does_not_stay_finite_is_not_driven(folder):
    remodel(
        folder,
        '<velocity name="go_a" joint="a" kv="10"',
        '<general name="go_a" joint="a" biastype="affine" biasprm="1e9 1e12 0"',
    )
    trial, _ = tried(folder)
    assert not trial.held.finite
    assert trial.drives == ()


# Mistakes ---------------------------------------------------------------------------------------


def test_a_sound_robot_has_no_mistakes(folder):
    assert find_errors(folder) == []


def test_all_mistakes_are_named_not_the_first(folder):
    edit(
        folder,
        control_dt="TODO",
        observation__0__max_age="TODO",
        observation__0__noise=-1.0,
        action__0__tracking={"term": "speed", "tolerance": "TODO", "timeout": 0.5},
        action__0__safe_command=["TODO", 0.0],
        action__0__unit="TODO",
        action__0__color="red",
    )
    found = find_errors(folder)
    for place in (
        "control_dt: TODO; fill in: s per tick",
        "observation.0.max_age: TODO; fill in: s after which",
        "observation.0.noise: input should be greater than or equal to 0, got -1.0",
        "action.0.tracking.tolerance: TODO; fill in: how far",
        "action.0.safe_command.0: TODO; fill in: the command that stops the robot",
        "action.0.unit: TODO; fill in: the unit",
        "action.0: no key 'color'",
    ):
        assert sum(text.startswith(place) for text in found) == 1, (place, found)
    assert len(found) == 7


def test_all_names_that_the_model_lacks_are_named(folder):
    edit(
        folder,
        physics_dt=0.005,
        observation__0__mujoco={"qvel": ["a", "c"]},
        action__0__mujoco={"actuators": ["go_a", "go_c"]},
    )
    found = find_errors(folder)
    assert len(found) == 3
    for words in ("timestep 0.01", "no joint 'c'", "no actuator 'go_c'"):
        assert any(words in text for text in found)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("robot.yaml", "schema: 7", "schema 7 is not known"),
        ("robot.yaml", "robot: [", "not YAML"),
        ("model.xml", "<mujoco>", "model.xml: "),
    ],
)
def test_a_file_that_cannot_be_read(folder, name, text, words):
    (folder / name).write_text(text)
    (found,) = find_errors(folder)
    assert words in found
    (folder / name).unlink()
    (found,) = find_errors(folder)
    assert f"{name} does not exist" in found
