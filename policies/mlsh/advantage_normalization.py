"""Normalizes advantages, also over several processes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.mlsh.losses import Minibatch
from policies.mlsh.networks import AllReduce, no_reduce


def normalize_advantages(
    samples: list[Minibatch],
    how: str,
    *,
    own: AllReduce = no_reduce,
    everyone: AllReduce = no_reduce,
) -> list[Minibatch]:
    """Scale the advantages of each policy to a comparable size.

    group: zero mean and unit deviation for each. global: over all together. centered: zero mean
    for each, divided by the deviation over all, so that a group whose returns are only noise does
    not turn the noise into full-size updates.

    Args:
        samples: of each policy.
        how: as above.
        own: adds up over the processes that share each of the policies.
        everyone: adds up over all processes.
    """
    rows = _moments(own, [s.advantage for s in samples])
    if how == "global":
        rows = _moments(everyone, [np.concatenate([s.advantage for s in samples])])
        rows = rows * len(samples)
    elif how == "centered":
        centered = [s.advantage - mean for s, (mean, _) in zip(samples, rows, strict=True)]
        ((_, deviation),) = _moments(everyone, [np.concatenate(centered)])
        rows = [(mean, deviation) for mean, _ in rows]
    return [
        replace(s, advantage=((s.advantage - mean) / (deviation + 1e-8)).astype(np.float32))
        for s, (mean, deviation) in zip(samples, rows, strict=True)
    ]


def _moments(all_reduce: AllReduce, rows: list[NDArray[Any]]) -> list[tuple[float, float]]:
    """Mean and standard deviation of each row over all processes; zeros where it is empty."""
    exact = [row.astype(np.float64) for row in rows]
    first = all_reduce(np.array([[len(row), row.sum()] for row in exact]))
    size = np.maximum(1, first[:, 0])
    mean = first[:, 1] / size
    off = [((row - m) ** 2).sum() for row, m in zip(exact, mean, strict=True)]
    deviation = np.sqrt(all_reduce(np.array(off)) / size)
    return list(zip(mean.tolist(), deviation.tolist(), strict=True))
