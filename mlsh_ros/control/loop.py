"""Drivers of the control step: an absolute time grid, or a simulator in lockstep. No ROS."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from mlsh_ros.control.clock import PRECISE, Clock, Time, read_together
from mlsh_ros.control.control_step import ControlStep, SessionEndedError
from mlsh_ros.control.controller import Controller, Request, Tick
from mlsh_ros.control.faults import FaultError
from mlsh_ros.control.safety_monitor import SafetyMonitor
from mlsh_ros.control.sensor_buffer import SensorBuffer
from mlsh_ros.control.tick_schedule import TickSchedule
from sim.interface import Floats

RETRY = 0.5  # s between two questions to a silent master
LOCKSTEP_PATIENCE = 10.0  # s without a sensor or a decision before a lockstep session gives up


@dataclass(frozen=True)
class TickRecord:
    """A tick with its timing, in seconds."""

    tick: Tick
    missed: int  # ticks left out just before
    lateness: float  # how long after its moment it began
    compute: float  # from there until the command was out, of the system's time


class LoopIO(Protocol):
    """Output of the control loop."""

    def request_decision(self, request: Request) -> None:
        """Send a request to the master."""

    def begin_session(self, initial: Floats) -> None:
        """Begin the session; the robot's measured state corresponds to this command (A,)."""

    def send_command(
        self,
        command: Floats,
        stamp: int | None = None,
        before: Callable[[], None] = lambda: None,
    ) -> bool:
        """Send the command (A,) at once; False if motion is not permitted any more.

        Args:
            command: of the tick.
            stamp: ns, in lockstep; None: now.
            before: called just before the command is sent.
        """

    def publish_tick(self, done: TickRecord) -> None:
        """Publish the record of a tick; may be deferred."""


class _Driver:
    """Common part of both loops: waiting for sensors, and for the master."""

    def __init__(
        self,
        controller: Controller,
        sensors: SensorBuffer,
        safety_monitor: SafetyMonitor,
        io: LoopIO,
        new_data: threading.Condition,
        stop: threading.Event,
        *,
        clock: Time | None = None,
    ) -> None:
        self.controller, self.sensors, self.safety_monitor = controller, sensors, safety_monitor
        self.io, self.new_data, self.stop = io, new_data, stop
        self.clock: Time = clock or Clock()
        self._step = ControlStep(controller, self._decide, safety_monitor.check, io.begin_session)
        self._question: Request | None = None  # the newest one

    def wait(self, happened: Callable[[], bool], timeout: float) -> bool:
        """Wait for a condition or the end of the session; False after the timeout."""
        with self.new_data:
            return self.new_data.wait_for(lambda: happened() or self.stop.is_set(), timeout)

    def decide(self, request: Request | None, timeout: float, since: float | None = None) -> None:
        """Send a request to the master, and wait for this tick's decision if it is missing.

        The request is repeated, because it is lost while the master has not been discovered yet.

        Args:
            request: None: none is due.
            timeout: s.
            since: s, steady, from when on it counts; None: now.

        Raises:
            FaultError: no decision in time.
        """
        if request is not None:
            self._question = request
            self.io.request_decision(request)
        deadline = (self.clock.steady() if since is None else since) + timeout

        def left() -> float:
            return max(deadline - self.clock.steady(), 0.0)

        while not self.wait(lambda: not self._undecided(), min(RETRY, left())):
            if left() <= PRECISE:
                raise FaultError(
                    "master_silent",
                    f"no decision for tick {self.controller.tick} within {timeout:g} s"
                    + ("" if since is None else " of the start, sensors included"),
                )
            if self._question is not None:
                self.io.request_decision(self._question)

    def _decide(self, request: Request | None) -> None:
        raise NotImplementedError

    def _undecided(self) -> bool:
        return self.controller.schedule.pending_decision(self.controller.tick) is not None


