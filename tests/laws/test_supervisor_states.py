"""The law of commands: in no reachable combination of lifecycle, state and event does one leave
that is not allowed, and none differs from the one before by more than the rate limit.

The supervisor, the gate and the emergency stop are the real ones; what the node's thread and the
world do are events like those of an operator. The whole graph of reachable situations is walked.
"""

import copy
import itertools
import threading
from collections import deque
from dataclasses import dataclass, replace

import numpy as np
import pytest

from mlsh_ros.control.command_gate import CommandGate, WatchdogReport
from mlsh_ros.control.emergency_stop import KEPT, NOBODY, EmergencyStop, Publisher
from mlsh_ros.control.faults import FaultError
from mlsh_ros.control.heartbeat import Beat, Heartbeat
from mlsh_ros.control.supervisor import State, Supervisor
from mlsh_ros.control.watchdog import PERIOD, Watchdog
from sim.interface import Interface

DT = 0.1
PATIENCE = 2.5 * DT
ACTIVE, INACTIVE, UNCONFIGURED, FINALIZED = "active", "inactive", "unconfigured", "finalized"


def small(interface, safe):
    """Two steps of the rate limit from the safe command to one limit, one to the other."""
    term = replace(
        interface.action[0],
        limit=(-1.0, 1.0),
        rate_limit=5.0,
        safe_command=(safe, safe),
        smoothing_time=0.0,
    )
    return replace(interface, action=(term,))


