"""The off-policy learner of masters: its replay, its values, and what it brings."""

from dataclasses import replace

import numpy as np
import pytest

from policies.bundle.bundle import load_bundle
from policies.bundle.runtime import load_policy
from policies.mlsh.mlsh import Mlsh
from policies.mlsh.offpolicy_config import OffPolicyConfig
from policies.offpolicy.evaluation import FEWEST, estimate_return
from policies.offpolicy.features import Features
from policies.offpolicy.learner import OffPolicyLearner, OffPolicyUpdate
from policies.offpolicy.replay import Episode, Replay
from policies.offpolicy.skill_regression import SkillRegression
from policies.offpolicy.skill_returns import describe, returns_alone
from policies.offpolicy.value_iteration import ValueIteration
from policies.training.adapt import adapt
from policies.training.finetune import finetune, install_skills, task_config
from policies.training.finetune_settings import with_settings
from policies.training.run import environment
from sim.envs.reference_returns import ReferenceReturns
from sim.errors import UserError
from sim.tasks.task_id import TaskId

GAMMA = 0.9
BUNDLE = load_bundle("moving_bandits")


def episode(rewards, skills, *, terminated=False, held=False, start=0.0) -> Episode:
    """Decisions on a line: the observation is the number of the decision."""
    obs = start + np.arange(len(skills) + 1, dtype=np.float32)[:, None]
    paid = [np.array(each, float) for each in rewards]
    return Episode(obs, np.array(skills, np.intp), paid, terminated, held)


def decisions(*episodes: Episode):
    return Replay(GAMMA, list(episodes)).decisions()


def estimate(episodes, ticks):
    """Of a master that always chooses the first of two skills, for 20 ticks each time."""
    config, rng = OffPolicyConfig(), np.random.default_rng(0)
    return estimate_return(
        episodes,
        lambda obs: np.zeros(len(obs), np.intp),
        Features(1, config, [], rng),
        2,
        config,
        ticks=ticks,
        decision_ticks=20,
        rng=rng,
    )


@pytest.mark.parametrize(("ticks", "paid"), [(40, 40.0), (50, 50.0), (1, 1.0)])
def test_an_estimate_is_of_the_ticks_of_an_episode(ticks, paid):
    """Every tick pays 1; decisions take 20 ticks, whatever is left of the episode."""
    found = estimate(
        [episode([np.ones(20)] * 3, [0, 1, 0]), episode([np.ones(20)] * 3, [1, 0, 1])], ticks
    )
    assert found.value == pytest.approx(paid)
    assert found.recorded == pytest.approx(paid)


@pytest.mark.parametrize(("terminated", "recorded"), [(False, 20.0), (True, 10.0)])
def test_a_recording_that_was_cut_short_says_nothing_of_later_ticks(terminated, recorded):
    """Only the second decision pays, and one of two recordings ends before it.

    If that was the end of the task, the mean return is (20 + 0) / 2; otherwise it is not known
    what it would have earned, and 20 is the only return that was seen.
    """
    whole = episode([np.zeros(20), np.ones(20)], [0, 1])
    short = episode([np.zeros(20)], [0], terminated=terminated)
    assert estimate([whole, short], 40).recorded == pytest.approx(recorded)


@pytest.mark.parametrize("count", [1, 3, 4])
def test_few_recorded_episodes_have_no_interval(count):
    """Of three, all draws of an episode are the worst one in 1 of 27 cases: more than 2.5 %."""
    rng = np.random.default_rng(1)
    episodes = [episode(list(rng.random((3, 20))), [0, 1, 0]) for _ in range(count)]
    found = estimate(episodes, 60)
    assert np.isfinite(found.value)
    said = found.describe()
    assert "\n" not in said
    if count < FEWEST:
        assert np.isnan([found.low, found.high]).all()
        assert said.endswith(", without an interval, which needs 4 episodes: record more")
        assert f"({count} episode{'s' if count > 1 else ''})" in said
        assert not found.better
        assert found.contradiction(-1e6) == ""
    else:
        assert found.low < found.value < found.high
        assert "95 % interval" in said
        assert ("the master may be no better than the recorded" in said) is not found.better
        assert "outside the interval" in found.contradiction(-1e6)


# Replay ---------------------------------------------------------------------------------------