class ControlLoop(_Driver):
    """Drives one robot in real or simulated time, session by session.

    Args:
        controller: computes the ticks.
        sensors: the newest values.
        safety_monitor: what must hold.
        io: where commands, questions and reports go.
        new_data: guards the controller's decisions and is notified of new ones, and of sensors.
        stop: set to end the session.
        start_timeout: s that the sensors and the first decision may take together.
        clock: what ticks and ages go by.
    """

    def __init__(
        self,
        controller: Controller,
        sensors: SensorBuffer,
        safety_monitor: SafetyMonitor,
        io: LoopIO,
        new_data: threading.Condition,
        stop: threading.Event,
        *,
        start_timeout: float,
        clock: Time | None = None,
    ) -> None:
        super().__init__(controller, sensors, safety_monitor, io, new_data, stop, clock=clock)
        self.start_timeout = start_timeout

    def run(self) -> None:
        """Run one session, until it is stopped.

        Raises:
            FaultError: a rule is violated; the command of that tick has not been sent.
            ValueError: the controller met a value that must not be used.
        """
        self.clock.start_session()
        self.safety_monitor.begin_session()
        began = self.clock.steady()
        # Samples that grew old while the thread was being prepared are followed by newer ones.
        if not self.wait(lambda: not self._stale(self.clock.now()), self.start_timeout):
            if unheard := ", ".join(self.sensors.unheard()):
                raise FaultError(
                    "sensors_missing", f"nothing usable within {self.start_timeout:g} s: {unheard}"
                )
            self._check_sensors(self.clock.now())
        if self.stop.is_set():
            return
        # The first decision may take long; the ticks begin when it has arrived.
        with self.new_data:
            request = self.controller.observe(self.sensors.fields())
        self.decide(request, self.start_timeout, began)
        grid, missed = TickSchedule(self.controller.interface.control_dt, self.clock.now()), 0
        while self.clock.sleep_until(grid.due, self.stop, self.new_data):
            missed += grid.catch_up(self.clock.now())
            self._tick(grid.due, missed)
            missed = grid.advance(self.clock.now())

    def _tick(self, due: float, missed: int) -> None:
        began = self.clock.steady()
        now, system = read_together(self.clock)
        self.safety_monitor.check_timing(now, system, missed)
        self._check_sensors(now)
        fields = self.sensors.fields()
        with self.new_data:
            tick = self._step(fields, now)
        if self.io.send_command(tick.command):  # else nothing has left, and nothing is told
            self.io.publish_tick(TickRecord(tick, missed, now - due, self.clock.steady() - began))

    def _decide(self, request: Request | None) -> None:
        if request is None or request.tick == 0:  # the first is decided before the ticks begin
            return
        self.io.request_decision(request)
        if self._undecided():
            # Only with decision_lead 0: the tick itself waits, but not for ever.
            patience = self.clock.now() + self.controller.interface.control_dt / 2
            while self._undecided() and not self.clock.reached(patience):
                self.clock.wait(self.new_data, patience)

    def _stale(self, now: float) -> list[str]:
        return self.sensors.stale(now, self.clock.stamping())

    def _check_sensors(self, now: float) -> None:
        if stale := self._stale(now):
            raise FaultError("sensors_stale", ", ".join(stale))


class LockstepLoop(_Driver):
    """Drives a simulation that waits for the command of every tick.

    The arguments are those of `ControlLoop`.
    """

    answered = -1  # ns, stamp of the sensors that the newest tick answered

    def run(self) -> None:
        """Run one session, until it is stopped.

        Raises:
            FaultError: a rule is violated, or the simulator or the master is silent.
            ValueError: the controller met a value that must not be used.
        """
        self.safety_monitor.begin_session()
        while True:
            with self.new_data:
                if not self.wait(self._shown, LOCKSTEP_PATIENCE):
                    raise FaultError("sensors_stale", "the simulator sends nothing more")
                if self.stop.is_set():
                    return
                self.answered = stamp = self.sensors.complete_stamp() or 0
                try:
                    tick = self._step(self.sensors.fields(), stamp * 1e-9)
                except SessionEndedError:
                    return
                # Published before the command, so that the tick's record precedes its outcome.
                record = TickRecord(tick, 0, 0.0, 0.0)
                self.io.send_command(tick.command, stamp, partial(self.io.publish_tick, record))

    def forget_later_stamps(self) -> None:
        """A session is to begin: the simulator may have been started again, at an earlier time."""
        if (self.sensors.complete_stamp() or 0) < self.answered:
            self.answered = -1

    def _shown(self) -> bool:
        """True if all sensors have the same stamp, which no session has answered yet."""
        stamp = self.sensors.complete_stamp()
        return stamp is not None and stamp > self.answered

    def _decide(self, request: Request | None) -> None:
        self.decide(request, LOCKSTEP_PATIENCE)
        if self.stop.is_set():
            raise SessionEndedError
