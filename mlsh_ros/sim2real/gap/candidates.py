"""Candidates for hypotheses, and the windows on which they are evaluated."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mlsh_ros.sim2real.data.compared_values import angular, from_compared, to_compared
from mlsh_ros.sim2real.data.samples import TermSamples
from mlsh_ros.sim2real.data.tick_moments import Ints
from mlsh_ros.sim2real.data.windows import Windows, subsample
from mlsh_ros.sim2real.replay.open_loop_replay import OpenLoopReplay
from mlsh_ros.sim2real.replay.prediction import Prediction
from mlsh_ros.sim2real.replay.residuals import (
    AssumedRobot,
    Comparison,
    Element,
    Sensor,
    compare,
    mean_squares,
)
from sim.interface import Floats

# A cause must take away this part of an element's own movement: what is less, a policy that was
# trained with a few percent of noise does not notice, and a few causes together could fake it.
MATERIAL = 0.03
CLEARER = 0.85  # and leave at most this part of what was there
NATS = 12.0  # and make the recording e^12 times as probable, beyond its own free numbers
MOST = 4000  # samples per term in the search


@dataclass(frozen=True)
class Candidate:
    """A hypothesis before its evaluation."""

    kind: str
    where: tuple[str, ...]
    value: float
    model: AssumedRobot
    free: int  # numbers that were fitted
    left: dict[str, Floats]  # per term that it touches, mean squares (count,)


@dataclass(frozen=True)
class SearchWindows:
    """The windows of the search, compared with a model of the robot."""

    open_loop: OpenLoopReplay
    elements: list[Element]  # all that can be compared
    windows: Windows
    state: Floats
    model: AssumedRobot
    prediction: Prediction
    samples: dict[str, TermSamples]
    compared: dict[str, Comparison]
    left: dict[str, Floats]  # per term, mean squares

    @classmethod
    def of(
        cls,
        open_loop: OpenLoopReplay,
        elements: list[Element],
        with_previous: Windows,
        keep: Ints,
        model: AssumedRobot,
    ) -> SearchWindows:
        """Returns the windows `keep`, simulated; the others tell of the state before them."""
        whole = corrected(with_previous, open_loop, model)
        state = open_loop.states(whole, model.change)[keep]
        windows = subsample(whole, keep)
        prediction = open_loop.run(windows, state, (model.change,))
        terms = list(dict.fromkeys(element.term for element in elements))
        samples = {term: fewer(windows.samples[term]) for term in terms}
        mine = {term: [e for e in elements if e.term == term] for term in terms}
        compared = {
            term: compare(
                term, mine[term], samples[term], prediction, model.sensor(term), model.delay
            )
            for term in terms
            if len(samples[term].time)
        }
        left = {term: mean_squares(c.residual) for term, c in compared.items()}
        return cls(open_loop, elements, windows, state, model, prediction, samples, compared, left)

    @property
    def ticks(self) -> int:
        """Number of compared ticks."""
        return self.windows.count * self.windows.plan.length

    def mine(self, term: str) -> list[Element]:
        """Elements of a term."""
        return [e for e in self.elements if e.term == term]

    def terms(self) -> list[str]:
        """Terms with motion."""
        return [t for t in self.compared if any(e.moves for e in self.mine(t))]

    def worth_a_look(self, left: dict[str, Floats]) -> bool:
        """True if what is left of the difference could be explained by more."""
        return any(
            value > e.noise**2 + (MATERIAL * e.size) ** 2 + e.rounding**2
            for term in self.compared
            for e, value in zip(self.mine(term), left[term], strict=True)
        )

    def nats(self, term: str, left: Floats) -> float:
        """Returns the gain in log likelihood of a term with a smaller remaining difference."""
        floor = np.array([max(e.floor, 1e-12) ** 2 for e in self.mine(term)])
        return float(0.5 * self.ticks * np.log((self.left[term] + floor) / (left + floor)).sum())

    def gain(self, each: Candidate) -> float:
        """Returns the gain of a candidate in nats, less the price of its free numbers."""
        free = 0.5 * each.free * np.log(max(self.ticks, 2))
        return float(sum(self.nats(t, left) for t, left in each.left.items()) - free)

    def left_at(
        self, term: str, sensor: Sensor, delay: float, prediction: Prediction | None = None
    ) -> Floats:
        """Returns what is left, mean squares, with another sensor, delay, or simulation."""
        shown = self.prediction if prediction is None else prediction
        found = compare(term, self.mine(term), self.samples[term], shown, sensor, delay)
        return mean_squares(found.residual)


def corrected(windows: Windows, open_loop: OpenLoopReplay, model: AssumedRobot) -> Windows:
    """Returns the windows with the start corrected by a model of the sensors."""
    start = dict(windows.start)
    for term in open_loop.interface.observation:
        sensor = model.sensors.get(term.name)
        if sensor is None or term.derive is not None or not (sensor.matrix or sensor.bias):
            continue
        viewed = to_compared(term, start[term.name])
        start[term.name] = from_compared(term, sensor.true(viewed))
        assert angular(term) or start[term.name].shape == windows.start[term.name].shape
    return replace(windows, start=start)


def fewer(samples: TermSamples) -> TermSamples:
    """Returns an evenly spread subset."""
    count = len(samples.time)
    if count <= MOST:
        return samples
    rows = np.zeros(count, bool)
    rows[np.linspace(0, count - 1, MOST).astype(int)] = True
    return samples.take(rows)
