"""Keys of a robot.yaml that simulation and training alone read: no part of the interface.

It needs no sensor and no topic, has no part in a bundle, and changes no digest of the robot.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from sim.errors import validated
from sim.interface import STRICT
from sim.interface.mirror import Mirror
from sim.physics.signals import Signal


@dataclass(frozen=True, config=STRICT)
class SimulationOnly:
    """Keys of robot.yaml that no robot reads."""

    # Quantities of the simulation that no sensor measures, for value functions (the setting
    # `network.privileged`).
    signals: tuple[Signal, ...] = ()
    # Left and right exchanged, for trainings that use the symmetry of the robot (the setting
    # `regularization.symmetry`); null: not stated.
    mirror: Mirror | None = None


_ADAPTER = TypeAdapter(SimulationOnly)


def simulation_only(data: dict[str, Any], path: Path) -> SimulationOnly:
    """Validate these keys of the robot.yaml at `path`.

    Raises:
        UserError: one of them is invalid; one line.
    """
    return validated(_ADAPTER, data, path)
