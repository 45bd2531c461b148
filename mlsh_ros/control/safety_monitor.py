"""Checks every tick before its command is sent: limits, tracking, late decisions, missed ticks.

Does not import ROS; time is an argument. The age of sensors is checked in `loop.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from mlsh_ros.control.controller import Tick
from mlsh_ros.control.faults import FaultError
from policies.bundle.manifest import Manifest
from sim.interface import ActionTerm, Floats, Interface, Ranges, fold, spread, spread_range

WINDOW = 10  # decisions over which switches are counted
JOINT = "joint"  # frame of terms whose elements are joints


@dataclass(frozen=True)
class SafetyRules:
    """Tolerances of the safety rules."""

    max_late_decisions: int  # in a row
    max_missed_ticks: int  # since the last tick in time; one fewer is tolerated
    max_switches: int  # of the skill in the last WINDOW decisions
    max_clock_jump: float  # s, of the system's clock against the monotonic one, between two ticks


class TrackingCheck:
    """Compares an action term with the measurement that must follow it.

    Joints are judged each by itself: those of a robot that walks are far from their targets one
    after the other. The elements of another frame are the components of one vector: while its
    direction changes, none of them is far away for long.

    Args:
        action: the term, with its `tracking`.
        interface: that it is of.
    """

    def __init__(self, action: ActionTerm, interface: Interface) -> None:
        assert action.tracking is not None
        self._name, self._unit, self._rule = action.name, action.unit, action.tracking
        pairs = [(i, at) for i, at in enumerate(action.measured) if at is not None]
        self._own, self._measuring = [i for i, _ in pairs], [at for _, at in pairs]
        self._commanded = interface.action_slices[action.name].start + np.array(self._own)
        self._tolerance = spread(self._rule.tolerance, action.size)[self._own]
        term = next(t for t in interface.observation if t.name == self._rule.term)
        self._wrapped = term.wrapped[self._measuring]
        self._circle = bool(self._wrapped.any())
        self._joints = action.frame == JOINT
        self.begin_session()

    def begin_session(self) -> None:
        """Begin a session."""
        self._since = np.full(len(self._own), np.nan)  # s monotonic, from when on it is far away

    def check(self, command: Floats, fields: Mapping[str, Floats], now: float) -> None:
        """Compare the command in force (A,) with its measurement in the fields of a tick."""
        commanded, shown = command[self._commanded], fields[self._rule.term][self._measuring]
        error = shown - commanded
        if self._circle:  # 3.2 rad and -3.1 rad are neighbors
            error = np.where(self._wrapped, fold(error), error)
        error = np.abs(error)
        far = error > self._tolerance
        since = np.where(np.isnan(self._since), now, self._since)
        self._since = np.where(far if self._joints else far.any(), since, np.nan)
        overdue = now - self._since >= self._rule.timeout  # NaN is not
        if (far & overdue).any():
            i = int(np.where(overdue, error - self._tolerance, -np.inf).argmax())
            raise FaultError(
                "tracking",
                f"{self._name}.{self._own[i]} is commanded {commanded[i]:.3g} {self._unit}, "
                f"{self._rule.term}.{self._measuring[i]} shows {shown[i]:.3g} "
                f"for {now - self._since[i]:.2f} s; {self._tolerance[i]:g} away is accepted for "
                f"{self._rule.timeout:g} s",
            )


class SafetyMonitor:
    """Safety rules of one session: `begin_session`, then `check_timing` and `check` per tick.

    Each raises FaultError with the first rule that is violated.

    Args:
        interface: with the limits and the tracked measurements.
        skills: names of the skills.
        skill_limits: per skill and term, in place of the interface's.
        rules: further tolerances.
    """

    def __init__(
        self,
        interface: Interface,
        skills: tuple[str, ...],
        skill_limits: Mapping[str, Mapping[str, Ranges]],
        rules: SafetyRules,
    ) -> None:
        self.interface, self.skills, self.rules = interface, skills, rules
        self._terms = {t.name: t for t in interface.observation}
        own = {t.name: t.limit for t in interface.observation if t.limit is not None}
        self._limits = [
            {
                name: spread_range(limit, self._terms[name].count)
                for name, limit in {**own, **skill_limits.get(skill, {})}.items()
            }
            for skill in skills
        ]
        self._followers = [TrackingCheck(t, interface) for t in interface.action if t.tracking]
        self.begin_session()

    def begin_session(self) -> None:
        """Begin a session: all counters are reset."""
        self.late_in_a_row = self.missed = self._driven = 0
        self._clock: tuple[float, float] | None = None  # monotonic and system time, s
        for follower in self._followers:
            follower.begin_session()
        self._command: Floats | None = None  # (A,) in force since the tick before
        self._decisions: deque[int] = deque(maxlen=WINDOW + 1)

    @property
    def switches(self) -> int:
        """Number of skill switches in the last WINDOW decisions."""
        return sum(a != b for a, b in pairwise(self._decisions))

    def check_timing(self, now: float, system: float | None, missed: int) -> None:
        """Check the time at the beginning of a tick.

        Args:
            now: monotonic, s.
            system: the clock that stamps messages, s; None where it is not to be compared.
            missed: ticks skipped just before this one.
        """
        # Ticks that come too late each time count together.
        self.missed, self._driven = (self.missed + missed, self._driven + 1) if missed else (0, 0)
        if self.missed >= self.rules.max_missed_ticks:
            total = self.missed + self._driven - 1
            ticks = f"ticks of {self.interface.control_dt:g} s"
            raise FaultError(
                "deadline",
                f"{self.missed} {ticks} in a row were missed, {self.rules.max_missed_ticks} stop "
                "the robot"
                if total == self.missed
                else f"{self.missed} of {total} {ticks} were missed and the others came late, "
                f"{self.rules.max_missed_ticks} without one in time stop the robot",
            )
        if system is None:
            return
        if self._clock is not None:
            jump = (system - self._clock[1]) - (now - self._clock[0])
            if abs(jump) > self.rules.max_clock_jump:
                raise FaultError(
                    "clock_jumped",
                    f"the system's clock moved by {jump:+.3f} s within a tick, at most "
                    f"{self.rules.max_clock_jump:g} s is accepted",
                )
        self._clock = now, system

    def check(self, tick: Tick, fields: Mapping[str, Floats], now: float) -> None:
        """Check the computed tick; its command may be sent if this returns.

        Args:
            tick: what the controller did.
            fields: per term (size,), what it was computed from.
            now: when they were read, monotonic, s.
        """
        for name, (low, high) in self._limits[tick.skill].items():
            values = self._terms[name].values(fields[name])
            if not ((values >= low) & (values <= high)).all():  # so that NaN is beyond, too
                i = int(np.argmax(np.maximum(low - values, values - high)))
                raise FaultError(
                    "limit",
                    f"{name}.{i} is {values[i]:.4g} {self._terms[name].unit}, skill "
                    f"{self.skills[tick.skill]!r} may see {low[i]:g} to {high[i]:g}",
                )
        if self._command is not None:
            for follower in self._followers:
                follower.check(self._command, fields, now)
        self._command = tick.command
        if tick.decides:
            self._decide(tick)

    def _decide(self, tick: Tick) -> None:
        self.late_in_a_row = self.late_in_a_row + 1 if tick.late else 0
        if self.late_in_a_row > self.rules.max_late_decisions:
            raise FaultError(
                "master_silent", f"{self.late_in_a_row} decisions in a row did not come"
            )
        self._decisions.append(tick.skill)
        if self.switches > self.rules.max_switches:
            raise FaultError(
                "skill_chatter",
                f"{self.switches} switches in {WINDOW} decisions, at most "
                f"{self.rules.max_switches} are accepted",
            )


def make_safety_monitor(manifest: Manifest, values: Mapping[str, object]) -> SafetyMonitor:
    """Returns the safety monitor of a bundle.

    Args:
        manifest: of the bundle.
        values: of skill_node's parameters.
    """
    rules = SafetyRules(
        max_late_decisions=int(str(values["max_late_decisions"])),
        max_missed_ticks=int(str(values["max_missed_ticks"])),
        max_switches=int(str(values["max_switches"])),
        max_clock_jump=float(str(values["max_clock_jump"])),
    )
    return SafetyMonitor(manifest.interface, manifest.skills, manifest.skill_limits, rules)
