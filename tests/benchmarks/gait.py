"""Tracking, falls and gait of skills under velocity commands: docs/results/velocity_commands.md.

    python -m tests.benchmarks.gait RUN [--robots 64] [--seconds 20] [--randomized]
    python -m tests.benchmarks.gait RUN --set slope=0.3 --set step=0.08 --set bumps=0.05
    python -m tests.benchmarks.gait RUN --model FILE.xml
    python -m tests.benchmarks.gait RUN --sim-params harsh
    python -m tests.benchmarks.gait go2_walk

RUN is a run folder of `velocity_commands`, or a bundle of skills for the Go2. Every skill walks
under every command without exploration, and for each command the best one is shown. Means are from
1 s on. `noise` is the return of the same skill with the exploration of its training. `--set`
changes a parameter of the family. FILE.xml is another MJCF of a Go2, see
`tests.benchmarks.other_go2`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass as checked

from policies.bundle.bundle import load_bundle
from policies.bundle.runtime import load_skills
from policies.mlsh.actor_critic import Agent
from policies.mlsh.mlsh import Mlsh
from policies.training.run import Run
from sim.envs.world import World
from sim.errors import UserError, unknown
from sim.files.arrays import load_arrays
from sim.interface import STRICT, Floats, ObservationMemory, ObservationTerm
from sim.physics.robot_model import Robot, load_robot
from sim.physics.signals import Signal
from sim.randomization.schema import load_sim_params, read_ranges
from sim.seeding import Stream, generator
from sim.tasks.registry import make_family
from sim.tasks.rewards.motion import length, on_ground
from sim.tasks.rewards.parts import RobotParts, signal_for
from sim.tasks.velocity_commands import VelocityCommands
from sim.tasks.walking_goals import goals_from_base
from tests.benchmarks import one_line_errors
from tests.benchmarks.other_go2 import adopt

READ = ("foot_position", "foot_velocity", "foot_force", "joint_velocity", "joint_torque")
PARTS = RobotParts(load_robot("go2"))
SATURATED = 0.99  # of the torque limit
Policy = Callable[[NDArray[np.float32], int, Floats | None], Floats]  # observation, skill, noise
HEAD = (
    "| command | skill | return | noise | ahead, left, turn | error | mean of error | solved | "
    "falls | clearance | duty | steps/s | slip | action rate | saturated | power |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)


@checked(frozen=True, config=STRICT)
class Measured(VelocityCommands):
    """Velocity commands with the signals that a gait is measured by, for the Go2."""

    signals: ClassVar[tuple[Signal, ...]] = (
        *VelocityCommands.signals,
        *(replace(signal_for(PARTS, need, "gait"), name=f"gait.{need}") for need in READ),
    )


@checked(frozen=True, config=STRICT)
class BesideGoals(Measured):
    """The same with two goals in the observation, which imported skills do not use."""

    @property
    def terms(self) -> tuple[ObservationTerm, ...]:
        """The goals of `two_targets`."""
        return (goals_from_base(2),)

    def fields(self, layout: dict[str, Floats], robot: Any) -> dict[str, Floats]:
        """Goals at the robot."""
        return {"goals": np.zeros((len(layout["elapsed"]), 4))}


@dataclass(frozen=True)
class Gait:
    """Results of n robots with one skill under one command, over the ticks that are judged."""

    returns: float
    velocity: Floats  # (3,) mean
    error: tuple[float, float]  # of the mean velocity: m/s, rad/s; mean over the robots
    errors: tuple[float, float]  # mean of the error of every tick: m/s, rad/s
    solved: float  # part of the robots: the mean velocity within the tolerances, and no fall
    falls: int
    clearance: float  # m, mean highest point of a swing above the lowest of the same foot
    duty: float  # part of the time on the ground
    steps: float  # Hz, landings of each foot
    slip: float  # m/s, of feet on the ground
    rate: float  # of an action's element from tick to tick, root of the mean square
    saturated: float  # part of the servos' ticks at the torque limit
    power: float  # W, mechanical

    def row(self, name: str, skill: str, noise: str) -> str:
        """A row of the table."""
        ahead, left, turn = self.velocity
        cells = [
            f"`{name}`",
            skill,
            f"{self.returns:.0f}",
            noise,
            f"{ahead:.2f}, {left:.2f}, {turn:.2f}",
            f"{self.error[0]:.3f}, {self.error[1]:.3f}",
            f"{self.errors[0]:.3f}, {self.errors[1]:.3f}",
            f"{self.solved:.0%}",
            f"{self.falls}",
            f"{100 * self.clearance:.1f} cm",
            f"{self.duty:.2f}",
            f"{self.steps:.1f}",
            f"{self.slip:.2f}",
            f"{self.rate:.2f}",
            f"{self.saturated:.1%}",
            f"{self.power:.0f} W",
        ]
        return f"| {' | '.join(cells)} |"


class Course:
    """n robots under commands.

    Args:
        robot: the Go2.
        family: with the signals of `READ`.
        size: n.
        randomized: each episode draws from the robot's ranges.
        sim_params: sim parameters by name or file; empty: none.
    """

    def __init__(
        self,
        robot: Robot,
        family: VelocityCommands,
        size: int,
        *,
        randomized: bool = False,
        sim_params: str = "",
    ) -> None:
        around = load_sim_params(sim_params, robot) if sim_params else None
        ranges = read_ranges(robot) if randomized else None
        self.world = World(robot, family, size, sim_params=around, domain_randomization=ranges)
        self.family, self.interface = family, self.world.interface
        self._limit = 23.5  # N m, of the Go2's servos

    def walk(self, policy: Policy, skill: int, task: int, noise: bool = False) -> Gait:
        """An episode of every robot with one skill under the command of one task."""
        world, size, dt = self.world, self.world.size, self.interface.control_dt
        memory = ObservationMemory(self.interface, (size,))
        rngs = [generator(0, Stream.EPISODE, 0, n) for n in range(size)]
        drawn = generator(0, Stream.ACTIONS, 0, task)
        world.reset(np.arange(size, dtype=np.int32), [task] * size, rngs)
        fields, up, returns = world.true_state(), np.ones(size, bool), np.zeros(size)
        told = self.family.full(task)
        before, rows = self.interface.action_for(world.command), []
        fell, begin = np.zeros(size, bool), round(self.family.settling / dt)
        for tick in range(self.family.ticks):
            seen = self.interface.observe(world.measurements(fields), memory=memory)
            sample = drawn.standard_normal(before.shape) if noise else None
            action = policy(seen, skill, sample)
            memory.remember(seen, action)
            error = world.layout["error"].copy()
            fields, outcome = world.step(action.astype(np.float32))
            returns += np.where(up, outcome.reward, 0)
            executed = self.interface.action_for(world.command)
            change, before = executed - before, executed
            fell |= up & outcome.terminated
            up &= ~fell
            if tick >= begin:
                rows.append(self._measure(fields, change, world.layout["error"] - error, up))
        return self._gait(rows, returns, told, fell, dt)

    def _measure(
        self, fields: dict[str, Floats], change: Floats, error: Floats, up: NDArray[np.bool_]
    ) -> dict[str, Floats]:
        size = len(up)
        feet = {n: fields[f"gait.{n}"].reshape(size, -1, 3) for n in READ[:3]}
        torque = fields["gait.joint_torque"]
        return {
            "up": up.copy(),
            "error": error,
            "contact": on_ground(feet["foot_force"]),
            "height": feet["foot_position"][..., 2],
            "slip": np.hypot(feet["foot_velocity"][..., 0], feet["foot_velocity"][..., 1]),
            "load": length(feet["foot_force"]),
            "change": change,
            "saturated": np.abs(torque) > SATURATED * self._limit,
            "power": np.abs(torque * fields["gait.joint_velocity"]).sum(axis=1),
        }

    def _gait(
        self,
        rows: list[dict[str, Floats]],
        returns: Floats,
        told: Floats,
        fell: NDArray[np.bool_],
        dt: float,
    ) -> Gait:
        of = {name: np.array([row[name] for row in rows]) for name in rows[0]}  # (ticks, n, ..)
        up = of["up"].astype(bool)
        judged = np.maximum(up.sum(axis=0), 1)
        error = np.where(up[..., None], of["error"], 0.0)
        mean = error.sum(axis=0) / judged[:, None]  # (n, 3)
        near = np.hypot(mean[:, 0], mean[:, 1]) < self.family.speed_tolerance
        near &= np.abs(mean[:, 2]) < self.family.turn_tolerance
        contact = of["contact"].astype(bool)
        landed = contact[1:] & ~contact[:-1] & up[1:, :, None]
        feet = contact.shape[2]
        return Gait(
            returns=float(returns.mean()),
            velocity=told + mean.mean(axis=0),
            error=(
                float(np.hypot(mean[:, 0], mean[:, 1]).mean()),
                float(np.abs(mean[:, 2]).mean()),
            ),
            errors=(
                float(np.hypot(error[..., 0], error[..., 1])[up].mean()),
                float(np.abs(error[..., 2])[up].mean()),
            ),
            solved=float((near & ~fell).mean()),
            falls=int(fell.sum()),
            clearance=_clearance(of["height"], contact, up),
            duty=float(contact[up].mean()),
            steps=float(landed.sum() / (up[1:].sum() * feet * dt)),
            slip=float(of["slip"][contact & up[..., None]].mean()),
            rate=float(np.sqrt((of["change"][up] ** 2).mean())),
            saturated=float(of["saturated"][up].mean()),
            power=float(of["power"][up].mean()),
        )


def _clearance(height: Floats, contact: NDArray[np.bool_], up: NDArray[np.bool_]) -> float:
    """Mean over all swings of their highest point above the foot's lowest point, m; 0 without."""
    peaks = []
    for n in range(height.shape[1]):
        for foot in range(height.shape[2]):
            line, on = height[up[:, n], n, foot], contact[up[:, n], n, foot]
            ends = np.flatnonzero(np.diff(on.astype(int)) == 1)
            begins = np.flatnonzero(np.diff(on.astype(int)) == -1)
            for begin in begins:
                if (later := ends[ends > begin]).size:
                    peaks.append(line[begin : later[0] + 1].max() - line.min())
    return float(np.mean(peaks)) if peaks else 0.0


