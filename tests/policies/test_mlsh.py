"""The method: phases, tasks, who learns when, and going on bit for bit."""

from dataclasses import replace

import numpy as np
import pytest

from policies.mlsh.config import TrainConfig
from policies.mlsh.mlsh import Mlsh
from policies.mlsh.ppo import UpdateStats
from policies.mlsh.updates import Updates
from policies.training.adapt import adapt
from sim.errors import UserError
from sim.files.arrays import load_arrays, save_arrays
from sim.tasks.registry import FAMILIES
from tests.support.bundles import small_config
from tests.support.fenced_bandits import FencedBandits


def config(*, family="moving_bandits", seed=0, **changes) -> TrainConfig:
    base = replace(small_config(seed), family=family)
    return replace(base, mlsh=replace(base.mlsh, **changes))


def networks(learner: Mlsh, name: str) -> np.ndarray:
    level = getattr(learner.agent, name)
    return np.concatenate([level.policy.numpy, level.value.numpy], axis=1).copy()


def differences(one: dict, other: dict) -> list[str]:
    assert one.keys() == other.keys()
    return [k for k in one if not np.array_equal(one[k], other[k])]


@pytest.fixture
def fenced(monkeypatch):
    monkeypatch.setitem(FAMILIES, "fenced_bandits", FencedBandits)
    return "fenced_bandits"


# Phases -----------------------------------------------------------------------------------


def test_stagger_covers_all_phases():
    learner = Mlsh(config(groups=6, warmup=2, joint=1))
    for _ in range(7):
        ages = learner.iterate().age
        assert np.bincount(ages, minlength=3).tolist() == [2, 2, 2]
    # As many groups as updates: one in every phase.
    assert Mlsh(config(groups=6, warmup=4, joint=2)).schedule.age.tolist() == [0, 1, 2, 3, 4, 5]
    # Fewer groups than phases: as evenly as whole numbers allow.
    assert Mlsh(config(groups=4, warmup=7, joint=3)).schedule.age.tolist() == [0, 2, 5, 7]


def test_skills_learn_in_joint_phases_and_masters_always():
    # Probing iterations (the first on a task) leave the master to the probe.
    learner = Mlsh(config(groups=1, warmup=2, joint=1))
    for number in range(7):
        skills, masters = networks(learner, "skills"), networks(learner, "masters")
        it = learner.iterate()
        age = number % 3
        assert it.age.tolist() == [age]
        assert it.probing.tolist() == [age == 0]
        joint = age == 2
        assert (it.skill is not None) == joint
        assert np.array_equal(networks(learner, "skills"), skills) != joint
        if age > 0:
            assert not np.array_equal(networks(learner, "masters"), masters)


def test_only_groups_in_their_joint_phase_teach_the_skills(monkeypatch):
    learner = Mlsh(config(groups=4, warmup=1, joint=1, skill_bootstrap="same", probe="none"))
    seen = []

    def update(level, samples, shuffle, **_):
        seen.append((level, samples))
        return UpdateStats(0, 0, 0, 0, 0)

    rollouts = []
    collect = learner.collector.collect
    monkeypatch.setattr("policies.mlsh.updates.ppo_update", update)
    monkeypatch.setattr(
        learner.collector,
        "collect",
        lambda *a, **k: rollouts.append(collect(*a, **k)) or rollouts[-1],
    )
    it = learner.iterate()
    assert it.age.tolist() == [0, 0, 1, 1]
    joint = np.repeat(it.age >= 1, learner.method.envs)
    (_, masters), (level, skills) = seen
    assert level is learner.agent.skills
    (rollout,) = rollouts
    for k, samples in enumerate(skills):
        # Each skill is credited with the ticks on which it was active, and with no others.
        mine = (rollout.skill == k) & joint
        assert len(samples) == mine.sum() > 0
        assert np.array_equal(samples.action, rollout.action[mine])
        assert np.array_equal(samples.obs, rollout.obs[:-1][mine])
        assert np.array_equal(samples.log_prob, rollout.log_prob[mine])
    for g, samples in enumerate(masters):
        group = np.repeat(np.arange(4) == g, learner.method.envs)
        mine = rollout.decided & group
        assert len(samples) == mine.sum() == learner.method.envs * 5  # 50 ticks, N = 10
        assert np.array_equal(samples.action, rollout.skill[mine])
        assert np.array_equal(samples.obs, rollout.decision_obs[mine])


