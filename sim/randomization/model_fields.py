"""Writes the parameters of each simulation (mass, friction, gains) into its MuJoCo model.

`quantities.TABLE` lists the quantities and the fields; delays, noise and pushes are in
`perturbations.py` and `sensor_model.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import reduce
from operator import attrgetter

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from sim.errors import UserError
from sim.interface import Floats, Interface
from sim.physics.mjcf_addresses import BASE, actuators
from sim.randomization.parameters import ParameterVector
from sim.randomization.quantities import VECTOR, At, ModelField, Per, Quantity

# Force is (gain . (1, length, velocity)) command + bias . (1, length, velocity): twice the
# parameters, twice the force.
LINEAR = (
    (int(mujoco.mjtGain.mjGAIN_FIXED), int(mujoco.mjtGain.mjGAIN_AFFINE)),
    (int(mujoco.mjtBias.mjBIAS_NONE), int(mujoco.mjtBias.mjBIAS_AFFINE)),
)


def body_names(model: mujoco.MjModel) -> list[str]:
    """Returns the names of all bodies of a model, in order."""
    return [model.body(i).name for i in range(model.nbody)]


def _dofs(model: mujoco.MjModel) -> Iterator[int]:
    """Yields the velocity addresses of all hinges and slides."""
    turning = int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE)
    for i in range(model.njnt):
        if model.jnt_type[i] in turning:
            yield int(model.jnt_dofadr[i])


# Of these MuJoCo derives other constants, at a price.
DERIVING = {"body_mass", "body_inertia", "body_ipos", "dof_armature", "opt.gravity"}


class ModelFieldWriter:
    """Writes the model fields that differ into a batch; the others are not touched.

    A field that some quantities multiply and others are added to is its nominal value, times the
    product of the first, plus the others.

    Args:
        batch: of simulations.
        interface: whose commands drive the actuators.
        differences: the vector that values are of.
        names: the quantities that are written: those that may differ.

    Raises:
        UserError: there is nothing in the model that could differ so.
    """

    def __init__(
        self,
        batch: Batch,
        interface: Interface,
        differences: ParameterVector,
        names: Collection[str],
    ) -> None:
        self._batch, self._differences = batch, differences
        self._model = model = batch.model
        rows = [row for row in VECTOR if row.name in names]
        self._rows: dict[At, NDArray[np.intp]] = {
            At.BASE: np.array(
                [i for i, name in enumerate(body_names(model)) if name == BASE], np.intp
            ),
            At.JOINTS: np.array(list(_dofs(model)), np.intp),
            At.ACTUATORS: np.array(
                [i for term in interface.action for i in actuators(model, term)], np.intp
            ),
        }
        for row in rows:
            for field in row.fields:
                self._check(row, field, interface)
        self._fields = {
            name: (
                [(r, f) for r in rows for f in r.multiplies if f.name == name],
                [(r, f) for r in rows for f in r.adds_to if f.name == name],
            )
            for name in dict.fromkeys(f.name for r in rows for f in r.fields)
        }
        self._derives = bool(DERIVING & self._fields.keys())

    def write(self, ids: NDArray[np.int32], values: Floats) -> None:
        """Give simulations `ids` the values (len(ids), n) of a draw."""
        for name, (multiplies, adds) in self._fields.items():
            nominal = attrgetter(name)(self._model)
            if not nominal.size:
                continue
            array = self._batch.expand(name)
            array[ids] = nominal
            if multiplies:
                factors = [self._factor(row, field, nominal, values) for row, field in multiplies]
                array[ids] = nominal * reduce(np.multiply, factors)
            for row, field in adds:
                added = self._differences.of(values, row.name)
                where = self._rows.get(field.at, np.arange(nominal.shape[0]))
                if row.per is Per.AXIS and nominal.ndim == 2:  # a vector for each of the rows
                    added = added[:, None]
                array[np.ix_(ids, where)] += added
        if self._derives:
            self._batch.set_const(ids)

    def _factor(self, row: Quantity, field: ModelField, nominal: Floats, values: Floats) -> Floats:
        """Returns the factor of a field; it broadcasts to (k, *its shape)."""
        part = self._differences.of(values, row.name)
        if field.at in self._rows:
            whole = np.ones((len(part), nominal.shape[0]))
            whole[:, self._rows[field.at]] = part
            part = whole
        factor: Floats = part.reshape(*part.shape, *(1,) * (nominal.ndim - 1))
        if field.columns is None:
            return factor
        some = np.ones((*part.shape, nominal.shape[-1]))
        some[..., : field.columns] = factor
        return some

    def _check(self, row: Quantity, field: ModelField, interface: Interface) -> None:
        """Refuse a quantity that does not apply to the model."""
        model = self._model
        if field.at is At.BASE and not self._rows[At.BASE].size:
            raise UserError(
                f"{row.key} is put on body {BASE!r}, which the model does not have. It has: "
                f"{', '.join(body_names(model)[1:])}"
            )
        if field.at is At.JOINTS and not self._rows[At.JOINTS].size:
            raise UserError(
                f"{row.key} is of hinge and slide joints, which robot {interface.robot!r} does "
                "not have"
            )
        if field.at is At.ACTUATORS:
            kinds = model.actuator_gaintype, model.actuator_biastype
            for i in self._rows[At.ACTUATORS]:
                if any(kind[i] not in known for kind, known in zip(kinds, LINEAR, strict=True)):
                    keys = [r.key for r in VECTOR if any(f.at is At.ACTUATORS for f in r.fields)]
                    raise UserError(
                        f"{' and '.join(keys)} need actuators whose force is linear, which "
                        f"{model.actuator(i).name!r} of robot {interface.robot!r} is not"
                    )
