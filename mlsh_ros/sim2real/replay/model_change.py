"""Changes of the nominal robot that hypotheses assume."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sim.interface import Floats
from sim.randomization.parameters import ParameterVector
from sim.randomization.quantities import ROWS


@dataclass(frozen=True)
class ModelChange:
    """A change of the model or the actuation; the defaults change nothing."""

    mix: tuple[tuple[float, ...], ...] = ()  # (A, A) applied to the command; empty: identity
    ceiling: tuple[float, ...] = ()  # (A,) largest magnitude that an actuator gives
    # By name of a quantity of `sim.randomization.quantities`: what it is beside sim parameters.
    beside: tuple[tuple[str, float], ...] = ()

    def value(self, name: str) -> float:
        """Value of a quantity."""
        return dict(self.beside).get(name, ROWS[name].nominal)

    def with_value(self, name: str, value: float) -> ModelChange:
        """The same with another value of a quantity."""
        return replace(self, beside=tuple((dict(self.beside) | {name: value}).items()))

    def commanded(self, command: Floats) -> Floats:
        """(W, S, A) controls of the actuators for commands."""
        if self.mix:
            command = command @ np.array(self.mix).T
        if self.ceiling:
            ceiling = np.array(self.ceiling)
            command = np.clip(command, -ceiling, ceiling)
        return command

    def values(self, differences: ParameterVector) -> Floats:
        """(n,) values of a set of sim parameters and of this change."""
        values = differences.fixed
        for name, value in self.beside:
            part = differences.of(values[None], name)
            part[:] = ROWS[name].combination.apply(part, np.array(value))
        return values


NOMINAL = ModelChange()
