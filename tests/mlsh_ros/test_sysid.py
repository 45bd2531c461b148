"""`mlsh sysid`: what differs is found again, and what cannot be told is said to be so."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from tests.support.gap_robot import Robot, Wrong

pytest.importorskip("scipy")
pytest.importorskip("tabulate")

from mlsh_ros.cli.sysid import sysid
from mlsh_ros.messages.topics import TRACE
from mlsh_ros.sim2real.data.recording_data import load
from mlsh_ros.sim2real.data.target import load_target
from mlsh_ros.sim2real.data.window_plan import plan_for
from mlsh_ros.sim2real.data.windows import make_windows, subsample
from mlsh_ros.sim2real.replay.batched_replay import BatchedReplay
from mlsh_ros.sim2real.replay.open_loop_replay import open_loop_of
from mlsh_ros.sim2real.sysid import identifiability as told
from mlsh_ros.sim2real.sysid import identify as identification
from mlsh_ros.sim2real.sysid import least_squares
from mlsh_ros.sim2real.sysid import optimizer as search
from mlsh_ros.sim2real.sysid.fit import fix_gauge
from mlsh_ros.sim2real.sysid.identifiability import drop, errors, weigh_together
from mlsh_ros.sim2real.sysid.identify import identify
from mlsh_ros.sim2real.sysid.least_squares import Problem
from mlsh_ros.sim2real.sysid.parameters import NOMINAL, sim_params_of, unknowns, values_of
from policies.bundle.bundle import load_bundle
from sim.errors import UserError
from sim.files.output import write_file
from sim.physics.robot_model import load_robot, robot_folder, robot_names
from sim.randomization.model_fields import body_names
from sim.randomization.schema import (
    load_sim_params,
    read_ranges,
    read_sim_params,
    sim_params_from_dict,
)
from tests.support.synthetic_recording import synthesize_recording

SECOND = 10**9
DRIVES = {"gain_factor": 0.8, "delay_s": 0.02}


@pytest.fixture(scope="module")
def moving():
    return load_bundle("moving_bandits")


@pytest.fixture(scope="module")
def weak(moving):
    """Four sessions of a robot with 20 % less force, whose commands act 20 ms late."""
    hidden = sim_params_from_dict({"actuators": {"drive_x": DRIVES, "drive_y": DRIVES}}, "hidden")
    return synthesize_recording(moving, hidden, sessions=4, seed=3)


def test_a_weak_and_late_robot_is_found(moving, weak, tmp_path):
    names = ["gain_factor", "drive_x.delay_s", "drive_y.delay_s"]
    found = identify(moving, [weak], parameters=names)
    numbers = {n.unknown.name: n for n in found.numbers}
    for drive in ("drive_x", "drive_y"):
        assert numbers[f"{drive}.delay_s"].value == pytest.approx(0.02, abs=0.002)
        assert numbers[f"{drive}.gain_factor"].value == pytest.approx(0.8, rel=0.03)
    assert found.before > 3 * found.after
    (path := tmp_path / "sim_params.yaml").write_text(found.to_yaml(["a.mcap"]))
    # What it writes is what it found, and the robot's simulations take it.
    assert read_sim_params(path) == found.sim_params
    assert load_sim_params(str(path), load_robot("omni")) == found.sim_params
    assert "a.mcap" in path.read_text().splitlines()[0]


def test_what_a_recording_is_called_is_no_part_of_the_file(tmp_path):
    found = identification.Identified(
        sim_params_from_dict({"physics": {"mass_factor": 1.5}}, "found"),
        numbers=[], terms=[], before=0.1, after=0.05, fitted=6, held_out=2, gauge=False,
        notes=["a\u2028b: cut"], nominal={"folder": "omni\nschema: 9"},
    )  # fmt: skip
    file = tmp_path / "sim_params.yaml"
    # Line ends, and a byte that is no UTF-8, as Python has it in the name of a file.
    write_file(file, found.to_yaml(["monday\nphysics: {mass_factor: 9}", "x\udcffy"]))
    assert read_sim_params(file) == found.sim_params
    assert "Identified from monday\\nphysics: {mass_factor: 9}, x\\udcffy: 6" in file.read_text()


@pytest.mark.parametrize("name", ["prior", "ranges"])
def test_a_body_that_the_robot_does_not_have_is_named(moving, weak, name):
    given = {"physics": {"body_mass_factors": {"trunk": 2.0}}}
    with pytest.raises(UserError, match=f"^{name}: body_mass_factors: no body 'trunk'. Valid: "):
        identify(moving, [weak], **{name: sim_params_from_dict(given, name)})


@pytest.mark.slow
def test_mass_and_force_are_told_only_together(moving, weak):
    # m dv/dt = g f(u, v): twice of both is the same motion.
    names = ["mass_factor", "gain_factor", "damping_factor", "drive_x.delay_s", "drive_y.delay_s"]
    found = identify(moving, [weak], parameters=names)
    numbers = {n.unknown.name: n for n in found.numbers}
    assert "only together with" in numbers["mass_factor"].why_not
    assert numbers["mass_factor"].value == 1
    assert numbers["drive_x.gain_factor"].value == pytest.approx(0.8, rel=0.03)


@pytest.mark.slow
def test_what_the_numbers_asked_for_cannot_explain_is_said(moving, weak):
    found = identify(moving, [weak], parameters=["velocity.scale"])
    assert any("most of the difference is left" in note for note in found.notes)
    whole = identify(
        moving, [weak], parameters=["gain_factor", "drive_x.delay_s", "drive_y.delay_s"]
    )
    assert not any("is left" in note for note in whole.notes)


def test_a_robot_that_stands_still_tells_nothing(moving, weak):
    none = [np.zeros_like(d.command) for d in weak.sessions]
    still = [
        replace(d, command=n, given_command=n) for d, n in zip(weak.sessions, none, strict=True)
    ]
    with pytest.raises(UserError, match="commands never change"):
        identify(moving, [replace(weak, sessions=still)])


def test_a_number_that_its_bound_holds_is_not_called_measured(moving, weak):
    narrow = {"actuators": {"drive_x": {"gain_factor": [0.95, 1.05]}}}
    ranges = sim_params_from_dict(narrow, "ranges")
    found = identify(moving, [weak], ranges=ranges)
    (gain,) = found.numbers
    assert gain.value == pytest.approx(0.9, abs=1e-3)  # 0.8 is the truth
    assert gain.bound
    line = "drive_x.gain_factor: not measured, at its bound 0.9; widen it with --ranges"
    assert line in found.lines()
    assert f"# {line}" in found.to_yaml(["a"])
    assert "+-" not in found.lines()[0]


def test_a_nominal_robot_is_said_to_be_one(moving, tmp_path, capsys):
    """Two numbers of rounding alone say nothing of which model is the better one."""
    bag = Robot(moving, seed=4).drive("goal-0", sessions=3).bag(tmp_path / "bag")
    output = tmp_path / "sim_params.yaml"
    names = ["gain_factor"]
    assert sysid("moving_bandits", [bag], output=output, parameters=names) == 0
    assert "as the nominal model: differences below 0.2%" in capsys.readouterr().out
    told = read_sim_params(output)
    for motor in told.actuators.values():
        assert motor.gain_factor == pytest.approx((1.0, 1.0), abs=1e-4)
    head = output.read_text().splitlines()[1]
    assert re.match(
        r"# Nominal robot: name omni, folder omni, model \w{64}, interface \w{64}$", head
    )


def test_a_long_recording_is_thinned_and_says_how_far_it_is(moving, weak, monkeypatch):
    monkeypatch.setattr(identification, "MOST", 4)
    monkeypatch.setattr(identification, "BLOCK", 2)
    monkeypatch.setattr(least_squares, "EVERY", 0.0)
    said = []
    found = identify(moving, [weak], parameters=["gain_factor"], report=said.append)
    assert found.fitted + found.held_out == 4
    assert any("4 of 12 windows are used, in 2 runs" in note for note in found.notes)
    assert said[0] == "searching 2 numbers in 4 windows of 2 s"
    assert any("numbers are left" in line for line in said[1:])


def test_without_ranges_it_asks_for_them(moving, tmp_path):
    shutil.copytree(robot_folder("omni"), tmp_path / "mine")
    (tmp_path / "mine" / "domain_randomization.yaml").unlink()
    with pytest.raises(UserError, match=r"has no domain_randomization.yaml.*--ranges"):
        sysid("moving_bandits", [tmp_path], robot=str(tmp_path / "mine"))


def test_names_that_are_none_are_refused(moving, weak):
    with pytest.raises(UserError, match=r"no parameter 'weight'.*mass_factor"):
        identify(moving, [weak], parameters=["weight"])
    with pytest.raises(UserError, match="no parameter is left"):
        identify(moving, [weak], parameters=["mass_factor"], fix=["mass_factor"])


def test_values_and_sim_param_sets_are_two_ways_to_say_the_same():
    for name in robot_names():
        robot = load_robot(name)
        bodies = body_names(robot.compile())
        for sim_params in ("heavy", "slow", "noisy"):
            told = load_sim_params(sim_params, robot)
            values = values_of(robot.interface, bodies, told)
            again = sim_params_of(robot.interface, bodies, values, told)
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


# Bad recordings ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def late(moving):
    """Two sessions of a robot whose commands act 20 ms late, as a recorder hears them."""
    robot = Robot(moving, Wrong(actuation_delay=0.02), seed=1).drive("goal-0", sessions=2)
    return robot, list(robot.messages())


def identified(subject, robot, said, folder):
    """The drives' delays, s, and the notes."""
    signals = load(robot.bag(folder / "bag", said), subject).signals
    found = identify(subject, [signals], parameters=["drive_x.delay_s", "drive_y.delay_s"])
    assert not [n for n in found.numbers if n.why_not]
    return [n.value for n in found.numbers], found.notes