def of_run(folder: Path) -> tuple[Robot, VelocityCommands, Policy, list[str]]:
    """The robot, family and skills of a run folder, after its last checkpoint.

    Raises:
        UserError: it is no run of `velocity_commands`, or has no checkpoint.
    """
    run = Run(folder)
    if run.config.family != VelocityCommands.name:
        raise UserError(f"{folder}: a run of {VelocityCommands.name} is expected")
    if not run.checkpoint.is_file():
        raise UserError(f"{folder}: there is no checkpoint yet")
    agent: Agent = Mlsh(run.config, freeze_skills=True).agent
    agent.restore_skills(load_arrays(run.checkpoint))
    std = np.exp(agent.log_std())

    def policy(seen: NDArray[np.float32], skill: int, noise: Floats | None) -> Floats:
        skills = np.full(len(seen), skill)
        mean = agent.means(agent.normalizer(seen), skills, seen).astype(np.float64)
        return mean if noise is None else mean + std[skill] * noise

    parameters = run.config.family_parameters
    made = make_family(run.config.family, parameters)
    assert isinstance(made, VelocityCommands)
    names = [f"skill-{k}" for k in range(agent.skills.count)]
    return load_robot(run.config.robot), Measured(**parameters), policy, names


def of_bundle(name: str) -> tuple[Robot, VelocityCommands, Policy, list[str]]:
    """The robot, family and skills of a bundle for the Go2 with two goals, or of a training."""
    bundle = load_bundle(name)
    own = bundle.manifest.family
    kind = Measured if own.name == VelocityCommands.name else BesideGoals
    skills = load_skills(bundle)

    def policy(seen: NDArray[np.float32], skill: int, noise: Floats | None) -> Floats:
        return skills[skill](seen).astype(np.float64)

    commands = 7 if len(skills) > 5 else 5
    parameters = dict(own.parameters) if kind is Measured else {"commands": commands}
    return load_robot("go2"), kind(**parameters), policy, list(bundle.manifest.skills)


