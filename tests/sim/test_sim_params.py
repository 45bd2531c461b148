"""What differs from the nominal model does what its name says; and the files that say so."""

import shutil
from dataclasses import replace
from pathlib import Path

import mujoco
import numpy as np
import pytest
import yaml

from sim.envs.vec_env import TaskVectorEnv
from sim.envs.world import World
from sim.errors import UserError
from sim.interface.memory import ObservationMemory
from sim.physics.robot_model import ROBOTS, Robot, load_robot, robot_names
from sim.randomization.perturbations import BLOCK
from sim.randomization.schema import (
    check_sim_params,
    load_sim_params,
    read_ranges,
    read_sim_params,
    sim_params_from_dict,
    sim_params_names,
    sim_params_to_dict,
)
from sim.seeding import Stream, generator
from sim.tasks.registry import FAMILIES, make_family
from sim.tasks.velocity_commands import VelocityCommands
from tests.support.floater import floater
from tests.support.infos import arrays_of

OMNI, ROVER = load_robot("omni"), load_robot("rover")
BANDITS, BODY = make_family("moving_bandits"), make_family("body_bandits")
DT = 0.02  # s, a physics step of omni; its tick has 5
MOTORS = 'kv="300" ctrlrange="-1 1" forcerange="-80 80"'
# A family that each robot is meant for, with short episodes; of omni, longer than a draw of noise.
HOME = {cls.robot: make_family(name, {"ticks": 12}) for name, cls in FAMILIES.items()}
HOME["omni"] = replace(BANDITS, ticks=BLOCK + 8)
HOME["go2"] = make_family("ant_mazes", {"ticks": 12})  # any robot with legs, a position and a pose
LOADED = [name for name in robot_names() if sim_params_names(load_robot(name))]


def real(**sections):
    return sim_params_from_dict(sections, "test")


def sections(*, physics=None, drive=None, **sensors):
    """Sim parameters of omni, with the same for both of its motors."""
    motors = {name: drive for name in ("drive_x", "drive_y")} if drive else {}
    return real(physics=physics or {}, actuators=motors, sensors=sensors)


def world(
    sim_params=None, domain_randomization=None, *, robot=OMNI, family=BANDITS, size=1, seed=0
) -> World:
    made = World(
        robot, family, size, sim_params=sim_params, domain_randomization=domain_randomization
    )
    rngs = [generator(seed, Stream.EPISODE, i) for i in range(size)]
    made.reset(np.arange(size, dtype=np.int32), [0] * size, rngs)
    return made


@pytest.fixture(scope="module")
def pushed(tmp_path_factory) -> Robot:
    """Omni with motors, 100 N each, in place of servos, and an armature of 5 kg; no friction."""
    folder = tmp_path_factory.mktemp("pushed")
    text = (ROBOTS / "omni/model.xml").read_text()
    for axis in "xy":
        text = text.replace(
            f'<velocity name="drive_{axis}" joint="slide_{axis}" {MOTORS}',
            f'<motor name="drive_{axis}" joint="slide_{axis}" gear="100"',
        )
    text = text.replace('damping="5"', 'damping="0" armature="5"')
    assert text.count("<motor") == text.count("armature") == 2
    (folder / "model.xml").write_text(text)
    shutil.copy(ROBOTS / "omni/robot.yaml", folder)
    return load_robot(str(folder))


def speed_after_a_step(robot, sim_params, command=1.0) -> float:
    made = world(sim_params, robot=robot)
    made.step_physics(np.array([[command, 0.0]]), 1)
    return float(made.true_state()["velocity"][0, 0])


# Bodies, joints, motors ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("physics", "speed"),  # 100 N on 20 kg and an armature of 5 kg, for 0.02 s
    [
        ({}, 100 / 25 * DT),
        ({"mass_factor": 2}, 100 / 45 * DT),
        ({"body_mass_factors": {"base_link": 2}}, 100 / 45 * DT),
        ({"mass_factor": 2, "body_mass_factors": {"base_link": 0.5}}, 100 / 25 * DT),
        ({"payload_kg": 15}, 100 / 40 * DT),
        ({"mass_factor": 0.5, "payload_kg": 35}, 100 / 50 * DT),
        ({"armature_factor": 0}, 100 / 20 * DT),
        ({"armature_factor": 4}, 100 / 40 * DT),
        ({"gravity_offset_m_s2": [-5, 0, 0]}, (100 - 20 * 5) / 25 * DT),
    ],
)
def test_masses_armature_and_gravity_make_the_acceleration(pushed, physics, speed):
    assert speed_after_a_step(pushed, sections(physics=physics)) == pytest.approx(speed, abs=1e-12)