class Node:
    """skill_node as far as its commands go: what its services, transitions and thread do."""

    def __init__(self, interface, watched):
        self.interface, self.watched = interface, watched
        self.lifecycle = UNCONFIGURED
        self.supervisor = Supervisor()
        self.sent = []
        self.gate = CommandGate(interface, self.supervisor, self._send, self._watch)
        self.now = 0.0
        self.thread = False  # a session's thread runs
        self.robot = np.zeros(2)  # what the robot does: the newest command on the wire
        self.pressed = False
        self.tripped = False
        self.watchdog_lives = watched
        self.frozen = False  # the watchdog: it lives on later, and does nothing until then
        self.deaf = False  # the watchdog: it hears no command of this session
        self.knew = None  # the command that it knew when the session began
        self.heart = Heartbeat(7, simulated=False)
        self.last_beat = False, None, 0
        self.braked = False  # the watchdog has, since the newest command

    def _watch(self):
        """It has brought the robot to rest at once when it has tripped."""
        if not self.watched:
            return None
        newer, command, heard = self.beat
        received = 2 * PERIOD if newer else 0.0
        said = Beat(1, 7, False, True, self.tripped, heard, PATIENCE, command, received)
        self.heart.hear(said, self.gate.count)
        return self.heart.watch(received if self.watchdog_lives else 100.0, 0.0, 0.0)

    @property
    def beat(self):
        """What the newest heartbeat says: of the one that ended, what it said last.

        Whether it is newer than the newest command, the command that it knows, and how many it
        has heard in this session.
        """
        if not self.watchdog_lives:
            return self.last_beat
        newer = self.braked or self.now - self.gate._sent >= PATIENCE
        if self.deaf and not self.tripped:
            return newer, self.knew, 0
        return newer, self.robot.copy(), int(not self.deaf)

    def _send(self, command, stamp):
        self.sent.append((self.lifecycle, self.supervisor.status, command.copy()))
        self.last_beat = False, *self.last_beat[1:]  # it is older than this command
        self.braked = False

    # Events; each says whether it changed anything that can be seen -----------------------

    def configure(self):
        if self.lifecycle == UNCONFIGURED:
            self.lifecycle = INACTIVE

    def activate(self):
        if self.lifecycle == INACTIVE:
            self.lifecycle = ACTIVE
            self.supervisor.activate()

    def deactivate(self):
        if self.lifecycle == ACTIVE:
            self.supervisor.deactivate()
            self._finish()
            self.supervisor.rest()
            self.lifecycle = INACTIVE

    def cleanup(self):
        if self.lifecycle == INACTIVE:
            self.lifecycle = UNCONFIGURED

    def shutdown(self):
        """Also what SIGTERM, SIGINT and a lost terminal do to a node."""
        if self.lifecycle == ACTIVE:
            self.deactivate()
        if self.lifecycle != FINALIZED:
            self.lifecycle = FINALIZED

    def _asked(self):
        """Services are served in the active state alone."""
        return self.supervisor.active

    def arm(self):
        unfit = self.pressed or self.tripped or (self.watched and not self.watchdog_lives)
        if self._asked() and self.supervisor.state is State.DISARMED and not unfit:
            self.supervisor.go(State.READY)

    def start(self):
        if not self._asked() or self.thread or self.tripped:
            return
        if self.supervisor.go(State.RUNNING):
            self.thread = True
            safe = self.interface.safe_command
            self.knew = safe if (self.robot == safe).all() else None
            self.last_beat = False, self.last_beat[1], 0  # that was before
            self.heart.hear(Beat(1, 7, False, True, False, 0, PATIENCE, self.knew, 0.0), 0)
            self.heart.follow(self.gate.count)
            self.gate.begin(self.robot.copy(), PATIENCE if self.watched else None)

    def start_unheard(self):
        """The watchdog hears nothing of this session: DDS has not connected the two yet."""
        begun = self.thread
        self.start()
        self.deaf = self.deaf or (self.thread and not begun and self.watchdog_lives)

    def stop(self):
        if self._asked():
            self._finish()

    def begin_to_stop(self):
        """The thread has been told to stop; everything may still happen before it is at rest."""
        if self.thread:
            self.supervisor.go(State.STOPPING)

    def disarm(self):
        if self._asked():
            self._finish()
            self.supervisor.go(State.DISARMED)

    def reset(self):
        if self._asked():
            self._finish()
            self.supervisor.reset()

    def press(self):
        self.pressed = True
        if self.supervisor.state in (State.READY, State.RUNNING, State.STOPPING):
            self.supervisor.fault("estop", "pressed")

    def release(self):
        self.pressed = False

    def sensor_fault(self):
        if self.thread and self.supervisor.state is State.RUNNING:
            self.supervisor.fault("sensors_stale", "odom")

    def trip(self):
        """watchdog_node trips and brings the robot to rest by itself."""
        if self.watchdog_lives and not self.tripped:
            self.tripped = self.braked = True
            self._watch()  # its heartbeat says so
            if self.supervisor.state is not State.DISARMED:
                self.gate.hand_over()
                self.supervisor.fault("watchdog", "tripped")
            self.robot = self.interface.safe_command.copy()

    def reset_watchdog(self):
        if not self.frozen:
            self.tripped = False

    def kill_watchdog(self):
        """The fault comes later, or never, such as while this process is frozen."""
        self.last_beat = self.beat
        self.watchdog_lives = self.tripped = self.frozen = False

    def freeze_watchdog(self):
        """SIGSTOP, or a computer that gives it no time."""
        if self.watchdog_lives:
            self.last_beat = self.beat
            self.watchdog_lives, self.frozen = False, True

    def thaw_watchdog(self):
        """It hears all commands that came meanwhile, and brakes if the newest one is too old."""
        if not self.frozen:
            return
        self.watchdog_lives, self.frozen = True, False
        if self.now - self.gate._sent >= PATIENCE:
            self._watchdog_brakes()

    def _watchdog_brakes(self):
        """At once to rest, and what it says of it is not heard yet."""
        if not self.deaf and not (self.robot == self.interface.safe_command).all():
            self.robot, self.tripped, self.braked = self.interface.safe_command.copy(), True, True

    def lose_watchdog(self):
        """What the thread that listens says when no heartbeat comes."""
        if not self.watchdog_lives and self.watched and self.thread:
            self.supervisor.fault("watchdog_lost", "no heartbeat")

    def freeze(self):
        """The process is stopped for long, and goes on; the watchdog has braked meanwhile."""
        self.now += 100.0
        if self.watchdog_lives:
            self._watchdog_brakes()

    def tick_up(self):
        self._tick(1.0)

    def tick_down(self):
        self._tick(-1.0)

    def jump(self):
        """A command that is a jump, as a defect of whoever computes it would make it."""
        self._tick(1.0, limit=False)

    def _tick(self, aim, limit=True):
        """The session's thread wants to send a command."""
        if not self.thread:
            return
        self.now += DT
        before = self.robot if self.gate.command is None else self.gate.command
        step = self.interface.rate_step if limit else np.full(2, 2.0)
        command = np.clip(np.full(2, aim), before - step, before + step)
        try:
            if self.gate.drive(command, self.now):
                self.robot = command
        except FaultError as fault:
            self.supervisor.fault(fault.name, fault.detail)
        if self.supervisor.state is not State.RUNNING:
            self._finish()

    def brake_step(self):
        """The thread has noticed that it must end, and brakes by one command."""
        if self.thread and self.supervisor.state is not State.RUNNING:
            self.now += DT
            said = len(self.sent)
            self.gate.brake(self.now)
            if len(self.sent) > said:
                self.robot = self.gate.command.copy()

    def _finish(self):
        """What Session does when its thread ends."""
        if not self.thread:
            return
        self.supervisor.go(State.STOPPING)
        for _ in range(100):
            said = len(self.sent)
            if not self.gate.brake(self.now):
                break
            if len(self.sent) > said:  # else the watchdog brakes
                self.robot = self.gate.command.copy()
            self.now += DT
        else:
            raise AssertionError("braking does not end")
        self.gate.repeat_rest(self.now)
        self.thread = self.deaf = False
        self.gate.close()
        self.supervisor.rest()


