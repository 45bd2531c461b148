"""The weighted sum of reward terms for n simulations, with what it remembers between ticks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from sim.errors import UserError
from sim.interface import Floats
from sim.physics.robot_model import Robot
from sim.physics.signals import Signal
from sim.tasks.rewards.motion import FeetMemory, Motion, on_ground
from sim.tasks.rewards.parts import COMMAND, POSE, PREFIX, RobotParts, check_pose, signal_for
from sim.tasks.rewards.weights import Rewards

STORED = "rewards."  # prefix of its arrays in a snapshot


class RewardSum:
    """The terms of a family's `rewards` on a robot.

    Args:
        rewards: terms with their weights.
        robot: whose model has the parts that the terms read.
        size: n.
        where: the family, as errors begin.
        has_command: whether the family has a method `command`.
        ground: heights (...) of the ground at places (..., 2), m; None: it is flat, at 0.

    Attributes:
        names: of the terms, in order.
        signals: that the terms read.
        totals: (n, terms) sums of the weighted values since `take_means`.
        cost_scale: factor of weighted values that are negative.

    Raises:
        UserError: a term needs a part that the model lacks, or a command; one line.
    """

    def __init__(
        self,
        rewards: Rewards,
        robot: Robot,
        size: int,
        where: str,
        *,
        has_command: bool,
        ground: Callable[[Floats], Floats] | None = None,
    ) -> None:
        self.names, self._where, self._ground = rewards.names, where, ground
        self._terms, self._parts = rewards.terms, RobotParts(robot)
        needs: dict[str, str] = {}
        for each in rewards.terms:
            needs |= {need: each.term.name for need in each.term.needs if need not in needs}
        if COMMAND in needs and not has_command:
            raise UserError(
                f"{where}: reward term {needs[COMMAND]!r} needs the method `command`, which "
                "returns (n, 3): ahead and left, m/s, and counter-clockwise, rad/s"
            )
        self._signals = {}
        for need, term in needs.items():
            said = f"{where}: reward term {term!r}"
            if need == POSE:
                check_pose(self._parts, said)
            elif need != COMMAND:
                self._signals[need] = signal_for(self._parts, need, said)
        self._has_command = COMMAND in needs
        self._steps = "foot_force" in self._signals
        width = robot.interface.action_size
        self._previous, self._earlier = np.zeros((size, width)), np.zeros((size, width))
        feet = len(self._parts.feet) if self._steps else 0
        self._feet = FeetMemory.begun(size, feet)
        self.totals, self._ticks = np.zeros((size, len(self.names))), 0
        self.cost_scale = 1.0

    @property
    def signals(self) -> tuple[Signal, ...]:
        """Signals that the world has to read."""
        return tuple(self._signals.values())

    @property
    def needs_command(self) -> bool:
        """True if a term compares the motion with the family's command."""
        return self._has_command

    def begin(self, ids: NDArray[np.int32], action: Floats) -> None:
        """Begin episodes in simulations `ids`, before which (len(ids), A) was commanded."""
        self._previous[ids] = self._earlier[ids] = action
        for each in fields(self._feet):
            getattr(self._feet, each.name)[ids] = 0

    def evaluate(
        self, fields: dict[str, Floats], command: Floats, action: Floats, dt: float
    ) -> Floats:
        """(n, terms) weighted values of a tick of `dt` s, which are remembered.

        Args:
            fields: with the signals.
            command: (n, 3), or anything where no term needs it.
            action: (n, A) executed.
            dt: s.

        Raises:
            UserError: a value is not finite, or not one per simulation; names the term.
        """
        read = {need: fields[PREFIX + need] for need in self._signals}
        if self._steps:
            force = read["foot_force"]
            contact = on_ground(force.reshape(len(force), -1, 3))
            self._feet = self._feet.after(contact, dt)
        actions = action, self._previous, self._earlier
        motion = Motion(self._parts, read, command, *actions, self._feet, self._ground)
        values = np.empty_like(self.totals)
        for column, each in enumerate(self._terms):
            value = each.term.function(motion, **dict(each.parameters))
            if np.shape(value) != (len(values),):
                raise self._wrong(column, f"the shape is {np.shape(value)}, not ({len(values)},)")
            values[:, column] = each.weight * np.asarray(value)
        if self.cost_scale < 1:
            values = np.where(values < 0, self.cost_scale * values, values)
        if not np.isfinite(values).all():
            row, column = (int(i) for i in np.argwhere(~np.isfinite(values))[0])
            raise self._wrong(column, f"{values[row, column]} in simulation {row} is not finite")
        self._previous, self._earlier = action.copy(), self._previous
        self.totals += values
        self._ticks += 1
        return values

    def _wrong(self, column: int, text: str) -> UserError:
        return UserError(f"{self._where}: reward term {self.names[column]!r}: {text}")

    def take_means(self) -> Floats:
        """(n, terms) mean weighted values per tick since the last call."""
        means = self.totals / max(1, self._ticks)
        self.totals, self._ticks = np.zeros_like(self.totals), 0
        return means

    def snapshot(self) -> dict[str, NDArray[np.generic]]:
        """Everything that the next tick depends on, as arrays (n, ...)."""
        own = {"previous": self._previous, "earlier": self._earlier}
        feet = {each.name: getattr(self._feet, each.name) for each in fields(self._feet)}
        return {STORED + name: array.copy() for name, array in (own | feet).items()}

    def restore(self, state: dict[str, NDArray[np.generic]]) -> None:
        """Continue from a `snapshot`, bit for bit.

        Raises:
            ValueError: the snapshot is of other reward terms.
        """
        kept = self.snapshot()
        if odd := [k for k, own in kept.items() if k not in state or state[k].shape != own.shape]:
            raise ValueError(f"the snapshot has other reward terms: {odd[0]}")
        self._previous = state[STORED + "previous"].astype(np.float64)
        self._earlier = state[STORED + "earlier"].astype(np.float64)
        self._feet = FeetMemory(
            **{
                each.name: state[STORED + each.name].astype(getattr(self._feet, each.name).dtype)
                for each in fields(self._feet)
            }
        )
