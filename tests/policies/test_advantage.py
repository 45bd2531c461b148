"""Advantages by hand: every expected number is written out beside it."""

import numpy as np
import pytest

from policies.mlsh.gae import master_advantages, skill_advantages

GAMMA, LAMBDA = 0.5, 0.5  # so that every product below is exact


def column(*values):
    """One simulation's ticks, (T, 1)."""
    return np.array(values, np.float32)[:, None]


def ticks(*values):
    return np.array(values, bool)[:, None]


def skill(reward, value, next_value, cut):
    result = skill_advantages(
        column(*reward),
        column(*value),
        column(*next_value),
        ticks(*cut),
        gamma=GAMMA,
        gae_lambda=LAMBDA,
    )
    assert result.dtype == np.float32
    return result[:, 0]


def master(reward, decided, value, *, done=None, end=None, last=0.0):
    n = len(reward)
    return master_advantages(
        column(*reward),
        ticks(*decided),
        column(*value),
        ticks(*(done or [0] * n)),
        column(*(end or [0] * n)),
        np.array([last], np.float32),
        gamma=GAMMA,
        gae_lambda=LAMBDA,
    )[:, 0]


# Skills -----------------------------------------------------------------------------------


def test_skill_carries_errors_back():
    # delta2 = 3 + .5*8 - 2 = 5                advantage2 = 5
    # delta1 = 2 + .5*2 - 1 = 2                advantage1 = 2 + .25*5 = 3.25
    # delta0 = 1 + .5*1 - 4 = -2.5             advantage0 = -2.5 + .25*3.25 = -1.6875
    result = skill([1, 2, 3], [4, 1, 2], [1, 2, 8], [0, 0, 0])
    assert result.tolist() == [-1.6875, 3.25, 5]


def test_skill_at_a_termination_takes_nothing_from_the_next_episode():
    # tick 1 terminates: what follows is worth 0, and the 5 of tick 2 is not carried over.
    # delta1 = 2 + .5*0 - 1 = 1                advantage1 = 1
    # delta0 = 1 + .5*1 - 4 = -2.5             advantage0 = -2.5 + .25*1 = -2.25
    result = skill([1, 2, 3], [4, 1, 2], [1, 0, 8], [0, 1, 0])
    assert result.tolist() == [-2.25, 1, 5]


def test_skill_at_a_truncation_is_worth_its_final_observation():
    # tick 1 is truncated where the state is worth 6.
    # delta1 = 2 + .5*6 - 1 = 4                advantage1 = 4
    # delta0 = 1 + .5*1 - 4 = -2.5             advantage0 = -2.5 + .25*4 = -1.5
    result = skill([1, 2, 3], [4, 1, 2], [1, 6, 8], [0, 1, 0])
    assert result.tolist() == [-1.5, 4, 5]


def test_skill_is_not_credited_for_what_the_next_skill_does():
    # The skill changes after tick 0: its own value of the next state stands in, nothing else.
    # delta0 = 1 + .5*1 - 4 = -2.5             advantage0 = -2.5
    for reward in ([1, 2, 3], [1, 200, -300]):
        assert skill(reward, [4, 1, 2], [1, 2, 8], [1, 0, 0])[0] == -2.5


def test_skill_with_lambda_one_is_the_return_minus_the_value():
    rng = np.random.default_rng(0)
    reward, value = rng.standard_normal((2, 7, 3), np.float32)
    final = rng.standard_normal(3).astype(np.float32)
    following = np.concatenate([value[1:], final[None]])
    result = skill_advantages(
        reward, value, following, np.zeros((7, 3), bool), gamma=0.9, gae_lambda=1.0
    )
    total = final
    for t in reversed(range(7)):
        total = reward[t] + 0.9 * total
        assert result[t] == pytest.approx(total - value[t], abs=1e-5)


# Masters ----------------------------------------------------------------------------------


def test_master_is_rewarded_with_the_plain_sum_until_the_next_decision():
    # decision at tick 2: sum 3 + 4 = 7        delta = 7 + .5*10 - 2 = 10
    # decision at tick 0: sum 1 + 2 = 3        delta = 3 + .5*2 - 1 = 3
    #                                          advantage = 3 + .25*10 = 5.5
    result = master([1, 2, 3, 4], [1, 0, 1, 0], [1, 99, 2, 99], last=10)
    assert result.tolist() == [5.5, 0, 10, 0]


