"""Replays recorded commands in the nominal simulation and predicts the sensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import mujoco
import numpy as np

from mlsh_ros.sim2real.data.compared_values import from_compared, to_compared
from mlsh_ros.sim2real.data.episode_layout import layout_of
from mlsh_ros.sim2real.data.signals import SAME, Signals
from mlsh_ros.sim2real.data.target import Target, recorded_task
from mlsh_ros.sim2real.data.windows import Windows, subsample
from mlsh_ros.sim2real.replay.model_change import NOMINAL, ModelChange
from mlsh_ros.sim2real.replay.prediction import Prediction, compared
from mlsh_ros.sim2real.replay.simulator import Simulator
from mlsh_ros.sim2real.replay.start_state import joints_of, of_state, solve, unseen_velocities
from sim.errors import UserError
from sim.interface import Floats, Interface, ObservationTerm
from sim.physics.batched_physics import BatchedPhysics
from sim.physics.mjcf_addresses import check_addresses
from sim.physics.robot_model import Robot
from sim.randomization.model_fields import body_names
from sim.randomization.parameters import ParameterVector
from sim.randomization.perturbations import NOMINAL as AS_MODELED
from sim.randomization.perturbations import check_model
from sim.randomization.schema import SimParams, robot_terms
from sim.randomization.sensor_model import SensorModel, sensor_models
from sim.tasks.base import TaskFamily
from sim.tasks.family_calls import FamilyCalls

SHORT_STEP = 4e-3  # s per physics step, from which on a robot hardly moves otherwise
SAMPLE = 2e-3  # s between samples of shorter physics steps; in between it is interpolated
RELAXED, RELAXATIONS = 0.1, 2  # s, and how often, that unmeasured velocities may settle
SETTLE = 0.5  # s at the safe command until the robot stands on its floor
# What is left of a perturbation after a second, from where on it does not decay: of a velocity,
# else.
LASTS, GROWS = 0.5, 1.5
LEAST = 1e-3  # m/s or rad/s, of a velocity that moves
UNSEEN = 0.3  # m/s or rad/s, that a velocity which no sensor shows may be off
MATTERS = 0.05  # of the movement of a measured velocity
NUDGED, PUSH = 6, 0.02  # windows, and how far, in each term's unit
Layouts = Callable[[dict[str, Floats]], dict[str, Floats] | None]


@dataclass(frozen=True)
class OpenLoopReplay:
    """Open-loop simulation of the nominal robot.

    Args:
        robot: the nominal one.
        interface: of the bundle, with the family's own terms.
        family: provides the scene around the robot.
        layouts: per window the episode's layout, from the fields at its start; None if it cannot
            be derived, and the family's terms are not simulated then.
        scans: simulate the rays of scanners, which takes the longest.
        sim_params: differences from the nominal model. Dropouts and pushes are not simulated.

    Raises:
        UserError: the sim parameters refer to a part that the robot does not have.
    """

    robot: Robot
    interface: Interface
    family: TaskFamily
    layouts: Layouts
    scans: bool = True
    sim_params: SimParams = AS_MODELED
    _rest: dict[str, Floats] = field(default_factory=dict, repr=False)
    _compiled: list[mujoco.MjModel] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        if self.sim_params != AS_MODELED:
            check_model(self.sim_params, self.interface, body_names(self.model), "sim_params")
        if self.sim_params.imu != AS_MODELED.imu:
            raise UserError(
                "sim_params: imu: a mount of the IMU is simulated in training, evaluation and "
                "sim_node, but not compared with recordings. Valid: none"
            )

    @property
    def model(self) -> mujoco.MjModel:
        """The nominal MuJoCo model."""
        if not self._compiled:
            model = self.robot.compile(FamilyCalls(self.family).scene)
            check_addresses(model, self.interface)
            model.opt.timestep = self.interface.physics_dt
            self._compiled.append(model)
        return self._compiled[0]

    def finer(self) -> OpenLoopReplay:
        """The same with physics steps of at most `SHORT_STEP`; itself if they are that short."""
        parts = int(np.ceil(self.interface.physics_dt / SHORT_STEP - SAME))
        if parts <= 1:
            return self
        shorter = replace(self.interface, physics_dt=self.interface.physics_dt / parts)
        return replace(self, interface=shorter, _rest={}, _compiled=[])

    def bare(self) -> OpenLoopReplay:
        """The same without scans."""
        return replace(self, scans=False)

    @property
    def terms(self) -> tuple[ObservationTerm, ...]:
        """Terms of the robot, without the family's."""
        return tuple(
            t
            for t in self.interface.observation
            if not t.mujoco.task and (self.scans or not t.mujoco.rays)
        )

    def follow(self, windows: Windows, change: ModelChange = NOMINAL) -> Prediction:
        """Simulate all windows."""
        return self.run(windows, self.states(windows, change), (change,))

    def states(self, windows: Windows, change: ModelChange = NOMINAL) -> Floats:
        """(W, n) initial states: the recorded ones at the start of each window.

        The unmeasured part of a state is that at the end of the simulated previous window. Without
        one the robot is at rest, or what is not measured has followed what is: wheels turn as the
        robot moves.
        """
        state, known = self._start(windows, None), windows.previous >= 0
        free = np.flatnonzero(~known & ~windows.rest)
        for _ in range(RELAXATIONS if len(free) else 0):
            begin = subsample(windows, free)
            begin = replace(begin, command=begin.command[:, : self._relaxed + 1])
            _, ends = self._run(begin, state[free], (change,), kept=self._relaxed)
            state[free] = self._start(begin, ends)
        if not known.any():
            return state
        # The window after begins `before` ticks earlier than where this one ends.
        length = windows.plan.length * self.interface.substeps
        _, ends = self._run(windows, state, (change,), kept=length)
        state[known] = ends[windows.previous[known]]
        return self._start(windows, state)

    @property
    def _relaxed(self) -> int:
        """Physics steps in which unmeasured velocities follow the measured ones."""
        return max(1, round(RELAXED / self.interface.physics_dt))

    def run(self, windows: Windows, state: Floats, changes: tuple[ModelChange, ...]) -> Prediction:
        """Simulate all windows under every change; windows of the first change come first."""
        fields, _ = self._run(windows, state, changes)
        fields |= self._task(windows, fields, len(changes))
        return self.prediction(fields, windows.plan.before)

    def prediction(self, fields: dict[str, Floats], before: int) -> Prediction:
        """Returns the prediction for true values (W, F, size) from `before` ticks on."""
        terms = {term.name: term for term in self.interface.observation}
        values = {name: compared(terms[name], value) for name, value in fields.items()}
        period = self.interface.control_dt
        return Prediction(before, self.fine, period, terms, values, self._sensors())

    @property
    def degrees(self) -> int:
        """Number of degrees of freedom."""
        return int(self.model.nv)

    @property
    def stride(self) -> int:
        """Number of physics steps per sample."""
        steps = self.interface.substeps
        most = max(1, int(SAMPLE / self.interface.physics_dt + SAME))
        return next(n for n in range(most, 0, -1) if steps % n == 0)

    @property
    def fine(self) -> int:
        """Number of samples per tick."""
        return self.interface.substeps // self.stride

    def memory(self, windows: Windows) -> dict[str, Floats]:
        """Per term of the state (count_of,): remainder of a perturbation after the warm-up.

        1 for a position that is integrated, 0 for a velocity that a servo controls.
        """
        few = windows_to_nudge(windows)
        open_loop = self.bare()
        names = [
            t for t in open_loop.terms if t.derive is None and np.isfinite(few.start[t.name]).all()
        ]
        base, left = open_loop._unsettled(few), {}
        for term in names:
            viewed = to_compared(term, few.start[term.name])
            left[term.name] = np.zeros(viewed.shape[-1])
            for i in range(viewed.shape[-1]):
                nudged = viewed.copy()
                nudged[:, i] += PUSH
                start = {**few.start, term.name: from_compared(term, nudged)}
                other = open_loop._unsettled(replace(few, start=start))
                moved = other.values[term.name] - base.values[term.name]
                begin = few.plan.before * self.fine
                kept = moved[:, begin, i] / np.where(moved[:, 0, i] == 0, np.inf, moved[:, 0, i])
                # The most of all windows: who leans on a wall forgets where it was.
                left[term.name][i] = float(kept.max())
        return left

    def amplifies(self, memory: dict[str, Floats]) -> bool:
        """True if a simulation from a slightly wrong state diverges from the true one."""
        units = {term.name: term.unit for term in self.interface.observation}
        return any(
            bool((np.abs(kept) > (LASTS if units[name].endswith("/s") else GROWS)).any())
            for name, kept in memory.items()
        )

    def undetermined(self, windows: Windows) -> list[str]:
        """Returns the joints whose velocities no recorded sensor shows, and which matter.

        They matter where another one at the beginning still changes measured velocities after the
        warm-up: on legs, and not on wheels, whose slip ends at once.
        """
        open_loop, few = self.bare(), windows_to_nudge(windows)
        physics = open_loop._physics(few.count)
        physics.batch.state[:] = state = open_loop._start(few, None)
        seen = [
            t
            for t in open_loop.terms
            if of_state(physics.model, t) and np.isfinite(windows.start[t.name]).any()
        ]
        base, found = open_loop.run(few, state, (NOMINAL,)), list[str]()
        for direction in unseen_velocities(physics, seen):
            physics.batch.state[:] = state
            physics.batch.bind("qvel")[:] += UNSEEN * direction
            other = open_loop.run(few, np.array(physics.batch.state), (NOMINAL,))
            for term in seen:
                if not term.unit.endswith("/s"):
                    continue
                before, after = base.values[term.name], other.values[term.name]
                # A velocity that hardly moves shows rounding, which is no movement.
                size = max(before.std(axis=(0, 1)).max(), float(term.noises.max()), LEAST)
                begin = few.plan.before * self.fine
                moved = np.abs(after - before)[:, begin:].mean(axis=1)
                if float(np.median(moved, axis=0).max()) > MATTERS * size:
                    found += joints_of(physics.model, direction)
        return list(dict.fromkeys(found))

    def _unsettled(self, windows: Windows) -> Prediction:
        return self.run(windows, self._start(windows, None), (NOMINAL,))

    # States -----------------------------------------------------------------------------------

    def placed(self, fields: dict[str, Floats]) -> BatchedPhysics:
        """N robots, scans included, in the states given by these fields (n, size)."""
        count = len(next(iter(fields.values())))
        bare = self.bare()._physics(count)
        bare.batch.state[:] = self._standing()
        seen = [t for t in self.bare().terms if of_state(bare.model, t)]
        solve(bare, seen, self._true(fields))
        physics = self._physics(count)
        physics.batch.state[:] = bare.batch.state
        return physics

    def simulator(
        self, differences: ParameterVector, names: frozenset[str], threads: int = 1
    ) -> Simulator:
        """Simulator of this robot, with values of `differences` that may vary in `names` only."""
        body = replace(self.interface, observation=self.terms)
        return Simulator(self.model, body, differences, names, self.stride, threads)

    def _physics(self, size: int) -> BatchedPhysics:
        values = np.tile(self.differences.fixed, (size, 1))
        return self.simulator(self.differences, self.differences.differing).physics(values)

    @property
    def differences(self) -> ParameterVector:
        """Parameter vector of the sim parameters."""
        bodies = body_names(self.model)
        return ParameterVector(self.interface, bodies, self.sim_params, AS_MODELED)

    def _start(self, windows: Windows, guess: Floats | None) -> Floats:
        """(W, n) the states nearest to `guess` that match the recording at the start."""
        physics = self.bare()._physics(windows.count)
        if guess is None:
            guess = np.tile(self._standing(), (windows.count, 1))
        physics.batch.state[:] = guess
        seen = [t for t in self.bare().terms if of_state(physics.model, t)]
        shown = self._true(windows.start)
        target = {t.name: shown[t.name] for t in seen}
        if seen:
            solve(physics, seen, target)
        return np.array(physics.batch.state)

    def _standing(self) -> Floats:
        """(n,) the state of a robot at rest."""
        if "state" not in self._rest:
            physics = self.bare()._physics(1)
            safe = self.interface.safe_command[None]
            for _ in range(round(SETTLE / self.interface.physics_dt)):
                physics.substep(safe)
            self._rest["state"] = physics.batch.state[0].copy()
        standing: Floats = self._rest["state"]
        return standing

    # Simulation -------------------------------------------------------------------------------

    def _run(
        self,
        windows: Windows,
        state: Floats,
        changes: tuple[ModelChange, ...],
        kept: int = -1,
    ) -> tuple[dict[str, Floats], Floats]:
        """Per term (C * W, F, size) true values, and the states before the physics step `kept`."""
        differences = self.differences
        values = np.array([change.values(differences) for change in changes])
        return self.simulator(differences, differences.differing_in(values)).run(
            values,
            np.tile(state, (len(changes), 1)),
            [change.commanded(windows.command) for change in changes],
            kept=kept,
        )

    def _task(self, windows: Windows, fields: dict[str, Floats], times: int) -> dict[str, Floats]:
        """Values of the family's own terms, for goals at their initial positions."""
        layout = self.layouts(self._true(windows.start))
        if layout is None or not self.family.terms:
            return {}
        size, length = next(iter(fields.values())).shape[:2]
        flat = {k: v.reshape(size * length, -1) for k, v in fields.items()}
        wide = {
            k: np.repeat(np.tile(v, (times, *(1,) * (v.ndim - 1))), length, axis=0)
            for k, v in layout.items()
        }
        own = FamilyCalls(self.family).fields(wide, flat)
        return {k: v.reshape(size, length, -1) for k, v in own.items()}

    # Sensors ----------------------------------------------------------------------------------

    def _sensors(self) -> dict[str, SensorModel]:
        """Sensor models of the sim parameters."""
        if self.sim_params == AS_MODELED:
            return {}
        differences = self.differences
        return sensor_models(differences, differences.fixed, robot_terms(self.interface))

    def _true(self, fields: dict[str, Floats]) -> dict[str, Floats]:
        """True values (.., size) of measurements, without the delay. NaN where a scale is zero."""
        true = {name: s.true(fields[name]) for name, s in self._sensors().items()}
        return {**fields, **true}


def windows_to_nudge(windows: Windows) -> Windows:
    """A few windows that do not begin at rest, spread over all."""
    known = np.flatnonzero(~windows.rest)
    known = known if len(known) else np.arange(windows.count)
    return subsample(
        windows, known[np.linspace(0, len(known) - 1, min(NUDGED, len(known))).astype(int)]
    )


def open_loop_of(
    target: Target,
    recordings: Sequence[Signals],
    body: Robot,
    *,
    interface: Interface | None = None,
    sim_params: SimParams = AS_MODELED,
) -> OpenLoopReplay:
    """Returns the open-loop simulation of a recording.

    Args:
        target: that drove, or that was driven.
        recordings: they name the masters that decided.
        body: the nominal robot.
        interface: the target's with other noise; None: the target's.
        sim_params: in which it is simulated.
    """
    family, number = recorded_task(target, recordings)

    def layouts(fields: dict[str, Floats]) -> dict[str, Floats] | None:
        return layout_of(family, number, fields)

    # The step is the model's: another step simulates another robot.
    stepped = replace(interface or target.interface, physics_dt=body.interface.physics_dt)
    return OpenLoopReplay(body, stepped, family, layouts, sim_params=sim_params)
