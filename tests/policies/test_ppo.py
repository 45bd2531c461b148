"""The update: ratios, bandits with a known best arm, and who must not move."""

import threading
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

from policies.mlsh import ppo as module
from policies.mlsh.actor_critic import ActorCriticBatch
from policies.mlsh.advantage_normalization import normalize_advantages
from policies.mlsh.config import NetworkConfig
from policies.mlsh.losses import Minibatch, policy_sums, value_sums
from policies.mlsh.mlsh import Mlsh
from policies.mlsh.networks import Activation
from policies.mlsh.ppo import UpdateStats, ppo_update
from tests.support.bundles import small_config
from tests.support.learners import PPO, by_torch, draw, level, log_prob, plain, rng, shuffle


def weights(policies: ActorCriticBatch) -> np.ndarray:
    return np.concatenate([policies.policy.numpy, policies.value.numpy], axis=1).copy()


# Ratios -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def first_ratios():
    """Log-probabilities of one rollout's samples, stored and recomputed, per level."""
    config = small_config()
    # Rollouts end amid an episode, so that decisions in flight are met too; L is 1.
    config = replace(config, mlsh=replace(config.mlsh, probe="none", rollout_ticks=30))
    learner = Mlsh(config)
    collected = {}

    def update(policies, samples, shuffle, **_):
        name = "masters" if policies is learner.agent.masters else "skills"
        pairs = collected.setdefault(name, [])
        for row, s in enumerate(samples):
            pairs.append((s.log_prob, log_prob(policies, row, s).detach().numpy()))
        return UpdateStats(0, 0, 0, 0, 0)  # nobody learns: the policies stay those that collected

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("policies.mlsh.updates.ppo_update", update)
        patch.setattr(learner.agent, "learns_statistics", False)
        # Far from the start, where all logits are equal and all means zero.
        for policies in (learner.agent.masters, learner.agent.skills):
            for row in range(policies.count):
                policies.policy.initialize(row, rng(row), output_gain=2, log_std=-0.3)
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
    policies = level(log_stds=2, outputs=2, ppo=replace(PPO, epochs=1))
    report = ppo_update(
        policies, [draw(policies, r, 64, reward=plain) for r in range(2)], shuffle()
    )
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
        ppo_update(policies, samples, shuffle(update))
    obs = rng().standard_normal((200, 4)).astype(np.float32)
    for row in range(2):
        logits = policies.policy.forward_row(row, obs)
        probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        assert probability[:, best[row]].min() > 0.9


def test_the_best_action_of_a_gaussian_bandit_is_learned():
    policies = level(outputs=1, log_stds=1, count=1)
    for update in range(60):
        # The best action is 0.7, and the reward falls off around it.
        one = draw(policies, 0, 128, reward=lambda o, a: -np.abs(a[:, 0] - 0.7), seed=update)
        ppo_update(policies, normalize_advantages([one], "group"), shuffle(update))
    obs = rng().standard_normal((200, 4)).astype(np.float32)
    assert policies.policy.forward_row(0, obs).mean() == pytest.approx(0.7, abs=0.1)
    assert np.exp(policies.policy.log_std(0)[0]) < 0.5  # and it explores less than at first


def test_value_function_learns_the_target():
    policies = level(count=1)
    one = draw(policies, 0, 256, reward=lambda o, a: 3 + o[:, 0])
    for update in range(60):
        ppo_update(policies, [one], shuffle(update))
    error = policies.values(one.obs, np.zeros(256, np.intp)) - one.target
    assert np.sqrt((error**2).mean()) < 0.2


# Who must not move ------------------------------------------------------------------------


def test_policies_learn_as_if_alone():
    together, alone = level(), level()
    samples = [draw(together, r, 50, reward=plain, seed=r) for r in range(2)]
    nothing = draw(together, 0, 0, reward=lambda o, a: np.zeros(0))
    ppo_update(together, samples, shuffle())
    for row in range(2):
        ppo_update(alone, [samples[row] if r == row else nothing for r in range(2)], shuffle())
    # Full batches: the order of the samples does not count, but for rounding.
    assert weights(together) == pytest.approx(weights(alone), abs=1e-5)


