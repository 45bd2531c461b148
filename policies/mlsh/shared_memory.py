"""All-reduce and all-gather through memory shared by the processes of one computer.

A network library wakes a sleeping process for every message, which takes a millisecond on a
virtual machine, longer than copying the few kilobytes of a gradient. Here processes wait actively.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time

import numpy as np
from numpy.typing import NDArray

LINE = 64  # bytes of a cache line: each process counts in one of its own
ROOM = 2**20  # bytes of one process in a message; longer ones go in pieces
EAGER, PATIENT = 2_000, 20_000  # looks in a row, before others may run and before sleeping
NAP = 50e-6  # s


class SharedMemoryGroup:
    """A block of memory in which every process has a counter and room for two messages.

    Two, because a process may begin the next message while another one still reads this one.
    It cannot be two ahead, because it waits for the counters of all processes in between.

    Args:
        path: of the file that all processes map.
        rank: of this process.
        size: how many there are.
    """

    def __init__(self, path: str, rank: int, size: int) -> None:
        shared = np.memmap(path, np.uint8, "r+", shape=(block(size),))
        self._rank, self._size, self._turn = rank, size, 0
        self._counters = shared[: size * LINE].view(np.int64)[:: LINE // 8]  # (size,)
        self._room = shared[size * LINE :].reshape(2, size, ROOM)
        self._fence = threading.Lock()

    def exchange(self, mine: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bytes (size, n) of all processes, in order; `mine` (n,) has the same length in each."""
        everybody = np.empty((self._size, len(mine)), np.uint8)
        for begin in range(0, len(mine), ROOM):
            piece = mine[begin : begin + ROOM]
            self._turn += 1
            room = self._room[self._turn % 2, :, : len(piece)]
            room[self._rank] = piece
            with self._fence:  # the bytes are there before the counter says so, on any processor
                self._counters[self._rank] = self._turn
            self._wait()
            everybody[:, begin : begin + ROOM] = room
        return everybody

    def _wait(self) -> None:
        looks = 0
        while (self._counters < self._turn).any():
            looks += 1
            if looks > PATIENT:
                time.sleep(NAP)
            elif looks > EAGER:
                os.sched_yield()
        with self._fence:
            pass


def block(size: int) -> int:
    """Size of the memory for the given number of processes, bytes."""
    return size * (LINE + 2 * ROOM)


def create(size: int) -> str:
    """Create a file for the shared memory; returns its path."""
    folder = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    handle, path = tempfile.mkstemp(prefix="mlsh_", dir=folder)
    os.truncate(handle, block(size))
    os.close(handle)
    return path
