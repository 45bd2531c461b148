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


def write_family(path: Path, *changes: tuple[str, str]) -> Path:
    """The file of a task family, with replacements."""
    text = FAMILY
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
