"""The groups of a training and the part of them that this process holds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from policies.mlsh.distributed import Ranks, T

Arrays = dict[str, NDArray[np.generic]]


class LocalGroups:
    """G groups, distributed evenly over processes; a row of this process is one of its groups.

    Args:
        total: G.
        ranks: the processes.

    Attributes:
        group_ids: (n,) of the groups of this process, in the order of its rows.

    Raises:
        UserError: they cannot be shared out evenly.
    """

    def __init__(self, total: int, ranks: Ranks) -> None:
        self.ranks, self.group_ids = ranks, ranks.local_groups(total)

    def __len__(self) -> int:
        """Number of groups of this process."""
        return len(self.group_ids)

    def row(self, group: int) -> int | None:
        """The row of a group; None if another process has it."""
        return self.group_ids.index(group) if group in self.group_ids else None

    def local(self, everyone: NDArray[T]) -> NDArray[T]:
        """Rows of this process (n, ...), from one row per group (G, ...)."""
        return everyone[self.group_ids.start :: self.group_ids.step]

    def all_gather(self, rows: NDArray[T]) -> NDArray[T]:
        """Rows of every group, or of its simulations, from the rows of this process."""
        return self.ranks.all_gather(rows, len(self))

    def all_reduce(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum over all processes."""
        return self.ranks.all_reduce(sums)

    def by_group(self, simulations: NDArray[T]) -> NDArray[T]:
        """Reshape (n * E, ...) to (n, E, ...): the simulations of each group."""
        return simulations.reshape(len(self), -1, *simulations.shape[1:])

    def gather_state(self, own: Arrays) -> Arrays:
        """The state of all groups from that of this process."""
        return {name: self.all_gather(a) if _per_group(name, a) else a for name, a in own.items()}

    def local_state(self, everyone: Arrays) -> Arrays:
        """The inverse of `gather_state`."""
        return {
            name: self.ranks.local_rows(a, len(self)) if _per_group(name, a) else a
            for name, a in everyone.items()
        }


def _per_group(name: str, array: NDArray[np.generic]) -> bool:
    """True if an array of the state has a row for each group or simulation."""
    parts = ("masters.policy", "masters.value", "collector.", "env.")
    return bool(array.ndim) and name.startswith(parts)
