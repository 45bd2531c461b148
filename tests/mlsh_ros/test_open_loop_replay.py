"""One meaning of each quantity: in sim parameters, causes of `mlsh gap` and in `mlsh sysid`."""

import shutil

import numpy as np
import pytest

from mlsh_ros.sim2real.data.samples import TermSamples
from mlsh_ros.sim2real.data.window_plan import WindowPlan
from mlsh_ros.sim2real.data.windows import Windows
from mlsh_ros.sim2real.replay.batched_replay import BatchedReplay
from mlsh_ros.sim2real.replay.model_change import NOMINAL, ModelChange
from mlsh_ros.sim2real.replay.open_loop_replay import OpenLoopReplay
from sim.physics.robot_model import ROBOTS, load_robot
from sim.randomization.schema import SimParams, sim_params_from_dict
from sim.tasks.registry import make_family

# It rolls on a ball (condim 6), turns on a pad (condim 4) and slides on a skid (a contact pair).
MODEL = """
<mujoco model="omni">
  <option timestep="0.02" integrator="implicitfast" gravity="0 0 -9.81" cone="elliptic"/>
  <worldbody>
    <geom name="floor" type="plane" size="9 9 .1" friction=".8 .02 .01"/>
    <body name="base_link" pos="0 0 .1">
      <joint name="slide_x" type="slide" axis="1 0 0" damping="5 3 2"/>
      <joint name="slide_y" type="slide" axis="0 1 0" damping="5 3 2"/>
      <joint name="slide_z" type="slide" axis="0 0 1"/>
      <geom name="body" type="box" size=".2 .2 .02" mass="18"/>
      <body pos=".1 0 -.05">
        <joint name="roll" type="ball"/>
        <geom name="ball" type="sphere" size=".05" mass="1" condim="6" friction=".8 .02 .01"/>
      </body>
      <body pos="-.1 .1 -.09">
        <joint name="turn" type="hinge" axis="0 0 1"/>
        <geom name="pad" type="box" size=".06 .03 .01" pos=".04 0 0" mass="1" condim="4"/>
      </body>
      <geom name="skid" type="sphere" size=".02" pos="-.1 -.1 -.08" mass="1"
        contype="0" conaffinity="0"/>
    </body>
  </worldbody>
  <contact><pair geom1="skid" geom2="floor" friction=".6 .5 .02 .01 .01"/></contact>
  <actuator>
    <velocity name="drive_x" joint="slide_x" kv="600" ctrlrange="-1 1" forcerange="-300 300"/>
    <velocity name="drive_y" joint="slide_y" kv="600" ctrlrange="-1 1" forcerange="-300 300"/>
  </actuator>
</mujoco>
"""
FACTORS = {"mass_factor": 1.25, "damping_factor": 4.0, "friction_factor": 0.5}
SIM_PARAMS = sim_params_from_dict({"physics": FACTORS}, "test")
TICKS, STEPS = WindowPlan(2, 10), 5


@pytest.fixture(scope="module")
def open_loop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("contacts")
    (folder / "model.xml").write_text(MODEL)
    shutil.copy(ROBOTS / "omni/robot.yaml", folder)
    robot = load_robot(str(folder))
    family = make_family("moving_bandits")
    return OpenLoopReplay(robot, robot.interface, family, lambda fields: None)


def in_sim_params(open_loop, sim_params):
    return OpenLoopReplay(
        open_loop.robot,
        open_loop.interface,
        open_loop.family,
        open_loop.layouts,
        sim_params=sim_params,
    )


def windows(interface) -> Windows:
    """Two windows of one drive, with a command that changes in every tick; seen at every tick."""
    rng = np.random.default_rng(0)
    command = np.repeat(rng.uniform(-1, 1, (2, TICKS.ticks, 2)), STEPS, axis=1)
    time = np.tile(np.arange(TICKS.length, dtype=float), 2)
    window = np.repeat([0, 1], TICKS.length)
    nothing = np.zeros((len(time), 2))
    terms = [term.name for term in interface.observation if not term.mujoco.task]
    return Windows(
        plan=TICKS,
        segment=np.zeros(2, np.int64),
        begin=np.array([2, 12]),
        rest=np.array([True, True]),
        previous=np.array([-1, -1]),
        command=command,
        skill=np.zeros((2, TICKS.ticks), np.int64),
        start={name: np.zeros((2, 2)) for name in terms},
        samples={name: TermSamples(window, time, time, time, nothing) for name in terms},
    )


