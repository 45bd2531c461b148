"""`mlsh sysid`: what differs is found again, and what cannot be told is said to be so."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("scipy")
pytest.importorskip("tabulate")

from mlsh_ros.commands.sysid import sysid
from mlsh_ros.sysid.identify import identify
from mlsh_ros.sysid.rehearsal import rehearse
from mlsh_ros.sysid.unknowns import NOMINAL, reality_of, unknowns, values_of
from policies.bundle import load_bundle
from sim.errors import UserError
from sim.expanded import body_names
from sim.reality import load_reality, read_ranges, read_reality, reality_from_dict
from sim.robot import load_robot

DRIVES = {"gain_factor": 0.8, "delay_s": 0.02}


@pytest.fixture(scope="module")
def moving():
    return load_bundle("moving_bandits")


@pytest.fixture(scope="module")
def weak(moving):
    """Four sessions of a robot with 20 % less force, whose commands act 20 ms late."""
    hidden = reality_from_dict({"actuators": {"drive_x": DRIVES, "drive_y": DRIVES}}, "hidden")
    return rehearse(moving, hidden, sessions=4, seed=3)


def test_a_weak_and_late_robot_is_found(moving, weak, tmp_path):
    only = ["gain_factor", "drive_x.delay_s", "drive_y.delay_s"]
    found = identify(moving, [weak], only=only)
    numbers = {n.unknown.name: n for n in found.numbers}
    for drive in ("drive_x", "drive_y"):
        assert numbers[f"{drive}.delay_s"].value == pytest.approx(0.02, abs=0.002)
        assert numbers[f"{drive}.gain_factor"].value == pytest.approx(0.8, rel=0.03)
    assert found.before > 3 * found.after
    found.write(path := tmp_path / "reality.yaml", ["a.mcap"])
    # What it writes is what it found, and the robot's simulations take it.
    assert read_reality(path) == found.reality
    assert load_reality(str(path), load_robot("omni")) == found.reality
    assert "a.mcap" in path.read_text().splitlines()[0]


def test_mass_and_force_are_told_only_together(moving, weak):
    # m dv/dt = g f(u, v): twice of both is the same motion.
    names = ["mass_factor", "gain_factor", "damping_factor", "drive_x.delay_s", "drive_y.delay_s"]
    found = identify(moving, [weak], only=names)
    numbers = {n.unknown.name: n for n in found.numbers}
    assert "only together with" in numbers["mass_factor"].why_not
    assert numbers["mass_factor"].value == 1
    assert numbers["drive_x.gain_factor"].value == pytest.approx(0.8, rel=0.03)


def test_a_robot_that_stands_still_tells_nothing(moving, weak):
    still = [replace(d, command=np.zeros_like(d.command)) for d in weak.drives]
    with pytest.raises(UserError, match="stand still"):
        identify(moving, [replace(weak, drives=still)])


def test_names_that_are_none_are_refused(moving, weak):
    with pytest.raises(UserError, match=r"no parameter 'weight'.*mass_factor"):
        identify(moving, [weak], only=["weight"])
    with pytest.raises(UserError, match="no parameter is left"):
        identify(moving, [weak], only=["mass_factor"], keep=["mass_factor"])


def test_values_and_realities_are_two_ways_to_say_the_same():
    for name in ("omni", "rover", "ant"):
        robot = load_robot(name)
        bodies = body_names(robot.compile())
        for reality in ("heavy", "slow", "noisy"):
            told = load_reality(reality, robot)
            values = values_of(robot.interface, bodies, told)
            again = reality_of(robot.interface, bodies, values, told)
            np.testing.assert_allclose(values_of(robot.interface, bodies, again), values)


def test_everything_with_a_range_is_unknown_within_bounds_that_hold_it():
    robot = load_robot("rover")
    bodies = body_names(robot.compile())
    found = unknowns(robot.interface, bodies, NOMINAL, read_ranges(robot))
    names = [each.name for each in found]
    assert len(set(names)) == len(names)
    assert {"mass_factor", "friction_factor", "turn.delay_s", "yaw_rate.element_bias.0"} <= set(
        names
    )
    for each in found:
        assert each.low <= each.known <= each.high
        assert each.high - each.low >= each.width or each.low in (0.0, 0.02)


def test_a_recording_that_is_none_is_refused(tmp_path):
    bag = tmp_path / "torn.mcap"
    bag.write_bytes(b"not a recording")
    with pytest.raises(UserError, match=r"torn\.mcap"):
        sysid("moving_bandits", [bag])
