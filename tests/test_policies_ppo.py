"""The update: ratios, bandits with a known best arm, and who must not move."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import small_config
from policies import ppo as module
from policies.agent import Level
from policies.config import NetworkConfig, PpoConfig
from policies.mlsh import Mlsh, normalise_advantages
from policies.ppo import Report, Samples, ppo_update

PPO = PpoConfig(learning_rate=0.05, gamma=0.99, gae_lambda=0.98, epochs=4, minibatch=1000)
SHUFFLE = 5


def rng(seed=SHUFFLE):
    return np.random.default_rng(seed)


def level(*, outputs=3, extra=0, count=2, ppo=PPO) -> Level:
    result = Level(count, 4, outputs, NetworkConfig(hidden=(8,)), ppo, extra)
    for row in range(count):
        result.fresh(row, rng(row))
    return result


def draw(policies: Level, row: int, n: int, *, reward, seed=0) -> Samples:
    """n samples of one policy, whose value function knows nothing yet."""
    random = rng(seed)
    obs = random.standard_normal((n, 4)).astype(np.float32)
    out = policies.policy.forward_row(row, obs)
    if policies.policy.extra:
        std = np.exp(policies.policy.extras(row))
        noise = random.standard_normal(out.shape).astype(np.float32)
        action = out + std * noise
        each = -0.5 * noise**2 - np.log(std) - 0.5 * np.log(2 * np.pi)
        log_prob = each.sum(axis=1).astype(np.float32)
    else:
        probability = np.exp(out) / np.exp(out).sum(axis=1, keepdims=True)
        below = probability.cumsum(axis=1)[:, :-1] < random.random((n, 1))
        action = below.sum(axis=1)
        log_prob = np.log(probability[np.arange(n), action])
    gain = reward(obs, action).astype(np.float32)
    advantage = gain - gain.sum() / max(1, n)
    return Samples(obs, action, log_prob, advantage, np.zeros(n, np.float32), gain)


def weights(policies: Level) -> np.ndarray:
    return np.concatenate([policies.policy.numpy, policies.value.numpy], axis=1).copy()


def plain(obs, action):
    return obs[:, 0]


# Ratios -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def first_ratios():
    """Log-probabilities of one rollout's samples, stored and recomputed, per level."""
    config = small_config()
    # Rollouts end amid an episode, so that decisions in flight are met too; L is 1.
    config = replace(config, mlsh=replace(config.mlsh, probe="none", rollout_ticks=30))
    learner = Mlsh(config)
    collected = {}

    def update(policies, samples, random):
        name = "masters" if policies is learner.agent.masters else "skills"
        pairs = collected.setdefault(name, [])
        for row, s in enumerate(samples):
            out = torch.from_numpy(policies.policy.forward_row(row, s.obs))
            action = torch.from_numpy(s.action)
            if policies.policy.extra:
                log_std = torch.from_numpy(policies.policy.extras(row))
                again, _ = module._gaussian(out, log_std, action)
            else:
                again, _ = module._categorical(out, action)
            pairs.append((s.log_prob, again.numpy()))
        return Report(0, 0, 0, 0, 0)  # nobody learns: the policies stay those that collected

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("policies.mlsh.ppo_update", update)
        patch.setattr(learner.agent, "learns_statistics", False)
        # Far from the start, where all logits are equal and all means zero.
        for policies in (learner.agent.masters, learner.agent.skills):
            for row in range(policies.count):
                policies.policy.initialise(row, rng(row), output_gain=2, extra=-0.3)
        for _ in range(4):
            learner.iterate()
    return collected


@pytest.mark.parametrize("name", ["masters", "skills"])
def test_ratio_is_one_before_the_first_step(first_ratios, name):
    pairs = first_ratios[name]
    assert sum(len(stored) for stored, _ in pairs) > 20
    for stored, again in pairs:
        assert np.abs(stored - again).max(initial=0) <= 1e-5
    spread = np.concatenate([stored for stored, _ in pairs])
    assert spread.std() > 0.1  # it says something


def test_report_of_the_first_step_has_no_divergence():
    policies = level(extra=2, outputs=2, ppo=replace(PPO, epochs=1))
    report = ppo_update(policies, [draw(policies, r, 64, reward=plain) for r in range(2)], rng())
    assert report.kl == pytest.approx(0, abs=1e-6)
    assert report.clipped == 0
    # Two actions with deviation 1: entropy 2 * (0.5 + 0.5 ln 2 pi).
    assert report.entropy == pytest.approx(1 + np.log(2 * np.pi), abs=1e-4)


# Learning ---------------------------------------------------------------------------------


def test_the_best_arm_of_a_bandit_is_learned():
    # Policy 0 is paid for arm 2, policy 1 for arm 0, whatever they see.
    policies, best = level(), (2, 0)
    for update in range(15):
        samples = [
            draw(policies, r, 128, reward=lambda o, a, r=r: a == best[r], seed=update)
            for r in range(2)
        ]
        ppo_update(policies, samples, rng(update))
    obs = rng().standard_normal((200, 4)).astype(np.float32)
    for row in range(2):
        logits = policies.policy.forward_row(row, obs)
        probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        assert probability[:, best[row]].min() > 0.9


