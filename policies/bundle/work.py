"""Bounds what it takes to run the networks of a bundle.

A file of some kB can have operators that take seconds for each observation. What is run when a
bundle is loaded, by a node whose services wait meanwhile, is bounded before anything runs.
"""

from __future__ import annotations

from sim.errors import UserError

# Multiplications of a network for one observation: some 10 ms on a slow core. A policy with layers
# of 1024, 1024 and 512 units has 1.6 million.
MAX_WORK = 2**24
PIECE = 64  # golden rows that run at a time, so that a wide network needs little memory
ELEMENT = 16  # multiplications that an element of another operator counts as, such as a tanh
# Of all networks for all golden rows, which every loader computes: one or two seconds. 64 rows, as
# an export writes them, leave 33 million for each row.
MAX_GOLDEN_WORK = 2**31


def check_work(work: int, where: str) -> None:
    """Refuse a network that takes too long for one observation.

    Raises:
        UserError: more multiplications than are accepted.
    """
    if work > MAX_WORK:
        raise UserError(
            f"{where}: {work:,} multiplications for one observation, at most {MAX_WORK:,} are "
            "accepted; give a smaller network"
        )


def check_golden_work(work: int, rows: int, where: str) -> None:
    """Refuse golden rows that take too long to compute.

    Args:
        work: multiplications of all networks for one observation.
        rows: number of golden rows.
        where: for errors.

    Raises:
        UserError: more multiplications than are accepted.
    """
    if work * rows > MAX_GOLDEN_WORK:
        raise UserError(
            f"{where}: {rows} golden rows take {work * rows:,} multiplications, at most "
            f"{MAX_GOLDEN_WORK:,} are accepted; give fewer rows or smaller networks"
        )
