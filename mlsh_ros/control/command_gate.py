"""The only path for commands: checks the state and refuses a step beyond the limit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mlsh_ros.control.faults import FaultError
from mlsh_ros.control.supervisor import Supervisor
from mlsh_ros.messages.command_limits import is_safe
from sim.interface import Floats, Interface

Send = Callable[[Floats, "int | None"], None]
ROUNDING = 1e-9  # relative and absolute, of a step that is exactly as large as the rate limit
FRESH = 0.9  # of the watchdog's patience for which a command counts as being in force
UNWATCHED = 2.5  # control periods in place of that patience where nobody watches


@dataclass(frozen=True)
class WatchdogReport:
    """Content of the newest heartbeat of watchdog_node."""

    lives: bool  # no: it has ended, or does not watch any more
    newer: bool  # than the newest command of this session
    command: Floats | None  # (A,) last heard, or by which it brakes; None: of none since a reset


class CommandGate:
    """Stores the command in force, and publishes the next one if it is permitted.

    A session begins with `begin`, continues with `drive`, and ends with `brake` until that returns
    False. In every case a command differs from the previous one by no more than the rate limit,
    because braking begins from the last command that was sent; if none was sent, none is needed.

    If the last command is so old that watchdog_node may already be braking the robot, nothing is
    sent while watchdog_node is alive: braking from two different commands would make the robot
    jump. If it ends before the robot is at rest, braking continues from its last command.

    Braking begins between two ticks. Its first step is the part of one that has passed since the
    last command, so that two commands never follow each other faster than the rate limit permits.

    Args:
        interface: with limits, rate limits and the safe command.
        supervisor: of the robot's states.
        send: publishes a command.
        watch: returns the newest heartbeat of watchdog_node.
        paced: whether time passes by itself; in lockstep each command is a tick.
    """

    def __init__(
        self,
        interface: Interface,
        supervisor: Supervisor,
        send: Send,
        watch: Callable[[], WatchdogReport | None] = lambda: None,
        *,
        paced: bool = False,
    ) -> None:
        self.interface, self._supervisor, self._send = interface, supervisor, send
        self._watch, self._paced = watch, paced
        self._driven = False  # the command in force is one of a tick
        self._step = interface.rate_step * (1 + ROUNDING) + ROUNDING  # (A,)
        self.command: Floats | None = None  # (A,) in force; None: this session has sent none
        self._before: Floats | None = None  # (A,) that the first command follows
        self._patience: float | None = None
        self._given_away = False  # watchdog_node has tripped
        self._sent = 0.0  # s, when the last one was
        self.leeway = math.inf  # s within which a command must leave after its check, see `_put`
        self.count = 0  # commands sent, in all sessions

    def begin(self, initial: Floats, patience: float | None = None) -> None:
        """Begin a session at the robot's measured state.

        Args:
            initial: (A,) the command that the robot's measured state corresponds to.
            patience: s after which watchdog_node brakes; None: no watchdog.
        """
        self.command, self._before, self._patience = None, initial, patience
        self._given_away = self._driven = False

    def close(self) -> None:
        """End the session: no command is in force."""
        self.command = self._before = None

    def hand_over(self) -> None:
        """Leave braking to watchdog_node, which has tripped, while it is alive."""
        self._given_away = True

    def drive(
        self,
        command: Floats,
        now: float,
        stamp: int | None = None,
        before: Callable[[], None] = lambda: None,
    ) -> bool:
        """Send the command (A,) of a tick; False, without sending, if motion is not permitted.

        Args:
            command: that has passed `Interface.command`.
            now: s, by the clock of the ticks.
            stamp: ns, see `send`.
            before: called just before the command is sent.

        Raises:
            FaultError: it does not follow the command in force, or that one is too old.
        """
        if not self._supervisor.may_drive or self._before is None or self._given_away:
            return False
        if self._handed_over(now):
            raise FaultError(
                "deadline",
                f"the last command was sent {now - self._sent:.3f} s ago, and watchdog_node "
                f"brakes the robot after {self._patience:g} s",
            )
        last = self._before if self.command is None else self.command
        step = np.abs(command - last)
        if not (step <= self._step).all():  # so that NaN is beyond, too
            i = int(np.argmax(np.where(np.isnan(step), np.inf, step - self._step)))
            raise FaultError(
                "internal",
                f"{self.interface.action_names[i]} would jump from {last[i]:.4g} to "
                f"{command[i]:.4g}, at most {self.interface.rate_step[i]:.4g} a tick is allowed",
            )
        before()
        self._driven = True
        self._put(command, now, stamp)
        return True

    def brake(self, now: float, stamp: int | None = None) -> bool:
        """Send the next command on the way to the safe one; False: braking is complete.

        That is so at rest, by whomever, and where this session has sent nothing. While
        watchdog_node brakes nothing is sent.
        """
        if self.command is None or not self._supervisor.may_brake:
            return False
        watch = self._watch() if self._handed_over(now) else None
        if watch is not None and watch.newer:
            # To there it has brought the robot; it is reset at rest only. Its own rest is by the
            # precision of a message, and it goes no farther.
            brought = watch.command
            if brought is None or is_safe(self.interface, brought):
                brought = self.interface.safe_command
            self.command, self._driven = brought, False
        if self._at_rest:
            return False
        if watch is None or not watch.lives:
            # Where nobody else brakes the robot, a late command is better than none.
            alone = self._patience is None or watch is not None
            self._put(self._braked(self.command, now), now, stamp, alone=alone)
        return True

    def _braked(self, command: Floats, now: float) -> Floats:
        """Nearer to the safe command by a tick, or by what has passed of one since `drive`."""
        braked = self.interface.brake(command)
        first, self._driven = self._driven and self._paced, False
        passed = (now - self._sent) / self.interface.control_dt
        return command + max(passed, 0.0) * (braked - command) if first and passed < 1 else braked

    @property
    def _at_rest(self) -> bool:
        return self.command is not None and np.array_equal(
            self.command, self.interface.safe_command
        )

    def repeat_rest(self, now: float, stamp: int | None = None) -> None:
        """Send the safe command once more, if the robot has been braked to it."""
        command = self.command
        if command is None or not self._supervisor.may_brake or self._handed_over(now):
            return
        if self._at_rest:
            self._put(command, now, stamp)

    def _handed_over(self, now: float) -> bool:
        if self._given_away:
            return True
        if self.command is None or self._patience is None:
            return False
        return not now - self._sent < FRESH * self._patience

    def _put(self, command: Floats, now: float, stamp: int | None, *, alone: bool = False) -> None:
        # It has to leave while the one before it counts as being in force: then somebody else may
        # command the robot. In lockstep a command may take as long as it likes.
        standing = self.command is not None and not self._handed_over(now)
        patience = self._patience or UNWATCHED * self.interface.control_dt
        age = now - self._sent if standing and self._patience is not None else 0.0
        self.leeway = FRESH * patience - age if self._paced and not alone else math.inf
        before = self.command, self._sent
        # Before it is sent: where sending fails half-way, a part of it may be in force.
        self.command, self._sent, self.count = command, now, self.count + 1
        try:
            self._send(command, stamp)
        except FaultError:  # nothing has left
            self.command, self._sent = before
            raise
