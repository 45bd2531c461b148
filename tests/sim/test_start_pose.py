"""A start pose: the keyframe in which episodes begin, and near which sessions have to."""

import shutil
from dataclasses import replace

import mujoco
import numpy as np
import pytest
import yaml

from mlsh_ros.control.controller import Controller
from mlsh_ros.control.faults import FaultError
from sim.envs.world import World
from sim.errors import UserError
from sim.interface import StartPose, StartTerm, interface_from_dict, interface_to_dict
from sim.physics.batched_physics import BatchedPhysics
from sim.physics.robot_model import Robot, load_robot, robot_folder
from sim.tasks.registry import make_family

HIPS, ANKLES = [0.2, -0.2, 0.1, -0.1], [0.9, 0.8, 1.0, 1.1]
NOD = [0.96891242, 0.0, 0.24740396, 0.0]  # half a radian about y
JOINTS = [angle for pair in zip(HIPS, ANKLES, strict=True) for angle in pair]
POSE = [0.3, -0.4, 0.6, *NOD, *JOINTS]
SPEED = [0.0] * 13 + [0.25]
START = {
    "keyframe": "crouch",
    "measured": [
        {"term": "hip", "values": HIPS, "tolerance": [0.1, 0.2, 0.3, 0.4]},
        {"term": "tilt", "values": [0.5], "tolerance": 0.05},
    ],
}
ALL = np.arange(2, dtype=np.int32)


def words(numbers) -> str:
    return " ".join(map(str, numbers))


def crouching(folder, start=START) -> Robot:
    """The ant with a keyframe, in which it begins."""
    shutil.copytree(robot_folder("ant"), folder, dirs_exist_ok=True)
    model = (folder / "model.xml").read_text()
    key = f'<key name="crouch" qpos="{words(POSE)}" qvel="{words(SPEED)}" ctrl="{words(JOINTS)}"/>'
    model = model.replace("</mujoco>", f'<keyframe><key name="rest"/>{key}</keyframe></mujoco>')
    (folder / "model.xml").write_text(model)
    data = yaml.safe_load((robot_folder("ant") / "robot.yaml").read_text())
    if start is not None:
        data["start_pose"] = start
    (folder / "robot.yaml").write_text(yaml.safe_dump(data))
    return load_robot(str(folder))


# Simulation -------------------------------------------------------------------------------


def test_a_simulation_begins_in_the_keyframe(tmp_path):
    robot = crouching(tmp_path)
    physics = BatchedPhysics(robot.interface, robot.compile(), 2, 1)
    physics.reset(ALL)
    np.testing.assert_allclose(physics.pose, [POSE] * 2)
    np.testing.assert_allclose(physics.fields()["hip"], [HIPS] * 2)
    np.testing.assert_allclose(physics.fields()["ankle_velocity"][:, -1], 0.25)
    physics.step(np.full((2, 8), 0.6))
    physics.reset(ALL[:1])
    np.testing.assert_allclose(physics.pose[0], POSE)
    assert not np.allclose(physics.pose[1], POSE)


def test_without_it_a_keyframe_says_nothing(tmp_path):
    robot = crouching(tmp_path, None)
    physics = BatchedPhysics(robot.interface, robot.compile(), 2, 1)
    physics.reset(ALL)
    np.testing.assert_array_equal(physics.pose, [physics.model.qpos0] * 2)
    assert robot.interface == load_robot("ant").interface


def test_a_robot_that_is_put_somewhere_keeps_its_pose_and_turns(tmp_path):
    robot = crouching(tmp_path)
    physics = BatchedPhysics(robot.interface, robot.compile(), 2, 1)
    physics.reset(ALL)
    physics.teleport(ALL, np.array([[1.0, 2.0, 0.0], [3.0, 4.0, 1.2]]))
    np.testing.assert_allclose(physics.pose[:, :3], [[1, 2, 0.6], [3, 4, 0.6]])
    turned = np.zeros(4)
    mujoco.mju_mulQuat(turned, np.array([np.cos(0.6), 0, 0, np.sin(0.6)]), np.array(NOD))
    np.testing.assert_allclose(physics.pose[:, 3:7], [NOD, turned])
    physics.step(np.full((2, 8), 0.6))
    xy = physics.pose[:, :2].copy()
    physics.reset_pose(ALL)
    np.testing.assert_allclose(physics.pose, [[*place, *POSE[2:]] for place in xy])


