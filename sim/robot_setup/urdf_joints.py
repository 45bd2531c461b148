"""Finds the driven joints of a URDF, their commands and gains."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree

from sim.errors import UserError, listed

MOVING = ("revolute", "continuous", "prismatic")  # what an actuator may drive
KINDS = ("position", "velocity", "effort")  # of commands
GAINS = {"position": ("stiffness", "damping"), "velocity": ("damping",), "effort": ()}
UNITS = {"stiffness": "N m/rad, of a slide N/m", "damping": "N m s/rad, of a slide N s/m"}


@dataclass(frozen=True)
class UrdfJoint:
    """A moving joint: what a URDF says of it and MuJoCo does not read."""

    name: str
    turns: bool
    range: tuple[float, float] | None  # rad or m; None: continuous
    effort: float  # N m or N, largest; 0: not stated
    velocity: float  # rad/s or m/s, largest; 0: not stated
    mimics: str = ""


@dataclass(frozen=True)
class Driven:
    """A joint with an actuator."""

    joint: UrdfJoint
    kind: str  # of KINDS
    stiffness: float = 0.0  # N m/rad or N/m
    damping: float = 0.0  # N m s/rad or N s/m


@dataclass(frozen=True)
class Drives:
    """The choices of a user for actuators; the key "" is for all joints that are not named."""

    joints: Sequence[str] = ()  # driven ones; none: those of the URDF
    kinds: Mapping[str, str] = field(default_factory=dict)
    gains: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # by name in UNITS


# Joints -----------------------------------------------------------------------------------------


def moving_joints(root: ElementTree.Element) -> dict[str, UrdfJoint]:
    """Returns the joints that turn or slide, and leaves in the tree what MuJoCo reads rightly.

    MuJoCo would take no range where one of two bounds is missing, and the effort as a property of
    the joint, where randomization of actuators does not reach it.

    Raises:
        UserError: a limit is missing or not a range, or a joint mimics what does not move.
    """
    joints = {}
    for element in root.findall("joint"):
        name, kind = element.get("name", ""), element.get("type")
        if kind not in MOVING:
            continue
        if name in joints:
            raise UserError(f"two joints are called {name!r}")
        joints[name] = _joint(name, element)
    for joint in joints.values():
        _check_mimic(joint, joints)
    return joints


def _joint(name: str, element: ElementTree.Element) -> UrdfJoint:
    limit, mimic, kind = element.find("limit"), element.find("mimic"), element.get("type")
    found: dict[str, float] = {}
    for key in ("lower", "upper", "effort", "velocity"):
        text = "0" if limit is None else limit.get(key, "0")
        try:
            found[key] = float(text)
        except ValueError:
            raise UserError(f"joint {name}: limit {key}={text!r} is not a number") from None
    bounds = None
    if kind != "continuous":
        if limit is None:
            raise UserError(
                f"joint {name}: {kind} without <limit>; a joint without end is continuous"
            )
        bounds = (found["lower"], found["upper"])
        if not -math.inf < bounds[0] < bounds[1] < math.inf:
            raise UserError(
                f"joint {name}: limit lower={bounds[0]:g} is not below upper={bounds[1]:g}; a "
                "joint that does not move is fixed"
            )
        limit.attrib.update(lower=repr(bounds[0]), upper=repr(bounds[1]))
    if limit is not None:
        limit.attrib.pop("effort", None)
    largest = (abs(found[key]) for key in ("effort", "velocity"))
    effort, velocity = (value if math.isfinite(value) else 0.0 for value in largest)
    source = "" if mimic is None else mimic.get("joint", "")
    if mimic is not None and not source:
        raise UserError(f"joint {name}: <mimic> without a joint")
    return UrdfJoint(name, kind != "prismatic", bounds, effort, velocity, source)


def _check_mimic(joint: UrdfJoint, joints: Mapping[str, UrdfJoint]) -> None:
    seen, at = {joint.name}, joint
    while at.mimics:
        if at.mimics not in joints:
            raise UserError(
                f"joint {at.name} mimics {at.mimics!r}, which is no moving joint. "
                f"Valid: {listed(joints)}"
            )
        if at.mimics in seen:
            raise UserError(f"joint {joint.name} mimics itself: {listed(sorted(seen))}")
        seen.add(at.mimics)
        at = joints[at.mimics]


# Actuators --------------------------------------------------------------------------------------


def driven_joints(
    root: ElementTree.Element,
    joints: Mapping[str, UrdfJoint],
    drives: Drives,
    notes: list[str],
) -> tuple[list[Driven], str]:
    """Returns the joints with an actuator, in the order of the URDF, and who said which.

    Adds notes on joints that the URDF calls driven although they are not.

    Raises:
        UserError: nothing says how a joint is driven or with which gains, or what is said names
            no joint that can be driven.
    """
    stated, source = _stated(root, joints, drives.joints)
    able = [name for name, joint in joints.items() if not joint.mimics]
    for name in stated:
        if name in able:
            continue
        why = f"mimics {joints[name].mimics}" if name in joints else "is no joint that moves"
        if drives.joints:
            raise UserError(f"{source}: {name!r} {why}. Valid: {listed(able)}")
        notes.append(f"{source} names {name}, which {why}: no actuator")
    chosen = [joints[name] for name in able if name in stated]
    if not chosen:
        choice = (
            f"; --joints may be of {listed(able)}" if able else ", nor does any other joint move"
        )
        raise UserError(f"{source}: no joint to drive{choice}")
    known = [joint.name for joint in chosen]
    _check_names("command", drives.kinds, known)
    kinds = {name: _kind(name, stated[name], drives.kinds) for name in known}
    if drives.kinds.get("", kinds[known[0]]) not in kinds.values():
        raise UserError(
            f"--command {drives.kinds['']}: {source} says one kind for each joint, which "
            "--command JOINT=KIND changes"
        )
    gains = {what: _gains(what, kinds, drives.gains.get(what, {})) for what in UNITS}
    found = [
        Driven(joint, kinds[joint.name], *(gains[what].get(joint.name, 0.0) for what in UNITS))
        for joint in chosen
    ]
    return found, source


def _stated(
    root: ElementTree.Element, joints: Mapping[str, UrdfJoint], asked: Sequence[str]
) -> tuple[dict[str, list[str]], str]:
    """Returns the kinds of command that are stated for each driven joint, and where."""
    control = {
        joint.get("name", ""): _known(each.get("name", "") for each in commands)
        for block in root.findall("ros2_control")
        for joint in block.findall("joint")
        if (commands := joint.findall("command_interface"))
    }
    transmissions = {
        joint.get("name", ""): _known(each.text or "" for each in block.iter("hardwareInterface"))
        for block in root.findall("transmission")
        for joint in block.findall("joint")
    }
    if asked:
        both = transmissions | control
        return {name: both.get(name, []) for name in asked}, "--joints"
    if control:
        return control, "<ros2_control>"
    if transmissions:
        return transmissions, "<transmission>"
    return {name: [] for name, j in joints.items() if not j.mimics}, "all joints that move"


def _known(names: Iterable[str]) -> list[str]:
    """Returns the kinds in names of interfaces, as `hardware_interface/EffortJointInterface`."""
    plain = [name.split("/")[-1].strip().removesuffix("JointInterface").lower() for name in names]
    return [kind for kind in KINDS if kind in plain]


def _kind(name: str, stated: Sequence[str], said: Mapping[str, str]) -> str:
    """Returns how a joint is driven: as said for it, as the URDF says, or as said for all."""
    if name in said:
        return said[name]
    if len(stated) == 1:
        return stated[0]
    if "" in said and (not stated or said[""] in stated):
        return said[""]
    what = f"the URDF has the commands {listed(stated)}" if stated else "no command is stated"
    raise UserError(
        f"joint {name}: {what}; say --command KIND, or --command {name}=KIND. "
        f"Valid: {listed(stated or KINDS)}"
    )


def _gains(what: str, kinds: Mapping[str, str], said: Mapping[str, float]) -> dict[str, float]:
    _check_names(what, said, list(kinds))
    needed = [name for name, kind in kinds.items() if what in GAINS[kind]]
    for name in said:
        if name not in needed and not (name == "" and needed):
            whom = f"joint {name} has {kinds[name]} commands" if name else "no joint needs it"
            raise UserError(f"--{what} {name and name + '='}{said[name]:g}: {whom}")
    for name in needed:
        if name not in said and "" not in said:
            raise UserError(
                f"joint {name}: a servo for {kinds[name]} commands needs a {what}, which a URDF "
                f"does not state; say --{what} NUMBER, or --{what} {name}=NUMBER, in {UNITS[what]}"
            )
    return {name: said.get(name, said.get("", 0.0)) for name in needed}


def _check_names(what: str, said: Mapping[str, object], known: Sequence[str]) -> None:
    for name in said:
        if name and name not in known:
            raise UserError(
                f"--{what} {name}={said[name]}: no driven joint {name!r}. Valid: {listed(known)}"
            )
