"""Fields to observation, action to command: laws over every robot, and the arithmetic by hand."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest

from sim.errors import UserError
from sim.interface import Interface, Tracking, interface_from_dict, interface_to_dict
from sim.interface.memory import ObservationMemory
from sim.physics.robot_model import load_robot, robot_names
from sim.tasks.registry import FAMILIES, make_family
from tests.support.interfaces import INTERFACES, odd, other, sluggish


@pytest.fixture(params=INTERFACES.values(), ids=INTERFACES.keys())
def any_interface(request) -> Interface:
    return request.param


def odd_fields(*lead: int) -> dict[str, np.ndarray]:
    """Values as in the arithmetic below, the same everywhere along the leading axes."""
    values = {
        "angle": [0.1],
        "position": [1.5, -2.0],
        "shake": [10.0, 0.0, -5.0],
        "rates": [0.25, -0.5],
    }
    return {name: np.broadcast_to(v, (*lead, len(v))).copy() for name, v in values.items()}


# observe ----------------------------------------------------------------------------------


def test_observe_by_hand():
    observation = odd().observe(odd_fields())
    # angle 2 * 0.1, position * 1, shake * 0.1, rates * -1, in the order of robot.yaml
    expected = np.array([0.2, 1.5, -2.0, 1.0, 0.0, -0.5, -0.25, 0.5], np.float32)
    np.testing.assert_array_equal(observation, expected)
    assert observation.dtype == np.float32


def test_clip_is_of_the_scaled_value():
    for angle, expected in ((0.25, 0.5), (0.26, 0.5), (-7.0, -0.5), (-0.2, -0.4)):
        observation = odd().observe(odd_fields() | {"angle": np.array([angle])})
        assert observation[0] == np.float32(expected)  # 2 * angle within [-0.5, 0.5]


def test_what_is_not_finite_is_not_hidden():
    observation = odd().observe(odd_fields() | {"angle": np.array([np.nan])})
    assert np.isnan(observation[0])


@pytest.mark.parametrize("lead", [(), (1,), (4,), (3, 4)])
def test_every_leading_shape_gives_the_same_rows(lead):
    observation = odd().observe(odd_fields(*lead))
    assert observation.shape == (*lead, 8)
    np.testing.assert_array_equal(
        observation, np.broadcast_to(odd().observe(odd_fields()), (*lead, 8))
    )


def test_out_is_written_and_returned():
    out = np.full((4, 8), 9.0, np.float32)
    assert odd().observe(odd_fields(4), out=out) is out
    np.testing.assert_array_equal(out, odd().observe(odd_fields(4)))


def test_fields_are_untouched_and_more_of_them_do_no_harm():
    fields = odd_fields(4) | {"stranger": np.zeros(1)}
    before = copy.deepcopy(fields)
    odd().observe(fields)
    for name, value in before.items():
        np.testing.assert_array_equal(fields[name], value)


def test_a_missing_or_misshapen_term_is_named(any_interface):
    good = {t.name: np.zeros((3, t.size)) for t in any_interface.observation}
    any_interface.observe(good, memory=ObservationMemory(any_interface, (3,)))
    out = np.full((3, any_interface.observation_size), 9.0, np.float32)
    for term in any_interface.observation:
        missing = {name: value for name, value in good.items() if name != term.name}
        for target in (None, out):
            with pytest.raises(ValueError, match=f"term '{term.name}' is missing"):
                any_interface.observe(missing, target)
        for shape in ((3, term.size + 1), (term.size, 3, 1), (2, term.size), (), (term.size,)):
            bad = good | {term.name: np.zeros(shape)}
            with pytest.raises(ValueError, match=r"observation term .* has shape .*, not "):
                any_interface.observe(bad, out)
    assert (out == 9).all()


def test_slices_names_and_sizes_agree(any_interface):
    i = any_interface
    observed = {t.name: t.width for t in i.observation} | i.computed_terms.widths
    commanded = {t.name: t.size for t in i.action}
    for widths, slices, names, size in (
        (observed, i.observation_slices, i.observation_names, i.observation_size),
        (commanded, i.action_slices, i.action_names, i.action_size),
    ):
        assert len(names) == size == sum(widths.values())
        for name, width in widths.items():
            assert names[slices[name]] == tuple(f"{name}.{n}" for n in range(width))


# command ----------------------------------------------------------------------------------


def test_command_by_hand():
    previous = np.array([0.2, 0.0, 0.1])
    command = odd().command(np.array([1.0, 0.05, -1.0], np.float32), previous)
    # arm: 0.2 + 0.5 * 1 = 0.7; from 0.2 by at most 4 * 0.05 = 0.2 -> 0.4
    # drive x: -0.8 * 0.05 = -0.04; from 0 by at most 2 * 0.05 = 0.1 -> -0.04
    # drive y: -0.8 * -1 = 0.8, limit 0.7; from 0.1 by at most 0.1 -> 0.2
    np.testing.assert_allclose(command, [0.4, -0.04, 0.2], atol=1e-8)
    assert command.dtype == np.float64


def test_a_blended_command_goes_part_of_the_way_by_hand():
    previous = np.array([0.2, 0.0, 0.1])
    command = sluggish().command(np.array([0.1, 0.05, -1.0], np.float32), previous)
    # share: 1 - exp(-0.05 / 0.08) = 0.464739
    # arm: 0.2 + 0.5 * 0.1 = 0.25; from 0.2 by 0.464739 * 0.05 -> 0.22323695
    # drive x: -0.8 * 0.05 = -0.04; from 0 -> -0.01858956
    # drive y: 0.8, limit 0.7; from 0.1 by 0.464739 * 0.6 = 0.2788, at most 0.1 -> 0.2
    np.testing.assert_allclose(command, [0.22323695, -0.01858956, 0.2], atol=1e-6)


def test_braking_reaches_the_safe_command_exactly_and_in_no_more_ticks_than_needed(any_interface):
    i, rng = any_interface, np.random.default_rng(4)
    rate = np.concatenate([t.rate_limits * i.control_dt for t in i.action])
    command = rng.uniform(*i.limits, (50, i.action_size))
    needed = int(np.ceil(np.abs(command - i.safe_command) / rate - 1e-9).max())
    for _ in range(needed):
        before, command = command, i.brake(command)
        assert (np.abs(command - before) <= rate * (1 + 1e-12)).all()
    np.testing.assert_array_equal(command, np.tile(i.safe_command, (50, 1)))


def test_the_longest_stop_is_that_of_the_slowest_element(any_interface):
    seconds, name = any_interface.braking_time
    ticks = {}
    for start in any_interface.limits:
        command, left = start, 0
        while (away := command != any_interface.safe_command).any():
            command, left = any_interface.brake(command), left + 1
            for element in np.flatnonzero(away):
                ticks[any_interface.action_names[element]] = left
    # Rounding of the last tick aside.
    assert max(ticks.values()) - 1 <= seconds / any_interface.control_dt + 1e-6
    assert seconds / any_interface.control_dt <= max(ticks.values()) + 1e-6
    assert ticks[name] == max(ticks.values())


def test_the_longest_stop_by_hand():
    slow = replace(
        odd().action[0],
        limit=(-1.0, 1.0),
        safe_command=(0.9,) * odd().action[0].size,
        rate_limit=0.06,
    )
    robot = replace(odd(), action=(slow, *odd().action[1:]))
    # From -1 to 0.9 at 0.06 a second: 1.9 / 0.06 = 31.67 s.
    assert robot.braking_time == (pytest.approx(31.667, abs=1e-3), f"{slow.name}.0")


def test_tracking_names_a_term_of_the_same_kind():
    data = interface_to_dict(load_robot("omni").interface)
    data["action"][0]["tracking"]["term"] = "speed"
    with pytest.raises(UserError, match=r"tracking.term 'speed' is no obs.* Valid: pos"):
        interface_from_dict(data, "here")
    data["action"][0]["tracking"]["term"] = "position"
    with pytest.raises(UserError, match=r"'position' has 2 elements in m, not 2 in m/s"):
        interface_from_dict(data, "here")


def test_commands_keep_every_limit_whatever_the_policy_says(any_interface):
    i, rng = any_interface, np.random.default_rng(0)
    low, high = i.limits
    rate = np.concatenate([t.rate_limits * i.control_dt for t in i.action])
    command = np.tile(i.safe_command, (50, 1))
    reached = np.zeros((2, i.action_size), bool)
    for tick in range(1000):
        if tick % 5 == 0:  # the way from one limit to the other may be long
            # Heavy tails: from tiny actions to thousands of times the limit.
            action = rng.standard_cauchy((50, i.action_size)).astype(np.float32)
            action *= 10.0 ** rng.integers(-2, 4)
        before, command = command, i.command(action, command)
        assert ((low <= command) & (command <= high)).all()
        assert (np.abs(command - before) <= rate * (1 + 1e-12)).all()
        near = 0.1 * (high - low)  # a blended command comes near its target only
        reached |= (command < low + near).any(axis=0), (command > high - near).any(axis=0)
    assert reached.all()


def test_a_command_moves_as_far_towards_its_target_as_it_may(any_interface):
    i, rng = any_interface, np.random.default_rng(1)
    low, high = i.limits
    for _ in range(50):
        target = rng.uniform(low, high)
        action, command = i.action_for(target), rng.uniform(low, high)
        gap = np.inf
        while gap > 1e-12:
            command = i.command(action, command)
            assert np.abs(target - command).max() < gap
            gap = np.abs(target - command).max()


def test_action_for_is_the_inverse(any_interface):
    i, rng = any_interface, np.random.default_rng(2)
    target = rng.uniform(*i.limits, (200, i.action_size))
    np.testing.assert_allclose(i.command(i.action_for(target), target), target, atol=1e-12)
    assert not i.saturated(i.action_for(0.999 * target + 0.001 * i.safe_command)).any()


def test_saturated_agrees_with_command(any_interface):
    i, rng = any_interface, np.random.default_rng(3)
    low, high = i.limits
    action = rng.normal(0, 2, (1000, i.action_size))
    # Where the target is not cut, a command that stands there already stays there.
    unlimited = np.concatenate([np.full(t.size, t.offset) for t in i.action]) + action * (
        np.concatenate([np.full(t.size, t.scale) for t in i.action])
    )
    stays = i.command(action, np.clip(unlimited, low, high)) == unlimited
    np.testing.assert_array_equal(i.saturated(action), ~stays)
    assert 0 < stays.mean() < 1


def test_nothing_is_commanded_from_what_is_not_finite(any_interface):
    for bad in (np.nan, np.inf, -np.inf):
        for element in range(any_interface.action_size):
            action = np.zeros((2, any_interface.action_size))
            action[1, element] = bad
            with pytest.raises(ValueError, match="action is not finite"):
                any_interface.command(action, np.tile(any_interface.safe_command, (2, 1)))


def test_an_action_for_one_is_not_spread_over_many(any_interface):
    a = any_interface.action_size
    for shape in ((a,), (1, a), (3, 1), (3, a + 1)):
        with pytest.raises(ValueError, match="action has shape"):
            any_interface.command(np.zeros(shape), np.tile(any_interface.safe_command, (3, 1)))


def test_safe_lies_within_the_limits_and_is_reached_from_everywhere(any_interface):
    low, high = any_interface.limits
    assert ((low <= any_interface.safe_command) & (any_interface.safe_command <= high)).all()
    for command in (low, high):
        for _ in range(1000):
            action = any_interface.action_for(any_interface.safe_command)
            command = any_interface.command(action, command)
        np.testing.assert_allclose(command, any_interface.safe_command, atol=1e-12)


# The interface as data --------------------------------------------------------------------


def leaves(data, path=()):
    """Every value in nested plain data, with the way to it."""
    if isinstance(data, dict | list) and data:
        for key, value in data.items() if isinstance(data, dict) else enumerate(data):
            yield from leaves(value, (*path, key))
    else:
        yield path, data


def changed(data, path, value):
    """A copy in which one value is another; what lies beside the way to it is shared."""
    if not path:
        return value
    copied = dict(data) if isinstance(data, dict) else list(data)
    copied[path[0]] = changed(data[path[0]], path[1:], value)
    return copied


def derives(data, path) -> bool:
    """Whether it is one of the things that make a term show its quaternion; they must agree."""
    term = data[path[0]][path[1]] if path[0] == "observation" else {}
    return "derive" in term and bool({"unit", "derive", "limit", "fields", "qpos"} & set(path))


def test_the_interface_survives_json_bit_for_bit(any_interface):
    data = json.loads(json.dumps(interface_to_dict(any_interface), sort_keys=True))
    again = interface_from_dict(data, "again")
    assert again == any_interface
    assert again.digest == any_interface.digest


def test_the_digest_changes_with_every_field(any_interface):
    # Tracking and the start pose name observation terms; the next test has tracking.
    loose = tuple(replace(term, tracking=None) for term in any_interface.action)
    any_interface = replace(any_interface, action=loose, start_pose=None)
    data = interface_to_dict(any_interface)
    digests, fields = {any_interface.digest}, 0
    for path, value in leaves(data):
        if derives(data, path) or (new := other(path, value)) is None:
            continue
        fields += 1
        there = interface_from_dict(changed(data, path, new), "changed")
        assert there != any_interface
        digests.add(there.digest)
    assert fields > 20
    assert len(digests) == fields + 1


def test_the_digest_changes_with_order_and_source():
    term = odd().observation[0]
    source = replace(term.mujoco, sensor=None, task="angle")
    arm, *drive = odd().action
    scan = next(t for t in load_robot("rover").interface.observation if t.mujoco.rays)
    near = replace(scan.mujoco.rays, range_max=3.0)
    required_values = tuple(near.required_values(scan.size).items())
    scans = [
        scan,
        replace(
            scan,
            mujoco=replace(scan.mujoco, rays=near),
            ros=replace(scan.ros, required_values=required_values),
        ),
        replace(
            scan, ros=replace(scan.ros, required_values=(*scan.ros.required_values, ("time", 0.1)))
        ),
    ]
    hand = replace(term, mujoco=replace(term.mujoco, sensor="hand", elements=(1,)))
    variants = [
        odd(),
        *(replace(odd(), observation=(*odd().observation, each)) for each in scans),
        *(
            replace(odd(), observation=(replace(hand, mujoco=m), *odd().observation[1:]))
            for m in (hand.mujoco, replace(hand.mujoco, elements=(2,)))
        ),
        replace(odd(), observation=odd().observation[::-1]),
        replace(odd(), action=odd().action[::-1]),
        replace(odd(), action=(replace(arm, tracking=Tracking("angle", 0.1, 0.2)), *drive)),
        replace(odd(), observation=(replace(term, mujoco=source), *odd().observation[1:])),
    ]
    assert len({v.digest for v in variants}) == len(variants)


def test_a_terms_own_order_counts():
    swapped = odd().observation[1]
    swapped = replace(swapped, mujoco=replace(swapped.mujoco, qpos=("y", "x")))
    assert (
        replace(odd(), observation=(swapped,)).digest
        != replace(odd(), observation=odd().observation[1:2]).digest
    )


def test_terms_of_a_family_come_after_the_robots():
    for name in robot_names():
        robot = load_robot(name).interface
        for family in FAMILIES:
            terms = make_family(family).terms
            assert robot.with_terms(terms).observation == (*robot.observation, *terms)
            if not terms:
                continue
            with pytest.raises(UserError, match=f"robot '{name}'.*given twice"):
                robot.with_terms([*terms, *terms])