def test_statistics_settle_while_the_skills_learn_and_stay_when_frozen():
    learner = Mlsh(config())
    learner.iterate()
    assert learner.agent.normalizer.count == learner.method.steps_per_iteration
    frozen = Mlsh(config(), freeze_skills=True, tasks=[0, 1])
    skills = networks(frozen, "skills")
    for _ in range(3):
        assert frozen.iterate().skill is None
    assert frozen.agent.normalizer.count == 0
    assert np.array_equal(networks(frozen, "skills"), skills)
    assert frozen.env.tasks.tolist() == [0, 1]


# Tasks ------------------------------------------------------------------------------------


def test_another_task_means_a_master_that_never_was():
    learner = Mlsh(config(groups=2, warmup=1, joint=1))
    known = [row.tobytes() for row in networks(learner, "masters")]
    for _ in range(8):
        due = np.flatnonzero(learner.schedule.age >= 2)
        learner._change_tasks()
        for g in due:
            row = networks(learner, "masters")[g]
            assert row.tobytes() not in known
            known.append(row.tobytes())
            for adam in (learner.agent.masters.policy_adam, learner.agent.masters.value_adam):
                assert not adam.first[g].any()
                assert not adam.second[g].any()
                assert adam.steps[g] == 0
            assert learner.schedule.fresh[g]
            assert learner.schedule.age[g] == 0
        learner.iterate()
        # The next one must differ from what became of these as well.
        known += [row.tobytes() for row in networks(learner, "masters")]
    assert (
        learner.schedule.masters_made == 2 + 7
    )  # group 1 begins at age 1, so one of them every iteration


def test_another_task_resets_its_own_groups_simulations_only():
    learner = Mlsh(config(groups=2, warmup=1, joint=1, rollout_ticks=30))
    learner.iterate()
    learner._change_tasks()  # group 1 is at its end
    before = learner.env.snapshot()
    assert before["ticks"].tolist() == [30] * 4 + [0] * 4
    masters = networks(learner, "masters")
    learner.schedule.age[:] = 0, 2
    learner._change_tasks()
    after = learner.env.snapshot()
    for name in ("physics", "ticks", "command", "episodes", "layout.goals", "layout.slot"):
        assert np.array_equal(after[name][:4], before[name][:4])
    assert not np.array_equal(after["layout.goals"][4:], before["layout.goals"][4:])
    assert np.array_equal(networks(learner, "masters")[0], masters[0])
    assert not np.array_equal(networks(learner, "masters")[1], masters[1])


@pytest.mark.parametrize("family", ["moving_bandits", "ring_bandits"])
def test_balanced_tasks_are_balanced(family):
    learner = Mlsh(config(family=family, groups=4, warmup=1, joint=2))
    for _ in range(9):
        count = np.bincount(learner.iterate().task, minlength=len(learner.family.tasks))
        assert count.max() - count.min() <= 1


def test_unbalanced_tasks_are_drawn_at_random():
    learner = Mlsh(config(groups=4, warmup=1, joint=1, balanced_tasks=False))
    counts = {tuple(np.bincount(learner.iterate().task, minlength=2)) for _ in range(12)}
    assert len(counts) > 2


# Probe ------------------------------------------------------------------------------------


def test_probe_sets_the_masters_first_guess(monkeypatch):
    learner = Mlsh(config(groups=2))
    given = []

    def bias(returns, _):
        given.append(returns)
        return np.array([1, -2], np.float32)

    monkeypatch.setattr(learner.probe, "bias", bias)
    expected = networks(learner, "masters")
    ran = []
    collect = learner.collector.collect
    monkeypatch.setattr(
        learner.collector, "collect", lambda *a, **k: ran.append(collect(*a, **k)) or ran[-1]
    )
    it = learner.iterate()
    assert it.probing.all()
    # Simulation e of a group runs skill e mod K, all the time.
    assert (ran[0].skill == [0, 1, 0, 1] * 2).all()
    limits = [learner.reference_returns[task] for task in learner.schedule.tasks]
    expected_returns = ran[0].reward.sum(axis=0).reshape(2, 4)
    for group, (limit, totals) in enumerate(zip(limits, expected_returns, strict=True)):
        assert given[group] == pytest.approx([limit.normalize(total) for total in totals])
    # But for the output bias masters are as they were: the probing iteration has no update.
    policy = learner.agent.masters.policy
    for g in range(2):
        _, out = policy.layers(g)[-1]
        assert out.tolist() == [1, -2]
        out[:] = 0
    assert np.array_equal(networks(learner, "masters"), expected)