LIFECYCLE = ["configure", "activate", "deactivate", "cleanup", "shutdown"]
OPERATOR = ["arm", "start", "stop", "disarm", "reset", "press", "release", "reset_watchdog"]
WORLD = ["sensor_fault", "trip", "freeze", "begin_to_stop", "kill_watchdog", "lose_watchdog"]
WORLD += ["freeze_watchdog", "thaw_watchdog", "start_unheard"]
THREAD = ["tick_up", "tick_down", "jump", "brake_step"]
EVENTS = [*LIFECYCLE, *OPERATOR, *WORLD, *THREAD]
LONGEST = 40  # events by which every situation is reached; the longest way has 17


@dataclass(frozen=True)
class Situation:
    lifecycle: str
    status: str
    active: bool
    thread: bool
    robot: tuple
    command: tuple | None
    given_away: bool
    old: bool  # the last command is older than the watchdog's patience
    pressed: bool
    tripped: bool
    watchdog_lives: bool
    frozen: bool
    deaf: bool
    knew: bool
    braking: bool  # the watchdog's, as its heartbeats of this session have said
    braked: bool
    last_beat: tuple


def situation(node):
    gate = node.gate
    return Situation(
        node.lifecycle,
        f"{node.supervisor.state.value}:{node.supervisor.status.fault}",
        node.supervisor.active,
        node.thread,
        tuple(node.robot.round(9)),
        None if gate.command is None else tuple(gate.command.round(9)),
        gate._given_away,
        gate._handed_over(node.now),
        node.pressed,
        node.tripped,
        node.watchdog_lives,
        node.frozen,
        node.deaf,
        node.deaf and node.knew is not None,
        node.thread and node.heart._braked,
        node.braked,
        () if node.watchdog_lives else tuple(map(str, node.last_beat)),
    )


# What a copy has of its own, and what it shares.
TIES = (Supervisor, CommandGate, Interface, type(threading.Lock()))


def copied(node):
    """Another node in the same situation."""
    twin = Node(node.interface, node.watched)
    parts = (twin, node), (twin.supervisor, node.supervisor), (twin.gate, node.gate)
    parts += ((twin.heart, node.heart),)
    for own, known in parts:
        for name, value in vars(known).items():
            if not callable(value) and not isinstance(value, TIES):
                setattr(own, name, copy.copy(value))
    return twin