def test_a_whole_recording_is_used_without_a_note(moving, late, tmp_path):
    delays, notes = identified(moving, *late, tmp_path)
    assert delays == pytest.approx([0.02, 0.02], abs=0.002)
    assert notes == []


def test_a_clock_that_jumps_back_is_noted_and_spoils_nothing(moving, late, tmp_path):
    robot, said = late
    middle = said[0][0] + 3 * SECOND
    jumped = [(t - 2 * SECOND if t > middle else t, topic, m) for t, topic, m in said]
    delays, notes = identified(moving, robot, jumped, tmp_path)
    assert delays == pytest.approx([0.02, 0.02], abs=0.002)
    assert any(re.search("cut at 1 place.*the clock jumped", note) for note in notes)


def test_a_hole_is_noted_and_spoils_nothing(moving, late, tmp_path):
    robot, said = late
    begin = said[0][0] + 2 * SECOND
    holes = [row for row in said if not begin < row[0] < begin + 1.5 * SECOND]
    delays, notes = identified(moving, robot, holes, tmp_path)
    assert delays == pytest.approx([0.02, 0.02], abs=0.002)
    assert any(re.search("cut at 1 place.*ticks are missing", note) for note in notes)


def test_sensors_that_are_silent_for_a_while_spoil_nothing(moving, late, tmp_path):
    robot, said = late
    begin = said[0][0] + 2 * SECOND
    holes = [r for r in said if not (begin < r[0] < begin + 1.5 * SECOND and r[1] == "odom")]
    delays, _ = identified(moving, robot, holes, tmp_path)
    assert delays == pytest.approx([0.02, 0.02], abs=0.002)