def test_probed_returns_are_of_whole_episodes(monkeypatch):
    # 30 of an episode's 50 ticks are seen.
    learner = Mlsh(config(groups=1, rollout_ticks=30))
    totals = []
    monkeypatch.setattr(learner.probe, "bias", lambda r, _: totals.append(r) or np.zeros(2, "f4"))
    collect = learner.collector.collect

    def paid(*args, **kwargs):
        rollout = collect(*args, **kwargs)
        rollout.reward[:] = 1
        return rollout

    monkeypatch.setattr(learner.collector, "collect", paid)
    learner.iterate()
    limit = learner.reference_returns[learner.schedule.tasks[0]]
    assert totals[0] == pytest.approx([limit.normalize(50)] * 4)  # 30 in 30 ticks


@pytest.mark.parametrize("rollout_ticks", [50, 30])
def test_returns_are_of_one_episode_where_it_ends_early(monkeypatch, fenced, rollout_ticks):
    """Each tick pays 1, and every episode is ended after ten ticks of 50: its return is 10."""
    learner = Mlsh(config(groups=1, rollout_ticks=rollout_ticks, family=fenced))
    monkeypatch.setattr(FencedBandits, "terminated", lambda *_: learner.env.world.ticks >= 10)
    totals = []
    monkeypatch.setattr(learner.probe, "bias", lambda r, _: totals.append(r) or np.zeros(2, "f4"))
    monkeypatch.setattr(FencedBandits, "reward", lambda self, layout, fields: np.ones(4))
    probed, learned = learner.iterate(), learner.iterate()
    limit = learner.reference_returns[learner.schedule.tasks[0]]
    assert totals[0] == pytest.approx([limit.normalize(10)] * 4)
    assert [each.returns[0] for each in (probed, learned)] == pytest.approx([10, 10])


def test_a_skill_is_started_anew_once_no_task_misses_it(monkeypatch):
    learner = Mlsh(config(groups=1, warmup=5, joint=1))
    monkeypatch.setattr(learner.probe, "redundant_skill", lambda progress: 1)
    other, mine = networks(learner, "skills")
    learner.agent.skills.policy_adam.steps[:] = 9
    learner.probe.usual[:] = 1
    learner.probe.recent.append(np.ones(2))
    learner.probe.by_state.append(np.ones(2))
    assert learner.iterate().reset_skill == 1
    kept, fresh = networks(learner, "skills")
    assert np.array_equal(kept, other)
    assert not np.array_equal(fresh, mine)
    assert learner.agent.skills.policy_adam.steps[:, 0].tolist() == [9, 0]
    assert not learner.probe.recent
    assert not learner.probe.by_state
    assert learner.probe.resets.tolist() == [0, 1]
    assert not learner.probe.usual.any()
    assert learner.iterate().reset_skill is None  # no probe in this iteration, so no decision


# Astray -----------------------------------------------------------------------------------


def test_nobody_learns_from_what_went_astray():
    learner = Mlsh(config(groups=1, warmup=0, joint=9, probe="none", random_skill_fraction=0.4))
    _, bias = learner.agent.masters.policy.layers(0)[-1]
    bias[:] = (100, -100)  # skill 1 is never chosen
    before, used = networks(learner, "skills"), False
    master = learner.agent.masters.policy.numpy.copy()
    for _ in range(3):
        it = learner.iterate()
        used |= learner.collector.skill.any()
        assert it.usage.tolist() == [[1, 0]]
    after = networks(learner, "skills")
    assert used
    assert not np.array_equal(before[0], after[0])
    assert np.array_equal(before[1], after[1])
    # A choice that was certain has no gradient at all; one that was never made would have.
    assert np.array_equal(learner.agent.masters.policy.numpy, master)


def test_a_master_that_learns_alone_is_not_led_astray():
    learner = Mlsh(
        config(random_skill_fraction=0.9, probe="none"), freeze_skills=True, tasks=[0, 1]
    )
    for g in range(2):
        _, bias = learner.agent.masters.policy.layers(g)[-1]
        bias[:] = (100, -100)
    learner.iterate()
    assert not learner.collector.skill.any()
    assert not learner.collector.is_random.any()


