"""Checks a bundle against the robot at hand; runs on the robot, without MuJoCo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from itertools import zip_longest
from pathlib import Path

from policies.bundle.bundle import Bundle
from sim.errors import UserError, short
from sim.interface import ActionTerm, ObservationTerm
from sim.interface.bindings import Bindings, bind, read_bindings
from sim.interface.robot_file import read_interface, robot_folder

SHOWN = 100  # characters of a value in an error


class _Missing:
    def __repr__(self) -> str:
        return "missing"


MISSING = _Missing()


def check_agrees(bundle: Bundle, robot: str, bindings: str = "") -> None:
    """Refuse a bundle whose interface is not that of a robot's own robot.yaml.

    A bundle contains its interface, including limits and topics, and a modified bundle can contain
    a modified interface. The robot's own file is an independent reference. Terms of a task family
    may follow the robot's own.

    Args:
        bundle: to be run.
        robot: a shipped robot by name, or a folder with robot.yaml.
        bindings: file with bindings that the bundle was loaded with, which hold for the robot too.

    Raises:
        UserError: no such robot, an invalid robot.yaml, or the first difference.
    """
    path = robot_folder(robot) / "robot.yaml"
    own, carried = read_interface(path), bundle.interface
    where = f"bundle {bundle.manifest.name!r} is not for the robot in {path}"
    for key in ("robot", "control_dt", "physics_dt"):
        _same(f"{where}: {key}", getattr(carried, key), getattr(own, key))
    extra = [term for term in carried.observation if term.mujoco.task]
    if bindings:
        own = bind(own, _of_robot(read_bindings(Path(bindings)), extra), bindings)
    _check(where, [t for t in carried.observation if t not in extra], own.observation)
    _check(where, carried.action, own.action)
    for key in ("computed", "start_pose"):
        _same(f"{where}: {key}", getattr(carried, key), getattr(own, key))
    if carried != own.with_terms(extra):
        raise UserError(f"{where}: the task's observation terms must follow the robot's own terms")


def _of_robot(bindings: Bindings, extra: Sequence[ObservationTerm]) -> Bindings:
    """The bindings without those of a task family's terms, which a robot does not have."""
    names = {term.name for term in extra}
    kept = {name: each for name, each in bindings.observation.items() if name not in names}
    return replace(bindings, observation=kept)


def _check(
    where: str,
    carried: Sequence[ObservationTerm | ActionTerm],
    own: Sequence[ObservationTerm | ActionTerm],
) -> None:
    for one, other in zip_longest(carried, own):
        if one is None or other is None or one.name != other.name:
            _same(
                f"{where}: order of terms",
                *(", ".join(t.name for t in each) for each in (carried, own)),
            )
            continue
        for each in fields(one):
            what = f"{where}: {one.name}.{each.name}"
            _same(what, getattr(one, each.name), getattr(other, each.name))


def _same(what: str, carried: object, own: object) -> None:
    if (found := difference(carried, own)) is not None:
        key, one, other = found
        raise UserError(f"{what}{key} is {_short(one)} in the bundle and {_short(other)} there")


def difference(one: object, other: object) -> tuple[str, object, object] | None:
    """Describes the first difference of two parts of an interface: key and both values."""
    if one == other:
        return None
    if is_dataclass(one) and type(one) is type(other):
        parts = [(f".{f.name}", getattr(one, f.name), getattr(other, f.name)) for f in fields(one)]
    elif isinstance(one, dict) and isinstance(other, dict):
        keys = dict.fromkeys([*one, *other])
        parts = [(f".{k}", one.get(k, MISSING), other.get(k, MISSING)) for k in keys]
    elif isinstance(one, (tuple, list)) and isinstance(other, (tuple, list)):
        pairs = zip_longest(one, other, fillvalue=MISSING)
        parts = [(f"[{i}]", *pair) for i, pair in enumerate(pairs)]
    else:
        return "", one, other
    for key, mine, theirs in parts:
        if (inner := difference(mine, theirs)) is not None:
            return f"{key}{inner[0]}", *inner[1:]
    return "", one, other


def _short(value: object) -> str:
    return short(value, SHOWN)
