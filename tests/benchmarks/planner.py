"""A planner that knows the task drives the Go2 by velocity commands: how far is a master from it?

    python -m tests.benchmarks.planner mazes/maze-3 two_targets/goal-0 body_patrol/even

Of each task: return, success and falls of a planner that turns towards the next waypoint and walks
to it, with a velocity command for the published policy in every tick; and of the same planner
that may only select one of the skills of `go2_walk` at each decision, as a master does. The
waypoints of a maze are the middles of its free cells and the goal. Episodes are those of the
reference returns.
"""

from __future__ import annotations

import argparse

import numpy as np

from policies.bundle.bundle import load_bundle
from policies.bundle.runtime import load_skills
from sim.errors import UserError
from sim.interface import Floats
from sim.seeding import episode_rng
from sim.tasks.ant_mazes import CELLS, MAZES, AntMazes
from sim.tasks.base import TaskFamily
from sim.tasks.goals import GoalTask
from sim.tasks.planar import to_base
from sim.tasks.registry import make_family
from sim.tasks.running import FALLEN
from sim.tasks.task_id import TaskId
from tests.benchmarks import one_line_errors
from tests.benchmarks.go2_skills import BUNDLE, commands
from tests.support.go2 import CONTROL_DT, Walker

SPEED, TURN = 0.8, 1.0  # m/s and rad/s: the fastest commands of the bundle's skills
GAIN = 2.0  # rad/s of turning per rad of bearing
NEAR = 0.3  # m from a waypoint to the next one
STOP = 0.2  # m from a goal at which the robot stands


class Route:
    """Where n robots go next, (n, 2) m: along the waypoints of a maze, or to the present goal."""

    def __init__(self, family: TaskFamily, task: int, size: int) -> None:
        self.family, self._way = family, None
        self._passed = np.zeros(size, int)
        if isinstance(family, AntMazes):
            goal, free = MAZES[task]
            self._way = family.scale * np.array([*(CELLS[cell] for cell in free), goal])

    def offset(self, walker: Walker) -> Floats:
        """(n, 2) the next place relative to the base, m."""
        fields = walker.world.true_state()
        position = fields["position"]
        if self._way is None:
            assert isinstance(self.family, GoalTask)
            place = self.family.target(walker.world.layout)
        else:
            place = self._way[self._passed]
            reached = np.linalg.norm(place - position, axis=1) < NEAR
            self._passed = np.minimum(self._passed + reached, len(self._way) - 1)
            place = self._way[self._passed]
        return to_base((place - position)[:, None], fields)[:, 0]


def steer(offset: Floats) -> Floats:
    """Velocity commands (n, 3), m/s and rad/s, towards places (n, 2) relative to the base, m."""
    bearing = np.arctan2(offset[:, 1], offset[:, 0])
    away = np.linalg.norm(offset, axis=1) > STOP
    ahead = SPEED * np.clip(np.cos(bearing), 0, 1) ** 2
    turn = np.clip(GAIN * bearing, -TURN, TURN)
    return np.stack([ahead * away, np.zeros(len(offset)), turn * away], axis=1)


class Skilled(Walker):
    """Robots under the skills of a bundle: the one nearest to a velocity command runs."""

    def __init__(self, size: int, ticks: int, family: TaskFamily) -> None:
        super().__init__(size, ticks * CONTROL_DT, family=family)
        bundle = load_bundle(BUNDLE)
        self._skills = load_skills(bundle)
        self.commands = np.array(list(commands(bundle).values()))  # (K, 3), one for each skill
        self.decision_ticks = bundle.manifest.decision_ticks
        self._running = np.zeros(size, int)
        self._tick = 0

    def action(self, command: Floats) -> Floats:
        """The action (n, 12) of the skills that were selected at the last decision."""
        if self._tick % self.decision_ticks == 0:
            unit = np.array([SPEED, SPEED, TURN])
            apart = np.linalg.norm((command[:, None] - self.commands) / unit, axis=-1)
            self._running = apart.argmin(axis=1)
        self._tick += 1
        seen = self.interface.observe(self.fields, memory=self.memory)
        outputs = np.stack([skill(seen) for skill in self._skills])
        output = outputs[self._running, np.arange(len(seen))].astype(np.float64)
        self.memory.remember(seen, output)
        return output


def drive(walker: Walker, family: TaskFamily, task: int) -> tuple[Floats, Floats, Floats]:
    """(n,) returns, successes and falls of an episode each, by the planner."""
    size = walker.world.size
    tasks = np.full(size, task, np.int32)
    rngs = [episode_rng(0, n) for n in range(size)]
    walker.world.reset(np.arange(size, dtype=np.int32), tasks, rngs)
    walker.memory.reset()
    walker.fields = walker.world.measurements(walker.world.true_state())
    route, alive, total = Route(family, task, size), np.ones(size, bool), np.zeros(size)
    solved = np.zeros(size, bool)
    for _ in range(family.ticks):
        action = walker.action(steer(route.offset(walker)))
        fields, result = walker.world.step(action)
        walker.fields = walker.world.measurements(fields)
        total += result.reward * alive
        alive &= ~(walker.lean > FALLEN)
        solved = np.where(alive, family.success(walker.world.layout, fields), solved)
    return total, solved & alive, ~alive


@one_line_errors
def main() -> None:
    """A line per task and planner."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("--episodes", type=int, default=32)
    given = parser.parse_args()
    if given.episodes < 1:
        raise UserError(f"--episodes {given.episodes}: 1 or more are needed")
    for name in given.tasks:
        parsed = TaskId.parse(name)
        family = make_family(parsed.family, {})
        task = parsed.index_in(family.tasks)
        seconds = family.ticks * CONTROL_DT
        walkers = {
            "velocity commands": Walker(given.episodes, seconds, family=family),
            "skills of go2_walk": Skilled(given.episodes, family.ticks, family),
        }
        for kind, walker in walkers.items():
            total, solved, fell = drive(walker, family, task)
            print(
                f"{name}, {kind}: return {total.mean():.2f} (worst {total.min():.2f}), "
                f"success {solved.mean():.0%}, {fell.sum()} of {given.episodes} fell",
                flush=True,
            )


if __name__ == "__main__":
    main()