# Going on bit for bit -----------------------------------------------------------------------


def numbers(it) -> list:
    parts = [it.number, it.steps, it.reset_skill, it.master, it.skill]
    return parts + [x.tolist() for x in (it.age, it.task, it.returns, it.usage, it.probing)]


@pytest.mark.parametrize("ticks", [50, 30], ids=["whole episodes", "amid episodes"])
@pytest.mark.parametrize("ending", ["in time", "early"])
def test_resume_is_bit_identical(tmp_path, fenced, ticks, ending):
    family = fenced if ending == "early" else "moving_bandits"
    each = config(
        family=family, groups=3, warmup=1, joint=1, rollout_ticks=ticks, random_skill_fraction=0.3
    )
    whole = Mlsh(each)
    expected = [whole.iterate() for _ in range(6)]
    first = Mlsh(each)
    for _ in range(3):
        first.iterate()
    save_arrays(tmp_path / "state.npz", first.state())
    second = Mlsh(each)
    second.restore(load_arrays(tmp_path / "state.npz"))
    again = [second.iterate() for _ in range(3)]
    assert [numbers(it) for it in again] == [numbers(it) for it in expected[3:]]
    assert differences(whole.state(), second.state()) == []


def test_state_is_a_copy():
    learner = Mlsh(config())
    state = learner.state()
    kept = {name: value.copy() for name, value in state.items()}
    learner.iterate()
    assert differences(state, kept) == []
    assert len(differences(learner.state(), kept)) > 10


def test_same_seed_same_training():
    one, two, other = (Mlsh(config(seed=seed)) for seed in (3, 3, 4))
    for learner in (one, two, other):
        learner.iterate()
    assert differences(one.state(), two.state()) == []
    assert "skills.policy" in differences(one.state(), other.state())


@pytest.mark.parametrize("change", [{"groups": 3}, {"envs": 6}, {"skills": 1}])
def test_a_state_of_another_configuration_is_refused(change):
    state = Mlsh(config()).state()
    with pytest.raises(ValueError, match="has shape"):
        Mlsh(config(**change)).restore(state)


def test_a_state_of_one_group_is_not_spread_over_two():
    state = Mlsh(config(groups=1)).state()
    with pytest.raises(ValueError, match=r"masters\.policy has shape"):
        Mlsh(config(groups=2)).restore(state)


# It works -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_skills_come_to_divide_two_tasks():
    small = small_config()
    method = replace(small.mlsh, groups=6, envs=16, warmup=1, joint=14)
    # A few times faster than the default recipe, and good enough for a test.
    large = replace(small, mlsh=method, skill=replace(small.skill, epochs=10, minibatch=512))
    learner = Mlsh(replace(large, skill=replace(large.skill, learning_rate=1e-3)))
    for _ in range(40):
        learner.iterate()
    state = learner.state()
    result = adapt(large, lambda a: a.restore_skills(state), [0, 1], updates=5, episodes=64)
    for curve, limit in zip(result.curves, learner.reference_returns, strict=True):
        assert limit.normalize(curve[-1].greedy) > 0.9


# Keeping masters undecided, and apart ------------------------------------------------------------


def test_the_masters_entropy_counts_less_and_less_while_it_warms_up():
    learner = Mlsh(config(groups=4, warmup=4, joint=4))
    ppo = replace(learner.config.master, entropy=0.1)
    updates = learner.updates
    updates.config = replace(learner.config, master=ppo)
    learner.schedule.age = np.array([0, 1, 4, 7])
    assert updates._entropy() == pytest.approx([0.1, 0.075, 0, 0])


