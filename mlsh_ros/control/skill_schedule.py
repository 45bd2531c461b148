"""The schedule of decisions and skills: the same rule as in training (policies/mlsh/rollout.py).

Macro step k covers ticks kN .. (k+1)N-1. Its skill is chosen from the observation of tick kN - L
(L is 0 or 1), and for k = 0 from the first observation.
"""

from __future__ import annotations

from sim.errors import UserError

REMEMBERED = 8  # macro steps for which another answer is noticed


class SkillSchedule:
    """Stores the decisions of one session.

    Args:
        decision_ticks: N.
        decision_lead: L.
        skills: K.

    Raises:
        UserError: L is not below N: a macro step would begin before its request.
    """

    def __init__(self, decision_ticks: int, decision_lead: int, skills: int) -> None:
        if decision_lead >= decision_ticks:
            raise UserError(
                f"decision_lead {decision_lead} must be below decision_ticks {decision_ticks}"
            )
        self.decision_ticks, self.decision_lead = decision_ticks, decision_lead
        self.skills = skills
        self.reset()

    def reset(self) -> None:
        """Begin a session without decisions."""
        self._answers: dict[int, int] = {}
        self._taken: dict[int, int] = {}  # what the newest macro steps were decided to be
        self._skill: int | None = None
        self._begun = -1  # the newest macro step that has begun
        self.late = 0  # decisions that had not come when they were due
        self.switches = 0

    @property
    def current(self) -> int | None:
        """Skill of the newest tick; None before the first."""
        return self._skill

    def decision_due(self, tick: int) -> int | None:
        """Returns the macro step that is decided from the observation of `tick`, if any."""
        if tick == 0:
            return 0
        due = tick + self.decision_lead
        return due // self.decision_ticks if due % self.decision_ticks == 0 else None

    def pending_decision(self, tick: int) -> int | None:
        """Returns the macro step that begins at `tick`, if its decision has not arrived yet."""
        macro, within = divmod(tick, self.decision_ticks)
        return macro if within == 0 and not self.is_decided(macro) else None

    def is_decided(self, macro: int) -> bool:
        """True if the decision of a macro step that has not begun yet has arrived."""
        return macro in self._answers

    def set_decision(self, macro: int, skill: int) -> bool:
        """Accept a decision; False, without effect, if its macro step is decided or begun.

        Raises:
            ValueError: there is no such skill, or this macro step was decided otherwise.
        """
        self.check_decision(macro, skill)
        if (taken := self._taken.get(macro, skill)) != skill:
            raise ValueError(
                f"decision {macro}: skill {skill} is answered after skill {taken}: two masters "
                "answer"
            )
        if macro <= self._begun or macro in self._answers:
            return False
        self._answers[macro] = skill
        self._taken[macro] = skill
        self._taken.pop(macro - REMEMBERED, None)
        return True

    def check_decision(self, macro: int, skill: int) -> None:
        """Refuse a decision for a skill that does not exist.

        Raises:
            ValueError: there is no such skill.
        """
        if not 0 <= skill < self.skills:
            raise ValueError(f"decision {macro}: no skill {skill}. Valid: 0 to {self.skills - 1}")

    def skill(self, tick: int) -> int:
        """Returns the skill that runs on `tick`; call once per tick, in order.

        A late decision keeps the current skill and is counted.

        Raises:
            ValueError: the very first decision has not come: there is no skill to keep.
        """
        macro, within = divmod(tick, self.decision_ticks)
        if within == 0:
            decided = self._answers.pop(macro, None)
            self._answers = {k: v for k, v in self._answers.items() if k > macro}
            if decided is None and self._skill is None:
                raise ValueError("no decision for the first tick")
            self._begun = macro
            if decided is None:
                self.late += 1
            else:
                self.switches += self._skill is not None and decided != self._skill
                self._skill = decided
        if self._skill is None:
            raise ValueError(f"tick {tick} before tick 0")
        return self._skill