def test_a_decision_is_discounted_by_its_ticks():
    found = decisions(episode([[1, 0, 3], [0, 0]], [0, 1]))
    mean = 4 / 5
    first = (1 - mean) - GAMMA * mean + GAMMA**2 * (3 - mean)
    assert found.reward[0] * found.unit == pytest.approx(first)
    assert found.discount.tolist() == pytest.approx([GAMMA**3, GAMMA**2])
    assert found.obs.ravel().tolist() == [0, 1]
    assert found.following.ravel().tolist() == [1, 2]


def test_what_follows_a_termination_is_worth_nothing_and_a_truncation_is_bootstrapped():
    ended, cut = (decisions(episode([[1.0], [3.0]], [0, 1], terminated=t)) for t in (True, False))
    assert cut.discount[1] == pytest.approx(GAMMA)
    assert ended.discount[1] == 0
    # The value is told from that of the mean reward for ever, which a termination ends.
    assert ended.reward[1] - cut.reward[1] == pytest.approx(-GAMMA * ended.constant)


@pytest.mark.parametrize(("scale", "shift"), [(1, 10), (1, -1), (100, 0), (0.01, 3)])
def test_units_and_offsets_of_the_reward_do_not_matter(scale, shift):
    rewards = [[0, 1], [2, 0], [0, 0]]
    plain = decisions(episode(rewards, [0, 1, 0]))
    other = decisions(episode(scale * np.array(rewards) + shift, [0, 1, 0]))
    assert other.reward == pytest.approx(plain.reward, abs=1e-9)


def test_rewards_that_are_all_the_same_are_worth_nothing():
    found = decisions(episode([[5.0, 5.0]] * 3, [0, 1, 0]))
    assert found.reward == pytest.approx(0)
    assert np.isfinite(found.constant)


# Skills alone ---------------------------------------------------------------------------------


LIMITS = ReferenceReturns(random=0.0, task_blind=0.0, optimum=44.0)


def held(skill: int, total: float) -> Episode:
    return episode([[total / 2], [total / 2]], [skill, skill], held=True)


def test_returns_of_skills_alone_are_of_held_episodes():
    mixed = episode([[7.0], [7.0]], [0, 1])
    found = returns_alone([held(0, 44), held(1, 0), mixed, held(1, 1)], 2)
    assert found.tolist() == [44, 0.5]
    said = describe(found, ["a", "b"], LIMITS)
    assert said == "an episode of each skill alone: a 44, b 0.5"


@pytest.mark.parametrize(
    ("totals", "does_nothing"),
    [
        ((0, 0, 0), "0%"),
        ((1.2, 1.0, 0.4), "3%"),  # as on patrol, whatever skill is held: 1.2 of 44
        ((-2, -1, 0), "0%"),
        ((8, 8.7, 8), "20%"),  # 8.7 / 44 is 0.198, rounded
        ((8, 8.9, 8), ""),  # 8.9 / 44 is 0.202
        ((44, 44, 44), ""),  # skills that are alike, and serve the task
    ],
)
def test_skills_that_do_nothing_alone_are_called_so(totals, does_nothing):
    found = returns_alone([held(k, total) for k, total in enumerate(totals)], 3)
    said = describe(found, ["a", "b", "c"], LIMITS)
    assert said.startswith("no skill alone does anything") == bool(does_nothing)
    if does_nothing:
        assert said.endswith(f"; the best has a score of {does_nothing})")


def test_what_a_skill_does_alone_does_not_depend_on_the_units_of_rewards():
    shifted = ReferenceReturns(random=500.0, task_blind=500.0, optimum=544.0)
    for total, expected in ((508.0, True), (512.0, False)):  # 8 / 44 and 12 / 44
        found = returns_alone([held(0, total), held(1, 500.0)], 2)
        said = describe(found, ["a", "b"], shifted)
        assert said.startswith("no skill alone does anything") == expected


def test_a_skill_that_has_not_run_has_no_return():
    """More skills than episodes of an update, as over seven imported ones."""
    found = returns_alone([held(0, 44), held(2, 0)], 3)
    np.testing.assert_array_equal(found, [44, np.nan, 0])
    said = describe(found, ["a", "b", "c"], LIMITS)
    assert said == "not every skill has run alone yet (a 44, c 0)"


def test_of_several_tasks_each_line_names_its_own():
    update = OffPolicyUpdate(
        agreement=[0.5, 0.75],
        alone=[np.array([44.0, np.nan]), np.array([1.0, np.nan])],
        not_finite="",
        skills=("a", "b"),
        tasks=("goal-0", "goal-1"),
        reference_returns=[LIMITS, LIMITS],
    )
    assert update.describe() == (
        "goal-0: not every skill has run alone yet (a 44); "
        "goal-1: not every skill has run alone yet (a 1); 50% of the decisions are settled"
    )
    alike = replace(update, alone=[update.alone[0], update.alone[0]])
    assert alike.describe().startswith("not every skill has run alone yet (a 44); 50%")


