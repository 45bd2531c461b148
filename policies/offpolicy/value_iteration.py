"""Randomized least-squares value iteration (Osband et al. 2016) over the decisions of a master.

The value of a decision is linear in fixed features of the observation, with a Gaussian posterior
of the weights. `members` samples of it represent the uncertainty, and exploration follows one of
them for an episode (Thompson sampling); the exported master uses the mean. A fit is linear
algebra: there is no learning rate, and the same decisions give the same values.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from policies.mlsh.offpolicy_config import OffPolicyConfig
from policies.offpolicy.features import Features
from policies.offpolicy.replay import Decisions, Float32
from policies.offpolicy.skill_regression import SkillRegression

MEAN = 0  # the member that has neither noise nor a sample of the prior


class ValueIteration:
    """Values of decisions, fitted to all decisions of a task.

    Q(s, k) = f(s) . (v + a_k): the part v is the value of a state independent of the decision, so
    that data about one skill is informative about the others as well.

    Args:
        features: f.
        skills: K.
        config: prior, noise, members.
        rng: of the members.
    """

    def __init__(
        self,
        features: Features,
        skills: int,
        config: OffPolicyConfig,
        rng: np.random.Generator,
    ) -> None:
        self.features, self.skills, self.config, self.rng = features, skills, config, rng
        size, members = features.count, config.members
        self.weights = np.zeros((members, skills, size))
        # Kept: a member is one sample of the prior, and stays the same while data comes in.
        sample = config.spread * rng.standard_normal((members, 1 + skills, size))
        sample[MEAN] = 0
        sample[:, 0] *= np.sqrt(config.prior)
        sample[:, 1:] *= np.sqrt(config.prior * config.advantage)
        self._shared, self._own = sample[:, 0], sample[:, 1:]

    def fit(self, decisions: Decisions) -> None:
        """Fit every member to all decisions of a task, each followed by the best ones."""
        config, n, size = self.config, len(decisions.skill), self.features.count
        seen, row = np.unique(
            np.concatenate([decisions.obs, decisions.following]), axis=0, return_inverse=True
        )
        now, following = np.split(row.reshape(-1), 2)
        features, basis = self.features(seen), np.eye(size)
        if len(seen) < size:  # the weights are learned in the span of the features, F or fewer
            basis = np.linalg.qr(features.T)[0]
            features = features @ basis
        regression = SkillRegression(
            features[now],
            decisions.skill,
            self.skills,
            shared=config.prior,
            own=config.prior * config.advantage,
            noise=config.noise,
        )
        noise = config.noise * self.rng.standard_normal((config.members, n))
        noise[MEAN] = 0
        shared, own, weights = (part @ basis for part in (self._shared, self._own, self.weights))
        for _ in range(config.iterations):
            found = features @ weights.reshape(-1, basis.shape[1]).T
            best = found.reshape(len(seen), -1, self.skills).max(axis=-1)  # (u, M)
            later = decisions.discount * best[following].T
            target = np.clip(decisions.reward + later, -decisions.limit, decisions.limit)
            weights = regression.weights(target + noise, shared, own)
        prior = self._shared[:, None] + self._own
        self.weights = prior + (weights - prior @ basis) @ basis.T

    def values(self, obs: Float32, member: NDArray[np.intp] | int = MEAN) -> Float32:
        """(n, K) values of observations (n, O) by one member, or by each row's own (n,)."""
        features = self.features(obs)
        members = np.broadcast_to(member, len(obs))
        found = np.einsum("nf,nkf->nk", features, self.weights[members])
        return np.asarray(found, np.float32)

    def agreement(self, obs: Float32) -> float:
        """Fraction of the members whose best skill is the mean's, over observations (n, O)."""
        values = self.features(obs) @ self.weights.transpose(0, 2, 1)
        best = values.argmax(axis=-1)  # (M, n)
        return float((best == best[MEAN]).mean())

    @property
    def finite(self) -> bool:
        """True if all values are finite."""
        return bool(np.isfinite(self.weights).all())

    def head(self) -> list[tuple[Float32, Float32]]:
        """The mean values minus their mean over the skills, as layers of a network.

        In units in which the largest weight is 1 at most, so that 32 bits are enough: which skill
        is the best does not depend on it.
        """
        weights = self.weights[MEAN] - self.weights[MEAN].mean(axis=0)
        weight, bias = self.features.of_units(weights)
        unit = max(float(abs(weight).max()), float(abs(bias).max())) or 1.0
        last = (weight / unit).astype(np.float32), (bias / unit).astype(np.float32)
        return [(self.features.weight, self.features.bias), last]
