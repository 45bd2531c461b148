"""One control tick: fields to observation, skill, action, command."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlsh_ros.control.faults import FaultError
from mlsh_ros.control.skill_schedule import SkillSchedule
from sim.interface import Floats, Interface, ObservationMemory

Float32 = NDArray[np.float32]
Skill = Callable[[Float32], Float32]  # (1, O) to (1, A)


@dataclass(frozen=True)
class Request:
    """A request for a decision of the master."""

    macro: int  # the macro step to decide
    tick: int  # whose observation this is
    observation: Float32  # (O,)
    bundle: int  # fingerprint of the bundle whose skill is to be named


@dataclass(frozen=True)
class Tick:
    """Result of one tick."""

    tick: int
    skill: int
    observation: Float32  # (O,)
    action: Float32  # (A,) as the skill gave it
    command: Floats  # (A,) in physical units
    saturated: bool  # a limit cut the action
    decides: bool  # a macro step begins here
    late: bool  # its decision had not come: the skill before went on


class Controller:
    """Runs the skills of a bundle on one robot; deterministic, independent of time and ROS.

    A tick has two halves: `observe` takes the sensors and may return a request to the master;
    `act` runs the skill. With decision_lead 0 or on the first tick, the decision must arrive in
    between.

    Args:
        interface: of the bundle.
        skills: the K skill networks.
        decision_ticks: N.
        decision_lead: L.
        fingerprint: of the skills' bundle, see `policies.bundle.bundle.Bundle`.
    """

    def __init__(
        self,
        interface: Interface,
        skills: Sequence[Skill],
        decision_ticks: int,
        decision_lead: int,
        fingerprint: int = 0,
    ) -> None:
        self.interface, self.skills = interface, tuple(skills)
        self.fingerprint = fingerprint  # of the newest question's bundle
        self._offered: tuple[tuple[Skill, ...], int] | None = None
        self._coming: tuple[int, tuple[Skill, ...]] | None = None  # at which macro step
        self.schedule = SkillSchedule(decision_ticks, decision_lead, len(self.skills))
        # Of the session, whatever skill or bundle runs: what was really observed and sent.
        self._memory = ObservationMemory(interface)
        self.reset()

    def reset(self) -> None:
        """Begin a session at tick 0; `observe` determines the initial command."""
        if self._coming is not None:  # its macro step will not come any more
            (_, self.skills), self._coming = self._coming, None
        self.schedule.reset()
        self._memory.reset()
        self.tick = 0
        self.asked = -1  # the newest macro step that a question was about
        self.command = self.interface.safe_command.copy()  # (A,) in force
        self._observation: Float32 | None = None

    def swap(self, skills: Sequence[Skill], fingerprint: int) -> None:
        """Use the skills of another bundle from a macro step on.

        The next question to the master is about the new ones, and they take over with the macro
        step that it decides. Without a decision the old skills go on, and the next question is
        about the new ones again.
        """
        self._offered = tuple(skills), fingerprint

    def observe(self, fields: Mapping[str, NDArray[Any]]) -> Request | None:
        """Take the sensors of this tick; returns the request to the master, if one is due.

        Raises:
            ValueError: a field is missing, has another size, or is not finite.
            FaultError: a session would begin beyond the limit of a command.
        """
        observation = self.interface.observe(fields, memory=self._memory)
        if not np.isfinite(observation).all():
            names = np.array(self.interface.observation_names)[~np.isfinite(observation)]
            raise ValueError(f"observation is not finite: {', '.join(names)}")
        if self.tick == 0:
            self.command = self._initial(fields)
        self._observation = observation
        macro = self.schedule.decision_due(self.tick)
        if macro is None:
            return None
        self.asked = macro
        if self._offered is not None and not self.schedule.is_decided(macro):
            (skills, self.fingerprint), self._offered = self._offered, None
            self._coming = macro, skills
        return Request(macro, self.tick, observation, self.fingerprint)

    def set_decision(self, macro: int, skill: int) -> bool:
        """Accept a decision; False, without effect, if it was not requested.

        Raises:
            ValueError: there is no such skill.
        """
        if macro > self.asked:  # it would be acted on later, as if it had been asked for
            self.schedule.check_decision(macro, skill)
            return False
        return self.schedule.set_decision(macro, skill)

    def act(self) -> Tick:
        """Run the active skill on the observation taken by `observe`.

        Raises:
            ValueError: no decision has ever come, or the action is not finite.
        """
        observation = self._observation
        if observation is None:
            raise ValueError("finish without begin")
        self._take_over()
        late = self.schedule.late
        skill = self.schedule.skill(self.tick)
        action = self.skills[skill](observation[None])[0]
        command = self.interface.command(action, self.command)
        saturated = bool(self.interface.saturated(action).any())
        was_late = self.schedule.late > late
        decides = self.tick % self.schedule.decision_ticks == 0
        done = Tick(self.tick, skill, observation, action, command, saturated, decides, was_late)
        self._memory.remember(observation, action)
        self.command, self._observation = command, None
        self.tick += 1
        return done

    def _take_over(self) -> None:
        """Replace the skills, if this tick begins the macro step that is theirs."""
        if self._coming is None or self.tick != self._coming[0] * self.schedule.decision_ticks:
            return
        (macro, skills), self._coming = self._coming, None
        if self.schedule.is_decided(macro):
            self.skills = skills
        elif self._offered is None:  # their numbers mean nothing to a decision for the old ones
            self._offered = skills, self.fingerprint

    def _initial(self, fields: Mapping[str, NDArray[Any]]) -> Floats:
        """The initial command (A,) of a session: the robot's measured state."""
        if text := self.interface.start_beyond_limit(fields):
            raise FaultError("start_out_of_limit", text)
        return self.interface.initial_command(fields)
