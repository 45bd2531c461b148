"""The state machine of arming: whether the robot may move, and the reason if not.

DISARMED -(arm)-> READY -(start)-> RUNNING -(stop)-> STOPPING -> READY; from any of them FAULT,
which stays until it is reset, and then leads to DISARMED. READY and RUNNING need an active node:
`activate` begins in DISARMED and `deactivate` returns there, but for a fault, which stays latched.
Nothing here moves anything: `command_gate` asks before every command.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """State of skill_node."""

    DISARMED = "disarmed"  # not armed
    READY = "ready"  # armed, waits for `start`
    RUNNING = "running"  # commands the robot
    STOPPING = "stopping"  # bringing it to the safe command
    FAULT = "fault"  # latched


_NEXT = {
    State.DISARMED: {State.READY},
    State.READY: {State.RUNNING, State.DISARMED},
    State.RUNNING: {State.STOPPING},
    State.STOPPING: {State.READY, State.DISARMED},
    State.FAULT: set(),  # `reset` alone leaves it
}
_NEED_ACTIVE = (State.READY, State.RUNNING)


@dataclass(frozen=True)
class Status:
    """State and, in a fault, its name and cause."""

    state: State
    fault: str = ""
    detail: str = ""


class Supervisor:
    """The state machine; thread safe.

    Args:
        on_change: called with the new status after every change, in the thread that changed it;
            in the order of the changes, and not to change the state itself.
    """

    def __init__(self, on_change: Callable[[Status], None] = lambda _: None) -> None:
        self._status = Status(State.DISARMED)
        self._active = False
        self._lock = threading.Lock()
        self._on_change = on_change

    @property
    def status(self) -> Status:
        """The current status."""
        return self._status

    @property
    def state(self) -> State:
        """The current state."""
        return self._status.state

    @property
    def active(self) -> bool:
        """True if the node is active in the sense of its lifecycle."""
        return self._active

    @property
    def may_drive(self) -> bool:
        """True if a command of a skill may be sent."""
        return self._active and self.state is State.RUNNING

    @property
    def may_brake(self) -> bool:
        """True if a command on the way to the safe one may be sent."""
        return self.state in (State.STOPPING, State.FAULT)

    def activate(self) -> None:
        """Activate the node: it may be armed."""
        with self._lock:
            self._active = True

    def deactivate(self) -> None:
        """Deactivate the node: no session may begin, and a running one must stop."""
        with self._lock:
            self._active = False
            after = {State.READY: State.DISARMED, State.RUNNING: State.STOPPING}
            if self.state in after:
                self._change(Status(after[self.state]))

    def go(self, state: State, permitted: Callable[[], bool] = lambda: True) -> bool:
        """Change the state if that is allowed from the current one; True if it changed.

        Args:
            state: the new one.
            permitted: whether nothing has happened that forbids it; asked while no other thread
                can change the state.
        """
        with self._lock:
            if state not in _NEXT[self.state] or (state in _NEED_ACTIVE and not self._active):
                return False
            if not permitted():
                return False
            self._change(Status(state))
        return True

    def rest(self) -> None:
        """Change to READY after the robot has come to rest, or to DISARMED if not active."""
        with self._lock:
            if self.state is State.STOPPING:
                self._change(Status(State.READY if self._active else State.DISARMED))

    def reset(self) -> bool:
        """Change from FAULT to DISARMED, by a person; False in any other state."""
        with self._lock:
            if self.state is not State.FAULT:
                return False
            self._change(Status(State.DISARMED))
        return True

    def fault(self, name: str, detail: str, only_in: Collection[State] = tuple(State)) -> None:
        """Latch a fault; the first one is kept, because it is the cause.

        Args:
            name: of the fault.
            detail: its cause.
            only_in: states in which it is a fault.
        """
        with self._lock:
            if self.state is not State.FAULT and self.state in only_in:
                self._change(Status(State.FAULT, name, detail))

    def _change(self, status: Status) -> None:
        self._status = status
        self._on_change(status)
