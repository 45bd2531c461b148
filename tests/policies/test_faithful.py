"""Every switch of the preset faithful-2017 does what docs/faithful-2017.md says it does."""

import re
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from policies.mlsh import ppo as ppo_module
from policies.mlsh.config import MlshConfig, PpoConfig, TrainConfig
from policies.mlsh.mlsh import Mlsh
from policies.mlsh.ppo import UpdateStats, ppo_update
from policies.mlsh.presets import default_config, faithful_config
from policies.mlsh.task_schedule import NewTask
from sim.envs.reference_returns import ReferenceReturns, compute_reference_returns
from sim.physics.robot_model import load_robot
from sim.tasks.registry import make_family
from tests.support.bundles import small_config
from tests.support.learners import draw, level, plain, shuffle

DOC = Path(__file__).parents[2] / "docs" / "faithful-2017.md"


def learner(**changes) -> Mlsh:
    """Two groups in their joint phase from the start; no probe, so that masters learn at once."""
    base = small_config()
    changes = {"warmup": 0, "joint": 2, "probe": "none"} | changes
    return Mlsh(replace(base, mlsh=replace(base.mlsh, **changes)))


def learned_from(each: Mlsh, monkeypatch, iterations=1):
    """Rollout and samples (masters, skills) of the last iteration; nothing is updated."""
    rollouts, calls = [], []
    collect = each.collector.collect

    def update(policies, samples, shuffle, **_):
        calls.append(samples)
        return UpdateStats(0, 0, 0, 0, 0)

    def remember(*args, **kwargs):
        rollouts.append(collect(*args, **kwargs))
        return rollouts[-1]

    monkeypatch.setattr("policies.mlsh.updates.ppo_update", update)
    monkeypatch.setattr(each.collector, "collect", remember)
    for _ in range(iterations):
        each.iterate()
    return rollouts[-1], calls[-2], calls[-1]


def master_bias(each: Mlsh, group: int, *bias: float) -> None:
    _, out = each.agent.masters.policy.layers(group)[-1]
    out[:] = bias


# Masters ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stale", [False, True])
def test_stale_first_decision(stale, monkeypatch):
    each = learner(stale_first_decision=stale, decision_lead=0)
    step, steps = each.env.step, []

    def step_and_change_mind(action):
        steps.append(action)
        if len(steps) == 45:  # after the last decision of the rollout, before its end
            masters_always(0)
        return step(action)

    def masters_always(skill):
        for g in range(2):
            master_bias(each, g, *((50, -50) if skill == 0 else (-50, 50)))

    monkeypatch.setattr(each.env, "step", step_and_change_mind)
    masters_always(1)
    each.collector.collect(0, ticks=50)
    masters_always(1)  # the new masters; those of the task before ended with skill 0
    rollout = each.collector.collect(1, ticks=50)
    assert (rollout.skill[:10] == (0 if stale else 1)).all()  # N = 10
    assert (rollout.skill[10:] == 1).all()
    # It is recorded as if the new master had chosen it: ln(e^-50 / (e^-50 + e^50)) = -100.
    assert rollout.decision_log_prob[0] == pytest.approx(-100 if stale else 0, abs=0.1)


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_master_epsilon(epsilon):
    each = learner(master_epsilon=epsilon, envs=32)
    for g in range(2):
        master_bias(each, g, 50, -50)
    rollouts = [each.collector.collect(i, ticks=50) for i in range(10)]
    at_random = np.concatenate([r.skill[r.decided] for r in rollouts]) == 1
    assert len(at_random) == 3200
    # A tenth is drawn evenly from two skills, so 5 % are not the master's; s.e. 0.4 %.
    assert at_random.mean() == pytest.approx(epsilon / 2, abs=0.015)
    log_prob = np.concatenate([r.decision_log_prob[r.decided] for r in rollouts])
    # Recorded as if on-policy, not with the probability .05 at which it was really drawn.
    assert log_prob[at_random] == pytest.approx(-100, abs=0.1)


@pytest.mark.parametrize("fresh", [False, True])
def test_fresh_adam(fresh):
    each = learner(fresh_adam=fresh)
    each.iterate()
    each._fresh_master(0, NewTask(0, task=0, master=2))
    adam = each.agent.masters.policy_adam
    assert bool(adam.first[0].any()) != fresh
    assert adam.steps[:, 0].tolist() == [0 if fresh else 10, 10]