def test_one_skill_has_nothing_to_be_compared_with():
    said = describe(returns_alone([held(0, 44)], 1), ["a"], LIMITS)
    assert said == "an episode of each skill alone: a 44"


def test_no_episode_gives_no_return():
    assert np.isnan(returns_alone([], 2)).all()


# Values ---------------------------------------------------------------------------------------


def values_of(found, skills=2, **settings) -> ValueIteration:
    rng = np.random.default_rng(0)
    config = OffPolicyConfig(**{"noise": 0.05, "iterations": 60, **settings})
    features = Features(found.obs.shape[1], config, [], rng)
    values = ValueIteration(features, skills, config, rng)
    values.fit(found)
    return values


def chain() -> list[Episode]:
    """From 0 skill 1 leads to 1, where skill 0 pays; all else pays nothing and leads to 2."""
    at = np.array([[0.0], [1.0], [2.0]], np.float32)

    def of(*steps):
        obs = np.array([at[0], *(at[s] for s, _, _ in steps)])
        skills = np.array([k for _, k, _ in steps], np.intp)
        return Episode(obs, skills, [np.array([float(r)]) for *_, r in steps], False, False)

    return 4 * [
        of((1, 1, 0), (2, 0, 1), (2, 0, 0)),
        of((1, 1, 0), (2, 1, 0), (2, 1, 0)),
        of((2, 0, 0), (2, 0, 0), (2, 1, 0)),
    ]


def test_a_sequence_is_found_that_no_episode_would_show_by_its_first_reward():
    values = values_of(decisions(*chain()))
    best = values.values(np.array([[0.0], [1.0]], np.float32)).argmax(axis=1)
    assert best.tolist() == [1, 0]
    assert values.agreement(np.array([[1.0]], np.float32)) > 0.8


def test_members_agree_more_with_more_decisions():
    obs = np.array([[0.0], [1.0]], np.float32)
    few, many = (values_of(decisions(*(n * chain()))).agreement(obs) for n in (1, 20))
    assert few <= many
    assert many == 1


def test_the_weights_of_all_skills_are_those_of_one_large_regression():
    """v and all a_k as one vector of unknowns, with the regressors (f, 0, .., f, .., 0).

    One skill has no decision: its weights are v plus the mean of its prior.
    """
    rng, n, size, skills, members = np.random.default_rng(0), 30, 5, 4, 3
    features, targets = rng.standard_normal((n, size)), rng.standard_normal((members, n))
    skill = rng.choice([0, 1, 3], n)
    shared, own, noise = 3.0, 0.3, 0.5
    priors = rng.standard_normal((members, 1 + skills, size))
    design = np.zeros((n, 1 + skills, size))
    design[:, 0] = design[np.arange(n), 1 + skill] = features
    design = design.reshape(n, -1)
    precision = np.repeat([1 / shared] + skills * [1 / own], size)
    right = targets @ design / noise**2 + priors.reshape(members, -1) * precision
    found = np.linalg.solve(design.T @ design / noise**2 + np.diag(precision), right.T).T
    parts = found.reshape(members, 1 + skills, size)
    small = SkillRegression(features, skill, skills, shared=shared, own=own, noise=noise)
    weights = small.weights(targets, priors[:, 0], priors[:, 1:])
    assert weights == pytest.approx(parts[:, :1] + parts[:, 1:], rel=1e-9)
    assert weights[:, 2] == pytest.approx(parts[:, 0] + priors[:, 3], rel=1e-9)


def at_random(episodes: int):
    """Decisions between random observations of two elements, of which there are 70 features."""
    rng = np.random.default_rng(0)
    return decisions(
        *(
            replace(
                episode(list(rng.standard_normal((3, 1))), [0, 1, 1]),
                obs=rng.standard_normal((4, 2), np.float32),
            )
            for _ in range(episodes)
        )
    )


@pytest.mark.parametrize("episodes", [2, 120])  # 8 and 480 observations
def test_fewer_observations_than_features_give_the_same_weights(episodes):
    """After one iteration the targets are the rewards, and the mean is that of a regression."""
    found = at_random(episodes)
    values = values_of(found, noise=0.5, iterations=1)
    features, prior = values.features(found.obs), values.config.prior
    own = prior * values.config.advantage
    whole = SkillRegression(features, found.skill, 2, shared=prior, own=own, noise=0.5)
    nothing = np.zeros((1, 2, features.shape[1]))
    expected = whole.weights(found.reward[None], nothing[:, 0], nothing)
    assert values.weights[:1] == pytest.approx(expected, abs=1e-9)