def test_where_a_topic_is_missing_what_the_policy_saw_stands_in(moving, late, tmp_path):
    robot, said = late
    without = [row for row in said if row[1] != "odom"]
    delays, notes = identified(moving, robot, without, tmp_path)
    # Once per tick of 100 ms, and rounded to float32.
    assert delays == pytest.approx([0.02, 0.02], abs=0.01)
    assert any("topic odom is missing: it carries position, velocity" in note for note in notes)


def test_where_no_sensor_is_recorded_nothing_is_identified(moving, late, tmp_path):
    robot, said = late
    without = [row for row in said if row[1] not in ("odom", "goals", TRACE)]
    with pytest.raises(UserError, match="odom"):
        identified(moving, robot, without, tmp_path)


def test_a_name_of_neither_bundle_nor_robot_is_told_both():
    with pytest.raises(UserError, match=r"'nobody'.*moving_bandits.*omni"):
        load_target("nobody")


# A robot without a bundle ------------------------------------------------------------------------


def test_a_robot_that_no_bundle_drove_is_identified(late, tmp_path):
    robot, said = late
    commanded = [row for row in said if row[1] in ("odom", "cmd_vel")]
    delays, _ = identified(load_robot("omni"), robot, commanded, tmp_path)
    assert delays == pytest.approx([0.02, 0.02], abs=0.002)


