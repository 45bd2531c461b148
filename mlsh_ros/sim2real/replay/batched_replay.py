"""Open-loop replays of the same windows under many parameter columns at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import mujoco
import numpy as np
from numpy.typing import NDArray

from mlsh_ros.sim2real.data.compared_values import angular
from mlsh_ros.sim2real.data.tick_moments import Ints
from mlsh_ros.sim2real.data.windows import Windows
from mlsh_ros.sim2real.replay.open_loop_replay import OpenLoopReplay
from mlsh_ros.sim2real.replay.prediction import Prediction
from sim.interface import Floats, ObservationTerm
from sim.randomization.model_fields import body_names
from sim.randomization.parameters import ParameterVector
from sim.randomization.quantities import TABLE
from sim.randomization.schema import SimParams, robot_terms
from sim.randomization.sensor_model import sensor_models

NUDGE = 1e-4  # rad or m, of the pose at a window's start


@dataclass(frozen=True)
class PredictedElement:
    """One number of a term, in all windows."""

    term: str
    index: int  # of what is compared of the term
    rows: slice  # of a prediction

    @property
    def name(self) -> str:
        """Name of the element in reports."""
        return f"{self.term}.{self.index}"


@dataclass
class BatchedReplay:
    """Predicts the measurements in some windows, for columns of values.

    Args:
        open_loop: of the nominal robot.
        windows: of the recordings.
        ranges: of the values that may differ; others stay nominal.
        known: differences that are known.
        threads: of the simulation.
    """

    open_loop: OpenLoopReplay
    windows: Windows
    ranges: SimParams
    known: SimParams
    threads: int = 1
    _states: list[Floats] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self.open_loop = self.open_loop.bare()
        self.interface = self.open_loop.interface
        self.bodies = body_names(self.open_loop.model)
        self.differences = ParameterVector(self.interface, self.bodies, self.known, self.ranges)
        self.robot_terms = robot_terms(self.interface)
        self.simulator = self.open_loop.simulator(
            self.differences, self.differences.differing, self.threads
        )
        self._moves = np.ones(self.differences.size, bool)
        for row in TABLE:
            if row.section == "sensors":  # they move nothing
                self.differences.of(self._moves[None], row.name)[:] = False
        simulated = {term.name for term in self.open_loop.terms}
        self.terms: list[ObservationTerm] = [
            term
            for term in self.robot_terms
            if term.name in simulated and len(self.windows.samples[term.name].window)
        ]
        self.elements: list[PredictedElement] = []
        first = 0
        for term in self.terms:
            samples = self.windows.samples[term.name]
            for i in range(samples.values.shape[1]):
                rows = slice(first, first + len(samples.window))
                self.elements.append(PredictedElement(term.name, i, rows))
                first = rows.stop
        none = np.zeros(0)
        parts = [(self.windows.samples[e.term], e.index) for e in self.elements]
        self.measured: Floats = np.concatenate([none, *(s.values[:, i] for s, i in parts)])
        window = [s.window for s, _ in parts]
        self.window: Ints = np.concatenate([np.zeros(0, np.int64), *window])
        # (s) until a window's simulation ends
        tick, length = self.interface.control_dt, self.windows.plan.length
        self.left: Floats = np.concatenate([none, *((length - s.time) * tick for s, _ in parts)])

    @property
    def state(self) -> Floats:
        """(W, n) initial states of the windows, from the sensors."""
        if not self._states:
            self._states.append(self.open_loop.states(self.windows))
        return self._states[0]

    def predict(self, values: Floats, use: NDArray[np.bool_] | None = None) -> Floats:
        """(rows, C) predicted measurements, for values (C, n); NaN outside of windows `use`.

        Columns that differ only in the sensors' properties are simulated once.
        """
        windows = np.flatnonzero(np.ones(self.windows.count, bool) if use is None else use)
        moving, first, motion = np.unique(
            values[:, self._moves], axis=0, return_index=True, return_inverse=True
        )
        state = np.tile(self.state[windows], (len(moving), 1))
        prediction = self._run(values[first], state, windows)
        return self._shown(values, prediction, motion, windows)

    def pose_effects(self, values: Floats) -> Floats:
        """(rows, D) change of the measurements per change of the start's positions, for (n,)."""
        model, count = self.open_loop.model, self.windows.count
        state = np.tile(self.state, (model.nv + 1, 1))
        # MuJoCo's order of a state: time, positions, velocities, ..
        first = mujoco.mj_stateSize(model, int(mujoco.mjtState.mjSTATE_TIME))
        qpos = state[:, first : first + model.nq]
        for d, row in np.ndindex(model.nv, count):
            moved = self.state[row, first : first + model.nq].copy()
            mujoco.mj_integratePos(model, moved, np.eye(model.nv)[d] * NUDGE, 1.0)
            qpos[(d + 1) * count + row] = moved
        columns, windows = np.tile(values, (model.nv + 1, 1)), np.arange(count)
        prediction = self._run(columns, state, windows)
        shown = self._shown(columns, prediction, np.arange(model.nv + 1), windows)
        return (shown[:, 1:] - shown[:, :1]) / NUDGE

    def _run(self, values: Floats, state: Floats, windows: Ints) -> Prediction:
        """Simulate values (C, n) in w windows: C * w simulations."""
        commands = [self.windows.command[windows]] * len(values)
        fields, _ = self.simulator.run(values, state, commands)
        shown = {term.name: fields[term.name] for term in self.terms}
        return self.open_loop.prediction(shown, self.windows.plan.before)

    def _shown(
        self, values: Floats, prediction: Prediction, motion: Ints, windows: Ints
    ) -> Floats:
        """(rows, C) measurements for values (C, n) and the index (C,) of their motion."""
        sensors = [sensor_models(self.differences, row, self.robot_terms) for row in values]
        out = np.full((len(self.measured), len(values)), np.nan)
        number_of = np.full(self.windows.count, -1)
        number_of[windows] = np.arange(len(windows))
        parts = {element.term: element for element in reversed(self.elements)}
        for term in self.terms:
            samples = self.windows.samples[term.name]
            start, size = parts[term.name].rows.start, len(samples.window)
            inside = np.flatnonzero(number_of[samples.window] >= 0)
            window, time = number_of[samples.window[inside]], samples.time[inside]
            for c, sensor in enumerate(sensors):
                rows = motion[c] * len(windows) + window
                seen = prediction.at(term.name, rows, time, sensor[term.name])
                for i in range(seen.shape[1]):
                    out[start + i * size + inside, c] = seen[:, i]
        return out

    def angles(self) -> NDArray[np.bool_]:
        """(rows,) True where a difference by a full turn has no meaning."""
        turns = np.zeros(len(self.measured), bool)
        names: Sequence[str] = [term.name for term in self.terms if angular(term)]
        for element in self.elements:
            turns[element.rows] = element.term in names
        return turns
