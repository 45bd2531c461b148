"""What every training has to do: go on from its state as if nothing had been in between."""

import numpy as np

from policies.mlsh.mlsh import Mlsh


def assert_goes_on_bit_for_bit(learner: Mlsh) -> None:
    """Another learner, from the state of this one, has the same state an iteration later."""
    other = Mlsh(learner.config)
    other.restore(learner.state())
    learner.iterate()
    other.iterate()
    states = learner.state(), other.state()
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        np.testing.assert_array_equal(states[1][name], value, err_msg=name)
