"""Whether the robot may move, and why not.

DISARMED -(arm)-> READY -(start)-> RUNNING -(stop)-> STOPPING -> READY; from any of them FAULT,
which stays until it is reset, and then leads to DISARMED. Nothing here moves anything: the node
asks before every command.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """What the skill node is doing."""

    DISARMED = "disarmed"  # not active, or not armed yet
    READY = "ready"  # armed, waits for `start`
    RUNNING = "running"  # commands the robot
    STOPPING = "stopping"  # bringing it to the safe command
    FAULT = "fault"  # latched


_NEXT = {
    State.DISARMED: {State.READY},
    State.READY: {State.RUNNING, State.DISARMED},
    State.RUNNING: {State.STOPPING},
    State.STOPPING: {State.READY, State.DISARMED},
    State.FAULT: {State.DISARMED},
}


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

    def go(self, state: State) -> bool:
        """Change to `state` if that is allowed from the current one; says whether it was."""
        with self._lock:
            if state not in _NEXT[self._status.state]:
                return False
            self._status = Status(state)
            self._on_change(self._status)
        return True

    def fault(self, name: str, detail: str) -> None:
        """Latch a fault; the first one stays, because it is the cause."""
        with self._lock:
            if self._status.state is State.FAULT:
                return
            self._status = Status(State.FAULT, name, detail)
            self._on_change(self._status)
