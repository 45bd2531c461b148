"""The sensor model: mount, delay, scale, bias, noise and dropout of true values.

The simulation, `mlsh gap` and `mlsh sysid` share this model. It applies everything but the delay,
for which past values are needed: `sim.randomization.perturbations` keeps them in a ring buffer
(training and sim_node), `mlsh_ros.sim2real.replay.prediction` interpolates simulated ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.interface import Floats, ObservationTerm
from sim.randomization.parameters import ParameterVector
from sim.randomization.schema import is_of_imu

CONJUGATE = np.array([1.0, -1.0, -1.0, -1.0])


def mount_of(turn: Floats) -> Floats:
    """(..., 4) orientations, w first, of roll, pitch and yaw (..., 3), rad, about fixed axes."""
    cos, sin = np.moveaxis(np.cos(turn / 2), -1, 0), np.moveaxis(np.sin(turn / 2), -1, 0)
    (cr, cp, cy), (sr, sp, sy) = cos, sin
    return np.stack(
        [
            cr * cp * cy + sr * sp * sy,
            sr * cp * cy - cr * sp * sy,
            cr * sp * cy + sr * cp * sy,
            cr * cp * sy - sr * sp * cy,
        ],
        axis=-1,
    )


def in_mount(mount: Floats, value: Floats) -> Floats:
    """Values of a sensor that is turned on its body.

    Args:
        mount: (..., 4) its orientation on the body, w first.
        value: (..., 3) a vector in the body's frame, or (..., 4) the body's orientation, w first.

    Returns:
        The vector in the sensor's frame, or the sensor's orientation.
    """
    if value.shape[-1] == len(CONJUGATE):
        return _product(value, mount)
    vector = np.concatenate([np.zeros_like(value[..., :1]), value], axis=-1)
    return _product(_product(mount * CONJUGATE, vector), mount)[..., 1:]


def _product(one: Floats, two: Floats) -> Floats:
    a, b, c, d = np.moveaxis(one, -1, 0)
    w, x, y, z = np.moveaxis(two, -1, 0)
    return np.stack(
        [
            a * w - b * x - c * y - d * z,
            a * x + b * w + c * z - d * y,
            a * y - b * z + c * w + d * x,
            a * z + b * y - c * x + d * w,
        ],
        axis=-1,
    )


@dataclass(frozen=True)
class SensorModel:
    """The sensor of a term, in one simulation or in n of them."""

    delay: float = 0.0  # s; applied by the caller, which keeps past values
    scale: Floats | float = 1.0  # (n, 1) or one for all
    bias: Floats | float = 0.0  # (n, size) or (size,), in the term's unit
    # (n, 4) or (4,) the sensor's orientation on its body, w first; None: that of the body.
    mount: Floats | None = None
    inf_values: tuple[float, float] | None = None  # at these values and beyond nothing is measured

    @property
    def changes_values(self) -> bool:
        """True if the sensor changes values, and does not only delay them."""
        turned = self.mount is not None
        return bool(turned or np.any(np.not_equal(self.scale, 1.0)) or np.any(self.bias))

    def measured(
        self,
        value: Floats,
        *,
        noise: Floats | None = None,
        dropped: NDArray[np.bool_] | None = None,
        last: Floats | None = None,
    ) -> Floats:
        """Returns the measured values (n, size).

        Args:
            value: (n, size) true values at the time of measurement.
            noise: (n, size) added noise, in the term's unit.
            dropped: (n,) True where the sensor repeats `last`.
            last: (n, size) previous measurement.
        """
        if self.mount is not None:
            value = in_mount(self.mount, value)
        changed = self.scale * value + self.bias
        if noise is not None:
            changed += noise
        if self.inf_values is not None:
            low, high = self.inf_values  # where nothing was measured, there is nothing to disturb
            nothing = (value <= low) | (value >= high)
            changed = np.where(nothing, value, np.clip(changed, low, high))
        if dropped is not None and last is not None:
            changed = np.where(dropped[:, None], last, changed)
        return np.asarray(changed)

    def true(self, shown: Floats) -> Floats:
        """Returns the true values (.., size) of measurements; NaN if the scale is zero."""
        true = np.asarray((shown - self.bias) / np.where(self.scale == 0, np.nan, self.scale))
        return true if self.mount is None else in_mount(self.mount * CONJUGATE, true)


def sensor_models(
    differences: ParameterVector, values: Floats, terms: Sequence[ObservationTerm]
) -> dict[str, SensorModel]:
    """Returns the sensor models by term, without noise and dropouts.

    Args:
        differences: the vector that values are of.
        values: (n,).
        terms: all of the robot, see `robot_terms`.
    """
    delay, scale, bias = (
        differences.of(values[None], name)[0] for name in ("sensor_delay", "scale", "bias")
    )
    turn = differences.of(values[None], "imu_mount")[0]
    mount = mount_of(turn) if turn.any() else None
    each = np.split(bias, np.cumsum([term.size for term in terms])[:-1])
    return {
        term.name: SensorModel(
            float(late), float(factor), own, mount if is_of_imu(term) else None, term.inf_values
        )
        for term, late, factor, own in zip(terms, delay, scale, each, strict=True)
    }


def interpolated(series: Floats, rows: NDArray[np.int64], place: Floats) -> Floats:
    """Returns (n, size) of series (R, F, size) in rows (n,), interpolated at positions (n,)."""
    place = np.clip(place, 0, series.shape[1] - 1.000001)
    low = place.astype(np.int64)
    part = (place - low)[:, None]
    return np.asarray((1 - part) * series[rows, low] + part * series[rows, low + 1])