def test_a_policy_without_samples_does_not_move():
    policies = level()
    nothing = draw(policies, 1, 0, reward=lambda o, a: np.zeros(0))
    full = draw(policies, 0, 50, reward=plain)
    before = weights(policies)
    ppo_update(policies, [full, nothing], shuffle())
    assert not np.array_equal(weights(policies)[0], before[0])
    assert np.array_equal(weights(policies)[1], before[1])
    assert policies.policy_adam.steps[:, 0].tolist() == [PPO.epochs, 0]
    assert ppo_update(policies, [nothing, nothing], shuffle()) == UpdateStats(0, 0, 0, 0, 0)


# Gradients --------------------------------------------------------------------------------

NETWORKS = [
    NetworkConfig(hidden=hidden, value_hidden=values, activation=activation)
    for activation in get_args(Activation)
    for hidden, values in (((8,), None), ((), (8, 6)), ((8, 6), ()))
]


def moved(policies: ActorCriticBatch, row: int, n=40) -> Minibatch:
    """Samples of a policy that has moved since it drew them, some beyond the clip."""
    s = draw(policies, row, n, reward=plain)
    random = rng(3)
    policies.policy.numpy[row] += 0.3 * random.standard_normal(policies.policy.numpy.shape[1])
    value = random.standard_normal(n).astype(np.float32)
    return replace(s, value=value, target=(value + random.standard_normal(n)).astype(np.float32))


@pytest.mark.parametrize("network", NETWORKS, ids=str)
@pytest.mark.parametrize("entropy", [0.0, 0.3])
@pytest.mark.parametrize("log_stds", [0, 3])
def test_gradient_of_the_policy_is_torchs(log_stds, entropy, network):
    policies = level(log_stds=log_stds, network=network)
    for row in range(2):
        policies.policy.initialize(row, rng(row), output_gain=1, log_std=-0.3)
        s = moved(policies, row)
        ours = policy_sums(policies.policy, row, s, PPO, entropy)
        parameters = torch.from_numpy(policies.policy.numpy[row]).clone().requires_grad_()
        ratio = (log_prob(policies, row, s, parameters) - torch.from_numpy(s.log_prob)).exp()
        advantage = torch.from_numpy(s.advantage)
        limited = ratio.clamp(1 - PPO.clip, 1 + PPO.clip)
        gain = torch.minimum(ratio * advantage, limited * advantage)
        out, free = by_torch(policies.policy, row, s.obs, parameters)
        if log_stds:
            disorder = torch.distributions.Normal(out, free.exp()).entropy().sum()
        else:
            disorder = torch.distributions.Categorical(logits=out).entropy().sum()
        (-gain.sum() - entropy * disorder).backward()
        assert ours.gradient == pytest.approx(parameters.grad.numpy(), rel=1e-3, abs=1e-3)
        assert ours.loss == pytest.approx(-gain.sum().item(), rel=1e-4, abs=1e-4)
        assert ours.entropy == pytest.approx(disorder.item(), rel=1e-4)
        assert 0 < ours.clipped == ((ratio - 1).abs() > PPO.clip).sum().item() < len(s)


@pytest.mark.parametrize("network", NETWORKS, ids=str)
@pytest.mark.parametrize("clip", [None, 0.5])
def test_gradient_of_the_value_is_torchs(clip, network):
    policies, ppo = level(network=network), replace(PPO, value_clip=clip)
    s = moved(policies, 1)
    ours = value_sums(policies.value, 1, s, ppo)
    parameters = torch.from_numpy(policies.value.numpy[1]).clone().requires_grad_()
    predicted = by_torch(policies.value, 1, s.obs, parameters)[0][:, 0]
    target, value = torch.from_numpy(s.target), torch.from_numpy(s.value)
    error = (predicted - target) ** 2
    if clip is not None:
        near = value + (predicted - value).clamp(-clip, clip)
        assert not torch.equal(near, predicted)
        error = torch.maximum(error, (near - target) ** 2)
    (ppo.value_coefficient * error.sum()).backward()
    assert ours.gradient == pytest.approx(parameters.grad.numpy(), rel=1e-3, abs=1e-3)
    assert ours.loss == pytest.approx(error.sum().item(), rel=1e-4)


