"""What must hold on every tick, before its command goes out. Knows no ROS; time is an argument."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from mlsh_ros.core.controller import Tick
from mlsh_ros.core.faults import FaultError
from sim.interface import ActionTerm, Floats, Interface, Range

WINDOW = 10  # decisions over which switches are counted


@dataclass(frozen=True)
class Rules:
    """How much is tolerated."""

    late_decisions: int  # in a row
    missed_ticks: int  # in a row; one fewer is tolerated
    max_switches: int  # of the skill in the last WINDOW decisions
    clock_jump: float  # s, of the system's clock against the monotonic one, between two ticks


class Guard:
    """The rules of one session: `begin`, then for every tick `time` and `judge`.

    Each raises FaultError with the first rule that is broken.

    Args:
        interface: with the limits and what has to track.
        skills: names of the skills.
        skill_limits: per skill and term, in place of the interface's.
        rules: the rest.
    """

    def __init__(
        self,
        interface: Interface,
        skills: tuple[str, ...],
        skill_limits: Mapping[str, Mapping[str, Range]],
        rules: Rules,
    ) -> None:
        self.interface, self.skills, self.rules = interface, skills, rules
        own = {t.name: t.limit for t in interface.observation if t.limit is not None}
        self._limits = [{**own, **skill_limits.get(name, {})} for name in skills]
        self._terms = {t.name: t for t in interface.observation}
        self._slices = interface.action_slices
        self._tracked = [t for t in interface.action if t.tracking is not None]
        self.begin()

    def begin(self) -> None:
        """A session begins: nothing is held against the robot."""
        self.late_in_a_row = self.missed_in_a_row = 0
        self._clock: tuple[float, float] | None = None  # monotonic and system time, s
        self._away: dict[str, float] = {}  # since when a term has not tracked, s monotonic
        self._command: Floats | None = None  # (A,) in force since the tick before
        self._decisions: deque[int] = deque(maxlen=WINDOW + 1)

    @property
    def switches(self) -> int:
        """Changes of the skill in the last WINDOW decisions."""
        return sum(a != b for a, b in pairwise(self._decisions))

    def time(self, now: float, system: float | None, missed: int) -> None:
        """The tick begins.

        Args:
            now: monotonic, s.
            system: the clock that stamps messages, s; None where it is not to be compared.
            missed: ticks left out just before this one.
        """
        self.missed_in_a_row = self.missed_in_a_row + missed if missed else 0
        if self.missed_in_a_row >= self.rules.missed_ticks:
            raise FaultError(
                "deadline",
                f"{self.missed_in_a_row} ticks of {self.interface.control_dt:g} s in a row "
                f"were missed, {self.rules.missed_ticks} stop the robot",
            )
        if system is None:
            return
        if self._clock is not None:
            jump = (system - self._clock[1]) - (now - self._clock[0])
            if abs(jump) > self.rules.clock_jump:
                raise FaultError(
                    "clock_jumped",
                    f"the system's clock moved by {jump:+.3f} s within a tick, at most "
                    f"{self.rules.clock_jump:g} s is accepted",
                )
        self._clock = now, system

    def judge(self, tick: Tick, fields: Mapping[str, Floats], now: float) -> None:
        """The tick is computed; its command may go out if this returns.

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
                    f"{self.skills[tick.skill]!r} may see {low:g} to {high:g}",
                )
        if self._command is not None:
            for term in self._tracked:
                self._track(term, self._command[self._slices[term.name]], fields, now)
        self._command = tick.command
        if tick.decides:
            self._decide(tick)

    def _track(
        self, term: ActionTerm, command: Floats, fields: Mapping[str, Floats], now: float
    ) -> None:
        assert term.tracking is not None
        error = np.abs(fields[term.tracking.term] - command)
        if (error <= term.tracking.tolerance).all():
            self._away.pop(term.name, None)
            return
        since = self._away.setdefault(term.name, now)
        if now - since >= term.tracking.time:
            i = int(error.argmax())
            raise FaultError(
                "tracking",
                f"{term.name}.{i} is commanded {command[i]:.3g} {term.unit}, "
                f"{term.tracking.term}.{i} shows {fields[term.tracking.term][i]:.3g} "
                f"for {now - since:.2f} s; {term.tracking.tolerance:g} away is accepted for "
                f"{term.tracking.time:g} s",
            )

    def _decide(self, tick: Tick) -> None:
        self.late_in_a_row = self.late_in_a_row + 1 if tick.late else 0
        if self.late_in_a_row > self.rules.late_decisions:
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
