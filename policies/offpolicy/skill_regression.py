"""Bayesian linear regression for K skills whose weights share a prior, one skill at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from policies.offpolicy.replay import Floats


class SkillRegression:
    """Posterior of the weights w_k = v + a_k of n decisions with features (n, F).

    All weights together are (1 + K) F unknowns. But given v, each skill is a regression of its
    own, with v as the mean of its prior, and the equations for v alone are of size F: K inverses
    of (F, F) take the place of one that is (1 + K)^3 times the work.

    Args:
        features: (n, F) of the states.
        skill: (n,) of each decision.
        skills: K.
        shared: prior variance of v.
        own: prior variance of a_k.
        noise: standard deviation of the targets.
    """

    def __init__(
        self,
        features: Floats,
        skill: NDArray[np.intp],
        skills: int,
        *,
        shared: float,
        own: float,
        noise: float,
    ) -> None:
        size = features.shape[1]
        self._rows = [np.flatnonzero(skill == k) for k in range(skills)]
        self._features = [features[rows] for rows in self._rows]
        self._precision_shared, self._precision_own = 1 / shared, 1 / own
        self._precision_targets = noise**-2
        own_part = self._precision_own * np.eye(size)
        # (K, F, F) covariance of w_k given v.
        self._inverse = np.stack(
            [np.linalg.inv(own_part + self._precision_targets * f.T @ f) for f in self._features]
        )
        # Of v: what is left of its precision when every w_k is eliminated.
        self._inverse_shared = np.linalg.inv(
            (self._precision_shared + skills * self._precision_own) * np.eye(size)
            - self._precision_own**2 * self._inverse.sum(axis=0)
        )

    def weights(self, targets: Floats, shared: Floats, own: Floats) -> Floats:
        """(M, K, F) posterior means w_k, for M times other targets (M, n).

        Args:
            targets: of the decisions.
            shared: (M, F) mean of the prior of v.
            own: (M, K, F) means of the priors of a_k.
        """
        seen = [targets[:, rows] @ f for rows, f in zip(self._rows, self._features, strict=True)]
        pulled = self._precision_own * own.swapaxes(0, 1)  # (K, M, F)
        alone = (self._precision_targets * np.stack(seen) + pulled) @ self._inverse
        right = self._precision_shared * shared
        right = right + (self._precision_own * alone - pulled).sum(axis=0)
        v = right @ self._inverse_shared  # (M, F)
        found = alone + self._precision_own * v @ self._inverse  # (K, M, F)
        return np.asarray(found.swapaxes(0, 1))