@pytest.mark.parametrize("watched", [True, False])
@pytest.mark.parametrize("safe", [0.0, 1.0])
def test_no_reachable_combination_sends_what_is_not_allowed(bundle, watched, safe):
    interface = small(bundle.interface, safe)
    first = Node(interface, watched)
    ways = {situation(first): ()}
    queue, commands, largest, states = deque([((), first)]), 0, 0.0, set()
    while queue:
        way, there = queue.popleft()  # by the shortest ways
        for event in EVENTS:
            node = copied(there)
            before, robot, said = situation(node), node.robot.copy(), len(node.sent)
            assert ways[before] == way
            getattr(node, event)()
            last = robot
            for lifecycle, status, command in node.sent[said:]:
                commands += 1
                place = (way, event)
                states.add(status.state)
                # Commands leave an active node alone, driving when RUNNING, braking after it.
                assert lifecycle == ACTIVE, place
                assert status.state in (State.RUNNING, State.STOPPING, State.FAULT), place
                if status.state is State.RUNNING:
                    assert event.startswith(("tick", "jump")), place
                else:
                    nearer = np.abs(command - safe) <= np.abs(last - safe) + 1e-9
                    assert nearer.all(), place
                step = float(np.abs(command - last).max())
                largest = max(largest, step)
                assert step <= interface.rate_step[0] + 1e-9, place
                assert (np.abs(command) <= 1.0).all(), place
                last = command
            after = situation(node)
            if before.lifecycle == FINALIZED:
                assert after.lifecycle == FINALIZED
                assert len(node.sent) == said, (way, event)
            if before.lifecycle != ACTIVE and after.lifecycle == ACTIVE:
                assert after.status.startswith(("disarmed", "fault")), (way, event)
            if before.status.startswith("fault") and not after.status.startswith("fault"):
                assert event == "reset", (way, event)  # latched; also through the lifecycle
            if not after.thread and not node.tripped:
                # Nothing that this node has commanded stands.
                assert tuple(node.robot) == (0.0, 0.0) or tuple(node.robot) == (safe, safe), way
            if after not in ways:
                assert len(way) < LONGEST, "a situation would be left out"
                ways[after] = (*way, event)
                queue.append((ways[after], node))
    print(
        f"{'watched' if watched else 'unwatched'}, safe command {safe:g}: "
        f"{len(ways):,} situations, {len(ways) * len(EVENTS):,} transitions, "
        f"{commands:,} commands, largest step {largest / interface.rate_step[0]:.3f} of the limit"
    )
    assert states == {State.RUNNING, State.STOPPING, State.FAULT}
    assert largest == pytest.approx(interface.rate_step[0])  # reached
    assert len(ways) > 60
    assert commands > 500
    seen = {(s.lifecycle, s.status.partition(":")[0]) for s in ways}
    assert {state.value for state in State} == {status for _, status in seen}
    assert {ACTIVE, INACTIVE, UNCONFIGURED, FINALIZED} == {lifecycle for lifecycle, _ in seen}


@pytest.mark.parametrize("safe", [0.0, 0.3])
@pytest.mark.parametrize("error", [0.0, 1e-9, -1e-7, "float32"])
def test_braking_that_was_handed_over_ends_where_the_watchdog_rests(bundle, safe, error):
    """What it heard went through a message, and its own rest has the precision of one."""
    interface = small(bundle.interface, safe)
    rests = np.full(2, np.float32(safe) if error == "float32" else safe + error, float)
    supervisor, sent = Supervisor(), []
    report = WatchdogReport(lives=True, newer=True, command=rests)
    gate = CommandGate(interface, supervisor, lambda c, _: sent.append(c), lambda: report)
    supervisor.activate()
    assert supervisor.go(State.READY)
    assert supervisor.go(State.RUNNING)
    gate.begin(interface.safe_command, PATIENCE)
    assert gate.drive(rests, 0.0)
    supervisor.fault("deadline", "held up")
    assert not gate.brake(10.0)  # the watchdog has had the time to brake, and has no reason to
    assert len(sent) == 1


@pytest.mark.parametrize("part", [0.0, 0.01, 0.3, 0.99, 1.0, 5.0, np.nan])
@pytest.mark.parametrize("paced", [True, False])
def test_the_first_step_of_braking_is_the_part_of_a_tick_that_has_passed(bundle, part, paced):
    """A stop comes at any moment: commands follow each other no faster than the limit permits."""
    interface = small(bundle.interface, 0.0)
    (step,) = set(interface.rate_step)
    supervisor, sent = Supervisor(), []
    gate = CommandGate(interface, supervisor, lambda c, _: sent.append(c[0]), paced=paced)
    supervisor.activate()
    assert supervisor.go(State.READY)
    assert supervisor.go(State.RUNNING)
    gate.begin(np.array([1.0, 0.0]))
    assert gate.drive(np.array([1.0, 0.0]), 7.0)
    supervisor.fault("estop", "")
    now = 7.0 + part * interface.control_dt
    while gate.brake(now):
        now += interface.control_dt
    passed = part if paced and part < 1 else 1.0
    assert sent[:2] == [1.0, pytest.approx(1.0 - passed * step)]
    assert sent[-1] == 0.0
    assert len(sent) - 1 - (1 / step + 1 - passed) < 1.001  # no tick more than it takes


def running(interface, report):
    """A gate in a session that has sent one command, at 0 s; the commands that it has sent."""
    supervisor, sent = Supervisor(), []
    gate = CommandGate(interface, supervisor, lambda c, _: sent.append(c), lambda: report)
    supervisor.activate()
    assert supervisor.go(State.READY)
    assert supervisor.go(State.RUNNING)
    gate.begin(np.zeros(2), PATIENCE)
    assert gate.drive(np.array([0.5, 0.0]), 0.0)
    return supervisor, gate, sent