def test_information_pays_choices_that_tell_the_task():
    learner = Mlsh(config(groups=2, envs=4, mutual_information_coef=0.5, probe="none"))
    learner.schedule.tasks = np.array([0, 1])
    rollout = learner.collector.collect(0, ticks=20)
    decided = np.zeros_like(rollout.decided)
    decided[[0, 10]] = True
    skill = rollout.skill.copy()
    skill[:, :4], skill[:, 4:] = 0, 1  # each group has its own
    rollout = replace(rollout, decided=decided, skill=skill)
    bonus_of = learner.updates._information
    bonus = bonus_of(rollout, 0)
    # Of 8 choices (8 + 1) / (8 + 2) and 1 / 10 on either task, 1/2 over both.
    expected = 0.5 * np.log(0.9 / 0.5)  # in units of what a decision can earn
    assert bonus[decided] == pytest.approx(expected)
    assert not bonus[~decided].any()
    # Both on one task tell nothing, nor do two that choose alike.
    learner.schedule.tasks = np.array([0, 0])
    assert np.abs(bonus_of(rollout, 0)).max() == pytest.approx(0, abs=1e-6)
    learner.schedule.tasks = np.array([0, 1])
    alike = replace(rollout, skill=np.zeros_like(skill))
    assert np.abs(bonus_of(alike, 0)).max() == pytest.approx(0, abs=1e-6)
    # It fades.
    assert not bonus_of(rollout, learner.config.iterations).any()


@pytest.mark.parametrize("frozen", [True, False])
def test_a_master_on_frozen_skills_is_not_paid_for_information(monkeypatch, frozen):
    asked = []
    bonus = Updates._information
    monkeypatch.setattr(Updates, "_information", lambda *args: asked.append(True) or bonus(*args))
    learner = Mlsh(config(groups=2, envs=4, mutual_information_coef=0.5), freeze_skills=frozen)
    learner.iterate()
    assert bool(asked) is not frozen


# How far apart skills are ---------------------------------------------------------------------


def test_distance_is_a_share_of_the_largest_possible_however_sharp_the_exploration():
    learner = Mlsh(config(groups=2), freeze_skills=True, tasks=[0, 1])
    skills = learner.agent.skills.policy
    for k, (x, y) in enumerate(((1, 0.5), (-9, 0.5))):
        skills.initialize(k, np.random.default_rng(0), output_gain=0.0, log_std=-3.0 * k)
        _, bias = skills.layers(k)[-1]
        bias[:] = x, y
    # Beyond its limit a command goes no further: (1, 0.5) and (-1, 0.5), half of sqrt(4 / 2).
    assert learner.iterate().distance == pytest.approx(np.sqrt(2) / 2)


# What skills see ---------------------------------------------------------------------------


def test_skills_do_not_see_what_is_hidden_from_them():
    small = config(warmup=0, joint=2, groups=2)
    blind = replace(small.network, hidden_from_skills=("position",))
    learner = Mlsh(replace(small, network=blind))
    before = networks(learner, "skills")
    for _ in range(3):
        learner.iterate()
    assert not np.array_equal(networks(learner, "skills"), before)
    columns = learner.env.interface.observation_slices["position"]
    obs = np.random.default_rng(0).standard_normal((40, learner.env.interface.observation_size))
    moved = obs.copy()
    moved[:, columns] += 3
    skills, masters = learner.agent.skills, learner.agent.masters
    for level, sees in ((skills.policy, False), (skills.value, True), (masters.policy, True)):
        one, other = (level.forward_row(1, x.astype(np.float32)) for x in (obs, moved))
        assert np.array_equal(one, other) != sees


def test_masters_do_not_see_what_is_hidden_from_them():
    small = config(warmup=0, joint=2, groups=2)
    blind = replace(small.network, hidden_from_masters=("velocity",))
    learner = Mlsh(replace(small, network=blind))
    before = networks(learner, "masters")
    for _ in range(3):
        learner.iterate()
    assert not np.array_equal(networks(learner, "masters"), before)
    columns = learner.env.interface.observation_slices["velocity"]
    obs = np.random.default_rng(0).standard_normal((40, learner.env.interface.observation_size))
    moved = obs.copy()
    moved[:, columns] += 3
    skills, masters = learner.agent.skills, learner.agent.masters
    for level, sees in ((masters.policy, False), (masters.value, False), (skills.policy, True)):
        one, other = (level.forward_row(1, x.astype(np.float32)) for x in (obs, moved))
        assert np.array_equal(one, other) != sees


@pytest.mark.parametrize("setting", ["hidden_from_skills", "hidden_from_masters"])
def test_an_unknown_term_cannot_be_hidden(setting):
    small = config()
    blind = replace(small.network, **{setting: ("altitude",)})
    with pytest.raises(UserError, match=rf"{setting} 'altitude'.*position"):
        Mlsh(replace(small, network=blind))
