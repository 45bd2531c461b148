"""Who decides when, and what is recorded. The rule is told a second time here, in plain loops."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from policies.mlsh.actor_critic import Agent
from policies.mlsh.rollout import NO_OVERRIDE, Collector, Rollout
from sim.envs.vec_env import TaskVectorEnv
from sim.physics.robot_model import load_robot
from sim.tasks.moving_bandits import MovingBandits
from tests.support.bundles import small_config
from tests.support.fenced_bandits import FencedBandits, fields

K, N, GROUPS, ENVS = 3, 5, 2, 3
B = GROUPS * ENVS
TASK = np.repeat(np.arange(GROUPS), ENVS)  # group of each simulation


def make(*, lead=1, family=None, seed=0, threads=1, gain=3.0, **changes) -> Collector:
    """An agent with strong opinions, so that decisions depend on what is seen."""
    config = small_config()
    method = replace(
        config.mlsh,
        **{"skills": K, "decision_ticks": N, "decision_lead": lead, "groups": GROUPS} | changes,
        envs=8,
    )
    family = family or MovingBandits(ticks=20)
    env = TaskVectorEnv(
        load_robot("omni"),
        family,
        groups=GROUPS,
        envs=ENVS,
        seed=seed,
        threads=threads,
        tasks=[0, 1],
    )
    agent = Agent(
        observation_size=env.interface.observation_size,
        action_size=env.interface.action_size,
        skills=K,
        groups=GROUPS,
        network=config.network,
        master=config.master,
        skill=config.skill,
        seed=seed,
    )
    for level in (agent.masters, agent.skills):
        for row in range(level.count):
            rng = np.random.default_rng([seed, row])
            level.policy.initialize(row, rng, output_gain=gain, log_std=-1.0)
    agent.normalizer.update(np.random.default_rng(1).normal(0.1, 0.5, (100, 8)).astype(np.float32))
    return Collector(env, agent, method, seed)


def joined(rollouts: list[Rollout], name: str) -> np.ndarray:
    parts = [getattr(r, name) for r in rollouts]
    if name == "obs":  # the last one of a rollout is the first one of the next
        parts = [p[:-1] for p in parts[:-1]] + parts[-1:]
    return np.concatenate(parts)


def log_softmax(x: np.ndarray) -> np.ndarray:
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


FAMILIES = {"whole": MovingBandits(ticks=20), "ending early": FencedBandits(ticks=20)}


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("lead", [0, 1])
def test_when_the_master_decides_and_from_what(lead, family):
    collector = make(lead=lead, family=family)
    # 17 is no multiple of N nor of the episodes: decisions are in flight between rollouts.
    rollouts = [collector.collect(i, ticks=17) for i in range(4)]
    obs, done = joined(rollouts, "obs"), joined(rollouts, "done")
    decided, skill = joined(rollouts, "decided"), joined(rollouts, "skill")
    seen, log_prob = joined(rollouts, "decision_obs"), joined(rollouts, "decision_log_prob")
    early = 0
    for b in range(B):
        tick = 0  # of the episode
        for t in range(len(skill)):
            assert decided[t, b] == (tick % N == 0)
            if tick % N == 0:
                # Macro step k begins at tick kN; it was chosen at kN - L, and k = 0 at tick 0.
                from_tick = t if tick == 0 else t - lead
                assert np.array_equal(seen[t, b], obs[from_tick, b])
                logits = collector.agent.masters.policy.forward_row(TASK[b], seen[t, b][None])[0]
                expected = log_softmax(logits)[skill[t, b]]
                assert log_prob[t, b] == pytest.approx(expected, abs=1e-5)
            else:
                assert skill[t, b] == skill[t - 1, b]
            tick += 1
            early += bool(done[t, b] and tick % N)
            if done[t, b]:
                tick = 0
    assert (early > 10) == (family.name == "fenced_bandits")
    assert len(np.unique(skill)) == K


@pytest.mark.parametrize("lead", [0, 1])
def test_a_commitment_lasts_about_as_long_as_it_is_told(lead):
    collector = make(lead=lead, duration_jitter=0.4, family=MovingBandits(ticks=400))
    rollouts = [collector.collect(i, ticks=200) for i in range(4)]
    decided, skill = joined(rollouts, "decided"), joined(rollouts, "skill")
    obs, seen = joined(rollouts, "obs"), joined(rollouts, "decision_obs")
    lengths = []
    for b in range(B):
        at = np.flatnonzero(decided[:, b])
        inside = [t for t in at if t % 400]  # of an episode, after its first decision
        for t in inside:
            assert np.array_equal(seen[t, b], obs[t - lead, b])
        for start, end in pairwise(at):
            assert (skill[start:end, b] == skill[start, b]).all()
            if end % 400:
                lengths.append(end - start)
    # N = 5, 40 % of it is 2: 3 to 7 ticks, all as likely. About 900: error of the mean .05.
    assert np.unique(lengths).tolist() == [3, 4, 5, 6, 7]
    assert np.mean(lengths) == pytest.approx(5, abs=0.25)


@pytest.mark.parametrize("lead", [0, 1])
def test_no_episode_outlasts_the_family(lead):
    collector = make(lead=lead)
    rollout = collector.collect(0, ticks=41)
    # Episodes of 20 ticks: ticks 19 and 39 are the last of theirs.
    assert np.flatnonzero(rollout.done.all(axis=1)).tolist() == [19, 39]
    assert np.flatnonzero(rollout.done.any(axis=1)).tolist() == [19, 39]
    assert rollout.truncated[[19, 39]].all()
    assert not rollout.terminated.any()


def test_terminated_is_not_truncated():
    rollout = make(family=FAMILIES["ending early"]).collect(0, ticks=60)
    assert rollout.terminated.any()
    assert not (rollout.terminated & rollout.truncated).any()


def test_final_observations_are_those_before_the_reset():
    collector = make(family=FAMILIES["ending early"])
    rollout = collector.collect(0, ticks=60)
    t, b = rollout.final_at.T
    assert np.array_equal(np.argwhere(rollout.done), rollout.final_at)
    normalizer = collector.agent.normalizer
    shift, scale = normalizer.shift_and_scale
    final, reset = rollout.final_obs / scale + shift, rollout.obs[t + 1, b] / scale + shift
    # After the reset the robot is back at the origin and at rest; before, it is where it was.
    assert np.abs(reset[:, :4]).max() < 1e-6
    moved = np.abs(final[:, :2] - (rollout.raw[t, b, :2])).max(axis=1)
    assert (np.abs(final[:, :2]).max(axis=1) > 0.05).all()
    assert moved.max() <= 0.1 + 1e-5  # 1 m/s for a tick of 0.1 s
    # The goals are still those of the episode that ended.
    assert final[:, 4:] == pytest.approx(rollout.raw[t, b, 4:], abs=1e-5)


def test_action_is_the_active_skills_own():
    collector = make()
    rollout = collector.collect(0, ticks=20)
    policy = collector.agent.skills.policy
    for t in range(20):
        for b in range(B):
            k = rollout.skill[t, b]
            mean = policy.forward_row(k, rollout.obs[t, b][None])[0]
            std = np.exp(policy.log_std(k))
            z = (rollout.action[t, b] - mean) / std
            density = -0.5 * z @ z - np.log(std).sum() - np.log(2 * np.pi)
            assert rollout.log_prob[t, b] == pytest.approx(density, abs=1e-3)


def test_greedy_takes_the_most_probable_skill_and_the_mean_action():
    collector = make()
    rollout = collector.collect(0, ticks=40, greedy_master=True, greedy_skills=True)
    t, b = np.nonzero(rollout.decided)
    for row, obs in zip(zip(t, b, strict=True), rollout.decision_obs[t, b], strict=True):
        logits = collector.agent.masters.policy.forward_row(TASK[row[1]], obs[None])[0]
        assert rollout.skill[row] == logits.argmax()
    for t in range(40):
        means = collector.agent.means(rollout.obs[t], rollout.skill[t])
        assert np.array_equal(rollout.action[t], means)


def test_sampling_follows_the_masters_probabilities():
    collector = make(gain=0.0)  # equal logits, then biases for 70, 20 and 10 %
    for g in range(GROUPS):
        _, bias = collector.agent.masters.policy.layers(g)[-1]
        bias[:] = np.log([0.7, 0.2, 0.1])
    rollouts = [collector.collect(i, ticks=100) for i in range(10)]
    chosen = joined(rollouts, "skill")[joined(rollouts, "decided")]
    assert len(chosen) == 1200
    # Standard error of a share p: sqrt(p (1 - p) / 1200) <= 0.0145.
    share = np.bincount(chosen, minlength=K) / len(chosen)
    assert share == pytest.approx([0.7, 0.2, 0.1], abs=0.05)


@pytest.mark.parametrize("lead", [0, 1])
def test_forced_skills_run_whatever_the_master_says(lead):
    collector = make(lead=lead)
    skill_override = np.array([0, 1, 2, NO_OVERRIDE, NO_OVERRIDE, NO_OVERRIDE])
    rollout = collector.collect(0, ticks=40, skill_override=skill_override)
    assert (rollout.skill[:, :3] == skill_override[:3]).all()
    free = make(lead=lead).collect(0, ticks=40)
    assert np.array_equal(rollout.skill[:, 3:], free.skill[:, 3:])


@pytest.mark.parametrize("lead", [0, 1])
def test_some_decisions_are_drawn_and_said_to_be(lead):
    collector = make(lead=lead, gain=0.0, random_skill_fraction=0.3)
    for g in range(GROUPS):
        _, bias = collector.agent.masters.policy.layers(g)[-1]
        bias[:] = (100, 0, 0)
    rollouts = [collector.collect(i, ticks=100, random_skills=True) for i in range(10)]
    skill, is_random, decided = (joined(rollouts, n) for n in ("skill", "is_random", "decided"))
    # Of 1200 decisions: standard errors sqrt(.3 x .7 / 1200) = .013, sqrt(.1 x .9 / 1200) = .009.
    assert is_random[decided].mean() == pytest.approx(0.3, abs=0.05)
    share = np.bincount(skill[is_random & decided], minlength=K) / decided.sum()
    assert share == pytest.approx([0.1, 0.1, 0.1], abs=0.04)
    assert not skill[~is_random].any()
    for rollout in rollouts[:1]:
        for t in range(100):
            same = rollout.action[t] == collector.agent.means(rollout.obs[t], rollout.skill[t])
            assert np.array_equal(same.all(axis=1), rollout.is_random[t])
    changes = np.diff(is_random.astype(int), axis=0) != 0
    assert decided[1:][changes].all()  # a whole decision, or none of it
    skill_override = np.array([0, 1, 2, NO_OVERRIDE, NO_OVERRIDE, NO_OVERRIDE])
    rollout = collector.collect(10, ticks=100, skill_override=skill_override, random_skills=True)
    assert (rollout.skill[N:, :3] == skill_override[:3]).all()
    assert not rollout.is_random[N:, :3].any()
    assert rollout.is_random[:, 3:].any()


# Repeatable -------------------------------------------------------------------------------


def equal(a: Rollout, b: Rollout) -> bool:
    return all(np.array_equal(fields(a)[name], fields(b)[name]) for name in fields(a))


def test_same_seed_same_rollout_with_any_number_of_threads():
    first = [make().collect(i, ticks=30) for i in (0, 0)]
    assert equal(*first)
    assert equal(first[0], make(threads=2).collect(0, ticks=30))
    assert not equal(first[0], make().collect(1, ticks=30))


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_continues_from_its_state(family):
    collector = make(family=family, random_skill_fraction=0.5)
    collector.collect(
        0, ticks=15, random_skills=True
    )  # that for tick 15 has been decided on tick 14
    state = collector.state()
    expected = collector.collect(1, ticks=17, random_skills=True)
    other = make(family=family, random_skill_fraction=0.5)
    other.restore(state)
    assert equal(expected, other.collect(1, ticks=17, random_skills=True))


def test_another_task_begins_that_groups_episodes_anew_and_no_others():
    collector = make()
    collector.collect(0, ticks=7)
    before = collector.env.snapshot()
    raw = collector.raw.copy()
    collector.begin_group(1, 0)
    after = collector.env.snapshot()
    mine = TASK == 1
    assert collector.env.tasks.tolist() == [0, 0]
    assert after["ticks"].tolist() == [7, 7, 7, 0, 0, 0]
    for name in ("physics", "command", "layout.goals", "layout.slot"):
        assert np.array_equal(before[name][~mine], after[name][~mine])
    assert not np.array_equal(before["physics"][mine], after["physics"][mine])
    assert np.array_equal(collector.raw[~mine], raw[~mine])
    assert (collector.raw[mine, :4] == 0).all()
    assert (after["layout.slot"][mine] == 0).all()
    # Its first decision is taken from the new episode's first observation.
    rollout = collector.collect(1, ticks=1)
    assert rollout.decided[0].tolist() == mine.tolist()
    assert np.array_equal(rollout.decision_obs[0, mine], rollout.obs[0, mine])
