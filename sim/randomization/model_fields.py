"""Fields of the model that each simulation has its own values of."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from sim.errors import UserError
from sim.interface import Floats, Interface
from sim.physics.mjcf_addresses import BASE, actuators
from sim.randomization.parameters import Differences

# Force is (gain . (1, length, velocity)) command + bias . (1, length, velocity): twice the
# parameters, twice the force.
LINEAR = (
    (int(mujoco.mjtGain.mjGAIN_FIXED), int(mujoco.mjtGain.mjGAIN_AFFINE)),
    (int(mujoco.mjtBias.mjBIAS_NONE), int(mujoco.mjtBias.mjBIAS_AFFINE)),
)


def body_names(model: mujoco.MjModel) -> list[str]:
    """Of all bodies of a model, in order."""
    return [model.body(i).name for i in range(model.nbody)]


def _dofs(model: mujoco.MjModel) -> Iterator[int]:
    """Of all hinges and slides."""
    turning = int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE)
    for i in range(model.njnt):
        if model.jnt_type[i] in turning:
            yield int(model.jnt_dofadr[i])


class Expanded:
    """Writes what differs into a batch; what never differs is not touched.

    Args:
        batch: of simulations.
        interface: whose commands drive the actuators.
        differences: what may differ.

    Raises:
        UserError: there is nothing in the model that could differ so.
    """

    def __init__(self, batch: Batch, interface: Interface, differences: Differences) -> None:
        self._batch, self._differences = batch, differences
        self._model = model = batch.model
        self._motors = [i for term in interface.action for i in actuators(model, term)]
        self._writers: list[Callable[[NDArray[np.int32], Floats], None]] = []
        differs = differences.differs
        if differs("mass_factor", "body_mass_factors", "payload_kg"):
            self._base = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, BASE)
            if self._base < 0 and differs("payload_kg"):
                raise UserError(
                    f"payload_kg is put on body {BASE!r}, which the model does not have. It has: "
                    f"{', '.join(body_names(model)[1:])}"
                )
            self._writers.append(self._masses)
        if differs("friction_factor"):
            self._writers.append(self._friction)
        if differs("damping_factor"):
            self._writers.append(self._damping)
        if differs("armature_factor"):
            self._writers.append(self._armature)
        if differs("joint_friction"):
            self._rubbing = np.array(list(_dofs(model)), np.intp)
            if not self._rubbing.size:
                raise UserError(
                    f"joint_friction is of hinge and slide joints, which robot "
                    f"{interface.robot!r} does not have"
                )
            self._writers.append(self._joint_friction)
        if differs("gravity_offset"):
            self._writers.append(self._gravity)
        if differs("gain_factor", "command_factor"):
            self._check_linear(interface)
            self._writers.append(self._gains)
        # Of these MuJoCo derives other constants, at a price.
        derived = {self._masses, self._armature, self._gravity}
        self._derives = bool(derived & set(self._writers))

    def write(self, ids: NDArray[np.int32], values: Floats) -> None:
        """Give simulations `ids` the values (len(ids), n) of a draw."""
        for writer in self._writers:
            writer(ids, values)
        if self._derives:
            self._batch.set_const(ids)

    def _of(self, values: Floats, name: str) -> Floats:
        return self._differences.of(values, name)

    def _scale(self, name: str, ids: NDArray[np.int32], factor: Floats) -> None:
        """Field `name` as in the model, times a factor that broadcasts to (len(ids), ...)."""
        nominal = getattr(self._model, name)
        if nominal.size:
            self._batch.expand(name)[ids] = nominal * factor

    def _masses(self, ids: NDArray[np.int32], values: Floats) -> None:
        factor = self._of(values, "mass_factor") * self._of(values, "body_mass_factors")
        self._scale("body_mass", ids, factor)
        self._scale("body_inertia", ids, factor[..., None])
        if self._base >= 0:
            self._batch.expand("body_mass")[ids, self._base] += self._of(values, "payload_kg")[
                :, 0
            ]

    def _friction(self, ids: NDArray[np.int32], values: Floats) -> None:
        factor = self._of(values, "friction_factor")[:, None]
        for name, sliding in (("geom_friction", 1), ("pair_friction", 2)):
            factors = np.ones((len(ids), 1, getattr(self._model, name).shape[1]))
            factors[..., :sliding] = factor
            self._scale(name, ids, factors)

    def _damping(self, ids: NDArray[np.int32], values: Floats) -> None:
        factor = self._of(values, "damping_factor")
        self._scale("dof_damping", ids, factor)
        self._scale("dof_dampingpoly", ids, factor[..., None])

    def _armature(self, ids: NDArray[np.int32], values: Floats) -> None:
        self._scale("dof_armature", ids, self._of(values, "armature_factor"))

    def _joint_friction(self, ids: NDArray[np.int32], values: Floats) -> None:
        friction = self._batch.expand("dof_frictionloss")
        friction[ids] = self._model.dof_frictionloss
        friction[np.ix_(ids, self._rubbing)] += self._of(values, "joint_friction")

    def _gravity(self, ids: NDArray[np.int32], values: Floats) -> None:
        gravity = self._batch.expand("opt.gravity")
        gravity[ids] = self._model.opt.gravity + self._of(values, "gravity_offset")

    def _gains(self, ids: NDArray[np.int32], values: Floats) -> None:
        force, command = (
            np.ones((len(ids), self._model.actuator_gainprm.shape[0], 1)) for _ in range(2)
        )
        force[:, self._motors, 0] = self._of(values, "gain_factor")
        command[:, self._motors, 0] = self._of(values, "command_factor")
        # Not ctrl itself, which MuJoCo would cut at the nominal ctrlrange.
        self._scale("actuator_gainprm", ids, force * command)
        self._scale("actuator_biasprm", ids, force)
        self._scale("actuator_forcerange", ids, force)

    def _check_linear(self, interface: Interface) -> None:
        kinds = self._model.actuator_gaintype, self._model.actuator_biastype
        for i in self._motors:
            if any(kind[i] not in known for kind, known in zip(kinds, LINEAR, strict=True)):
                raise UserError(
                    f"gain_factor and command_factor need actuators whose force is linear, which "
                    f"{self._model.actuator(i).name!r} of robot {interface.robot!r} is not"
                )