def test_a_sample_of_the_prior_changes_only_where_features_were_seen():
    found = at_random(2)
    values, before = (values_of(found, iterations=n) for n in (60, 1))
    features = values.features(found.obs)
    unseen = np.eye(features.shape[1]) - np.linalg.pinv(features) @ features
    assert values.weights @ unseen == pytest.approx(before.weights @ unseen, abs=1e-9)
    assert abs(values.weights[1:] @ unseen).max() > 0.1
    assert abs(values.weights - before.weights).max() > 0.01


def test_the_head_is_the_mean_up_to_a_constant_and_a_unit():
    values = values_of(decisions(*chain()))
    obs = np.linspace(-1, 3, 50, dtype=np.float32)[:, None]
    (weight, bias), (last, last_bias) = values.head()
    logits = np.tanh(obs @ weight + bias) @ last + last_bias
    mean = values.values(obs)
    assert np.corrcoef(logits[:, 0] - logits[:, 1], mean[:, 0] - mean[:, 1])[0, 1] > 0.9999
    clear = abs(mean[:, 0] - mean[:, 1]) > 1e-3
    assert (logits.argmax(axis=1) == mean.argmax(axis=1))[clear].all()
    assert abs(last).max() <= 1
    assert abs(last_bias).max() <= 1


def test_blind_elements_do_not_count():
    config = OffPolicyConfig()
    features = Features(3, config, [1], np.random.default_rng(0))
    first, second = np.zeros((2, 3), np.float32)
    second[1] = 5
    assert np.array_equal(features(first[None]), features(second[None]))


# The learner ----------------------------------------------------------------------------------


def test_the_random_part_falls_linearly_and_stays():
    settings = OffPolicyConfig(initial_epsilon=0.5, epsilon=0.1, epsilon_episodes=20)
    found = [settings.random_part(n) for n in (0, 5, 10, 20, 1000)]
    assert found == pytest.approx([0.5, 0.4, 0.3, 0.1, 0.1])


@pytest.mark.parametrize("setting", ["initial_epsilon=0.05", "epsilon=0.6"])
def test_random_decisions_that_would_become_more_are_refused(setting):
    plain, _ = task_config(BUNDLE, TaskId.parse("ring_bandits/sector-1"), seed=0)
    message = (
        r"^settings: offpolicy: initial_epsilon (0\.05 is below epsilon 0\.1|0\.5 is below "
        r"epsilon 0\.6), .* would rise; valid are values from 0\.[16] to 1$"
    )
    with pytest.raises(UserError, match=message):
        with_settings(plain, [f"offpolicy.{setting}"], baseline=False, learner="q")
    with_settings(plain, ["offpolicy.initial_epsilon=0.1"], baseline=False, learner="q")


@pytest.mark.parametrize(
    ("per_update", "fractions"),
    [(4, [0.5, 0.438, 0.377, 0.315, 0.254, 0.192, 0.131, 0.1]), (16, [0.5, 0.254, 0.1])],
)
def test_all_episodes_of_an_update_have_the_fraction_of_its_first_one(per_update, fractions):
    """Decision 54: of 26 episodes 4, 8 .. or 16, 32 have passed; 0.5 - 0.4 x 16 / 26 = 0.254."""
    found = [OffPolicyConfig().random_part(per_update * n) for n in range(len(fractions))]
    assert found == pytest.approx(fractions, abs=5e-4)


@pytest.fixture
def light(monkeypatch):
    monkeypatch.setattr("policies.training.adapt.SCORED_TICKS", 32 * 50)


def master_for(task: str, *, updates: int, episodes: int, say=lambda _: None):
    plain, number = task_config(BUNDLE, TaskId.parse(task), seed=1)
    config = replace(with_settings(plain, [], baseline=False, learner="q"), threads=1)
    return adapt(
        config,
        lambda agent: install_skills(agent, BUNDLE),
        [number],
        updates=updates,
        envs=episodes,
        say=say,
    )


