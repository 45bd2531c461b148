"""Numbers or elements of an observation, at which an imported skill holds an input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Discriminator, Field, Tag
from pydantic.dataclasses import dataclass

from sim.errors import ALL, EACH
from sim.interface import STRICT, Label, Number
from sim.interface.validators import Index


@dataclass(frozen=True, config=STRICT)
class Elements:
    """Elements of an observation term, which a skill gives its policy: one of two goals, say."""

    term: Label  # name of a term of robot.yaml or of the task family, in its unit
    elements: Annotated[tuple[Index, ...], Field(min_length=1)]  # indices of elements, from 0

    def __len__(self) -> int:
        """Number of elements."""
        return len(self.elements)


def _held_as(value: object) -> str:
    return ALL if isinstance(value, (Mapping, Elements)) else EACH


# What a skill holds a constant at: numbers, or elements of a term.
Held = Annotated[
    Annotated[Elements, Tag(ALL)] | Annotated[tuple[Number, ...], Tag(EACH)],
    Discriminator(_held_as),
]
