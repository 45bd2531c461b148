"""What is learned does not depend on how many threads share the work."""

from dataclasses import replace

import numpy as np

from policies.mlsh.mlsh import Mlsh
from tests.support.bundles import small_config


def test_training_does_not_depend_on_threads():
    small = small_config()
    config = replace(small, mlsh=replace(small.mlsh, warmup=0))
    one, two = (Mlsh(replace(config, threads=n)) for n in (1, 2))
    for learner in (one, two):
        learner.iterate()
        learner.iterate()
    for name, array in one.state().items():
        assert np.array_equal(array, two.state()[name]), name
