"""The verdict of `mlsh gap`: silent where nothing is wrong, and right where something is."""

import re
from dataclasses import replace

import numpy as np
import pytest
import yaml

from mlsh_ros.messages.topics import APPLIED_COMMAND, OUTCOME, TRACE
from mlsh_ros.sim2real.data.physics_steps import share_lost, slower, step_numbers
from mlsh_ros.sim2real.data.simulated_time import simulated_time
from mlsh_ros.sim2real.data.window_plan import plan_for
from mlsh_ros.sim2real.data.windows import make_windows
from mlsh_ros.sim2real.gap.analysis import analyze_signals
from mlsh_ros.sim2real.gap.data_quality import out_of_distribution
from mlsh_ros.sim2real.gap.findings import from_angles
from mlsh_ros.sim2real.gap.gap import NO_GAP
from mlsh_ros.sim2real.gap.joints import angles
from mlsh_ros.sim2real.gap.measures import sudden
from mlsh_ros.sim2real.gap.training_range import SPREAD, graphs_of, known_to, read_by
from mlsh_ros.sim2real.replay.open_loop_replay import OpenLoopReplay, open_loop_of
from mlsh_ros.sim2real.sysid.identify import identify
from policies.bundle.bundle import load_bundle
from policies.bundle.onnx_reader import OnnxGraph
from policies.bundle.task_compatibility import resolve_task
from sim.errors import UserError
from sim.physics.robot_model import load_robot
from sim.randomization.schema import load_sim_params
from tests.support.gap_robot import START, Robot, Wrong
from tests.support.synthetic_recording import synthesize_recording

MASTERS = ("goal-0", "goal-1")


@pytest.fixture(scope="module")
def moving():
    return load_bundle("moving_bandits")


def drive(bundle, wrong=None, *, seed=0, sessions=3, **more):
    robot = Robot(bundle, wrong, seed=seed, **more)
    return robot.drive(MASTERS[seed % 2], sessions=sessions)


def found(bundle, robot, **more):
    return analyze_signals(bundle, [robot.signals(**more)], [])


def sense(**change):
    """What is done to the values of some terms."""

    def spoil(fields, rng):
        return {k: change[k](v, rng) if k in change else v for k, v in fields.items()}

    return Wrong(sense=spoil)


def scaled(*names, by):
    def change(batch):
        for name in names:
            batch.expand(name)[:] *= by
        batch.set_const()

    return Wrong(model=change)


def turned(angle):
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


# The range of training --------------------------------------------------------------------------


def test_the_range_of_training_is_that_of_its_statistics_too(moving):
    graphs = graphs_of(moving)
    assert len(graphs) == 4  # two skills, two masters
    known, golden = known_to(moving, graphs), moving.golden.observation
    scale = graphs[0].initializers["scale"]
    assert (known.min(axis=0) <= golden.min(axis=0)).all()
    np.testing.assert_allclose((known[-1] - known[-2]) * scale, 2 * SPREAD, rtol=1e-5)
    # The robot leaves it on one side alone, by more than a tenth of the range.
    signals = drive(moving, seed=3, sessions=1).signals()
    seen = signals.sessions[0].observation.copy()
    names = moving.interface.observation_names
    x, range_of_x = names.index("position.0"), np.ptp(known, axis=0)[names.index("position.0")]
    seen[:10, x] = known[:, x].max() + 0.11 * range_of_x
    seen[10:, x] = known[:, x].max() + 0.09 * range_of_x
    away = replace(signals, sessions=[replace(signals.sessions[0], observation=seen)])
    everything = np.ones(len(names), bool)
    by_name = {d.name: d for d in out_of_distribution([away], known, everything)}
    assert by_name["position.x"].outside == pytest.approx(10 / len(seen))
    assert sum(d.outside for d in by_name.values()) == by_name["position.x"].outside
    # Where no network looks, none has to guess.
    assert "position.x" not in {
        d.name for d in out_of_distribution([away], known, ~np.eye(8, dtype=bool)[x])
    }
    assert read_by(graphs).all()


def test_what_is_hidden_from_all_networks_is_read_by_none():
    def graph(*rows):
        weight = np.zeros((4, 2), np.float32)
        weight[list(rows), 1] = -0.1
        return OnnxGraph((), {"weight0": weight})

    assert read_by([graph(0, 2), graph(0, 1)]).tolist() == [True, True, True, False]


