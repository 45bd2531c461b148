"""The mirror image of a robot: left and right exchanged, at the plane of its x and z axes.

A map says what becomes of each element of an observation and of an action: the element of another
place, and its sign. `sim.physics.mirror_check` compares it with the simulation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from typing_extensions import Self

from sim.errors import UserError, unknown
from sim.interface.computed import History, PreviousAction
from sim.interface.interface import Interface
from sim.interface.names import Label
from sim.interface.validators import MAX_SIZE, STRICT, Index, Integer, Positive

Sign = Annotated[Integer, Field(ge=-1, le=1)]
Places = NDArray[np.intp]
Float32 = NDArray[np.float32]


@dataclass(frozen=True, config=STRICT)
class TermMirror:
    """The mirror image of a term: element i is `signs[i]` times element `order[i]`."""

    # For each element the one that it has the value of; null: each is itself.
    order: Annotated[tuple[Index, ...], Field(max_length=MAX_SIZE)] | None = None
    # 1 or -1 for each element; null: all 1.
    signs: Annotated[tuple[Sign, ...], Field(max_length=MAX_SIZE)] | None = None

    @model_validator(mode="after")
    def _is_its_own_inverse(self) -> Self:
        if self.signs is not None and 0 in self.signs:
            raise ValueError(f"signs are 1 or -1, not {self.signs}")
        order, signs = self.order or (), self.signs
        if signs is not None and self.order is not None and len(signs) != len(order):
            raise ValueError(f"{len(order)} elements in order, {len(signs)} in signs")
        for i, j in enumerate(order):
            if j >= len(order) or order[j] != i:
                back = order[j] if j < len(order) else "nothing"
                raise ValueError(f"element {i} has the value of {j}, and {j} that of {back}")
            if signs is not None and signs[i] != signs[j]:
                raise ValueError(f"elements {i} and {j} are exchanged with different signs")
        return self

    def elements(self, size: int, where: str) -> tuple[Places, Float32]:
        """Order and signs (size,).

        Raises:
            UserError: it is of another number of elements.
        """
        for given in (self.order, self.signs):
            if given is not None and len(given) != size:
                raise UserError(f"{where} has {size} elements, {len(given)} are given")
        order = np.arange(size) if self.order is None else np.array(self.order)
        signs = np.ones(size) if self.signs is None else np.array(self.signs)
        return order.astype(np.intp), signs.astype(np.float32)


class ElementMirror:
    """The mirror image of a vector; applied twice it changes nothing.

    Args:
        order: (n,) for each element the one that it has the value of.
        signs: (n,) 1 or -1.
    """

    def __init__(self, order: Places, signs: Float32) -> None:
        self.order, self.signs = order, signs

    def __call__(self, values: NDArray[np.floating]) -> Float32:
        """Mirror images of vectors (..., n)."""
        return np.asarray(values[..., self.order] * self.signs, np.float32)


@dataclass(frozen=True, config=STRICT)
class Mirror:
    """The robot's mirror image, left and right exchanged; a term with `{}` stays as it is."""

    # Of every observation term that policies observe; computed terms follow from them.
    observation: dict[Label, TermMirror]
    action: dict[Label, TermMirror]  # of every action term
    # Largest difference of an observation's element, after a tick, from that of a mirrored robot.
    tolerance: Positive

    def of_observation(
        self, interface: Interface, more: Mapping[str, TermMirror], where: str
    ) -> ElementMirror:
        """The mirror image of an observation.

        Args:
            interface: of the robot, with a family's terms.
            more: mirror images of these terms.
            where: begins an error.

        Raises:
            UserError: a term is missing, is not there, or has another size.
        """
        known = {**self.observation, **more}
        terms = {term.name: term for term in interface.observation}
        if odd := [name for name in known if name not in terms]:
            raise UserError(f"{where}: {unknown('observation term', odd[0], terms)}")
        size = interface.observation_size
        order, signs = np.arange(size), np.ones(size, np.float32)
        for name, term in terms.items():
            if name not in known and term.policy_input:
                raise UserError(f"{where}: observation term {name!r} is missing; {{}} leaves it")
            if name in known:
                own = known[name].elements(term.count, f"{where}: observation term {name!r}")
                if term.policy_input:
                    _put(order, signs, interface.observation_slices[name], own)
        self._computed(interface, order, signs, where)
        return ElementMirror(order, signs)

    def of_action(self, interface: Interface, where: str) -> ElementMirror:
        """The mirror image of an action; errors as of `of_observation`."""
        names = interface.action_slices
        if odd := [name for name in self.action if name not in names]:
            raise UserError(f"{where}: {unknown('action term', odd[0], names)}")
        order, signs = np.arange(interface.action_size), np.ones(interface.action_size, np.float32)
        for term in interface.action:
            if term.name not in self.action:
                raise UserError(f"{where}: action term {term.name!r} is missing; {{}} leaves it")
            own = self.action[term.name].elements(term.size, f"{where}: action {term.name!r}")
            _put(order, signs, names[term.name], own)
        return ElementMirror(order, signs)

    def _computed(self, interface: Interface, order: Places, signs: Float32, where: str) -> None:
        """Fill in the computed terms: the previous action as an action, a history as its terms."""
        places = interface.observation_slices
        for term in interface.computed:
            here = places[term.name]
            if isinstance(term, PreviousAction):
                action = self.of_action(interface, where)
                _put(order, signs, here, (action.order, action.signs))
            elif isinstance(term, History):
                parts = [places[name] for name in term.terms]
                _put(order, signs, here, _history(term, parts, order, signs))


def _put(order: Places, signs: Float32, where: slice, own: tuple[Places, Float32]) -> None:
    order[where], signs[where] = own[0] + where.start, own[1]


def _history(
    term: History, parts: list[slice], order: Places, signs: Float32
) -> tuple[Places, Float32]:
    """Order and signs of a history, within it, from those of its terms."""
    widths = [part.stop - part.start for part in parts]
    own = [order[part] - part.start for part in parts]
    places, found, total = [], [], 0
    if term.layout == "by_tick":
        whole = np.concatenate([o + sum(widths[:i]) for i, o in enumerate(own)])
        each = [(whole, np.concatenate([signs[part] for part in parts]))] * term.ticks
    else:
        each = [
            pair
            for o, part in zip(own, parts, strict=True)
            for pair in [(o, signs[part])] * term.ticks
        ]
    for o, s in each:
        places.append(o + total)
        found.append(s)
        total += len(o)
    return np.concatenate(places), np.concatenate(found)
