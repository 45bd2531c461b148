"""Distributed training: each process holds some of the groups, all share the skills."""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from policies.mlsh.shared_memory import SharedMemoryGroup, create
from sim.errors import UserError, short

T = TypeVar("T", bound=np.generic)


@dataclass
class Meter:
    """Statistics of the communication between processes."""

    calls: int = 0
    bytes: int = 0  # that this process gave
    seconds: float = 0.0  # waiting for the slowest included


@dataclass(frozen=True)
class Ranks:
    """Rank of this process, alone by default; all have the results of the collective calls."""

    rank: int = 0
    size: int = 1
    meter: Meter = field(default_factory=Meter, compare=False)
    shared_memory: SharedMemoryGroup | None = field(
        default=None, compare=False
    )  # all are on this computer

    @property
    def first(self) -> bool:
        """True for the process that writes and prints."""
        return self.rank == 0

    def local_groups(self, groups: int) -> range:
        """Groups of this process.

        Raises:
            UserError: they cannot be shared out evenly.
        """
        if groups % self.size:
            raise UserError(
                f"mlsh.groups {groups} is not a multiple of {self.size} processes "
                f"({groups} = {groups // self.size} x {self.size} + {groups % self.size})"
            )
        # In turns, because neighbors are in the same phase: each rank is to have work in all.
        return range(self.rank, groups, self.size)

    def all_reduce(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum of the arrays of all processes."""
        if self.size == 1:
            return sums
        mine = np.array(sums, np.float64)
        if self.shared_memory is not None:
            everybody = self._exchange(mine)
            return np.asarray(everybody.sum(axis=0))
        import torch

        tensor = torch.from_numpy(mine)
        with self._metered(tensor.nbytes):
            torch.distributed.all_reduce(tensor)
        total: NDArray[np.float64] = tensor.numpy()
        return total

    def all_gather(self, mine: NDArray[T], groups: int) -> NDArray[T]:
        """Rows of all processes in group order; `mine` (n, ...) has n / `groups` rows of each."""
        if self.size == 1:
            return mine
        # Sizes in full: an array without columns has no size to guess from.
        by_group = (self.size, groups, len(mine) // groups, *mine.shape[1:])
        everybody = self._exchange(mine).reshape(by_group)
        return np.swapaxes(everybody, 0, 1).reshape(self.size * len(mine), *mine.shape[1:])

    def local_rows(self, everybody: NDArray[T], groups: int) -> NDArray[T]:
        """Rows of this process's `groups`, from those of all: the inverse of `all_gather`."""
        each, rest = divmod(len(everybody), groups * self.size)
        if self.size == 1 or rest or not each:  # of other groups: checked where it is used
            return everybody
        rows = everybody.reshape(groups, self.size, each, *everybody.shape[1:])
        return rows[:, self.rank].reshape(groups * each, *everybody.shape[1:])

    def _exchange(self, mine: NDArray[T]) -> NDArray[T]:
        """Arrays (size, ...) of all processes, in rank order."""
        data = np.frombuffer(np.ascontiguousarray(mine).tobytes(), np.uint8)
        with self._metered(data.nbytes):
            if self.shared_memory is not None:
                parts = self.shared_memory.exchange(data)
            else:
                import torch

                received = torch.empty((self.size, len(data)), dtype=torch.uint8)
                torch.distributed.all_gather(list(received), torch.from_numpy(data.copy()))
                parts = received.numpy()
        return parts.reshape(-1).view(mine.dtype).reshape(self.size, *mine.shape)

    @contextmanager
    def _metered(self, size: int) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.meter.calls += 1
        self.meter.bytes += size
        self.meter.seconds += time.perf_counter() - start

    def any(self, mine: bool) -> bool:
        """True if `mine` is True in any process."""
        return bool(self.all_reduce(np.array([mine], np.float64))[0])


ALONE = Ranks()


def ranks_of_this_run() -> Ranks:
    """Returns the ranks as torchrun has started them; a single rank without it.

    Raises:
        UserError: the environment names a number of processes, and not how they meet, or they
            do not.
    """
    text = os.environ.get("WORLD_SIZE", "") or "1"
    if text == "1":
        return Ranks()
    missing = [key for key in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(key)]
    if not (text.isdecimal() and int(text)) or missing:
        raise UserError(
            f"the environment has WORLD_SIZE {short(text)}"
            f"{f' and no {missing[0]}' * bool(missing)}; start several processes with torchrun, "
            "or unset it"
        )
    size = int(text)
    import torch

    if not torch.distributed.is_initialized():
        try:
            torch.distributed.init_process_group("gloo")
        except (ValueError, RuntimeError) as error:  # a wrong number, or nobody answers
            raise UserError(
                f"the {size} processes of WORLD_SIZE could not connect: {short(str(error))}; "
                "start them with torchrun, or unset it"
            ) from None
        # Its threads must not outlive us: the process would be aborted, after all work was done.
        atexit.register(torch.distributed.destroy_process_group)
    rank = torch.distributed.get_rank()
    together = size == int(os.environ.get("LOCAL_WORLD_SIZE", "0"))
    return Ranks(rank, size, shared_memory=_meet(rank, size) if together else None)


def _meet(rank: int, size: int) -> SharedMemoryGroup:
    """Set up shared memory with the other processes of this computer."""
    import torch

    where = [create(size) if rank == 0 else ""]
    torch.distributed.broadcast_object_list(where)
    shared_memory = SharedMemoryGroup(where[0], rank, size)
    torch.distributed.barrier()
    if rank == 0:
        os.unlink(where[0])  # the memory exists until the last process unmaps it
    return shared_memory
