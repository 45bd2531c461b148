"""Terms of an observation that no sensor measures; they follow the measured ones in the vector.

A term computes its elements from the present elements of the observation and from the memory of
the session, which `sim.interface.memory` holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from typing_extensions import Self

from sim.errors import unknown
from sim.interface.names import Label
from sim.interface.validators import (
    MAX_SIZE,
    STRICT,
    Floats,
    NonZeros,
    Number,
    Ranges,
    check_each,
    check_ranges,
    check_unique,
    spread,
    spread_range,
)

Float32 = NDArray[np.float32]
Places = NDArray[np.intp]
MAX_TICKS = 1000


class Memory(Protocol):
    """Memory of a session, or of many along the leading axes."""

    action: Float32  # (..., A) the policy's output of the tick before
    past: Float32  # (..., n, P) present elements of earlier observations, the newest first
    ticks: NDArray[np.int64]  # (...,) since the beginning of the session


@dataclass(frozen=True, config=STRICT)
class PreviousAction:
    """The policy's output of the tick before, in the policy's units: before scale and limits.

    Zeros on the first tick of a session or an episode.
    """

    name: Label  # name, unique among all terms of the observation
    kind: Literal["previous_action"]  # the policy's output of the tick before
    scale: NonZeros  # the policy's input is scale * action; a number, or a list per element
    clip: Ranges | None  # range of the scaled action; null: not clipped

    def check(self, action_size: int) -> None:
        """Refuse lists that do not have one entry per element of the action."""
        check_each(self.name, "scale", self.scale, action_size)
        if self.clip is not None:
            check_ranges(self.name, "clip", self.clip, action_size)

    def elements(self, action: Float32) -> Floats:
        """(..., A) elements in the observation, for the last action (..., A)."""
        size = action.shape[-1]
        scaled = spread(self.scale, size) * action
        return scaled if self.clip is None else np.clip(scaled, *spread_range(self.clip, size))


@dataclass(frozen=True, config=STRICT)
class Constant:
    """Numbers that a policy takes as input and that never change, such as a velocity command."""

    name: Label  # name, unique among all terms of the observation
    kind: Literal["constant"]  # numbers that never change
    # The policy's input.
    values: Annotated[tuple[Number, ...], Field(min_length=1, max_length=MAX_SIZE)]


@dataclass(frozen=True, config=STRICT)
class History:
    """Earlier values of other terms, from the observations of earlier ticks.

    Noise, scale and clip are in them. The present values are not among them.
    """

    name: Label  # name, unique among all terms of the observation
    kind: Literal["history"]  # earlier values of other terms
    # Names of the terms, in order.
    terms: Annotated[tuple[Label, ...], Field(min_length=1, max_length=MAX_SIZE)]
    ticks: Annotated[int, Field(strict=True, ge=1, le=MAX_TICKS)]  # number of earlier ticks
    order: Literal["oldest_first", "newest_first"]  # order of the ticks
    # by_term: all ticks of the first term, then those of the next; by_tick: all terms of the first
    # tick, then those of the next.
    layout: Literal["by_term", "by_tick"]
    # Values for ticks before the first of a session: those of the first, or zeros.
    start: Literal["first_values", "zeros"]

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        check_unique(f"history {self.name!r}: term", self.terms)
        return self

    @cached_property
    def lags(self) -> NDArray[np.int64]:
        """(ticks,) how many ticks ago, in order."""
        newest_first = np.arange(1, self.ticks + 1)
        return newest_first if self.order == "newest_first" else newest_first[::-1]

    def elements(self, present: Float32, memory: Memory, parts: Sequence[Places]) -> Float32:
        """(..., ticks * width) elements in the observation.

        Args:
            present: (..., P) elements of this observation.
            memory: of the ticks before.
            parts: per term its places among the present elements.
        """
        columns = np.concatenate(parts)
        frames = np.concatenate([present[..., None, columns], memory.past[..., columns]], axis=-2)
        age = memory.ticks[..., None]
        known = np.minimum(self.lags, age)
        chosen = np.take_along_axis(frames, known[..., None], axis=-2)
        if self.start == "zeros":
            chosen = np.where((self.lags <= age)[..., None], chosen, np.float32(0))
        if self.layout == "by_tick":
            return chosen.reshape(*present.shape[:-1], -1)
        edges = np.cumsum([len(part) for part in parts])[:-1]
        blocks = np.split(chosen, edges, axis=-1)
        return np.concatenate([b.reshape(*present.shape[:-1], -1) for b in blocks], axis=-1)


ComputedTerm = Annotated[PreviousAction | Constant | History, Field(discriminator="kind")]


class ComputedTerms:
    """The computed terms of one robot, in the order of the vector.

    Args:
        terms: as in robot.yaml.
        measured: width of every measured term that is a policy's input.
        action_size: A.

    Attributes:
        widths: elements of every computed term.
        present_size: P, elements of an observation without its histories, which are the last.
        ticks: number of earlier ticks that histories reach back.
        needs_memory: True if an element depends on earlier ticks.

    Raises:
        ValueError: a list of another length than the action, a history of a term that there is
            not, or one that does not come last.
    """

    def __init__(
        self, terms: Sequence[ComputedTerm], measured: Mapping[str, int], action_size: int
    ) -> None:
        self._terms = tuple(terms)
        histories = [term for term in terms if isinstance(term, History)]
        kinds = [isinstance(term, History) for term in terms]
        if kinds != sorted(kinds):
            late = terms[len(kinds) - 1 - kinds[::-1].index(False)].name
            raise ValueError(f"computed term {late!r} stands behind a history; histories are last")
        present = dict(measured)
        self.widths: dict[str, int] = {}
        for term in terms:
            if isinstance(term, History):
                self.widths[term.name] = term.ticks * _width(term, present)
                continue
            if isinstance(term, PreviousAction):
                term.check(action_size)
            size = action_size if isinstance(term, PreviousAction) else len(term.values)
            self.widths[term.name] = present[term.name] = size
        ends = np.cumsum([*present.values()])
        self._places = {
            name: np.arange(end - width, end)
            for (name, width), end in zip(present.items(), ends, strict=True)
        }
        self.present_size = int(ends[-1])
        self.ticks = max((term.ticks for term in histories), default=0)
        self.needs_memory = any(not isinstance(term, Constant) for term in terms)

    def write(self, observation: Float32, memory: Memory | None) -> None:
        """Fill in the computed elements of an observation (..., O) whose measured ones are there.

        Raises:
            ValueError: the memory is missing, and an element depends on it.
        """
        if self.needs_memory and memory is None:
            raise ValueError("an observation of this robot needs the memory of its session")
        present = observation[..., : self.present_size]
        end = self.present_size - sum(
            self.widths[term.name] for term in self._terms if not isinstance(term, History)
        )
        for term in self._terms:
            part = observation[..., end : (end := end + self.widths[term.name])]
            if isinstance(term, Constant):
                part[...] = term.values
            elif isinstance(term, PreviousAction):
                assert memory is not None
                part[...] = term.elements(memory.action)
            else:
                assert memory is not None
                part[...] = term.elements(present, memory, [self._places[n] for n in term.terms])


def _width(history: History, present: Mapping[str, int]) -> int:
    """Elements of one tick of a history."""
    for name in history.terms:
        if name not in present:
            raise unknown(f"term for history {history.name!r}:", name, present)
    width = sum(present[name] for name in history.terms)
    if (size := width * history.ticks) > MAX_SIZE:
        raise ValueError(f"history {history.name!r} has {size} elements, {MAX_SIZE} are possible")
    return width