def test_an_episode_begins_there_with_a_command_that_holds_it(tmp_path):
    world = World(crouching(tmp_path), make_family("ant_movement"), 2)
    rngs = [np.random.default_rng(i) for i in range(2)]
    world.reset(ALL, [0, 1], rngs)
    np.testing.assert_allclose(world.physics.fields()["hip"], [HIPS] * 2, atol=0.2)
    assert not world.interface.start_beyond_limit(
        {name: value[0] for name, value in world.true_state().items()}
    )


# Sessions ---------------------------------------------------------------------------------


def fields(robot: Robot, **changes) -> dict[str, np.ndarray]:
    physics = BatchedPhysics(robot.interface, robot.compile(), 1, 1)
    physics.reset(ALL[:1])
    return {name: value[0] for name, value in physics.fields().items()} | changes


def controller(robot: Robot) -> Controller:
    return Controller(robot.interface, [lambda _: np.zeros((1, 8), np.float32)], 2, 1)


def test_a_session_begins_near_the_start_pose_only(tmp_path):
    robot = crouching(tmp_path)
    near = fields(robot, hip=np.add(HIPS, [0.09, -0.19, 0.29, 0.39]))
    controller(robot).observe(near)
    said = (
        r"start_out_of_limit: hip\.1 is 0.01 rad, in the start pose 'crouch' it is -0.2 within "
        r"0.2; bring the robot there first"
    )
    with pytest.raises(FaultError, match=said):
        controller(robot).observe(fields(robot, hip=np.add(HIPS, [0.0, 0.21, 0.0, 0.0])))
    with pytest.raises(
        FaultError, match=r"tilt\.0 is 0 rad, in the start pose 'crouch' it is 0.5"
    ):
        controller(robot).observe(fields(robot, tilt=np.array([1.0, 0.0, 0.0, 0.0])))


def test_later_ticks_may_be_anywhere(tmp_path):
    robot = crouching(tmp_path)
    each = controller(robot)
    request = each.observe(fields(robot))
    each.set_decision(request.macro, 0)
    each.act()
    each.observe(fields(robot, hip=np.array(HIPS) + 0.5))


def test_an_angle_that_wraps_is_near_on_both_sides():
    plain = load_robot("ant").interface
    terms = [
        replace(t, wraps=True, limit=None) if t.name == "hip" else t for t in plain.observation
    ]
    pose = StartPose("crouch", (StartTerm("hip", (3.1, 0.0, 0.0, 0.0), 0.2),))
    turned = replace(plain, observation=tuple(terms), start_pose=pose)
    shown = {t.name: np.zeros(t.size) for t in plain.observation}
    assert turned.start_pose.away(terms, shown | {"hip": np.array([-3.1, 0, 0, 0])}) == ""
    assert "hip.0" in turned.start_pose.away(terms, shown | {"hip": np.array([-2.8, 0, 0, 0])})


# Files ------------------------------------------------------------------------------------


def test_the_pose_travels_and_is_part_of_the_digest(tmp_path):
    made = crouching(tmp_path).interface
    assert interface_from_dict(interface_to_dict(made), "x") == made
    without = replace(made, start_pose=None)
    assert without.digest == load_robot("ant").interface.digest != made.digest
    assert "start_pose" not in interface_to_dict(without)


MISTAKES = [
    ({"keyframe": "sit"}, "start_pose.keyframe: no key 'sit'. Valid: rest, crouch"),
    ({"keyframe": 3}, 'a name of digits needs quotes: "3"'),
    (
        {"measured": [{"term": "knee", "values": [0.0], "tolerance": 0.1}]},
        "no observation term for start_pose.measured: 'knee'. Valid: position",
    ),
    (
        {"measured": [{"term": "hip", "values": [0.0], "tolerance": 0.1}]},
        "term 'hip': start_pose.measured.values has 1 elements, size is 4",
    ),
    (
        {"measured": [{"term": "hip", "values": HIPS, "tolerance": [0.1]}]},
        "term 'hip': start_pose.measured.tolerance has 1 elements, size is 4",
    ),
    (
        {"measured": [{"term": "hip", "values": [0.0, -0.2, 0.1, -0.1], "tolerance": 0.1}]},
        "start_pose: in the keyframe of model.xml hip.0 is 0.2 rad, in the start pose 'crouch' it "
        "is 0 within 0.1",
    ),
    (
        {"measured": [{"term": "hip", "values": HIPS, "tolerance": 0.1}] * 2},
        "start_pose.measured: term 'hip' is given twice",
    ),
]


@pytest.mark.parametrize(("change", "said"), MISTAKES, ids=[said for _, said in MISTAKES])
def test_every_mistake_is_refused_and_explained(tmp_path, change, said):
    with pytest.raises(UserError) as refused:
        crouching(tmp_path, START | change).compile()
    assert said in str(refused.value)