def test_inertia_grows_with_the_mass():
    made = world(sections(physics={"mass_factor": 3, "payload_kg": 1}))
    model, own = made.physics.batch.get_model(0), made.physics.model
    np.testing.assert_allclose(model.body_inertia, 3 * own.body_inertia, rtol=1e-12)
    base = own.body("base_link").id
    assert model.body_subtreemass[base] == pytest.approx(61)  # what follows from it does, too


def test_each_simulation_has_a_center_of_mass_of_its_own():
    go2 = load_robot("go2")
    ranges = sim_params_from_dict(
        {"physics": {"com_offset_m": [[0.01, 0.03], [-0.02, -0.01], 0.05]}}, "test"
    )
    made = World(go2, VelocityCommands(), 3, domain_randomization=ranges)
    made.reset(np.arange(3, dtype=np.int32), [0] * 3, [np.random.default_rng(n) for n in range(3)])
    own = made.physics.model
    base = own.body("base_link").id
    part = own.body_mass[base] / own.body_subtreemass[base]
    offsets, data = [], mujoco.MjData(own)
    data.qpos[3:7] = [np.sqrt(0.5), 0, 0, np.sqrt(0.5)]  # heading along y
    mujoco.mj_forward(own, data)
    nominal = data.subtree_com[base].copy()
    for i in range(3):
        model = made.physics.batch.get_model(i)
        moved = model.body_ipos - own.body_ipos
        offsets.append(moved[base])
        assert not np.delete(moved, base, axis=0).any()
        mujoco.mj_forward(model, data)
        x, y, z = moved[base]
        np.testing.assert_allclose(data.subtree_com[base] - nominal, part * np.array([-y, x, z]))
    low, high = np.array([0.01, -0.02, 0.05]), np.array([0.03, -0.01, 0.05])
    assert ((np.array(offsets) >= low - 1e-12) & (np.array(offsets) <= high + 1e-12)).all()
    assert len({tuple(row) for row in np.round(offsets, 9)}) == 3


def test_damping_slows_down():
    """No force, 5 N s/m x 3 on 20 kg, implicit in the velocity: v' = v / (1 + h d / m)."""
    made = world(sections(physics={"damping_factor": 3}, drive={"gain_factor": 0}))
    made.physics.push(np.array([0]), np.array([[0.7, 0.0]]))
    made.step_physics(np.zeros((1, 2)), 1)
    expected = 0.7 / (1 + DT * 15 / 20)
    assert made.true_state()["velocity"][0, 0] == pytest.approx(expected, rel=1e-12)


def test_friction_is_what_holds_a_box(tmp_path):
    """The larger of two coefficients counts: 0.5 x 20 kg x 9.81 m/s2 = 98.1 N until it slides."""
    text = (ROBOTS / "omni/model.xml").read_text()
    text = text[: text.index("<worldbody>")].replace('<flag contact="disable"/>', "")
    text = text.replace('gravity="', 'cone="elliptic" impratio="100" gravity="')  # hard friction
    text += """<worldbody><geom name="floor" type="plane" size="9 9 .1" friction=".5"/>
      <body name="base_link" pos="0 0 .05"><freejoint name="base"/>
        <geom type="box" size=".5 .5 .05" mass="20" friction=".4"/></body></worldbody>
      <actuator><motor name="drive_x" joint="base" gear="200 0 0 0 0 0"/>
      <motor name="drive_y" joint="base" gear="0 200 0 0 0 0"/></actuator></mujoco>"""
    (tmp_path / "model.xml").write_text(text)
    interface = (ROBOTS / "omni/robot.yaml").read_text()
    interface = interface.replace("[slide_x, slide_y]", '["base[0]", "base[1]"]')
    (tmp_path / "robot.yaml").write_text(interface)
    robot = load_robot(str(tmp_path))
    for factor in (0.5, 1.0, 1.5):
        for share, slides in ((0.95, False), (1.05, True)):
            made = world(sections(physics={"friction_factor": factor}), robot=robot)
            for force in [0.0] * 40 + [share * factor * 98.1] * 20:
                made.step_physics(np.array([[force / 200, 0.0]]), 1)
            speed = made.true_state()["velocity"][0, 0]
            # What is left over, 0.05 x 98.1 N, would make 0.1 m/s of 20 kg in 0.4 s.
            assert speed > 0.05 * factor if slides else abs(speed) < 0.01
    with pytest.raises(UserError, match="joint_friction is of hinge and slide joints, which"):
        world(sections(physics={"joint_friction": 1.0}), robot=robot)


