"""Privileged values: what the value functions of a training may see, and no policy.

The setting `network.privileged` names them. They are true values of the simulation: no noise,
delay or bias of a sensor is in them, and they have no part in an interface or a bundle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sim.errors import UserError, unknown
from sim.interface import Floats, Interface
from sim.physics.robot_model import Robot
from sim.physics.signals import Signal
from sim.tasks.base import TaskFamily
from sim.tasks.family_calls import FamilyCalls

DRAWN = "sim_params"  # the name of all that an episode draws by domain randomization


def privileged_signals(robot: Robot, family: TaskFamily, names: Sequence[str]) -> list[Signal]:
    """The robot's own signals among `names`; one of the family of the same name comes before."""
    known = [signal.name for signal in FamilyCalls(family).signals]
    return [s for s in robot.signals if s.name in names and s.name not in known]


def check_privileged(
    robot: Robot, family: TaskFamily, names: Sequence[str], *, randomized: bool
) -> None:
    """Refuse names that are of nothing in the simulation.

    Args:
        robot: without the family's terms.
        family: the task family.
        names: of privileged values.
        randomized: whether episodes draw sim parameters.

    Raises:
        UserError: names it, and the valid ones.
    """
    terms = robot.interface.with_terms(family.terms).observation
    signals = (*FamilyCalls(family).signals, *robot.signals)
    known = [*(t.name for t in terms), *dict.fromkeys(s.name for s in signals)]
    if randomized:
        known.append(DRAWN)
    for name in names:
        if name == DRAWN and not randomized:
            raise UserError(
                f"network.privileged: {DRAWN!r} is what episodes draw, and domain_randomization "
                "is false: they draw nothing"
            )
        if name not in known:
            raise unknown("privileged value", name, known)
    if len(set(names)) < len(names):
        raise UserError(f"network.privileged: {list(names)} has a name twice")


class Privileged:
    """Reads privileged values of B simulations.

    Args:
        names: of observation terms, of signals, or `sim_params`, in order; checked.
        interface: of the robot, with the family's terms.
        signals: number of elements of each signal that the model has, by name.
        drawn: number of sim parameters that an episode draws.

    Attributes:
        size: P, elements of all of them.
    """

    def __init__(
        self, names: Sequence[str], interface: Interface, signals: Mapping[str, int], drawn: int
    ) -> None:
        self._names = tuple(names)
        self._terms = {term.name: term for term in interface.observation}
        widths = {**signals, DRAWN: drawn, **{t.name: t.count for t in interface.observation}}
        self.widths = {name: widths[name] for name in names}  # elements, by name, in order
        self.size = sum(self.widths.values())

    def values(self, fields: Mapping[str, Floats], drawn: Floats) -> NDArray[np.float32]:
        """(B, P) values in their units.

        Args:
            fields: true values of the terms, and the signals.
            drawn: (B, n) what the episodes drew.
        """
        parts = [
            drawn
            if name == DRAWN
            else self._terms[name].values(fields[name])
            if name in self._terms
            else fields[name]
            for name in self._names
        ]
        return np.concatenate(parts, axis=1).astype(np.float32)
