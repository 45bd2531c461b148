"""The tick engine, its guard and the watchdog: laws and arithmetic, without ROS or time."""

import gc
import math
import os
import queue
import re
import threading
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mlsh_ros.bringup.params import SKILL_NODE
from mlsh_ros.control.clock import (
    FASTEST,
    HOLD,
    TOO_LONG,
    Clock,
    SimulatedClock,
    read_together,
    steady_time,
)
from mlsh_ros.control.command_gate import CommandGate
from mlsh_ros.control.controller import Controller, Tick
from mlsh_ros.control.diagnostics import DiagnosticLevel, Refused, diagnose
from mlsh_ros.control.faults import FAULTS, FaultError
from mlsh_ros.control.loop import ControlLoop
from mlsh_ros.control.realtime import gc_disabled, set_realtime_priority
from mlsh_ros.control.safety_monitor import (
    WINDOW,
    SafetyMonitor,
    SafetyRules,
    TrackingCheck,
)
from mlsh_ros.control.sensor_buffer import Sample, SensorBuffer
from mlsh_ros.control.session import Session
from mlsh_ros.control.skill_schedule import SkillSchedule
from mlsh_ros.control.supervisor import State, Status, Supervisor
from mlsh_ros.control.tick_schedule import TickSchedule
from mlsh_ros.control.timing import KEPT, TickTiming
from mlsh_ros.control.waker import Waker
from mlsh_ros.control.watchdog import PERIOD, Watchdog
from sim.interface import Tracking, interface_from_dict, interface_to_dict

RULES = SafetyRules(max_late_decisions=2, max_missed_ticks=3, max_switches=10, max_clock_jump=0.1)
DT = 0.1


def test_the_safety_page_lists_every_fault_with_its_meaning():
    page = (Path(__file__).parents[2] / "docs" / "safety.md").read_text()
    listed = re.findall(r"^\| `([a-z_]+)` \| (.*?) \|", page, re.M)
    assert listed == list(FAULTS.items())


# Grid -------------------------------------------------------------------------------------------


def test_the_grid_does_not_drift():
    grid = TickSchedule(0.1, start=1000.0)
    for _ in range(100_000):
        assert grid.advance(grid.due) == 0
    # A running sum of 0.1 is off by about 2e-8 here.
    assert grid.due == 1000.0 + 100_000 * 0.1


def test_a_late_tick_shifts_nothing_and_missed_ones_are_counted_not_caught_up():
    grid = TickSchedule(0.1, start=0.0)
    # Tick 0 took 0.14 s: tick 1 at 0.1 can still begin in the first half of its period.
    assert grid.advance(0.14) == 0
    assert grid.due == pytest.approx(0.1)
    # It ended at 0.26: tick 2 (0.2) is too late, tick 3 (0.3) is next.
    assert grid.advance(0.26) == 1
    assert grid.due == pytest.approx(0.3)
    # It ended at 1.03: 4 .. 9 are gone, 10 began 0.03 ago.
    assert grid.advance(1.03) == 6
    assert grid.due == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(5))
def test_every_moment_of_the_grid_is_a_tick_or_counted_and_none_comes_in_a_burst(seed):
    rng = np.random.default_rng(seed)
    grid, now, ticks, missed, last = TickSchedule(DT, 0.0), 0.0, 0, 0, -1.0
    for _ in range(2000):
        now = max(now, grid.due)  # sleeps until then
        assert now - last >= DT / 2 - 1e-9 or ticks == 0
        last = now
        ticks += 1
        now += rng.exponential(0.08)
        missed += grid.advance(now)
    assert ticks + missed == round(grid.due / DT)


# Guard ------------------------------------------------------------------------------------------


@pytest.fixture
def guard(bundle):
    return SafetyMonitor(bundle.interface, bundle.manifest.skills, {}, RULES)


def tick(number=1, skill=0, command=(0.0, 0.0), late=False, decides=False):
    command = np.array(command)
    return Tick(number, skill, np.zeros(8, np.float32), command, command, False, decides, late)


def fields(velocity=(0.0, 0.0)):
    return {
        "position": np.zeros(2),
        "velocity": np.array(velocity),
        "goals": np.zeros(4),
    }


def fault(name, match=""):
    return pytest.raises(FaultError, match=f"^{name}: .*{match}")


def test_a_value_beyond_its_limit_stops_the_robot_and_is_named(guard):
    guard.check(tick(), fields((1.3, -1.3)), 0.0)  # at the limit of omni's robot.yaml
    with fault("limit", r"velocity.1 is -1.31 m/s, skill 'skill-0' may see -1.3 to 1.3"):
        guard.check(tick(), fields((0.0, -1.31)), 0.0)


def test_a_skill_may_have_limits_of_its_own(bundle):
    own = {"skill-1": {"velocity": (-2.0, 2.0), "position": (-1.0, 1.0)}}
    guard = SafetyMonitor(bundle.interface, bundle.manifest.skills, own, RULES)
    fast = fields((1.9, 0.0))
    guard.check(tick(skill=1), fast, 0.0)
    with fault("limit", "velocity.0"):
        guard.check(tick(skill=0), fast, 0.0)
    away = {**fields(), "position": np.array([0.0, 1.5])}
    guard.check(tick(skill=0), away, 0.0)
    with fault("limit", "position.1 is 1.5 m, skill 'skill-1'"):
        guard.check(tick(skill=1), away, 0.0)