def test_without_statistics_the_golden_rows_are_all_that_is_known(moving):
    zeros, ones = np.zeros(8, np.float32), np.ones(8, np.float32)
    plain = [OnnxGraph((), {"shift": zeros, "scale": ones})]
    assert np.array_equal(known_to(moving, plain), moving.golden.observation)


# Nothing wrong ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_twenty_robots_with_nothing_wrong_raise_no_alarm(moving):
    verdicts = {}
    for seed in range(20):
        # Ticks are late by 10 ms, and sensors come with every physics step or tick.
        robot = drive(moving, seed=seed, sessions=3, jitter=0.01, every=(1, 5)[seed // 2 % 2])
        verdicts[seed] = found(moving, robot).verdict
    assert verdicts == {seed: [NO_GAP] for seed in range(20)}


def test_what_is_equal_is_measured_as_equal(moving):
    gap = found(moving, drive(moving, seed=3, sessions=2), simulated=True)
    assert gap.verdict == [NO_GAP]
    moves = [m for m in gap.measures if m.element.moves]
    assert [m.element.name for m in moves] == [
        "position.x",
        "position.y",
        "velocity.x",
        "velocity.y",
    ]
    for m in moves:
        assert m.rmse < 1e-6
        assert m.gain == pytest.approx(1, abs=1e-6)
        assert m.lag == pytest.approx(0, abs=1e-3)
        assert m.correlation == pytest.approx(1, abs=1e-6)
    (line,) = gap.closed_loop_returns
    np.testing.assert_array_equal(line.robot, line.simulation)


@pytest.mark.parametrize("phase", [0.0, 0.5, 0.98, 1.0, 1.02, 2.5])
def test_a_simulator_says_which_step_applied_a_command(moving, phase):
    """Wherever ticks lie between its physics steps, and however late they are heard."""
    step = moving.interface.physics_dt
    robot = Robot(
        moving, seed=5, simulator=True, phase=phase * step, jitter=5e-4, hears=2e-3
    ).drive("goal-1", sessions=3)
    gap = analyze_signals(moving, [robot.signals()], [])
    assert gap.verdict == [NO_GAP]
    assert max(m.nrmse for m in gap.measures if m.element.moves) < 0.01


def without(signals, lost):
    """The signals of a recording that lacks some messages of the simulator's applied commands."""
    names = ("applied_number", "applied_step", "applied_moment", "applied_command")
    return replace(signals, **{n: np.delete(getattr(signals, n), lost, axis=0) for n in names})


class Held(Robot):
    """A simulator on a busy computer, which takes each tenth command three physics steps late."""

    def _in_force(self, commands, now, pdt):
        late = [3 * pdt if n % 10 == 9 else 0 for n in range(len(commands))]
        came = [(begin + by, command) for (begin, command), by in zip(commands, late, strict=True)]
        return super()._in_force(came, now, pdt)


def test_a_late_command_is_late_in_the_comparison(moving):
    signals = Held(moving, seed=5, simulator=True).drive("goal-1", sessions=3).signals()
    gap = analyze_signals(moving, [signals], [])
    assert max(m.nrmse for m in gap.measures if m.element.moves) < 0.01
    # Without what the simulator says, the order of the messages is all that is known.
    gap = analyze_signals(moving, [without(signals, slice(None))], [])
    assert max(m.nrmse for m in gap.measures if m.element.moves) > 0.05


def on_a_busy_computer(robot):
    """The same, but every other second takes a fifth longer, by all clocks, and is not made up."""

    def late(moment):
        seconds, rest = divmod((moment - START) * 1e-9, 2.0)
        return moment + round(2e8 * (seconds + max(rest - 1.0, 0.0)))

    heard = []
    for received, order, topic, content in robot.heard:
        if topic == APPLIED_COMMAND:
            number, step, time, *command = content
            content = [number, step, late(round(time * 1e9)) * 1e-9, *command]
        elif topic not in (TRACE, OUTCOME):
            stamp, fields = content
            content = (late(stamp), fields)
        heard.append((late(received), order, topic, content))
    robot.heard = heard
    return robot


def test_a_simulator_that_is_slower_than_real_time_is_compared_by_its_steps(moving):
    robot = Robot(moving, seed=5, simulator=True).drive("goal-1", sessions=3)
    signals = on_a_busy_computer(robot).signals()
    gap = analyze_signals(moving, [signals], [])
    assert gap.verdict == [f"{NO_GAP} in what could be compared"]
    assert max(m.nrmse for m in gap.measures if m.element.moves) < 0.01
    (note,) = gap.notes
    assert "physics steps where real time has" in note
    # Without the numbers of the steps nobody can tell steps that are lost from steps not made.
    gap = analyze_signals(moving, [without(signals, slice(None))], [])
    assert max(m.nrmse for m in gap.measures if m.element.moves) > 0.05


def test_steps_that_a_recorder_lost_are_counted(moving):
    """Every seventh message of every topic, which are of the same step."""
    robot = Robot(moving, seed=5, simulator=True).drive("goal-1", sessions=3)
    stamps = sorted({c[0] for _, _, topic, c in robot.heard if topic == "odom"})
    lost = set(stamps[3::7])
    robot.heard = [
        each
        for each in robot.heard
        if each[2] in (TRACE, APPLIED_COMMAND, OUTCOME) or each[3][0] not in lost
    ]
    gap = analyze_signals(moving, [on_a_busy_computer(robot).signals()], [])
    assert max(m.nrmse for m in gap.measures if m.element.moves) < 0.01
    assert [f.kind for f in gap.findings] == ["lost"]
    assert gap.findings[0].value == pytest.approx(1 / 7, abs=0.01)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("wrong", [10**6, 2**52, -5])
def test_a_number_of_a_step_that_cannot_be_is_not_counted_with(moving, wrong):
    """A damaged recording may say any number, and costs neither time nor a wrong comparison."""
    signals = Robot(moving, seed=5, simulator=True).drive("goal-1", sessions=1).signals()
    stamps = next(s for s in signals.streams if "position" in s.fields).moment
    assert step_numbers(signals, stamps) is not None
    steps = signals.applied_step.copy()
    steps[len(steps) // 2 :] += wrong
    assert step_numbers(replace(signals, applied_step=steps), stamps) is None


def test_what_a_simulator_sends_is_counted_where_it_can_be(moving):
    """Not across one that is started again, and not on a topic without stamps."""
    signals = Robot(moving, seed=5, simulator=True).drive("goal-1", sessions=3).signals()
    (stream, *_) = [each for each in signals.streams if "position" in each.fields]
    assert share_lost(signals, stream) == pytest.approx(0.0, abs=0.02)
    third = replace(stream, moment=stream.moment[np.arange(len(stream.moment)) % 3 > 0])
    assert share_lost(signals, third) == pytest.approx(1 / 3, abs=0.02)
    again = len(signals.applied_step) // 2
    steps = signals.applied_step.copy()
    steps[again:] -= steps[again]
    restarted = replace(signals, applied_step=steps)
    assert share_lost(restarted, third) == pytest.approx(1 / 3, abs=0.02)
    assert slower(restarted) == slower(signals) == []
    damaged = signals.applied_step.copy()
    damaged[again:] += 2**40
    wrong = replace(signals, applied_step=damaged)
    assert share_lost(wrong, third) == pytest.approx(1 / 3, abs=0.02)
    assert share_lost(signals, replace(stream, moment=0 * stream.moment)) is None


@pytest.mark.parametrize("lost", [0, 40, -1])
def test_a_command_whose_application_is_not_recorded_is_taken_from_the_order(moving, lost):
    signals = Robot(moving, seed=5, simulator=True).drive("goal-1", sessions=3).signals()
    gap = analyze_signals(moving, [without(signals, lost)], [])
    assert gap.verdict == [NO_GAP]


def in_simulated_time(robot, rate):
    """What is heard of a simulator whose clock begins at 0 and runs at `rate` of real time."""
    heard = []
    for received, order, topic, content in robot.heard:
        if topic == APPLIED_COMMAND:
            number, step, time, *command = content
            content = [number, step, time - START * 1e-9, *command]
        elif topic != TRACE:
            stamp, fields = content
            content = (stamp - START, fields)
        heard.append((START + round((received - START) / rate), order, topic, content))
    robot.heard = heard
    return robot


@pytest.mark.parametrize("rate", [0.25, 0.9, 1.0, 1.1, 20.0])
@pytest.mark.parametrize("silent", [False, True], ids=["applied", "order"])
def test_simulated_time_is_the_time_of_the_robot(moving, rate, silent):
    """However fast it runs: half a second of a simulator at half the speed is a quarter."""
    robot = Robot(moving, seed=5, simulator=True).drive("goal-1", sessions=3)
    signals = in_simulated_time(robot, rate).signals()
    gap = analyze_signals(moving, [without(signals, slice(None)) if silent else signals], [])
    assert gap.verdict[0].startswith("no gap"), gap.verdict
    assert max(m.nrmse for m in gap.measures if m.element.moves) < 1e-3
    assert gap.timing.period == pytest.approx(moving.interface.control_dt, rel=0.01)


def test_stamps_of_another_clock_are_no_simulated_time():
    """Of a clock that was not set, that stands still, jumps back, or counts in another unit."""
    received, origin = np.arange(100, dtype=np.int64) * 10**7, 10**18
    passed = received // 2
    assert simulated_time(received.tolist(), passed.tolist(), origin) is not None
    for stamp in (
        received,  # as fast, from 0
        origin + received,
        origin + passed,  # the recorder's own clock, and a sensor that gets later
        0 * received,
        np.where(received < 5 * 10**8, passed, passed - 10**8),
        received // 1000,
        1000 * received,
        received // 5 // 10**8 * 10**8,  # a stamp that rarely changes
    ):
        assert simulated_time(received.tolist(), stamp.tolist(), origin) is None, stamp[-3:]
    assert simulated_time([], [], origin) is None
    # Of a robot whose clock is not set: its network stood still at the begin, or it sent a zero.
    stalled, first = received.copy(), received + 10**11
    stalled[:5], first[0] = 0, 0
    stalled[5:] += 3 * 10**8
    for came, stamp in ((stalled, received), (received, first)):
        assert simulated_time(came.tolist(), stamp.tolist(), origin) is None
    huge = [*received.tolist(), 2**64 - 1]  # what a file may say
    assert simulated_time(huge, [*passed.tolist(), 2**62], origin)(huge)[-1] == 2**62


def test_a_rover_that_drives_straight_on_is_compared():
    """Its yaw rate is rounding alone, which no unseen velocity changes."""
    bundle = load_bundle("body_bandits")
    straight = Wrong(command=lambda command: np.array([0.15, 0.0]))
    robot = Robot(bundle, straight, seed=5).drive(next(iter(bundle.manifest.masters)))
    for at, (received, order, topic, content) in enumerate(robot.heard):
        if topic == TRACE:
            content[1][-2:] = [0.15, 0.0]
            robot.heard[at] = (received, order, topic, content)
    first = len(robot.heard) // 5  # it drives when the recording begins
    robot.heard = robot.heard[first:]
    signals = robot.signals()
    open_loop = open_loop_of(bundle, [signals], load_robot("rover")).bare()
    windows = make_windows(signals, plan_for(open_loop.interface), open_loop.interface)
    assert open_loop.undetermined(windows) == []


def test_an_accelerometer_is_compared_at_every_physics_step():
    """It jumps from one step to the next: no value between two of them is one that it shows."""
    bundle = load_bundle("body_bandits")
    robot = Robot(bundle, seed=5, simulator=True).drive(next(iter(bundle.manifest.masters)))
    gap = analyze_signals(bundle, [robot.signals()], [])
    assert gap.findings == []
    assert gap.notes == ["not compared, because it did not move: scan"]  # 24 beams, and no wall
    shown = {m.element.name: m.usual / m.element.size for m in gap.measures if m.element.moves}
    assert "acceleration.x" in shown
    assert max(shown.values()) < 0.01, shown


@pytest.mark.parametrize("late", ["odom", "imu"])
@pytest.mark.parametrize("fewer", ["odom", "imu"])
def test_a_window_begins_with_sensors_of_one_moment(late, fewer):
    """Whichever topic is recorded behind the tick, and whichever of them says the times."""
    bundle, wrong = load_bundle("body_bandits"), Wrong(sensor_delay={late: 5e-5})
    robot = Robot(bundle, wrong, seed=5, simulator=True)
    robot.drive(next(iter(bundle.manifest.masters)), sessions=2)
    robot.heard.remove(next(each for each in robot.heard if each[2] == fewer))
    gap = analyze_signals(bundle, [robot.signals()], [])
    shown = {m.element.name: m.usual / m.element.size for m in gap.measures if m.element.moves}
    assert {"position.x", "imu_yaw_rate"} < set(shown)
    assert max(shown.values()) < 1e-4, shown


@pytest.mark.parametrize("first", [2, 5, 9])
def test_wheels_turn_as_the_robot_moves_where_a_recording_begins(first):
    """No sensor shows them, and no window before tells their speed."""
    bundle = load_bundle("body_bandits")
    robot = Robot(bundle, seed=5, simulator=True).drive(next(iter(bundle.manifest.masters)))
    robot.heard = [
        each
        for each in robot.heard
        if each[2] != TRACE or each[3][1][1] >= first  # of a session
    ]
    gap = analyze_signals(bundle, [robot.signals()], [])
    assert gap.findings == []
    shown = {m.element.name: m.nrmse for m in gap.measures if m.element.moves}
    assert max(v for name, v in shown.items() if "acceleration" not in name) < 0.01, shown


@pytest.mark.parametrize("wrong", ["weak", "stuck"])
def test_what_a_simulator_does_not_execute_is_a_finding(moving, wrong):
    command = {"weak": lambda command: command * 0.8, "stuck": np.zeros_like}[wrong]
    robot = Robot(moving, Wrong(command=command), seed=5, simulator=True)
    signals = robot.drive("goal-1", sessions=3).signals()
    assert analyze_signals(moving, [signals], []).findings


def test_a_simulators_late_steps_are_steps_all_the_same(moving):
    """Every ninth physics step of 20 ms comes 50 ms late, and those after it catch up."""
    signals = drive(moving, seed=3, sessions=2).signals(simulated=True)
    received = signals.streams[0].received
    steps = np.arange(len(received))
    late, apart = np.where(steps % 9 == 8, 0.05, 0.0), 5e-4 * steps
    heard = np.maximum.accumulate(received + late - apart) + apart

    def then(times):
        return np.interp(times, received, heard)

    streams = [
        replace(s, received=then(s.received), stamp=then(s.received) - 1e-4)
        for s in signals.streams
    ]
    drives = [replace(d, received=then(d.received)) for d in signals.sessions]
    gap = analyze_signals(moving, [replace(signals, streams=streams, sessions=drives)], [])
    assert gap.verdict == [NO_GAP]
    assert gap.timing.period_p99 > 0.03
    assert max(m.nrmse for m in gap.measures if m.element.moves) < 0.01


# Something wrong --------------------------------------------------------------------------------

X, Y = "velocity.x", "velocity.y"
BOTH = ("base_velocity.x", "base_velocity.y")
# What is wrong, and what is named first: kind, where, the number and how near it has to be.
# Searches that take more than five seconds: with `make test-slow`.
SLOW = ("bias", "another mass", "more friction in the joints")
FAULTS = {
    "swapped elements": (sense(velocity=lambda v, _: v[::-1].copy()), "swap", (X, Y), None),
    "wrong sign": (sense(velocity=lambda v, _: v * [1, -1]), "sign", (Y,), None),
    "wrong scale": (
        sense(position=lambda v, _: v * 1.1),
        "scale",
        ("position.x", "position.y"),
        (1.1, 0.005),
    ),
    "bias": (sense(velocity=lambda v, _: v + np.array([0.05, 0])), "bias", (X,), (0.05, 0.005)),
    "noise": (
        sense(velocity=lambda v, rng: v + 0.05 * rng.normal(size=2)),
        "noise",
        (X, Y),
        (0.05, 0.01),
    ),
    "wrong frame": (
        sense(velocity=lambda v, _: turned(0.5) @ v),
        "turn",
        (X, Y),
        (0.5, 0.02),
    ),
    "stale sensor": (Wrong(frozen={"odom": 0.12}), "stale", ("odom",), (0.12, 0.06)),
    "dropout": (Wrong(dropped={"odom": 0.2}), "lost", ("odom",), (0.2, 0.05)),
    "delay in the sensor": (Wrong(sensor_delay={"odom": 0.02}), "late", ("odom",), (0.02, 0.002)),
    "delay in actuation": (Wrong(actuation_delay=0.02), "delay", ("odom",), (0.02, 0.002)),
    # 20 % of gain within 3 %.
    "weak actuator": (
        Wrong(command=lambda c: c * [0.8, 1]),
        "gain",
        BOTH[:1],
        (0.8, 0.024),
    ),
    "saturated actuator": (
        Wrong(command=lambda c: np.clip(c, [-1, -0.5], [1, 0.5])),
        "ceiling",
        BOTH[1:],
        (0.5, 0.03),
    ),
    # Mass within 10 %.
    "another mass": (scaled("body_mass", "body_inertia", by=2.0), "mass", (), (2.0, 0.2)),
    "more friction in the joints": (scaled("dof_damping", by=8.0), "damping", (), (8.0, 0.8)),
    "commands in another frame": (
        Wrong(command=lambda c: turned(0.5) @ c),
        "turned_command",
        BOTH,
        (0.5, 0.05),
    ),
    "swapped actuators": (Wrong(command=lambda c: c[::-1].copy()), "crossed", BOTH, None),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in FAULTS],
)
def test_the_right_cause_is_named_first(moving, name):
    wrong, kind, where, number = FAULTS[name]
    gap = found(moving, drive(moving, wrong, seed=1))
    first = gap.findings[0]
    assert (first.kind, first.where) == (kind, where), gap.verdict
    if number is not None:
        assert first.value == pytest.approx(number[0], abs=number[1])
    assert ": " in gap.verdict[0]  # and what to do


def test_a_delay_that_the_stamps_hide_is_not_said_to_be_in_one_place(moving):
    gap = found(moving, drive(moving, Wrong(filter_delay={"odom": 0.02}), seed=1, sessions=3))
    assert gap.findings[0].kind == "delay"
    assert "cannot be told apart" in gap.verdict[0]
    assert gap.findings[0].value == pytest.approx(0.02, abs=0.002)
    by_name = {m.element.name: m for m in gap.measures}
    assert by_name[X].lag == pytest.approx(0.02, abs=0.004)


def test_two_faults_are_both_found(moving):
    wrong = sense(velocity=lambda v, _: v * [1, -1], position=lambda v, _: v * 1.1)
    gap = found(moving, drive(moving, wrong, seed=1))
    assert {(f.kind, f.where[0]) for f in gap.findings[:2]} == {
        ("sign", Y),
        ("scale", "position.x"),
    }
    assert max(m.nrmse for m in gap.explained if m.element.moves) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wrong sign", "delay in actuation", "weak actuator"])
def test_the_right_cause_is_named_first_where_ticks_come_unevenly(moving, name):
    wrong, kind, where, number = FAULTS[name]
    first = found(moving, drive(moving, wrong, seed=1, jitter=0.01)).findings[0]
    assert (first.kind, first.where) == (kind, where)
    if number is not None:
        assert first.value == pytest.approx(number[0], abs=number[1])


@pytest.mark.slow
def test_ticks_that_the_recorder_hears_unevenly_are_named_where_they_show(moving):
    """The commands acted in time; the recording has them up to 20 ms late."""
    gap = found(moving, drive(moving, seed=1, sessions=2, hears=0.01))
    assert gap.findings[0].kind == "unexplained"
    assert "off their period" in gap.verdict[0]
    assert "the model lacks" not in gap.verdict[0]


@pytest.mark.slow
def test_a_jump_is_sudden_and_a_way_apart_is_none():
    apart = np.array([0, 1, 2, 3, 4, 5, 6, 7.0])  # grows, and the window ends
    spike = np.array([0, 0, 9, 0, 0, 0, 0, 0.0])
    gone = np.array([0, 0, 0, 9, 9, 9, 0, 0.0])  # for a while
    begun = np.array([9, 9, 0, 0, 0, 0, 0, 0.0])  # since before the window
    recorded = np.concatenate([apart, spike, gone, begun])
    window, time = np.repeat(np.arange(4), 8), np.tile(np.arange(8.0), 4)
    jolts = np.where((time == 5) & (window == 0), 10.0, 0.0)  # elsewhere: it can do that
    for simulated, expected in ((0 * recorded, [0, 1, 3, 2]), (jolts, [0, 0, 0, 0])):
        for order in (np.arange(32), np.random.default_rng(0).permutation(32)):
            values = np.stack([recorded, simulated])[:, order]
            found = np.zeros(32, bool)
            found[order] = sudden(values[0] > 3.5, values, 1.75, window[order], time[order])
            assert found.reshape(4, 8).sum(axis=1).tolist() == expected


@pytest.mark.slow
def test_zeros_for_lost_readings_are_jumps_and_nothing_else(moving):
    wrong = sense(velocity=lambda v, rng: v * (rng.random() > 0.03))
    gap = found(moving, drive(moving, wrong, seed=1))
    causes = [f for f in gap.findings if f.rank == 1]
    assert causes
    assert {f.kind for f in causes} == {"outliers"}


# With sim parameters -----------------------------------------------------------------------------

DRIVES = {"gain_factor": 0.8, "command_factor": 0.9, "delay_s": 0.04}
HIDDEN = {
    "physics": {"payload_kg": 8.0, "damping_factor": 1.5},
    "actuators": {"drive_x": DRIVES, "drive_y": DRIVES},
    "sensors": {
        "position": {"delay_s": 0.06, "scale": 1.05, "bias": 0.1},
        "velocity": {"delay_s": 0.06, "element_bias": [0.1, -0.1]},
    },
}


def driven_in(sim_params, moving, folder):
    """A sim-parameter file, and a robot that drove in it."""
    path = folder / "hidden.yaml"
    path.write_text(yaml.safe_dump({"schema": 2, **sim_params}))
    sim_params = load_sim_params(str(path), load_robot("omni"))
    return str(path), synthesize_recording(moving, sim_params, sessions=2, seed=3)


@pytest.fixture(scope="module")
def hidden(moving, tmp_path_factory):
    return driven_in(HIDDEN, moving, tmp_path_factory.mktemp("hidden"))


@pytest.mark.slow
def test_a_sim_params_leaves_no_gap_of_a_robot_that_drove_in_it(moving, hidden):
    path, signals = hidden
    nominal = analyze_signals(moving, [signals], [])
    assert "mass" in {f.kind for f in nominal.findings}
    assert nominal.to_dict()["sim_params"] is None
    gap = analyze_signals(moving, [signals], [], sim_params=path)
    assert gap.verdict == [NO_GAP]
    assert gap.to_dict()["sim_params"] == path
    assert max(m.nrmse for m in gap.measures if m.element.moves) < 0.02
    for line in gap.closed_loop_returns:  # the same starts, the same sim parameters
        np.testing.assert_array_equal(line.robot, line.simulation)


@pytest.mark.slow
def test_noise_of_a_sim_params_is_declared_noise(moving, tmp_path):
    path, signals = driven_in({"sensors": {"velocity": {"noise": 0.06}}}, moving, tmp_path)
    assert analyze_signals(moving, [signals], []).findings
    assert analyze_signals(moving, [signals], [], sim_params=path).verdict == [NO_GAP]


def test_a_window_starts_where_the_sensors_of_a_sim_params_say(moving, hidden):
    path, signals = hidden
    sim_params = load_sim_params(path, load_robot("omni"))
    windows = make_windows(signals, plan_for(moving.interface), moving.interface)
    family, _ = resolve_task(moving, moving.manifest.masters["goal-0"].task_id)
    on_time = {k: replace(s, delay_s=(0.0, 0.0)) for k, s in sim_params.sensors.items()}
    sim_params = replace(sim_params, sensors=on_time)
    open_loop = OpenLoopReplay(
        load_robot("omni"), moving.interface, family, lambda _: None, sim_params=sim_params
    )
    prediction, later = open_loop.follow(windows), np.flatnonzero(~windows.rest)
    begin = np.full(len(later), -float(windows.plan.before))
    for term in ("position", "velocity"):
        shown = prediction.at(term, later, begin)
        np.testing.assert_allclose(shown, windows.start[term][later], atol=1e-6)


def test_what_a_sim_params_names_must_be_there(moving, hidden):
    _, signals = hidden
    with pytest.raises(UserError, match=r"no sim parameters 'slwo'.*slow.*or a file"):
        analyze_signals(moving, [signals], [], sim_params="slwo")


def test_a_sim_params_of_a_body_that_is_none_is_refused(moving, hidden, tmp_path):
    path = tmp_path / "other.yaml"
    path.write_text("schema: 2\nphysics: {body_mass_factors: {tail: 2.0}}\n")
    with pytest.raises(UserError, match="no body 'tail'"):
        analyze_signals(moving, [hidden[1]], [], sim_params=str(path))


# A robot that does not forget --------------------------------------------------------------------

ON_LEGS = {
    "nothing": (None, f"{NO_GAP} in what could be compared"),
    "a wrong sign": (
        sense(hip=lambda v, rng: v * [-1, 1, 1, 1]),
        "hip.hip_front_left has the wrong sign",
    ),
    "another mass": (
        scaled("body_mass", "body_inertia", by=1.3),
        r"the robot moves as if it had 1\.(2[5-9]|3\d?) times its mass",
    ),
    "late": (
        Wrong(actuation_delay=0.025),
        r"the robot follows its commands 2[0-9] ms late",
    ),
}


def test_in_lockstep_a_robot_on_legs_begins_in_its_own_orientation():
    """Which a derived term shows: tilt of what a quaternion measures."""
    bundle = load_bundle("ant_bandits")
    signals = synthesize_recording(bundle, None, sessions=1, seed=3, lockstep=True, ticks=160)
    gap = analyze_signals(bundle, [signals], [])
    assert gap.findings == []
    shown = {m.element.name: m.usual / m.element.size for m in gap.measures if m.element.moves}
    assert any(name.startswith("orientation") for name in shown)
    assert max(shown.values()) < 0.01, shown


@pytest.mark.parametrize("lockstep", [True, False])
def test_legs_whose_velocity_no_sensor_shows_are_not_compared(lockstep, tmp_path):
    """The velocity of a Go2's base is unknown where a window begins."""
    bundle = load_bundle("go2_walk")
    signals = synthesize_recording(
        bundle, None, sessions=1, seed=3, lockstep=lockstep, ticks=400, every=2
    )
    gap = analyze_signals(bundle, [signals], [])
    assert gap.measures == []
    assert gap.verdict == ["nothing found in messages and timing; the motion was not compared"]
    (note,) = [note for note in gap.notes if "the motion is not compared" in note]
    assert "depends on the velocity of root" in note
    assert gap.to_dict()["worst"]["nrmse"] is None  # no gate on it passes
    with pytest.raises(UserError, match=r"^robot 'go2': "):
        identify(bundle, [signals])


@pytest.mark.slow
def test_an_angle_that_its_velocity_contradicts_is_named():
    """Without a simulation: a window that begins in such a pose stands on air."""
    bundle = load_bundle("ant_bandits")
    wrong = sense(ankle=lambda v, rng: v * [1, 1.3, 1, 1])
    signals = Robot(bundle, wrong, seed=1).drive("right", sessions=1, ticks=120).signals()
    seen = {each.name: each for each in angles(bundle.interface, [signals])}
    assert len(seen) == 8  # hips and ankles
    assert seen.pop("ankle.ankle_front_right").ratio == pytest.approx(1.3, rel=0.02)
    for each in seen.values():
        assert each.ratio == pytest.approx(1.0, rel=0.02)
        assert each.correlation > 0.99
    (named,) = from_angles(angles(bundle.interface, [signals]))
    assert re.match(r"ankle.ankle_front_right turns 1\.\d\d times as far", str(named))


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_LEGS)
def test_a_robot_on_legs_is_told_from_its_contacts(name):
    """After a contact that comes a moment early it goes another way: that is no fault."""
    bundle, (wrong, words) = load_bundle("ant_bandits"), ON_LEGS[name]
    robot = Robot(bundle, wrong, seed=1).drive("right", sessions=1, ticks=160)
    verdict = found(bundle, robot).verdict
    assert re.match(words, verdict[0]), verdict
