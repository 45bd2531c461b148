"""A robot is data: robots/<name>/robot.yaml and model.xml, here or anywhere on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco

from sim.addresses import check_names
from sim.errors import UserError, unknown
from sim.interface import Interface, interface_from_dict
from sim.yaml_file import read_mapping

ROBOTS = Path(__file__).parent / "robots"
SCHEMA = 1


@dataclass(frozen=True)
class Robot:
    """A robot's interface and the model it moves in."""

    interface: Interface
    model_path: Path

    @property
    def name(self) -> str:
        """The name in robot.yaml."""
        return self.interface.robot

    def compile(self, scene: Callable[[mujoco.MjSpec], None] | None = None) -> mujoco.MjModel:
        """The MuJoCo model, with a task family's scene added.

        Raises:
            UserError: the model does not load, its timestep is not the interface's, or it lacks
                a joint, sensor or actuator that the interface names.
        """
        try:
            spec = mujoco.MjSpec.from_file(str(self.model_path))
            if scene is not None:
                scene(spec)
            model = spec.compile()
        except ValueError as error:
            raise UserError(f"{self.model_path}: {' '.join(str(error).split())}") from None
        if abs(model.opt.timestep - self.interface.physics_dt) > 1e-12:
            raise UserError(
                f"{self.model_path}: timestep {model.opt.timestep} s is not robot.yaml's "
                f"physics_dt {self.interface.physics_dt} s"
            )
        try:
            check_names(model, self.interface)
        except UserError as error:
            raise UserError(f"{self.model_path.with_name('robot.yaml')}: {error}") from None
        return model


def robot_names() -> list[str]:
    """The robots that ship with the package."""
    return sorted(path.parent.name for path in ROBOTS.glob("*/robot.yaml"))


def load_robot(name: str) -> Robot:
    """A shipped robot by name, or a robot folder by path.

    Raises:
        UserError: no such robot, a missing file, or a robot.yaml that does not hold; one line.
    """
    folder = robot_folder(name)
    return Robot(read_interface(folder / "robot.yaml"), _existing(folder / "model.xml"))


def robot_folder(name: str) -> Path:
    """Where a robot stands: a shipped one by name, or any folder by path.

    Raises:
        UserError: no such folder.
    """
    folder = ROBOTS / name if name in robot_names() else Path(name)
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
    data = read_mapping(_existing(path))
    schema = data.pop("schema", None)
    if schema != SCHEMA:
        raise UserError(f"{path}: schema {schema!r} is not known. Valid: {SCHEMA}")
    return data


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise UserError(
            f"{path} does not exist; a robot is a folder with robot.yaml and model.xml"
        )
    return path
