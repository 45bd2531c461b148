"""The optimum of each task of families that estimate it, for a robot: docs/results/go2.md.

python -m tests.benchmarks.optimum ROBOT FAMILY [FAMILY ..]
"""

from __future__ import annotations

import argparse

from sim.errors import UserError
from sim.physics.robot_model import load_robot
from sim.tasks.base import HasReturnEstimate
from sim.tasks.registry import make_family
from tests.benchmarks import one_line_errors


@one_line_errors
def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("robot")
    parser.add_argument("families", nargs="+")
    given = parser.parse_args()
    control_dt = load_robot(given.robot).interface.control_dt
    for name in given.families:
        family = make_family(name, {})
        if not isinstance(family, HasReturnEstimate):
            raise UserError(f"family {name!r} estimates no returns; give one that does")
        for number, task in enumerate(family.tasks):
            _, optimum = family.estimate(number, control_dt)
            print(f"{name}/{task}: optimum {optimum:.0f} of {family.ticks} ticks", flush=True)


if __name__ == "__main__":
    main()