@pytest.mark.parametrize("same", [False, True])
def test_same_init(same):
    each = learner(same_init=same)
    first = each.agent.masters.policy.numpy.copy()
    each.iterate()
    for _ in range(2):
        each._fresh_master(1, NewTask(1, task=0, master=2))
        assert np.array_equal(each.agent.masters.policy.numpy[1], first[1]) == same
    assert not np.array_equal(first[0], first[1])  # one fixed start per group


@pytest.mark.parametrize("how", ["global", "group", "centered"])
def test_master_advantage(how, monkeypatch):
    given = []

    def normalize(samples, kind, **_):
        given.append(kind)
        return samples

    monkeypatch.setattr("policies.mlsh.updates.normalize_advantages", normalize)
    learner(master_advantage=how).iterate()
    assert given == [how, "group"]  # skills are always by themselves


def test_balanced_tasks_and_probe_are_off():
    method = faithful_config("moving_bandits", "omni").mlsh
    assert not method.balanced_tasks
    each = learner(probe=method.probe)
    assert not each.iterate().probing.any()


# Both levels ----------------------------------------------------------------------------------


@pytest.mark.parametrize("bootstrap", [True, False])
def test_bootstrap_truncated(bootstrap, monkeypatch):
    each = learner(bootstrap_truncated=bootstrap, rollout_ticks=70, scaled_returns=False)
    # Every value is 7, so that what a target holds shows.
    for stack in (each.agent.masters.value, each.agent.skills.value):
        stack.numpy[:] = 0
        for row in range(stack.count):
            stack.layers(row)[-1][1][:] = 7
    monkeypatch.setattr(
        "policies.mlsh.updates.normalize_advantages", lambda samples, how, **_: samples
    )
    rollout, masters, skills = learned_from(each, monkeypatch)
    # Time limit at tick 49, end of the rollout at tick 69; gamma .99 per tick and per decision.
    after = 0.99 * 7 if bootstrap else 0
    for ticks in (49, 69):
        found = 0
        for k, samples in enumerate(skills):
            t, _ = np.nonzero(rollout.skill == k)
            target = samples.target[t == ticks]
            assert target == pytest.approx(
                rollout.reward[ticks][rollout.skill[ticks] == k] + after
            )
            found += len(target)
        assert found == 8
    for g, samples in enumerate(masters):
        t, b = np.nonzero(rollout.decided[:, 4 * g : 4 * g + 4])
        for begin in (40, 60):  # the last decisions before either end
            expected = rollout.reward[begin : begin + 10, 4 * g : 4 * g + 4].sum(axis=0) + after
            assert samples.target[t == begin] == pytest.approx(expected[b[t == begin]])


@pytest.fixture(scope="module")
def whole_returns() -> ReferenceReturns:
    """Of 1024 episodes; learners in tests have those of fewer."""
    return compute_reference_returns(load_robot("omni"), make_family("moving_bandits"), 0)


@pytest.mark.parametrize("scaled", [True, False])
def test_scaled_returns(scaled, whole_returns):
    """Value functions learn in units of what a step of their level can earn, or raw."""
    each = learner(scaled_returns=scaled)
    limit = each.reference_returns[0]
    assert whole_returns.optimum == pytest.approx(44.8, abs=0.1)  # of 50 ticks
    assert whole_returns.random == pytest.approx(2.1, abs=0.1)
    assert limit.optimum == pytest.approx(whole_returns.optimum, rel=0.02)
    each.schedule.tasks[:] = 0
    rollout = each.collector.collect(0, ticks=10)
    rollout.reward[:] = 1
    tick = (1 - limit.random / 50) / ((limit.optimum - limit.random) / 50)
    updates = each.updates
    for unit, expected in ((updates.skill_rewards, tick), (updates.master_rewards, tick / 10)):
        rewards = unit(rollout)
        assert rewards.reward == pytest.approx(expected if scaled else 1)
    assert (rewards.terminal < 0).all() if scaled else not rewards.terminal.any()


