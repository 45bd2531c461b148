"""Stable-Baselines3 on our environment: the same episodes, the same experience."""

import csv
from dataclasses import replace

import numpy as np
import pytest

from policies.experiments import sb3_baseline as sb3
from policies.experiments import sweep
from policies.experiments.ablations import variants
from policies.experiments.results_table import plot, summarize
from policies.mlsh.mlsh import Mlsh
from policies.training.adapt import greedy_scores
from sim.envs.vec_env import TaskVectorEnv
from sim.errors import UserError
from sim.physics.robot_model import load_robot
from sim.tasks.registry import make_family
from sim.tasks.task_id import TaskId
from tests.benchmarks.sb3 import Learner, OnTask, learn
from tests.support.bundles import made_up_bounds, small_config


class Ours:
    """The one skill of a learner of ours, behind the call that SB3's models have."""

    def __init__(self, learner):
        self.agent = learner.agent

    def predict(self, obs, *, deterministic):
        assert deterministic
        skill = np.zeros(len(obs), np.intp)
        return self.agent.means(self.agent.normalizer(obs), skill), None


@pytest.fixture(autouse=True)
def no_bounds(monkeypatch):
    """They take longer than all that is tested here."""
    monkeypatch.setattr("policies.mlsh.mlsh.all_reference_returns", made_up_bounds)
    monkeypatch.setattr("policies.experiments.results_table.all_reference_returns", made_up_bounds)
    monkeypatch.setattr("tests.benchmarks.sb3.all_reference_returns", made_up_bounds)


def test_both_are_scored_alike():
    """A policy of ours gets the same score from either evaluation."""
    config = small_config(seed=3)
    method = replace(config.mlsh, skills=1, groups=1, probe="none")
    learner = Mlsh(replace(config, mlsh=method), tasks=[1])
    learner.agent.skills.policy.initialize(0, np.random.default_rng(0), output_gain=0.3)
    (ours,) = greedy_scores(learner, 64)
    assert ours[0] > 0.5  # it passes the goal now and then
    assert sb3.greedy_score(Ours(learner), config, 1, 64) == pytest.approx(ours, rel=1e-6)


def test_our_environment_as_sb3_wants_it():
    family = make_family("moving_bandits")
    kept, plain = (
        TaskVectorEnv(load_robot("omni"), family, groups=1, envs=3, tasks=[0]) for _ in range(2)
    )
    theirs = sb3.OverOurs(kept)
    np.testing.assert_array_equal(theirs.reset(), plain.reset()[0])
    action = np.full((3, 2), 0.5, np.float32)
    for tick in range(family.ticks + 1):
        obs, reward, done, infos = theirs.step(action)
        expected = plain.step(action)
        np.testing.assert_array_equal(obs, expected[0])
        np.testing.assert_allclose(reward, expected[1])
        ended = tick == family.ticks - 1
        assert done.tolist() == [ended] * 3
        for i, info in enumerate(infos):
            assert info.get("TimeLimit.truncated", False) == ended
            if ended:
                final = expected[4]["final_obs"][i]
                np.testing.assert_array_equal(info["terminal_observation"], final)
                assert (info["terminal_observation"] != obs[i]).any()


def planned(folder):
    sizes = ["mlsh.groups=2", "mlsh.envs=4", "mlsh.rollout_ticks=50"]
    chosen = {k: replace(v, settings=tuple(sizes)) for k, v in variants(["sb3"]).items()}
    return sweep.plan("moving_bandits", "omni", chosen, [0], folder)


@pytest.mark.slow
def test_it_is_a_variant_of_a_sweep(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "ADAPTATION_UPDATES", 1)
    (job,) = planned(tmp_path)
    assert sweep.run_job(job) == ""
    rows = list(csv.DictReader(job.result.open()))
    assert [(r["task"], int(r["steps"])) for r in rows] == [
        (task, steps) for task in ("goal-0", "goal-1") for steps in (0, 2000)
    ]
    (summary,) = summarize([job])
    (outcome,) = summary.outcomes
    assert summary.variant == "sb3"
    assert outcome.scores.shape == (2, 2)
    assert (outcome.returns[:, 1] != outcome.returns[:, 0]).all()
    plot([summary], 0.95, tmp_path / "all.png")
    again = sb3.learn(job.config, 0, updates=1)
    assert [p.greedy for p in again] == pytest.approx(outcome.returns[0].tolist(), abs=1e-4)


def test_without_the_package_nothing_begins(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"variant 'sb3' needs stable-baselines3: .*\[bench\]"):
        planned(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_policy_that_observes_the_task_sees_that_of_each_episode_up_to_its_last_observation():
    env = Learner("ppo", TaskId("ring_bandits"), 0, observes_task=True).environment()
    obs = env.reset()
    assert env.observation_space.shape == (8 + 3,)
    tasks, drawn = obs[:, 8:], set()
    for _ in range(6):  # episodes
        assert (tasks.sum(axis=1) == 1).all()
        drawn |= set(tasks.argmax(axis=1))
        for tick in range(50):
            before = obs
            obs, _, done, infos = env.step(np.zeros((8, 2), np.float32))
            assert done.all() == (tick == 49)
            if tick < 49:
                np.testing.assert_array_equal(obs[:, 8:], before[:, 8:])
        last = np.stack([info["terminal_observation"] for info in infos])
        np.testing.assert_array_equal(last[:, 8:], tasks)
        tasks = obs[:, 8:]
    assert drawn == {0, 1, 2}


def test_a_policy_that_observes_the_task_is_scored_with_the_task_that_counts():
    class Reads:
        def predict(self, obs, *, deterministic):
            return obs[:, -2:], None

    policy = OnTask(Reads(), np.array([0, 1], np.float32))
    actions, _ = policy.predict(np.zeros((5, 8), np.float32), deterministic=True)
    assert actions.tolist() == [[0, 1]] * 5


@pytest.mark.slow
def test_steps_to_a_score_are_counted_from_where_the_task_begins(capsys):
    learner = Learner("ppo", TaskId("moving_bandits", "goal-1"), 0, observes_task=False)
    model = learner.fresh()
    assert learn(learner, model, steps=4096, every=2048, target=-10) == 0
    assert learn(learner, model, steps=4096, every=2048, target=10) is None
    assert learn(learner, model, steps=2048, every=2048, target=10) is None
    steps = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert steps == ["0", "0", "2,048", "4,096", "0", "2,048"]
