"""`Robot`: a folder with robot.yaml and an MJCF model, shipped or anywhere on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import mujoco

from sim.errors import UserError
from sim.interface import Interface
from sim.interface.mirror import Mirror
from sim.interface.robot_file import ROBOTS, existing, read_robot_file, robot_folder, robot_names
from sim.physics.mjcf_addresses import check_addresses
from sim.physics.model_files import load_spec
from sim.physics.name_agreement import disagreements
from sim.physics.signals import Signal
from sim.physics.simulation_only import simulation_only

__all__ = ["ROBOTS", "Robot", "load_robot", "robot_folder", "robot_names"]


@dataclass(frozen=True)
class Robot:
    """A robot's interface and its MuJoCo model."""

    interface: Interface
    model_path: Path
    signals: tuple[Signal, ...] = ()  # that a training may show to value functions
    mirror: Mirror | None = field(default=None, compare=False)  # left and right exchanged

    @property
    def name(self) -> str:
        """The name in robot.yaml."""
        return self.interface.robot

    def add_signals(self, spec: mujoco.MjSpec) -> None:
        """Add the sensors of the robot's own signals to a model.

        Raises:
            UserError: the model lacks a part that one of them names.
        """
        for signal in self.signals:
            signal.add_to(spec, f"robot {self.name!r}")

    def compile(self, scene: Callable[[mujoco.MjSpec], None] | None = None) -> mujoco.MjModel:
        """The MuJoCo model, with a task family's scene added.

        Raises:
            UserError: the model does not load, its timestep is not the interface's, it lacks
                a joint, sensor or actuator of the interface, or a term of the interface refers
                to another joint, axis or unit in ROS than in the model.
        """
        try:
            spec = load_spec(self.model_path)
            if scene is not None:
                scene(spec)
            model = spec.compile()
        except UserError:
            raise
        except ValueError as error:
            raise UserError(f"{self.model_path}: {' '.join(str(error).split())}") from None
        if abs(model.opt.timestep - self.interface.physics_dt) > 1e-12:
            raise UserError(
                f"{self.model_path}: timestep {model.opt.timestep} s is not robot.yaml's "
                f"physics_dt {self.interface.physics_dt} s"
            )
        try:
            check_addresses(model, self.interface)
        except UserError as error:
            raise UserError(f"{self.model_path.with_name('robot.yaml')}: {error}") from None
        if wrong := disagreements(model, self.interface):
            raise UserError(f"{self.model_path.with_name('robot.yaml')}: {wrong[0]}")
        return model


def load_robot(name: str) -> Robot:
    """Load a shipped robot by name, or a robot folder by path.

    Raises:
        UserError: no such robot, a missing file, or an invalid robot.yaml; one line.
    """
    folder = robot_folder(name)
    file = folder / "robot.yaml"
    interface, only = read_robot_file(file)
    model = existing(folder / "model.xml")
    more = simulation_only(only, file)
    return Robot(interface, model, more.signals, more.mirror)