def test_joint_friction_holds_and_brakes(pushed):
    """100 N on 20 kg and an armature of 5 kg, against dry friction of 60 and of 120 N.

    What is held creeps, as all constraints of MuJoCo give way: at 0.01 m/s.
    """
    for friction, speed, creep in ((60.0, 40 / 25 * DT, 1e-6), (120.0, 0.0, 0.01)):
        varied = sections(physics={"joint_friction": friction})
        assert speed_after_a_step(pushed, varied) == pytest.approx(speed, abs=creep)
        drawn = world(None, varied, robot=pushed)  # in a range it is the same
        drawn.step_physics(np.array([[1.0, 0.0]]), 1)
        assert drawn.true_state()["velocity"][0, 0] == speed_after_a_step(pushed, varied)
    # Beside the model's own, in hinges and slides, and not in what moves freely.
    rubbing = real(physics={"joint_friction": 0.3})
    made = world(rubbing, robot=load_robot("ant"), family=HOME["ant"], size=2)
    assert made.physics.batch.get_model(1).dof_frictionloss.tolist() == [0.0] * 6 + [0.3] * 8


def test_a_gain_is_of_the_force_and_of_its_limit(pushed):
    half = sections(drive={"gain_factor": 0.5})
    assert speed_after_a_step(pushed, half) == pytest.approx(50 / 25 * DT, abs=1e-12)
    # Omni's servo wants 300 N and is limited to 80 N: (40 N - damping) / 20 kg, implicit in both
    # the damping of 5 and the servo's halved gain of 150 N s/m, which is cut off, so only in 5.
    assert speed_after_a_step(OMNI, None) == pytest.approx(80 / 20 * DT, rel=0.01)
    assert speed_after_a_step(OMNI, half) == pytest.approx(40 / 20 * DT, rel=0.01)
    # Below the limit: 300 x 0.1 N.
    weak = speed_after_a_step(OMNI, half, 0.1) / speed_after_a_step(OMNI, None, 0.1)
    implicit = (1 + DT * 305 / 20) / (1 + DT * 155 / 20)
    assert weak == pytest.approx(0.5 * implicit, rel=1e-9)


def test_a_command_factor_is_of_what_the_motor_is_told_and_is_not_cut_off():
    for factor in (0.9, 1.2, -1.0):
        made, told = (
            world(sections(drive={"command_factor": factor})),
            world(),
        )
        command = np.array([[1.0, -0.5]]) if abs(factor) > 1 else np.array([[0.6, -0.5]])
        for _ in range(40):
            fields, _ = made.step_command(command)
            others, _ = told.step_command(command)
        np.testing.assert_allclose(fields["velocity"], factor * others["velocity"], rtol=1e-6)


# Delays ------------------------------------------------------------------------------------


def commands(ticks: int, size: int = 1, seed: int = 0):
    return np.random.default_rng(seed).uniform(-1, 1, (ticks, size, 2))


def path_of(made: World, orders) -> np.ndarray:
    """(physics steps, 2) where it is after every one."""
    return np.array(
        [
            (made.step_physics(command, 1), made.true_state()["position"][0])[1]
            for command in orders
            for _ in range(made.interface.substeps)
        ]
    )


@pytest.mark.parametrize("steps", [1, 3, 5, 7])  # of 5 in a tick
def test_commands_act_exactly_that_much_later(steps):
    orders = commands(20)
    nominal = path_of(world(), orders)
    made = world(sections(drive={"delay_s": steps * DT}))
    path_of(made, commands(2, seed=1))
    made.reset(np.zeros(1, np.int32), [0], [generator(0, Stream.EPISODE)])  # and forgets those
    late = path_of(made, orders)
    assert (late[:steps] == 0).all()  # until then it holds the safe command
    np.testing.assert_array_equal(late[steps:], nominal[:-steps])
    by_ticks = world(sections(drive={"delay_s": steps * DT}))
    for n, command in enumerate(orders):
        fields, _ = by_ticks.step_command(command)
        np.testing.assert_array_equal(fields["position"][0], late[5 * n + 4])


def test_each_motor_has_a_delay_of_its_own_to_the_nearest_physics_step():
    orders = np.ones((4, 1, 2))
    # 0.029 s is 1.45 steps, 0.031 s is 1.55
    motors = {"drive_x": {"delay_s": 0.029}, "drive_y": {"delay_s": 0.031}}
    path = path_of(world(real(actuators=motors)), orders)
    assert (path > 0).argmax(axis=0).tolist() == [1, 2]


@pytest.mark.parametrize("steps", [1, 5, 8])
def test_a_sensor_shows_what_was_that_long_ago(steps):
    orders = commands(20)
    nominal = path_of(world(), orders)
    made = world(sections(position={"delay_s": steps * DT}))
    for n, command in enumerate(orders):
        fields, _ = made.step_command(command)
        shown, then = made.measurements(fields), 5 * (n + 1) - steps
        np.testing.assert_array_equal(fields["position"][0], nominal[5 * n + 4])  # as it is
        expected = nominal[then - 1] if then > 0 else [0.0, 0.0]
        np.testing.assert_array_equal(shown["position"][0], expected)
        np.testing.assert_array_equal(shown["velocity"], fields["velocity"])


