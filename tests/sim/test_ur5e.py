"""The UR5e has the published figures, stands above its table, and cannot touch itself."""

from itertools import combinations

import mujoco
import numpy as np
import pytest

from sim.physics.robot_model import load_robot
from sim.physics.servo import effect, gains
from sim.robot_setup.step_test import run_step_tests
from sim.robot_setup.validation import find_errors, find_warnings
from sim.tasks.ur5e_arm import tip, tool_down

ROBOT = load_robot("ur5e")
INTERFACE, MODEL = ROBOT.interface, ROBOT.compile()
JOINTS = [
    f"{name}_joint"
    for name in ("shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3")
]
LINKS = ("shoulder", "upper_arm", "forearm", "wrist_1", "wrist_2", "wrist_3")
# Universal Robots, "DH Parameters for calculations of kinematics and dynamics", UR5e: a, d (m),
# alpha (rad), mass (kg), center of mass (m) in the frame at the end of the link.
DH = [
    (0, 0.1625, np.pi / 2, 3.761, (0, -0.02561, 0.00193)),
    (-0.425, 0, 0, 8.058, (0.2125, 0, 0.11336)),
    (-0.3922, 0, 0, 2.846, (0.15, 0, 0.0265)),
    (0, 0.1333, np.pi / 2, 1.37, (0, -0.0018, 0.01634)),
    (0, 0.0997, -np.pi / 2, 1.3, (0, 0.0018, 0.01634)),
    (0, 0.0996, 0, 0.365, (0, 0, -0.001159)),
]
TORQUES = (150, 150, 150, 28, 28, 28)  # N m, ur_description
SPEED = np.pi  # rad/s, ur_description
LOW, HIGH = INTERFACE.limits
OVER = 0.03  # rad, beyond its commands, which it does not exceed by more


def dh_frames(joints) -> list[np.ndarray]:
    """(4, 4) poses of the frames at the end of each link, in UR's base frame."""
    pose, frames = np.eye(4), []
    for (a, d, alpha, *_), q in zip(DH, joints, strict=True):
        cq, sq, ca, sa = np.cos(q), np.sin(q), np.cos(alpha), np.sin(alpha)
        link = [[cq, -sq * ca, sq * sa, a * cq], [sq, cq * ca, -cq * sa, a * sq]]
        pose = pose @ np.array([*link, [0, sa, ca, d], [0, 0, 0, 1]])
        frames.append(pose)
    return frames


def posed(joints) -> mujoco.MjData:
    data = mujoco.MjData(MODEL)
    data.qpos[:] = joints
    mujoco.mj_forward(MODEL, data)
    return data


def anywhere(count: int) -> np.ndarray:
    """(count, 6) joint angles, rad."""
    return np.random.default_rng(0).uniform(-np.pi, np.pi, (count, 6))


def commanded(count: int) -> np.ndarray:
    """(2 * count, 6) joint angles, rad, of poses within the commands and in their corners."""
    rng = np.random.default_rng(0)
    corners = np.where(rng.integers(0, 2, (count, 6)), HIGH, LOW)
    return np.concatenate([rng.uniform(LOW, HIGH, (count, 6)), corners])


# Published figures ------------------------------------------------------------------------------


def test_tool_and_masses_are_where_the_published_dh_table_puts_them():
    """UR's base frame is turned by half a turn to base_link."""
    turn = np.diag([-1, -1, 1])
    for joints in anywhere(20):
        data, frames = posed(joints), dh_frames(joints)
        tool = turn @ frames[-1][:3, 3]
        np.testing.assert_allclose(data.site("tool0").xpos, tool, atol=1e-9)
        np.testing.assert_allclose(data.sensor("tool").data, tool, atol=1e-9)
        axes = data.site("tool0").xmat.reshape(3, 3)
        np.testing.assert_allclose(axes, turn @ frames[-1][:3, :3], atol=1e-9)
        for name, frame, (*_, center) in zip(LINKS, frames, DH, strict=True):
            expected = turn @ (frame @ [*center, 1])[:3]
            np.testing.assert_allclose(data.body(f"{name}_link").xipos, expected, atol=1e-5)


def test_the_places_of_known_poses():
    """Stretched along x: a2 + a3, d4 + d6 to the left, d1 - d5 high. Then with its arm upright."""
    stretched = (0.425 + 0.3922, 0.1333 + 0.0996, 0.1625 - 0.0997)
    np.testing.assert_allclose(posed(np.zeros(6)).site("tool0").xpos, stretched, atol=1e-9)
    # Elbow at a right angle, tool down: a3 + d5 ahead, d4 to the left, d1 + a2 - d6 high.
    right = np.pi / 2
    elbow = posed([0, -right, right, -right, -right, 0]).site("tool0").xpos
    np.testing.assert_allclose(elbow, (0.4919, 0.1333, 0.4879), atol=1e-9)


def test_masses_torques_and_ranges_are_the_published_ones():
    (action,) = INTERFACE.action
    for i, (name, link, torque) in enumerate(zip(JOINTS, LINKS, TORQUES, strict=True)):
        assert MODEL.body(f"{link}_link").mass[0] == pytest.approx(DH[i][3])
        span = np.pi if name == "elbow_joint" else 2 * np.pi
        np.testing.assert_allclose(MODEL.joint(name).range, (-span, span), atol=1e-4)
        actuator = MODEL.actuator(action.mujoco.actuators[i])
        assert MODEL.joint(int(actuator.trnid[0])).name == name
        assert effect(MODEL, actuator.id).kind == "position"
        np.testing.assert_allclose(actuator.forcerange, (-torque, torque))
        np.testing.assert_allclose(actuator.ctrlrange, (LOW[i], HIGH[i]))
        stiffness, damping = gains(MODEL, actuator.id)
        assert damping / stiffness == pytest.approx(0.04)  # s behind a moving command
    assert max(action.rate_limits) < SPEED / 2


