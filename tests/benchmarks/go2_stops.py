"""How the Go2 stops from walking: docs/results/go2.md.

    python -m tests.benchmarks.go2_stops [--starts 16] [--pose HIP THIGH CALF]

From 4 s of walking under five velocity commands the robot is braked to its safe command under its
rate limits, and held for 3 s; a table of the falls and of the largest lean, for nominal
parameters, those that each start draws from `domain_randomization.yaml`, and `harsh`. With --pose
it is braked to that pose of every leg (rad) instead.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sim.errors import UserError
from sim.interface import Floats
from sim.physics.robot_model import load_robot
from sim.randomization.schema import load_sim_params, read_ranges
from tests.benchmarks import one_line_errors
from tests.support.go2 import CONTROL_DT, FALLEN, MEASURED, Walker

WALKING, HELD = 4.0, 3.0  # s
COMMANDS = [each for each in MEASURED if any(each) and each != (0.0, 0.0, -1.0)]


def stops(walker: Walker, command: tuple[float, float, float]) -> tuple[int, int, float]:
    """Falls while walking and in the stop, and the largest lean in the stop, rad."""
    walker.reset(0)
    fell: Floats = np.zeros(walker.world.size, bool)
    for _ in range(round(WALKING / CONTROL_DT)):
        walker.step(walker.action(command))
        fell |= walker.lean > FALLEN
    standing, most = ~fell, 0.0
    for _ in range(round(HELD / CONTROL_DT)):
        walker.stop()
        fell |= walker.lean > FALLEN
        if standing.any():
            most = max(most, float(walker.lean[standing].max()))
    return int((~standing).sum()), int((fell & standing).sum()), most


def with_pose(walker: Walker, pose: Sequence[float]) -> None:
    """Let a stop end in another pose of every leg."""
    (term,) = walker.interface.action
    legs = tuple(float(value) for value in np.tile(pose, term.size // len(pose)))
    walker.interface = replace(walker.interface, action=(replace(term, safe_command=legs),))


@one_line_errors
def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--starts", type=int, default=16)
    parser.add_argument("--pose", type=float, nargs=3, metavar=("HIP", "THIGH", "CALF"))
    given = parser.parse_args()
    if given.starts < 1:
        raise UserError(f"--starts {given.starts}: give at least 1")
    robot, seconds = load_robot("go2"), WALKING + HELD
    walkers = {
        "nominal": Walker(given.starts, seconds),
        "domain_randomization.yaml": Walker(
            given.starts, seconds, domain_randomization=read_ranges(robot)
        ),
        "harsh": Walker(given.starts, seconds, sim_params=load_sim_params("harsh", robot)),
    }
    for label, walker in walkers.items():
        if given.pose is not None:
            with_pose(walker, given.pose)
        found = {command: stops(walker, command) for command in COMMANDS}
        walking, stopping, _ = np.sum(list(found.values()), axis=0)
        most = max(lean for *_, lean in found.values())
        each = ", ".join(f"{command}: {fell}" for command, (_, fell, _) in found.items())
        print(
            f"{label}: of {given.starts * len(found)} robots {walking:.0f} fell while walking, "
            f"{stopping:.0f} in the stop ({each}); largest lean in the stop {most:.2f} rad",
            flush=True,
        )


if __name__ == "__main__":
    main()
