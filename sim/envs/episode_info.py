"""Entries of a vector environment's `info` in the form of gymnasium's `SyncVectorEnv`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]


def labeled(name: str, values: NDArray[Any], rows: Bools) -> dict[str, Any]:
    """Values (B, ...) and the rows (B,) for which they hold; nothing if there is none."""
    return {name: values, f"_{name}": rows.copy()} if rows.any() else {}


def final_info(
    observation: NDArray[np.float32],
    success: Bools,
    ended: Bools,
    privileged: NDArray[np.float32],
) -> dict[str, Any]:
    """Last observations and infos of the episodes that end in rows `ended`, before their reset.

    Privileged values (B, P) are among the infos if there are any.
    """
    final = np.full(len(ended), None, object)
    for b in np.flatnonzero(ended):
        final[b] = observation[b].copy()
    last = labeled("success", success & ended, ended)
    if privileged.size:
        last |= labeled("privileged", privileged.copy(), ended)
    return {**labeled("final_obs", final, ended), "final_info": last, "_final_info": ended.copy()}
