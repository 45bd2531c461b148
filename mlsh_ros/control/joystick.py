"""Requests of a person with a joystick; knows no ROS, and time is an argument.

The robot moves only while a button is held, the dead-man's switch. Its release stops the robot
under the rate limit. If the robot does not stop, or the joystick falls silent, an emergency stop
is requested.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from mlsh_ros.control.supervisor import State
from sim.errors import UserError

AGAIN = 0.1  # s between two requests to stop
UNSTOPPED = 0.5  # s after the release in which the robot has to begin to stop
STARTS = 4.0  # s after a request to start, in which skill_node may still begin


@dataclass(frozen=True)
class Buttons:
    """Numbers of the buttons in `buttons` of sensor_msgs/Joy."""

    hold: int  # the dead-man's switch
    arm: int
    start: int
    stop: int
    disarm: int
    reset: int
    emergency_stop: int
    next_master: int

    def __post_init__(self) -> None:
        by_number: dict[int, str] = {}
        for name, number in self.by_name.items():
            if number in by_number:
                raise UserError(
                    f"joystick: button {number} is given to {by_number[number]} and to {name}; "
                    "give each its own"
                )
            by_number[number] = name

    @property
    def by_name(self) -> dict[str, int]:
        """Number of each button by what it does."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


# For the pads that SDL knows, through game_controller_node of the package joy, in its order
# (https://docs.ros.org/en/jazzy/p/joy/); through joy_node in the order of Linux' key codes, of its
# drivers xpad and hid-playstation (https://docs.kernel.org/input/gamepad.html).
PROFILES = {
    "game_controller": Buttons(
        hold=9, arm=0, start=6, stop=2, disarm=4, reset=3, emergency_stop=1, next_master=10
    ),
    "xbox": Buttons(
        hold=4, arm=0, start=7, stop=2, disarm=6, reset=3, emergency_stop=1, next_master=5
    ),
    "playstation": Buttons(
        hold=4, arm=0, start=9, stop=3, disarm=8, reset=2, emergency_stop=1, next_master=5
    ),
}
# Buttons that call the service of skill_node with their name.
SERVICES = ("arm", "start", "stop", "disarm", "reset")


@dataclass(frozen=True)
class Asked:
    """Requests of one moment."""

    requests: tuple[str, ...] = ()  # of SERVICES, or `next_master`
    notes: tuple[str, ...] = ()  # what the person should know, a line each


class Joystick:
    """State of a joystick, and what it asks for.

    Args:
        buttons: numbers of the buttons.
        max_age: s without a message, after which the joystick counts as lost.
    """

    def __init__(self, buttons: Buttons, max_age: float) -> None:
        self._buttons, self._max_age = buttons, max_age
        self._pressed: dict[str, bool] = {}  # by the newest message; empty: there is none
        self._heard = 0.0  # s, when it came
        self._looked = -math.inf  # s, when the time was last looked at
        self._deaf_until = -math.inf  # s; what comes until then may have waited before it
        self._started = -math.inf  # s, when a start was last asked for
        self._released = False  # the dead-man's switch has been seen released since it came back
        self._since: float | None = None  # s, since when a robot that moves is not permitted to
        self._asked = -math.inf  # s, when it was last asked to stop
        self._latched = ""  # why the emergency stop holds; empty: it does not

    def hear(self, pressed: Sequence[int], now: float) -> Asked:
        """Handle the `buttons` of a message, 1 where one is pressed.

        Raises:
            UserError: the message has fewer buttons than the profile names, or another value.
        """
        named = self._buttons.by_name
        for name, number in named.items():
            if number >= len(pressed):
                raise UserError(
                    f"{len(pressed)} buttons, and button {number} is {name}: of another pad than "
                    "the joystick's profile is for"
                )
            if pressed[number] not in (0, 1):
                raise UserError(f"button {number} is {pressed[number]}; valid: 0, 1")
        new = {name: bool(pressed[number]) for name, number in named.items()}
        # What was pressed while nobody heard is no press: a driver may repeat old buttons after
        # the pad has come back, and a process that stood still is given old messages.
        paused = self._paused(now)
        unheard = self.lost(now) or paused or now < self._deaf_until
        old = {} if unheard else self._pressed
        self._released = (self._released and bool(old)) or not new["hold"]
        self._pressed, self._heard = new, now
        if new["emergency_stop"]:  # whenever it was pressed
            self._latched = "its emergency stop is pressed"
        begun = [name for name in new if new[name] and old and not old[name]]
        return self._on_begun(begun, now)

    def _paused(self, now: float) -> bool:
        """True if this process stood still until now; what comes in the next moments is old."""
        paused = now - self._looked > self._max_age
        if paused and self._looked > -math.inf:
            self._deaf_until = now + self._max_age
        return paused

    def _on_begun(self, begun: Sequence[str], now: float) -> Asked:
        requests, notes = [], []
        for name in begun:
            if name == "start" and not self.holds:
                notes.append(f"start: hold button {self._buttons.hold} while you press it")
            elif name == "reset" and self._pressed["emergency_stop"]:
                notes.append("reset: release the emergency stop first")
            elif name in SERVICES or name == "next_master":
                if name == "reset":
                    self._latched = ""
                if name == "start":
                    self._started = now
                requests.append(name)
        return Asked(tuple(requests), tuple(notes))

    def lost(self, now: float) -> bool:
        """True if the joystick is silent."""
        return not self._pressed or now - self._heard > self._max_age

    @property
    def holds(self) -> bool:
        """True if the dead-man's switch is held, and was released since the joystick is there."""
        return self._released and self._pressed.get("hold", False)

    def look(self, now: float, state: State | None) -> Asked:
        """Returns the requests that follow from the time that has passed.

        Args:
            now: s.
            state: of skill_node; None: not known.
        """
        self._paused(now)
        self._looked = now
        if self.lost(now):
            self._pressed, self._released = {}, False
        permitted = self.holds and not self._latched
        if state is State.READY and not permitted and now - self._started < STARTS:
            self._since = None
            return self._stop(now, -math.inf)  # the request may still be served
        if state is not State.RUNNING or permitted:
            self._since = None
            return Asked()
        if self._since is None:
            self._since = now
        if now - self._since > UNSTOPPED:
            self._latched = self._latched or "the robot does not stop"
        return self._stop(now, self._since)

    def _stop(self, now: float, since: float) -> Asked:
        """Ask to stop, not too often, and at once if that was not asked `since`, s."""
        if now < self._asked + AGAIN and self._asked >= since:
            return Asked()
        self._asked = now
        return Asked(("stop",))

    def stop_requested(self, now: float) -> str:
        """Returns why the emergency stop is requested; empty: it is not.

        A button that was pressed, and a robot that did not stop, hold until `reset`; the silence
        of the joystick until it is there again, because skill_node keeps the fault.
        """
        return self._latched or "the joystick is silent" * self.lost(now)
