"""The Go2 has the published figures, stands, and walks under a policy that others trained."""

import itertools

import mujoco
import numpy as np
import pytest

from sim.interface.orientation import projected_gravity
from sim.physics.robot_model import load_robot
from sim.physics.servo import effect
from sim.randomization.schema import load_sim_params, read_ranges
from tests.support.go2 import (
    CONTROL_DT,
    DEFAULT,
    FALLEN,
    JOINTS,
    KD,
    KP,
    LEGS,
    MEASURED,
    PHYSICS_DT,
    SCALE,
    TORQUE,
    Walker,
)

ROBOT = load_robot("go2")
INTERFACE, MODEL = ROBOT.interface, ROBOT.compile()
PARTS = ("hip", "thigh", "calf")
SIDES = {"FR": (1, -1), "FL": (1, 1), "RR": (-1, -1), "RL": (-1, 1)}
# Mass, kg, and principal moments of inertia, kg m2: MuJoCo Menagerie, unitree_go2/go2.xml.
BODIES = {
    "trunk": (6.921, (0.107027, 0.0980771, 0.0244531)),
    "hip": (0.678, (0.00088403, 0.000596003, 0.000479967)),
    "thigh": (1.152, (0.00594973, 0.00584149, 0.000878787)),
    "calf": (0.241352, (0.0014901, 0.00146356, 0.0000531397)),
}
RANGES = {
    "hip": (-1.0472, 1.0472),
    "F_thigh": (-1.5708, 3.4907),
    "R_thigh": (-0.5236, 4.5379),
    "calf": (-2.7227, -0.83776),
}


def posed(angles: np.ndarray) -> mujoco.MjData:
    """The model upright in the air with joint angles (12,), rad, in the order of JOINTS."""
    data = mujoco.MjData(MODEL)
    data.qpos[:7] = 0, 0, 1, 1, 0, 0, 0
    for name, angle in zip(JOINTS, angles, strict=True):
        data.joint(name).qpos[0] = angle
    mujoco.mj_forward(MODEL, data)
    return data


# The model --------------------------------------------------------------------------------


def test_masses_and_inertias_are_the_published_ones():
    assert MODEL.body("base_link").subtreemass[0] == pytest.approx(15.206, abs=1e-3)
    for leg, part in [("", "trunk"), *itertools.product(LEGS, PARTS)]:
        body = MODEL.body(f"{leg}_{part}" if leg else "base_link")
        mass, inertia = BODIES[part]
        assert body.mass[0] == pytest.approx(mass)
        np.testing.assert_allclose(body.inertia, inertia, rtol=2e-3)


def test_feet_are_where_the_published_lengths_put_them():
    rng = np.random.default_rng(0)
    for _ in range(20):
        angles = rng.uniform(-1, 1, 12)
        data = posed(angles)
        for leg, (hip, thigh, calf) in zip(LEGS, angles.reshape(4, 3), strict=True):
            x, y = SIDES[leg]
            # In the leg's plane: thigh and calf of 0.213 m, the foot 2 mm behind the calf's line.
            knee = -0.213 * np.array([np.sin(thigh), np.cos(thigh)])
            lower = thigh + calf
            foot = knee - 0.213 * np.array([np.sin(lower), np.cos(lower)])
            foot += -0.002 * np.array([np.cos(lower), -np.sin(lower)])
            ahead, up, out = foot[0], foot[1], 0.0955 * y
            side = out * np.cos(hip) - up * np.sin(hip)
            height = out * np.sin(hip) + up * np.cos(hip)
            expected = 0.1934 * x + ahead, 0.0465 * y + side, 1 + height
            np.testing.assert_allclose(data.geom(f"{leg}_foot").xpos, expected, atol=1e-5)


def test_joints_servos_and_commands_have_the_published_ranges_and_gains():
    (action,) = INTERFACE.action
    low, high = action.limits
    for i, name in enumerate(JOINTS):
        leg, part = name.split("_")[:2]
        span = RANGES[f"{leg[0]}_thigh" if part == "thigh" else part]
        np.testing.assert_allclose(MODEL.joint(name).range, span)
        np.testing.assert_allclose((low[i], high[i]), span)
        actuator = MODEL.actuator(action.mujoco.actuators[i])
        assert MODEL.joint(int(actuator.trnid[0])).name == name
        assert action.ros.fields[i] == f"position[{name}]"
        assert effect(MODEL, actuator.id).kind == "position"
        assert (actuator.gainprm[0], -actuator.biasprm[1], -actuator.biasprm[2]) == (KP, KP, KD)
        np.testing.assert_allclose(actuator.forcerange, (-TORQUE, TORQUE))
    np.testing.assert_allclose(action.offset, DEFAULT)
    np.testing.assert_allclose(action.scale, SCALE)
    assert (INTERFACE.control_dt, INTERFACE.physics_dt) == (CONTROL_DT, PHYSICS_DT)


