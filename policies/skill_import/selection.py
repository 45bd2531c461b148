"""A selection of elements of a vector, each scaled and shifted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.interface import Floats

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Selection:
    """n numbers: element `index` of a vector, scaled and shifted."""

    index: NDArray[np.int64]  # (n,)
    scale: Floats  # (n,)
    offset: Floats  # (n,) added after the scale
    clip: tuple[float, float] | None = None  # of the result

    def __call__(self, vector: Float32) -> Float32:
        """(..., n) numbers of a vector, computed in 32 bits as the graph of a skill does."""
        scale, offset = self.scale.astype(np.float32), self.offset.astype(np.float32)
        picked: Float32 = vector[..., self.index] * scale + offset
        return picked if self.clip is None else np.clip(picked, *np.array(self.clip, np.float32))


@dataclass(frozen=True)
class SkillMapping:
    """The selections and limits with which a skill runs a policy."""

    input: Selection  # of the observation (O,)
    output: Selection  # of the policy's output
    output_clip: tuple[float, float] | None  # of the policy's output
    width: int  # O
