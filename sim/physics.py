"""Many simulations of one robot, in the robot's own words: fields out, commands in."""

from __future__ import annotations

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from sim.addresses import actuators, address
from sim.interface import Floats, Interface

# Where MuJoCo itself puts a simulation back to the model's defaults, or ignores its commands.
# Its other warnings, such as a full contact buffer, leave the state as it is.
BAD = [
    int(getattr(mujoco.mjtWarning, f"mjWARN_BAD{what}"))
    for what in ("QPOS", "QVEL", "QACC", "CTRL")
]
NUMBER = 1  # in the last axis of Batch.warning, after lastinfo


class Physics:
    """B simulations stepped together; only this class knows MuJoCo addresses.

    Args:
        interface: names the joints, sensors and actuators.
        model: the compiled robot and scene.
        size: B.
        threads: simulation threads, the caller's included; the results do not depend on it.

    Raises:
        UserError: the interface names something that the model does not have.
    """

    def __init__(
        self, interface: Interface, model: mujoco.MjModel, size: int, threads: int
    ) -> None:
        self.interface = interface
        self.model = model
        self.batch = Batch(model, nsim=size, nthread=threads)
        # Bound once: a field that is bound between steps reads zero until the next step.
        self._qpos, self._qvel = self.batch.bind("qpos"), self.batch.bind("qvel")
        self._ctrl = self.batch.bind("ctrl")
        self._reads = [
            (t.name, *address(model, t)) for t in interface.observation if not t.mujoco.task
        ]
        self._actuators = [index for term in interface.action for index in actuators(model, term)]
        self._has_sensors = any(array == "sensordata" for _, array, _ in self._reads)
        # A copy, because MuJoCo's own is not part of the state that `restore` can set.
        self._sensors = np.zeros((size, model.nsensordata))
        self._measured = self.batch.bind("sensordata") if self._has_sensors else self._sensors

    @property
    def size(self) -> int:
        """B, the number of simulations."""
        return int(self.batch.nsim)

    def fields(self) -> dict[str, Floats]:
        """Per robot term (B, size), copies, in the term's unit."""
        arrays = {"qpos": self._qpos, "qvel": self._qvel, "sensordata": self._sensors}
        return {name: arrays[array][:, columns] for name, array, columns in self._reads}

    def step(self, command: Floats) -> None:
        """Hold `command` (B, A) for one tick."""
        self._advance(command, self.interface.substeps)

    def substep(self, command: Floats) -> None:
        """Hold `command` (B, A) for one physics step."""
        self._advance(command, 1)

    def _advance(self, command: Floats, steps: int) -> None:
        self._ctrl[:, self._actuators] = command
        # Without it sensors would be one physics step late; the price is a fifth of the speed.
        stage = mujoco.mjtStage.mjSTAGE_VEL if self._has_sensors else mujoco.mjtStage.mjSTAGE_NONE
        self.batch.step(nstep=steps, stage=int(stage))
        self._sensors[:] = self._measured

    def reset(self, ids: NDArray[np.int32]) -> None:
        """Put simulations `ids` at the model's defaults."""
        # Sensors would go on showing the end of the episode before.
        stage = mujoco.mjtStage.mjSTAGE_ACC if self._has_sensors else mujoco.mjtStage.mjSTAGE_NONE
        self.batch.reset(ids, stage=int(stage))
        self._sensors[ids] = self._measured[ids]

    def diverged(self) -> NDArray[np.bool_]:
        """(B,) whose state is not finite, or that MuJoCo itself had to reset, since `reset`."""
        finite = np.isfinite(self._qpos).all(axis=1) & np.isfinite(self._qvel).all(axis=1)
        return np.asarray(~finite | self.batch.warning[:, BAD, NUMBER].any(axis=1))

    def snapshot(self) -> dict[str, NDArray[np.generic]]:
        """The state (B, ...) and what the sensors show."""
        return {"physics": self.batch.state.copy(), "sensors": self._sensors.copy()}

    def restore(self, state: dict[str, NDArray[np.generic]]) -> None:
        """Continue from a `snapshot`, bit for bit.

        Raises:
            ValueError: the snapshot is of another model or number of simulations.
        """
        shapes = [state[name].shape for name in ("physics", "sensors")]
        expected = [self.batch.state.shape, self._sensors.shape]
        if shapes != expected:
            raise ValueError(f"the snapshot has shapes {shapes}, not {expected}")
        self.batch.state[:], self._sensors[:] = state["physics"], state["sensors"]
