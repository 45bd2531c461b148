"""A batch of MuJoCo simulations of one robot: commands in, measurements by term name out.

The only file that reads and writes MuJoCo's arrays by address; `mjcf_addresses.py` resolves the
names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from sim.interface import Floats, Interface, ObservationTerm
from sim.physics.mjcf_addresses import actuators, address, keyframe, ray_site, start_address
from sim.physics.signals import Signal

# Where MuJoCo itself puts a simulation back to the model's defaults, or ignores its commands.
# Its other warnings, such as a full contact buffer, leave the state as it is.
BAD = [
    int(getattr(mujoco.mjtWarning, f"mjWARN_BAD{what}"))
    for what in ("QPOS", "QVEL", "QACC", "CTRL")
]
NUMBER = 1  # in the last axis of Batch.warning, after lastinfo


class BatchedPhysics:
    """B simulations stepped together; only this class uses MuJoCo addresses.

    Args:
        interface: names the joints, sensors and actuators.
        model: the compiled robot and scene.
        size: B.
        threads: simulation threads, the caller's included; the results do not depend on it.
        signals: of the task family; the model has their sensors.

    Raises:
        UserError: the interface names something that the model does not have.
    """

    def __init__(
        self,
        interface: Interface,
        model: mujoco.MjModel,
        size: int,
        threads: int,
        signals: Sequence[Signal] = (),
    ) -> None:
        self.interface = interface
        self.model = model
        self.batch = Batch(model, nsim=size, nthread=threads)
        # Bound once: a field that is bound between steps reads zero until the next step.
        self._qpos, self._qvel = self.batch.bind("qpos"), self.batch.bind("qvel")
        self._ctrl = self.batch.bind("ctrl")
        self._mocap = self.batch.bind("mocap_pos") if model.nmocap else None
        robot = [t for t in interface.observation if not t.mujoco.task]
        self._reads = [(t.name, *address(model, t)) for t in robot if not t.mujoco.rays]
        self._scanners = [_Scanner(self.batch, t) for t in robot if t.mujoco.rays]
        self._actuators = [index for term in interface.action for index in actuators(model, term)]
        self._start = start_address(model, interface)
        self._key = keyframe(model, interface)  # in which the robot begins
        self._rest = model.qpos0 if self._key is None else model.key_qpos[self._key]  # (nq,)
        self._act = self.batch.bind("act") if model.na else None
        self._hinges = model.jnt_qposadr[model.jnt_type == int(mujoco.mjtJoint.mjJNT_HINGE)]
        has_sensors = any(array == "sensordata" for _, array, _ in self._reads)
        # Copies, because MuJoCo's own are not part of the state that `restore` can set.
        self._sensors = np.zeros((size, model.nsensordata))
        self._scans = np.zeros((size, sum(scanner.count for scanner in self._scanners)))
        self._signals = [(signal, signal.columns(model)) for signal in signals]
        bound = has_sensors or bool(signals)
        self._measured = self.batch.bind("sensordata") if bound else self._sensors
        # Whether anything is read that MuJoCo derives from the state.
        self._derives = has_sensors or bool(self._scanners)

    @property
    def size(self) -> int:
        """B, the number of simulations."""
        return int(self.batch.nsim)

    def fields(self) -> dict[str, Floats]:
        """Per robot term (B, size), copies, in the term's unit."""
        arrays = {"qpos": self._qpos, "qvel": self._qvel, "sensordata": self._sensors}
        fields = {name: arrays[array][:, columns] for name, array, columns in self._reads}
        start = 0
        for scanner in self._scanners:
            fields[scanner.name] = self._scans[:, start : start + scanner.count].copy()
            start += scanner.count
        return fields

    def signals(self) -> dict[str, Floats]:
        """Per signal of the task family (B, size), of the present state; empty without signals.

        Nothing that the next step depends on changes.
        """
        if self._signals:
            self.batch.forward()
        return {s.name: s.values(self._measured[:, columns]) for s, columns in self._signals}

    @property
    def signal_sizes(self) -> dict[str, int]:
        """Number of elements of each signal."""
        return {name: values.shape[1] for name, values in self.signals().items()}

    @property
    def pose(self) -> Floats:
        """(B, nq) a copy of the joint positions; for rendering only."""
        return np.array(self._qpos)

    def step(self, command: Floats) -> None:
        """Hold `command` (B, A) for one tick."""
        self._advance(command, self.interface.substeps)

    def substep(self, command: Floats, measured: NDArray[np.int32] | None = None) -> None:
        """Hold `command` (B, A) for one physics step.

        Args:
            command: of every simulation.
            measured: simulations whose sensors and scanners are read after it, all by default;
                those of the others go on showing what they did.
        """
        if measured is None or not self._derives:
            self._advance(command, 1)
            return
        self._ctrl[:, self._actuators] = command
        rest = np.setdiff1d(np.arange(self.size, dtype=np.int32), measured)
        if len(rest):
            self.batch.step(rest)
        if len(measured):
            self.batch.step(measured, stage=int(mujoco.mjtStage.mjSTAGE_VEL))
            self._measure(measured)

    def _advance(self, command: Floats, steps: int) -> None:
        self._ctrl[:, self._actuators] = command
        # Without it sensors would be one physics step late; the price is a fifth of the speed.
        stage = mujoco.mjtStage.mjSTAGE_VEL if self._derives else mujoco.mjtStage.mjSTAGE_NONE
        self.batch.step(nstep=steps, stage=int(stage))
        self._measure(None)

    def reset(self, ids: NDArray[np.int32]) -> None:
        """Put simulations `ids` in the start pose, or at the model's defaults without one."""
        # Sensors would go on showing the end of the episode before.
        stage = mujoco.mjtStage.mjSTAGE_ACC if self._derives else mujoco.mjtStage.mjSTAGE_NONE
        self.batch.reset(ids, stage=int(stage))
        if self._key is None:
            self._measure(ids)
            return
        self._qpos[ids], self._qvel[ids] = self._rest, self.model.key_qvel[self._key]
        self._ctrl[ids] = self.model.key_ctrl[self._key]
        if self._act is not None:
            self._act[ids] = self.model.key_act[self._key]
        self._refresh(ids)

    @property
    def movable(self) -> bool:
        """True if `teleport` supports this robot."""
        return self._start is not None

    def teleport(self, ids: NDArray[np.int32], pose: Floats) -> None:
        """Put the robots of simulations `ids` at (len(ids), 3): x, y in m, heading in rad.

        Only if `movable`. A robot that keeps its heading ignores it. A heading and the same plus a
        turn differ in the sign of the quaternion.
        """
        assert self._start is not None
        self._qpos[np.ix_(ids, self._start.xy)] = pose[:, :2]
        if len(self._start.quaternion):
            half = pose[:, 2] / 2
            zero = np.zeros_like(half)
            wxyz = np.stack([np.cos(half), zero, zero, np.sin(half)], axis=-1)
            if self._key is not None:
                wxyz = _product(wxyz, self._rest[self._start.quaternion])
            self._qpos[np.ix_(ids, self._start.quaternion)] = wxyz
        self._refresh(ids)

    @property
    def hinges(self) -> int:
        """Number of hinges of the model."""
        return len(self._hinges)

    def perturb_joints(self, ids: NDArray[np.int32], angles: Floats) -> None:
        """Turn the hinges of simulations `ids` by (len(ids), hinges), rad, in model order."""
        self._qpos[np.ix_(ids, self._hinges)] += angles
        self._refresh(ids)

    def set_mocap_poses(self, ids: NDArray[np.int32], places: Mapping[str, Floats]) -> None:
        """Put mocap bodies of simulations `ids` at (len(ids), 2 or 3) by name, m."""
        for body, place in places.items():
            assert self._mocap is not None
            index = int(self.model.body(body).mocapid[0])
            self._mocap[ids, index, : place.shape[1]] = place
        self._refresh(ids)

    def reset_pose(self, ids: NDArray[np.int32]) -> None:
        """Put the robots of simulations `ids` at rest in their default pose, at the same x, y.

        Only if `movable`.
        """
        assert self._start is not None
        where = np.ix_(ids, self._start.xy)
        xy = self._qpos[where]
        self._qpos[ids] = self._rest
        self._qpos[where] = xy
        self._qvel[ids] = 0.0
        self._refresh(ids)

    def _refresh(self, ids: NDArray[np.int32]) -> None:
        if self._derives:
            self.batch.forward(ids)
            self._measure(ids)

    def refresh_sensors(self) -> dict[str, Floats]:
        """Recompute `fields` for a state that was written into the batch."""
        if self._derives:
            self.batch.forward()
            self._measure(None)
        return self.fields()

    def push(self, ids: NDArray[np.intp], velocity: Floats) -> None:
        """Add (len(ids), 2) m/s along x and y of the world to the velocity of the base.

        Only if `movable`.
        """
        assert self._start is not None
        self._qvel[np.ix_(ids, self._start.velocity)] += velocity

    def _measure(self, ids: NDArray[np.int32] | None) -> None:
        """Read the sensors and scanners at the state that was just computed."""
        rows = slice(None) if ids is None else ids
        self._sensors[rows] = self._measured[rows]
        if self._scanners:
            self._scans[rows] = np.concatenate([s.scan(ids) for s in self._scanners], axis=1)

    def diverged(self) -> NDArray[np.bool_]:
        """(B,) True where the state is not finite or MuJoCo reset it, since `reset`."""
        finite = np.isfinite(self._qpos).all(axis=1) & np.isfinite(self._qvel).all(axis=1)
        return np.asarray(~finite | self.batch.warning[:, BAD, NUMBER].any(axis=1))

    def snapshot(self) -> dict[str, NDArray[np.generic]]:
        """The state (B, ...) and the values of the sensors and scanners."""
        return {
            "physics": self.batch.state.copy(),
            "sensors": self._sensors.copy(),
            "scans": self._scans.copy(),
        }

    def restore(self, state: dict[str, NDArray[np.generic]]) -> None:
        """Continue from a `snapshot`, bit for bit.

        Raises:
            ValueError: the snapshot is of another model or number of simulations.
        """
        names = ("physics", "sensors", "scans")
        targets = [self.batch.state, self._sensors, self._scans]
        shapes = [state[name].shape for name in names]
        expected = [target.shape for target in targets]
        if shapes != expected:
            raise ValueError(f"the snapshot has shapes {shapes}, not {expected}")
        for name, target in zip(names, targets, strict=True):
            target[:] = state[name]


