"""Stores simulations that diverged during training and simulates them again.

python -m policies.training.divergence runs/first/failures/0.npz
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from policies.mlsh.config import TrainConfig, read_config
from sim.envs.world import Failure, World
from sim.errors import UserError
from sim.files.arrays import load_arrays, save_arrays
from sim.physics.robot_model import load_robot
from sim.randomization.schema import read_ranges
from sim.tasks.registry import make_family

FOLDER = "failures"


def count_failures(run: Path) -> int:
    """Returns the number of the next failure of a run; those of earlier sittings are kept."""
    numbers = [p.stem for p in (run / FOLDER).glob("*.npz")]
    return max((int(each) + 1 for each in numbers if each.isdecimal()), default=0)


def write_failures(run: Path, failures: list[Failure], number: int) -> None:
    """Write failures to a run folder, under this number and those after it."""
    for each, failure in enumerate(failures, number):
        (run / FOLDER).mkdir(exist_ok=True)
        arrays = {name: np.asarray(value) for name, value in vars(failure).items()}
        save_arrays(run / FOLDER / f"{each}.npz", arrays)


def read_failure(path: Path) -> Failure:
    """Read a file of `write_failures`.

    Raises:
        UserError: the file has another content.
    """
    arrays = load_arrays(path)
    try:
        return Failure(
            simulation=int(arrays["simulation"]),
            tick=int(arrays["tick"]),
            state=np.asarray(arrays["state"], np.float64),
            command=np.asarray(arrays["command"], np.float64),
            varied=np.asarray(arrays.get("varied", []), np.float64),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path}: not a failure of a simulation ({error})") from None


def repeat(failure: Failure, config: TrainConfig) -> bool:
    """Simulate the failed tick once more; True if it fails again."""
    family = make_family(config.family, config.family_parameters)
    robot = load_robot(config.robot)
    ranges = read_ranges(robot) if config.domain_randomization else None
    world = World(robot, family, size=1, sim_params=config.sim_params, domain_randomization=ranges)
    return world.repeat(failure)


def main() -> int:
    """Entry point."""
    if len(sys.argv) != 2:
        sys.stderr.write("error: which file? For example runs/first/failures/0.npz\n")
        return 2
    path = Path(sys.argv[1])
    try:
        failure = read_failure(path)
        again = repeat(failure, read_config(path.parent.parent / "config.yaml"))
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except ValueError as error:  # robot, family or settings are not those of the training
        sys.stderr.write(f"error: {path}: is of another model ({error})\n")
        return 1
    how = "fails again" if again else "does not fail"
    print(
        f"tick {failure.tick} of simulation {failure.simulation}, command "
        f"{failure.command.tolist()}: it {how}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