@one_line_errors
def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("skills")
    parser.add_argument("--robots", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--randomized", action="store_true")
    parser.add_argument("--model", type=Path, metavar="FILE.xml")
    parser.add_argument("--sim-params", default="", metavar="NAME")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    given = parser.parse_args()
    if given.robots < 1 or given.seconds <= VelocityCommands().settling:
        raise UserError("--robots at least 1, --seconds more than 1")
    folder = Path(given.skills)
    is_run = (folder / "config.yaml").is_file()
    robot, family, policy, names = of_run(folder) if is_run else of_bundle(given.skills)
    values = {**vars(family), "ticks": round(given.seconds / robot.interface.control_dt)}
    for each in given.set:
        name, _, value = each.partition("=")
        if name not in values:
            raise unknown("parameter", name, values)
        values[name] = type(values[name])(float(value))
    family = type(family)(**values)
    print(HEAD, flush=True)
    with tempfile.TemporaryDirectory(prefix="mlsh_gait_") as scratch:
        if given.model is not None:
            robot = adopt(given.model, Path(scratch) / "other")
        course = Course(
            robot, family, given.robots, randomized=given.randomized, sim_params=given.sim_params
        )
    for task, command in enumerate(family.tasks):
        walked = [course.walk(policy, k, task) for k in range(len(names))]
        best = int(np.argmax([gait.returns for gait in walked]))
        noise = f"{course.walk(policy, best, task, noise=True).returns:.0f}" if is_run else "-"
        print(walked[best].row(command, names[best], noise), flush=True)


if __name__ == "__main__":
    main()
