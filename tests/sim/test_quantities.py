"""The table of the quantities that may differ: who reads it, and what must not change in it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sim.physics.robot_model import load_robot, robot_names
from sim.randomization.model_fields import body_names
from sim.randomization.parameters import ParameterVector
from sim.randomization.quantities import PRODUCT, ROWS, TABLE, VECTOR
from sim.randomization.schema import SimParams, read_ranges


def test_every_key_is_documented():
    """The page itself is written from the schema, see tests/docs/test_pages.py."""
    page = Path("docs/reference/sim-params-yaml.md").read_text()
    sweeps = Path("docs/sim-params.md").read_text()
    lines = [line for line in page.splitlines() if line.startswith("| `")]
    for row in TABLE:
        keys = [row.key, row.element_key] if row.element_key else [row.key]
        for key in keys:
            assert any(line.startswith(f"| `{key}` |") for line in lines)
        assert any(line.endswith(f"| {row.effect} |") for line in lines)
        assert f"`{row.sweep}`" in sweeps or not row.sweep


def test_the_order_of_the_vector_is_what_episodes_draw_by():
    """A quantity in another place would change every drawn episode, and so every training."""
    assert [row.name for row in VECTOR] == [
        "mass_factor", "body_mass_factors", "payload_kg", "friction_factor", "damping_factor",
        "armature_factor", "gravity_offset", "gain_factor", "command_factor", "command_delay",
        "sensor_delay", "scale", "bias", "noise", "dropout", "push_velocity", "push_every",
        "joint_friction", "com_offset", "imu_mount",
    ]  # fmt: skip


@pytest.mark.parametrize("robot", robot_names())
def test_the_nominal_value_is_within_the_bounds_and_changes_nothing(robot):
    robot = load_robot(robot)
    bodies = body_names(robot.compile())
    nominal = ParameterVector(robot.interface, bodies, SimParams(), SimParams())
    for row in TABLE:
        assert row.bounds.low <= row.nominal <= row.bounds.high
        assert (row.combination is PRODUCT) == (row.nominal == 1)
        assert (nominal.of(nominal.fixed[None], row.name) == row.nominal).all()
    assert not nominal.differing
    assert not nominal.differing_in(nominal.fixed[None])
    assert nominal.sim_params(nominal.fixed) == SimParams()


def test_what_looks_alike_has_an_order_of_its_own():
    ranks = [row.identification.kept for row in TABLE if row.identification]
    assert sorted(ranks) == list(range(1, len(ranks) + 1))


NEW_ROW = """
import numpy as np
import sim.randomization.quantities as table

row = table.Quantity(
    "stiffness_factor", "physics.stiffness_factor", table.Per.ROBOT, table.PRODUCT,
    table.NON_NEGATIVE, "x nominal", "times the stiffness of the joints",
    multiplies=(table.ModelField("jnt_stiffness"),), sweep="stiffness",
    identification=table.Identification(15), drawn=3,
)
table.TABLE += (row,)
table.ROWS[row.name] = row
table.VECTOR += (row,)

from mlsh_ros.evaluation.robustness import parse_axes, sim_params_at
from mlsh_ros.sim2real.sysid.parameters import NOMINAL, sim_params_of, unknowns, values_of
from sim.envs.world import World
from sim.physics.robot_model import load_robot
from sim.randomization.model_fields import body_names
from sim.randomization.schema import sim_params_from_dict, sim_params_to_dict
from sim.tasks.registry import make_family

ant = load_robot("ant")
sim_params = sim_params_from_dict({"physics": {"stiffness_factor": 2}}, "test")
ranges = sim_params_from_dict({"physics": {"stiffness_factor": [3, 4]}}, "test")
family = make_family("ant_bandits")
world = World(ant, family, 1, sim_params=sim_params, domain_randomization=ranges)
world.physics.model.jnt_stiffness[:] = 1.5
world.reset(np.zeros(1, np.int32), [0], [np.random.default_rng(0)])
stiffness = world.physics.batch.get_model(0).jnt_stiffness
assert ((6 * 1.5 < stiffness) & (stiffness < 8 * 1.5)).all()
assert parse_axes(["stiffness=1:2x"])[0].label == "stiffness (x nominal)"
assert sim_params_at(ant.interface, {"stiffness": 2.0}) == sim_params
bodies = body_names(world.physics.model)
found = unknowns(ant.interface, bodies, NOMINAL, ranges)
assert [(each.name, each.low, each.high) for each in found] == [("stiffness_factor", 1.0, 4.5)]
values = values_of(ant.interface, bodies, sim_params)
assert sim_params_of(ant.interface, bodies, values, NOMINAL) == sim_params
assert sim_params_to_dict(sim_params) == {"physics": {"stiffness_factor": 2.0}}
print("everywhere")
"""


def test_a_new_quantity_is_one_row():
    """In files, episodes, the model, sweeps and identification; the new vector ends with it."""
    assert "stiffness_factor" not in ROWS
    done = subprocess.run([sys.executable, "-c", NEW_ROW], capture_output=True, text=True)
    assert done.stdout == "everywhere\n", done.stderr


@pytest.mark.parametrize("robot", ["go2", "omni", "rover", "arm"])
def test_a_spread_is_the_part_of_the_way_from_nominal(robot):
    """Pushes become weaker, and do not come more often: a time of 0 between them is none."""
    robot = load_robot(robot)
    vector = ParameterVector(
        robot.interface, body_names(robot.compile()), SimParams(), read_ranges(robot)
    )
    share = np.random.default_rng(0).random((5, vector.size))
    whole, half, none = (vector.draw(share, spread) for spread in (1.0, 0.5, 0.0))
    np.testing.assert_array_equal(whole, vector.draw(share))
    assert vector.differing
    for row in VECTOR:
        drawn, nearer, at_rest = (vector.of(each, row.name) for each in (whole, half, none))
        if row.name == "push_every":
            np.testing.assert_array_equal(nearer, drawn)
            continue
        assert (at_rest == row.nominal).all()
        np.testing.assert_allclose(nearer - row.nominal, (drawn - row.nominal) / 2, atol=1e-12)
