"""Signals: quantities of the simulation for rewards and success; no robot has to publish them.

Each part of a signal is a MuJoCo sensor that is added to the robot's model. Signals are read after
a tick, beside the true state, and are no part of an observation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

import mujoco
import numpy as np
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from typing_extensions import Self

from sim.errors import UserError, unknown
from sim.interface import STRICT, Floats, Interface, Label, Text
from sim.physics.mjcf_addresses import SCALAR, Indices

Quantity = Literal[
    "contact_force",
    "contact_vector",
    "actuator_force",
    "position",
    "orientation",
    "linear_velocity",
    "angular_velocity",
    "velocity",
]
Part = Literal["geom", "body", "site", "actuator", "joint"]

_S, _O = mujoco.mjtSensor, mujoco.mjtObj
_CONTACT = {"geom": _O.mjOBJ_GEOM, "body": _O.mjOBJ_BODY}
# The frame of a body is its own, not that of its inertia.
_FRAME = {"body": _O.mjOBJ_XBODY, "site": _O.mjOBJ_SITE, "geom": _O.mjOBJ_GEOM}
# Kind of sensor and of MuJoCo object, by quantity and part.
_SOURCES: dict[tuple[str, str], tuple[mujoco.mjtSensor, mujoco.mjtObj]] = {
    **{("contact_force", part): (_S.mjSENS_CONTACT, kind) for part, kind in _CONTACT.items()},
    **{("contact_vector", part): (_S.mjSENS_CONTACT, kind) for part, kind in _CONTACT.items()},
    ("actuator_force", "actuator"): (_S.mjSENS_ACTUATORFRC, _O.mjOBJ_ACTUATOR),
    ("actuator_force", "joint"): (_S.mjSENS_JOINTACTFRC, _O.mjOBJ_JOINT),
    **{("position", part): (_S.mjSENS_FRAMEPOS, kind) for part, kind in _FRAME.items()},
    **{("orientation", part): (_S.mjSENS_FRAMEQUAT, kind) for part, kind in _FRAME.items()},
    **{("linear_velocity", part): (_S.mjSENS_FRAMELINVEL, kind) for part, kind in _FRAME.items()},
    **{("angular_velocity", part): (_S.mjSENS_FRAMEANGVEL, kind) for part, kind in _FRAME.items()},
    ("position", "joint"): (_S.mjSENS_JOINTPOS, _O.mjOBJ_JOINT),
    ("velocity", "joint"): (_S.mjSENS_JOINTVEL, _O.mjOBJ_JOINT),
}
CONTACTS = ("contact_force", "contact_vector")
# Of a contact sensor: the force, as the sum over all contacts, once.
_NET_FORCE = [1 << int(mujoco.mjtConDataField.mjCONDATA_FORCE), 3, 1]
_NO_CONTACTS = int(mujoco.mjtDisableBit.mjDSBL_CONTACT)


@dataclass(frozen=True, config=STRICT)
class Signal:
    """A quantity of one or several parts of the model, by MuJoCo's names.

    Values have a row per simulation and the parts beside each other, in order:

    - contact_force: sum of the forces of all contacts of a geom, or of a body's own geoms; its
      length, N; 1 element per part.
    - contact_vector: the same sum in the world, N; 3 elements. Its sign is that of MuJoCo.
    - actuator_force: force of an actuator, or of all actuators on a joint, N or N m; 1 element.
    - position: of a body, site or geom in the world, m; 3 elements, the third is the height. Of a
      joint, rad or m; 1 element.
    - orientation: of a body, site or geom in the world, quaternion w, x, y, z; 4 elements.
    - linear_velocity, angular_velocity: of these in the world, m/s, rad/s; 3 elements.
    - velocity: of a joint, rad/s or m/s; 1 element.
    """

    name: Label  # name, by which rewards and settings refer to it
    quantity: Quantity  # what of each part, in SI units and the frame of the world
    of: Part  # kind of part of the model
    names: Annotated[tuple[Text, ...], Field(min_length=1)]  # names of the parts in the model

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.quantity, self.of) not in _SOURCES:
            parts = [part for quantity, part in _SOURCES if quantity == self.quantity]
            what = f"signal {self.name!r}: no {self.quantity} of {self.of!r}"
            raise ValueError(f"{what}. Valid: {', '.join(parts)}")
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"signal {self.name!r}: names has one {self.of} twice")
        return self

    @property
    def sensors(self) -> tuple[str, ...]:
        """Names of its sensors in the model, one per part."""
        return tuple(f"signal.{self.name}.{name}" for name in self.names)

    def add_to(self, spec: mujoco.MjSpec, where: str) -> None:
        """Add its sensors to a robot's model; errors begin with `where`.

        Raises:
            UserError: the model has no such part, and the valid names are listed; or no contacts.
        """
        parts = getattr(spec, "bodies" if self.of == "body" else f"{self.of}s")
        known = [part.name for part in parts if part.name and _is_scalar(self.of, part)]
        if self.quantity in CONTACTS and spec.option.disableflags & _NO_CONTACTS:
            raise UserError(
                f"{where}: signal {self.name!r}: the model has its contacts switched off, and no "
                f"{self.quantity}"
            )
        kind, of = _SOURCES[self.quantity, self.of]
        for sensor, name in zip(self.sensors, self.names, strict=True):
            if name not in known:
                raise UserError(f"{where}: signal {self.name!r}: {unknown(self.of, name, known)}")
            more = {"intprm": _NET_FORCE} if self.quantity in CONTACTS else {}
            spec.add_sensor(name=sensor, type=kind, objtype=of, objname=name, **more)

    def columns(self, model: mujoco.MjModel) -> Indices:
        """Its columns of sensordata."""
        ids = [model.sensor(sensor).id for sensor in self.sensors]
        ends = [(model.sensor_adr[i], model.sensor_adr[i] + model.sensor_dim[i]) for i in ids]
        return np.concatenate([np.arange(*each, dtype=np.intp) for each in ends])

    def values(self, data: Floats) -> Floats:
        """Its values (n, size) from its columns of sensordata."""
        if self.quantity != "contact_force":
            return data
        forces = data.reshape(len(data), len(self.names), 3)
        return np.asarray(np.linalg.norm(forces, axis=-1))


def _is_scalar(of: Part, part: Any) -> bool:
    """False for joints that have no single force."""
    return of != "joint" or int(part.type) in SCALAR


def check_signals(signals: Sequence[Signal], interface: Interface, where: str) -> None:
    """Refuse signals that a policy would observe, or that have one name.

    Args:
        signals: of a task family.
        interface: of the robot, with the family's own terms.
        where: what has the signals, as errors name it.

    Raises:
        UserError: names the signal and the observation term.
    """
    hidden = {sensor: signal.name for signal in signals for sensor in signal.sensors}
    names = [signal.name for signal in signals]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{where}: signal {twice[0]!r} is given twice")
    terms: Iterable[tuple[str, str]] = (
        *((term.name, term.mujoco.sensor or "") for term in interface.observation),
        *((term.name, "") for term in interface.computed),
    )
    for term, sensor in terms:
        if term in names:
            raise UserError(
                f"{where}: signal {term!r} has the name of an observation term; a policy observes "
                "no signals: give it another name"
            )
        if sensor in hidden:
            raise UserError(
                f"{where}: observation term {term!r} reads signal {hidden[sensor]!r}; a policy "
                "observes no signals, which no robot measures"
            )