def _product(turn: Floats, pose: Floats) -> Floats:
    """(n, 4) quaternions `pose` (4,) turned by `turn` (n, 4)."""
    product = np.empty_like(turn)
    for row, each in zip(product, turn, strict=True):
        mujoco.mju_mulQuat(row, each, pose)
    return product


class _Scanner:
    """Casts the rays of one term in many simulations at once."""

    def __init__(self, batch: Batch, term: ObservationTerm) -> None:
        assert term.mujoco.rays is not None
        assert term.inf_values is not None
        self.name, self.count = term.name, term.size
        self._rays, self._inf_values, self._batch = term.mujoco.rays, term.inf_values, batch
        self._site = ray_site(batch.model, term)
        self._body = int(batch.model.site_bodyid[self._site])
        self._directions = self._rays.directions(term.size)  # (count, 3) in the site's frame
        self._origin = batch.bind("site_xpos")  # (B, sites, 3)
        self._rotation = batch.bind("site_xmat")  # (B, sites, 9), rows first

    def scan(self, ids: NDArray[np.int32] | None) -> Floats:
        """Ranges (len(ids), count) at the state that was just computed, m."""
        rows = slice(None) if ids is None else ids
        origin = self._origin[rows, self._site]
        rotation = self._rotation[rows, self._site].reshape(-1, 3, 3)
        # A simulation that has diverged has no frame; its scan is not used.
        vectors = np.nan_to_num(np.einsum("nij,rj->nri", rotation, self._directions))
        distance, _ = self._batch.ray(
            np.nan_to_num(origin)[:, None], vectors, bodyexclude=self._body, ids=ids
        )
        return self._rays.ranges(distance, self._inf_values)
