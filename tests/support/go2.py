"""A velocity policy that others trained, on the robot `go2`: a plain loop, no runtime."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime as ort
import yaml
from numpy.typing import NDArray

from policies.skill_import.importer import import_skills
from sim.envs.world import World
from sim.interface import Floats, Interface
from sim.interface.memory import ObservationMemory
from sim.physics.robot_model import Robot, load_robot
from sim.randomization.schema import SimParams
from sim.seeding import episode_rng
from sim.tasks.base import TaskFamily
from sim.tasks.registry import make_family

POLICY = Path(__file__).parent / "foreign_policies/go2_velocity_robot_lab.onnx"
# Its published configuration.
LEGS = ("FR", "FL", "RR", "RL")
JOINTS = tuple(f"{leg}_{part}_joint" for leg in LEGS for part in ("hip", "thigh", "calf"))
DEFAULT = np.tile([0.0, 0.8, -1.5], 4)  # rad
SCALE = np.tile([0.125, 0.25, 0.25], 4)  # rad per unit of the output
KP, KD, TORQUE = 20.0, 0.5, 23.5  # N m/rad, N m s/rad, N m
CONTROL_DT, PHYSICS_DT = 0.02, 0.005  # s

# Command (vx, vy, wz) in m/s and rad/s, with what another model of a Go2 did in 10 s of MuJoCo
# under this policy: the mean over the last 8 s, and the height of the base, m.
MEASURED = {
    (0.8, 0.0, 0.0): (0.79, -0.07, 0.11, 0.33),
    (0.0, 0.0, 1.0): (0.07, 0.05, 1.00, 0.28),
    (0.0, 0.0, -1.0): (0.03, -0.06, -1.00, 0.29),
    (-0.5, 0.0, 0.0): (-0.40, 0.02, 0.18, 0.30),
    (0.0, 0.4, 0.0): (0.02, 0.33, 0.25, 0.31),
    (0.0, -0.4, 0.0): (0.05, -0.26, 0.01, 0.31),
    (0.0, 0.0, 0.0): (0.00, 0.00, 0.15, 0.33),
}
FALLEN = 1.0  # rad from upright


@cache
def session() -> ort.InferenceSession:
    """The policy in onnxruntime, on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(POLICY), options, providers=["CPUExecutionProvider"])


def infer(given: Floats) -> Floats:
    """Outputs (n, 12) for inputs (n, 45), one row at a time, as on a robot."""
    rows = given.astype(np.float32)
    return np.concatenate([session().run(None, {"obs": row[None]})[0] for row in rows]).astype(
        np.float64
    )


Command = tuple[float, float, float]  # vx, vy in m/s in the base's frame, wz in rad/s


def inputs(interface: Interface, seen: NDArray[np.float32], command: Command | Floats) -> Floats:
    """The policy's inputs (n, 45) from observations (n, O) and a command for all, or (n, 3)."""
    part = {name: seen[:, at] for name, at in interface.observation_slices.items()}
    columns = [
        part["angular_velocity"],
        part["projected_gravity"],
        np.broadcast_to(command, (len(seen), 3)),
        part["joint_position"] - DEFAULT,
        part["joint_velocity"],
        part["previous_action"],
    ]
    return np.concatenate(columns, axis=1)


@dataclass(frozen=True)
class Walk:
    """What n robots did under one command."""

    velocity: Floats  # (n, 3) vx, vy in the base's frame, m/s, and wz, rad/s; means after `skip`
    height: Floats  # (n,) of the base, m; mean after `skip`
    fell: NDArray[np.bool_]  # (n,)
    targets: Floats  # (ticks, n, 12) what the policy asked for, rad
    commands: Floats  # (ticks, n, 12) what was commanded under limits and rate limit, rad
    torque: float  # N m, the largest of any servo at the end of a tick


