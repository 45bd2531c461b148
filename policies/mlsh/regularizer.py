"""Penalties and mirrored samples of the skills' update, by the section `regularization`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from policies.mlsh.losses import Float32, Minibatch
from policies.mlsh.networks import Normalizer
from policies.mlsh.penalties import Penalty
from policies.mlsh.regularization_config import RegularizationConfig
from policies.mlsh.symmetry import Symmetry


class Regularizer:
    """Penalties and mirrored samples of one update.

    Args:
        config: which of them.
        symmetry: mirror images; None if they are not used.
        normalizer: of the observations in the samples.
        symmetric: (groups,) True where the group's task is the same for a skill in the mirror.
    """

    def __init__(
        self,
        config: RegularizationConfig,
        symmetry: Symmetry | None,
        normalizer: Normalizer,
        symmetric: NDArray[np.bool_],
    ) -> None:
        self._config, self._symmetry = config, symmetry
        self._normalizer, self._symmetric = normalizer, symmetric

    def extended(self, part: Minibatch) -> Minibatch:
        """Samples with the mirror images of those of symmetric tasks behind them.

        A mirrored action has in the mirror the probability that the action had where it was drawn:
        its ratio is that to the mirror image of the policy that drew it.
        """
        if self._symmetry is None or self._config.symmetry != "augmentation":
            return part
        rows = np.flatnonzero(self._symmetric[part.group])
        mine = part.take(rows)
        image = replace(
            mine,
            obs=self._image(mine.obs),
            action=self._symmetry.action(mine.action),
            following=None if mine.following is None else self._image(mine.following),
            near=None if mine.near is None else self._image(mine.near),
        )
        return part.joined(image)

    def penalties(self, part: Minibatch) -> list[Penalty]:
        """Penalties on the mean actions of samples."""
        config, found = self._config, []
        if part.following is not None:
            found.append(Penalty(config.temporal_smoothness, part.following))
        if part.near is not None:
            found.append(Penalty(config.spatial_smoothness, part.near))
        if self._symmetry is not None and config.symmetry == "loss":
            found.append(
                Penalty(
                    config.mirror_loss,
                    self._image(part.obs),
                    self._symmetric[part.group],
                    self._symmetry.action,
                )
            )
        return found

    def _image(self, obs: Float32) -> Float32:
        assert self._symmetry is not None
        return self._symmetry.normalized(obs, self._normalizer)
