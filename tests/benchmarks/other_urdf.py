"""A robot folder from a URDF beside the URDF, and beside somebody else's model of the robot.

    python -m tests.benchmarks.other_urdf FOLDER [FILE.xml]

FOLDER was written by `mlsh new-robot --urdf`. Its model is compared with `robot.urdf` in it, read
without MuJoCo, in five random poses. FILE.xml is an MJCF of the same robot with the same names of
joints, such as one of MuJoCo Menagerie. Distances and angles between the axes of joints, at 0, do
not depend on how the base is turned; they are compared, with masses and ranges.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import mujoco
import numpy as np

from sim.errors import UserError, listed
from sim.interface.robot_file import existing
from sim.physics.model_files import load_spec
from sim.physics.robot_bodies import SCALAR
from sim.robot_setup.import_urdf import URDF
from tests.benchmarks import one_line_errors
from tests.support.urdf import differences

POSES = 5


def joints_of(model: mujoco.MjModel) -> list[str]:
    """The joints that turn or slide."""
    return [model.joint(j).name for j in range(model.njnt) if model.jnt_type[j] in SCALAR]


def places(model: mujoco.MjModel, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Distances between the axes of joints, m, and cosines between them, (J, J), joints at 0.

    Where on its axis a hinge is placed makes no difference to a robot, nor here.
    """
    data = mujoco.MjData(model)
    for j in range(model.njnt):
        if model.jnt_type[j] in SCALAR:
            data.qpos[model.jnt_qposadr[j]] = 0
    mujoco.mj_kinematics(model, data)
    ids = [model.joint(name).id for name in names]
    anchors, axes = data.xanchor[ids], data.xaxis[ids]
    between = anchors[:, None] - anchors[None]
    normal = np.cross(axes[:, None], axes[None])
    length = np.linalg.norm(normal, axis=-1)
    parallel = length < 1e-6
    along = np.abs((between * normal).sum(axis=-1)) / np.where(parallel, 1, length)
    across = np.linalg.norm(np.cross(between, axes[:, None]), axis=-1)
    return np.where(parallel, across, along), axes @ axes.T


def moved_mass(model: mujoco.MjModel, name: str) -> float:
    """Mass that a joint carries, kg."""
    return float(model.body_subtreemass[model.joint(name).bodyid[0]])


def compare(ours: mujoco.MjModel, other: mujoco.MjModel) -> None:
    """Print how far two models of one robot differ."""
    names = [name for name in joints_of(ours) if name in joints_of(other)]
    if not names:
        raise UserError(f"no joint has the same name in both; ours: {listed(joints_of(ours))}")
    ids = [[model.joint(name).id for name in names] for model in (ours, other)]
    (near, turned), (far, theirs) = places(ours, names), places(other, names)
    ranges = np.abs(ours.jnt_range[ids[0]] - other.jnt_range[ids[1]]).max(axis=1)
    masses = [abs(moved_mass(ours, name) - moved_mass(other, name)) for name in names]
    total = [float(model.body_mass.sum()) for model in (ours, other)]
    print(f"joints of both             {len(names)} of {len(joints_of(ours))}")
    print(f"total mass                 {total[0]:.4f} kg, other {total[1]:.4f} kg")
    for what, values, unit in (
        ("mass on a joint", masses, "kg"),
        ("range of a joint", ranges, "rad or m"),
        ("distance between axes", np.abs(near - far).max(axis=1), "m"),
        ("cosine between axes", np.abs(turned - theirs).max(axis=1), ""),
    ):
        worst = int(np.argmax(values))
        print(f"{what:26} differs by {values[worst]:.2g} {unit} at most ({names[worst]})")


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("other", type=Path, nargs="?")
    options = parser.parse_args()
    ours = load_spec(existing(options.folder / "model.xml")).compile()
    urdf = existing(options.folder / URDF)
    found = [differences(urdf, ours, seed) for seed in range(POSES)]
    for what in found[0]:
        print(f"{what:26} differs from the URDF by {max(each[what] for each in found):.2g}")
    if options.other is not None:
        compare(ours, load_spec(existing(options.other)).compile())


if __name__ == "__main__":
    main()
