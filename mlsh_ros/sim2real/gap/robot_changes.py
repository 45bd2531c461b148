"""Changes of the robot that `mlsh gap` tries: actuators, mass, damping and friction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from mlsh_ros.sim2real.gap.moments import arranged, turned
from mlsh_ros.sim2real.replay.model_change import ModelChange
from mlsh_ros.sim2real.replay.residuals import action_labels
from sim.interface import Floats, Interface
from sim.randomization.quantities import ROWS

FEW = 4  # actuators; of more each is tried with fewer values
GAINS = (-1.0, 0.0, 0.5, 0.7, 0.8, 0.9, 1.1, 1.25, 1.5, 2.0)
FEWER_GAINS = (-1.0, 0.0, 0.6, 1.5)
CEILINGS = (0.3, 0.5, 0.7, 0.85)  # of the largest command
FACTORS = {  # quantities of sim.randomization.quantities
    "mass_factor": (0.4, 0.6, 0.8, 1.25, 1.6, 2.2, 3.2),
    "damping_factor": (0.0, 0.3, 3.0, 10.0, 30.0),
    "friction_factor": (0.1, 0.3, 0.6, 1.6),
}
TURNS = tuple(np.deg2rad(range(-150, 181, 30)).tolist())

# Changes of one kind: kind, where, and (value, change) in order.
Family = tuple[str, tuple[str, ...], list[tuple[float, ModelChange]]]


def families(interface: Interface, command: Floats, base: ModelChange) -> list[Family]:
    """Returns all changes that are tried.

    Args:
        interface: of the robot.
        command: (.., A) all that were recorded.
        base: what is changed already.
    """
    names = tuple(action_labels(interface))
    return [
        *_forces(names, command, base),
        *_factors(base),
        *_crossed(names, base),
        *_turned(interface, names, base),
    ]


def _mix(base: ModelChange, size: int) -> Floats:
    return np.array(base.mix) if base.mix else np.eye(size)


def _forces(names: Sequence[str], command: Floats, base: ModelChange) -> list[Family]:
    """Gains and maxima of each actuator, and of all together."""
    size = len(names)
    mix = _mix(base, size)
    largest = np.abs(command).max(axis=tuple(range(command.ndim - 1)), initial=1e-9)
    ceiling = np.array(base.ceiling) if base.ceiling else largest
    gains = GAINS if size <= FEW else FEWER_GAINS

    def gain(which: NDArray[np.bool_]) -> list[tuple[float, ModelChange]]:
        return [
            (g, replace(base, mix=rows(np.where(which, g, 1.0)[:, None] * mix))) for g in gains
        ]

    def limit(which: NDArray[np.bool_]) -> list[tuple[float, ModelChange]]:
        return [
            (c, replace(base, ceiling=tuple(np.where(which, c * largest, ceiling))))
            for c in CEILINGS
        ]

    masks = [(tuple(names[i : i + 1]), np.arange(size) == i) for i in range(size)]
    if size > 1:
        masks.append((tuple(names), np.ones(size, bool)))
    return [
        family
        for where, which in masks
        for family in (("gain", where, gain(which)), ("ceiling", where, limit(which)))
    ]


def _factors(base: ModelChange) -> list[Family]:
    found: list[Family] = []
    for name, factors in FACTORS.items():
        tried = [base.value(name) * factor for factor in factors]
        found.append((ROWS[name].sweep, (), [(v, base.with_value(name, v)) for v in tried]))
    return found


def _crossed(names: Sequence[str], base: ModelChange) -> list[Family]:
    """Two actuators with exchanged commands."""
    size = len(names)
    found: list[Family] = []
    for i, j in combinations(range(size), 2):
        order = np.arange(size)
        order[[i, j]] = j, i
        swapped = replace(base, mix=rows(arranged(order) @ _mix(base, size)))
        found.append(("crossed", (names[i], names[j]), [(0.0, swapped)]))
    return found


def _turned(interface: Interface, names: Sequence[str], base: ModelChange) -> list[Family]:
    """Commands of two elements in a rotated frame."""
    size = len(names)
    found: list[Family] = []
    for term in interface.action:
        part = interface.action_slices[term.name]
        if term.size == 2 and size <= FEW:
            turns = []
            for angle in TURNS:
                whole = np.eye(size)
                whole[part, part] = turned(angle)
                turns.append((angle, replace(base, mix=rows(whole @ _mix(base, size)))))
            found.append(("turned_command", tuple(names[part]), turns))
    return found


def blend(a: ModelChange, b: ModelChange, part: float) -> ModelChange:
    """Returns a change between two of a family."""

    def between(x: Floats, y: Floats) -> Floats:
        return np.asarray((1 - part) * x + part * y)

    names = dict.fromkeys(name for name, _ in (*a.beside, *b.beside))
    return ModelChange(
        mix=rows(between(np.array(a.mix), np.array(b.mix))) if a.mix else (),
        ceiling=tuple(between(np.array(a.ceiling), np.array(b.ceiling)).tolist())
        if a.ceiling
        else (),
        beside=tuple((n, (1 - part) * a.value(n) + part * b.value(n)) for n in names),
    )


def rows(matrix: Floats) -> tuple[tuple[float, ...], ...]:
    """Converts a matrix to tuples, for a frozen dataclass."""
    return tuple(tuple(row) for row in matrix.tolist())