class Walker:
    """n robots `go2` under the policy, through the interface's `observe` and `command`."""

    def __init__(
        self,
        size: int,
        seconds: float,
        sim_params: SimParams | None = None,
        domain_randomization: SimParams | None = None,
        robot: Robot | None = None,
        family: TaskFamily | None = None,
    ) -> None:
        ticks = round(seconds / CONTROL_DT)
        self.world = World(
            robot or load_robot("go2"),
            family or make_family("ant_movement", {"ticks": ticks + 1, "heading": np.pi}),
            size,
            sim_params=sim_params,
            domain_randomization=domain_randomization,
        )
        self.interface: Interface = self.world.interface
        self.memory = ObservationMemory(self.interface, (size,))
        self._force = self.world.physics.batch.bind("actuator_force")
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Begin anew, each robot from a start of its own."""
        size = self.world.size
        rngs = [episode_rng(seed, n) for n in range(size)]
        self.world.reset(np.arange(size, dtype=np.int32), [0] * size, rngs)
        self.memory.reset()
        self._measure(self.world.true_state())

    def _measure(self, fields: dict[str, Floats]) -> None:
        self.fields = self.world.measurements(fields)

    def action(self, command: Command | Floats) -> Floats:
        """The policy's output (n, 12) for what the robots measure now, see `inputs`."""
        seen = self.interface.observe(self.fields, memory=self.memory)
        output = infer(inputs(self.interface, seen, command))
        self.memory.remember(seen, output)
        return output

    def step(self, action: Floats) -> None:
        """One tick under an action (n, 12)."""
        self._measure(self.world.step(action)[0])

    def stop(self) -> None:
        """One tick nearer to the safe command."""
        self._measure(self.world.step_command(self.interface.brake(self.world.command))[0])

    @property
    def lean(self) -> Floats:
        """(n,) rad from upright."""
        x, y = self.world.physics.batch.qpos[:, 4:6].T
        return np.arccos(np.clip(1 - 2 * (x * x + y * y), -1, 1))

    @property
    def twist(self) -> Floats:
        """(n, 3) vx, vy and wz in the base's frame."""
        w, x, y, z = self.world.physics.batch.qpos[:, 3:7].T
        speed = self.world.physics.batch.qvel
        ahead = np.stack([1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)])
        left = np.stack([2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)])
        flat = [np.einsum("kn,nk->n", axis, speed[:, :3]) for axis in (ahead, left)]
        return np.stack([*flat, speed[:, 5]], axis=-1)

    def walk(self, command: Command, seconds: float, skip: float = 2.0) -> Walk:
        """Walk under a command; the first `skip` seconds do not count into the means."""
        twists, heights, targets, commands = [], [], [], []
        fell, torque = np.zeros(self.world.size, bool), 0.0
        for _ in range(round(seconds / CONTROL_DT)):
            output = self.action(command)
            self.step(output)
            targets.append(DEFAULT + SCALE * output)
            commands.append(self.world.command.copy())
            twists.append(self.twist)
            heights.append(self.world.physics.pose[:, 2])
            fell |= self.lean > FALLEN
            torque = max(torque, float(np.abs(self._force).max()))
        begun = round(skip / CONTROL_DT)
        return Walk(
            np.mean(twists[begun:], axis=0),
            np.mean(heights[begun:], axis=0),
            fell,
            np.array(targets),
            np.array(commands),
            torque,
        )


def import_ahead(folder: Path, change=lambda data: None, **given):
    """Import the policy with one skill into `folder/bundle`.

    Args:
        folder: of the description.
        change: called with the description, as a mapping.
        given: for `import_skills`, beside what it needs.
    """
    data = yaml.safe_load(POLICY.with_name("go2_velocity.yaml").read_text())
    data |= {"policy": str(POLICY), "skills": {"ahead": data["skills"]["ahead"]}}
    change(data)
    (folder / "go2.yaml").write_text(yaml.safe_dump(data))
    return import_skills(
        [folder / "go2.yaml"],
        "go2",
        "two_targets",
        folder / "bundle",
        name="go2",
        decision_ticks=25,
        decision_lead=1,
        facts={"command": "test", "versions": {}, "commit": None},
        **given,
    )