def test_the_discount_is_over_decisions_whatever_the_length_of_an_episode():
    for task in ("ring_bandits/sector-0", "patrol/tilted"):  # 50 and 200 ticks, N = 10
        plain, number = task_config(BUNDLE, TaskId.parse(task), seed=1)
        config = replace(
            plain, mlsh=replace(plain.mlsh, groups=1, envs=1, probe="none"), threads=1
        )
        learner = Mlsh(config, freeze_skills=True, tasks=[number])
        found = OffPolicyLearner(learner, OffPolicyConfig(horizon=4)).replays[0].gamma
        assert found**40 == pytest.approx(1 / np.e)


def test_the_first_episode_of_each_skill_holds_it_and_random_decisions_become_fewer(monkeypatch):
    plain, number = task_config(BUNDLE, TaskId.parse("ring_bandits/sector-0"), seed=1)
    config = replace(plain, mlsh=replace(plain.mlsh, groups=1, envs=4, probe="none"), threads=1)
    learner = Mlsh(config, freeze_skills=True, tasks=[number])
    install_skills(learner.agent, BUNDLE)
    asked = []
    monkeypatch.setattr(
        OffPolicyConfig, "random_part", lambda _, episode: asked.append(episode) or 0.1
    )
    masters = OffPolicyLearner(learner, OffPolicyConfig())
    first, second = masters.iterate(), masters.iterate()
    episodes = masters.replays[0].episodes
    assert [e.held for e in episodes] == [True, True] + 6 * [False]
    assert [set(e.skill) for e in episodes[:2]] == [{0}, {1}]
    assert asked == [0, 4]
    assert (len(first.alone), second.alone) == (1, [])
    assert first.describe().startswith("an episode of each skill alone: skill-0 ")
    assert second.describe().endswith("% of the decisions are settled")


def test_one_skill_is_found_in_four_episodes(light):
    for task in ("goal-0", "goal-1"):
        lines = []
        found = master_for(f"moving_bandits/{task}", updates=1, episodes=4, say=lines.append)
        assert found.curves[0][-1].greedy > 43
        assert found.curves[0][-1].steps == 200
        assert "an episode of each skill alone: skill-0 " in lines[0]
        assert "of the decisions are settled" in lines[0]


@pytest.mark.slow
def test_a_choice_by_state_is_found_in_twenty_episodes(light):
    assert master_for("ring_bandits/sector-0", updates=5, episodes=4).curves[0][-1].greedy > 40


@pytest.mark.slow
def test_a_sequence_earns_more_than_any_skill(light):
    found = master_for("patrol/tilted", updates=8, episodes=4)
    assert found.curves[0][-1].greedy > 3


@pytest.mark.slow
def test_the_bundle_has_the_master_and_the_same_skills(light, tmp_path):
    result = finetune(
        BUNDLE,
        TaskId.parse("ring_bandits/sector-1"),
        tmp_path / "more",
        updates=2,
        episodes=4,
        seed=5,
        learner="q",
        facts=environment(),
    )
    more = load_bundle(tmp_path / "more")
    assert more.skill_hashes() == BUNDLE.skill_hashes()
    assert result.parity.worst < 1e-5
    entry = more.manifest.masters["sector-1"]
    assert entry.provenance.config["offpolicy"]["features"] == OffPolicyConfig().features
    logits = load_policy(more, "sector-1").logits(more.golden.observation[0])
    assert logits.shape == (2,)


def test_values_that_are_no_numbers_end_it_in_one_line(light, monkeypatch, tmp_path):
    monkeypatch.setattr(
        ValueIteration, "fit", lambda self, *_: self.weights.__setitem__(..., np.nan)
    )
    with pytest.raises(UserError, match="update 1 diverged: values of sector-1 not finite; noth"):
        finetune(
            BUNDLE,
            TaskId.parse("ring_bandits/sector-1"),
            tmp_path / "more",
            updates=2,
            episodes=4,
            seed=5,
            learner="q",
            facts=environment(),
        )
    assert not (tmp_path / "more").exists()


@pytest.mark.parametrize(
    ("settings", "started", "message"),
    [
        (["master.gamma=0.9"], False, "master has no effect with --learner q"),
        (["mlsh.probe=none"], False, "mlsh.probe has no effect with --learner q"),
        (["offpolicy.gains=2"], False, "no setting 'offpolicy.gains'"),
        (["offpolicy.noise=0"], False, "offpolicy.noise: .* greater than 0"),
        ([], True, "--init-from: has no effect with --learner q"),
    ],
)
def test_settings_without_effect_are_refused(settings, started, message):
    plain, _ = task_config(BUNDLE, TaskId.parse("ring_bandits/sector-1"), seed=0)
    with pytest.raises(UserError, match=message):
        with_settings(plain, settings, baseline=False, started=started, learner="q")