@pytest.mark.parametrize("clip", [None, 0.2])
def test_value_clip(clip):
    # A fresh value function (about 0) is to learn the return 50.
    policies = level(count=1, ppo=replace(level().ppo, value_clip=clip, epochs=50))
    drawn = draw(policies, 0, 64, reward=plain)
    values = policies.values(drawn.obs, np.zeros(64, np.intp))
    samples = replace(drawn, value=values, target=np.full(64, 50, np.float32))
    policies.value_adam.learning_rate = 0.01
    ppo_update(policies, [samples], shuffle())
    moved = policies.values(samples.obs, np.zeros(64, np.intp)) - values
    if clip is None:
        assert moved.mean() > 2
    else:
        # The gradient stops once a value has moved by the clip; Adam's momentum goes on a little.
        assert 0 < moved.mean() < 1


@pytest.mark.parametrize("drop", [True, False])
def test_drop_remainder(drop):
    # The released example: 100 decisions make one minibatch of 64, the other 36 are dropped.
    ppo = replace(level().ppo, minibatch=64, drop_remainder=drop)
    batches = ppo_module._deal([np.arange(100)], ppo_module._minibatches(100, ppo), ppo)
    assert [len(batch) for batch in batches] == ([64] if drop else [50, 50])


# Skills ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("bootstrap", ["same", "next"])
def test_skill_bootstrap(bootstrap, monkeypatch):
    each = learner(skill_bootstrap=bootstrap, scaled_returns=False)
    stack = each.agent.skills.value
    stack.numpy[:] = 0
    for k, value in enumerate((3, 5)):
        stack.layers(k)[-1][1][:] = value
    monkeypatch.setattr(
        "policies.mlsh.updates.normalize_advantages", lambda samples, how, **_: samples
    )
    rollout, _, skills = learned_from(each, monkeypatch)
    t, b = np.nonzero(rollout.skill == 0)
    switch = (t < 49) & (rollout.skill[np.minimum(t + 1, 49), b] == 1)
    assert switch.sum() > 3
    target, reward = skills[0].target[switch], rollout.reward[t[switch], b[switch]]
    if bootstrap == "same":
        # Skill 0's own value of the next state, and nothing of what skill 1 did there.
        assert target == pytest.approx(reward + 0.99 * 3)
    else:
        # Skill 1's value and, through lambda, its errors: 5 + .98 * (what came - 5) ...
        assert (target > reward + 0.99 * 3 + 0.01).any()
        assert not np.allclose(target, reward + 0.99 * 3)


# The preset -----------------------------------------------------------------------------------


def switches() -> dict[str, object]:
    """What faithful-2017 sets otherwise than the default, by name."""
    default = asdict(default_config("moving_bandits", "omni"))
    faithful = asdict(faithful_config("moving_bandits", "omni"))

    def compare(a, b, prefix=""):
        changed = {}
        for key in a:
            if isinstance(a[key], dict):
                changed |= compare(a[key], b[key], f"{prefix}{key}.")
            elif a[key] != b[key]:
                changed[prefix + key] = b[key]
        return changed

    return compare(default, faithful)


def test_document_tells_every_difference():
    text = DOC.read_text()
    for name, value in switches().items():
        assert f"`{name}`" in text, name
        shown = yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()
        lines = [line for line in text.splitlines() if f"`{name}`" in line]
        assert any(shown in line for line in lines), (name, shown)


def test_document_names_real_tests():
    named = set(re.findall(r"`(test_\w+)`", DOC.read_text()))
    assert len(named) > 15
    everything = "".join(p.read_text() for p in Path(__file__).parent.glob("test_*.py"))
    assert [name for name in named if f"def {name}(" not in everything] == []
    files = re.findall(r"`(policies/[\w/]+\.py)`", DOC.read_text())
    assert files
    assert [f for f in files if not (DOC.parents[1] / f).is_file()] == []


def test_every_switch_exists():
    names = {f.name for cls in (MlshConfig, PpoConfig, TrainConfig) for f in fields(cls)}
    assert {name.rpartition(".")[2] for name in switches()} <= names | {"hidden"}


def test_preset_trains():
    config = faithful_config("moving_bandits", "omni")
    config = replace(config, mlsh=replace(config.mlsh, groups=2, envs=4, warmup=1), threads=1)
    each = Mlsh(config)
    for _ in range(4):
        it = each.iterate()
        for report in (it.master, it.skill):
            assert report is None or np.isfinite(list(vars(report).values())).all()