def test_it_touches_the_floor_and_never_itself():
    floor = MODEL.geom("floor").id
    for a, b in itertools.combinations(range(MODEL.ngeom), 2):
        touch = (MODEL.geom_contype[a] & MODEL.geom_conaffinity[b]) | (
            MODEL.geom_contype[b] & MODEL.geom_conaffinity[a]
        )
        assert bool(touch) == (floor in (a, b))


def test_every_field_goes_by_name():
    walker = Walker(1, 1.0)
    physics = walker.world.physics
    turned = np.array([np.cos(0.3), 0, np.sin(0.3), 0])  # nose down by 0.6 rad
    physics.batch.qpos[0, 3:7] = turned
    physics.batch.qvel[0, 3:6] = 0.1, 0.2, 0.3
    for i, name in enumerate(JOINTS):
        physics.batch.joint(name).qpos[0] = 0.1 * i
        physics.batch.joint(name).qvel[0] = -0.2 * i
    seen = INTERFACE.observe(walker.world.true_state(), memory=walker.memory)[0]
    at = INTERFACE.observation_slices
    np.testing.assert_allclose(seen[at["joint_position"]], 0.1 * np.arange(12), rtol=1e-6)
    np.testing.assert_allclose(seen[at["joint_velocity"]], -0.01 * np.arange(12), rtol=1e-6)
    np.testing.assert_allclose(seen[at["angular_velocity"]], (0.025, 0.05, 0.075), rtol=1e-6)
    # Gravity is ahead of a robot that looks down.
    np.testing.assert_allclose(
        seen[at["projected_gravity"]], (np.sin(0.6), 0, -np.cos(0.6)), atol=1e-6
    )
    np.testing.assert_allclose(projected_gravity(turned), seen[at["projected_gravity"]], atol=1e-6)
    for term in INTERFACE.observation:
        if term.name in ("joint_position", "joint_velocity"):
            kind = term.name.removeprefix("joint_")
            assert term.ros.fields == tuple(f"{kind}[{name}]" for name in JOINTS)


# Standing and walking ---------------------------------------------------------------------


def test_an_episode_begins_nearly_at_rest():
    walker = Walker(1, 5.0)
    begun = walker.world.physics.pose[0]
    for _ in range(150):
        walker.world.step_command(INTERFACE.safe_command[None])
    ended = walker.world.physics.pose[0]
    assert np.linalg.norm(ended[:2] - begun[:2]) < 0.01
    assert ended[2] == pytest.approx(begun[2], abs=0.005)
    assert walker.lean[0] < 0.05
    assert np.abs(walker.world.physics.batch.qvel).max() < 0.02
    data = walker.world.physics.batch.get_data(0)
    mujoco.mj_forward(walker.world.physics.model, data)
    down = {walker.world.physics.model.geom(i).name for i in data.contact.geom.ravel()}
    assert down == {"floor", *(f"{leg}_foot" for leg in LEGS)}


@pytest.mark.parametrize(("command", "expected"), MEASURED.items())
def test_a_policy_that_others_trained_walks_as_on_another_model(command, expected):
    walked = Walker(1, 10.0).walk(command, 10.0)
    assert not walked.fell.any()
    np.testing.assert_allclose(walked.velocity[0], expected[:3], atol=0.1)
    assert walked.height[0] == pytest.approx(expected[3], abs=0.02)
    assert walked.torque <= TORQUE + 1e-9
    # Its commands are held within the joints' ranges, and not by the rate limit.
    free = np.clip(walked.targets, *INTERFACE.limits)
    np.testing.assert_allclose(walked.commands[5:], free[5:], atol=1e-6)


@pytest.mark.parametrize("command", MEASURED)
def test_a_stop_does_not_make_it_fall(command):
    walker = Walker(2, 8.0)
    for tick in range(200):
        output = walker.action(command)
        walker.step(output)
        assert (walker.lean < FALLEN).all(), tick
    for _ in range(150):
        walker.stop()
        assert (walker.lean < FALLEN).all()
    assert np.abs(walker.twist).max() < 0.05
    assert (walker.lean < 0.15).all()


def test_it_walks_with_harsh_parameters_and_in_the_ranges():
    """Weaker, later, heavier, on a slippery floor: slower, lower, and no fall."""
    nominal = Walker(1, 5.0).walk((0.8, 0.0, 0.0), 4.0)
    harsh = Walker(1, 5.0, sim_params=load_sim_params("harsh", ROBOT)).walk((0.8, 0.0, 0.0), 4.0)
    assert not harsh.fell.any()
    assert 0.2 < harsh.velocity[0, 0] < 0.9 * nominal.velocity[0, 0]
    assert harsh.height[0] < nominal.height[0] - 0.05
    ranges = read_ranges(ROBOT)
    assert ranges is not None
    varied = Walker(2, 5.0, domain_randomization=ranges).walk((0.5, 0.0, 0.0), 4.0)
    assert not varied.fell.any()
    assert (varied.velocity[:, 0] > 0.25).all()
