"""Predicted sensor values at any time within a simulated window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from mlsh_ros.sim2real.data.compared_values import angular, from_compared, to_compared, unfolded
from mlsh_ros.sim2real.data.tick_moments import Ints
from sim.interface import Floats, ObservationTerm
from sim.randomization.sensor_model import SensorModel, interpolated

PERFECT = SensorModel()


@dataclass(frozen=True)
class Prediction:
    """True values of W simulated windows, and the sensors that measure them."""

    before: int  # ticks before the comparison begins
    fine: int  # samples per tick
    period: float  # s, of a tick
    terms: Mapping[str, ObservationTerm]
    values: dict[str, Floats]  # per term (W, F, count_of) the true ones, as they are compared
    sensors: Mapping[str, SensorModel] = field(default_factory=dict)  # by term; others are perfect

    def at(
        self, term: str, window: Ints, time: Floats, sensor: SensorModel | None = None
    ) -> Floats:
        """(n, count_of) values that a sensor measures.

        Args:
            term: its name.
            window: (n,).
            time: (n,) ticks since the begin of the comparison.
            sensor: the measuring sensor; None: the one of `sensors`.
        """
        sensor = sensor or self.sensors.get(term, PERFECT)
        place = (time + self.before - sensor.delay / self.period) * self.fine
        return _shown(self.terms[term], sensor, interpolated(self.values[term], window, place))

    def rows(self, begin: int, count: int) -> Prediction:
        """Returns consecutive windows."""
        part = {name: values[begin : begin + count] for name, values in self.values.items()}
        return replace(self, values=part)


def compared(term: ObservationTerm, fields: Floats) -> Floats:
    """Converts (W, F, size) to compared values (W, F, count_of); angles without jumps."""
    viewed = to_compared(term, unfolded(term, fields))
    return np.unwrap(viewed, axis=1) if angular(term) else viewed


def _shown(term: ObservationTerm, sensor: SensorModel, viewed: Floats) -> Floats:
    """Converts compared true values (n, count_of) to measured ones."""
    if term.derive is not None or not sensor.changes_values:
        return viewed
    shown = to_compared(term, sensor.measured(from_compared(term, viewed)))
    if angular(term):  # it goes on counting turns
        shown = shown + 2 * np.pi * np.round((viewed - shown) / (2 * np.pi))
    return shown
