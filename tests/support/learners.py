"""Small learners for one update."""

import numpy as np
import torch

from policies.mlsh.actor_critic import ActorCriticBatch
from policies.mlsh.config import NetworkConfig, PpoConfig
from policies.mlsh.losses import Minibatch

PPO = PpoConfig(learning_rate=0.05, gamma=0.99, gae_lambda=0.98, epochs=4, minibatch=1000)

SHUFFLE = 5
TORCH = {"tanh": torch.tanh, "elu": torch.nn.functional.elu}


def rng(seed=SHUFFLE):
    return np.random.default_rng(seed)


def shuffle(seed=SHUFFLE):
    return lambda row, group: np.random.default_rng([seed, row, group])


SMALL = NetworkConfig(hidden=(8,))


def level(
    *, outputs=3, log_stds=0, count=2, ppo=PPO, network=SMALL, privileged=0
) -> ActorCriticBatch:
    result = ActorCriticBatch(count, 4, outputs, network, ppo, log_stds, privileged=privileged)
    for row in range(count):
        result.reset(row, rng(row))
    return result


def draw(policies: ActorCriticBatch, row: int, n: int, *, reward, seed=0) -> Minibatch:
    """n samples of one policy, whose value function knows nothing yet."""
    random = rng(seed)
    obs = random.standard_normal((n, 4)).astype(np.float32)
    out = policies.policy.forward_row(row, obs)
    if policies.policy.log_stds:
        std = np.exp(policies.policy.log_std(row))
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
    group = np.zeros(n, np.intp)
    return Minibatch(obs, action, log_prob, advantage, np.zeros(n, np.float32), gain, group)


def plain(obs, action):
    return obs[:, 0]


def log_prob(policies: ActorCriticBatch, row: int, s: Minibatch, parameters=None) -> torch.Tensor:
    """(n,) by torch, differentiable by `parameters`."""
    out, log_stds = by_torch(policies.policy, row, s.obs, parameters)
    if policies.policy.log_stds:
        normal = torch.distributions.Normal(out, log_stds.exp())
        return normal.log_prob(torch.from_numpy(s.action)).sum(dim=1)
    return torch.distributions.Categorical(logits=out).log_prob(torch.from_numpy(s.action))


def by_torch(stack, row, x, parameters=None):
    """Output (n, out) and free parameters of network `row`."""
    parameters = torch.from_numpy(stack.numpy[row]) if parameters is None else parameters
    y, start, layers = torch.from_numpy(x), 0, stack.layers(row)
    for i, (w, b) in enumerate(layers):
        weight = parameters[start : start + w.size].reshape(w.shape)
        bias = parameters[start + w.size : start + w.size + b.size]
        y, start = y @ weight + bias, start + w.size + b.size
        y = TORCH[stack.activation](y) if i < len(layers) - 1 else y
    return y, parameters[start:]
