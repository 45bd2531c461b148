"""Fixed features of an observation; a linear function of them is a network with one tanh layer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from policies.mlsh.offpolicy_config import OffPolicyConfig

Float32 = NDArray[np.float32]
Floats = NDArray[np.float64]

SLOPE = 0.15  # of the tanh units of products: these are quadratic up to about 4 deviations
SHIFT = 0.66  # of these units: where tanh is curved the most
CURVATURE = 2 * np.tanh(SHIFT) / np.cosh(SHIFT) ** 2 * SLOPE**2  # of a pair of units


class Features:
    """Linear terms, products of two elements, and random features, of observations (n, O).

    Features that are quadratic in the observation represent, with few data, which of two goals is
    nearer or whether a robot moves towards one; the random features cover everything else. A
    product is made of tanh units: tanh(s u - c) - tanh(s u + c) is quadratic in u around 0, and 4
    x y = (x + y)^2 - (x - y)^2. So it is bounded, too.

    Args:
        size: O.
        config: how many, and how fast the random ones change with the observation.
        masked_inputs: elements of the observation that they do not depend on.
        rng: draws them.
    """

    def __init__(
        self,
        size: int,
        config: OffPolicyConfig,
        masked_inputs: list[int],
        rng: np.random.Generator,
    ) -> None:
        seen = np.setdiff1d(np.arange(size), masked_inputs)
        first, second = np.triu_indices(len(seen))
        if len(first) > config.products:
            kept = np.sort(rng.choice(len(first), config.products, replace=False))
            first, second = first[kept], second[kept]
        n, d, r = len(first), len(seen), config.features
        unit = np.eye(size)[seen]  # (d, O)
        # Units: x + y and x - y, each shifted down and up; then linear ones; then random ones.
        directions = [unit[first] + sign * unit[second] for sign in (1, -1, 1, -1)]
        random = np.zeros((r, size))
        random[:, seen] = config.gain / np.sqrt(d) * rng.standard_normal((r, d))
        self.weight = np.concatenate(
            [SLOPE * np.concatenate(directions), SLOPE * unit, random]
        ).T.astype(np.float32)
        shifts = [np.full(2 * n, -SHIFT), np.full(2 * n, SHIFT), np.zeros(d)]
        self.bias = np.concatenate([*shifts, config.gain / 2 * rng.standard_normal(r)]).astype(
            np.float32
        )
        self._sizes = n, d, r
        self._random_scale = np.sqrt(config.random_share)

    @property
    def units(self) -> int:
        """Number of units of the tanh layer."""
        return len(self.bias)

    @property
    def count(self) -> int:
        """Number of features, including a constant one."""
        return sum(self._sizes) + 1

    def __call__(self, obs: Float32) -> Floats:
        """(n, count) features of observations."""
        units = np.tanh(obs @ self.weight + self.bias).astype(np.float64)
        return self._combine(units)

    def _combine(self, units: Floats) -> Floats:
        n, d, r = self._sizes
        down_sum, down_difference, up_sum, up_difference = (
            units[:, : 4 * n].reshape(-1, 4, n).swapaxes(0, 1)
        )
        products = (down_sum - up_sum) - (down_difference - up_difference)
        polynomial = [products / (4 * CURVATURE), units[:, 4 * n : 4 * n + d] / SLOPE]
        return np.concatenate(
            [
                np.concatenate(polynomial, axis=1) / np.sqrt(n + d),
                units[:, 4 * n + d :] * self._random_scale / np.sqrt(r),
                np.ones((len(units), 1)),
            ],
            axis=1,
        )

    def of_units(self, weights: Floats) -> tuple[Floats, Floats]:
        """Weights (units, K) and bias (K,) of a layer after the tanh, from those of features.

        Args:
            weights: (K, count).
        """
        linear = self._combine(np.eye(self.units))[:, :-1]  # (units, count - 1)
        return linear @ weights[:, :-1].T, weights[:, -1]