def test_what_moves_nothing_is_not_told(moving, weak):
    # Omni touches nothing. Beside numbers that are told very well rounding must not tell it.
    physics, drive = {"friction_factor": [0.5, 1.5]}, {"command_factor": [0.5, 2.0]}
    actuators = {"drive_x": drive, "drive_y": drive}
    ranges = sim_params_from_dict({"physics": physics, "actuators": actuators}, "test")
    numbers = {n.unknown.name: n for n in identify(moving, [weak], ranges=ranges).numbers}
    assert "too little" in numbers["friction_factor"].why_not
    assert not numbers["drive_x.command_factor"].why_not


# Few simulations ---------------------------------------------------------------------------------


def fit_of(subject, signals, ranges, windows):
    """The problem that some windows of a recording pose."""
    robot, ranges = load_robot(subject.interface.robot), sim_params_from_dict(ranges, "ranges")
    chosen = subsample(
        make_windows(signals, plan_for(subject.interface), subject.interface), np.array(windows)
    )
    open_loop = open_loop_of(subject, [signals], robot)
    found = unknowns(subject.interface, body_names(open_loop.model), NOMINAL, ranges)
    follower = BatchedReplay(open_loop, chosen, ranges, NOMINAL)
    return Problem(follower, found, np.ones(len(windows), bool))


@pytest.fixture
def four(moving, weak):
    """Of the weak robot: two drives and two sensors, all of them perhaps late."""
    late = {"delay_s": [0.0, 0.06]}
    both = {**late, "gain_factor": [0.6, 1.0]}
    ranges = {
        "actuators": {"drive_x": both, "drive_y": both},
        "sensors": {"position": late, "velocity": late},
    }
    return fit_of(moving, weak, ranges, [1, 2])


def test_what_only_sensors_make_different_is_simulated_once(four):
    follower = four.follower
    values = np.tile(four.values, (3, 1))
    follower.differences.of(values, "sensor_delay")[1, 0] = 0.03
    follower.differences.of(values, "gain_factor")[2, 0] = 0.8
    shown = follower.predict(values)
    assert set(follower.simulator.batches) == {2 * follower.windows.count}
    one_by_one = np.concatenate([follower.predict(row[None]) for row in values], axis=1)
    np.testing.assert_array_equal(shown, one_by_one)
    assert (shown[:, 0] != shown[:, 1]).any()


def test_windows_that_nobody_asks_for_are_not_simulated(four):
    follower, use = four.follower, np.array([False, True])
    mine = use[follower.window]
    whole, part = follower.predict(four.values[None]), follower.predict(four.values[None], use)
    np.testing.assert_array_equal(part[mine], whole[mine])
    assert np.isnan(part[~mine]).all()


