"""Calls a task family: what a user's class does wrong is named with its method and its line."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from sim.errors import UserError, short, unknown
from sim.interface import Floats
from sim.tasks.base import (
    EpisodeState,
    Fields,
    HasActionCost,
    HasDifficulty,
    HasGround,
    HasObstacles,
    HasPoseReset,
    HasRewards,
    HasSignals,
    HasTarget,
    HasTaskDynamics,
    HasTermSizes,
    TaskFamily,
)

SHIPPED = "sim.tasks."  # modules of families that have tests of their own


class FamilyCalls:
    """The methods of a task family with their results checked; nothing else calls them.

    Without the check a reward of another shape is spread over all simulations, and one that is
    not a number is a return. Families that ship are called as they are. What a family leaves out
    of the optional Protocols of `sim.tasks.base` has a value here that changes nothing.

    Every method raises a UserError if a user's method raises or returns what it should not; it
    names the family, the method and the line. n is the number of simulations in the arguments.

    Args:
        family: that is called.

    Attributes:
        term_sizes: number of elements that terms of the robot must have, by name.
        signals: of the simulation, that rewards need.
        solid: whether the bodies of `place` are obstacles of the simulation.
        shake: rad, largest deviation of every hinge at the start.
        pose_reset: ticks between two resets of the pose; 0: none.
        has_cost: whether the action has a cost.
        rewards: reward terms with their weights; None without.
        has_command: whether the family has a method `command`.
        graded: whether episodes are easy or hard.
    """

    def __init__(self, family: TaskFamily) -> None:
        self._family = family
        self._trusted = type(family).__module__.startswith(SHIPPED)
        self.term_sizes = dict(family.term_sizes) if isinstance(family, HasTermSizes) else {}
        self.signals = tuple(family.signals) if isinstance(family, HasSignals) else ()
        self.solid = isinstance(family, HasObstacles) and family.solid
        self.shake, self.pose_reset = 0.0, 0
        if isinstance(family, HasPoseReset):
            self.shake, self.pose_reset = family.shake, family.pose_reset
        self.has_cost = isinstance(family, HasActionCost)
        self.rewards = family.rewards if isinstance(family, HasRewards) else None
        self.has_command = callable(getattr(family, "command", None))
        self.graded = isinstance(family, HasDifficulty) and bool(family.graded)
        self._has_ground = isinstance(family, HasGround)
        self._advances = isinstance(family, HasTaskDynamics)

    # The scene ------------------------------------------------------------------------------

    def scene(self, spec: mujoco.MjSpec) -> None:
        """Add goals, walls and so on to the robot's model."""
        self._call("scene", spec)

    def place(self, layout: EpisodeState, model: mujoco.MjModel) -> dict[str, Floats]:
        """Poses (n, 2) or (n, 3) of mocap bodies of the model, m, by name."""
        places = self._call("place", layout)
        if self._trusted:
            return places  # type: ignore[no-any-return]
        bodies = [b.name for b in map(model.body, range(model.nbody)) if b.mocapid[0] >= 0]
        checked = {}
        for body, place in self._mapping("place", places, "bodies to poses").items():
            if body not in bodies:
                raise self._wrong("place", str(unknown("mocap body", body, bodies)))
            checked[body] = self._check_places("place", place, _rows(layout), f"{body!r}: ")
        return checked

    # An episode -----------------------------------------------------------------------------

    def reset(
        self,
        task: int,
        rng: np.random.Generator,
        layout: EpisodeState | None = None,
        difficulty: float = 1.0,
    ) -> Fields:
        """The rows of an episode, by name.

        Args:
            task: its number.
            rng: of the episode.
            layout: has the rows of the episodes so far.
            difficulty: the hardest that the episode may be, 0 to 1.
        """
        rows = self._call("reset", task, rng, *([difficulty] if self.graded else []))
        if self._trusted:
            return rows  # type: ignore[no-any-return]
        self._mapping("reset", rows, "names to rows")
        if layout and (odd := sorted(layout.keys() ^ rows.keys())):
            raise self._wrong("reset", f"{odd[0]!r} is not drawn in every episode")
        if self._family.places and "start" not in rows:
            raise self._wrong("reset", f"'start' (x, y, heading) is missing; has {[*rows]}")
        shapes: dict[str, tuple[int, ...]] = {"start": (3,)} if self._family.places else {}
        shapes |= {name: values.shape[1:] for name, values in (layout or {}).items()}
        return {
            name: self._check("reset", row, shapes.get(name), f"{name!r}: ")
            for name, row in rows.items()
        }

    def layout(self, task: int, rng: np.random.Generator) -> EpisodeState:
        """The layout of one episode, (1, ...) by name."""
        return {name: np.asarray(row)[None] for name, row in self.reset(task, rng).items()}

    def fields(self, layout: EpisodeState, robot: Fields) -> dict[str, Floats]:
        """Values (n, size) of the family's own terms."""
        values = self._call("fields", layout, robot)
        if self._trusted:
            return values  # type: ignore[no-any-return]
        self._mapping("fields", values, "terms to values")
        checked = {}
        for term in self._family.terms:
            if term.name not in values:
                raise self._wrong("fields", f"term {term.name!r} is missing; has {[*values]}")
            checked[term.name] = self._check(
                "fields",
                values[term.name],
                (_rows(robot), term.size),
                f"term {term.name!r}: ",
                inf=term.inf_values is not None,  # then it is a measurement, REP 117
            )
        if odd := [name for name in values if name not in checked]:
            raise self._wrong("fields", f"{odd[0]!r} is no term of it; terms: {[*checked]}")
        return checked

    def advance(self, layout: EpisodeState, fields: Fields, dt: float) -> dict[str, Floats]:
        """New values (n, ...) of layout entries; none for a family without `HasTaskDynamics`."""
        if not self._advances:
            return {}
        values = self._call("advance", layout, fields, dt)
        if self._trusted:
            return values  # type: ignore[no-any-return]
        self._mapping("advance", values, "names to values")
        if odd := [name for name in values if name not in layout]:
            raise self._wrong("advance", f"{odd[0]!r} is not in the layout: {[*layout]}")
        return {
            name: self._check("advance", value, layout[name].shape, f"{name!r}: ")
            for name, value in values.items()
        }

    # Its result -----------------------------------------------------------------------------

    def reward(self, layout: EpisodeState, fields: Fields) -> Floats:
        """(n,) rewards for the state after a tick, without the cost of the action."""
        return self._numbers("reward", (_rows(fields),), layout, fields)

    def cost(self, action: Floats) -> Floats:
        """(n,) cost of actions (n, A); only for a family that `has_cost`."""
        return self._numbers("cost", (len(action),), action)

    def command(self, layout: EpisodeState) -> Floats:
        """(n, 3) the velocities that a family with reward terms commands, m/s, m/s, rad/s."""
        return self._numbers("command", (_rows(layout), 3), layout)

    @property
    def ground(self) -> Callable[[Floats], Floats] | None:
        """Heights (...) of the ground at places (..., 2), m; None for a family on flat ground."""
        return self._ground if self._has_ground else None

    def _ground(self, xy: Floats) -> Floats:
        return self._numbers("ground", xy.shape[:-1], xy)

    def success(self, layout: EpisodeState, fields: Fields) -> NDArray[np.bool_]:
        """(n,) True where the state counts as solved."""
        return self._flags("success", layout, fields)

    def terminated(self, layout: EpisodeState, fields: Fields) -> NDArray[np.bool_]:
        """(n,) True where the task ends the episode."""
        return self._flags("terminated", layout, fields)

    # What a return is worth, and pictures ---------------------------------------------------

    def estimate(self, task: int, dt: float) -> tuple[float, float]:
        """The returns of a controller that ignores the task, and of one that knows it."""
        values = self._call("estimate", task, dt)
        if not self._trusted:
            self._check("estimate", values, (2,))
        low, high = values
        return float(low), float(high)

    def expert_target(self, layout: EpisodeState, fields: Fields) -> Floats:
        """(n, 2) target of a controller that knows the task, m."""
        return self._numbers("expert_target", (_rows(fields), 2), layout, fields)

    def task_blind_target(self, layout: EpisodeState, fields: Fields) -> Floats:
        """(n, 2) target of a controller that ignores the task, m."""
        return self._numbers("task_blind_target", (_rows(fields), 2), layout, fields)

    def target(self, layout: EpisodeState) -> Floats | None:
        """(n, 2) x and y of the goal that counts, m; None for a family without `target`."""
        if not (isinstance(self._family, HasTarget) and callable(self._family.target)):
            return None
        values = self._call("target", layout)
        if not self._trusted:
            values = self._check_places("target", values, _rows(layout))
        return np.asarray(values[:, :2], np.float64)

    @property
    def radius(self) -> float | None:
        """Radius of the goal that counts, m; None for a family without one."""
        radius = getattr(self._family, "radius", None)
        return float(radius) if isinstance(radius, (int, float)) and radius > 0 else None

    # Checks ---------------------------------------------------------------------------------

    def _call(self, method: str, *arguments: Any) -> Any:
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

    def _numbers(self, method: str, shape: tuple[int | None, ...], *arguments: Any) -> Floats:
        values = self._call(method, *arguments)
        if self._trusted:
            return values  # type: ignore[no-any-return]
        return self._check(method, values, shape)

    def _flags(self, method: str, layout: EpisodeState, fields: Fields) -> NDArray[np.bool_]:
        values = self._call(method, layout, fields)
        if self._trusted:
            return values  # type: ignore[no-any-return]
        self._check(method, values, (_rows(fields),))
        if np.asarray(values).dtype != bool:
            raise self._wrong(method, f"{short(values)} is not of true and false")
        return np.asarray(values)

    def _mapping(self, method: str, value: Any, what: str) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            raise self._wrong(method, f"{short(value)} is no mapping of {what}")
        return value

    def _check(
        self,
        method: str,
        value: Any,
        shape: tuple[int | None, ...] | None,
        what: str = "",
        *,
        inf: bool = False,
    ) -> Floats:
        """Returns a value as an array of finite elements and of this shape; None: of any."""
        try:
            numbers = np.asarray(value, np.float64)
        except (TypeError, ValueError):
            raise self._wrong(method, f"{what}{short(value)} is no array of numbers") from None
        if shape is not None and not _fits(numbers.shape, shape):
            raise self._wrong(method, f"{what}the shape is {numbers.shape}, not {shape}")
        wrong = numbers[np.isnan(numbers) if inf else ~np.isfinite(numbers)]
        if wrong.size:
            raise self._wrong(method, f"{what}{wrong[0]} is not finite")
        return numbers

    def _check_places(self, method: str, value: Any, n: int | None, what: str = "") -> Floats:
        """Returns a value as places (n, 2) or (n, 3) of finite coordinates."""
        places = self._check(method, value, None, what)
        if not (_fits(places.shape, (n, 2)) or _fits(places.shape, (n, 3))):
            text = f"{what}the shape is {places.shape}, not ({n}, 2) or ({n}, 3)"
            raise self._wrong(method, text)
        return places

    def _wrong(self, method: str, text: str) -> UserError:
        return UserError(f"task family {self._family.name!r}: {method}: {text}")


def _rows(values: Fields) -> int | None:
    """N of values (n, ...) by name; None if there are none."""
    return next((len(each) for each in values.values()), None)


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    same = (want in (None, have) for have, want in zip(shape, wanted, strict=False))
    return len(shape) == len(wanted) and all(same)
