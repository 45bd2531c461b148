"""Recomputes a recording offline and compares it with what was recorded.

Each value is computed from the recorded values just before it and compared bit for bit, so that
one difference does not cause others: every decision of the master from its recorded request; the
skill of every tick from the decisions; the elements of an observation that depend on earlier
ticks; and action and command of every tick from its observation and the previous command. Actions
and decisions of another bundle that took over while the robot moved are not compared.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlsh_ros.control.skill_schedule import SkillSchedule
from mlsh_ros.messages.conversion import shorten
from mlsh_ros.messages.topics import TRACE
from mlsh_ros.recording.bag_reader import Recording
from mlsh_ros.recording.observation_check import MOST_STARTS, ObservationCheck
from mlsh_ros.recording.recorded_sessions import (
    Float32,
    Listen,
    RecordedDecision,
    RecordedTick,
    Session,
    collect_sessions,
)
from mlsh_ros.recording.session_rules import is_driven, newest_tick
from policies.bundle.bundle import FINGERPRINT_DIGITS, Bundle, fingerprint_of
from policies.bundle.runtime import Network, choose, load_master, load_skills
from sim.errors import UserError
from sim.interface import Floats, ObservationMemory

TOO_MANY = f" (it may have begun from more than {MOST_STARTS:,} measured states)"


@dataclass(frozen=True)
class Difference:
    """The first tick at which recording and bundle differ."""

    session: int
    tick: int
    what: str  # such as `action base_velocity.0`
    recorded: str
    replayed: str

    def __str__(self) -> str:
        return (
            f"session {self.session} tick {self.tick}: {self.what} recorded {self.recorded}, "
            f"replayed {self.replayed}"
        )


@dataclass
class Result:
    """Result of a replay."""

    sessions: int = 0
    ticks: int = 0
    decisions: int = 0
    different_ticks: int = 0
    different_decisions: int = 0
    first_tick: Difference | None = None
    first_decision: Difference | None = None
    unseen: list[str] = field(default_factory=list)  # ticks that no recorded sensors explain
    unjudged: list[str] = field(default_factory=list)  # for which something is not recorded
    missing: list[str] = field(default_factory=list)  # ticks that are not recorded, as ranges
    other: list[str] = field(default_factory=list)  # ticks from which another bundle ran
    unread: list[str] = field(default_factory=list)  # unusable messages

    @property
    def equal(self) -> bool:
        """True if no tick and no decision differs."""
        return not self.different_ticks and not self.different_decisions

    @property
    def whole(self) -> bool:
        """True if nothing was missing for the comparison: no data, and no other bundle."""
        return not (self.unseen or self.unjudged or self.missing or self.other)


def replay(
    recording: Recording,
    bundle: Bundle,
    *,
    master: str | None = None,
    stochastic: bool = False,
    listen: Listen | None = None,
    wants: Callable[[str], bool] = lambda topic: False,
) -> Result:
    """Compare a recording with a bundle.

    Args:
        recording: made by recorder_node.
        bundle: the one that ran, or another one for the same observation and action.
        master: master that selected the skills; None: the one named in the recording.
        stochastic: the master drew its skills, so that only its logits are compared.
        listen: called with every message, so that the recording is read only once.
        wants: True for a topic that is read for `listen` alone.

    Raises:
        UserError: the recording is of another observation or action, or no master is known.
    """
    recording.check_robot(bundle.interface.robot)
    bundle = recording.bound(bundle)
    result = Result()
    sessions, seen = collect_sessions(recording, bundle, result.unread, listen, wants)
    skills = load_skills(bundle)
    masters: dict[str, Network] = {}
    judged = _judged(recording, bundle, sessions)
    for session in sessions:
        if not is_driven(session.ticks, session.questions):
            continue
        result.sessions += 1
        judge = _ReplayCheck(bundle, session, result, judged, seen.lockstep)
        judge.ticks(skills, seen)
        for macro, answer in sorted(session.answers.items()):
            if not judge.decided(macro, answer):
                continue
            name = master or answer.master
            if not name:
                raise UserError(
                    f"recording {recording.file}: it does not contain the master; name it "
                    f"with --master. Masters: {', '.join(bundle.manifest.masters)}"
                )
            if name not in masters:
                masters[name] = load_master(bundle, name)
            judge.decision(macro, answer, masters[name], stochastic)
    traces = [shorten(reason) for reason in result.unread if TRACE in reason]
    if not result.ticks and (traces or not result.missing):
        why = f"could be read: {traces[0]}" if traces else "is recorded: the robot did not drive"
        raise UserError(f"recording {recording.file}: no tick {why}")
    return result


def _judged(recording: Recording, bundle: Bundle, sessions: Sequence[Session]) -> int:
    """Returns the fingerprint of the bundle whose ticks are compared with the given one.

    It is the given one where that ran. Otherwise it is the one with which the recording began:
    then it is another one for the whole recording, which is known.
    """
    if any(bundle.fingerprint in session.bundles.values() for session in sessions):
        return bundle.fingerprint
    try:
        return fingerprint_of(str(recording.manifest.get("digest")))
    except ValueError:
        return bundle.fingerprint


class _ReplayCheck:
    """Compares one session and adds the differences to `result`."""

    def __init__(
        self, bundle: Bundle, session: Session, result: Result, judged: int, lockstep: bool
    ) -> None:
        self.bundle, self.session, self.result = bundle, session, result
        self._judged, self._lockstep = judged, lockstep
        self._asked = sorted(session.bundles)  # macro steps

    def ticks(
        self, skills: Sequence[Callable[[Float32], Float32]], seen: ObservationCheck
    ) -> None:
        """Check observation, skill, action and command of every tick."""
        manifest, interface = self.bundle.manifest, self.bundle.interface
        schedule = SkillSchedule(manifest.decision_ticks, manifest.decision_lead, len(skills))
        before: RecordedTick | None = None
        memory = ObservationMemory(interface)
        judged = True  # the bundle that runs
        seen.begin()
        for current in self.session.ticks:
            self._follows(current.tick, before.tick if before else -1)
            self.result.ticks += 1
            if not seen.matches(current.observation, current.received):
                self.result.unseen.append(self._place(current.tick))
            judged = self._runs(schedule, current, before, judged)
            difference = self._skill(schedule, current, before)
            if difference is None:
                difference = self._remembered(memory, current, before)
            if difference is None and judged:
                action = skills[current.skill](current.observation[None])[0]
                names = interface.action_names
                difference = self._first(current.tick, "action", names, current.action, action)
            if difference is None:
                starts: list[Floats] | None = []
                if before is not None and before.tick == current.tick - 1:
                    starts = [before.command]
                elif current.tick == 0:
                    starts = seen.starts(current.observation, current.received)
                if not starts:
                    why = TOO_MANY if starts is None else ""
                    self.result.unjudged.append(f"{self._place(current.tick)}: command{why}")
                else:
                    commands = [interface.command(current.action, start) for start in starts]
                    equal = (c for c in commands if np.array_equal(c, current.command))
                    command = next(equal, commands[0])
                    difference = self._first(
                        current.tick, "command", interface.action_names, current.command, command
                    )
            if difference is not None:
                self.result.different_ticks += 1
                self.result.first_tick = self.result.first_tick or difference
            memory.remember(current.observation, current.action)
            before = current
        last = before.tick if before else -1
        self._follows(newest_tick([last], [self.session.asked]) + 1, last)

    def _runs(
        self,
        schedule: SkillSchedule,
        current: RecordedTick,
        before: RecordedTick | None,
        last: bool,
    ) -> bool:
        """True if the judged bundle runs on a tick; `last`: it did on the one before.

        Another one takes over with the macro step that was asked of it, if its decision comes.
        """
        macro, within = divmod(current.tick, schedule.decision_ticks)
        runs = last
        if not within and not current.late:
            runs = self._is_judged(macro)
        elif before is None or before.tick != current.tick - 1:
            runs = last and self._is_judged(macro)
        if last and not runs:
            self._name_other(current.tick, macro)
        return runs

    def _is_judged(self, macro: int) -> bool:
        """True if a macro step was asked of the judged bundle, as far as requests tell."""
        place = bisect_left(self._asked, macro)
        near = self._asked[place : place + 1]
        if near != [macro]:  # its request is not recorded
            near = self._asked[max(place - 1, 0) : place + 1]
        return all(self.session.bundles[each] == self._judged for each in near)

    def _name_other(self, tick: int, macro: int) -> None:
        found = self.session.bundles.get(macro)
        which = (
            "" if found is None else f" (its digest begins with {found:0{FINGERPRINT_DIGITS}x})"
        )
        self.result.other.append(f"{self._place(tick)}{which}")

    def _follows(self, tick: int, last: int) -> None:
        """Check that no tick is missing after the last one; a session begins with tick 0."""
        if tick > last + 1:
            until = f" to {tick - 1}" if tick > last + 2 else ""
            self.result.missing.append(f"{self._place(last + 1)}{until}")

    def _skill(
        self, schedule: SkillSchedule, current: RecordedTick, before: RecordedTick | None
    ) -> Difference | None:
        """Check the active skill against the recorded decisions."""
        macro, within = divmod(current.tick, schedule.decision_ticks)
        expected: int | None = None
        if within or current.late:
            expected = before.skill if before and before.tick == current.tick - 1 else None
        elif macro in self.session.answers:
            expected = self.session.answers[macro].skill
        if expected is None:
            self.result.unjudged.append(f"{self._place(current.tick)}: skill")
            expected = current.skill
        if current.skill >= schedule.skills:
            last = f"no such skill, 0 to {schedule.skills - 1}"
            return self._difference(current.tick, "skill", str(current.skill), last)
        if current.skill != expected:
            return self._difference(current.tick, "skill", str(current.skill), str(expected))
        return None

    def _remembered(
        self, memory: ObservationMemory, current: RecordedTick, before: RecordedTick | None
    ) -> Difference | None:
        """Check the elements of the observation that depend on earlier ticks."""
        terms = self.bundle.interface.computed_terms
        if not terms.needs_memory:
            return None
        if current.tick != (before.tick + 1 if before else 0):
            memory.forget()
        expected = current.observation.copy()
        terms.write(expected, memory)
        if (unknown := np.isnan(expected)).any():
            self.result.unjudged.append(f"{self._place(current.tick)}: earlier ticks")
        expected = np.where(unknown, current.observation, expected)
        names = self.bundle.interface.observation_names
        return self._first(current.tick, "observation", names, current.observation, expected)

    def decided(self, macro: int, answer: RecordedDecision) -> bool:
        """True if the master of the judged bundle decided a macro step."""
        if self._is_judged(macro):
            return True
        if not self.result.other:  # its decision came too late for a tick
            self._name_other(answer.tick, macro)
        return False

    def decision(
        self, macro: int, answer: RecordedDecision, network: Network, stochastic: bool
    ) -> None:
        """Check the logits and the skill of one decision."""
        observation = self.session.questions.get(macro)
        # In real time the first observation is taken anew when the decision has come.
        if observation is None and (self._lockstep or macro):
            known = [t.observation for t in self.session.ticks if t.tick == answer.tick]
            observation = known[0] if known else None
        if observation is None:
            self.result.unjudged.append(f"{self._place(answer.tick)}: decision {macro}")
            return
        self.result.decisions += 1
        logits = network(observation[None])[0]
        what, names = f"decision {macro}: logit", self.bundle.manifest.skills
        difference = self._first(answer.tick, what, names, answer.logits, logits)
        if difference is None and not stochastic and answer.skill != choose(logits):
            difference = self._difference(
                answer.tick, f"decision {macro}: skill", str(answer.skill), str(choose(logits))
            )
        if difference is not None:
            self.result.different_decisions += 1
            self.result.first_decision = self.result.first_decision or difference

    def _place(self, tick: int) -> str:
        return f"session {self.session.number} tick {tick}"

    def _first(
        self, tick: int, what: str, names: Iterable[str], recorded: Any, replayed: Any
    ) -> Difference | None:
        for name, a, b in zip(names, recorded, replayed, strict=True):
            if a != b:
                return self._difference(tick, f"{what} {name}", str(a), str(b))
        return None

    def _difference(self, tick: int, what: str, recorded: str, replayed: str) -> Difference:
        return Difference(self.session.number, tick, what, recorded, replayed)
