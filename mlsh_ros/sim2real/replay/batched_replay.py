"""Simulations under many values at once that follow recorded commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import mujoco
import numpy as np
from numpy.typing import NDArray

from mlsh_ros.sim2real.data.signals import Ints
from mlsh_ros.sim2real.data.windows import Windows, angular, delayed, unfolded, view
from mlsh_ros.sim2real.replay.open_loop_replay import Twin
from sim.interface import Floats, ObservationTerm
from sim.physics.batched_physics import Physics
from sim.randomization.model_fields import Expanded, body_names
from sim.randomization.parameters import Differences
from sim.randomization.schema import Reality, robot_terms

SEEN = ("sensor_delay", "scale", "bias", "noise", "dropout")  # quantities that move nothing
NUDGE = 1e-4  # rad or m, of the pose at a window's start


@dataclass(frozen=True)
class Element:
    """One number of a term, in every window."""

    term: str
    index: int  # of what is compared of the term
    rows: slice  # of a prediction

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.term}.{self.index}"


@dataclass
class Follower:
    """Predicts what the sensors show in some windows, for columns of values.

    Args:
        twin: of the nominal robot.
        windows: of the recordings.
        ranges: what may differ; other values stay nominal.
        known: what differs for certain.
        threads: of the simulation.
    """

    twin: Twin
    windows: Windows
    ranges: Reality
    known: Reality
    threads: int = 1
    _batches: dict[int, tuple[Physics, Expanded]] = field(default_factory=dict, repr=False)
    _states: list[Floats] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self.twin = self.twin.bare()
        self.interface = self.twin.interface
        self.bodies = body_names(self.twin.model)
        self.differences = Differences(self.interface, self.bodies, self.known, self.ranges)
        self.robot_terms = robot_terms(self.interface)
        self._moves = np.ones(self.differences.size, bool)
        for quantity in SEEN:
            self.differences.of(self._moves[None], quantity)[:] = False
        simulated = {term.name for term in self.twin.terms}
        self.terms: list[ObservationTerm] = [
            term
            for term in self.robot_terms
            if term.name in simulated and len(self.windows.samples[term.name].window)
        ]
        self.elements: list[Element] = []
        first = 0
        for term in self.terms:
            samples = self.windows.samples[term.name]
            for i in range(samples.values.shape[1]):
                rows = slice(first, first + len(samples.window))
                self.elements.append(Element(term.name, i, rows))
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
        """(W, n) where the windows start, by what the sensors showed."""
        if not self._states:
            self._states.append(self.twin.states(self.windows))
        return self._states[0]

    def predict(self, values: Floats, use: NDArray[np.bool_] | None = None) -> Floats:
        """(rows, C) what the sensors show, for values (C, n); nan outside of windows `use` (W,).

        Columns that differ in what the sensors make of a motion are simulated once.
        """
        windows = np.flatnonzero(np.ones(self.windows.count, bool) if use is None else use)
        moving, first, motion = np.unique(
            values[:, self._moves], axis=0, return_index=True, return_inverse=True
        )
        state = np.tile(self.state[windows], (len(moving), 1))
        fields = self._run(values[first], state, windows)
        return self._shown(values, fields, motion, windows)

    def pose_effects(self, values: Floats) -> Floats:
        """(rows, D) change of what is shown per change of the start's positions, for (n,)."""
        model, count = self.twin.model, self.windows.count
        state = np.tile(self.state, (model.nv + 1, 1))
        # MuJoCo's order of a state: time, positions, velocities, ..
        first = mujoco.mj_stateSize(model, int(mujoco.mjtState.mjSTATE_TIME))
        qpos = state[:, first : first + model.nq]
        for d, row in np.ndindex(model.nv, count):
            moved = self.state[row, first : first + model.nq].copy()
            mujoco.mj_integratePos(model, moved, np.eye(model.nv)[d] * NUDGE, 1.0)
            qpos[(d + 1) * count + row] = moved
        columns, windows = np.tile(values, (model.nv + 1, 1)), np.arange(count)
        fields = self._run(columns, state, windows)
        shown = self._shown(columns, fields, np.arange(model.nv + 1), windows)
        return (shown[:, 1:] - shown[:, :1]) / NUDGE

    def _batch(self, size: int) -> tuple[Physics, Expanded]:
        if size not in self._batches:
            body = replace(self.interface, observation=self.twin.terms)
            physics = Physics(body, self.twin.model, size, self.threads)
            self._batches[size] = (
                physics,
                Expanded(physics.batch, body, self.differences, self.differences.differing),
            )
        return self._batches[size]

    def _run(self, values: Floats, state: Floats, windows: Ints) -> dict[str, Floats]:
        """Per term (C * w, F, size) its true values, for values (C, n) in w windows."""
        count = len(windows)
        physics, expanded = self._batch(len(values) * count)
        ids = np.arange(physics.size, dtype=np.int32)
        physics.reset(ids)
        expanded.write(ids, np.repeat(values, count, axis=0))
        physics.batch.state[:] = state
        command = self._commands(values, windows)  # (C * w, S, A)
        stride = self.twin.stride
        shown = [{k: v.copy() for k, v in physics.fields().items()}]
        for step in range(command.shape[1]):
            physics.substep(command[:, step])
            if (step + 1) % stride == 0:
                shown.append(physics.fields())
        return {
            term.name: np.stack([each[term.name] for each in shown], axis=1) for term in self.terms
        }

    def _commands(self, values: Floats, windows: Ints) -> Floats:
        """(C * w, S, A) the mean command in every physics step, delays of any length.

        So what is shown changes evenly with a delay.
        """
        delay = self.differences.of(values, "command_delay") / self.interface.physics_dt
        command = self.windows.command[windows]
        return np.concatenate([delayed(command, late) for late in delay])

    def _shown(
        self, values: Floats, fields: dict[str, Floats], motion: Ints, windows: Ints
    ) -> Floats:
        """(rows, C) for values (C, n) and the number (C,) of the motion among `fields`."""
        columns, count = len(values), len(windows)
        of = self.differences.of
        delay, scale, bias = of(values, "sensor_delay"), of(values, "scale"), of(values, "bias")
        first = dict(
            zip(
                (term.name for term in self.robot_terms),
                np.cumsum([0, *(term.size for term in self.robot_terms)]).tolist(),
                strict=False,
            )
        )
        order = [term.name for term in self.robot_terms]
        fine, dt, before = self.twin.fine, self.interface.control_dt, self.windows.plan.before
        out = np.full((len(self.measured), columns), np.nan)
        number_of = np.full(self.windows.count, -1)
        number_of[windows] = np.arange(count)
        parts = {element.term: element for element in reversed(self.elements)}
        for term in self.terms:
            number, samples = order.index(term.name), self.windows.samples[term.name]
            viewed = view(term, unfolded(term, fields[term.name]))
            viewed = np.unwrap(viewed, axis=1) if angular(term) else viewed
            viewed = viewed.reshape(-1, count, *viewed.shape[1:])
            start, size = parts[term.name].rows.start, len(samples.window)
            inside = np.flatnonzero(number_of[samples.window] >= 0)
            window, time = number_of[samples.window[inside]], samples.time[inside]
            for c in range(columns):
                place = (time + before - delay[c, number] / dt) * fine
                place = np.clip(place, 0, viewed.shape[2] - 1.000001)
                low = place.astype(np.int64)
                part = (place - low)[:, None]
                moved = viewed[motion[c]]
                seen = (1 - part) * moved[window, low]
                seen += part * moved[window, low + 1]
                if term.derive is None and not angular(term):
                    own = bias[c, first[term.name] : first[term.name] + seen.shape[1]]
                    seen = scale[c, number] * seen + own
                for i in range(seen.shape[1]):
                    out[start + i * size + inside, c] = seen[:, i]
        return out

    def angles(self) -> NDArray[np.bool_]:
        """(rows,) whose difference means the same with a whole turn more."""
        turns = np.zeros(len(self.measured), bool)
        names: Sequence[str] = [term.name for term in self.terms if angular(term)]
        for element in self.elements:
            turns[element.rows] = element.term in names
        return turns