@pytest.mark.parametrize("why", ["old", "tripped"])
@pytest.mark.parametrize("newer", [False, True])
def test_the_gate_does_not_brake_beside_a_living_watchdog(bundle, why, newer):
    interface, brought = small(bundle.interface, 0.0), np.array([0.25, 0.0])
    report = WatchdogReport(lives=True, newer=newer, command=brought)
    supervisor, gate, sent = running(interface, report)
    if why == "tripped":
        gate.hand_over()
    supervisor.fault("deadline", "held up")
    now = 0.05 if why == "tripped" else 10.0
    for _ in range(5):
        assert gate.brake(now)  # it waits, as the robot is not at rest
    gate.repeat_rest(now)
    assert len(sent) == 1
    # Where it ends, braking goes on from its last command.
    gate._watch = lambda: replace(report, lives=False)
    assert gate.brake(now)
    np.testing.assert_allclose(sent[1], interface.brake(brought if newer else sent[0]))


def test_nothing_is_driven_after_a_hand_over(bundle):
    _, gate, sent = running(small(bundle.interface, 0.0), None)
    gate.hand_over()
    assert not gate.drive(np.array([0.5, 0.0]), 0.1)
    assert len(sent) == 1


def test_what_is_told_of_a_command_is_told_before_it_and_only_if_it_leaves(bundle):
    supervisor, said = Supervisor(), []
    gate = CommandGate(bundle.interface, supervisor, lambda *_: said.append("command"))
    supervisor.activate()
    assert supervisor.go(State.READY)
    assert supervisor.go(State.RUNNING)
    gate.begin(np.zeros(2))
    assert gate.drive(np.zeros(2), 0.0, before=lambda: said.append("record"))
    assert said == ["record", "command"]
    with pytest.raises(FaultError):
        gate.drive(np.array([np.nan, 0.0]), 0.1, before=lambda: said.append("record"))
    supervisor.fault("estop", "pressed")  # between the computation and the sending
    assert not gate.drive(np.zeros(2), 0.1, before=lambda: said.append("record"))
    assert said == ["record", "command"]


def test_a_gate_lets_nothing_through_that_is_no_number(bundle):
    supervisor = Supervisor()
    supervisor.activate()
    assert supervisor.go(State.READY)
    assert supervisor.go(State.RUNNING)
    sent = []
    gate = CommandGate(bundle.interface, supervisor, lambda command, _: sent.append(command))
    assert not gate.drive(np.zeros(2), 0.0)  # no session has begun
    gate.begin(np.zeros(2))
    with pytest.raises(FaultError, match=r"base_velocity\.1 would jump from 0 to nan"):
        gate.drive(np.array([0.1, np.nan]), 0.0)
    with pytest.raises(
        FaultError, match=r"base_velocity.0 would jump from 0 to 0.51, at most 0.5"
    ):
        gate.drive(np.array([0.51, 0.0]), 0.0)
    assert gate.drive(np.array([0.5, 0.0]), 0.0)
    assert len(sent) == 1


def test_nothing_is_braked_that_was_never_commanded(bundle):
    supervisor = Supervisor()
    sent = []
    gate = CommandGate(bundle.interface, supervisor, lambda command, _: sent.append(command))
    gate.begin(np.array([0.9, 0.0]))  # measured
    supervisor.fault("master_silent", "")
    assert not gate.brake(0.0)
    gate.repeat_rest(0.0)
    assert sent == []


# Emergency stop ---------------------------------------------------------------------------------

A, B = b"a" * 16, b"b" * 16
PANELS = {A: Publisher("/front", latched=True), B: Publisher("/back", latched=False)}


def stop_of(*words, max_age=None, panels=PANELS):
    stop = EmergencyStop(max_age)
    stop.publishers(panels, 0.0)
    for now, (panel, pressed) in enumerate(words):
        stop.hear(panel, pressed, float(now))
    return stop


@pytest.mark.parametrize(
    "words", list(itertools.product(itertools.product([A, B], [True, False]), repeat=4))
)
def test_a_panel_that_says_stop_holds_until_that_very_panel_lets_go(words):
    stop = stop_of(*words)
    last = dict(words)
    fault = stop.fault(99.0)
    assert (fault is not None) == any(last.values())
    if fault is not None:
        names = sorted(PANELS[panel].name for panel, pressed in last.items() if pressed)
        assert str(fault) == f"estop: topic 'estop' is true, from {', '.join(names)}"