def changed() -> ModelChange:
    change = NOMINAL
    for name, value in FACTORS.items():
        change = change.with_value(name, value)
    return change


def test_a_cause_is_what_the_same_sim_params_is_and_what_identification_simulates(open_loop):
    drive = windows(open_loop.interface)
    state = open_loop.states(drive)
    nominal = open_loop.run(drive, state, (NOMINAL,)).values
    expected = in_sim_params(open_loop, SIM_PARAMS).run(drive, state, (NOMINAL,))
    # Beside a change that is none, so that all fields are written for both.
    causes = open_loop.run(drive, state, (changed(), NOMINAL))
    ranges = sim_params_from_dict({"physics": {n: [0.5, 4.0] for n in FACTORS}}, "test")
    follower = BatchedReplay(open_loop, drive, ranges, SimParams())
    values = np.tile(follower.differences.fixed, (1, 1))
    for name, value in FACTORS.items():
        follower.differences.of(values, name)[:] = value
    identified = follower.predict(values)[:, 0]
    for term in ("position", "velocity"):
        np.testing.assert_array_equal(causes.values[term][:2], expected.values[term])
        np.testing.assert_array_equal(causes.values[term][2:], nominal[term])
        assert np.abs(expected.values[term] - nominal[term]).max() > 0.01
        samples = drive.samples[term]
        shown = expected.at(term, samples.window, samples.time)
        for element in follower.elements:
            if element.term == term:
                np.testing.assert_array_equal(identified[element.rows], shown[:, element.index])


@pytest.mark.parametrize("name", FACTORS)
def test_every_factor_shows_in_this_model(open_loop, name):
    """Otherwise the test above would hold nothing of it."""
    drive = windows(open_loop.interface)
    state = open_loop.states(drive)
    nominal, other = (
        open_loop.run(drive, state, (change,)).values["velocity"]
        for change in (NOMINAL, NOMINAL.with_value(name, FACTORS[name]))
    )
    assert np.abs(nominal - other).max() > 0.01


def test_friction_is_the_sliding_one_of_geoms_and_pairs_and_damping_all_of_a_joints(open_loop):
    simulator = open_loop.simulator(
        in_sim_params(open_loop, SIM_PARAMS).differences,
        frozenset({"friction_factor", "damping_factor"}),
    )
    values = in_sim_params(open_loop, SIM_PARAMS).differences.fixed[None]
    model, own = simulator.physics(values).batch.get_model(0), open_loop.model
    np.testing.assert_array_equal(model.geom_friction, own.geom_friction * [0.5, 1, 1])
    np.testing.assert_array_equal(model.pair_friction, own.pair_friction * [0.5, 0.5, 1, 1, 1])
    np.testing.assert_array_equal(model.dof_damping, 4 * own.dof_damping)
    np.testing.assert_array_equal(model.dof_dampingpoly, 4 * own.dof_dampingpoly)
    assert own.dof_dampingpoly.any()
    np.testing.assert_array_equal(model.body_mass, own.body_mass)  # is not among the names


def test_what_is_found_within_a_sim_params_is_beside_it(open_loop):
    """Twice the mass of a robot with a load: the load stays what it is."""
    loaded = sim_params_from_dict({"physics": {"mass_factor": 1.5, "payload_kg": 4.0}}, "test")
    twice = sim_params_from_dict({"physics": {"mass_factor": 3.0, "payload_kg": 4.0}}, "test")
    drive = windows(open_loop.interface)
    state = open_loop.states(drive)
    change = NOMINAL.with_value("mass_factor", 2.0)
    found = in_sim_params(open_loop, loaded).run(drive, state, (change,)).values
    expected = in_sim_params(open_loop, twice).run(drive, state, (NOMINAL,)).values
    np.testing.assert_array_equal(found["velocity"], expected["velocity"])
