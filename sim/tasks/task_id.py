"""`TaskId`, the identifier `family/name` of a task; does not need a simulator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sim.errors import UserError, unknown


@dataclass(frozen=True)
class TaskId:
    """A task of a family, or the family as a whole."""

    family: str
    name: str | None = None  # None: all tasks of the family

    @classmethod
    def parse(cls, text: str) -> TaskId:
        """Parse an identifier `family/name` or `family`."""
        family, slash, name = text.partition("/")
        return cls(family, name if slash else None)

    def __str__(self) -> str:
        """Text of the identifier in files and on the command line."""
        return self.family if self.name is None else f"{self.family}/{self.name}"

    def index_in(self, names: Sequence[str]) -> int:
        """Returns the number of this task among the names of its family's tasks.

        Raises:
            UserError: no such task, or no task is named; the valid ones are listed.
        """
        choices = [str(TaskId(self.family, each)) for each in names]
        if self.name is None:
            raise UserError(f"task {str(self)!r} names a family only. Valid: {', '.join(choices)}")
        if self.name not in names:
            raise unknown("task", str(self), choices)
        return names.index(self.name)
