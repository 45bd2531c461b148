"""A session: one thread that drives the robot and always brings it to rest at its end.

Knows no ROS. What the thread does is `drive`; when that returns or raises, braking goes on, one
command a tick and each within the rate limit, until the robot is at rest or watchdog_node has
taken over. No time-out cuts it short.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from mlsh_ros.control.command_gate import CommandGate
from mlsh_ros.control.faults import FaultError
from mlsh_ros.control.supervisor import State, Supervisor

FAILURES = 3  # braking commands in a row that could not be sent, after which watchdog_node has to


class Pace(Protocol):
    """Clock for braking."""

    def now(self) -> float:
        """Time by the clock of the ticks, s."""

    def wait_a_tick(self) -> None:
        """Wait for one control period."""


class Session:
    """Begins and ends sessions, one at a time.

    Args:
        supervisor: of the robot's states.
        gate: for the commands.
        drive: drives until `stop` is set; may raise.
        pace: of braking.
        stop: set to end a session.
        wake: wakes whatever `drive` waits for.
        failed: called with one line if a braking command could not be sent.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        gate: CommandGate,
        drive: Callable[[], None],
        pace: Pace,
        stop: threading.Event,
        wake: Callable[[], None],
        failed: Callable[[str], None],
    ) -> None:
        self._supervisor, self._gate, self._drive, self._pace = supervisor, gate, drive, pace
        self._stop, self._wake, self._failed = stop, wake, failed
        self._thread: threading.Thread | None = None
        self.failure = ""  # why the last session's commands did not bring the robot to rest
        self._turn = threading.RLock()  # one session begins or ends at a time

    def start(self, prepare: Callable[[], None]) -> bool:
        """Change from READY to RUNNING; False, without effect, in any other state.

        Args:
            prepare: called in RUNNING, before the thread begins.
        """
        with self._turn:
            if self._supervisor.state is not State.READY:
                return False
            self._join()
            self.failure = ""
            self._stop.clear()  # before RUNNING: a fault from now on sets it again
            if not self._supervisor.go(State.RUNNING):
                return False
            prepare()
            thread = threading.Thread(target=self._run, name="tick", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # the system has no more threads; nothing moves
                self._supervisor.fault("internal", str(error))
                return False
            self._thread = thread
            return True

    def end(self) -> str:
        """Bring the robot to rest; returns when it is at rest, however long that takes.

        Returns:
            Why that failed, in this or an earlier call, since the session began; empty if it did
            not.
        """
        with self._turn:
            self._stop.set()
            self._wake()
            self._join()
            return self.failure

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        try:
            self._drive()
        except FaultError as fault:
            self._supervisor.fault(fault.name, fault.detail)
        except ValueError as error:  # the core's word for a value that must not be used
            self._supervisor.fault("invalid_value", str(error))
        except Exception as error:  # whatever it is, the robot must not keep its command
            self._supervisor.fault("internal", f"{type(error).__name__}: {error}")
        finally:
            self._supervisor.go(State.STOPPING)
            self.failure = self._brake()
            if self.failure:
                self._supervisor.fault("internal", self.failure)
            self._gate.close()
            self._supervisor.rest()

    def _brake(self) -> str:
        """Brake to rest; returns why that failed, so that watchdog_node has to, or ""."""
        failures, text = 0, ""
        while failures < FAILURES:
            try:
                if not self._gate.brake(self._pace.now()):
                    # Once more: the last command is the one that must not be lost.
                    self._gate.repeat_rest(self._pace.now())
                    return ""
                failures = 0
            except Exception as error:
                failures += 1
                text = f"a braking command could not be sent: {error}"
                self._failed(text)
            self._pace.wait_a_tick()
        return text