def test_the_sensor_that_counts_as_on_time_leaves_room_for_its_delay(four):
    """The commands have it in them, and the other sensors may be earlier by as much."""
    before = {each.name: each for each in four.unknowns}
    fix_gauge(four)
    own = before.pop(f"{four.gauge}.delay_s").high
    assert {each.name for each in four.unknowns} == set(before)
    for each in four.unknowns:
        if each.quantity == "command_delay":
            assert each.high == pytest.approx(before[each.name].high + own)
        elif each.quantity == "sensor_delay":
            assert each.low == -own


def test_what_comes_after_a_windows_end_is_not_fitted(four):
    """A sensor that is 40 ms earlier than the one that counts as on time would show it."""
    follower = four.follower
    before = int(four.fitted.sum())
    fix_gauge(four)
    late = max(0.0, *(-each.low for each in four.unknowns if each.quantity == "sensor_delay"))
    assert late == pytest.approx(0.09)  # of its bounds, twice the range of 0 to 60 ms
    assert (follower.left[four.fitted] >= late).all()
    assert (follower.left[~four.fitted] < late).all()
    assert four.fitted.sum() < before
    four.leave_out(0.0)
    assert four.fitted.sum() == before


def test_commands_and_sensors_that_are_a_step_off_against_each_other_are_put_right(four):
    fix_gauge(four)
    right = {"drive_x.delay_s": 0.02, "drive_y.delay_s": 0.02, "velocity.delay_s": 0.0}
    put(four, {"drive_x.gain_factor": 0.8, "drive_y.gain_factor": 0.8} | right)
    best = cost(four)
    assert not search.cross_ridge(four)
    # The other numbers make up for some of it.
    put(four, {"drive_x.gain_factor": 0.7, "drive_y.gain_factor": 0.7} | right)
    put(four, {each.name: four.value(each) for each in four.unknowns} | shifted(right, 0.02))
    wrong = cost(four)
    assert search.cross_ridge(four)
    assert cost(four) - best < 0.05 * (wrong - best)
    found = {each.name: four.value(each) for each in four.unknowns}
    assert {name: found[name] for name in right} == pytest.approx(right, abs=1e-6)


def shifted(delays, by):
    """Commands later, sensors earlier."""
    return {name: d + (by if name.startswith("drive") else -by) for name, d in delays.items()}


def test_what_explains_much_is_kept_however_uncertain_it_is(four, monkeypatch):
    right = {"drive_x.gain_factor": 0.8, "drive_y.gain_factor": 0.8}
    late = {"drive_x.delay_s": 0.02, "drive_y.delay_s": 0.02}
    put(four, dict.fromkeys((each.name for each in four.unknowns), 0.0) | right | late)
    four.unknowns = [each for each in four.unknowns if each.quantity == "gain_factor"]
    monkeypatch.setattr(told, "TELLS", 0.0)  # nothing is certain enough
    assert not drop(four, strict=False)
    put(four, {each.name: each.known for each in four.unknowns})
    assert drop(four, strict=False)  # what changes nothing may go


def put(fit, values):
    """Give some unknowns these values."""
    for each in fit.unknowns:
        fit.put(fit.values, each, values[each.name])
    fit.forget_starts()


def test_what_stands_beside_a_bend_slides_to_it(four):
    """At whole steps all else is right too; beside them all else holds the delays there."""
    fix_gauge(four)
    gains = {"drive_x.gain_factor": 0.8, "drive_y.gain_factor": 0.8, "velocity.delay_s": 0.0}
    put(four, {"drive_x.delay_s": 0.02, "drive_y.delay_s": 0.02} | gains)
    best = cost(four)
    put(four, {"drive_x.delay_s": 0.0185, "drive_y.delay_s": 0.0215} | gains)
    search.descend(four)
    beside = cost(four)
    assert search.move_along_valley(four)
    search.descend(four)
    assert cost(four) - best < 0.01 * (beside - best)


