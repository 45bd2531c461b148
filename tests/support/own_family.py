"""A task family and packages of a user's own, written where a test wants them."""

from __future__ import annotations

from pathlib import Path

from sim.physics.robot_model import ROBOTS

FAMILY = '''"""Stay near the start."""

from typing import ClassVar

import numpy as np
from pydantic.dataclasses import dataclass

from sim.interface import STRICT


@dataclass(frozen=True, config=STRICT)
class Stay:
    name: ClassVar[str] = "stay"
    robot: ClassVar[str] = "omni"
    requires: ClassVar[tuple[str, ...]] = ("position",)
    places: ClassVar[bool] = False
    tasks: ClassVar[tuple[str, ...]] = ("left", "right")
    terms: ClassVar[tuple] = ()
    recommended: ClassVar[dict] = {"mlsh.envs": 8, "network.hidden_from_skills": ["position"]}

    ticks: int = 20

    def scene(self, spec):
        pass

    def place(self, layout):
        return {}

    def reset(self, task, rng):
        return {"sign": np.float64(2 * task - 1)}

    def fields(self, layout, robot):
        return {}

    def reward(self, layout, fields):
        return layout["sign"] * fields["position"][:, 0]

    def success(self, layout, fields):
        return self.reward(layout, fields) > 0

    def terminated(self, layout, fields):
        return np.zeros(len(layout["sign"]), bool)

    def estimate(self, task, dt):
        return 0.0, self.ticks * 0.3
'''

# One with all that a family may have.
WHOLE_FAMILY = '''"""Go to a goal, and stay as near to it as the robot has ever been."""

from typing import ClassVar

import numpy as np
from pydantic.dataclasses import dataclass

from sim.interface import STRICT
from sim.physics.signals import Signal
from sim.tasks.goals import family_term
from sim.tasks.scenery import GOAL_COLOR, add_disc


@dataclass(frozen=True, config=STRICT)
class Approach:
    name: ClassVar[str] = "approach"
    robot: ClassVar[str] = "omni"
    requires: ClassVar[tuple[str, ...]] = ("position",)
    places: ClassVar[bool] = True
    tasks: ClassVar[tuple[str, ...]] = ("near", "far")
    solid: ClassVar[bool] = True
    shake: ClassVar[float] = 0.0
    pose_reset: ClassVar[int] = 7
    signals: ClassVar[tuple] = (
        Signal(name="where", quantity="position", of="body", names=("base_link",)),
    )

    ticks: int = 20
    radius: float = 0.2

    @property
    def terms(self):
        fields = ("poses[0].position.x", "poses[0].position.y")
        return (family_term("goal", "m", "odom", "geometry_msgs/msg/PoseArray", fields),)

    def scene(self, spec):
        add_disc(spec, "goal", self.radius, GOAL_COLOR)

    def place(self, layout):
        return {"goal": layout["goal"]}

    def reset(self, task, rng):
        goal = rng.uniform(0.5, 1.0, 2) * (1 + task)
        return {"goal": goal, "start": np.zeros(3), "nearest": np.float64(9)}

    def fields(self, layout, robot):
        return {"goal": layout["goal"] - robot["position"]}

    def away(self, layout, fields):
        return np.linalg.norm(fields["position"] - layout["goal"], axis=1)

    def advance(self, layout, fields, dt):
        return {"nearest": np.minimum(layout["nearest"], self.away(layout, fields))}

    def reward(self, layout, fields):
        return -layout["nearest"]

    def cost(self, action):
        return 0.01 * (action**2).sum(axis=1)

    def success(self, layout, fields):
        return self.away(layout, fields) < self.radius

    def terminated(self, layout, fields):
        return fields["where"][:, 2] < -1.0

    def target(self, layout):
        return layout["goal"]

    def expert_target(self, layout, fields):
        return layout["goal"] + 0.0

    def task_blind_target(self, layout, fields):
        return np.zeros_like(layout["goal"])
'''


def write_family(path: Path, *changes: tuple[str, str], text: str = FAMILY) -> Path:
    """The file of a task family, with replacements."""
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def write_package(folder: Path, package: str, entry_points: dict[str, str]) -> Path:
    """An installed package, as pip leaves it: entry points by `group name`, no modules yet."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = []
    for key, value in entry_points.items():
        group, name = key.split()
        lines.append(f"[{group}]\n{name} = {value}\n")
    (info / "entry_points.txt").write_text("\n".join(lines))
    return folder


def write_robot(folder: Path, name: str) -> Path:
    """The robot omni under another name."""
    folder.mkdir(parents=True)
    text = (ROBOTS / "omni" / "robot.yaml").read_text()
    assert "\nrobot: omni\n" in text
    (folder / "robot.yaml").write_text(text.replace("\nrobot: omni\n", f"\nrobot: {name}\n"))
    (folder / "model.xml").write_text((ROBOTS / "omni" / "model.xml").read_text())
    return folder
