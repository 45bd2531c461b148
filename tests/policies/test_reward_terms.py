"""Every reward term is logged for every task, and what is logged adds up to the reward."""

import re

import numpy as np
import pytest

from policies.mlsh.mlsh import Mlsh
from policies.mlsh.presets import default_config
from policies.training.metrics import column_names, describe, read_rows
from policies.training.run import create_run
from policies.training.train import train
from sim.errors import UserError
from sim.physics.robot_model import load_robot
from sim.tasks.rewards import Rewards, RewardTerm
from sim.tasks.rewards.reward_sum import RewardSum
from sim.tasks.rewards.weights import WeightedTerm
from sim.tasks.velocity_commands import WALKING

pytestmark = pytest.mark.usefixtures("without_curves")
# Three commands for two groups of four robots: 80 steps in an iteration.
SMALL = [
    *("mlsh.groups=2", "mlsh.envs=4", "mlsh.skills=2", "mlsh.decision_ticks=10"),
    *("mlsh.rollout_ticks=10", "mlsh.warmup=0", "network.hidden=[8]", "threads=1"),
    *("family_parameters.commands=2", "family_parameters.ticks=20", "steps=240"),
]
PAYS_OR_COSTS = ("feet_air_time", "speed_along_command", "turn_along_command")
TASKS = ("ahead", "back")


WHOLE = {"curriculum.cost_scale": "1", "curriculum.cost_until": "0"}  # from the first step on


def small(*more):
    given = {each.partition("=")[0] for each in more}
    whole = [f"{key}={value}" for key, value in WHOLE.items() if key not in given]
    return default_config("velocity_commands", "go2").with_values([*SMALL, *whole, *more])


def test_what_terms_bring_adds_up_to_the_reward_of_a_rollout():
    learner = Mlsh(small("mlsh.probe=none"))
    rewards, collect = [], learner.collector.collect

    def kept(*arguments, **how):
        rewards.append(collect(*arguments, **how))
        return rewards[-1]

    learner.collector.collect = kept
    for _ in range(3):
        brought = learner.iterate().reward_terms
        assert tuple(brought) == WALKING.names
        means = rewards[-1].reward.reshape(10, 2, 4).mean(axis=(0, 2))
        np.testing.assert_allclose(sum(brought.values()), means, rtol=1e-5)


def test_metrics_have_a_column_for_every_term_and_task(tmp_path):
    run = create_run(small(), tmp_path / "run")
    train(run)
    rows = read_rows(run.path / "metrics.csv")
    header = (run.path / "metrics.csv").read_text().partition("\n")[0].split(",")
    assert header == column_names(TASKS, 2, WALKING.names)
    for row in rows:
        for task in TASKS:
            columns = [f"reward/{task}/{name}" for name in WALKING.names]
            # As with the return, of tasks that a group has.
            assert [column in row for column in columns] == [f"return/{task}" in row] * 21
            if f"return/{task}" in row:
                assert row[f"reward/{task}/track_yaw_rate"] > 0 > row[f"reward/{task}/torque"]


def test_a_family_without_terms_has_no_such_columns():
    learner = Mlsh(default_config("moving_bandits", "omni").with_values(["threads=1"]))
    iteration = learner.iterate()
    assert iteration.reward_terms == {}
    row = describe(iteration, ("goal-0", "goal-1"), learner.reference_returns, 0, 1.0, 1.0)
    assert not [name for name in row if name.startswith("reward/")]


CURRICULUM = ("curriculum.cost_scale=0.25", "curriculum.cost_until=1")  # three iterations


def test_costs_grow_to_their_weights():
    plain, eased = Mlsh(small()), Mlsh(small(*CURRICULUM))
    whole, part = plain.iterate().reward_terms, eased.iterate().reward_terms
    for each in WALKING.terms:  # the same rollout: nothing was learned yet
        if each.term.name in PAYS_OR_COSTS:
            assert (part[each.term.name] >= whole[each.term.name]).all()
            continue
        factor = 0.25 if each.weight < 0 else 1.0
        np.testing.assert_allclose(part[each.term.name], factor * whole[each.term.name])
    assert eased.steps == 80
    scales = []
    for _ in range(4):
        eased.iterate()
        scales.append(eased.env.world.terms.cost_scale)
    assert scales == [0.5, 0.75, 1.0, 1.0]


def test_masters_alone_pay_the_whole_costs():
    learner = Mlsh(small(*CURRICULUM), freeze_skills=True, tasks=[0, 1])
    learner.iterate()
    assert learner.env.world.terms.cost_scale == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (CURRICULUM[:1], "cost_scale 0.25 needs cost_until, the part of the steps after which"),
        (CURRICULUM[1:], "cost_until 1 has no effect with cost_scale 1"),
        (("curriculum.cost_scale=2",), "less than or equal to 1"),
        (("curriculum.cost_scale=-1",), "greater than or equal to 0"),
        (("curriculum.cost_until=1.5",), "less than or equal to 1"),
        (("curriculum.cost_until=-0.1",), "greater than or equal to 0"),
        (("curriculum.speed=1",), "curriculum.speed"),
    ],
)
def test_a_curriculum_that_cannot_be_is_refused(settings, said):
    with pytest.raises(UserError, match=re.escape(said)):
        small(*settings)


def test_a_family_without_reward_terms_has_no_curriculum_on_them(tmp_path):
    config = default_config("moving_bandits", "omni").with_values([*CURRICULUM])
    said = "^curriculum.cost_scale 0.25: task family 'moving_bandits' has no reward terms"
    with pytest.raises(UserError, match=said):
        create_run(config, tmp_path / "run")


def test_what_a_term_pays_is_paid_whole_where_it_subtracts_elsewhere():
    """3 times -1, 0 and 2, of which a quarter of the costs is paid."""
    term = RewardTerm("swings", lambda _: np.array([-1.0, 0, 2]), "1", (), "this test")
    made = Rewards((WeightedTerm(term, 3.0, ()),))
    rewards = RewardSum(made, load_robot("go2"), 3, "family", has_command=False)
    rewards.cost_scale = 0.25
    values = rewards.evaluate({}, np.zeros((3, 0)), np.zeros((3, 12)), 0.02)
    assert values.tolist() == [[-0.75], [0], [6]]


@pytest.mark.parametrize("more", [(), CURRICULUM], ids=["plain", "curriculum"])
def test_it_goes_on_from_a_checkpoint_bit_for_bit(more):
    config = small(*more)
    first = Mlsh(config)
    for _ in range(2):
        first.iterate()
    kept = first.state()
    second = Mlsh(config)
    second.restore(kept)
    one, other = (learner.iterate() for learner in (first, second))
    np.testing.assert_array_equal(one.returns, other.returns)
    for name, brought in one.reward_terms.items():
        np.testing.assert_array_equal(brought, other.reward_terms[name])


def test_a_robot_without_feet_is_refused_before_a_folder_is_made(tmp_path):
    config = default_config("velocity_commands", "ant")
    with pytest.raises(UserError, match=r"'ant' states no mirror image; .* to none$"):
        create_run(config, tmp_path / "run")
    config = config.with_values(["regularization.symmetry=none"])
    with pytest.raises(UserError, match=r"task family 'velocity_commands': reward term 'feet_"):
        create_run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
