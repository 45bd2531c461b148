"""Moving Bandits with rewards of another unit or another zero: docs/results/verdicts.md.

python -m tests.benchmarks.invariance [--seeds 3] [--first-seed 0] [--steps 1000000]

Of each: the normalized score at the end (mean of the last tenth of the iterations), and the steps
after which the mean of ten iterations is at 90 % for the first time.
"""

import argparse

import numpy as np

from policies.mlsh.mlsh import Mlsh
from policies.mlsh.presets import preset
from policies.training.metrics import describe
from sim.tasks.registry import FAMILIES
from tests.benchmarks import one_line_errors
from tests.support.shifted_bandits import ShiftedBandits

FAMILIES[ShiftedBandits.name] = ShiftedBandits
CASES = {
    "as they are": (),
    "plus 10 a tick": ("family_parameters.bonus=10",),
    "minus 1 a tick": ("family_parameters.bonus=-1",),
    "times 100": ("family_parameters.unit=100",),
}
WINDOW = 10  # iterations
TARGET = 0.9


def train(settings: tuple[str, ...], seed: int, steps: int) -> tuple[float, int | None]:
    """The score at the end, and the steps to `TARGET`; None: never."""
    base = preset("default", ShiftedBandits.name, "omni", seed)
    config = base.with_values([*settings, f"steps={steps}", "threads=1"])
    learner, scores, at = Mlsh(config), list[float](), list[int]()
    for _ in range(config.iterations):
        it = learner.iterate()
        returns = learner.reference_returns
        row = describe(it, learner.family.tasks, returns, config.mlsh.warmup, 0.0, 0.0)
        if "score" in row:
            scores.append(row["score"])
            at.append(it.steps)
    mean = np.convolve(scores, np.full(WINDOW, 1 / WINDOW), "valid")
    reached = np.flatnonzero(mean >= TARGET)
    first = at[reached[0] + WINDOW - 1] if len(reached) else None
    return float(np.mean(scores[-max(1, len(scores) // 10) :])), first


@one_line_errors
def main() -> None:
    """A line per case and seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1_000_000)
    given = parser.parse_args()
    for name, settings in CASES.items():
        for seed in range(given.first_seed, given.first_seed + given.seeds):
            score, first = train(settings, seed, given.steps)
            reached = "never" if first is None else f"after {first:,} steps"
            print(f"{name}, seed {seed}: score {score:.3f}, 90 % {reached}", flush=True)


if __name__ == "__main__":
    main()