# Principal moments of inertia, kg m2, of ur_description's tensors (config/ur5e).
TENSORS = {
    "shoulder": (0.0070021, 0.00648091, 0.00657286, 0.00000073, -0.00001053, 0.00049994),
    "upper_arm": (0.01505885, 0.33388086, 0.33247207, -0.000054, 0.00000563, -0.00000181),
    "forearm": (0.00399632, 0.07879254, 0.0784851, -0.00001365, 0.00137272, -0.0000066),
    "wrist_1": (0.00165491, 0.00135962, 0.00126279, -0.00000282, -0.00000438, 0.00010157),
    "wrist_2": (0.00135617, 0.00127827, 0.00096614, -0.00000274, 0.00000444, -0.00005048),
    "wrist_3": (0.00018694, 0.00018908, 0.00025756, 0.00000006, -0.00000017, -0.00000092),
}


@pytest.mark.parametrize("link", LINKS)
def test_inertias_are_the_published_ones_in_the_frames_of_the_dh_table(link):
    xx, yy, zz, xy, xz, yz = TENSORS[link]
    published = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    joints = anywhere(1)[0]
    data, frame = posed(joints), dh_frames(joints)[LINKS.index(link)][:3, :3]
    axes = np.diag([-1, -1, 1]) @ frame
    turned = data.body(f"{link}_link").ximat.reshape(3, 3)
    moments = MODEL.body(f"{link}_link").inertia
    np.testing.assert_allclose(
        turned @ np.diag(moments) @ turned.T, axes @ published @ axes.T, atol=1e-7
    )


# The robot on its table -------------------------------------------------------------------------


def test_check_robot_finds_nothing_to_complain_of():
    assert find_errors(ROBOT.model_path.parent) == []
    assert find_warnings(INTERFACE, MODEL, run_step_tests(INTERFACE, MODEL, 3.0)) == []


def test_the_table_touches_the_arm_and_nothing_else_touches():
    table = MODEL.geom("table").id
    for a, b in combinations(range(MODEL.ngeom), 2):
        touch = (MODEL.geom_contype[a] & MODEL.geom_conaffinity[b]) | (
            MODEL.geom_contype[b] & MODEL.geom_conaffinity[a]
        )
        assert bool(touch) == (table in (a, b))


def distance(data: mujoco.MjData, a: int, b: int) -> float:
    """Between two geoms, m, at most 0.5; negative where they overlap."""
    return mujoco.mj_geomDistance(MODEL, data, a, b, 0.5, None)


def test_within_its_commands_no_part_gets_to_another_one():
    """But the neighbours that a joint connects. So contacts among them need not be simulated."""
    chain = ["base_link", *(f"{name}_link" for name in LINKS)]
    place = {MODEL.body(name).id: i for i, name in enumerate(chain)}
    parts = {g: place.get(int(MODEL.geom_bodyid[g])) for g in range(MODEL.ngeom)}
    pairs = [
        (a, b)
        for a, b in combinations(parts, 2)
        if parts[a] is not None and parts[b] is not None and abs(parts[a] - parts[b]) > 1
    ]
    assert len(pairs) > 20
    for joints in commanded(150):
        data = posed(joints + np.sign(joints - (LOW + HIGH) / 2) * OVER)
        assert min(distance(data, a, b) for a, b in pairs) > 0.01


def above_the_table(joints) -> float:
    """Smallest distance of the arm from the table, m; its base stands on it."""
    data, table = posed(joints), MODEL.geom("table").id
    base = MODEL.body("base_link").id
    arm = [g for g in range(MODEL.ngeom) if g != table and MODEL.geom_bodyid[g] != base]
    return min(distance(data, table, g) for g in arm)


def test_a_stop_leads_away_from_the_table():
    """From poses that do not touch it, every joint at its rate limit to the safe command."""
    begun = 0
    for joints in commanded(60):
        if above_the_table(joints) <= 0:
            continue
        begun += 1
        while np.abs(joints - INTERFACE.safe_command).max() > 0:
            joints = INTERFACE.brake(joints)
            assert above_the_table(joints) > 0
    assert begun > 90
    assert above_the_table(INTERFACE.safe_command) > 0.08  # that of the shoulder


# Its kinematics in the task family --------------------------------------------------------------


def test_the_tool_is_where_the_kinematics_of_the_family_put_it():
    joints = anywhere(50)
    expected = [posed(each).site("tool0").xpos for each in joints]
    np.testing.assert_allclose(tip(joints), expected, atol=1e-9)


def test_tool_down_is_the_inverse_of_the_kinematics():
    places = np.random.default_rng(0).uniform((0.3, -0.3, 0.05), (0.6, 0.3, 0.4), (50, 3))
    joints = tool_down(places)
    np.testing.assert_allclose(tip(joints), places, atol=1e-9)
    for each in joints:
        down = posed(each).site("tool0").xmat.reshape(3, 3)[:, 2]
        np.testing.assert_allclose(down, (0, 0, -1), atol=1e-9)