@pytest.mark.parametrize(("frame", "stops"), [("joint", False), ("base_link", True)])
def test_joints_are_tracked_each_by_itself_and_a_vector_as_a_whole(bundle, frame, stops):
    """A robot that walks is far from its targets with one leg after the other."""
    term = replace(
        bundle.interface.action[0], frame=frame, tracking=Tracking("velocity", 0.2, 0.25)
    )
    check = TrackingCheck(term, replace(bundle.interface, action=(term,)))
    for n in range(8):  # 0.2 s the first one, then 0.2 s the second one
        shown = np.where([n // 2 % 2 == 0, n // 2 % 2 == 1], 0.5, 0.0)
        if stops and n == 3:
            with fault("tracking", r"base_velocity.1 is commanded 0 m/s, .* for 0.30 s"):
                check.check(np.zeros(2), {"velocity": shown}, 0.1 * n)
            return
        check.check(np.zeros(2), {"velocity": shown}, 0.1 * n)
    for n in range(8, 11):  # one that stays away
        check.check(np.zeros(2), {"velocity": np.array([0.5, 0.0])}, 0.1 * n)
    with fault("tracking", r"base_velocity.0 is commanded 0 m/s, .* for 0.30 s"):
        check.check(np.zeros(2), {"velocity": np.array([0.5, 0.0])}, 1.1)


def test_tracking_is_measured_against_the_command_of_the_tick_before(bundle):
    term = replace(bundle.interface.action[0], tracking=Tracking("velocity", 0.2, 0.25))
    guard = SafetyMonitor(
        replace(bundle.interface, action=(term,)), bundle.manifest.skills, {}, RULES
    )
    stuck, driving = fields((0.0, 0.0)), fields((0.9, 0.0))
    guard.check(tick(command=(1.0, 0.0)), stuck, 0.0)  # nothing was commanded before
    guard.check(tick(command=(1.0, 0.0)), stuck, 0.1)  # away since 0.1
    guard.check(tick(command=(1.0, 0.0)), driving, 0.2)  # it moves: forgiven
    guard.check(tick(command=(1.0, 0.0)), stuck, 0.3)  # away since 0.3
    guard.check(tick(command=(1.0, 0.0)), stuck, 0.5)  # for 0.2 s
    with fault("tracking", r"base_velocity.0 is commanded 1 m/s, velocity.0 shows 0 for 0.30 s"):
        guard.check(tick(command=(1.0, 0.0)), stuck, 0.6)
    guard.begin_session()
    guard.check(tick(command=(1.0, 0.0)), stuck, 0.7)
    guard.check(tick(command=(1.0, 0.0)), stuck, 0.8)  # a new session holds nothing against it


def test_an_interruption_between_two_clocks_is_no_jump_of_one():
    """A thread that is held up after it has read the first of them."""
    times = iter([1.0, 1.2, 1.2, 1.2, 1.2005])
    stamps = iter([101.2, 101.2])
    clock = Clock(now=lambda: next(times), system=lambda: next(stamps))
    assert read_together(clock) == (1.2, 101.2)
    assert read_together(Clock(now=lambda: 2.0, system=None)) == (2.0, None)


def test_the_steady_time_counts_while_the_computer_is_suspended():
    """`time.monotonic` does not, and the robot is not suspended with it."""
    suspended = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    assert steady_time() - time.monotonic() == pytest.approx(suspended, abs=0.1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "clock_gettime", {time.CLOCK_BOOTTIME: 600.0}.__getitem__)
        assert Clock().now() == Clock().steady() == SimulatedClock(threading.Condition()).steady()
        assert steady_time() == 600.0


def test_missed_ticks_in_a_row_stop_the_robot_single_ones_do_not(guard):
    for _ in range(10):
        guard.check_timing(0.0, None, 1)
        guard.check_timing(0.0, None, 0)
    guard.check_timing(0.0, None, 2)
    late = "3 of 4 ticks of 0.1 s were missed and the others came late, 3 without one in time"
    with fault("deadline", late):
        guard.check_timing(0.0, None, 1)
    guard.begin_session()
    with fault("deadline", "3 ticks of 0.1 s in a row were missed"):
        guard.check_timing(0.0, None, 3)
    guard.begin_session()
    with fault("deadline"):
        guard.check_timing(0.0, None, 3)  # in one piece


def test_a_jump_of_the_clock_stops_the_robot_slow_drift_does_not(guard):
    for n in range(100):  # 1 % fast, as when it is being slewed
        guard.check_timing(n * DT, 5.0 + n * DT * 1.01, 0)
    guard.begin_session()
    guard.check_timing(0.0, 100.0, 0)
    with fault("clock_jumped", r"moved by -0.900 s within a tick, at most 0.1 s"):
        guard.check_timing(0.1, 99.2, 0)
    guard.begin_session()
    guard.check_timing(0.0, None, 0)  # not compared
    guard.check_timing(0.1, None, 0)


def test_late_decisions_in_a_row_stop_the_robot(guard):
    for late in (True, True, False, True, True):
        guard.check(tick(decides=True, late=late), fields(), 0.0)
        guard.check(tick(), fields(), 0.0)
    with fault("master_silent", "3 decisions in a row"):
        guard.check(tick(decides=True, late=True), fields(), 0.0)


def test_chatter_is_counted_over_a_window_of_decisions(bundle):
    rules = replace(RULES, max_switches=4)
    guard = SafetyMonitor(bundle.interface, bundle.manifest.skills, {}, rules)
    for _ in range(5):  # 4 switches, then quiet for a window, again and again
        for skill in (0, 1, 0, 1, 0):
            guard.check(tick(skill=skill, decides=True), fields(), 0.0)
        for _ in range(WINDOW):
            guard.check(tick(skill=0, decides=True), fields(), 0.0)
    for skill in (1, 0, 1, 0):
        guard.check(tick(skill=skill, decides=True), fields(), 0.0)
    with fault("skill_chatter", "5 switches in 10 decisions, at most 4"):
        guard.check(tick(skill=1, decides=True), fields(), 0.0)


# Loop -------------------------------------------------------------------------------------------


class Bench:
    """A loop in a world where time passes only when somebody sleeps or works."""

    def __init__(self, bundle, *, system=None, work=lambda n: 0.0, answer=True):
        self.time = 0.0
        self.work, self.answers = work, answer
        self.sent, self.told, self.asked = [], [], []
        manifest = bundle.manifest
        # Never the same command twice, so that it shows which one was sent.
        skills = [lambda o: np.full((1, 2), 0.3 + 0.1 * np.sin(self.time), np.float32)] * 2
        self.controller = Controller(
            bundle.interface, skills, manifest.decision_ticks, manifest.decision_lead
        )
        self.sensors = SensorBuffer(bundle.interface)
        self.stop = threading.Event()
        self.stop.wait = self.sleep
        self.loop = ControlLoop(
            self.controller,
            self.sensors,
            SafetyMonitor(bundle.interface, manifest.skills, {}, RULES),
            self,
            threading.Condition(),
            self.stop,
            start_timeout=0.05,
            clock=Clock(now=lambda: self.time, system=system, sleep=self.sleep),
        )
        self.last = 50  # ticks until it is told to stop
        self.refuses = False  # commands, as after an emergency stop
        self.frozen = None  # s, when the sensors fall silent
        self.see()

    def sleep(self, seconds):
        self.time += max(seconds, 1e-9)  # as a real one, never nothing
        self.see()

    def see(self):
        if self.frozen is not None and self.time >= self.frozen:
            return
        velocity = self.sent[-1][1] if self.sent else np.zeros(2)
        sample = {"position": np.zeros(2), "velocity": velocity}
        stamp = round(self.time * 1e9) + 1
        self.sensors.put("odom", Sample(sample, self.time, stamp))
        self.sensors.put("goals", Sample({"goals": np.zeros(4)}, self.time, stamp))

    def request_decision(self, request):
        self.asked.append(request.macro)
        if self.answers:
            self.controller.schedule.set_decision(request.macro, 0)

    def begin_session(self, initial):
        self.initial = initial

    def send_command(self, command, stamp=None, before=lambda: None):
        self.time += self.work(len(self.sent))
        if self.refuses:
            self.stop.set()
            return False
        self.sent.append((self.time, command))
        if len(self.sent) == self.last:
            self.stop.set()
        return True

    def publish_tick(self, done):
        self.told.append(done)


def test_ticks_stand_on_the_grid_whatever_they_cost(bundle):
    rng = np.random.default_rng(0)
    cost = rng.uniform(0.0, 0.6 * DT, 1000)
    bench = Bench(bundle, work=lambda n: cost[n])
    bench.last = 1000
    bench.loop.run()
    begun = np.array([t - cost[n] for n, (t, _) in enumerate(bench.sent)])
    np.testing.assert_allclose(begun, np.arange(1000) * DT, atol=1e-9)
    assert [d.missed for d in bench.told] == [0] * 1000
    assert max(d.lateness for d in bench.told) < 1e-9
    np.testing.assert_allclose([d.compute for d in bench.told], cost, atol=1e-9)


def test_an_overrun_is_counted_and_the_grid_goes_on(bundle):
    bench = Bench(bundle, work=lambda n: 0.23 if n == 10 else 0.0)
    bench.last = 15
    bench.loop.run()
    # Tick 10 began at 1.0 and ended at 1.23: 1.1 and 1.2 are gone, but 1.2 began only 0.03 ago.
    assert [d.missed for d in bench.told][10:13] == [0, 1, 0]
    assert bench.told[11].lateness == pytest.approx(0.03)
    assert bench.sent[12][0] == pytest.approx(1.3)


def test_a_sleep_that_takes_too_long_is_an_overrun_too(bundle):
    bench = Bench(bundle)
    calm = bench.sleep

    def sleep(seconds):
        calm(seconds + 0.4 * (len(bench.sent) == hang))

    hang = 5
    bench.stop.wait = sleep
    with fault("deadline", "4 ticks of 0.1 s in a row"):
        bench.loop.run()
    assert len(bench.sent) == hang


def test_three_ticks_missed_in_a_row_are_a_fault_and_nothing_more_is_sent(bundle):
    bench = Bench(bundle, work=lambda n: 0.45 if n == 10 else 0.0)
    with fault("deadline"):
        bench.loop.run()
    assert len(bench.sent) == 11


@pytest.mark.parametrize("at", [0.35, 1.0])
def test_silent_sensors_stop_the_robot_within_max_age_and_a_tick(bundle, at):
    bench = Bench(bundle)
    bench.frozen = at
    with fault("sensors_stale", "odom"):
        bench.loop.run()
    assert bench.time <= at + 0.3 + DT + 1e-9  # max_age of odom is 0.3 s
    assert bench.sent[-1][0] <= at + 0.3 + 1e-9


@pytest.mark.parametrize(
    ("offset", "said"), [(0.5, "stamped 0.50 s ago"), (-0.5, "stamped 0.50 s ahead")]
)
def test_stamps_from_another_time_are_stale(bundle, offset, said):
    bench = Bench(bundle, system=lambda: bench.time + offset)
    with fault("sensors_stale", said):
        bench.loop.run()
    assert bench.sent == []


def test_a_sample_that_grew_old_before_the_first_tick_is_followed_by_a_newer_one(bundle):
    """The thread may be held up between the start and its first look at the sensors."""
    bench = Bench(bundle)
    bench.loop.start_timeout = 5.0
    bench.time = 0.52  # max_age of odom is 0.3 s
    assert bench.sensors.stale(bench.time)

    waits = []

    def follow(timeout):
        waits.append(timeout)
        bench.see()
        return True

    bench.loop.new_data.wait = follow  # while the loop waits, another thread brings a sample
    bench.loop.run()
    assert waits == [pytest.approx(5.0, abs=1.0)]
    assert len(bench.sent) == bench.last


def test_a_sample_that_is_old_at_the_start_and_stays_alone_is_a_fault(bundle):
    bench = Bench(bundle)
    bench.time = 0.52
    with fault("sensors_stale", "odom .0.52 s old, at most 0.3 s"):
        bench.loop.run()
    assert bench.sent == []


def test_nothing_is_sent_without_a_first_decision_or_sensors(bundle):
    bench = Bench(bundle, answer=False)
    bench.stop.wait = threading.Event().wait  # here real time passes
    bench.loop.clock = Clock(system=None)
    bench.time = time.monotonic()
    bench.see()
    bench.loop.start_timeout = 0.6
    with fault("master_silent", "no decision for tick 0 within 0.6 s"):
        bench.loop.run()
    assert bench.asked == [0, 0]  # and again every half a second
    bench.sensors.clear()
    with fault("sensors_missing", r"nothing usable within 0.6 s: odom \(never received\), goals"):
        bench.loop.run()
    assert bench.sent == []


def test_a_start_is_given_two_seconds():
    """After `start` a person waits for the robot to move; 5 s later nobody expects it."""
    (given,) = (param for param in SKILL_NODE if param.name == "start_timeout")
    assert given.default == 2.0
    page = (Path(__file__).parents[2] / "docs" / "safety.md").read_text(encoding="utf-8")
    assert "`start_timeout` (2 s by default) later" in page


def test_one_timeout_bounds_the_sensors_and_the_first_decision_together(bundle):
    bench = Bench(bundle, answer=False)
    bench.stop.wait = threading.Event().wait
    bench.loop.clock = Clock(system=None)
    bench.loop.start_timeout = 1.0
    bench.sensors.clear()

    def appear():
        with bench.loop.new_data:
            bench.time = time.monotonic()
            bench.see()
            bench.loop.new_data.notify_all()

    late = threading.Timer(0.8, appear)
    began = time.monotonic()
    late.start()
    with fault(
        "master_silent", "no decision for tick 0 within 1 s of the start, sensors included"
    ):
        bench.loop.run()
    assert 0.99 < time.monotonic() - began < 1.25
    late.join()
    assert bench.sent == []


def test_a_tick_whose_command_did_not_leave_is_not_told(bundle):
    bench = Bench(bundle, work=lambda n: setattr(bench, "refuses", n == 5) or 0.0)
    bench.loop.run()
    assert len(bench.sent) == len(bench.told) == 5


def test_a_limit_keeps_its_own_tick_from_being_sent(bundle):
    bench = Bench(bundle)
    see = bench.see

    def pushed():
        see()
        if len(bench.sent) == 7:
            sample = {"position": np.zeros(2), "velocity": np.array([2.0, 0.0])}
            bench.sensors.put("odom", Sample(sample, bench.time, round(bench.time * 1e9) + 2))

    bench.see = pushed
    with fault("limit", "velocity.0 is 2 m/s"):
        bench.loop.run()
    assert len(bench.sent) == 7


def test_a_stop_ends_the_session_without_another_command(bundle):
    bench = Bench(bundle)
    bench.last = 5
    bench.loop.run()
    assert len(bench.sent) == 5


def test_no_switch_moves_the_command_by_more_than_the_rate_limit(bundle):
    rng = np.random.default_rng(0)
    interface = bundle.interface
    # Two skills that want opposite things, ten times as much as the robot may.
    skills = [
        lambda o: np.full((1, 2), 10.0, np.float32),
        lambda o: np.full((1, 2), -10.0, np.float32),
    ]
    controller = Controller(interface, skills, 1, 0)
    rate = np.array([t.rate_limit for t in interface.action for _ in range(t.size)]) * DT
    before, largest, switches, last = controller.command, 0.0, 0, None
    values = fields()
    while switches < 10_000:
        request = controller.observe(values)
        controller.schedule.set_decision(request.macro, int(rng.integers(2)))
        done = controller.act()
        largest = max(largest, np.abs((done.command - before) / rate).max())
        switches += last is not None and done.skill != last
        before, last = done.command, done.skill
    assert controller.schedule.switches == switches
    assert 0.99 < largest <= 1 + 1e-12  # reached, and never exceeded


# Timing and diagnostics -------------------------------------------------------------------------


def test_percentiles_are_of_the_newest_ticks_and_counters_of_all():
    timing = TickTiming()
    assert np.isnan(timing.summary().lateness).all()
    for n in range(3 * KEPT):
        timing.add(n * 1e-6, 1e-3, missed=n % 2, late=n == 5, saturated=False)
    summary = timing.summary()
    assert (summary.ticks, summary.missed, summary.late_decisions) == (3 * KEPT, 1500, 1)
    # 2000 .. 2999 us: median 2499.5, 99th percentile 2989.01, largest 2999
    np.testing.assert_allclose(summary.lateness, np.array([2499.5, 2989.01, 2999]) * 1e-6)
    timing.clear()
    assert timing.summary().ticks == 0


def test_diagnostics_say_what_is_wrong_in_words(bundle):
    hierarchy = SkillSchedule(10, 1, 2)
    timing = TickTiming()

    def found(status=None, ages=None, refused=None):
        status = status or Status(State.RUNNING)
        ages = {"odom": 0.01, "goals": 0.2} if ages is None else ages
        findings = diagnose(
            status,
            timing.summary(),
            bundle.interface,
            ages,
            bundle.manifest.skills,
            hierarchy,
            refused or {},
        )
        return {f.name: f for f in findings}

    assert {f.level for f in found().values()} == {DiagnosticLevel.OK}
    for name in FAULTS:
        state = found(Status(State.FAULT, name, "what was seen"))["state"]
        assert (state.level, state.values["meaning"]) == (DiagnosticLevel.ERROR, FAULTS[name])
    assert found(ages={"odom": 0.4})["sensors"].message == "silent: odom, goals"
    refused = found(refused={"odom": Refused(3, "odom: why")})["sensors"]
    assert (refused.level, refused.message) == (DiagnosticLevel.WARN, "refused: odom")
    assert refused.values["odom refused"] == "3"
    assert refused.values["odom refused last"] == "odom: why"
    timing.add(0.001, 0.0005, missed=2, late=True, saturated=True)
    hierarchy.set_decision(0, 1)
    hierarchy.skill(0)
    ticks, decisions = found()["ticks"], found()["decisions"]
    assert (ticks.level, ticks.message) == (DiagnosticLevel.WARN, "2 of 3 ticks missed")
    assert ticks.values["lateness p99 (ms)"] == "1.000"
    assert (decisions.level, decisions.values["skill"]) == (DiagnosticLevel.WARN, "skill-1")


# The operating system ----------------------------------------------------------------------------


def test_no_garbage_is_collected_inside_whatever_happens():
    with suppress(KeyError), gc_disabled():
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()


def test_what_the_system_refuses_is_said_with_what_to_do(monkeypatch):
    assert set_realtime_priority(0, -1) == []

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    (line,) = set_realtime_priority(80, -1)
    assert line.startswith("realtime_priority 80: Operation not permitted; it needs CAP_SYS_NICE")
    (line,) = set_realtime_priority(0, 1023)
    assert line.startswith("cpu 1023: Invalid argument. Valid: ")


# Simulated time ---------------------------------------------------------------------------------


STEP = 0.02  # s that a word of the simulator moves time by
SHORT = 0.15  # s of the system's clock that it may stand here


class Simulated:
    """A bench whose time somebody else tells, while the loop runs in a thread of its own."""

    def __init__(self, bundle, start=0.0, patience=SHORT):
        self.bench = Bench(bundle)
        bench = self.bench
        bench.time = start
        bench.stop.wait = threading.Event().wait
        self.clock = SimulatedClock(bench.loop.new_data, patience=patience)
        bench.loop.clock = self.clock
        self.raised = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        try:
            self.bench.loop.run()
        except FaultError as error:
            self.raised = error

    def begin(self, moment):
        """The first tick is at that moment."""
        self.tell(moment)
        self.thread.start()
        self._await(1)

    def tell(self, moment, ticks=0):
        """It is that late; returns when that many ticks are done."""
        self.bench.time = moment
        self.bench.see()
        self.clock.set_time(moment)
        self._await(ticks)

    def _await(self, ticks):
        deadline = time.monotonic() + 2.0
        while len(self.bench.told) < ticks and self.thread.is_alive():
            assert time.monotonic() < deadline, self.raised
            time.sleep(0.0005)

    def ended(self):
        self.thread.join(timeout=2.0)
        assert not self.thread.is_alive()
        return self.raised


def test_in_simulated_time_the_ticks_are_those_of_real_time(bundle):
    real = Bench(bundle)
    real.last = 20
    real.loop.run()
    simulated = Simulated(bundle)
    simulated.bench.last = 20
    simulated.begin(0.0)
    for n in range(1, 5 * 20):
        nanoseconds = round(n * STEP * 1e9)  # as a message says it
        simulated.tell(nanoseconds * 1e-9, ticks=n // 5 + 1)
    assert simulated.ended() is None
    times = [t for t, _ in simulated.bench.sent]
    np.testing.assert_allclose(times, [t for t, _ in real.sent], atol=1e-8)
    np.testing.assert_allclose(
        [c for _, c in simulated.bench.sent], [c for _, c in real.sent], atol=1e-8
    )
    assert [d.missed for d in simulated.bench.told] == [0] * 20
    assert max(abs(d.lateness) for d in simulated.bench.told) < 1e-6


def test_simulated_time_that_stands_stops_the_robot_within_patience(bundle):
    simulated = Simulated(bundle)
    simulated.begin(5.0)
    for n in range(1, 12):
        simulated.tell(5.0 + n * STEP, ticks=n // 5 + 1)
    sent, stood = len(simulated.bench.sent), time.monotonic()
    assert sent == 3
    # Sensors that go on are no excuse, nor is a clock that repeats itself.
    while simulated.thread.is_alive() and time.monotonic() < stood + 5 * SHORT:
        time.sleep(SHORT / 8)
        with simulated.bench.loop.new_data:
            simulated.bench.loop.new_data.notify_all()
        simulated.clock.set_time(5.0 + 11 * STEP)
    error = simulated.ended()
    assert time.monotonic() - stood < 2 * SHORT + 0.1
    assert error.name == "clock_stopped"
    assert error.detail.startswith("simulated time has stood at 5.220 s for 0.")
    assert len(simulated.bench.sent) == sent


def test_simulated_time_that_goes_back_stops_the_robot(bundle):
    simulated = Simulated(bundle)
    simulated.begin(5.0)
    for n in range(1, 12):
        simulated.tell(5.0 + n * STEP, ticks=n // 5 + 1)
    sent = len(simulated.bench.sent)
    for n in range(12):  # of another simulator, which has just begun
        simulated.tell(1.0 + n * STEP)
    error = simulated.ended()
    assert (error.name, error.detail) == ("clock_jumped", "simulated time went back by 4.220 s")
    assert len(simulated.bench.sent) == sent


@pytest.mark.parametrize(
    ("patience", "by", "name"),
    [(5.0, 4.0, "deadline"), (SHORT, 4.0, "clock_jumped"), (5.0, 1.79e9, "clock_jumped")],
)
def test_a_jump_of_simulated_time_stops_the_robot(bundle, patience, by, name):
    simulated = Simulated(bundle, patience=patience)
    simulated.begin(5.0)
    simulated.tell(5.1, ticks=2)
    sent = len(simulated.bench.sent)
    simulated.tell(5.1 + by)
    assert simulated.ended().name == name
    assert len(simulated.bench.sent) == sent


def test_time_that_was_not_heard_meanwhile_has_not_jumped():
    """As by a thread that stood still: at most as much as the fastest simulation does then."""
    seconds = [10.0]
    clock = SimulatedClock(threading.Condition(), patience=1.0, steady=lambda: seconds[0])
    clock.set_time(3.0)
    for pause, on in ((0.0, 0.9), (3.0, 60.0), (0.0, 0.9)):
        seconds[0] += pause
        clock.set_time(clock.now() + on)
        with clock._new_data:
            clock.wait(clock._new_data, clock.now() + 1.0, seconds[0], at_most=0.0)
    seconds[0] += 3.0
    clock.set_time(clock.now() + 62.0)
    with clock._new_data, fault("clock_jumped"):
        clock.wait(clock._new_data, clock.now() + 1.0, seconds[0], at_most=0.0)


@pytest.mark.parametrize("by", [0.9, 4.0, 1.79e9])
def test_a_jump_forward_makes_no_pause_of_braking_short(by):
    """A simulator that changes to the time since 1970, while the robot brakes."""
    new_data = threading.Condition()
    clock = SimulatedClock(new_data, patience=1.0)
    clock.set_time(3.0)
    time.sleep(0.21)  # the pace is taken anew
    clock.set_time(3.2 + by)
    began = time.monotonic()
    for _ in range(10):
        assert not clock.wait_for(0.1, new_data)
    assert time.monotonic() - began > 0.9 * 10 * 0.1 * TOO_LONG / FASTEST


def test_a_stop_ends_the_wait_for_a_time_that_stands(bundle):
    simulated = Simulated(bundle)
    simulated.begin(5.0)
    simulated.tell(5.02)
    simulated.bench.stop.set()
    with simulated.bench.loop.new_data:
        simulated.bench.loop.new_data.notify_all()
    assert simulated.ended() is None


def test_nothing_begins_by_a_clock_that_is_unknown_or_stands():
    new_data = threading.Condition()
    clock = SimulatedClock(new_data, patience=0.05)
    assert math.isnan(clock.now())
    assert str(clock.fault()) == "clock_stopped: nothing has come on /clock yet"
    clock.set_time(3.0)
    assert clock.fault() is None
    assert (clock.now(), clock.stamping()) == (3.0, None)
    clock.set_time(2.0)
    assert clock.fault() is None  # nothing moved; from now on it is what it is
    time.sleep(0.06)
    assert clock.fault().name == "clock_stopped"
    assert Clock().fault() is None


@pytest.mark.parametrize("state", ["unknown", "standing", "went back"])
def test_braking_goes_on_by_the_systems_clock_where_simulated_time_does_not(state):
    new_data = threading.Condition()
    clock = SimulatedClock(new_data, patience=0.05)
    if state != "unknown":
        clock.set_time(3.0)
    if state == "went back":
        clock.set_time(2.0)
    time.sleep(0.06)
    began = time.monotonic()
    for _ in range(3):
        assert not clock.wait_for(0.02, new_data)
    assert 0.06 <= time.monotonic() - began < 0.2
    assert clock.wait_for(9.0, new_data, lambda: True)


def test_a_pause_is_of_simulated_time_where_that_goes_on():
    new_data = threading.Condition()
    clock = SimulatedClock(new_data, patience=2.0)
    clock.set_time(3.0)
    teller = threading.Timer(0.05, clock.set_time, [3.5])
    teller.start()
    began = time.monotonic()
    assert not clock.wait_for(0.5, new_data)
    assert 0.04 < time.monotonic() - began < 0.4


def test_a_pause_goes_by_the_pace_of_before_where_nothing_is_heard():
    """As of skill_node while it serves `stop` in the thread that would hear the time."""
    moments = iter([10.0, 10.0, 10.3, 20.0, 20.0, 20.0])  # the system's; then it stands as well
    clock = SimulatedClock(new_data := threading.Condition(), steady=lambda: next(moments))
    clock.set_time(3.0)
    clock.set_time(4.5)  # five times as fast
    began = time.monotonic()
    with pytest.raises(StopIteration):  # awake after 1.5 times what half a second should take
        clock.wait_for(0.5, new_data)
    assert 0.14 < time.monotonic() - began < 0.5


def test_a_watchdog_waits_for_ever_at_rest_and_not_where_time_stands():
    new_data = threading.Condition()
    clock = SimulatedClock(new_data, patience=0.1)
    woken = threading.Timer(
        0.25, lambda: [new_data.acquire(), new_data.notify_all(), new_data.release()]
    )
    woken.start()
    with new_data:
        clock.wait(new_data, None)  # longer than its patience, and nothing is wrong
        heard = clock.steady()
        clock.wait(new_data, 1.0, heard)  # a command has just come: patience begins with it
        with fault("clock_stopped"):
            clock.wait(new_data, 1.0, heard)


def test_in_simulated_time_a_message_is_of_its_stamp_unless_that_is_of_another_clock():
    clock = SimulatedClock(threading.Condition())
    clock.set_time(50.0)
    assert clock.receive_time(49_500_000_000) == 49.5  # it was under way for long
    assert clock.receive_time(50_100_000_000) == 50.1  # it has overtaken /clock
    # A stamp ahead would keep its message young for so long.
    assert clock.receive_time(51_000_000_000) == 50.0
    assert clock.receive_time(0) == 50.0  # it has none
    assert clock.receive_time(1_790_000_000 * 10**9) == 50.0  # it is of the system's clock
    assert Clock(now=lambda: 3.0).receive_time(49_500_000_000) == 3.0


def test_time_that_crawls_stands():
    seconds = [10.0]
    clock = SimulatedClock(threading.Condition(), steady=lambda: seconds[0])
    for n in range(200):
        clock.set_time(50.0 + 1e-4 * 0.1 * n)
        seconds[0] += 0.1
    assert "simulated time has stood" in str(clock.fault())
    for n in range(20):  # slow, but it goes
        clock.set_time(60.0 + 0.1 * 0.1 * n)
        seconds[0] += 0.1
    assert clock.fault() is None


def test_a_hiccup_of_the_machine_is_held_against_nobody_in_simulated_time():
    seconds = [10.0]
    clock = SimulatedClock(threading.Condition(), steady=lambda: seconds[0])
    assert not clock.is_late(10.0)
    seconds[0] += 1.01 * HOLD
    assert clock.is_late(10.0)
    assert Clock().is_late(time.monotonic())  # on a robot every one counts


# Watchdog ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("widest", [1.0, 1e3, 1e6, 1e9])
def test_a_command_that_moves_is_no_rest_however_wide_its_limit_is(bundle, widest):
    """Who has no limit writes a wide one; what counts as rounding must not grow with it."""
    interface = bundle.interface
    (term,) = interface.action
    wide = replace(interface, action=(replace(term, limit=(-widest, widest)),))
    for moves in (1e-5, 0.01, 0.5):
        watchdog = Watchdog(wide, 0.25)
        watchdog.hear(np.array([moves, 0.0]), 0.0)
        assert not watchdog.at_rest
        assert watchdog.look(0.3)
        watchdog = Watchdog(wide, 0.25)
        watchdog.hear(np.array([0.5, 0.0]), 0.0)
        watchdog.emergency_stop(0.0)
        watchdog.hear(np.array([0.5 + moves, 0.0]), 0.26)
        assert "after an emergency stop" in watchdog.cause
    for rests in (0.0, float(np.float32(1e-9))):
        watchdog = Watchdog(wide, 0.25)
        watchdog.hear(np.array([rests, 0.0]), 0.0)
        assert watchdog.at_rest


def test_the_watchdog_trips_on_a_standing_command_and_brakes_by_the_rate_limit(bundle):
    watchdog = Watchdog(bundle.interface, 0.25)
    assert not watchdog.check(1e9)  # nothing has ever been commanded
    for n in range(10):
        watchdog.hear(np.array([0.8, -0.1]), n * DT)
        assert watchdog.deadline == pytest.approx(n * DT + 0.25)
        assert not watchdog.check(n * DT + 0.249)
    assert watchdog.check(0.9 + 0.25)
    assert watchdog.cause.startswith("command (0.8, -0.1) stood for 0.250 s")
    path = [watchdog.brake(1.15).copy()]
    watchdog.hear(np.array([1.0, 1.0]), 1.2)  # a zombie: latched
    path += [watchdog.brake(now).copy() for now in (1.25, 1.35)]
    # 5 m/s per s is 0.5 m/s per tick.
    np.testing.assert_allclose(path, [[0.3, 0.0], [0.0, 0.0], [0.0, 0.0]], atol=1e-12)
    assert watchdog.check(3.0)
    watchdog.reset()
    assert not watchdog.check(1e9)


def test_a_watchdog_brakes_from_what_came_before_its_first_command(bundle):
    """Its sender goes on until it hears of the trip: the robot has that command, too."""
    watchdog = Watchdog(bundle.interface, 0.25)
    watchdog.hear(np.array([0.8, 0.0]), 0.0)
    assert watchdog.check(0.25)
    watchdog.hear(np.array([1.0, 0.4]), 0.26)
    watchdog.hear(np.array([3.0, 0.0]), 0.27)  # beyond its limit: no command to brake from
    np.testing.assert_allclose(watchdog.brake(0.28), [0.9, 0.32])  # 0.02 s of 0.1 s
    assert watchdog.cause.startswith("command (0.8, 0) stood for 0.250 s")


@pytest.mark.parametrize("phase", [0.0, 1e-4, 0.003, 0.03, 0.07, 0.0999, 0.1, 0.17, np.nan])
@pytest.mark.parametrize("start", [[1.0, -0.4], [0.3, 0.9], [0.02, 0.0]])
@pytest.mark.parametrize("why", ["message", "stop", "stands"])
def test_over_any_trip_the_command_changes_no_faster_than_the_rate_limit(
    bundle, phase, start, why
):
    """Over the time that has passed, not by message: a trip comes at any moment."""
    interface, now = bundle.interface, 7.0
    rate = interface.rate_step / interface.control_dt
    watchdog = Watchdog(interface, 2.5 * DT)
    wire = [(now, np.array(start))]
    watchdog.hear(wire[0][1], now)
    if why == "message":
        watchdog.refuse("cmd_vel: the message cannot be read")
    elif why == "stop":  # and a command that ignores it
        watchdog.emergency_stop(now - 1.0)
        watchdog.hear(np.array([0.9, 1.0]), now)
        wire = [(now, np.array([0.9, 1.0]))]
    else:
        now += 2.5 * DT
    known = not np.isnan(phase)  # of simulated time nothing may be heard for a while
    assert watchdog.look(now)
    for tick in range(8):
        moment = now + (phase if known else DT) + tick * DT
        wire.append((moment, watchdog.brake(moment if known else np.nan)))
        (before, last), (after, command) = wire[-2:]
        changed = np.abs(command - last)
        assert (changed <= rate * (after - before) + 1e-9).all()
        away = np.abs(command - interface.safe_command)
        assert (away <= np.abs(last - interface.safe_command) + 1e-12).all()
    np.testing.assert_array_equal(wire[-1][1], interface.safe_command)
    # No more than one tick later than the rate limit permits.
    reached = next(t for t, c in wire if np.array_equal(c, interface.safe_command))
    fastest = float((np.abs(wire[0][1]) / rate).max())
    assert reached <= max(now + (phase if known else DT), wire[0][0] + fastest) + DT + 1e-9


def test_braking_goes_on_although_the_clock_stands(bundle):
    """As simulated time may: the steps after the first one are whole."""
    watchdog = Watchdog(bundle.interface, 0.25)
    watchdog.hear(np.array([0.8, 0.0]), 7.0)
    watchdog.refuse("cmd_vel: the message cannot be read")
    path = [watchdog.brake(7.0)[0] for _ in range(4)]
    np.testing.assert_allclose(path, [0.8, 0.3, 0.0, 0.0])


def test_a_watchdog_that_stood_still_brakes_from_where_the_robot_is(bundle):
    """Both processes stood still: the robot may have come to rest meanwhile."""
    for measured in (np.zeros(2), np.array([0.7, np.nan])):
        watchdog = Watchdog(bundle.interface, 0.25, measured=lambda m=measured: m)
        watchdog.hear(np.array([1.0, 0.6]), 0.0)
        assert not watchdog.look(600.0, late=599.9)
        assert watchdog.look(600.2)
        unknown = np.isnan(measured)  # a measurement of it may still come
        expected = np.where(unknown, np.nan, bundle.interface.brake(measured))
        np.testing.assert_allclose(watchdog.brake(600.2), expected)
        # And it goes on.
        for tick in range(1, 8):
            last = watchdog.brake(600.2 + 0.1 * tick)
        np.testing.assert_allclose(last, [0.0, 0.0], atol=0.11)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ([], [0.0, 0.0]),
        ([0.9], [0.0, 0.0]),  # it may have waited in the socket from before the pause
        ([0.9, 0.8], [0.3, 0.0]),  # after the pause: in force
    ],
)
@pytest.mark.parametrize("first", ["look", "hear"])
def test_the_first_command_after_a_pause_may_be_from_before_it(bundle, first, after, expected):
    watchdog = Watchdog(bundle.interface, 0.25, measured=lambda: np.zeros(2))
    watchdog.hear(np.array([1.0, 0.0]), 0.0)
    if first == "hear":  # the threads wake in any order
        watchdog.hear(np.array([1.0, 0.0]), 600.0)
    assert not watchdog.look(600.0, late=599.9)
    for n, command in enumerate(after):
        watchdog.hear(np.array([command, 0.0]), 600.05 + 0.1 * n)
    assert watchdog.look(600.6)
    np.testing.assert_allclose(watchdog.brake(600.6), expected)


@pytest.mark.parametrize("age", [0.0, 0.5, 1.0, 3600.0])
def test_a_trip_at_rest_moves_no_robot_that_was_moved_since(bundle, age):
    """By hand, or by somebody else on another topic; then comes a message that is refused."""
    for where in (np.array([0.7, -0.9]), np.zeros(2)):
        watchdog = Watchdog(bundle.interface, 0.25, measured=lambda w=where: w)
        watchdog.hear(bundle.interface.safe_command, 10.0)
        watchdog.refuse("cmd_vel: command is not finite: nan")
        assert watchdog.look(10.0 + age)
        # Within 2 x 0.25 s and a period of 0.1 s the robot is taken to be where it was told.
        expected = bundle.interface.brake(where if age > 0.6 else np.zeros(2))
        np.testing.assert_allclose(watchdog.brake(10.0 + age), expected)
        step = np.abs(watchdog.command - (where if age > 0.6 else np.zeros(2)))
        assert (step <= bundle.interface.rate_step + 1e-9).all()


def test_a_pause_while_it_brakes_is_noticed(bundle):
    """skill_node has taken over meanwhile, and the robot stands."""
    watchdog = Watchdog(bundle.interface, 0.25, measured=lambda: np.zeros(2))
    watchdog.hear(np.array([1.0, 0.0]), 0.0)
    assert watchdog.look(0.25)
    np.testing.assert_allclose(watchdog.brake(0.28), [0.5, 0.0])
    np.testing.assert_allclose(watchdog.brake(60.0), [0.0, 0.0])


@pytest.mark.parametrize("comes", [0, 1, 4, 5, None])
def test_after_a_pause_a_measurement_is_waited_for(bundle, comes):
    """Of a robot that may have been moved since; half a second at most, 5 ticks here."""
    measured = [np.full(2, np.nan)]
    watchdog = Watchdog(bundle.interface, 0.25, measured=lambda: measured[0])
    watchdog.hear(np.array([1.0, 0.0]), 0.0)
    assert not watchdog.look(600.0, late=599.9)
    assert watchdog.look(600.3)
    sent = []
    for tick in range(7):
        if tick == comes:
            measured[0] = np.array([0.1, -0.2])
        sent.append(watchdog.brake(600.3 + 0.1 * tick))
    waited = 5 if comes is None else comes
    assert np.isnan(sent[:waited]).all()
    # From what is measured, and from the last command if nothing ever is.
    first = [0.5, 0.0] if comes is None else [0.0, 0.0]
    np.testing.assert_allclose(sent[waited], first)


def test_what_nothing_measures_is_braked_at_once_from_the_last_command(bundle):
    (term,) = bundle.interface.action
    blind = replace(
        bundle.interface, action=(replace(term, tracking=None, initial_command="safe"),)
    )
    watchdog = Watchdog(blind, 0.25, measured=lambda: blind.measured_command({}))
    watchdog.hear(np.array([1.0, 0.0]), 0.0)
    assert not watchdog.look(600.0, late=599.9)
    assert watchdog.look(600.3)
    np.testing.assert_allclose(watchdog.brake(600.3), [0.5, 0.0])


def test_the_watchdog_brakes_from_what_is_measured_and_assumes_nothing(bundle):
    (term,) = bundle.interface.action
    safe = replace(bundle.interface, action=(replace(term, initial_command="safe"),))
    watchdog_node = pytest.importorskip("mlsh_ros.nodes.watchdog_node").WatchdogNode
    node = SimpleNamespace(_sources=[], _max_age=0.3, interface=safe)
    assert np.isnan(watchdog_node._measured(node)).all()


@pytest.mark.parametrize(("slower", "trips"), [(1.0, False), (1.2, False), (1.4, True)])
def test_braking_may_be_a_little_slower_than_the_rate_limit(bundle, slower, trips):
    """Each tick takes a little longer than its pause."""
    (term,) = bundle.interface.action
    patient = replace(bundle.interface, action=(replace(term, rate_limit=0.1),))  # 100 ticks
    watchdog = Watchdog(patient, 0.25)
    command, now = np.array([1.0, 0.0]), 0.0
    watchdog.hear(command, now)
    watchdog.emergency_stop(now)
    now = 0.25  # the latest moment at which braking may begin
    while command.any() and not watchdog.cause:
        command = patient.brake(command)
        watchdog.hear(command, now)
        watchdog.look(now)
        now += slower * DT
    assert bool(watchdog.cause) is trips


def test_a_look_is_due_at_the_deadline(bundle):
    watchdog = Watchdog(bundle.interface, 0.05)
    assert watchdog.pause(0.0) == watchdog.pause(math.nan) == PERIOD
    watchdog.hear(np.array([1.0, 0.0]), 0.0)
    assert watchdog.pause(0.0) == pytest.approx(0.05)
    assert watchdog.pause(0.04) == pytest.approx(0.01)
    assert watchdog.pause(0.06) == watchdog.pause(math.nan) == PERIOD


def test_a_watchdog_that_fails_moves_no_robot_at_rest(bundle):
    watchdog = Watchdog(bundle.interface, 0.25, measured=lambda: np.array([0.7, 0.0]))
    watchdog.hear(bundle.interface.safe_command, 0.0)
    watchdog.fail("the safety listener has ended")
    assert watchdog.cause
    assert not watchdog.look(3600.0)  # tripped, and sends nothing
    watchdog.hear(np.array([0.9, 0.0]), 3600.0)
    assert watchdog.look(3600.0)  # what is commanded all the same is braked
    np.testing.assert_allclose(watchdog.brake(3600.0 + DT), [0.4, 0.0])
    watchdog = Watchdog(bundle.interface, 0.25)
    watchdog.hear(np.array([0.9, 0.0]), 0.0)
    watchdog.fail("the safety listener has ended")
    assert watchdog.look(0.0)
    np.testing.assert_allclose(watchdog.brake(DT), [0.4, 0.0])
    watchdog.fail("another failure")  # while it brakes
    assert watchdog.look(0.1)


def test_a_trip_that_is_kept_is_one_for_who_ignores_an_emergency_stop(bundle):
    """It trips at rest, and a sender that does not know of the stop begins to move the robot."""
    watchdog = Watchdog(bundle.interface, 0.25)
    watchdog.hear(bundle.interface.safe_command, 0.0)
    watchdog.emergency_stop(0.0)
    watchdog.fail("the safety listener has ended")
    assert not watchdog.look(1.0)
    watchdog.hear(np.array([0.9, 0.0]), 1.0)
    assert watchdog.look(1.0)


def test_a_watchdog_that_begins_again_knows_no_command_and_keeps_its_trip(bundle):
    """It was not active, and has not heard what the robot was told."""
    watchdog = Watchdog(bundle.interface, 0.25, measured=lambda: np.array([0.7, 0.0]))
    watchdog.hear(np.array([0.4, 0.0]), 0.0)
    assert watchdog.look(1.0)
    cause = watchdog.cause
    np.testing.assert_allclose(watchdog.brake(1.0), [0.2, 0.0])
    watchdog.begin()
    assert watchdog.cause == cause
    assert not watchdog.look(60.0)
    assert np.isnan(watchdog.command).all()
    watchdog.reset()
    watchdog.hear(np.array([0.4, 0.0]), 61.0)
    watchdog.begin()
    assert not watchdog.look(70.0)  # the command of before stands for nothing


def test_each_topic_of_a_robot_is_watched_by_itself(bundle):
    """Commands that come on one topic say nothing about another one."""
    watchdog = Watchdog(bundle.interface, 0.25)
    first, second = np.array([0]), np.array([1])
    for n in range(5):  # nothing comes of the second
        watchdog.hear(np.array([0.5, np.nan]), n * DT, first)
    assert watchdog.heard == 0
    assert not watchdog.look(4 * DT)
    watchdog.hear(np.array([0.5, 0.2]), 5 * DT, second)
    assert watchdog.heard == 1
    for n in range(6, 8):
        watchdog.hear(np.array([0.5, 0.2]), n * DT, first)
    assert not watchdog.look(7 * DT)  # the second is 0.2 s old
    watchdog.hear(np.array([0.5, 0.2]), 8 * DT, first)
    assert watchdog.look(8 * DT)
    assert watchdog.cause == "command (0.5, 0.2) stood for 0.300 s"


def test_a_kept_trip_brakes_nothing_before_a_command_moves_the_robot(bundle):
    watchdog = Watchdog(bundle.interface, 0.25, measured=lambda: np.array([0.9, 0.0]))
    watchdog.keep("command (0.8, 0) stood for 0.250 s")
    assert watchdog.cause
    assert not watchdog.look(1.0)
    watchdog.hear(bundle.interface.safe_command, 1.0)  # such as its own, which comes late
    assert not watchdog.look(1.0)
    watchdog.hear(np.array([0.8, 0.0]), 1.1)
    assert watchdog.look(1.1)
    np.testing.assert_allclose(watchdog.brake(1.1 + DT), [0.3, 0.0])


def test_a_safe_command_that_is_no_float32_is_rest_all_the_same(bundle):
    """Such as in a std_msgs/Float32MultiArray: every stop would trip the watchdog."""
    data = interface_to_dict(bundle.interface)
    data["action"][0]["safe_command"] = [0.3, 0.1]
    watchdog = Watchdog(interface_from_dict(data, "omni"), 0.25)
    for n, command in enumerate(([0.5, 0.1], [0.3, 0.1], [0.3, 0.1])):
        watchdog.hear(np.array(command, np.float32).astype(float), 0.1 * n)
    assert watchdog.at_rest
    assert not watchdog.look(1.0)
    watchdog.hear(np.array([0.301, 0.1]), 1.0)
    assert not watchdog.at_rest


def test_the_safe_command_may_stand_for_ever(bundle):
    watchdog = Watchdog(bundle.interface, 0.25)
    watchdog.hear(np.array([0.8, 0.0]), 0.0)
    watchdog.hear(bundle.interface.safe_command, 0.1)
    assert watchdog.deadline is None
    assert not watchdog.check(1e9)


@pytest.mark.parametrize("wild", [1e300, -1.0001])
def test_a_command_beyond_its_limit_trips_at_once_and_is_not_braked_from(bundle, wild):
    watchdog = Watchdog(bundle.interface, 0.25)
    watchdog.hear(np.array([0.8, -1.0]), 0.0)  # at the limit
    watchdog.hear(np.array([0.8, wild]), 0.1)
    assert watchdog.check(0.1)
    assert watchdog.cause.endswith(f"base_velocity.1 is {wild:.6g}, its limit is -1 to 1")
    np.testing.assert_allclose(watchdog.brake(0.1), [0.3, -0.5])  # from the last good one


def test_a_command_that_is_no_number_trips_at_once(bundle):
    watchdog = Watchdog(bundle.interface, 0.25)
    watchdog.refuse("cmd_vel: command is not finite: nan")
    assert watchdog.check(0.0)
    assert np.isnan(watchdog.brake(0.0)).all()  # nothing is known that it could brake from


def test_the_watchdog_brakes_from_where_the_robot_is_if_it_has_heard_no_command(bundle):
    where = np.array([0.7, np.nan])
    watchdog = Watchdog(bundle.interface, 0.25, lambda: where)
    watchdog.refuse("cmd_vel: command is not finite: nan")
    np.testing.assert_allclose(watchdog.brake(0.0), [0.2, np.nan])
    np.testing.assert_allclose(watchdog.brake(0.1), [0.0, np.nan])


def test_a_watchdog_that_was_held_up_itself_hears_what_came_meanwhile_first(bundle):
    watchdog = Watchdog(bundle.interface, 0.25)
    watchdog.hear(np.array([0.8, 0.0]), 0.0)
    assert not watchdog.look(5.0, late=4.9)  # it was frozen, and may have missed the next ones
    assert not watchdog.look(5.12)
    assert watchdog.look(5.13)  # half of its patience later there was none
    assert watchdog.cause.endswith("stood for 0.255 s")
    watchdog.reset()
    watchdog.hear(np.array([0.8, 0.0]), 6.0)
    assert not watchdog.look(9.0, late=2.9)
    watchdog.hear(bundle.interface.safe_command, 6.1)  # from the queue
    assert not watchdog.look(1e9)
    watchdog.reset()
    watchdog.hear(np.array([0.4, 0.0]), 16.0)
    assert not watchdog.look(16.4, late=0.4)
    assert watchdog.look(16.8, late=0.4)  # held up all the time, it would never trip
    # An emergency stop is heard as well: skill_node may have braked meanwhile.
    watchdog.reset()
    watchdog.hear(np.array([0.8, 0.0]), 20.0)
    watchdog.emergency_stop(20.0)
    assert not watchdog.look(25.0, late=4.9)
    watchdog.hear(bundle.interface.safe_command, 25.0)
    assert not watchdog.look(30.0)


@pytest.mark.parametrize(
    ("commands", "trips"),
    [
        # 5 m/s per s is 0.5 m/s per tick; the emergency stop comes with the first command.
        ([1.0, 0.5, 0.0, 0.0, 0.0, 0.0], None),  # brakes at once
        ([1.0, 1.0, 0.9, 0.5, 0.2, 0.0], None),  # begins within its patience of 2.5 ticks
        ([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0], 0.75),  # patience, 2.5 ticks, patience
        ([1.0, 0.8, 0.6, 0.4, 0.6], 0.4),  # turns back
        ([0.0, 0.0, 0.0, 0.1], 0.3),  # begins to move
        ([0.0, -0.4, -0.2, 0.0], None),  # was about to move
    ],
)
def test_the_watchdog_sees_to_an_emergency_stop(bundle, commands, trips):
    watchdog = Watchdog(bundle.interface, 0.25)
    tripped = None
    for n, command in enumerate(commands):
        watchdog.hear(np.array([command, 0.0]), n * DT)
        if n == 0:
            watchdog.emergency_stop(0.0)
        for now in (n * DT, n * DT + 0.05):
            if tripped is None and watchdog.look(now):
                tripped = now
    assert tripped == pytest.approx(trips) if trips is not None else tripped is None
    if trips is not None:
        assert "after an emergency stop" in watchdog.cause
        watchdog.reset()
    watchdog.release()
    watchdog.hear(np.array([0.5, 0.0]), 2.0)
    assert not watchdog.look(2.0)


def test_an_emergency_stop_holds_for_the_watchdog_until_the_commands_are_at_rest(bundle):
    """The panel has said `true` and `false` at once, and skill_node has missed both."""
    watchdog = Watchdog(bundle.interface, 0.25)
    watchdog.hear(np.array([1.0, 0.0]), 0.0)
    watchdog.emergency_stop(0.0)
    now = 0.0
    while not watchdog.look(now):
        assert now < 1.0
        now += DT
        watchdog.release()  # at every look at the graph
        watchdog.hear(np.array([1.0, 0.0]), now)
    assert "after an emergency stop" in watchdog.cause
    watchdog.reset()
    watchdog.hear(np.array([0.5, 0.0]), 2.0)
    watchdog.emergency_stop(2.0)
    watchdog.hear(bundle.interface.safe_command, 2.1)
    watchdog.release()
    assert not watchdog.stopped


def test_braking_begins_from_the_command_that_ignored_an_emergency_stop(bundle):
    """It is what the robot does; from the one before it, the first step would be one of 0.95."""
    watchdog = Watchdog(bundle.interface, 0.25)
    watchdog.hear(np.zeros(2), 0.0)
    watchdog.emergency_stop(0.0)
    watchdog.hear(np.array([-0.5, 0.0]), 0.2)
    watchdog.hear(np.array([-0.95, 0.0]), 0.3)
    assert "goes from -0.5 to -0.95 after an emergency stop" in watchdog.cause
    assert watchdog.look(0.3)
    np.testing.assert_allclose(watchdog.brake(0.33), [-0.8, 0.0])  # 0.03 s of 0.1 s


def test_a_watchdog_that_says_watching_after_a_reset_has_no_stop_in_force(bundle):
    """The panel has let go, and the graph was not looked at since."""
    node = watchdog_node(bundle)
    node.watchdog.emergency_stop(0.0)
    answer = node._on_reset(None, SimpleNamespace(success=None, message=""))
    assert answer.message == "nothing to reset: watching"
    assert not node.watchdog.stopped


# What must not end in silence -------------------------------------------------------------------


def test_a_session_without_a_thread_is_a_fault_and_can_be_left(bundle, monkeypatch):
    """The system has no more threads: nothing moves, and every service still answers."""

    def start(self):
        raise RuntimeError("can't start new thread")

    supervisor = Supervisor()
    supervisor.activate()
    supervisor.go(State.READY)
    gate = CommandGate(bundle.interface, supervisor, lambda *_: None)
    session = Session(supervisor, gate, print, None, threading.Event(), lambda: None, failed=print)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        assert not session.start(lambda: None)
    assert supervisor.status == Status(State.FAULT, "internal", "can't start new thread")
    session.end()
    assert supervisor.reset()


def test_a_fault_wakes_who_waits_although_the_system_has_no_more_threads(monkeypatch):
    data, woken = threading.Condition(), threading.Event()
    waker = Waker(data)
    asleep = threading.Event()

    def sleep():
        with data:
            asleep.set()
            data.wait(5.0)
        woken.set()

    thread = threading.Thread(target=sleep)
    thread.start()
    assert asleep.wait(5.0)
    monkeypatch.setattr(threading.Thread, "start", None)
    with data:  # whoever calls may hold the lock
        waker.wake()
    assert woken.wait(2.0)
    thread.join()


def test_a_stop_that_could_not_be_sent_is_a_fault(bundle):
    supervisor, sent = Supervisor(), []
    supervisor.activate()
    supervisor.go(State.READY)

    def send(command, _):
        if supervisor.state is not State.RUNNING:
            raise RuntimeError("the publisher is gone")
        sent.append(command)

    gate = CommandGate(bundle.interface, supervisor, send)
    stop, driven, failed = threading.Event(), threading.Event(), []

    def drive():
        gate.begin(np.zeros(2))
        gate.drive(np.array([0.4, 0.0]), 0.0)
        driven.set()
        stop.wait()

    pace = SimpleNamespace(now=lambda: 0.0, wait_a_tick=lambda: None)
    session = Session(supervisor, gate, drive, pace, stop, lambda: None, failed.append)
    assert session.start(lambda: None)
    assert driven.wait(5.0)
    text = "a braking command could not be sent: the publisher is gone"
    assert session.end() == text
    assert session.end() == text  # whoever asks
    assert supervisor.status == Status(State.FAULT, "internal", text)
    assert failed == [text] * 3


def test_a_watchdog_goes_on_braking_after_an_exception():
    """Such as of a publisher that fails once."""
    pytest.importorskip("rclpy")
    from mlsh_ros.nodes.watchdog_node import WatchdogNode

    done, looks = [], iter([True, True, False])

    def brake():
        done.append("brake")
        if len(done) == 1:
            raise RuntimeError("the publisher failed")

    WatchdogNode._run(
        SimpleNamespace(
            _watch=lambda: next(looks),
            _brake=brake,
            _fail=done.append,
            _closing=False,
            _told="tripped: it was late",
            get_logger=lambda: SimpleNamespace(error=lambda text, **_: 1 / 0),
            interface=SimpleNamespace(control_dt=0.0),
        )
    )
    assert done == ["brake", "RuntimeError: the publisher failed", "brake"]


def watchdog_node(bundle, **changes):
    """What a watchdog_node has, as far as these tests need it, and its methods."""
    node = pytest.importorskip("mlsh_ros.nodes.watchdog_node").WatchdogNode
    parts = {
        "watchdog": Watchdog(bundle.interface, 0.25),
        "estop": SimpleNamespace(pressed=False, reset=lambda: False, fault=lambda _: None),
        "time": SimpleNamespace(now=lambda: 0.0, is_late=lambda _: True),
        "_safety": SimpleNamespace(stuck=lambda: ""),
        "_new_data": threading.Condition(),
        "_state": SimpleNamespace(publish=lambda _: None),
        "_thread": object(),
        "_closing": False,
        "interface": SimpleNamespace(control_dt=0.01),
        "_told": "",
        "_heard": {"cmd_vel": 0.0},
        "get_logger": lambda: SimpleNamespace(error=lambda text, **_: None),
    }
    made = SimpleNamespace(**(parts | changes))
    methods = ("_tell", "_tell_standing", "_log_trip", "_fail", "_not_to_reset", "_on_reset")
    for name in (*methods, "_expired", "_brake", "_run"):
        setattr(made, name, partial(getattr(node, name), made))
    return made


def test_nothing_happens_between_the_checks_of_a_reset_and_the_reset(bundle):
    """A command would stand: the watchdog that has just tripped because of it is reset."""
    acquired = []

    def reset():
        other = threading.Thread(
            target=lambda: acquired.append(node._new_data.acquire(timeout=0.2))
        )
        other.start()
        other.join()
        return False

    estop = SimpleNamespace(pressed=False, reset=reset, fault=lambda _: None)
    node = watchdog_node(bundle, estop=estop)
    answer = node._on_reset(None, SimpleNamespace(success=None, message=""))
    assert acquired == [False]
    assert (answer.success, answer.message) == (False, "nothing to reset: watching")


def test_a_watchdog_that_hears_no_emergency_stop_trips_and_is_not_reset(bundle):
    deaf = "the emergency stop topic was not read for 0.61 s"
    node = watchdog_node(bundle, _safety=SimpleNamespace(stuck=lambda: deaf))
    node.watchdog.hear(np.array([0.5, 0.0]), 0.0)
    assert node._expired(0.0)
    assert node.watchdog.cause == deaf
    node.watchdog.command = bundle.interface.safe_command  # it has braked
    answer = node._on_reset(None, SimpleNamespace(success=False, message=""))
    assert (answer.success, answer.message) == (False, f"cannot reset: {deaf}")
    node._safety.stuck = lambda: ""
    assert node._on_reset(None, answer).success


def test_a_state_whose_publisher_fails_is_told_later_and_braking_goes_on(bundle):
    """Braking is what this node is for; the one who fails may be the publisher of its state."""
    told, failures = [], [RuntimeError("the publisher failed")] * 2

    def publish(message):
        if failures:
            raise failures.pop()
        told.append(message.data)

    node = watchdog_node(bundle, _state=SimpleNamespace(publish=publish))
    node.watchdog.hear(np.array([0.8, 0.0]), 0.0)
    node._fail("the safety listener has ended")
    assert node.watchdog.look(0.0)  # it brakes, whether it was told or not
    node._tell_standing()
    assert told == []
    node._tell_standing()
    node._tell_standing()
    assert told == ["tripped: the safety listener has ended"]
    failures.append(RuntimeError("the publisher failed"))
    node._closing = True  # as in its deactivation
    node._tell_standing()
    node._tell_standing()
    assert told[1:] == ["not active"]


def test_a_failure_is_logged_once_and_told_at_rest_too(bundle):
    told, logged = [], []
    deaf = "the emergency stop topic was not read for 0.61 s"
    node = watchdog_node(
        bundle,
        _safety=SimpleNamespace(stuck=lambda: deaf),
        _state=SimpleNamespace(publish=lambda message: told.append(message.data)),
        get_logger=lambda: SimpleNamespace(error=lambda text, **_: logged.append(text)),
    )
    for _ in range(3):
        assert not node._expired(0.0)  # nothing is commanded
    assert told == logged == [f"tripped: {deaf}"]


def test_a_failure_beside_a_moving_robot_is_logged_after_the_first_braking_command(bundle):
    said = []
    node = watchdog_node(
        bundle,
        _safety=SimpleNamespace(stuck=lambda: "the emergency stop topic was not read"),
        get_logger=lambda: SimpleNamespace(error=lambda text, **_: said.append(text)),
    )
    node.watchdog.hear([0.8, 0.0], node.time.now())
    assert node._expired(0.0)
    assert said == []
    node._wait = lambda *_: False
    node._wait_a_tick = lambda _: False
    node._send = lambda: said.append("command")
    node._brake()
    assert said == ["command", "tripped: the emergency stop topic was not read"]


def test_a_watchdog_that_cannot_brake_says_so(bundle):
    said = []
    node = watchdog_node(
        bundle, get_logger=lambda: SimpleNamespace(error=lambda text, **_: said.append(text))
    )
    node.watchdog.hear([0.8, 0.0], node.time.now())
    node.watchdog.refuse("its message is invalid")
    tried = []

    def watch():
        return len(tried) < 2

    def brake():
        node._tell_standing()
        tried.append(1)
        raise RuntimeError("the publisher failed")

    node._watch, node._brake = watch, brake
    node._run()
    told = "RuntimeError: the publisher failed; tripped: its message is invalid"
    assert said == [told, told]  # the log's own throttle is left out here


def test_a_fault_whose_state_cannot_be_published_is_a_fault():
    module = pytest.importorskip("mlsh_ros.nodes.skill_node")
    logged = []

    def fail(_):
        raise RuntimeError("the publisher failed")

    node = SimpleNamespace(
        _stop=threading.Event(),
        _waker=SimpleNamespace(wake=lambda: logged.append("woken")),
        _state_publisher=SimpleNamespace(publish=fail),
        _reporter=SimpleNamespace(log=lambda text, error: logged.append(text)),
    )
    supervisor = Supervisor(partial(module.SkillNode._on_status, node))
    supervisor.fault("estop", "pressed")  # in the thread that hears the emergency stop
    assert node._stop.is_set()
    assert logged == [
        "woken",
        "the state was not published: RuntimeError: the publisher failed",
        "fault: estop: pressed",
    ]


def test_a_node_that_ends_is_not_activated_any_more():
    pytest.importorskip("rclpy")
    from mlsh_ros.nodes.node import FAILURE, CoreNode

    said = []
    logger = SimpleNamespace(error=said.append)
    assert (
        CoreNode.on_activate(SimpleNamespace(ending=True, get_logger=lambda: logger), None)
        == FAILURE
    )
    assert said == ["cannot activate: the process ends"]


def test_who_brakes_does_not_wait_for_a_line_of_the_log():
    """A line may take a tenth of a second; it is written by the thread of reports."""
    pytest.importorskip("rclpy")
    from mlsh_ros.nodes.reporter import Reporter

    said, slow = [], threading.Event()

    def write(text):
        slow.wait(5.0)
        said.append((threading.current_thread().name, text))

    logger = SimpleNamespace(error=write, info=write)
    reporter = Reporter.__new__(Reporter)
    reporter._node = SimpleNamespace(get_logger=lambda: logger)
    reporter._queue, reporter._thread = queue.SimpleQueue(), None
    reporter.begin()
    began = time.monotonic()
    reporter.log("fault: estop", error=True)
    assert time.monotonic() - began < 1.0
    slow.set()
    reporter.end()  # all that was said is written
    reporter.log("disarmed", error=False)
    assert said == [("reporter", "fault: estop"), ("MainThread", "disarmed")]


def test_states_are_logged_with_their_severity(capfd):
    logging = pytest.importorskip("rclpy.logging")
    from mlsh_ros.nodes.reporter import Reporter

    reporter = Reporter.__new__(Reporter)
    logger = logging.get_logger("test_reporter")
    reporter._node = SimpleNamespace(get_logger=lambda: logger)
    reporter._queue, reporter._thread = queue.SimpleQueue(), None
    reporter.refused = pytest.fail
    reporter.begin()
    for state, error in (("running", False), ("fault: estop", True), ("ready", False)):
        reporter.log(state, error=error)
    reporter.end()
    said = re.findall(
        r"\[(INFO|ERROR)\] \[[\d.]+\] \[test_reporter\]: (.*)", capfd.readouterr()[1]
    )
    assert said == [("INFO", "running"), ("ERROR", "fault: estop"), ("INFO", "ready")]
