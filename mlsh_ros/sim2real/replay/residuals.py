"""Residuals between recorded and simulated terms under a given sensor model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import mujoco
import numpy as np
from numpy.typing import NDArray

from mlsh_ros.sim2real.data.compared_values import angular, count_of
from mlsh_ros.sim2real.data.samples import TermSamples
from mlsh_ros.sim2real.data.windows import Windows
from mlsh_ros.sim2real.replay.model_change import NOMINAL, ModelChange
from mlsh_ros.sim2real.replay.prediction import Prediction
from mlsh_ros.sim2real.replay.start_state import is_quaternion
from sim.interface import Floats, Interface, ObservationTerm, parse_path

# Parts of an element's own movement. Below the floor a difference is not looked at: rounding,
# the moment of a tick and interpolation make half of it in a simulation compared with itself.
FLOOR = 0.01
SMALLEST = 1e-6  # in the term's unit: an element that moves less stands still
ROUNDING = 1e-6  # of a value: messages hold seven digits
BESIDE = 0.03  # of the largest movement in the same unit
NOISY = 1.5  # times the declared noise
REMEMBERS = 0.5  # part of a nudge that is left when the comparison begins


@dataclass(frozen=True)
class Element:
    """One number of one term, and the scales for its evaluation."""

    name: str  # such as velocity.x
    term: str
    index: int
    topic: str
    unit: str
    noise: float  # standard deviation that the interface declares
    scale: float  # its own movement in the simulation: standard deviation
    recorded: float  # the same in the recording
    rounding: float  # of its values: what is below is none of the robot's
    beside: float  # what is little beside the other elements of its unit
    # A value that stays, such as a position: windows are compared from where they begin, and
    # a constant offset is not to be seen.
    remembers: bool
    angle: bool  # a turn more or less means nothing
    quaternion: bool  # a whole one, whose sign means nothing

    @property
    def floor(self) -> float:
        """Difference below which values count as equal."""
        return float(np.hypot(self.noise, FLOOR * self.scale)) + self.rounding

    @property
    def moves(self) -> bool:
        """True if it moves enough to determine its gain or lag."""
        return self.scale > max(SMALLEST, self.noise, self.rounding)

    @property
    def still(self) -> bool:
        """True if it moved neither in the recording nor in the simulation."""
        return not self.moves and self.recorded <= max(SMALLEST, NOISY * self.noise, self.rounding)

    @property
    def size(self) -> float:
        """Reference size of a difference; never close to zero."""
        return max(self.scale, self.noise, self.beside, self.rounding, SMALLEST)


@dataclass(frozen=True)
class Sensor:
    """From a true value to what was recorded: matrix @ value(time - lag) + bias."""

    base: str = "time"  # which of the sample's times counts: time, stamp or first
    lag: float = 0.0  # ticks
    matrix: tuple[tuple[float, ...], ...] = ()  # empty: identity
    bias: tuple[float, ...] = ()  # empty: none

    def shows(self, values: Floats) -> Floats:
        """(n, count) measurements of true values (n, count)."""
        if self.matrix:
            values = values @ np.array(self.matrix).T
        return values + np.array(self.bias) if self.bias else values

    def true(self, shown: Floats) -> Floats:
        """The inverse of `shows`; a singular matrix gives the nearest values."""
        if self.bias:
            shown = shown - np.array(self.bias)
        return shown @ np.linalg.pinv(np.array(self.matrix)).T if self.matrix else shown


@dataclass(frozen=True)
class AssumedRobot:
    """An assumption about the whole robot; the default is the nominal simulation."""

    change: ModelChange = NOMINAL
    delay: float = 0.0  # ticks, from a command to its effect
    sensors: dict[str, Sensor] = field(default_factory=dict)  # per term

    def sensor(self, term: str) -> Sensor:
        """Sensor of a term."""
        return self.sensors.get(term, Sensor())

    def with_sensor(self, term: str, sensor: Sensor) -> AssumedRobot:
        """The same with another sensor."""
        return replace(self, sensors={**self.sensors, term: sensor})


PLAIN, PERFECT = Sensor(), AssumedRobot()


def elements_of(
    interface: Interface,
    prediction: Prediction,
    windows: Windows,
    memory: dict[str, Floats],
    model: mujoco.MjModel,
) -> list[Element]:
    """Returns every element that is both recorded and simulated, in vector order.

    Args:
        interface: of the bundle.
        prediction: of the nominal simulation.
        windows: the recorded ones.
        memory: of the open_loop.
        model: to know quaternions.
    """
    found = []
    for term in interface.observation:
        shown = windows.samples[term.name]
        # What a task shows, such as its goals, is no sensor of the robot.
        if term.mujoco.task or term.name not in prediction.values or not len(shown.time):
            continue
        values = prediction.at(term.name, shown.window, shown.time)
        quaternion = term.derive is None and is_quaternion(model, term) and not angular(term)
        kept = memory.get(term.name, np.zeros(count_of(term)))
        steady = values - values.mean(axis=0)
        moving = centered(values, shown.window)
        recorded = centered(shown.values, shown.window)
        largest = np.maximum(np.abs(shown.values).max(axis=0), np.abs(values).max(axis=0))
        noises = np.resize(term.noises, count_of(term))
        for index, name in enumerate(element_names(term)):
            remembers = bool(quaternion or kept[index] > REMEMBERS)
            steadily = shown.values[:, index].std()
            found.append(
                Element(
                    name=name,
                    term=term.name,
                    index=index,
                    topic=term.ros.topic,
                    unit="rad" if angular(term) else term.unit,
                    noise=float(noises[index]),
                    scale=float((moving if remembers else steady)[:, index].std()),
                    recorded=float(recorded[:, index].std() if remembers else steadily),
                    rounding=ROUNDING * float(largest[index]),
                    beside=0.0,
                    remembers=remembers,
                    angle=angular(term),
                    quaternion=quaternion,
                )
            )
    most = {e.unit: max(o.scale for o in found if o.unit == e.unit) for e in found}
    return [replace(e, beside=BESIDE * most[e.unit]) for e in found]


def element_names(term: ObservationTerm) -> list[str]:
    """Names of the compared elements of a term, such as velocity.x."""
    ends = labels(term)
    return [f"{term.name}.{end}" for end in ends] if len(ends) > 1 else [term.name]


def labels(term: ObservationTerm) -> list[str]:
    """Short names of a term's elements: the ends of their ROS paths where those differ."""
    numbers = [str(i) for i in range(count_of(term))]
    if angular(term):
        return numbers
    if term.derive is not None:
        return list("xyz")[: term.count] if term.count <= len("xyz") else numbers
    return _ends(term.ros.fields)


