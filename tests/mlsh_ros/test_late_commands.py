"""A pause of skill_node between the check of a command and its topic. Nothing here takes time."""

import math
from functools import partial
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest

from mlsh_ros.control.command_gate import CommandGate, WatchdogReport
from mlsh_ros.control.faults import FaultError
from mlsh_ros.control.supervisor import State, Supervisor
from mlsh_ros.control.watchdog import Watchdog
from mlsh_ros.messages import conversion

DT = 0.1


class Held:
    """skill_node's way from the check of a command to its topic, and a pause somewhere on it."""

    PATIENCE = 2.5 * DT

    def __init__(self, monkeypatch, bundle, *, watched, lives=True):
        module = pytest.importorskip("mlsh_ros.nodes.skill_node")
        commander = pytest.importorskip("mlsh_ros.nodes.commander")
        self.clock, self.at, self.long, self.places = 7.0, None, 0.0, set()
        for each in (module, commander):
            monkeypatch.setattr(each, "steady_time", lambda: self.clock, raising=False)
        interface = self.interface = bundle.interface
        self.wire = []  # (s, command)
        node = mock.MagicMock()
        node.create_publisher = lambda *_: SimpleNamespace(publish=self._publish)
        writers = conversion.command_writers(interface.action, stamped=True)
        sender = commander.Commander(node, writers, lifecycle=False)
        write = writers[0].write
        sender._writers = [
            SimpleNamespace(
                indices=writers[0].indices,
                write=lambda *command: (self.place("message"), write(*command)),
            )
        ]
        self.supervisor = Supervisor()
        self.supervisor.activate()
        assert self.supervisor.go(State.READY)
        assert self.supervisor.go(State.RUNNING)
        self.node = SimpleNamespace(
            _commander=sender,
            _safety=SimpleNamespace(deaf=lambda: self.place("before the check")),
            _stamp=lambda: self.place("stamp") or 0,
            time=SimpleNamespace(now=lambda: self.clock),
        )
        for name in ("now", "_publish", "send_command"):
            setattr(self.node, name, partial(getattr(module.SkillNode, name), self.node))
        report = WatchdogReport(lives=lives, newer=False, command=None)
        self.gate = self.node.gate = CommandGate(
            interface, self.supervisor, self.node._publish, lambda: report, paced=True
        )
        self.gate.begin(np.zeros(2), self.PATIENCE if watched else None)

    def place(self, name):
        self.places.add(name)
        if self.at == name:
            self.clock += self.long

    def _publish(self, message):
        self.wire.append((self.clock, message.twist.linear.x))

    def drive(self, command):
        before = lambda: self.place("record")  # noqa: E731
        return self.node.send_command(np.array([command, 0.0]), None, before)


@pytest.mark.parametrize("long", [0.01, 0.15, 0.22, 0.3, 3600.0])
@pytest.mark.parametrize("place", ["before the check", "record", "stamp", "message"])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("watched", [True, False])
def test_no_command_that_was_checked_before_a_pause_leaves_after_it(
    monkeypatch, bundle, place, long, first, watched
):
    """The process is stopped, and goes on: watchdog_node brakes the robot meanwhile."""
    held = Held(monkeypatch, bundle, watched=watched)
    if not first:
        assert held.drive(0.4)
        held.clock += DT
    sent, force, age = len(held.wire), held.gate.command, 0.0 if first else DT
    held.at, held.long = place, long
    # What watchdog_node permits since the last command; where there is none, since the check.
    limit = 0.9 * held.PATIENCE - (age if watched else 0.0)
    if place == "before the check" and (first or not watched):
        limit = math.inf  # the command is of after the pause
    if long < limit:
        assert held.drive(0.8 if sent else 0.4)
        assert len(held.wire) == sent + 1
        return
    with pytest.raises(FaultError) as refused:
        held.drive(0.8 if sent else 0.4)
    assert refused.value.name == "deadline"
    # Nothing has left, and what is in force is as before.
    assert len(held.wire) == sent
    assert held.gate.command is force
    held.supervisor.fault("deadline", "")
    held.at = None
    assert held.gate.brake(held.node.now()) == (not first)
    assert len(held.wire) == sent + (not first and not watched)  # watchdog_node has the robot


@pytest.mark.parametrize("place", ["stamp", "message"])
@pytest.mark.parametrize("long", [0.15, 3600.0])
def test_no_braking_command_of_before_a_pause_leaves_after_it(monkeypatch, bundle, place, long):
    held = Held(monkeypatch, bundle, watched=True)
    assert held.drive(0.5)
    held.clock += DT
    assert held.drive(1.0)
    held.clock += DT
    held.supervisor.fault("estop", "pressed")
    held.at, held.long = place, long
    with pytest.raises(FaultError, match="a command was held up before it left"):
        held.gate.brake(held.node.now())
    assert [command for _, command in held.wire] == [0.5, 1.0]
    assert held.gate.command[0] == 1.0
    assert held.gate.brake(held.node.now())  # watchdog_node has the robot
    assert len(held.wire) == 2


@pytest.mark.parametrize("place", ["stamp", "message"])
@pytest.mark.parametrize("how", [{"watched": False}, {"watched": True, "lives": False}], ids=str)
def test_braking_goes_on_late_where_nobody_else_brakes(monkeypatch, bundle, place, how):
    """Each command is held up: one that leaves late is better than none."""
    held = Held(monkeypatch, bundle, **how)
    assert held.drive(0.5)
    held.clock += DT
    held.supervisor.fault("estop", "pressed")
    held.at, held.long = place, 0.3
    for _ in range(5):
        try:
            if not held.gate.brake(held.node.now()):
                break
        except FaultError:  # the first: a watchdog_node that has died may still have lived
            assert how["watched"]
            assert len(held.wire) == 1
    assert held.wire[-1][1] == 0.0


def test_each_place_of_a_pause_is_passed(monkeypatch, bundle):
    held = Held(monkeypatch, bundle, watched=True)
    assert held.drive(0.4)
    assert held.places == {"before the check", "record", "stamp", "message"}


def test_a_braking_command_of_the_watchdog_that_was_held_up_has_not_brought_it_to_rest(bundle):
    watchdog = Watchdog(bundle.interface, 0.25)
    force = np.array([0.1, 0.0])  # one step from rest
    watchdog.command = force.copy()
    watchdog.refuse("a test")
    held_up = FaultError("deadline", "a command was held up before it left")
    with pytest.raises(FaultError), watchdog.braking(9.0):
        raise held_up
    np.testing.assert_array_equal(watchdog.command, force)
    assert not watchdog.at_rest
    for n in range(9):
        with watchdog.braking(9.1 + n / 10):
            pass
    assert watchdog.at_rest
