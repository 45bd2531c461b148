"""The probe's arithmetic, when a skill is started anew, and when it is left out."""

from dataclasses import replace

import numpy as np
import pytest

from policies.mlsh.config import MlshConfig
from policies.mlsh.skill_metrics import state_information
from policies.mlsh.skill_probe import BY_STATE, MOST_RESETS, UNTIL, WINDOW, Probe
from sim.envs.reference_returns import ReferenceReturns
from tests.support.bundles import small_config


def probe(**changes) -> Probe:
    # Two skills, four simulations: 0 and 2 run skill 0, 1 and 3 run skill 1.
    method: MlshConfig = replace(small_config().mlsh, **changes)
    return Probe(method)


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


def probed(*means, **changes) -> Probe:
    """After probes with these mean returns of the skills, repeated."""
    each = probe(skills=len(means[0]), envs=2 * len(means[0]), **changes)
    for i in range(WINDOW):
        each.bias(np.tile(np.array(means[i % len(means)], np.float64), 2))
    return each


def after(*means, **changes) -> int | None:
    """The dispensable skill after such probes."""
    return probed(*means, **changes).redundant_skill(progress=0.5)


def test_two_skills_that_do_the_same_are_one_too_many():
    # Both go to goal 0: 8 and 8 on one task, 2 and 2 on the other. Neither would be missed.
    assert after((8, 8), (2, 2)) in (0, 1)


def test_a_skill_that_never_learned_anything_is_found():
    # Skill 1 is missed by 5 on the first task, skill 0 by nobody, ever.
    assert after((3, 8), (1, 2)) == 0
    # Of three, it is the one that is never the best.
    assert after((8, 1, 3), (2, 1, 7)) == 1


def test_no_skill_is_judged_before_all_tasks_were_probed():
    """The task that needs skill 1 is one of thirteen, and comes last."""
    each = Probe(replace(small_config().mlsh), tasks=13)
    for task in range(12):
        each.bias(returns((8, 8), (2, 2)), task)
        assert each.redundant_skill(progress=0.5) is None
    each.bias(returns((2, 2), (8, 8)), 12)
    assert each.redundant_skill(progress=0.5) is None
    for _ in range(2):  # it stays known while the others come again
        for task in range(12):
            each.bias(returns((8, 8), (2, 2)), task)
            assert each.redundant_skill(progress=0.5) is None
        each.bias(returns((2, 2), (8, 8)), 12)


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
    # 20 % of the way from random to optimum.
    assert after((0.1, 0.1), (0.19, 0.19)) is None
    assert after((0.21, 0.21), (0.1, 0.1)) is not None


def test_a_skill_that_masters_use_by_state_is_needed():
    # Half of a ring is served by each skill: over whole episodes nobody misses skill 0.
    ring = probed((0.61, 0.55), (0.0, 0.49), (0.01, 0.43))
    assert ring.redundant_skill(progress=0.5) == 0
    ring.by_state.extend([np.array([BY_STATE - 0.02, BY_STATE - 0.02])] * 3)
    assert ring.redundant_skill(progress=0.5) == 0
    ring.by_state.extend([np.array([BY_STATE + 0.05, BY_STATE + 0.05])] * 3)
    assert ring.redundant_skill(progress=0.5) is None
    # The same goes for one of three, whatever the other two do.
    three = probed((0.8, 0.1, 0.1), (0.2, 0.1, 0.7))
    assert three.redundant_skill(progress=0.5) == 1
    three.by_state.append(np.array([0.0, 0.9, 0.0]))
    assert three.redundant_skill(progress=0.5) is None


def test_nothing_is_started_anew_in_the_last_fifth():
    each = probed((8, 8), (2, 2))
    assert each.redundant_skill(progress=UNTIL - 0.01) is not None
    assert each.redundant_skill(progress=UNTIL) is None
    assert UNTIL == 0.8


def test_no_skill_is_started_anew_for_ever():
    each = probed((8, 1, 3), (2, 1, 7))
    for _ in range(MOST_RESETS):
        assert each.redundant_skill(progress=0.1) == 1
        each.reset(1)
        assert each.redundant_skill(progress=0.1) is None
        for mean in [(8, 1, 3), (2, 1, 7)] * (WINDOW // 2):
            each.bias(np.tile(np.array(mean, np.float64), 2))
    assert each.redundant_skill(progress=0.1) is None
    assert each.resets.tolist() == [0, MOST_RESETS, 0]


@pytest.mark.parametrize("bonus", [0.0, -48.0, 500.0])
def test_restarts_do_not_depend_on_what_every_tick_pays(bonus):
    """Probes see normalized returns: what all policies earn, random ones too, is not in them."""
    limit = ReferenceReturns(bonus + 2.0, bonus + 2.0, bonus + 44.0)

    def after_returns(*means):
        return after(*(tuple(limit.normalize(x + bonus) for x in mean) for mean in means))

    assert after_returns((45, 2), (2, 45)) is None  # healthy
    assert after_returns((45, 45), (2, 2)) is not None  # alike


def test_nothing_is_started_anew_on_few_probes():
    each = probe()
    for _ in range(WINDOW - 1):
        each.bias(returns((8, 8), (8, 8)))
    assert each.redundant_skill(progress=0.0) is None
    each.bias(returns((8, 8), (8, 8)))
    assert each.redundant_skill(progress=0.0) is not None
    each.reset(0)
    assert each.redundant_skill(progress=0.0) is None
    assert not each.usual.any()


def test_state_comes_back():
    one, other = probe(), probe()
    for value in (3.0, 8.0, 5.0):
        one.bias(returns((value, value + 1), (4, 6)))
    one.by_state.append(np.array([0.1, 0.2]))
    one.resets[1] = 2
    state = one.state()
    other.restore(state)
    assert state.keys() == other.state().keys()
    for name, array in other.state().items():
        assert np.array_equal(array, state[name])
    more = returns((2, 3), (4, 4))
    assert np.array_equal(one.bias(more), other.bias(more))


def test_statistics_of_an_earlier_version_begin_anew():
    one, other = probe(), probe()
    one.bias(returns((3, 4), (4, 6)))
    state = one.state()
    for later in ("by_state", "resets", "probed"):  # its returns were not normalized
        del state[f"probe.{later}"]
    other.restore(state)
    assert not other.usual.any()
    assert not other.recent
    del state["probe.usual"]
    with pytest.raises(KeyError):
        other.restore(state)


# State-dependent use ------------------------------------------------------------------------


def test_information_of_a_choice_on_the_state():
    # Skill 0 in half of the states and never in the others: 1 bit. Skill 2 never.
    by_state = np.array([[1.0, 0, 0], [0, 1, 0]])
    assert state_information(by_state) == pytest.approx([1, 1, 0], abs=1e-6)
    # The same probabilities in all states tell nothing, however even.
    assert state_information(np.full((5, 2), 0.5)) == pytest.approx([0, 0], abs=1e-9)
    # H(0.5) - H(0.9) = 1 - 0.469.
    partly = np.array([[0.9, 0.1], [0.1, 0.9]])
    assert state_information(partly) == pytest.approx([0.531, 0.531], abs=1e-3)
    assert state_information(np.zeros((0, 2))).tolist() == [0, 0]
