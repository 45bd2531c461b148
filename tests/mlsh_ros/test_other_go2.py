"""The bench with another Go2: what is taken from its file, what is ours, and what is refused."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from sim.errors import UserError
from sim.physics.robot_model import ROBOTS, load_robot
from tests.benchmarks.other_go2 import Score, adopt, score
from tests.support.go2 import JOINTS, KD, KP, TORQUE

OURS = load_robot("go2").compile()


def theirs(path, *changes):
    """Our model as others write one: other names, motors, no floor, no keyframe, legs swapped."""
    text = (ROBOTS / "go2" / "model.xml").read_text()
    for pattern, new in (
        (r'<body name="base_link"', r'<body name="trunk"'),
        (r'<freejoint name="root"/>', r"<freejoint/>"),
        (r'<geom name="floor"[^>]*/>', ""),
        (r"<keyframe>.*</keyframe>", ""),
        (r'timestep="0.005"', r'timestep="0.002" cone="elliptic" impratio="100"'),
        (r'<default class="servo">.*?</default>', ""),
        (
            r'<position name="(\w+)" class="servo" joint="(\w+)"[^>]*/>',
            r'<motor name="motor_\1" joint="\2" ctrlrange="-40 40" gear="2"/>',
        ),
        (r'(<body name="FR_hip".*?)(<body name="FL_hip".*?)(?=<body name="RR_hip")', r"\2\1"),
        *changes,
    ):
        assert re.search(pattern, text, re.DOTALL), pattern
        text = re.sub(pattern, new, text, flags=re.DOTALL)
    path.write_text(text)
    return path


def test_another_model_keeps_its_own_and_gets_our_servos_floor_and_keyframe(tmp_path):
    robot = adopt(theirs(tmp_path / "go2.xml", (r'mass="6.921"', r'mass="7.5"')), tmp_path / "go2")
    model = robot.compile()
    assert robot.interface == load_robot("go2").interface
    # Theirs.
    assert model.body("base_link").mass[0] == 7.5
    assert (model.opt.cone, model.opt.impratio) == (1, 100)
    assert model.joint(1).name == "FL_hip_joint"
    # Ours.
    assert model.opt.timestep == 0.005
    np.testing.assert_allclose(model.geom("floor").friction, OURS.geom("floor").friction)
    for name in JOINTS:
        servo = model.actuator(name.removesuffix("_joint"))
        assert model.joint(int(servo.trnid[0])).name == name
        assert (servo.gainprm[0], -servo.biasprm[1], -servo.biasprm[2]) == (KP, KP, KD)
        assert servo.gear[0] == 1
        np.testing.assert_allclose(servo.forcerange, (-TORQUE, TORQUE))
        np.testing.assert_allclose(servo.ctrlrange, OURS.joint(name).range, atol=1e-6)
        for mine, own in ((model, servo), (OURS, OURS.actuator(servo.name))):
            key = mine.key("crouch")
            assert key.ctrl[own.id] == {"hip": 0.0, "thigh": 1.3, "calf": -2.1}[name.split("_")[1]]
        angles = [m.key("crouch").qpos[int(m.joint(name).qposadr[0])] for m in (model, OURS)]
        assert angles[0] == pytest.approx(angles[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((r"<freejoint/>", ""), "has 0 free joints; a Go2 has one"),
        ((r"FL_calf_joint", "FL_knee"), "joint 'FL_calf_joint' is missing. It has: .*FL_knee"),
        ((r'<motor name="motor_RL_calf"[^>]*/>', ""), "joint 'RL_calf_joint' has 0 actuators"),
        (
            (r"(<actuator>)", r'\1<motor name="again" joint="FR_hip_joint"/>'),
            "joint 'FR_hip_joint' has 2 actuators",
        ),
        (
            (
                r'(<geom name="trunk")',
                r'<body><joint name="arm"/><geom size=".01" mass=".1"/></body>\1',
            ),
            None,  # a joint more, which nothing drives, is no hindrance
        ),
        ((r"(<worldbody>)", r'\1<geom type="plane" size="1 1 1"/>'), "has a floor"),
        ((r'pos=".021112 0 -.005366"', 'pos="0 .9 0"'), "it does not rest"),
    ],
)
def test_what_is_missing_is_named_in_one_line(tmp_path, change, message):
    file = theirs(tmp_path / "go2.xml", change)
    if message is None:
        adopt(file, tmp_path / "go2")
        return
    with pytest.raises(UserError, match=message) as said:
        adopt(file, tmp_path / "go2")
    assert str(said.value).startswith(f"{file}: ")


def test_a_fall_is_no_success_and_a_stop_is_told_beside_it():
    def episode(ticks, success, fault=""):
        return SimpleNamespace(reward=np.zeros(ticks), success=success, fault=fault)

    stop = "tick 3: tracking: joint_position.0"
    made = [
        episode(10, True),
        episode(10, False),
        episode(7, True),  # at the goal, and fell
        episode(7, False, stop),  # a stop and a fall are a fall
        episode(10, True, stop),
    ]
    assert score(made, 10) == Score(solved=2, fell=2, stopped=1, episodes=5)
    assert str(score(made, 10)) == "40%; 2 fell; 1 stopped"
    total = score(made, 10) + Score(2, 0, 0, 3)
    assert (total.share, str(total)) == (0.5, "50%; 2 fell; 1 stopped")