def test_every_word_that_says_stop_is_an_event_whatever_follows():
    stop = EmergencyStop()
    assert stop.hear(A, True, 0.0, 7)
    assert not stop.hear(A, False, 0.0, 8)
    assert stop.hear(A, True, 0.0, 7)  # the same word by another subscription: it changes nothing
    assert stop.fault(0.0) is None


def test_a_panel_that_is_gone_holds_until_a_person_resets():
    stop = stop_of((A, True), (B, False))
    stop.publishers({B: PANELS[B]}, 2.0)
    stop.forget_released()
    assert "from a publisher that is gone" in str(stop.fault(9.0))
    assert stop.reset()
    assert stop.fault(9.0) is None
    assert not stop.reset()
    stop.hear(B, True, 9.0)
    assert not stop.reset()  # one that is there is not forgotten
    assert stop.fault(9.0) is not None


def test_words_without_a_name_are_released_by_a_single_panel_only():
    stop = stop_of((NOBODY, True), (NOBODY, False))
    assert stop.fault(9.0) is not None
    stop.publishers({A: PANELS[A]}, 9.0)
    stop.hear(NOBODY, False, 9.0)
    assert stop.fault(9.0) is None


def test_the_silence_of_any_required_panel_is_a_fault():
    stop = EmergencyStop(0.5)
    assert str(stop.fault(0.0)) == "estop_lost: topic 'estop' has no message yet"
    stop = stop_of((A, False), (B, False), max_age=0.5)
    stop.hear(B, False, 2.0)
    assert "silent for 2.00 s, from /front" in str(stop.fault(2.0))
    stop.publishers({B: PANELS[B]}, 2.0)
    assert "from a publisher that is gone" in str(stop.fault(2.0))
    stop.forget_released()
    assert stop.fault(2.0) is None


def test_a_required_panel_that_never_spoke_is_a_fault_that_names_it():
    """It may be dead since its start; the other one sends `false` all the time."""
    stop = EmergencyStop(0.5)
    stop.publishers({A: PANELS[A]}, 0.0)
    stop.hear(A, False, 9.8)
    stop.publishers(PANELS, 9.8)  # the second one is discovered
    stop.hear(A, False, 10.2)
    assert stop.fault(10.2) is None  # it has the same time to speak as between two messages
    assert stop.unheard() == "/back publishes 'estop' and has sent no message yet"  # no arming
    stop.publishers(PANELS, 10.3)  # seen again, which is no new discovery
    assert "estop_lost: topic 'estop' has no message from /back" in str(stop.fault(10.4))
    stop.hear(B, False, 10.4)
    assert stop.fault(10.4) is None
    assert stop.unheard() == ""


def test_what_nobody_listened_to_is_no_silence_of_a_panel():
    stop = EmergencyStop(0.5)
    stop.publishers(PANELS, 0.0)
    stop.hear(A, False, 1.0)
    assert "from /back, known for 1.00 s" in str(stop.fault(1.0))
    assert stop.fault(2.0, since=1.5) is None  # this process stood still from 1.0 to 1.5 s
    assert "silent for 0.51 s, from /front" in str(stop.fault(2.01, since=1.5))
    stop.hear(A, False, 2.1)
    assert "from /back, known for 0.60 s" in str(stop.fault(2.1, since=1.5))
    stop.hear(B, True, 2.1)
    assert stop.fault(2.1, since=2.1).name == "estop"  # a stop is one whatever stood still


def test_required_panels_that_cannot_be_told_apart_are_refused():
    stop = stop_of((NOBODY, False), max_age=0.5)
    assert stop.unheard().startswith("the publishers of 'estop' cannot be told apart")
    stop.publishers({A: PANELS[A]}, 0.0)
    assert stop.unheard() == ""


@pytest.mark.parametrize("max_age", [None, 0.5])
def test_what_passing_panels_said_does_not_pile_up(max_age):
    """`ros2 topic pub --once estop false` every second; one of them says `true`."""
    stop = EmergencyStop(max_age)
    for n in range(100):
        panel = n.to_bytes(16, "big")
        stop.publishers({panel: PANELS[B]}, float(n))
        if max_age is not None:  # where the loss of a panel is a fault, skill_node's part
            stop.forget_released(n - KEPT)
        stop.hear(panel, n == 50, float(n))
    assert len(stop._words) <= 4
    assert stop.pressed


def test_a_word_that_is_newer_than_the_list_of_publishers_is_kept():
    stop = EmergencyStop()
    stop.hear(A, False, 5.0)
    stop.publishers({}, 5.1)
    stop.publishers({A: PANELS[A]}, 5.2)
    assert stop.unheard() == ""


