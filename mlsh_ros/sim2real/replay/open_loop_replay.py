"""The nominal simulation follows the recorded commands: what should the sensors have shown?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import mujoco
import numpy as np

from mlsh_ros.sim2real.data.episode_layout import layout_of
from mlsh_ros.sim2real.data.signals import SAME, Ints, Signals
from mlsh_ros.sim2real.data.target import Subject, recorded_task
from mlsh_ros.sim2real.data.windows import Windows, angular, delayed, thin, unfolded, unview, view
from sim.interface import Floats, Interface, ObservationTerm
from sim.physics.batched_physics import Physics
from sim.physics.mjcf_addresses import check_names
from sim.physics.robot_model import Robot
from sim.randomization.model_fields import Expanded, body_names
from sim.randomization.parameters import Differences
from sim.randomization.perturbations import NOMINAL as AS_MODELLED
from sim.randomization.perturbations import check_model
from sim.randomization.schema import Reality, robot_terms
from sim.tasks.base import TaskFamily

SHORT_STEP = 4e-3  # s per physics step, from which on a robot hardly moves otherwise
FINEST = 10  # samples of the simulation per tick; in between it is interpolated
SETTLE = 0.5  # s at the safe command until the robot stands on its floor
ROUNDS = 12  # of Newton's method; the first ones only turn the robot around
TURN = 0.7  # rad, or m, that a round may move a joint
NUDGED, PUSH = 6, 0.02  # windows, and how far, in each term's unit
NUDGE = 1e-6  # for derivatives
RANK = 1e-3  # a direction that moves no sensor by more than this part of the best is not seen
DONE = 1e-9  # change of the state from which on it has converged
FREE, BALL = int(mujoco.mjtJoint.mjJNT_FREE), int(mujoco.mjtJoint.mjJNT_BALL)
STAGE_POS, STAGE_VEL = int(mujoco.mjtStage.mjSTAGE_POS), int(mujoco.mjtStage.mjSTAGE_VEL)
Layouts = Callable[[dict[str, Floats]], dict[str, Floats] | None]


@dataclass(frozen=True)
class Change:
    """A model or an actuation other than the nominal one; the defaults change nothing."""

    mix: tuple[tuple[float, ...], ...] = ()  # (A, A) applied to the command; empty: identity
    ceiling: tuple[float, ...] = ()  # (A,) largest magnitude that an actuator gives
    mass: float = 1.0  # of all bodies
    damping: float = 1.0  # of all joints
    friction: float = 1.0  # of all contacts


NOMINAL = Change()


@dataclass(frozen=True)
class Prediction:
    """What the twin showed in W windows, per term (W, F, count), `fine` samples per tick."""

    before: int  # ticks before the comparison begins
    fine: int
    values: dict[str, Floats]

    def at(self, term: str, window: Ints, time: Floats) -> Floats:
        """(n, count), interpolated; times in ticks since the begin of the comparison."""
        values = self.values[term]
        place = np.clip((time + self.before) * self.fine, 0, values.shape[1] - 1.000001)
        low = place.astype(np.int64)
        part = (place - low)[:, None]
        return (1 - part) * values[window, low] + part * values[window, low + 1]

    def rows(self, begin: int, count: int) -> Prediction:
        """Of some windows that follow one another."""
        part = {name: values[begin : begin + count] for name, values in self.values.items()}
        return replace(self, values=part)


@dataclass(frozen=True)
class Twin:
    """The robot's nominal simulation.

    Args:
        robot: the nominal one.
        interface: of the bundle, with the family's own terms.
        family: whose scene stands around the robot.
        layouts: per window what the episode drew, of the fields at its start; None if the family
            does not tell, and its terms are not simulated then.
        scans: simulate what casts rays; it takes the longest.
        reality: what differs from the nominal model. Dropouts and pushes are not simulated.

    Raises:
        UserError: the reality names what the robot does not have.
    """

    robot: Robot
    interface: Interface
    family: TaskFamily
    layouts: Layouts
    scans: bool = True
    reality: Reality = AS_MODELLED
    _rest: dict[str, Floats] = field(default_factory=dict, repr=False)
    _compiled: list[mujoco.MjModel] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        if self.reality != AS_MODELLED:
            check_model(self.reality, self.interface, body_names(self.model), "reality")

    @property
    def model(self) -> mujoco.MjModel:
        """MuJoCo's, nominal."""
        if not self._compiled:
            model = self.robot.compile(self.family.scene)
            check_names(model, self.interface)
            model.opt.timestep = self.interface.physics_dt
            self._compiled.append(model)
        return self._compiled[0]

    def finer(self) -> Twin:
        """The same with steps of at most `SHORT_STEP`; itself where they are that short."""
        parts = int(np.ceil(self.interface.physics_dt / SHORT_STEP - SAME))
        if parts <= 1:
            return self
        shorter = replace(self.interface, physics_dt=self.interface.physics_dt / parts)
        return replace(self, interface=shorter, _rest={}, _compiled=[])

    def bare(self) -> Twin:
        """Without scans."""
        return replace(self, scans=False)

    @property
    def terms(self) -> tuple[ObservationTerm, ...]:
        """Of the robot, without the family's."""
        return tuple(
            t
            for t in self.interface.observation
            if not t.mujoco.task and (self.scans or not t.mujoco.rays)
        )

    def follow(self, windows: Windows, change: Change = NOMINAL) -> Prediction:
        """Simulate all windows."""
        return self.run(windows, self.states(windows, change), (change,))

    def states(self, windows: Windows, change: Change = NOMINAL) -> Floats:
        """(W, n) from where to simulate: what was recorded at the start of each window.

        What no sensor tells of a state comes from the window before, which is simulated for that;
        where there is none, the robot stands still.
        """
        state = self._start(windows, None)
        known = windows.previous >= 0
        if not known.any():
            return state
        _, ends = self._run(windows, state, (change,))
        state[known] = ends[windows.previous[known]]
        return self._start(windows, state)

    def run(self, windows: Windows, state: Floats, changes: tuple[Change, ...]) -> Prediction:
        """Simulate all windows under every change; windows of the first change come first."""
        values, _ = self._run(windows, state, changes)
        return Prediction(windows.plan.before, self.fine, values)

    @property
    def degrees(self) -> int:
        """Of freedom."""
        return int(self.model.nv)

    @property
    def stride(self) -> int:
        """Physics steps per sample."""
        steps = self.interface.substeps
        return next(n for n in range(1, steps + 1) if steps % n == 0 and steps // n <= FINEST)

    @property
    def fine(self) -> int:
        """Samples per tick."""
        return self.interface.substeps // self.stride

    def memory(self, windows: Windows) -> dict[str, Floats]:
        """Per term of the state (count_of,): what is left of a nudge when the comparison begins.

        1 for a position that is integrated, 0 for a velocity that a servo holds.
        """
        few = windows_to_nudge(windows)
        twin = self.bare()
        names = [
            t for t in twin.terms if t.derive is None and np.isfinite(few.start[t.name]).all()
        ]
        base, left = twin._unsettled(few), {}
        for term in names:
            viewed = view(term, few.start[term.name])
            left[term.name] = np.zeros(viewed.shape[-1])
            for i in range(viewed.shape[-1]):
                nudged = viewed.copy()
                nudged[:, i] += PUSH
                start = {**few.start, term.name: unview(term, nudged)}
                other = twin._unsettled(replace(few, start=start))
                moved = other.values[term.name] - base.values[term.name]
                begin = few.plan.before * self.fine
                kept = moved[:, begin, i] / np.where(moved[:, 0, i] == 0, np.inf, moved[:, 0, i])
                # The most of all windows: who leans on a wall forgets where it was.
                left[term.name][i] = float(kept.max())
        return left

    def _unsettled(self, windows: Windows) -> Prediction:
        return self.run(windows, self._start(windows, None), (NOMINAL,))

    # States -----------------------------------------------------------------------------------

    def placed(self, fields: dict[str, Floats]) -> Physics:
        """N robots, scans included, in the states that these fields (n, size) show."""
        count = len(next(iter(fields.values())))
        bare = self.bare()._physics(count)
        _reset(bare)
        bare.batch.state[:] = self._standing()
        seen = [t for t in self.bare().terms if _of_state(bare.model, t)]
        _solve(bare, seen, self._true(fields))
        physics = self._physics(count)
        _reset(physics)
        physics.batch.state[:] = bare.batch.state
        return physics

    def _physics(self, size: int) -> Physics:
        body = replace(self.interface, observation=self.terms)
        physics = Physics(body, self.model, size, 1)
        if self.reality != AS_MODELLED:
            differences, values = self._differences()
            ids = np.arange(size, dtype=np.int32)
            writer = Expanded(physics.batch, body, differences, differences.differing)
            writer.write(ids, np.repeat(values, size, axis=0))
        return physics

    def _start(self, windows: Windows, guess: Floats | None) -> Floats:
        """(W, n) the states nearest to `guess` that show what was recorded at the start."""
        physics = self.bare()._physics(windows.count)
        _reset(physics)
        if guess is None:
            guess = np.tile(self._standing(), (windows.count, 1))
        physics.batch.state[:] = guess
        seen = [t for t in self.bare().terms if _of_state(physics.model, t)]
        shown = self._true(windows.start)
        target = {t.name: shown[t.name] for t in seen}
        if seen:
            _solve(physics, seen, target)
        return np.array(physics.batch.state)

    def _standing(self) -> Floats:
        """(n,) the state of a robot at rest."""
        if "state" not in self._rest:
            physics = self.bare()._physics(1)
            _reset(physics)
            safe = self.interface.safe[None]
            for _ in range(round(SETTLE / self.interface.physics_dt)):
                physics.substep(safe)
            self._rest["state"] = physics.batch.state[0].copy()
        standing: Floats = self._rest["state"]
        return standing

    # Simulation -------------------------------------------------------------------------------

    def _run(
        self, windows: Windows, state: Floats, changes: tuple[Change, ...]
    ) -> tuple[dict[str, Floats], Floats]:
        """Per term (C * W, F, count), and the states (W, n) where the next windows begin."""
        count, plan, times = windows.count, windows.plan, len(changes)
        size = count * times
        physics = self._physics(size)
        _reset(physics)
        _apply(physics, changes, count)
        physics.batch.state[:] = np.tile(state, (times, 1))
        shown = [{k: v.copy() for k, v in physics.show().items()}]
        command = np.concatenate([_commanded(windows.command, change) for change in changes])
        command = self._late(command)
        kept = np.zeros_like(state)
        for step in range(command.shape[1]):
            if step == plan.length * self.interface.substeps:
                # The window after begins `before` ticks earlier than where this one ends.
                kept[:] = physics.batch.state[:count]
            physics.substep(command[:, step])
            if (step + 1) % self.stride == 0:
                shown.append(physics.fields())
        fields = {name: np.stack([each[name] for each in shown], axis=1) for name in shown[0]}
        fields |= self._task(windows, fields, times)
        fields = self._seen(fields)
        terms = {term.name: term for term in self.interface.observation}
        return {name: _continuous(terms[name], value) for name, value in fields.items()}, kept

    def _task(self, windows: Windows, fields: dict[str, Floats], times: int) -> dict[str, Floats]:
        """The family's own terms, for goals where they were seen at the start."""
        layout = self.layouts(self._true(windows.start))
        if layout is None or not self.family.terms:
            return {}
        size, length = next(iter(fields.values())).shape[:2]
        flat = {k: v.reshape(size * length, -1) for k, v in fields.items()}
        wide = {
            k: np.repeat(np.tile(v, (times, *(1,) * (v.ndim - 1))), length, axis=0)
            for k, v in layout.items()
        }
        own = self.family.fields(wide, flat)
        return {k: v.reshape(size, length, -1) for k, v in own.items()}

    # A reality ----------------------------------------------------------------------------------

    def _differences(self) -> tuple[Differences, Floats]:
        """Of the reality, and its values (1, n)."""
        bodies = body_names(self.model)
        differences = Differences(self.interface, bodies, self.reality, AS_MODELLED)
        return differences, differences.fixed[None]

    def _late(self, command: Floats) -> Floats:
        """(W, S, A) the commands that act."""
        if self.reality == AS_MODELLED:
            return command
        differences, values = self._differences()
        late = differences.of(values, "command_delay")[0]
        return delayed(command, late / self.interface.physics_dt) if late.any() else command

    def _sensors(self) -> dict[str, tuple[float, float, Floats]]:
        """Per term delay in s, scale, and bias of each element; those that change anything."""
        if self.reality == AS_MODELLED:
            return {}
        differences, values = self._differences()
        delay, scale, bias = (
            differences.of(values, name)[0] for name in ("sensor_delay", "scale", "bias")
        )
        terms = robot_terms(self.interface)
        each = np.split(bias, np.cumsum([term.size for term in terms])[:-1])
        found = {
            t.name: s for t, s in zip(terms, zip(delay, scale, each, strict=True), strict=True)
        }
        return {k: s for k, s in found.items() if s[0] or s[1] != 1 or s[2].any()}

    def _seen(self, fields: dict[str, Floats]) -> dict[str, Floats]:
        """What sensors show (W, F, size) of the true values, as `perturbations` does it."""
        step, shown = self.stride * self.interface.physics_dt, dict(fields)
        terms = {term.name: term for term in self.interface.observation}
        for name, (delay, scale, bias) in self._sensors().items():
            if name not in fields:
                continue
            infinite = terms[name].infinite
            place = np.arange(fields[name].shape[1]) - delay / step
            # Between a wall and no wall there is nothing.
            place = np.maximum(place if infinite is None else np.round(place), 0)
            low = place.astype(np.int64)
            high = np.minimum(low + 1, len(place) - 1)
            part = (place - low)[:, None]
            then = (1 - part) * fields[name][:, low] + part * fields[name][:, high]
            value = scale * then + bias
            if infinite is not None:
                nothing = (then <= infinite[0]) | (then >= infinite[1])
                value = np.where(nothing, then, np.clip(value, *infinite))
            shown[name] = value
        return shown

    def _true(self, fields: dict[str, Floats]) -> dict[str, Floats]:
        """What these sensors mean, (.., size); as old as they are. nan where a scale is zero."""
        true = dict(fields)
        for name, (_, scale, bias) in self._sensors().items():
            true[name] = (fields[name] - bias) / (scale or np.nan)
        return true


def windows_to_nudge(windows: Windows) -> Windows:
    """A few windows that do not begin at rest, spread over all."""
    known = np.flatnonzero(~windows.rest)
    known = known if len(known) else np.arange(windows.count)
    return thin(
        windows, known[np.linspace(0, len(known) - 1, min(NUDGED, len(known))).astype(int)]
    )


def _continuous(term: ObservationTerm, fields: Floats) -> Floats:
    """(W, F, count_of) what is compared; an angle without jumps."""
    viewed = view(term, unfolded(term, fields))
    return np.unwrap(viewed, axis=1) if angular(term) else viewed


def _reset(physics: Physics) -> None:
    physics.reset(np.arange(physics.size, dtype=np.int32))


def _commanded(command: Floats, change: Change) -> Floats:
    if change.mix:
        command = command @ np.array(change.mix).T
    if change.ceiling:
        ceiling = np.array(change.ceiling)
        command = np.clip(command, -ceiling, ceiling)
    return command


def _apply(physics: Physics, changes: tuple[Change, ...], count: int) -> None:
    """Give each simulation the model of its change; `count` of them have the same."""
    fields = {
        "mass": ("body_mass", "body_inertia"),
        "damping": ("dof_damping",),
        "friction": ("geom_friction",),
    }
    changed = False
    for key, names in fields.items():
        factors = np.repeat([getattr(change, key) for change in changes], count)
        if (factors != 1).any():
            changed = True
            for name in names:
                array = physics.batch.expand(name)
                array *= factors.reshape(-1, *(1,) * (array.ndim - 1))
    if changed:
        physics.batch.set_const()


# The state that shows what was recorded -----------------------------------------------------


def _of_state(model: mujoco.MjModel, term: ObservationTerm) -> bool:
    """Whether a term follows from positions and velocities alone."""
    source = term.mujoco
    if source.sensor:
        stage = int(model.sensor(source.sensor).needstage[0])
        return stage in (STAGE_POS, STAGE_VEL)
    return bool(source.qpos or source.qvel)


def is_quaternion(model: mujoco.MjModel, term: ObservationTerm) -> bool:
    """Whether elements of a term are of a quaternion, whose sign means nothing."""
    if not term.mujoco.sensor:
        return False
    kind = int(model.sensor(term.mujoco.sensor).type[0])
    return kind in (int(mujoco.mjtSensor.mjSENS_FRAMEQUAT), int(mujoco.mjtSensor.mjSENS_BALLQUAT))


def _solve(physics: Physics, terms: list[ObservationTerm], target: Mapping[str, Floats]) -> None:
    """Newton's method on positions and velocities, with the smallest change that does it."""
    model, nv = physics.model, physics.model.nv
    qpos, qvel = physics.batch.bind("qpos"), physics.batch.bind("qvel")
    free = [is_quaternion(model, term) for term in terms]
    wanted = [np.asarray(target[term.name]) for term in terms]

    def shown() -> list[Floats]:
        fields = physics.show()
        return [fields[term.name] for term in terms]

    for _ in range(ROUNDS):
        base = qpos.copy(), qvel.copy()
        now = shown()
        error = np.concatenate(
            [_error(want, have, q) for want, have, q in zip(wanted, now, free, strict=True)],
            axis=1,
        )
        jacobian = np.empty((physics.size, error.shape[1], 2 * nv))
        flat = np.concatenate(now, axis=1)
        for i in range(2 * nv):
            step = np.zeros((physics.size, 2 * nv))
            step[:, i] = NUDGE
            _move(model, qpos, qvel, step)
            jacobian[:, :, i] = (np.concatenate(shown(), axis=1) - flat) / NUDGE
            qpos[:], qvel[:] = base
        change = np.einsum("wij,wj->wi", np.linalg.pinv(jacobian, rcond=RANK), error)
        largest = np.abs(change[:, :nv]).max(axis=1, keepdims=True)
        change *= np.minimum(1.0, TURN / np.maximum(largest, 1e-12))
        _move(model, qpos, qvel, change)
        if np.abs(change).max(initial=0.0) < DONE:
            break


def _error(wanted: Floats, shown: Floats, quaternion: bool) -> Floats:
    if quaternion:
        sign = np.sign((wanted * shown).sum(axis=1, keepdims=True))
        wanted = np.where(sign < 0, -wanted, wanted)
    # What was not recorded asks for nothing.
    return np.nan_to_num(wanted - shown)


def _move(model: mujoco.MjModel, qpos: Floats, qvel: Floats, step: Floats) -> None:
    """Add (W, 2 nv): a small rotation turns a quaternion, everything else is added."""
    nv = model.nv
    qvel += step[:, nv:]
    for joint in range(model.njnt):
        kind, q, v = (int(a[joint]) for a in (model.jnt_type, model.jnt_qposadr, model.jnt_dofadr))
        if kind == FREE:
            qpos[:, q : q + 3] += step[:, v : v + 3]
            q, v = q + 3, v + 3
        if kind in (FREE, BALL):
            qpos[:, q : q + 4] = _turn(qpos[:, q : q + 4], step[:, v : v + 3])
        else:
            qpos[:, q] += step[:, v]


def _turn(quaternion: Floats, rotation: Floats) -> Floats:
    """(W, 4) w, x, y, z, turned by rotation vectors (W, 3) in the body's frame."""
    angle = np.linalg.norm(rotation, axis=1, keepdims=True)
    axis = rotation / np.maximum(angle, 1e-300)
    w, v = np.cos(angle / 2), np.sin(angle / 2) * axis
    w0, v0 = quaternion[:, :1], quaternion[:, 1:]
    turned = np.concatenate(
        [w0 * w - (v0 * v).sum(axis=1, keepdims=True), w0 * v + w * v0 + np.cross(v0, v)], axis=1
    )
    return np.asarray(turned / np.linalg.norm(turned, axis=1, keepdims=True))


def twin_of(
    subject: Subject,
    recordings: Sequence[Signals],
    body: Robot,
    *,
    interface: Interface | None = None,
    reality: Reality = AS_MODELLED,
) -> Twin:
    """The simulation of what was recorded.

    Args:
        subject: that drove, or that was driven.
        recordings: they name the masters that decided.
        body: the nominal robot.
        interface: the subject's with other noise; None: the subject's.
        reality: in which it is simulated.
    """
    family, number = recorded_task(subject, recordings)

    def layouts(fields: dict[str, Floats]) -> dict[str, Floats] | None:
        return layout_of(family, number, fields)

    # The step is the model's: whoever simulates it otherwise gets another robot.
    stepped = replace(interface or subject.interface, physics_dt=body.interface.physics_dt)
    return Twin(body, stepped, family, layouts, reality=reality)
