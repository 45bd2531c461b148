"""Noise of observations as the interface declares it, drawn for whole groups of simulations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sim.interface import Floats, Interface
from sim.seeding import Stream, generator


class ObservationNoise:
    """Draws the noise of G groups of E simulations.

    Args:
        interface: whose terms have noise.
        group_ids: (G,) numbers of the groups.
        envs: E.
    """

    def __init__(self, interface: Interface, group_ids: Sequence[int], envs: int) -> None:
        self._terms = [t for t in interface.observation if t.noises.any() and t.policy_input]
        self._group_ids, self._envs = group_ids, envs

    def draw(self, seed: int, step: int) -> dict[str, Floats]:
        """Noise per term (B, count), a pure function of the seed and the step."""
        if not self._terms:
            return {}
        rngs = [generator(seed, Stream.NOISE, step, g) for g in self._group_ids]
        # Apart from the fields: the task is evaluated on true values, not on measurements.
        return {
            term.name: term.noises
            * np.concatenate([r.standard_normal((self._envs, term.count)) for r in rngs])
            for term in self._terms
        }