def _ends(paths: Sequence[str]) -> list[str]:
    inside = [key or field for field, key in (parse_path(path)[-1] for path in paths)]
    return inside if len(set(inside)) == len(inside) else [str(i) for i in range(len(inside))]


def observation_labels(interface: Interface) -> list[str]:
    """Names of all elements of the observation, as elements are named here."""
    return [
        f"{term.name}.{end}" if term.count > 1 else term.name
        for term in interface.observation
        if term.policy_input
        for end in (labels(term) if not angular(term) else "zw")
    ]


def action_labels(interface: Interface) -> list[str]:
    """Names of all elements of the action."""
    return [
        f"{term.name}.{end}" if term.size > 1 else term.name
        for term in interface.action
        for end in _ends(term.ros.fields)
    ]


def centered(values: Floats, window: NDArray[np.int64]) -> Floats:
    """(n, count) minus their mean in each window."""
    if not len(values):
        return values
    count = np.bincount(window, minlength=int(window.max()) + 1)
    means = [(np.bincount(window, column) / np.maximum(count, 1))[window] for column in values.T]
    return values - np.stack(means, axis=1)


@dataclass(frozen=True)
class Comparison:
    """Recorded and simulated measurements of one term."""

    recorded: Floats  # (n, count)
    simulated: Floats  # (n, count)
    samples: TermSamples
    offset: (
        Floats  # (n, count) that was taken out of recorded - simulated: 0 but where it remembers
    )

    @property
    def residual(self) -> Floats:
        """(n, count) remaining difference."""
        return self.recorded - self.simulated - self.offset


def compare(
    term: str,
    elements: list[Element],
    samples: TermSamples,
    prediction: Prediction,
    sensor: Sensor = PLAIN,
    delay: float = 0.0,
) -> Comparison:
    """Compare one term.

    Args:
        term: its name.
        elements: of that term, in order.
        samples: of it.
        prediction: of the simulation.
        sensor: what is assumed of it.
        delay: ticks, of everything.
    """
    moment = getattr(samples, sensor.base)
    true = prediction.at(term, samples.window, moment - sensor.lag - delay)
    simulated = sensor.shows(true)
    recorded = samples.values
    if any(element.quaternion for element in elements):
        sign = np.sign((recorded * simulated).sum(axis=1, keepdims=True))
        recorded = np.where(sign < 0, -recorded, recorded)
    if elements[0].angle:
        turns = np.round((recorded - simulated) / (2 * np.pi))
        recorded = recorded - 2 * np.pi * turns
    error = recorded - simulated
    remembers = np.array([element.remembers for element in elements])
    offset = np.where(remembers, error - centered(error, samples.window), 0.0)
    return Comparison(recorded, simulated, samples, offset)


def mean_squares(residual: Floats) -> Floats:
    """(count,) mean squares."""
    return np.asarray((residual**2).mean(axis=0), np.float64)
