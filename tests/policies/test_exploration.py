"""The noise with which skills explore: correlation from tick to tick, and a limit that falls."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from policies.mlsh.config import TrainConfig
from policies.mlsh.mlsh import Mlsh
from policies.mlsh.presets import default_config
from policies.mlsh.rollout import correlate
from policies.training.run import create_run
from sim.errors import UserError
from tests.support.checkpoints import assert_goes_on_bit_for_bit

# 80 steps in an iteration: reached after three of six
LIMIT = ("exploration.final_std=0.25", "exploration.std_until=0.5")
SMALL = (
    *("mlsh.groups=2", "mlsh.envs=4", "mlsh.rollout_ticks=10", "mlsh.decision_ticks=5"),
    *("threads=1", "steps=480"),
)


def small(*settings: str) -> TrainConfig:
    return default_config("moving_bandits", "omni").with_values([*SMALL, *settings])


@pytest.mark.parametrize("correlation", [0.3, 0.9])
def test_correlated_noise_keeps_its_deviation(correlation):
    noise = np.random.default_rng(0).standard_normal((2000, 50, 3)).astype(np.float32)
    correlate(noise, np.float32(correlation))
    assert noise.std(axis=(1, 2)) == pytest.approx(1, abs=0.35)  # of 150 values at every tick
    assert noise.std() == pytest.approx(1, abs=0.02)
    for lag in (1, 2):
        measured = float((noise[lag:] * noise[:-lag]).mean())
        assert measured == pytest.approx(correlation**lag, abs=0.03)


def test_without_correlation_the_noise_is_as_it_was_drawn():
    noise = np.random.default_rng(0).standard_normal((5, 2, 3)).astype(np.float32)
    kept = noise.copy()
    correlate(noise, np.float32(0))
    np.testing.assert_array_equal(noise, kept)


def test_actions_of_a_rollout_are_correlated():
    for correlation in (0.0, 0.9):
        learner = Mlsh(small(f"exploration.correlation={correlation}"))
        rollout = learner.collector.collect(0, ticks=100)
        mean = np.stack(
            [learner.agent.means(o, s) for o, s in zip(rollout.obs, rollout.skill, strict=False)]
        )
        noise = (rollout.action - mean) / np.exp(learner.agent.log_std())[rollout.skill]
        measured = float((noise[1:] * noise[:-1]).mean())
        assert measured == pytest.approx(correlation, abs=0.15)
        # PPO's ratio is to the probability of each action by itself.
        log_prob = (-0.5 * (noise**2 + math.log(2 * math.pi))).sum(axis=-1)
        log_prob -= learner.agent.log_std().sum(axis=-1)[rollout.skill]
        np.testing.assert_allclose(rollout.log_prob, log_prob, atol=1e-3)


def test_the_limit_falls_from_the_initial_deviation_and_holds_in_every_rollout():
    learner = Mlsh(small(*LIMIT, "skill.entropy=1"))  # pays for large deviations
    largest = []
    for _ in range(5):
        limit = learner.config.exploration.std_limit_at(learner.iteration / 6, 1.0)
        learner.iterate()
        # What the update made of it since then counts from the next rollout on.
        learner._apply_schedules()
        largest.append((limit, float(np.exp(learner.agent.log_std()).max())))
    limits = [limit for limit, _ in largest]
    assert limits == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.25])
    assert [found for _, found in largest] == pytest.approx([0.75, 0.5, 0.25, 0.25, 0.25])


def test_frozen_skills_keep_their_deviation():
    learner = Mlsh(small(*LIMIT), freeze_skills=True, tasks=[0, 1])
    before = learner.agent.log_std()
    for _ in range(3):
        learner.iterate()
    np.testing.assert_array_equal(learner.agent.log_std(), before)


def test_it_goes_on_from_a_checkpoint_bit_for_bit():
    config = small(*LIMIT, "exploration.correlation=0.5")
    first = Mlsh(config)
    for _ in range(2):
        first.iterate()
    assert_goes_on_bit_for_bit(first)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (LIMIT[:1], "final_std 0.25 and std_until 0 belong together"),
        (LIMIT[1:], "final_std null and std_until 0.5 belong together"),
        (("exploration.final_std=0", LIMIT[1]), "exploration.final_std"),
        (("exploration.correlation=1",), "less than 1"),
        (("exploration.correlation=-0.1",), "greater than or equal to 0"),
        (("exploration.std=1",), "exploration.std"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, said):
    with pytest.raises(UserError, match=re.escape(said)):
        small(*settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ((*LIMIT, "network.initial_log_std=-2"), "exploration.final_std 0.25: the initial"),
    ],
)
def test_limits_without_effect_are_refused(settings, said, tmp_path):
    config = small(*(s for s in settings))
    with pytest.raises(UserError, match=f"^{re.escape(said)}"):
        create_run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