def test_a_latched_panel_that_has_said_nothing_is_named():
    stop = stop_of((B, False))
    assert stop.unheard() == "/front publishes 'estop', latched, and has sent no message yet"
    stop.hear(A, False, 1.0)
    assert stop.unheard() == ""


@pytest.mark.parametrize("max_age", [None, 0.5])
def test_a_panel_of_another_type_is_a_fault_that_names_it(max_age):
    """Its messages are delivered to nobody, whatever they say."""
    odd = Publisher("/odd", latched=False, kind="std_msgs/msg/Int8")
    stop = EmergencyStop(max_age)
    stop.publishers({A: PANELS[A], B: odd}, 0.0)
    stop.hear(A, False, 0.0)
    assert str(stop.fault(0.0)) == (
        "estop_lost: /odd publishes 'estop' as std_msgs/msg/Int8, which nobody hears; "
        "std_msgs/msg/Bool is expected"
    )
    stop.hear(A, True, 0.0)
    assert stop.fault(0.0).name == "estop"  # a stop that is heard comes first
    stop.hear(A, False, 0.0)
    stop.publishers({A: PANELS[A]}, 0.1)
    assert stop.fault(0.1) is None


# Heartbeat --------------------------------------------------------------------------------------


def beat(received, *, active=True, heard=0, instance=1, interface=7, simulated=False):
    return Beat(instance, interface, simulated, active, False, heard, 0.25, None, received)


def test_a_watchdog_that_is_silent_asleep_or_deaf_is_lost():
    heart = Heartbeat(7, simulated=False)
    assert "no heartbeat" in str(heart.fault(0.0, 0.0, 0))
    heart.hear(beat(1.0), 0)
    assert heart.fault(1.5, 0.0, 0) is None
    assert "came 0.51 s ago, at most 0.5 s" in str(heart.fault(1.51, 0.0, 0))
    heart.hear(beat(2.0, active=False), 0)
    assert "not active" in str(heart.fault(2.0, 0.0, 0))
    assert heart.fault(2.0, 0.0, 0, braking=True) is None  # it watches until the robot is at rest
    heart.hear(beat(2.5), 9)
    assert "has not received the last 9 commands on every topic" in str(heart.fault(2.5, 0.0, 9))
    heart.hear(beat(2.6, heard=1), 9)
    assert heart.fault(2.7, 0.0, 30) is None  # no time yet to say so
    heart.hear(beat(3.0, heard=31), 31)
    assert heart.fault(3.4, 0.0, 35) is None


def test_a_watchdog_that_has_tripped_is_a_fault_whatever_its_state_topic_says():
    heart = Heartbeat(7, simulated=False)
    heart.hear(replace(beat(1.0), tripped=True), 0)
    assert str(heart.fault(1.0, 0.0, 0)) == "watchdog: watchdog_node is tripped; reset it first"
    assert heart.fault(1.0, 0.0, 0, braking=True) is None  # who brakes is known to the gate
    heart.hear(beat(1.1), 0)
    assert heart.fault(1.1, 0.0, 0) is None


def test_the_time_that_a_watchdog_may_be_deaf_begins_with_the_session():
    """At 100 Hz nine commands are 90 ms."""
    heart = Heartbeat(7, simulated=False)
    for n in range(100):  # nobody commands anything
        heart.hear(beat(0.1 * n, heard=50), 50)
    heart.follow(50)
    assert all(heart.fault(9.9 + 0.01 * n, 0.0, 50 + n) is None for n in range(1, 50))
    heart.hear(beat(10.4, heard=50), 100)
    assert "has not received the last 50 commands" in str(heart.fault(10.41, 0.0, 100))


def test_what_skill_node_did_not_listen_to_is_no_silence_of_its_watchdog():
    heart = Heartbeat(7, simulated=False)
    heart.hear(beat(1.0), 0)
    assert "came 1.00 s ago" in str(heart.fault(2.0, 0.0, 0))
    assert heart.fault(2.0, 1.5, 0) is None  # skill_node stood still from 1.0 to 1.5 s
    assert "came 0.51 s ago" in str(heart.fault(2.01, 1.5, 0))
    heart.hear(beat(2.01), 50)
    assert heart.fault(2.01, 1.6, 50) is None  # nor has it had the time to hear of commands
    assert "has not received the last 50" in str(heart.fault(2.2, 1.6, 50))