def test_the_best_action_of_a_gaussian_bandit_is_learned():
    policies = level(outputs=1, extra=1, count=1)
    for update in range(60):
        # The best action is 0.7, and the reward falls off around it.
        one = draw(policies, 0, 128, reward=lambda o, a: -np.abs(a[:, 0] - 0.7), seed=update)
        ppo_update(policies, normalise_advantages([one], "group"), rng(update))
    obs = rng().standard_normal((200, 4)).astype(np.float32)
    assert policies.policy.forward_row(0, obs).mean() == pytest.approx(0.7, abs=0.1)
    assert np.exp(policies.policy.extras(0)[0]) < 0.5  # and it explores less than at first


def test_value_function_learns_the_target():
    policies = level(count=1)
    one = draw(policies, 0, 256, reward=lambda o, a: 3 + o[:, 0])
    for update in range(60):
        ppo_update(policies, [one], rng(update))
    error = policies.values(one.obs, np.zeros(256, np.intp)) - one.target
    assert np.sqrt((error**2).mean()) < 0.2


# Who must not move ------------------------------------------------------------------------


def test_padding_has_weight_zero(monkeypatch):
    policies = level()
    samples = [draw(policies, 0, 90, reward=plain), draw(policies, 1, 7, reward=plain)]
    before = weights(policies)
    ppo_update(policies, samples, rng())
    clean = weights(policies)

    class Garbage(module._Padded):
        def __init__(self, samples):
            super().__init__(samples)
            for name, tensor in self._all.items():
                tensor[1, 7:] = 1 if name == "action" else 1e3

    policies = level()
    monkeypatch.setattr(module, "_Padded", Garbage)
    # Unused places of a minibatch point at sample 0; let them point at the garbage.
    original = module._minibatches

    def astray(lengths, ppo, random):
        return [(i.where(w > 0, i.max()), w) for i, w in original(lengths, ppo, random)]

    monkeypatch.setattr(module, "_minibatches", astray)
    ppo_update(policies, samples, rng())
    assert np.array_equal(weights(policies), clean)
    assert not np.array_equal(before, clean)


def test_policies_learn_as_if_alone():
    together, alone = level(), level()
    samples = [draw(together, r, 50, reward=plain, seed=r) for r in range(2)]
    nothing = draw(together, 0, 0, reward=lambda o, a: np.zeros(0))
    ppo_update(together, samples, rng())
    for row in range(2):
        ppo_update(alone, [samples[row] if r == row else nothing for r in range(2)], rng())
    # Full batches: the order of the samples does not count, but for rounding.
    assert weights(together) == pytest.approx(weights(alone), abs=1e-5)


def test_a_policy_without_samples_does_not_move():
    policies = level()
    nothing = draw(policies, 1, 0, reward=lambda o, a: np.zeros(0))
    full = draw(policies, 0, 50, reward=plain)
    before = weights(policies)
    ppo_update(policies, [full, nothing], rng())
    assert not np.array_equal(weights(policies)[0], before[0])
    assert np.array_equal(weights(policies)[1], before[1])
    assert policies.policy_adam.steps[:, 0].tolist() == [PPO.epochs, 0]
    assert ppo_update(policies, [nothing, nothing], rng()) == Report(0, 0, 0, 0, 0)


# Minibatches ------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [(10, 3), (1, 0), (7, 7), (25, 1)])
def test_every_sample_is_used_once_per_epoch(lengths):
    ppo = replace(PPO, minibatch=4)
    batches = module._minibatches(lengths, ppo, rng())
    assert len(batches) == -(-max(lengths) // 4)
    for row, length in enumerate(lengths):
        used = np.concatenate([i[row][w[row] > 0] for i, w in batches])
        assert sorted(used.tolist()) == list(range(length))


def test_every_epoch_has_its_own_order():
    random = rng()
    first, second = (
        module._minibatches([50], replace(PPO, minibatch=5), random) for _ in range(2)
    )
    assert not torch.equal(first[0][0], second[0][0])


def test_large_gradients_are_scaled_per_policy():
    # Norms 5 and 0.5, at most 1 is accepted: the first becomes (.6, .8), the second stays.
    gradient = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    assert module._clip(gradient, replace(PPO, max_grad_norm=1.0)).numpy() == pytest.approx(
        np.array([[0.6, 0.8], [0.3, 0.4]])
    )
    assert torch.equal(module._clip(gradient, replace(PPO, max_grad_norm=None)), gradient)


# Advantages of comparable size ------------------------------------------------------------


def advantages(how):
    empty = np.zeros(0, np.float32)
    rows = [np.array([1, 3], np.float32), empty, np.array([10, 14], np.float32)]
    samples = [Samples(r[:, None], r, r, r, r, r) for r in rows]
    return [s.advantage.tolist() for s in normalise_advantages(samples, how)]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        # Means 2 and 12, deviations 1 and 2.
        ("group", [[-1, 1], [], [-1, 1]]),
        # Centred -1, 1, -2, 2: deviation sqrt(10 / 4) = 1.5811.
        ("centred", [[-0.6325, 0.6325], [], [-1.2649, 1.2649]]),
        # 1, 3, 10, 14: mean 7, deviation sqrt((36 + 16 + 9 + 49) / 4) = 5.2440.
        ("global", [[-1.1442, -0.7628], [], [0.5721, 1.3349]]),
    ],
)
def test_normalised_advantages(how, expected):
    for ours, theirs in zip(advantages(how), expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