@pytest.mark.parametrize("by_steps", [False, True])
def test_scanner_and_sensors_are_late_as_well(by_steps):
    """Whether it is looked at after every tick, or after every physics step as in realtime."""
    delays = {"scan": 0.13, "speed": 0.02, "acceleration": 0.1, "imu_yaw_rate": 0.0}
    sensors = {name: {"delay_s": delay} for name, delay in delays.items()}
    steps, dt = ROVER.interface.substeps, ROVER.interface.physics_dt
    family = make_family("rooms")  # has walls to be seen
    made = world(real(sensors=sensors), robot=ROVER, family=family)
    twin = world(robot=ROVER, family=family)
    true = [twin.true_state()]
    for command in commands(6, seed=1) * [0.22, 2.8]:
        for _ in range(steps):
            twin.step_physics(command, 1)
            true.append(twin.true_state())
        shown = [{}] * (steps - 1)
        if by_steps:
            shown = []
            for _ in range(steps):
                made.step_physics(command, 1)
                shown.append(made.measurements(made.true_state()))
            made.evaluate_step()
        else:
            fields, _ = made.step_command(command)
            shown.append(made.measurements(fields))
        for step, fields in enumerate(shown, len(true) - steps):
            for name in fields and delays:
                then = true[max(0, step - round(delays[name] / dt))]
                np.testing.assert_array_equal(fields[name], then[name], err_msg=name)
    assert (true[-1]["scan"] != true[-1 - round(0.13 / dt)]["scan"]).any()


# What sensors do to numbers ---------------------------------------------------------------------


def test_scale_and_biases():
    sensor = {"scale": -2, "bias": 0.5, "element_bias": [0, 0.25]}
    made = world(sections(velocity=sensor))
    made.physics.push(np.array([0]), np.array([[0.3, 0.4]]))
    shown = made.measurements(made.true_state())
    np.testing.assert_allclose(shown["velocity"], [[-0.6 + 0.5, -0.8 + 0.75]], atol=1e-12)
    assert made.true_state()["velocity"].tolist() == [[0.3, 0.4]]
    np.testing.assert_array_equal(shown["goals"], made.true_state()["goals"])


