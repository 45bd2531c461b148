"""CPU seconds of one fit of the values, by skills, observation and decisions.

python -m tests.benchmarks.fit_time --skills 2 8 --elements 26 --decisions 100 1000 4000
"""

import argparse
import time
from itertools import product

import numpy as np

from policies.mlsh.offpolicy_config import OffPolicyConfig
from policies.offpolicy.features import Features
from policies.offpolicy.replay import Episode, Replay
from policies.offpolicy.value_iteration import ValueIteration
from tests.benchmarks import one_line_errors

PER_EPISODE = 20  # decisions
REPEATS = 3


@one_line_errors
def main() -> None:
    """A line for each combination: the fastest of some fits."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--skills", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--elements", type=int, nargs="+", default=[8, 26], help="observed")
    parser.add_argument("--decisions", type=int, nargs="+", default=[100, 1000, 4000])
    given = parser.parse_args()
    config = OffPolicyConfig()
    for skills, elements, n in product(given.skills, given.elements, given.decisions):
        rng = np.random.default_rng(0)
        values = ValueIteration(Features(elements, config, [], rng), skills, config, rng)
        episodes = [
            Episode(
                obs=rng.standard_normal((PER_EPISODE + 1, elements), np.float32),
                skill=rng.integers(skills, size=PER_EPISODE),
                rewards=list(rng.standard_normal((PER_EPISODE, 1))),
                terminated=False,
                held=False,
            )
            for _ in range(n // PER_EPISODE)
        ]
        decisions = Replay(0.8, episodes).decisions()
        spent = []
        for _ in range(REPEATS):
            begun = time.process_time()
            values.fit(decisions)
            spent.append(time.process_time() - begun)
        print(
            f"{skills} skills, {elements} elements, {values.features.count} features, "
            f"{n} decisions: {min(spent):.3f} s"
        )


if __name__ == "__main__":
    main()
