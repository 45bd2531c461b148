"""An IMU that is turned on its robot, beside MuJoCo's own sensors at a site that is turned."""

from __future__ import annotations

import re

import mujoco
import numpy as np
import pytest

from sim.envs.world import World
from sim.errors import UserError
from sim.interface.orientation import projected_gravity
from sim.physics.robot_model import load_robot
from sim.randomization.schema import check_sim_params, sim_params_from_dict
from sim.randomization.sensor_model import SensorModel, in_mount, mount_of
from sim.tasks.registry import make_family
from sim.tasks.velocity_commands import VelocityCommands

TURNS = [(0.0, 0.0, 0.0), (0.3, 0, 0), (0, -0.2, 0), (0, 0, 0.5), (0.4, -1.2, 2.5), (np.pi, 0, 0)]
GO2 = load_robot("go2")


def turned_site(turn) -> mujoco.MjModel:
    """A free body with sensors at a site of its own and at a turned one, about fixed axes."""
    euler = " ".join(map(str, turn))
    sensors = "".join(
        f"<framequat objtype='site' objname='{site}'/><gyro site='{site}'/>"
        for site in ("own", "turned")
    )
    return mujoco.MjModel.from_xml_string(
        f"""<mujoco><compiler angle="radian" eulerseq="XYZ"/><worldbody><body><freejoint/>
        <geom size=".1"/><site name="own"/><site name="turned" euler="{euler}"/></body></worldbody>
        <sensor>{sensors}</sensor></mujoco>"""
    )


@pytest.mark.parametrize("turn", TURNS)
def test_it_shows_what_mujocos_sensors_at_a_turned_site_do(turn):
    model, rng = turned_site(turn), np.random.default_rng(0)
    data, mount = mujoco.MjData(model), mount_of(np.array(turn))
    for _ in range(20):
        data.qpos[3:] = rng.standard_normal(4)
        data.qvel[3:] = rng.standard_normal(3)
        mujoco.mj_forward(model, data)
        own, gyro, seen, turned_gyro = np.split(data.sensordata, [4, 7, 11])
        shown = in_mount(mount, own)
        np.testing.assert_allclose(shown * np.sign(shown @ seen), seen, atol=1e-12)
        np.testing.assert_allclose(in_mount(mount, gyro), turned_gyro, atol=1e-12)


@pytest.mark.parametrize("turn", TURNS)
def test_the_true_value_is_found_again(turn):
    rng = np.random.default_rng(1)
    sensor = SensorModel(mount=mount_of(np.array(turn)), bias=np.array([0.1, 0, 0]))
    vectors = rng.standard_normal((5, 3))
    np.testing.assert_allclose(sensor.true(sensor.measured(vectors)), vectors, atol=1e-12)
    assert sensor.changes_values


def begun(sections, count=3) -> World:
    ranges = sim_params_from_dict(sections, "test")
    made = World(GO2, VelocityCommands(), count, domain_randomization=ranges)
    rngs = [np.random.default_rng(n) for n in range(count)]
    made.reset(np.arange(count, dtype=np.int32), [0] * count, rngs)
    return made


def test_gyro_and_gravity_of_an_episode_are_turned_alike_and_nothing_else_is():
    made = begun({"imu": {"mount_rad": [[-0.3, 0.3], [-0.3, 0.3], [-0.3, 0.3]]}})
    rng = np.random.default_rng(0)
    made.physics._qpos[:, 3:7] = [0.9, 0.1, -0.3, 0.2] / np.linalg.norm([0.9, 0.1, -0.3, 0.2])
    made.physics._qvel[:, 3:6] = rng.standard_normal((3, 3))
    true = made.true_state()
    shown = made.measurements(true)
    mounts = mount_of(made.varied._of("imu_mount"))
    assert len({tuple(row) for row in mounts.round(9)}) == 3
    np.testing.assert_allclose(
        shown["angular_velocity"], in_mount(mounts, true["angular_velocity"])
    )
    down = [projected_gravity(each["projected_gravity"]) for each in (shown, true)]
    np.testing.assert_allclose(down[0], in_mount(mounts, down[1]), atol=1e-12)
    assert np.abs(down[0] - down[1]).max() > 0.05
    for name in ("joint_position", "joint_velocity", "position", "orientation"):
        np.testing.assert_array_equal(shown[name], true[name])


@pytest.mark.parametrize(
    ("robot", "said"),
    [
        ("omni", "imu: the robot has no term that is read from sensor_msgs/msg/Imu"),
        ("rover", "imu: "),
    ],
)
def test_a_robot_whose_imu_is_not_known_whole_is_refused(robot, said):
    params = sim_params_from_dict({"imu": {"mount_rad": [0.1, 0, 0]}}, "test")
    with pytest.raises(UserError, match=f"^my.yaml: {re.escape(said)}"):
        check_sim_params(params, load_robot(robot).interface, "my.yaml")


@pytest.mark.parametrize(
    ("value", "said"),
    [([0.1, 0], "mount_rad"), ([4.0, 0, 0], "mount_rad"), ("upside down", "mount_rad")],
)
def test_mounts_that_cannot_be_are_refused(value, said):
    with pytest.raises(UserError, match=said):
        sim_params_from_dict({"imu": {"mount_rad": value}}, "test")


def test_recordings_are_not_compared_with_a_turned_imu():
    from mlsh_ros.sim2real.replay.open_loop_replay import OpenLoopReplay

    params = sim_params_from_dict({"imu": {"mount_rad": [0.1, 0, 0]}}, "test")
    family = make_family("velocity_commands")
    with pytest.raises(UserError, match=r"^sim_params: imu: a mount of the IMU is simulated in"):
        OpenLoopReplay(GO2, GO2.interface, family, lambda _: None, sim_params=params)