def test_noise_has_its_deviation_and_touches_nothing_but_what_is_shown():
    loud, quiet = (
        TaskVectorEnv(OMNI, BANDITS, groups=1, envs=300, seed=3, tasks=[0], sim_params=sim_params)
        for sim_params in (sections(position={"noise": 0.2}), None)
    )
    noises = [loud.reset()[0] - quiet.reset()[0]]
    for action in 0.15 * commands(70, 300).astype(np.float32):
        (mine, *rest, _), (true, *others, _) = loud.step(action), quiet.step(action)
        for one, two in zip(rest, others, strict=True):
            np.testing.assert_array_equal(one, two)
        noises.append(mine - true)
    noise = np.stack(noises)[:, :, :2]
    assert (np.stack(noises)[:, :, 2:] == 0).all()
    # 71 x 300 x 2 draws of deviation 0.2: mean within 4 x 0.2 / sqrt(42600) = 0.0039
    assert noise.mean() == pytest.approx(0, abs=0.0039)
    assert noise.std() == pytest.approx(0.2, rel=0.02)
    # Independent over time, across blocks and episodes too, rows and elements.
    flat = noise.reshape(71, -1)
    assert abs(np.corrcoef(flat[:-1].ravel(), flat[1:].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(flat[:-32].ravel(), flat[32:].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.03
    assert len(np.unique(flat)) > 0.99 * flat.size


def test_noise_comes_beside_the_interfaces_own():
    position = replace(OMNI.interface.observation[0], noise=0.3)
    interface = replace(OMNI.interface, observation=(position, *OMNI.interface.observation[1:]))
    env = TaskVectorEnv(
        replace(OMNI, interface=interface),
        BANDITS,
        groups=1,
        envs=2000,
        sim_params=sections(position={"noise": 0.4}),
    )
    # 0.3 and 0.4 make 0.5; 4000 draws: within 4 x 0.5 / sqrt(8000) = 0.022
    assert env.reset()[0][:, :2].std() == pytest.approx(0.5, abs=0.022)


def test_where_a_scanner_measures_nothing_there_is_nothing_to_disturb():
    made = world(real(sensors={"scan": {"scale": 3.0, "noise": 0.5}}), robot=ROVER, family=BODY)
    scan = np.tile([0.12, 0.13, 1.0, 3.49, 3.5, 3.5], 4)[None]
    shown = made.measurements({**made.true_state(), "scan": scan})["scan"]
    nothing = (scan == 0.12) | (scan == 3.5)
    np.testing.assert_array_equal(shown[nothing], scan[nothing])
    assert (shown[~nothing] != scan[~nothing]).all()
    assert ((shown >= 0.12) & (shown <= 3.5)).all()


def test_what_drops_out_shows_what_was_shown_before():
    made = world(sections(position={"dropout": 0.3, "noise": 0.01}), size=400)
    before, dropped = made.measurements(made.true_state())["position"], []
    for command in commands(40, 400):
        fields, _ = made.step_command(command)
        shown = made.measurements(fields)["position"]
        np.testing.assert_array_equal(
            made.measurements(fields)["position"], shown
        )  # looked at again
        same = (shown == before).all(axis=1)
        assert 0.15 < same.mean() < 0.45  # each row by itself
        assert (np.abs(shown - fields["position"])[~same] < 0.06).all()
        dropped.append(same)
        before = shown
    # 16000 draws: 0.3 within 4 x sqrt(0.21 / 16000) = 0.0145
    assert np.mean(dropped) == pytest.approx(0.3, abs=0.0145)
    rooms = make_family("rooms")
    always = world(real(sensors={"scan": {"dropout": 1.0}}), robot=ROVER, family=rooms)
    first = always.true_state()["scan"]
    for command in commands(5):
        fields, _ = always.step_command(command)
        np.testing.assert_array_equal(always.measurements(fields)["scan"], first)
    assert (fields["scan"] != first).any()


def test_pushes_change_the_velocity_when_they_are_due():
    """Every 0.26 s, a tick is 0.1 s: 2.6, 5.2, 7.8, 10.4 ticks after the beginning."""
    sim_params = real(
        actuators={name: {"gain_factor": 0} for name in ("drive_x", "drive_y")},
        physics={"damping_factor": 0},
        pushes={"velocity_m_s": 0.4, "every_s": 0.26},
    )
    made, ticks, angles = world(sim_params, size=20), [], []
    before = made.true_state()["velocity"]
    for tick in range(11):
        fields, _ = made.step_command(np.zeros((20, 2)))
        change = fields["velocity"] - before
        if change.any():
            np.testing.assert_allclose(np.linalg.norm(change, axis=1), 0.4, rtol=1e-9)
            ticks.append(tick)
            angles += np.arctan2(*change.T).tolist()
        before = fields["velocity"]
    assert ticks == [3, 5, 8, 10]
    assert len(np.unique(np.round(angles, 6))) == 80


# Nominal, and composition ------------------------------------------------------------------------


def play(env) -> list[np.ndarray]:
    """What it shows in an episode and the beginning of the next."""
    shown = [env.reset()[0].copy()]
    shape = (env.world.family.ticks + 4, env.num_envs, env.interface.action_size)
    for action in np.random.default_rng(0).normal(0, 0.8, shape).astype(np.float32):
        *arrays, info = env.step(action)
        shown += [np.copy(a) for a in arrays] + arrays_of(info)
    return shown


def same(one, two) -> bool:
    return len(one) == len(two) and all(map(np.array_equal, one, two))


def env_of(name: str, **changes) -> TaskVectorEnv:
    robot, family = load_robot(name), HOME[name]
    return TaskVectorEnv(robot, family, **{"groups": 3, "envs": 2, "seed": 5, **changes})


@pytest.mark.parametrize("name", LOADED)
def test_nothing_different_is_nominal_bit_for_bit(name):
    nominal = env_of(name)
    assert nominal.world.varied is None
    assert env_of(name, sim_params=real(), domain_randomization=real()).world.varied is None
    # Through everything that writes into the model: one undoes the other.
    motor = nominal.interface.action[0].mujoco.actuators[0]
    one = {"mass_factor": 2, "friction_factor": 4, "damping_factor": 2, "armature_factor": 0.5}
    two = {"mass_factor": 0.5, "friction_factor": 0.25, "damping_factor": 0.5}
    two |= {"armature_factor": 2, "gravity_offset_m_s2": [0, 0, -0.5]}
    undone = env_of(
        name,
        sim_params=real(
            physics={**one, "gravity_offset_m_s2": [0, 0, 0.5]},
            actuators={motor: {"gain_factor": 2}},
        ),
        domain_randomization=real(physics=two, actuators={motor: {"gain_factor": 0.5}}),
    )
    assert undone.world.varied is not None
    assert same(play(nominal), play(undone))


def test_what_is_drawn_comes_around_the_sim_params():
    base = sections(
        physics={"mass_factor": 2, "payload_kg": 1},
        drive={"delay_s": 0.02},
        velocity={"noise": 0.3, "dropout": 0.5, "scale": 2, "bias": 1},
    )
    drawn = sections(
        physics={"mass_factor": [1.5, 1.5], "payload_kg": 2},
        drive={"delay_s": 0.04},
        velocity={"noise": 0.4, "dropout": 0.5, "scale": 0.25, "bias": -3},
    )
    varied = world(base, drawn).varied
    expected = {
        "mass_factor": 3,
        "payload_kg": 3,
        "command_delay": 0.06,
        "noise": 0.5,
        "dropout": 0.75,
        "scale": 0.5,
        "bias": -2,
    }
    for name, value in expected.items():
        got = varied._differences.of(varied.state[:, 3:], name)[0]
        assert got[-1] == pytest.approx(value), name


def test_draws_fill_their_ranges_and_sensors_draw_a_bias_for_every_element():
    ranges = sections(
        physics={"mass_factor": [0.5, 2]}, drive={"delay_s": [0, 0.1]}, velocity={"bias": [-1, 1]}
    )
    made = world(domain_randomization=ranges, size=500)
    mass = made.physics.batch.expand("body_mass")[:, 1] / 20
    bias = made.measurements(made.true_state())["velocity"]
    lag = made.varied._command_lag
    # Of 500 uniform draws the ends are met within 2 % of the range, this seed.
    for values, (low, high) in ((mass, (0.5, 2)), (bias, (-1, 1))):
        assert low <= values.min() <= low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) <= values.max() <= high
    assert set(lag.ravel()) == set(range(6))
    for pair in (lag, bias):  # x and y of their own
        assert abs(np.corrcoef(pair.T)[0, 1]) < 0.15


# Randomized episodes -----------------------------------------------------------------------------


@pytest.fixture(params=LOADED)
def name(request) -> str:
    return request.param


def ranges_of(name: str):
    return read_ranges(load_robot(name))


def test_threads_do_not_matter(name):
    one, many = (env_of(name, domain_randomization=ranges_of(name), threads=n) for n in (1, 3))
    first = play(one)
    assert same(first, play(many))
    assert not same(first, play(env_of(name)))


def test_an_episode_is_a_function_of_seed_row_and_number(name):
    env = env_of(name, domain_randomization=ranges_of(name), noise=False)
    observation, _ = env.reset()
    robot, family = load_robot(name), env.world.family
    alone = [
        World(robot, family, 1, domain_randomization=ranges_of(name)) for _ in range(env.num_envs)
    ]
    memories = [ObservationMemory(env.interface, (1,)) for _ in alone]
    shape = (family.ticks + 4, env.num_envs, env.interface.action_size)
    episode = 0
    for action in [None, *np.random.default_rng(0).normal(0, 0.8, shape).astype(np.float32)]:
        if action is not None:
            observation, _, _, truncated, _ = env.step(action)
        for b, (own, memory) in enumerate(zip(alone, memories, strict=True)):
            if action is not None:
                memory.remember(observation[b : b + 1], action[b : b + 1])
                own.step(action[b : b + 1])
            if action is None or truncated[b]:
                rng = generator(5, Stream.EPISODE, b, episode)
                own.reset(np.zeros(1, np.int32), [env.tasks[b // 2]], [rng])
                memory.reset()
            shown = own.interface.observe(own.measurements(own.true_state()), memory=memory)
            np.testing.assert_array_equal(shown[0], observation[b])
        episode += action is None or bool(truncated.any())
    assert episode == 2
    rows = env.world.varied.state[:, 3:]
    assert len(np.unique(rows[:, 0])) == env.num_envs


def test_a_snapshot_goes_on_bit_for_bit(name):
    env, fresh = (
        env_of(name, domain_randomization=ranges_of(name), sim_params=shipped(name))
        for _ in range(2)
    )
    env.reset()
    ticks = env.world.family.ticks
    shape = (2 * ticks, env.num_envs, env.interface.action_size)
    orders = np.random.default_rng(0).normal(0, 0.8, shape).astype(np.float32)
    for action in orders[: ticks + 3]:  # in an episode that the other one has not seen
        observation, *_ = env.step(action)
    state = {key: value.copy() for key, value in env.snapshot().items()}
    fresh.reset()
    np.testing.assert_array_equal(fresh.restore(state), observation)
    for action in orders[ticks + 3 :]:
        one, two = env.step(action), fresh.step(action)
        assert same([*one[:4], *arrays_of(one[4])], [*two[:4], *arrays_of(two[4])])
    with pytest.raises(ValueError, match="has other sim parameters"):
        env_of(name).restore(state)
    other = env_of(name, sim_params=shipped(name))
    with pytest.raises(ValueError, match=r"sim parameters \(6, \d+\), not \(6, \d+\)"):
        other.restore(state)


def shipped(name: str):
    return load_sim_params("slow", load_robot(name))


def test_a_diverged_simulation_shows_finite_values_and_fails_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes MUJOCO_LOG.TXT where it stands
    late = sections(position={"delay_s": 0.3}, drive={"delay_s": 0.1})
    made = {"domain_randomization": ranges_of("omni"), "sim_params": late}
    env, twin = (env_of("omni", **made) for _ in range(2))
    env.reset()
    twin.reset()
    others = np.arange(6) != 4
    for tick, action in enumerate(commands(30, 6).astype(np.float32)):
        action[4] = 0.9
        if tick == 12:
            env.world.physics.batch.bind("qpos")[4, 1] = np.nan
        got, expected = env.step(action), twin.step(action)
        assert np.isfinite(got[0]).all()
        for mine, theirs in zip(got[:4], expected[:4], strict=True):
            np.testing.assert_array_equal(mine[others], theirs[others])
        if tick == 12:
            assert (np.abs(got[4]["final_obs"][4][:2]) < 0.03).all()  # where it was put
            assert (np.abs(expected[0][4, :2]) > 0.5).all()
    (failure,) = env.world.failures
    assert World(OMNI, env.world.family, 1, **made).repeat(failure)
    with pytest.raises(ValueError, match="sim parameters"):
        World(OMNI, env.world.family, 1, domain_randomization=ranges_of("omni")).repeat(failure)


# Files -------------------------------------------------------------------------------------------

SHIPPED = [(name, each) for name in LOADED for each in sim_params_names(load_robot(name))]


@pytest.mark.parametrize(("robot", "sim_params"), SHIPPED)
def test_every_shipped_sim_params_holds_for_its_robot(robot, sim_params):
    body = load_robot(robot)
    made = world(load_sim_params(sim_params, body), robot=body, family=HOME[robot])
    _, high = body.interface.limits
    for _ in range(10):
        # As fast as its rate limit allows: the guard sees no other command.
        action = body.interface.action_for((0.5 * high)[None])
        fields, outcome = made.step(action.astype(np.float32))
        assert not outcome.diverged.any()
        for term in body.interface.observation:
            value = term.values(made.measurements(fields)[term.name])
            assert np.isfinite(value).all()
            if term.limits is not None:  # the guard would stop the robot
                assert (value >= term.limits[0]).all()
                assert (value <= term.limits[1]).all()
    first = (
        (body.model_path.parent / "sim_params" / f"{sim_params}.yaml").read_text().splitlines()[0]
    )
    assert first.startswith("# ")  # what it imitates


def test_three_unlike_sim_param_sets_and_ranges_come_with_a_robot(name):
    robot = load_robot(name)
    names = sim_params_names(robot)
    assert len(names) >= 3
    assert len({repr(load_sim_params(each, robot)) for each in names}) == len(names)
    assert env_of(name, domain_randomization=read_ranges(robot)).world.varied is not None


def test_a_sim_params_is_written_and_read_back_equal(tmp_path):
    for name, each in SHIPPED:
        sim_params = load_sim_params(each, load_robot(name))
        path = tmp_path / "copy.yaml"
        path.write_text(yaml.safe_dump({"schema": 2, **sim_params_to_dict(sim_params)}))
        assert read_sim_params(path) == sim_params
    assert sim_params_to_dict(real()) == {}


BAD = [
    # what stands in the file, what the one line must say
    ({"schema": 3}, ["schema 3 is not known. Valid: 2"]),
    (
        {"schema": 1},
        ["realities is sim_params now", "mlsh migrate"],
    ),
    ({"schema": None}, ["schema is missing; the first line has to be schema: 2"]),
    ({"physic": {}}, ["no key 'physic'. Did you mean 'physics'? Valid: "]),
    ({"physics": {"mass": 1}}, ["physics: no key 'mass'. Valid: mass_factor, "]),
    ({"physics": {"mass_factor": 0}}, ["physics.mass_factor: must be greater than 0, got 0"]),
    ({"physics": {"mass_factor": "much"}}, ["neither a number nor [low, high], got 'much'"]),
    ({"physics": {"mass_factor": True}}, ["neither a number", "got True"]),
    ({"physics": {"mass_factor": [1, 2, 3]}}, ["neither a number", "[1, 2, 3]"]),
    ({"physics": {"mass_factor": float("nan")}}, ["not finite"]),
    (
        {"physics": {"mass_factor": [1, 2]}},
        ["physics.mass_factor: one number", "domain_randomization.yaml"],
    ),
    ({"physics": {"payload_kg": -1}}, ["payload_kg: must be 0 or more, got -1"]),
    ({"physics": {"gravity_offset_m_s2": [1, 2]}}, ["gravity_offset_m_s2"]),
    ({"actuators": {"drive": {}}}, ["actuators: no actuator 'drive'", "Valid: drive_x, drive_y"]),
    (
        {"actuators": {"drive_x": {"delay": 1}}},
        ["actuators.drive_x: no key 'delay'. Did you mean 'delay_s'? Valid: "],
    ),
    ({"actuators": {"drive_x": {"delay_s": 3}}}, ["delay_s: must be 0 or more, 2 at most, got 3"]),
    ({"sensors": {"speed": {}}}, ["no observation term 'speed'", "Valid: position, velocity"]),
    ({"sensors": {"goals": {}}}, ["no observation term 'goals'"]),
    ({"sensors": {"velocity": {"dropout": 1.5}}}, ["dropout: must be 0 or more, 1 at most"]),
    ({"sensors": {"velocity": {"element_bias": [1]}}}, ["velocity", "1 elements, the term 2"]),
    ({"sensors": {"velocity": {"noise": -0.1}}}, ["sensors.velocity.noise", "0 or more"]),
    ({"pushes": {"every_s": 1}}, ["pushes.velocity_m_s: field required"]),
    ({"pushes": {"velocity_m_s": 1, "every_s": 0}}, ["every_s: must be greater than 0"]),
]


@pytest.mark.parametrize(("change", "words"), BAD)
def test_a_file_that_does_not_hold_is_refused_in_one_line(tmp_path, change, words):
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump({"schema": 2, **change}))
    with pytest.raises(UserError) as info:
        load_sim_params(str(path), OMNI)
    for word in (*words, str(path)):
        assert word in str(info.value)
    assert "\n" not in str(info.value)


def test_what_is_not_there_is_named():
    with pytest.raises(
        UserError, match=r"no sim parameters 'heavi'\. Did you mean 'heavy'\? .*or a file"
    ):
        load_sim_params("heavi", OMNI)
    with pytest.raises(
        UserError, match=r"domain_randomization: body_mass_factors: no body 'arm'.*base_link"
    ):
        world(domain_randomization=sections(physics={"body_mass_factors": {"arm": [1, 2]}}))
    with pytest.raises(UserError, match="sim_params: sensors: no observation term"):
        world(sections(speed={"bias": 1}))
    with pytest.raises(ValueError, match="no ranges"):
        world(sections(physics={"mass_factor": [1, 2]}))


def test_a_robot_without_ranges_or_a_base_cannot_be_randomized_or_loaded(tmp_path):
    folder = Path(shutil.copytree(ROBOTS / "omni", tmp_path / "omni"))
    text = (folder / "model.xml").read_text().replace('"base_link"', '"trunk"')
    (folder / "model.xml").write_text(text)
    robot = load_robot(str(folder))
    with pytest.raises(UserError, match=r"payload_kg .* body 'base_link'.* It has: trunk"):
        world(sections(physics={"payload_kg": 1}), robot=robot)
    (folder / "domain_randomization.yaml").unlink()
    with pytest.raises(
        UserError, match=r"'omni' cannot be randomized: .*domain_randomization\.yaml does not"
    ):
        read_ranges(robot)


def test_terms_that_show_the_same_place_of_a_message_show_the_same(tmp_path):
    """A robot that floats: tilt, up and heading are parts of one quaternion."""
    robot = floater(tmp_path)
    late = {"delay_s": [0, 0.2], "dropout": 0.2}
    parts = dict.fromkeys(("tilt", "up", "heading"), late)
    with pytest.raises(
        UserError, match=r"tilt and up both show imu orientation\.w; give both the"
    ):
        check_sim_params(real(sensors={"tilt": late}), robot.interface, "test")
    with pytest.raises(UserError, match=r"up: is read from a quaternion.*valid: delay_s, dropout"):
        check_sim_params(real(sensors={"up": {"bias": 0.1}}), robot.interface, "test")
    made = world(domain_randomization=real(sensors=parts), robot=robot, size=9)
    for _ in range(40):
        fields, _ = made.step_command(np.tile([0.2, 0.3, 0.1], (9, 1)))
        shown = made.measurements(fields)
        np.testing.assert_array_equal(shown["up"], shown["tilt"])
        np.testing.assert_array_equal(shown["up"][:, [3, 0]], shown["heading"])
    # Delays of 0 to 20 physics steps: some of nine are alike.
    assert len(np.unique(shown["up"] - fields["up"], axis=0)) >= 5


def test_terms_of_the_same_numbers_have_the_same_noise():
    """Another omni, whose velocity stands in two terms: one is observed, one is limited."""
    term = OMNI.interface.observation[1]
    twice = (*OMNI.interface.observation, replace(term, name="guarded", policy_input=False))
    robot = replace(OMNI, interface=replace(OMNI.interface, observation=twice))
    one = {"noise": 0.1, "bias": [-1, 1], "dropout": 0.2, "delay_s": [0, 0.2], "scale": [1, 2]}
    made = world(domain_randomization=sections(velocity=one, guarded=one), robot=robot, size=9)
    for command in commands(40, 9):
        fields, _ = made.step_command(command)
        shown = made.measurements(fields)
        np.testing.assert_array_equal(shown["velocity"], shown["guarded"])
    assert (shown["velocity"] != fields["velocity"]).all()
