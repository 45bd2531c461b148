"""Robots and tasks of the training bench: gymnasium's half-cheetah and ant, two directions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import gymnasium
import mujoco
import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass as checked

from policies.mlsh.config import TrainConfig
from policies.mlsh.mlsh import Mlsh
from policies.mlsh.presets import default_config
from sim.envs.reference_returns import ReferenceReturns
from sim.files.migrations import SCHEMA
from sim.interface import STRICT, Floats, ObservationTerm, element_path
from sim.tasks.base import EpisodeState, Fields
from sim.tasks.parameter_types import Count
from sim.tasks.registry import add_family

ASSETS = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
ENVS, GROUPS, TICKS = 16, 8, 200


@dataclass(frozen=True)
class Runner:
    """A robot of gymnasium's; the base is seen but for where it stands."""

    name: str
    joints: tuple[str, ...]  # the driven ones, in the order of the actuators
    base_position: tuple[str, ...]
    base_velocity: tuple[str, ...]  # the first one is ahead
    timestep: float  # s
    control_dt: float  # s
    gym: str  # gymnasium's own environment

    def write(self, folder: Path) -> str:
        """A robot folder; returns its path."""
        spec = mujoco.MjSpec.from_file(str(ASSETS / f"{self.name}.xml"))
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_EULER
        for joint, motor in zip(self.joints, spec.actuators, strict=True):
            motor.name = joint
        spec.compile()
        path = folder / self.name
        path.mkdir()
        (path / "model.xml").write_text(spec.to_xml())
        (path / "robot.yaml").write_text(yaml.safe_dump(self._interface()))
        return str(path)

    def _interface(self) -> dict[str, object]:
        sources = {
            "speed": ("qvel", "m/s", self.base_velocity[:1]),
            "base": ("qpos", "m and angles", self.base_position),
            "base_velocity": ("qvel", "m/s and rad/s", self.base_velocity),
            "joints": ("qpos", "rad", self.joints),
            "joint_velocity": ("qvel", "rad/s", self.joints),
        }

        def ros(topic: str, array: str, names: tuple[str, ...]) -> dict[str, object]:
            fields = [element_path(array, name) for name in names]
            kind = "sensor_msgs/msg/JointState"
            return {"topic": topic, "type": kind, "fields": fields, "required_values": {}}

        shown = {
            "frame": "base_link",
            "scale": 1.0,
            "clip": None,
            "noise": 0.0,
            "max_age": 1.0,
            "limit": None,
            "inf_values": None,
        }
        driven = {
            "name": "torque",
            "size": len(self.joints),
            "unit": "1",
            "frame": "base_link",
            "scale": 1.0,
            "offset": 0.0,
            "limit": [-1.0, 1.0],
            "smoothing_time": 0.0,
            "rate_limit": 1000.0,
            "tracking": None,
            "safe_command": [0.0] * len(self.joints),
            "mujoco": {"actuators": list(self.joints)},
            "ros": ros("command", "effort", self.joints),
        }
        return {
            "schema": SCHEMA,
            "robot": self.name,
            "control_dt": self.control_dt,
            "physics_dt": self.timestep,
            "observation": [
                {
                    "name": name,
                    "size": len(names),
                    "unit": unit,
                    "mujoco": {kind: list(names)},
                    "ros": ros(name, {"qpos": "position", "qvel": "velocity"}[kind], names),
                    **shown,
                }
                for name, (kind, unit, names) in sources.items()
            ],
            "action": [driven],
        }


RUNNERS = (
    Runner(
        name="half_cheetah",
        joints=("bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot"),
        base_position=("rootz", "rooty"),
        base_velocity=("rootx", "rootz", "rooty"),
        timestep=0.01,
        control_dt=0.05,
        gym="HalfCheetah-v5",
    ),
    Runner(
        name="ant",
        # In the order of gymnasium's actuators.
        joints=tuple(f"{part}_{i}" for i in (4, 1, 2, 3) for part in ("hip", "ankle")),
        base_position=tuple(f"root[{i}]" for i in range(2, 7)),
        base_velocity=tuple(f"root[{i}]" for i in range(6)),
        timestep=0.01,
        control_dt=0.05,
        gym="Ant-v5",
    ),
)


@checked(frozen=True, config=STRICT)
class Directions:
    """Ahead or back, at so many m/s: what a tick pays."""

    name: ClassVar[str] = "directions"
    robot: ClassVar[str] = "half_cheetah"
    requires: ClassVar[tuple[str, ...]] = ("speed",)
    places: ClassVar[bool] = False
    tasks: ClassVar[tuple[str, ...]] = ("ahead", "back")
    terms: ClassVar[tuple[ObservationTerm, ...]] = ()

    ticks: Count = 1000

    def scene(self, spec: mujoco.MjSpec) -> None:
        """Nothing but the floor."""

    def place(self, layout: EpisodeState) -> dict[str, Floats]:
        """Nothing."""
        return {}

    def reset(self, task: int, rng: np.random.Generator) -> dict[str, Floats]:
        """The direction."""
        return {"sign": np.float64(1 - 2 * task)}

    def fields(self, layout: EpisodeState, robot: Fields) -> dict[str, Floats]:
        """None."""
        return {}

    def reward(self, layout: EpisodeState, fields: Fields) -> Floats:
        """Speed in the direction of the task."""
        return np.asarray(layout["sign"] * fields["speed"][:, 0])

    def success(self, layout: EpisodeState, fields: Fields) -> NDArray[np.bool_]:
        """Never judged."""
        return np.zeros(len(fields["speed"]), bool)

    def terminated(self, layout: EpisodeState, fields: Fields) -> NDArray[np.bool_]:
        """Never."""
        return np.zeros(len(fields["speed"]), bool)

    def expert_target(self, layout: EpisodeState, fields: Fields) -> Floats:
        """Nobody knows."""
        raise NotImplementedError

    def task_blind_target(self, layout: EpisodeState, fields: Fields) -> Floats:
        """Nobody knows."""
        raise NotImplementedError


add_family(Directions)


class RunnerMlsh(Mlsh):
    """The learner, where no optimum is known."""

    reference_returns = [ReferenceReturns(0.0, 0.0, 1000.0)] * len(Directions.tasks)


def config(robot: str, settings: list[str]) -> TrainConfig:
    """The default recipe in the sizes of the bench."""
    sizes = [f"mlsh.envs={ENVS}", f"mlsh.groups={GROUPS}", f"mlsh.rollout_ticks={TICKS}"]
    return default_config(Directions.name, robot).with_values([*sizes, *settings])