def test_a_slide_makes_nothing_worse(moving, weak):
    """Slopes promise much along what is hardly told, such as a load against mass."""
    drives = {"delay_s": [0.0, 0.06], "command_factor": [0.9, 1.1]}
    ranges = {
        "physics": {"mass_factor": [0.8, 1.2], "payload_kg": [0.0, 5.0]},
        "actuators": {"drive_x": drives, "drive_y": drives},
        "sensors": {"velocity": {"delay_s": [0.0, 0.06]}},
    }
    fit = fit_of(moving, weak, ranges, [1, 2])
    for late in (0.0, 0.0185, 0.0215, 0.045):
        for kg in (0.0, 1.0, 5.0):
            put(fit, {each.name: each.known for each in fit.unknowns} | {"payload_kg": kg})
            put(fit, {each.name: fit.value(each) for each in fit.unknowns} | delayed_by(late))
            before = cost(fit)
            fell = search.move_along_valley(fit)
            assert cost(fit) < before if fell else cost(fit) == before


def delayed_by(late):
    return {"drive_x.delay_s": late, "drive_y.delay_s": late}


def cost(fit):
    return float(fit.cost(fit.values[None])[0])


def test_delays_a_whole_physics_step_wrong_are_put_right(four):
    fix_gauge(four)
    assert four.gauge == "position"
    gains = {"drive_x.gain_factor": 0.8, "drive_y.gain_factor": 0.8}
    wrong = {"drive_x.delay_s": 0.04, "drive_y.delay_s": 0.04, "velocity.delay_s": -0.02}
    right = {"drive_x.delay_s": 0.02, "drive_y.delay_s": 0.02, "velocity.delay_s": 0.0}
    put(four, wrong | gains)
    assert search.scan(four)
    found = {each.name: four.value(each) for each in four.unknowns}
    assert found == pytest.approx(right | gains, abs=1e-6)


def test_a_search_looks_along_what_is_told_least(four):
    """A wrong gain is on the way to the right one; from there on nothing more is gained."""
    late = {"drive_x.delay_s": 0.02, "drive_y.delay_s": 0.02}
    put(four, dict.fromkeys((each.name for each in four.unknowns), 0.0) | late)
    four.unknowns = [each for each in four.unknowns if each.quantity == "gain_factor"]
    put(four, {"drive_x.gain_factor": 0.65, "drive_y.gain_factor": 0.65})
    before = cost(four)
    assert search.scan_valleys(four)
    assert cost(four) < 0.6 * before
    put(four, {"drive_x.gain_factor": 0.8, "drive_y.gain_factor": 0.8})
    assert not search.scan_valleys(four)


def test_an_error_is_what_a_window_less_would_change(four, monkeypatch):
    """Two windows, one unknown, slope 1; each window is off by 1 or -1 all the time.

    So the unknown is the mean of all samples, and 1 or -1 without the other window: the
    jackknife's variance is (2 - 1) / 2 of the sum of the squared changes.
    """
    four.unknowns = four.unknowns[:1]
    window = four.follower.window
    shown = np.where(window == 0, 1.0, -1.0)
    left = shown - shown.mean()
    monkeypatch.setattr(four, "jacobian", lambda far=True: (np.ones((len(window), 1)), left))
    error = np.sqrt(((shown.mean() - np.array([1.0, -1.0])) ** 2).sum() / 2)
    assert error == pytest.approx(1.0, abs=0.1)
    assert errors(four) == pytest.approx([error], rel=1e-3)


