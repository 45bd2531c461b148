"""Whether a bundle is for the robot that is here; runs on the robot, without MuJoCo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from itertools import zip_longest

from policies.bundle import Bundle
from sim.errors import UserError
from sim.interface import ActionTerm, ObservationTerm
from sim.robot_file import read_interface, robot_folder

SHOWN = 100  # characters of a value in an error


def check_agrees(bundle: Bundle, robot: str) -> None:
    """Refuse a bundle whose interface is not that of a robot's own robot.yaml.

    A bundle carries its interface, limits and topics included, and whoever can write a bundle can
    write another one into it. The robot's own file is a second witness. Terms of a task family
    may follow the robot's own.

    Args:
        bundle: to be run.
        robot: a shipped robot by name, or a folder with robot.yaml.

    Raises:
        UserError: no such robot, a robot.yaml that does not hold, or the first difference.
    """
    path = robot_folder(robot) / "robot.yaml"
    own, carried = read_interface(path), bundle.interface
    where = f"bundle {bundle.manifest.name!r} is not for the robot in {path}"
    for key in ("robot", "control_dt", "physics_dt"):
        _same(f"{where}: {key}", getattr(carried, key), getattr(own, key))
    extra = [term for term in carried.observation if term.mujoco.task]
    _check(where, [t for t in carried.observation if t not in extra], own.observation)
    _check(where, carried.action, own.action)
    if carried != own.with_terms(extra):
        raise UserError(f"{where}: its task's terms do not stand behind the robot's own")


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
    if carried != own:
        raise UserError(f"{what} is {_short(carried)} in the bundle and {_short(own)} there")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
