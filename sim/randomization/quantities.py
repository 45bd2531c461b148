"""The quantities that may differ from the nominal model, one row of `TABLE` for each.

The schema of files, the vector that episodes draw from, the model writer, sweeps, identification,
`mlsh gap` and the documentation all read this table. A new quantity
that multiplies or is added to a field of the MuJoCo model is one row here. One that acts on
commands or on sensors is a row and the lines in `perturbations` or `sensor_model` that apply it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np

from sim.interface import Floats

LONGEST = 2.0  # s, of a delay: every physics step of it is kept
SMALLEST = 0.02  # of an identified factor: nothing weighs or pulls nothing


class Per(Enum):
    """Scope of a quantity: it has one number per member."""

    ROBOT = "robot"
    BODY = "body"
    AXIS = "axis x, y and z"
    ACTUATOR = "actuator"
    TERM = "observation term"
    ELEMENT = "element of an observation term"


@dataclass(frozen=True)
class Combination:
    """Rule that combines a fixed value and the value drawn for an episode."""

    nominal: float  # changes nothing
    apply: Callable[[Floats, Floats], Floats]


def _drawn_or_fixed(fixed: Floats, drawn: Floats) -> Floats:
    return np.asarray(np.where(drawn > 0, drawn, fixed))


def _at_least_one(fixed: Floats, drawn: Floats) -> Floats:
    """Returns the probability that at least one of two independent events occurs."""
    return 1 - (1 - fixed) * (1 - drawn)


PRODUCT, SUM = Combination(1.0, np.multiply), Combination(0.0, np.add)
HYPOT = Combination(0.0, np.hypot)  # standard deviations of independent noise
AT_LEAST_ONE = Combination(0.0, _at_least_one)
DRAWN_OR_FIXED = Combination(0.0, _drawn_or_fixed)


@dataclass(frozen=True)
class Bounds:
    """Range of valid values of a quantity."""

    low: float = -math.inf
    high: float = math.inf
    above_low: bool = False  # `low` itself is no valid value


ANY, NON_NEGATIVE, POSITIVE = Bounds(), Bounds(0.0), Bounds(0.0, above_low=True)
DELAY, CHANCE = Bounds(0.0, LONGEST), Bounds(0.0, 1.0)


class At(Enum):
    """Rows of a field of the MuJoCo model that a quantity is written to."""

    ALL = "all"
    BASE = "the body base_link"
    JOINTS = "the hinge and slide joints"
    ACTUATORS = "the actuators that commands drive"


@dataclass(frozen=True)
class ModelField:
    """A field of the MuJoCo model that a quantity multiplies or is added to."""

    name: str
    at: At = At.ALL
    columns: int | None = None  # the first so many of its last axis; None: all


@dataclass(frozen=True)
class Identification:
    """Marks a quantity that can be identified from recordings.

    If a recording cannot distinguish some quantities, the one that is kept first has its nominal
    value: a robot is easily weighed, the force of its motors is not easily measured.
    """

    kept: int  # the lowest number is kept first
    least: float = -math.inf  # no lower value is tried


@dataclass(frozen=True)
class Quantity:
    """A row of the table."""

    name: str  # in the vector
    place: str  # section and key of a file, see `sim.randomization.schema.SimParams`
    per: Per
    combination: Combination
    bounds: Bounds
    unit: str
    effect: str  # what it does, for the documentation
    multiplies: tuple[ModelField, ...] = ()
    adds_to: tuple[ModelField, ...] = ()
    sweep: str = ""  # its name in a sweep; empty: cannot be swept
    identification: Identification | None = None  # None: cannot be identified
    element_key: str = ""  # a second key, with a number per element, that is added to the first
    # Vectors are in the order of this number, then of the table. A row that is added later gets
    # the next number, so that what an episode draws of the others stays the same.
    drawn: int = 1

    @property
    def section(self) -> str:
        """The first part of `place`."""
        return self.place.partition(".")[0]

    @property
    def key(self) -> str:
        """The last part of `place`."""
        return self.place.partition(".")[2]

    @property
    def nominal(self) -> float:
        """The value that changes nothing."""
        return self.combination.nominal

    @property
    def fields(self) -> tuple[ModelField, ...]:
        """All fields of the model that the quantity changes."""
        return self.multiplies + self.adds_to


_MASS = ModelField("body_mass"), ModelField("body_inertia")
_FRICTION = ModelField("geom_friction", columns=1), ModelField("pair_friction", columns=2)
_FORCE = tuple(
    ModelField(f"actuator_{name}", At.ACTUATORS) for name in ("gainprm", "biasprm", "forcerange")
)

TABLE = (
    Quantity(
        "mass_factor", "physics.mass_factor", Per.ROBOT, PRODUCT, POSITIVE, "x nominal",
        "Multiplies mass and inertia of every body.",
        multiplies=_MASS, sweep="mass", identification=Identification(2, SMALLEST),
    ),
    Quantity(
        "body_mass_factors", "physics.body_mass_factors", Per.BODY, PRODUCT, POSITIVE,
        "x nominal", "Multiplies mass and inertia of one body, in addition to mass_factor.",
        multiplies=_MASS, identification=Identification(3, SMALLEST),
    ),
    Quantity(
        "payload_kg", "physics.payload_kg", Per.ROBOT, SUM, NON_NEGATIVE, "kg",
        "Mass added in the center of mass of base_link, whose inertia stays.",
        adds_to=(ModelField("body_mass", At.BASE),),
        sweep="payload", identification=Identification(1),
    ),
    Quantity(
        "friction_factor", "physics.friction_factor", Per.ROBOT, PRODUCT, POSITIVE, "x nominal",
        "Multiplies the sliding friction of all geoms and contact pairs. Torsional and rolling "
        "friction stay.",
        multiplies=_FRICTION, sweep="friction", identification=Identification(8, SMALLEST),
    ),
    Quantity(
        "damping_factor", "physics.damping_factor", Per.ROBOT, PRODUCT, NON_NEGATIVE, "x nominal",
        "Multiplies the damping of all joints, linear and polynomial.",
        multiplies=(ModelField("dof_damping"), ModelField("dof_dampingpoly")),
        sweep="damping", identification=Identification(7),
    ),
    Quantity(
        "armature_factor", "physics.armature_factor", Per.ROBOT, PRODUCT, NON_NEGATIVE,
        "x nominal", "Multiplies the armature of all joints.",
        multiplies=(ModelField("dof_armature"),), identification=Identification(4),
    ),
    Quantity(
        "joint_friction", "physics.joint_friction", Per.ROBOT, SUM, NON_NEGATIVE, "N m or N",
        "Dry friction added to every hinge (N m) and slide (N).",
        adds_to=(ModelField("dof_frictionloss", At.JOINTS),),
        sweep="joint_friction", identification=Identification(6), drawn=2,
    ),
    Quantity(
        "com_offset", "physics.com_offset_m", Per.AXIS, SUM, ANY, "m",
        "Added to the center of mass of the base, along x, y and z of its frame.",
        adds_to=(ModelField("body_ipos", At.BASE),), drawn=3,
    ),
    Quantity(
        "gravity_offset", "physics.gravity_offset_m_s2", Per.AXIS, SUM, ANY, "m/s²",
        "Added to gravity, along x, y and z of the world; [0.86, 0, 0] is a slope of 5 degrees.",
        adds_to=(ModelField("opt.gravity"),), identification=Identification(5),
    ),
    Quantity(
        "gain_factor", "actuators.gain_factor", Per.ACTUATOR, PRODUCT, NON_NEGATIVE, "x nominal",
        "Multiplies the force at the same command and state, and its limit.",
        multiplies=_FORCE, sweep="gain", identification=Identification(13, SMALLEST),
    ),
    Quantity(
        "command_factor", "actuators.command_factor", Per.ACTUATOR, PRODUCT, ANY, "x nominal",
        "Multiplies the command; the result is not cut at ctrlrange.",
        multiplies=_FORCE[:1],  # not ctrl itself, which MuJoCo would cut at the nominal ctrlrange
        sweep="command", identification=Identification(12),
    ),
    Quantity(
        "command_delay", "actuators.delay_s", Per.ACTUATOR, SUM, DELAY, "s",
        "Time until a command acts, at most 2 s; the safe command acts before.",
        sweep="delay", identification=Identification(14),
    ),
    Quantity(
        "sensor_delay", "sensors.delay_s", Per.TERM, SUM, DELAY, "s",
        "Age of the measurement, at most 2 s; at first the start is measured.",
        sweep="sensor_delay", identification=Identification(10),
    ),
    Quantity(
        "scale", "sensors.scale", Per.TERM, PRODUCT, ANY, "x nominal",
        "Multiplies the value.", identification=Identification(11),
    ),
    Quantity(
        "bias", "sensors.bias", Per.ELEMENT, SUM, ANY, "the term's",
        "Added to each element; a range is drawn separately for each.",
        identification=Identification(9), element_key="element_bias",
    ),
    Quantity(
        "noise", "sensors.noise", Per.TERM, HYPOT, NON_NEGATIVE, "the term's",
        "Standard deviation per tick, in addition to the interface's noise.",
    ),
    Quantity(
        "dropout", "sensors.dropout", Per.TERM, AT_LEAST_ONE, CHANCE, "chance per tick",
        "Probability per tick that the previous value is repeated.", sweep="dropout",
    ),
    Quantity(
        "imu_mount", "imu.mount_rad", Per.AXIS, SUM, Bounds(-math.pi, math.pi), "rad",
        "Roll, pitch and yaw by which the IMU is turned against the body that it is mounted on.",
        drawn=4,
    ),
    Quantity(
        "push_velocity", "pushes.velocity_m_s", Per.ROBOT, DRAWN_OR_FIXED, NON_NEGATIVE, "m/s",
        "Change of the base's velocity, in a random direction.",
    ),
    Quantity(
        "push_every", "pushes.every_s", Per.ROBOT, DRAWN_OR_FIXED, POSITIVE, "s",
        "Time between two pushes; the first comes after it.",
    ),
)  # fmt: skip

ROWS = {row.name: row for row in TABLE}
VECTOR = tuple(sorted(TABLE, key=lambda row: row.drawn))  # in the order of the vector