def test_master_discounts_per_decision_not_per_tick():
    # However many ticks a decision lasts, the next one's value counts .5 of itself.
    short = master([0, 0], [1, 1], [0, 8])
    long = master([0, 0, 0, 0, 0], [1, 0, 0, 0, 1], [0, 0, 0, 0, 8])
    # delta(last) = 0 + 0 - 8 = -8; delta0 = 0 + .5*8 - 0 = 4; advantage0 = 4 + .25*-8 = 2
    assert short[0] == long[0] == 2


def test_master_at_a_termination_amid_a_decision():
    # The episode of the decision at tick 0 terminates at tick 1; tick 2 begins the next episode.
    # tick 2: sum 3 + 4 = 7                    delta = 7 + .5*10 - 2 = 10
    # tick 0: sum 1 + 2 = 3                    delta = 3 + .5*0 - 1 = 2, nothing carried
    result = master([1, 2, 3, 4], [1, 0, 1, 0], [1, 0, 2, 0], done=[0, 1, 0, 0], last=10)
    assert result.tolist() == [2, 0, 10, 0]


def test_master_at_a_truncation_is_worth_the_final_observation():
    # tick 0: sum 1 + 2 = 3                    delta = 3 + .5*6 - 1 = 5, nothing carried
    result = master(
        [1, 2, 3, 4], [1, 0, 1, 0], [1, 0, 2, 0], done=[0, 1, 0, 0], end=[0, 6, 0, 0], last=10
    )
    assert result.tolist() == [5, 0, 10, 0]


def test_master_is_not_credited_for_ticks_after_the_episodes_end():
    # Whoever decides on tick 2, it is not the decision of tick 0: sum 1 + 2 = 3, delta = 3 - 1.
    assert master([1, 2, 3], [1, 0, 0], [1, 0, 0], done=[0, 1, 0], last=10)[0] == 2


def test_master_leaves_rewards_before_the_first_decision_to_the_rollout_before():
    # Ticks 0 and 1 belong to a decision of the rollout before: no sample, and no credit to others.
    # tick 2: sum 3 + 4 = 7                    delta = 7 + .5*10 - 2 = 10
    for leftover in (0, 1000):
        result = master([leftover, leftover, 3, 4], [0, 0, 1, 0], [9, 9, 2, 9], last=10)
        assert result.tolist() == [0, 0, 10, 0]


def test_master_ends_amid_a_decision_with_the_value_after_the_last_tick():
    # tick 3 begins a decision of which one tick is seen: delta = 4 + .5*10 - 2 = 7
    # tick 0: sum 1 + 2 + 3 = 6               delta = 6 + .5*2 - 1 = 6; 6 + .25*7 = 7.75
    result = master([1, 2, 3, 4], [1, 0, 0, 1], [1, 0, 0, 2], last=10)
    assert result.tolist() == [7.75, 0, 0, 7]


def test_master_simulations_do_not_mix():
    rng = np.random.default_rng(1)
    reward, value, end = rng.standard_normal((3, 12, 4), np.float32)
    decided, done = rng.random((2, 12, 4)) < 0.3
    last = rng.standard_normal(4).astype(np.float32)
    parts = reward, decided, value, done, end, last
    together = master_advantages(*parts, gamma=0.9, gae_lambda=0.8)
    for b in range(4):
        alone = master_advantages(*(p[..., b : b + 1] for p in parts), gamma=0.9, gae_lambda=0.8)
        assert np.array_equal(together[:, b], alone[:, 0])


def test_master_with_lambda_one_is_the_return_minus_the_value():
    rng = np.random.default_rng(2)
    reward, value = rng.standard_normal((2, 12, 3), np.float32)
    last = rng.standard_normal(3).astype(np.float32)
    decided = np.zeros((12, 3), bool)
    decided[::4] = True
    nothing = np.zeros((12, 3), np.float32)
    result = master_advantages(
        reward, decided, value, nothing.astype(bool), nothing, last, gamma=0.9, gae_lambda=1.0
    )
    total = last
    for t in (8, 4, 0):
        total = reward[t : t + 4].sum(axis=0) + 0.9 * total
        assert result[t] == pytest.approx(total - value[t], abs=1e-5)
