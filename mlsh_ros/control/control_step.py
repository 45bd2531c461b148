"""One control step, the same in real time, in lockstep and without ROS."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mlsh_ros.control.controller import Controller, Request, Tick
from sim.interface import Floats

Decide = Callable[["Request | None"], None]
Judge = Callable[[Tick, Mapping[str, Floats], float], None]


class SessionEndedError(Exception):
    """The session was ended during the wait for the master; no command follows."""


class ControlStep:
    """Observation, decision, action and safety rules, in this order, for every control loop.

    Args:
        controller: of the skills and of the robot.
        decide: called on every tick, with the request to the master if there is one. When it
            returns, the decision of this tick has arrived, or the tick may continue without it.
            It may raise SessionEndedError.
        judge: the safety rules, see `SafetyMonitor.check`.
        begin: called with the initial command (A,) of a session, before its first tick.
    """

    def __init__(
        self,
        controller: Controller,
        decide: Decide,
        judge: Judge,
        begin: Callable[[Floats], None] = lambda _: None,
    ) -> None:
        self.controller, self._decide, self._judge, self._begin = controller, decide, judge, begin

    def __call__(self, fields: Mapping[str, Floats], now: float) -> Tick:
        """Compute a tick; its command may be sent.

        Args:
            fields: per observation term (size,), as measured.
            now: time of measurement, s.

        Raises:
            FaultError: a safety rule is violated, or the master failed.
            ValueError: an observation or an action is not finite, or a first decision is missing.
            SessionEndedError: the session was ended.
        """
        request = self.controller.observe(fields)
        if self.controller.tick == 0:
            self._begin(self.controller.command)
        self._decide(request)
        tick = self.controller.act()
        self._judge(tick, fields, now)
        return tick


def no_safety_rules(tick: Tick, fields: Mapping[str, Floats], now: float) -> None:
    """No rules, for a simulation whose commands reach no robot."""