def test_a_watchdog_of_another_robot_or_clock_or_a_second_one_is_named():
    heart = Heartbeat(7, simulated=False)
    heart.hear(beat(1.0, interface=8), 0)
    assert "watches another interface" in str(heart.fault(1.0, 0.0, 0))
    heart.hear(beat(1.1, simulated=True), 0)
    assert "goes by simulated time" in str(heart.fault(1.1, 0.0, 0))
    heart = Heartbeat(7, simulated=False)
    for moment in (1.0, 1.1):
        heart.hear(beat(moment, instance=1), 0)
    heart.hear(beat(1.15, instance=2), 0)  # started again after the first was killed
    assert heart.fault(1.2, 0.0, 0) is None
    heart.hear(beat(1.2, instance=1), 0)  # but that one lives
    assert "two processes watchdog_node send heartbeats" in str(heart.fault(1.2, 0.0, 0))
    for moment in (1.5, 1.8, 2.1):
        heart.hear(beat(moment, instance=2), 0)
    assert heart.fault(2.1, 0.0, 0) is None


def test_what_a_watchdog_said_counts_as_long_as_it_is_newer_than_the_command():
    heart = Heartbeat(7, simulated=False)
    assert heart.follow() is None
    assert heart.watch(0.0, 0.0, 0.0) is None
    heart.hear(beat(1.0), 0)
    assert heart.follow().received == 1.0
    for _ in range(3):
        heart.hear(beat(1.1, instance=2), 0)  # of another one
    # It has heard nothing in this session: it cannot brake, and has brought nobody to rest.
    assert heart.watch(1.4, 0.0, 0.8) == WatchdogReport(False, False, None)
    heart.hear(beat(1.0, heard=1), 1)  # it has, and was reset since, which is possible at rest
    assert heart.watch(1.4, 0.0, 0.8) == WatchdogReport(True, True, None)
    assert heart.watch(1.4, 0.0, 0.95) == WatchdogReport(True, False, None)
    assert not heart.watch(1.6, 0.0, 0.8).lives
    heart.hear(replace(beat(1.5), tripped=True), 0)  # and knows no command: it cannot brake
    assert heart.watch(1.6, 0.0, 0.8) == WatchdogReport(False, False, None)
    heart.hear(beat(1.0, heard=1), 1)
    assert heart.watch(1.6, 1.2, 0.8).lives  # heard nothing, as this process stood still


@pytest.mark.parametrize("late", [0, 3])
def test_what_a_watchdog_knows_of_an_earlier_session_says_nothing_of_this_one(late):
    """DDS connects the two a moment after the first command: it knows that one is safe."""
    heart, safe = Heartbeat(7, simulated=False), np.zeros(2)
    heart.hear(replace(beat(1.0, heard=50), command=safe), 50 + late)
    heart.follow(50 + late)
    # The last ones of the earlier session come late, or after the heartbeat.
    heart.hear(replace(beat(1.1, heard=50 + late), command=safe), 50 + late)
    heart.hear(replace(beat(1.5, heard=50 + late), command=safe), 51 + late)
    assert heart.watch(1.5, 0.0, 1.2) == WatchdogReport(False, False, safe)
    heart.hear(replace(beat(1.5, heard=51 + late), command=safe), 52 + late)
    assert heart.watch(1.5, 0.0, 1.2) == WatchdogReport(True, True, safe)
    heart.hear(replace(beat(1.5, heard=50 + late), command=safe, tripped=True), 52 + late)
    assert heart.watch(1.5, 0.0, 1.2) == WatchdogReport(True, True, safe)  # by which it brakes
    heart.hear(beat(1.5, heard=50 + late), 52 + late)  # and is reset, which is possible at rest
    assert heart.watch(1.5, 0.0, 1.2) == WatchdogReport(True, True, None)
    heart.follow(52 + late)
    assert heart.watch(1.5, 0.0, 1.2) == WatchdogReport(False, False, None)


def test_a_watchdog_that_keeps_a_trip_at_rest_knows_no_command(bundle):
    """It commands nothing: a robot that moves has commands that it does not hear."""
    watchdog = Watchdog(small(bundle.interface, 0.0), PATIENCE)
    assert not watchdog.known
    watchdog.hear(np.zeros(2), 0.0)
    assert watchdog.known
    watchdog.fail("the emergency stop topic was not read")
    assert not watchdog.known
    watchdog.hear(np.array([0.5, 0.0]), 0.1)
    assert watchdog.known
    assert watchdog.look(0.1)  # it brakes
