"""robot.yaml: where robots stand and what their files say; needs no MuJoCo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sim.errors import UserError, short, unknown
from sim.files.lookup import find
from sim.files.strict_yaml import read_mapping
from sim.interface import Interface, interface_from_dict

ROBOTS = Path(__file__).parents[1] / "robots"
SCHEMA = 1


def robot_names() -> list[str]:
    """The robots that ship with the package."""
    return sorted(path.parent.name for path in ROBOTS.glob("*/robot.yaml"))


def robot_folder(name: str) -> Path:
    """Where a robot stands: a shipped one by name, or any folder by path.

    Raises:
        UserError: no such folder, or a name that stands for two.
    """
    shipped = {each: ROBOTS / each for each in robot_names()}
    folder = find("robot", name, shipped, "; or the path of a folder")
    if not folder.is_dir():
        raise unknown("robot", name, robot_names())
    return folder


def read_interface(path: Path) -> Interface:
    """The interface that a robot.yaml describes.

    Raises:
        UserError: the file is missing, is no YAML mapping, has another schema, or does not hold.
    """
    interface = interface_from_dict(read_data(path), str(path))
    if hidden := [term.name for term in interface.observation if term.mujoco.task]:
        raise UserError(
            f"{path}: observation term {hidden[0]!r}: mujoco.task is for terms of a task family; "
            "a robot's own are in qpos, qvel or a sensor"
        )
    return interface


def read_data(path: Path) -> dict[str, Any]:
    """What stands in a robot.yaml, its schema checked and taken off.

    Raises:
        UserError: the file is missing, is no YAML mapping, or has another schema.
    """
    data = read_mapping(existing(path))
    schema = data.pop("schema", None)
    if schema != SCHEMA:
        raise UserError(f"{path}: schema {short(schema)} is not known. Valid: {SCHEMA}")
    return data


def existing(path: Path) -> Path:
    """A file of a robot, which is there.

    Raises:
        UserError: it is not.
    """
    if not path.is_file():
        raise UserError(
            f"{path} does not exist; a robot is a folder with robot.yaml and model.xml"
        )
    return path
