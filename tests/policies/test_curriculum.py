"""A training that begins with the nominal model and grows to the whole ranges of a robot."""

from __future__ import annotations

import re

import numpy as np
import pytest

from policies.mlsh.config import TrainConfig
from policies.mlsh.mlsh import Mlsh
from policies.mlsh.presets import default_config
from policies.training.run import create_run
from sim.errors import UserError
from tests.support.checkpoints import assert_goes_on_bit_for_bit

GROWS = "curriculum.randomization_until=0.5"  # 80 steps in an iteration, and six of them
RANDOM = "domain_randomization=true"


def small(*settings: str) -> TrainConfig:
    sizes = ("mlsh.groups=2", "mlsh.envs=4", "mlsh.rollout_ticks=10", "mlsh.decision_ticks=5")
    return default_config("moving_bandits", "omni").with_values(
        [*sizes, "family_parameters.ticks=10", "threads=1", "steps=480", *settings]
    )


def test_the_ranges_grow_over_a_training():
    learner = Mlsh(small(GROWS, RANDOM))
    nominal = learner.env.world.varied.drawn.copy()
    assert (nominal == nominal[0]).all()  # of every simulation
    spreads, widths = [], []
    for _ in range(5):
        learner.iterate()  # an episode of each
        spreads.append(learner.env.world.varied.spread)
        widths.append(np.ptp(learner.env.world.varied.drawn, axis=0).max())
    assert spreads == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])
    assert widths[0] == 0 < widths[1] < widths[3]


def test_it_goes_on_from_a_checkpoint_bit_for_bit():
    config = small(GROWS, RANDOM)
    first = Mlsh(config)
    for _ in range(2):
        first.iterate()
    assert_goes_on_bit_for_bit(first)


def test_masters_of_frozen_skills_have_the_whole_ranges():
    learner = Mlsh(small(GROWS, RANDOM), freeze_skills=True, tasks=[0, 1])
    learner.iterate()
    assert learner.env.world.varied.spread == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ((GROWS,), "has no effect without domain_randomization; set that to true, or this to 0"),
        (("curriculum.randomization_until=-1", RANDOM), "greater than or equal to 0"),
    ],
)
def test_a_growth_without_effect_is_refused(settings, said, tmp_path):
    with pytest.raises(UserError, match=f"curriculum.randomization_until.*{re.escape(said)}"):
        create_run(small(*settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()