# Minibatches ------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [(10, 3), (1, 0), (7, 7), (25, 1)])
def test_every_sample_is_used_once_per_epoch(lengths):
    ppo, begin = replace(PPO, minibatch=4), np.cumsum([0, *lengths])
    orders = [b + rng().permutation(n) for b, n in zip(begin, lengths, strict=False)]
    count = module._minibatches(sum(lengths), ppo)
    assert count == -(-sum(lengths) // 4)
    batches = module._deal(orders, count, ppo)
    assert sorted(np.concatenate(batches).tolist()) == list(range(sum(lengths)))
    # Every group has its part in every minibatch, to a sample.
    for order in orders:
        shares = [np.isin(batch, order).sum() for batch in batches]
        assert max(shares) - min(shares) <= 1


def given(samples):
    return [name for name, value in vars(samples).items() if value is not None]


def test_an_update_is_the_same_in_parts():
    """Two processes with a group each learn what one learns with both."""
    ppo = replace(PPO, minibatch=16)
    both, split = level(log_stds=2, outputs=2, ppo=ppo), level(log_stds=2, outputs=2, ppo=ppo)
    parts = [
        [replace(draw(both, r, n, reward=plain, seed=g), group=np.full(n, g)) for r in range(2)]
        for g, n in enumerate((30, 21))
    ]
    whole = [
        Minibatch(
            **{k: np.concatenate([getattr(p[r], k) for p in parts]) for k in given(parts[0][r])}
        )
        for r in range(2)
    ]
    ppo_update(both, whole, shuffle())

    wall = threading.Barrier(2)
    sums = [None, None]

    def total(rank):
        def add(mine):
            sums[rank] = mine
            wall.wait()
            out = sums[0] + sums[1]
            wall.wait()
            return out

        return add

    copies = [split, level(log_stds=2, outputs=2, ppo=ppo)]
    threads = [
        threading.Thread(
            target=ppo_update,
            args=(copies[r], parts[r], shuffle()),
            kwargs={"all_reduce": total(r)},
        )
        for r in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert np.array_equal(weights(copies[0]), weights(copies[1]))
    assert weights(split) == pytest.approx(weights(both), abs=1e-5)
    assert not np.array_equal(weights(both), weights(level(log_stds=2, outputs=2, ppo=ppo)))


def test_large_gradients_are_scaled():
    # Norms 5 and 0.5, at most 1 is accepted: the first becomes (.6, .8), the second stays.
    large, small = np.array([3, 4], np.float32), np.array([0.3, 0.4], np.float32)
    one = replace(PPO, max_grad_norm=1.0)
    assert module._clip(large, one) == pytest.approx([0.6, 0.8])
    assert module._clip(small, one) == pytest.approx([0.3, 0.4])
    assert np.array_equal(module._clip(large, replace(PPO, max_grad_norm=None)), large)


# Advantages of comparable size ------------------------------------------------------------


def advantages(how):
    empty = np.zeros(0, np.float32)
    rows = [np.array([1, 3], np.float32), empty, np.array([10, 14], np.float32)]
    samples = [Minibatch(r[:, None], r, r, r, r, r, r.astype(np.intp)) for r in rows]
    return [s.advantage.tolist() for s in normalize_advantages(samples, how)]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        # Means 2 and 12, deviations 1 and 2.
        ("group", [[-1, 1], [], [-1, 1]]),
        # Centered -1, 1, -2, 2: deviation sqrt(10 / 4) = 1.5811.
        ("centered", [[-0.6325, 0.6325], [], [-1.2649, 1.2649]]),
        # 1, 3, 10, 14: mean 7, deviation sqrt((36 + 16 + 9 + 49) / 4) = 5.2440.
        ("global", [[-1.1442, -0.7628], [], [0.5721, 1.3349]]),
    ],
)
def test_normalized_advantages(how, expected):
    for ours, theirs in zip(advantages(how), expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
