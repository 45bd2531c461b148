"""Moving Bandits whose rewards have another unit and another zero."""

from typing import ClassVar

from pydantic.dataclasses import dataclass as checked

from sim.interface import STRICT
from sim.tasks.moving_bandits import MovingBandits


@checked(frozen=True, config=STRICT)
class ShiftedBandits(MovingBandits):
    """The same tasks: every reward is multiplied by `unit`, and `bonus` is added to it."""

    name: ClassVar[str] = "shifted_bandits"

    unit: float = 1.0
    bonus: float = 0.0  # of every tick

    def reward(self, layout, fields):
        return self.unit * super().reward(layout, fields) + self.bonus


@checked(frozen=True, config=STRICT)
class FencedShiftedBandits(ShiftedBandits):
    """Episodes terminate far from the middle."""

    name: ClassVar[str] = "fenced_shifted_bandits"

    def terminated(self, layout, fields):
        return abs(fields["position"]).max(axis=-1) > 0.5
