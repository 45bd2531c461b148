"""What is learned depends neither on the unit nor on the zero of the rewards."""

from dataclasses import replace

import numpy as np
import pytest

from policies.mlsh.mlsh import Mlsh
from policies.mlsh.reward_normalization import RewardNormalization
from policies.mlsh.samples import ScaledRewards, skill_samples
from sim.envs.reference_returns import ReferenceReturns
from sim.errors import UserError
from sim.tasks.registry import FAMILIES
from tests.support.bundles import small_config
from tests.support.shifted_bandits import FencedShiftedBandits, ShiftedBandits


@pytest.fixture(autouse=True)
def families(monkeypatch):
    for family in (ShiftedBandits, FencedShiftedBandits):
        monkeypatch.setitem(FAMILIES, family.name, family)


def trained(unit=1.0, bonus=0.0, family=ShiftedBandits, iterations=3) -> Mlsh:
    base = small_config()
    parameters = {"unit": unit, "bonus": bonus}
    method = replace(base.mlsh, warmup=1, joint=2)
    config = replace(base, family=family.name, family_parameters=parameters, mlsh=method)
    learner = Mlsh(config)
    for _ in range(iterations):
        learner.iterate()
    return learner


def weights(learner: Mlsh) -> np.ndarray:
    levels = (learner.agent.skills, learner.agent.masters)
    return np.concatenate([x.numpy.ravel() for y in levels for x in (y.policy, y.value)])


@pytest.mark.parametrize(("unit", "bonus"), [(100.0, 0.0), (1.0, 10.0), (1.0, -1.0)])
def test_unit_and_zero_of_the_rewards_change_nothing(unit, bonus):
    plain, other = trained(), trained(unit, bonus)
    assert weights(other) == pytest.approx(weights(plain), abs=2e-3)
    moved = np.abs(weights(plain) - weights(trained(iterations=0)))
    assert moved.max() > 0.05  # of updates that are many times as large
    assert other.probe.usual == pytest.approx(plain.probe.usual, abs=1e-5)


def test_units_are_of_the_returns_from_random_to_optimum():
    # 10 ticks: 0.2 per tick at random, 1 more at the optimum; the second task is a cost.
    tasks = [ReferenceReturns(2.0, 2.0, 12.0), ReferenceReturns(-40.0, -40.0, -20.0)]
    units = RewardNormalization.of(tasks, ticks=10)
    reward = np.array([[0.2, -4.0], [1.2, -2.0]], np.float32)
    assert units.rewards(reward, np.array([0, 1])).ravel() == pytest.approx([0, 0, 1, 1], abs=1e-6)
    assert units.returns(np.array([2.0, 7.0, 12.0]), 0) == pytest.approx([0, 0.5, 1])
    assert units.returns(np.array([-40.0, -20.0]), 1) == pytest.approx([0, 1])
    # Rewards of 0 for ever: -0.2 and +2 per tick in these units, 1 / (1 - 0.9) = 10 ticks long.
    assert units.terminal(np.array([0, 1]), 0.9, 1) == pytest.approx([-2, 20])
    # Without a discount, as long as an episode: 10 ticks, 2 decisions of 5 ticks.
    assert units.terminal(np.array([0, 1]), 1.0, 1) == pytest.approx([-2, 20])
    assert units.terminal(np.array([0, 1]), 1.0, 5) == pytest.approx([-0.4, 4])


def test_rewards_of_a_task_without_a_span_only_lose_their_mean():
    units = RewardNormalization.of([ReferenceReturns(5.0, 5.0, 5.0)], ticks=5)
    assert units.rewards(np.array([[1.0, 2.0]], np.float32), np.zeros(2, int)).tolist() == [[0, 5]]


def test_a_task_whose_optimum_is_not_above_random_is_refused_by_name():
    with pytest.raises(UserError, match="fenced_shifted_bandits/goal-0 cannot be scored: a rand"):
        trained(bonus=10.0, family=FencedShiftedBandits, iterations=0)


def test_a_termination_is_worth_what_it_is_worth_in_raw_rewards(monkeypatch):
    """Values in normalized units are those of raw rewards, less a constant and scaled."""
    # With a bonus for being alive the controller that drives to a goal is no optimum.
    monkeypatch.setattr(ReferenceReturns, "check", lambda *_: None)
    learner = trained(bonus=10.0, family=FencedShiftedBandits, iterations=0)
    rollout = learner.collector.collect(0, ticks=50)
    assert rollout.terminated.any()
    joint, level = np.ones(len(learner.groups), bool), learner.agent.skills
    task = np.repeat(learner.schedule.tasks, learner.method.envs)
    random, span = learner.scores.random, learner.scores.span
    assert np.ptp(random) == pytest.approx(0, abs=0.05)  # both tasks are about alike
    for stack in (level.value,):
        stack.numpy[:] = 0  # raw values are then those of random actions, forever
    rewards = learner.updates.skill_rewards(rollout)
    ours = skill_samples(level, rollout, rewards, joint, learner.method)
    raw = ScaledRewards(rollout.reward, np.zeros(len(task), np.float32))
    constant = random.mean() / (1 - level.ppo.gamma)
    for row in range(level.count):
        level.value.layers(row)[-1][1][:] = constant
    theirs = skill_samples(level, rollout, raw, joint, learner.method)
    for mine, other in zip(ours, theirs, strict=True):
        assert np.abs(other.advantage).max() > 100  # what ends pays no bonus any more
        scaled = other.advantage / span.mean()
        assert mine.advantage == pytest.approx(scaled, rel=0.05, abs=3)
