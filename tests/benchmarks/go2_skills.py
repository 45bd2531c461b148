"""Speed and falls of the Go2 under each skill of `go2_walk`: docs/results/go2.md.

    python -m tests.benchmarks.go2_skills [--starts 64] [--seconds 20]

Prints a table: what others measured of the same policy, the nominal robot, and one whose
parameters each start draws from its ranges (domain_randomization.yaml). The starts differ in
heading and in every joint. Means from 2 s on, with the standard deviation over the starts.
"""

from __future__ import annotations

import argparse
from typing import ClassVar

import numpy as np
from pydantic.dataclasses import dataclass

from policies.bundle.bundle import Bundle, load_bundle
from policies.bundle.runtime import load_skills
from sim.errors import UserError
from sim.interface import STRICT, Floats, NonNegative
from sim.physics.robot_model import load_robot
from sim.randomization.schema import SimParams, read_ranges
from sim.tasks.two_targets import TwoTargets
from tests.benchmarks import one_line_errors
from tests.support.go2 import CONTROL_DT, MEASURED, Walk, Walker

BUNDLE = "go2_walk"
COMMAND = "velocity_command"  # the constant that holds a skill's velocity command
SKIP = 2.0  # s that do not count


@dataclass(frozen=True, config=STRICT)
class Starts(TwoTargets):
    """The bundle's family, from starts that differ in every joint too; its goals play no role."""

    name: ClassVar[str] = "starts"

    shake: NonNegative = 0.05  # rad
    pose_reset: int = 0


class SkillWalker(Walker):
    """Robots under the skills of a bundle, each named by its velocity command.

    Raises:
        UserError: the bundle is for another interface than the Go2's with two targets.
    """

    def __init__(
        self, bundle: Bundle, size: int, seconds: float, ranges: SimParams | None
    ) -> None:
        family = Starts(ticks=round(seconds / CONTROL_DT) + 1)
        super().__init__(size, seconds, domain_randomization=ranges, family=family)
        if self.interface != bundle.interface:
            raise UserError(f"bundle {bundle.manifest.name!r} has another interface than the Go2")
        self._skills = dict(zip(commands(bundle).values(), load_skills(bundle), strict=True))

    def action(self, command: tuple[float, float, float]) -> Floats:
        """The action (n, 12) of the skill with that command."""
        seen = self.interface.observe(self.fields, memory=self.memory)
        output = self._skills[command](seen).astype(np.float64)
        self.memory.remember(seen, output)
        return output


def commands(bundle: Bundle) -> dict[str, tuple[float, float, float]]:
    """Velocity command (vx, vy, wz) of each skill, m/s and rad/s.

    Raises:
        UserError: a skill was not imported with one.
    """
    found = {}
    for name in bundle.manifest.skills:
        origin = bundle.manifest.imported.get(name)
        held = () if origin is None else origin.constants.get(COMMAND, ())
        if not isinstance(held, tuple) or len(held) != 3:
            raise UserError(f"skill {name!r} of {bundle.source} has no constant {COMMAND!r} of 3")
        vx, vy, wz = held
        found[name] = (vx, vy, wz)
    return found


def row(walk: Walk) -> str:
    """Two cells: velocity and height; how many fell."""
    mean, spread = walk.velocity.mean(axis=0), walk.velocity.std(axis=0)
    speeds = ", ".join(f"{m:.2f} ± {s:.2f}" for m, s in zip(mean, spread, strict=True))
    return f"{speeds}; {walk.height.mean():.3f} | {walk.fell.sum()}"


@one_line_errors
def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--starts", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=20.0)
    given = parser.parse_args()
    if given.starts < 1 or given.seconds <= SKIP:
        raise UserError(f"--starts at least 1, --seconds more than {SKIP:g}")
    bundle = load_bundle(BUNDLE)
    ranges = read_ranges(load_robot("go2"))
    walkers = [SkillWalker(bundle, given.starts, given.seconds, drawn) for drawn in (None, ranges)]
    print("| skill: vx, vy, wz | published policy | nominal | falls | randomized | falls |")
    print("|---|---|---|---|---|---|", flush=True)
    for name, command in commands(bundle).items():
        *speeds, height = MEASURED[command]
        text = ", ".join(f"{value:g}" for value in command)
        known = ", ".join(f"{value:.2f}" for value in speeds)
        cells = []
        for walker in walkers:
            walker.reset(0)
            cells.append(row(walker.walk(command, given.seconds, SKIP)))
        print(f"| `{name}`: {text} | {known}; {height:.2f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
