r"""How the UR5e moves under the masters of bundles: docs/results/ur5e.md.

    python -m tests.benchmarks.arm_motion ur5e_reach [BUNDLE ..] [--episodes 20] [--seed 1] \
        [--sim-params NAME]

A line for every master of every bundle, driven on its own task: mean return, solved episodes,
episodes that a touch of the table ended, the largest joint speed at the ticks, rad/s, and how the
arm stands in the last half second of its solved episodes: the change of the command from tick to
tick (largest joint, mrad; mean and largest) and how far the tool moves about (mm, farthest from
its mean place). The last lines are means, and the worst bundle, per task.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from mlsh_ros.control.controller import Tick
from mlsh_ros.evaluation.backends import run_offline
from mlsh_ros.evaluation.case import resolve_cases
from mlsh_ros.evaluation.episode import Episode
from policies.bundle.bundle import load_bundle
from sim.envs.world import World
from sim.errors import UserError
from sim.interface import Floats
from sim.tasks.table_reach import TOUCH, TableReach
from tests.benchmarks import one_line_errors

STANDS = 0.5  # s at the end of an episode


@dataclass
class Motion:
    """What one master did."""

    dt: float  # s per tick
    solved: list[bool] = field(default_factory=list)
    touched: list[bool] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)
    speed: float = 0.0  # rad/s, largest
    changes: list[Floats] = field(default_factory=list)  # rad, per tick, of solved episodes
    moves: list[float] = field(default_factory=list)  # m, of each solved episode
    _tool: list[Floats] = field(default_factory=list)
    _touch: bool = False

    def watch(self, world: World, tick: Tick | None) -> None:
        """Look at the world before each tick and at the end."""
        fields = world.physics.fields()
        self.speed = max(self.speed, float(np.abs(fields["joint_velocity"]).max()))
        self._tool.append(fields["tool_position"][0].copy())
        self._touch |= bool((world.physics.signals()[TOUCH] > 0).any())

    def finish(self, episode: Episode) -> None:
        """Count an episode that is over."""
        self.solved.append(episode.success)
        self.touched.append(self._touch)
        self.returns.append(episode.value)
        if episode.success:
            last = round(STANDS / self.dt)
            self.changes.append(np.abs(np.diff(episode.command[-last:], axis=0)).max(axis=1))
            tool = np.array(self._tool[-last:])
            self.moves.append(float(np.linalg.norm(tool - tool.mean(axis=0), axis=1).max()))
        self._tool, self._touch = [], False

    def __str__(self) -> str:
        """Its columns."""
        count = len(self.solved)
        text = f"return {np.mean(self.returns):.2f}, solved {sum(self.solved)}/{count}"
        text += f", touched the table {sum(self.touched)}/{count}"
        text += f", largest joint speed {self.speed:.2f} rad/s"
        if self.changes:
            steps = 1000 * np.concatenate(self.changes)
            text += f"; at the end {steps.mean():.2f} mrad a tick (largest {steps.max():.1f})"
            text += f", tool within {1000 * max(self.moves):.1f} mm"
        return text


@one_line_errors
def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundles", nargs="+")
    parser.add_argument("--episodes", type=int, default=20, help="of each master")
    parser.add_argument("--seed", type=int, default=1, help="of the episodes")
    parser.add_argument("--sim-params", default="", help="what differs from the nominal robot")
    given = parser.parse_args()
    if given.episodes < 1:
        raise UserError(f"--episodes {given.episodes}: 1 or more are needed")
    shares: dict[str, dict[str, float]] = defaultdict(dict)
    for name in given.bundles:
        bundle = load_bundle(name)
        for case in resolve_cases(bundle, sim_params=given.sim_params):
            if not isinstance(case.family, TableReach):
                raise UserError(f"bundle {name}: task {case.task} is not above a table")
            motion = Motion(bundle.interface.control_dt)
            run_offline(
                [case],
                episodes=given.episodes,
                seed=given.seed,
                on_episode=motion.finish,
                watch=motion.watch,
            )
            shares[str(case.task)][name] = float(np.mean(motion.solved))
            print(f"{name} {case.task}: {motion}")
    for task, each in shares.items():
        worst = min(each, key=each.__getitem__)
        mean = np.mean(list(each.values()))
        print(f"{task}: solved {mean:.1%} of the episodes; worst {worst}, {each[worst]:.1%}")


if __name__ == "__main__":
    main()
