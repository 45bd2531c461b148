"""The probe's arithmetic, and when a skill is started anew."""

from dataclasses import replace

import numpy as np
import pytest

from policies.mlsh.config import MlshConfig
from policies.mlsh.presets import default_config
from policies.mlsh.skill_probe import WINDOW, Probe
from policies.training.collapse_report import collapse_warning
from sim.envs.reference_returns import ReferenceReturns
from tests.support.bundles import small_config


def probe(floor=0.0, span=10.0, **changes) -> Probe:
    # Two skills, four simulations: 0 and 2 run skill 0, 1 and 3 run skill 1.
    method: MlshConfig = replace(small_config().mlsh, **changes)
    return Probe(method, floor, span)


def returns(skill_0, skill_1) -> np.ndarray:
    return np.array([skill_0[0], skill_1[0], skill_0[1], skill_1[1]], np.float64)


def test_every_skill_has_its_share_of_simulations():
    assert probe().plan().tolist() == [0, 1, 0, 1]
    three = probe(skills=3, envs=8).plan()
    assert np.bincount(three).tolist() == [3, 3, 2]


def test_bias_is_the_preference_in_standard_errors():
    # Means 6 and 4: preference +1, -1. Variances 2 and 0 of 2 each: error sqrt((2/2 + 0) / 2).
    # bias = +-1 / .7071 = +-1.4142
    bias = probe(probe="absolute").bias(returns((5, 7), (4, 4)))
    assert bias == pytest.approx([1.4142, -1.4142], abs=1e-4)
    assert bias.dtype == np.float32


def test_bias_is_bounded():
    # No variance at all: whatever small difference would be infinitely significant.
    assert probe().bias(returns((5, 5), (4, 4))).tolist() == [3, -3]
    assert probe(probe_logit_clip=1.0).bias(returns((5, 5), (4, 4))).tolist() == [1, -1]


def test_relative_bias_subtracts_what_other_tasks_prefer():
    each = probe(probe_ema=0.2)
    # First task: preference (1, -1); m is 0, so it counts in full, and m becomes .2 * (1, -1).
    each.bias(returns((5, 7), (4, 4)))
    assert each.usual == pytest.approx([0.2, -0.2])
    # Second task: both skills return 3 and 3, variances 2 and 2, error sqrt((1 + 1) / 2) = 1.
    # bias = (0 - .2, 0 + .2) / 1: the skill that the other task does not prefer.
    assert each.bias(returns((2, 4), (2, 4))) == pytest.approx([-0.2, 0.2])
    # m moves a fifth of the way to (0, 0).
    assert each.usual == pytest.approx([0.16, -0.16])


def test_plain_bias_does_not():
    each = probe(probe="absolute")
    each.bias(returns((5, 7), (4, 4)))
    assert each.bias(returns((2, 4), (2, 4))).tolist() == [0, 0]


# Starting a skill anew ----------------------------------------------------------------------


def after(*means, **changes) -> int | None:
    """The dispensable skill after probes with these mean returns of the skills, repeated."""
    each = probe(skills=len(means[0]), envs=2 * len(means[0]), **changes)
    for i in range(WINDOW):
        each.bias(np.tile(np.array(means[i % len(means)], np.float64), 2))
    return each.redundant_skill()


def test_two_skills_that_do_the_same_are_one_too_many():
    # Both go to goal 0: 8 and 8 on one task, 2 and 2 on the other. Neither would be missed.
    assert after((8, 8), (2, 2)) in (0, 1)


def test_a_skill_that_never_learned_anything_is_found():
    # Skill 1 is missed by 5 on the first task, skill 0 by nobody, ever.
    assert after((3, 8), (1, 2)) == 0
    # Of three, it is the one that is never the best.
    assert after((8, 1, 3), (2, 1, 7)) == 1


def test_healthy_skills_are_left_alone():
    # Each task misses one of them by 6, and 12 % of the best return is 0.96.
    assert after((8, 2), (2, 8)) is None


def test_threshold_is_a_fraction_of_the_best_return():
    # Skill 1 is better than skill 0 by 0.5 on one task only: missed less than 12 % of 8 = 0.96.
    assert after((8, 2), (7, 7.5)) == 1
    # By 1.0: missed enough.
    assert after((8, 2), (7, 8)) is None
    assert after((8, 2), (7, 8), reset_skill_below=0.2) == 1  # 20 % of 8 = 1.6
    assert after((8, 8), (2, 2), reset_skill_below=0.0) is None  # switched off


def test_a_single_skill_is_indispensable():
    assert after((8,)) is None


def test_nothing_is_started_anew_before_anything_is_learned():
    # Floor 0, span 10: 20 % of the way is 2.0.
    assert after((1, 1), (1.9, 1.9)) is None


def test_nothing_is_started_anew_on_few_probes():
    each = probe()
    for _ in range(WINDOW - 1):
        each.bias(returns((8, 8), (8, 8)))
    assert each.redundant_skill() is None
    each.bias(returns((8, 8), (8, 8)))
    assert each.redundant_skill() is not None
    each.clear()
    assert each.redundant_skill() is None
    assert not each.usual.any()


def test_state_comes_back():
    one, other = probe(), probe()
    for value in (3.0, 8.0, 5.0):
        one.bias(returns((value, value + 1), (4, 6)))
    other.restore(one.state())
    assert np.array_equal(other.state()["probe.recent"], one.state()["probe.recent"])
    more = returns((2, 3), (4, 4))
    assert np.array_equal(one.bias(more), other.bias(more))


# In words ---------------------------------------------------------------------------------


def rows(left, right, information, distance):
    row = {"mutual_information": information, "skill_distance": distance}
    return [{**row, "return/left": left, "return/right": right}] * 10


@pytest.mark.parametrize(
    ("left", "right", "information", "distance", "said"),
    [
        (40, 40, 1.0, 0.6, []),  # each has its own
        (40, 10, 1.0, 0.6, []),  # one is not learned yet, but they are apart
        (40, 40, 0.0, 0.6, []),  # one skill serves both tasks: nobody is missed
        (40, 10, 0.1, 0.6, ["right at 25 %", "0.10 of 1.00 bits"]),
        (40, 10, 0.1, 0.05, ["right at 25 %", "two skills act alike (0.05 apart, of 1)"]),
    ],
)
def test_collapse_is_said_with_its_tasks(left, right, information, distance, said):
    bounds = [ReferenceReturns(0.0, 20.0, 40.0)] * 2
    method = small_config().mlsh
    text = collapse_warning(
        rows(left, right, information, distance), ("left", "right"), bounds, method
    )
    assert bool(text) == bool(said)
    assert "\n" not in text
    for part in said:
        assert part in text


def test_what_is_off_is_tried_first():
    bounds = [ReferenceReturns(0.0, 20.0, 40.0)] * 2
    method = replace(small_config().mlsh, probe="none", reset_skill_below=0.0)
    text = collapse_warning(rows(40, 10, 0, 0), ("left", "right"), bounds, method)
    assert "Try --set mlsh.probe=centered, --set mlsh.reset_skill_below=0.12" in text
    recipe = default_config("moving_bandits", "omni").mlsh
    on = collapse_warning(rows(40, 10, 0, 0), ("left", "right"), bounds, recipe)
    assert "Try --set mlsh.mutual_information_coef=0.5, --set mlsh.groups=20, another --seed" in on
