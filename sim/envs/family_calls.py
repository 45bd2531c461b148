"""Calls a task family: what a user's class does wrong is named with its method and its line."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.errors import UserError, short
from sim.interface import Floats
from sim.tasks.base import EpisodeState, Fields, TaskFamily

SHIPPED = "sim.tasks."  # modules of families that have tests of their own


class FamilyCalls:
    """The methods of a task family for n simulations, with their results checked.

    Without the check a reward of another shape is spread over all simulations, and one that is
    not a number is a return. Families that ship are called as they are.

    Args:
        family: that is called.
        size: n.
    """

    def __init__(self, family: TaskFamily, size: int) -> None:
        self._family, self._size = family, size
        self._trusted = type(family).__module__.startswith(SHIPPED)

    def call(self, method: str, *arguments: Any) -> Any:
        """Returns what a method returns.

        Raises:
            UserError: a user's method raises; names the line.
        """
        called = getattr(self._family, method)
        if self._trusted:
            return called(*arguments)
        try:
            return called(*arguments)
        except UserError:
            raise
        except Exception as error:  # whatever a stranger's class does
            file = getattr(sys.modules.get(type(self._family).__module__), "__file__", None)
            frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
            at = f" ({file}, line {frames[-1].lineno})" if frames else ""
            raise self._wrong(method, f"{type(error).__name__}: {error}{at}") from error

    def reset(self, task: int, rng: np.random.Generator, layout: EpisodeState) -> Fields:
        """The rows of an episode, by name; `layout` has those of the episodes so far."""
        rows = self.call("reset", task, rng)
        if self._trusted:
            return rows  # type: ignore[no-any-return]
        if not isinstance(rows, Mapping):
            raise self._wrong("reset", f"{short(rows)} is no mapping of names to rows")
        if layout and (odd := sorted(layout.keys() ^ rows.keys())):
            raise self._wrong("reset", f"{odd[0]!r} is not drawn in every episode")
        if self._family.places and "start" not in rows:
            raise self._wrong("reset", f"'start' (x, y, heading) is missing; has {[*rows]}")
        shapes: dict[str, tuple[int, ...]] = {"start": (3,)} if self._family.places else {}
        shapes |= {name: values.shape[1:] for name, values in layout.items()}
        return {
            name: self._check("reset", row, shapes.get(name), f"{name!r}: ")
            for name, row in rows.items()
        }

    def fields(self, layout: EpisodeState, robot: Fields) -> dict[str, Floats]:
        """Values (n, size) of the family's own terms."""
        values = self.call("fields", layout, robot)
        if self._trusted:
            return values  # type: ignore[no-any-return]
        if not isinstance(values, Mapping):
            raise self._wrong("fields", f"{short(values)} is no mapping of terms to values")
        checked = {}
        for term in self._family.terms:
            if term.name not in values:
                raise self._wrong("fields", f"term {term.name!r} is missing; has {[*values]}")
            checked[term.name] = self._check(
                "fields",
                values[term.name],
                (self._size, term.size),
                f"term {term.name!r}: ",
                inf=term.inf_values is not None,  # then it is a measurement, REP 117
            )
        if odd := [name for name in values if name not in checked]:
            raise self._wrong("fields", f"{odd[0]!r} is no term of it; terms: {[*checked]}")
        return checked

    def advance(self, layout: EpisodeState, fields: Fields, dt: float) -> dict[str, Floats]:
        """New values (n, ...) of layout entries."""
        values = self.call("advance", layout, fields, dt)
        if self._trusted:
            return values  # type: ignore[no-any-return]
        if not isinstance(values, Mapping):
            raise self._wrong("advance", f"{short(values)} is no mapping of names to values")
        if odd := [name for name in values if name not in layout]:
            raise self._wrong("advance", f"{odd[0]!r} is not in the layout: {[*layout]}")
        return {
            name: self._check("advance", value, layout[name].shape, f"{name!r}: ")
            for name, value in values.items()
        }

    def numbers(self, method: str, *arguments: Any) -> Floats:
        """(n,) what `reward` or `cost` return."""
        values = self.call(method, *arguments)
        if self._trusted:
            return values  # type: ignore[no-any-return]
        return self._check(method, values, (self._size,))

    def command(self, layout: EpisodeState) -> Floats:
        """(n, 3) the velocities that a family with reward terms commands."""
        return self._check("command", self.call("command", layout), (self._size, 3))

    def flags(self, method: str, *arguments: Any) -> NDArray[np.bool_]:
        """(n,) what `success` or `terminated` return."""
        values = self.call(method, *arguments)
        if self._trusted:
            return values  # type: ignore[no-any-return]
        self._check(method, values, (self._size,))
        if np.asarray(values).dtype != bool:
            raise self._wrong(method, f"{short(values)} is not of true and false")
        return np.asarray(values)

    def estimate(self, task: int, dt: float) -> tuple[float, float]:
        """The returns of a controller that ignores the task, and of one that knows it."""
        values = self.call("estimate", task, dt)
        if not self._trusted:
            self._check("estimate", values, (2,))
        low, high = values
        return float(low), float(high)

    def _check(
        self,
        method: str,
        value: Any,
        shape: tuple[int, ...] | None,
        what: str = "",
        *,
        inf: bool = False,
    ) -> Floats:
        """Returns a value as an array of this shape (None: of any) whose elements are finite."""
        try:
            numbers = np.asarray(value, np.float64)
        except (TypeError, ValueError):
            raise self._wrong(method, f"{what}{short(value)} is no array of numbers") from None
        if shape is not None and numbers.shape != shape:
            raise self._wrong(method, f"{what}the shape is {numbers.shape}, not {shape}")
        wrong = numbers[np.isnan(numbers) if inf else ~np.isfinite(numbers)]
        if wrong.size:
            raise self._wrong(method, f"{what}{wrong[0]} is not finite")
        return numbers

    def _wrong(self, method: str, text: str) -> UserError:
        return UserError(f"task family {self._family.name!r}: {method}: {text}")