def test_what_a_load_weighs_is_the_masses_where_only_the_sum_shows(moving, weak):
    ranges = {"physics": {"mass_factor": [0.8, 1.2], "payload_kg": [0.0, 5.0]}}
    fit = fit_of(moving, weak, ranges, [1, 2])
    put(fit, {"mass_factor": 1.05, "payload_kg": 2.0})
    before = cost(fit)
    assert weigh_together(fit)
    assert fit.not_identifiable == {"payload_kg": "only together with mass_factor"}
    (mass,) = fit.unknowns
    assert fit.value(mass) == pytest.approx(1.05 + 2.0 / 20.0)  # of omni's 20 kg
    assert cost(fit) == pytest.approx(before)


def test_a_load_that_is_harder_to_turn_than_mass_keeps_what_it_weighs():
    """A load at the axis of turning is turned by anybody."""
    ranges = {"physics": {"mass_factor": [0.8, 1.2], "payload_kg": [0.0, 0.5]}}
    fit = rover({"physics": {"payload_kg": 0.3}}, ranges)
    put(fit, {"mass_factor": 1.0, "payload_kg": 0.3})
    assert not weigh_together(fit)
    assert len(fit.unknowns) == 2


def test_a_search_ends_where_it_gains_nothing(four, monkeypatch):
    four.unknowns = [each for each in four.unknowns if each.quantity == "gain_factor"]
    slopes, taken = four.slopes, []
    monkeypatch.setattr(four, "slopes", lambda unit: taken.append(unit) or slopes(unit))
    monkeypatch.setattr(search, "ENOUGH", 1e9)
    search.optimize(four)
    assert len(taken) == 1


# Contacts ----------------------------------------------------------------------------------------


def rover(hidden, ranges):
    """What is to be found of a rover that differs so, in two seconds of driving."""
    bundle = load_bundle("body_bandits")
    sim_params = sim_params_from_dict(hidden, "hidden")
    signals = synthesize_recording(bundle, sim_params, sessions=1, seed=3, every=5)
    fit = fit_of(bundle, signals, ranges, [0])
    fit.forget_starts()
    return fit


def floor(friction):
    """A rover on a floor with so many times the model's friction."""
    ranges = {"physics": {"friction_factor": [0.05, 1.0]}}
    return rover({"physics": {"friction_factor": friction}}, ranges)


@pytest.mark.slow
def test_a_single_actuator_as_late_as_its_sensor_is_early_is_put_right():
    late = {"delay_s": 0.03}
    hidden = {"actuators": {"drive": late, "turn": late}, "sensors": {"speed": {"delay_s": 0.02}}}
    perhaps = {"delay_s": [0.0, 0.06]}
    ranges = {"actuators": {"drive": perhaps, "turn": perhaps}, "sensors": {"speed": perhaps}}
    fit = rover(hidden, ranges)
    put(fit, {"drive.delay_s": 0.02, "turn.delay_s": 0.03, "speed.delay_s": 0.03})
    assert search.scan(fit)
    found = {each.name: fit.value(each) for each in fit.unknowns}
    right = {"drive.delay_s": 0.03, "turn.delay_s": 0.03, "speed.delay_s": 0.02}
    assert found == pytest.approx(right, abs=1e-6)


def test_friction_of_a_floor_on_which_wheels_slip_is_found():
    # At the model's own friction nothing slips, so that no slope leads away from it.
    fit = floor(0.15)
    drop(fit, strict=True)
    assert "too little" in fit.not_identifiable["friction_factor"]
    assert search.scan_friction(fit)
    assert not fit.not_identifiable
    assert fit.value(fit.unknowns[0]) == pytest.approx(0.15, rel=0.1)
    fit.reweigh()
    for element in fit.follower.elements:
        declared = next(t.noise for t in fit.follower.terms if t.name == element.term)
        assert fit.sigma[element.rows].min() >= declared


def test_friction_of_a_floor_that_holds_is_said_not_to_be_told():
    fit = floor(0.9)
    drop(fit, strict=True)
    assert not search.scan_friction(fit)
    assert "too little" in fit.not_identifiable["friction_factor"]
