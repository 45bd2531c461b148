"""Work shared by threads of this process: numpy lets go of the interpreter while it computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Threads:
    """So many threads, the caller's included.

    Args:
        count: at least one.
    """

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count - 1) if count > 1 else None
        self._helpers = count - 1

    def run(self, jobs: Sequence[Callable[[], T]]) -> list[T]:
        """Do all of them; their results in order."""
        if self._pool is None or len(jobs) < 2:
            return [job() for job in jobs]
        results: dict[int, T] = {}
        left = iter(enumerate(jobs))  # whoever is free takes the next one
        others = [self._pool.submit(_take, left, results) for _ in range(self._helpers)]
        _take(left, results)
        for other in others:
            other.result()
        return [results[i] for i in range(len(jobs))]


def _take(left: Iterator[tuple[int, Callable[[], T]]], results: dict[int, T]) -> None:
    for i, job in left:
        results[i] = job()


ONE = Threads(1)
