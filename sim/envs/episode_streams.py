"""Random numbers of the episodes of many simulations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sim.envs.gymnasium_arguments import Seeds
from sim.seeding import Stream, generator


class EpisodeStreams:
    """Episode n of simulation b is drawn from (seed, number of b, n).

    Args:
        seed: of the run.
        numbers: (B,) of the simulations in it.

    Attributes:
        seed: of the run; single simulations may have a seed of their own.
        episodes: (B,) how many episodes have begun.
    """

    def __init__(self, seed: int, numbers: Sequence[int]) -> None:
        self._numbers = numbers
        self.episodes = np.zeros(len(numbers), np.int64)
        self.begin_run(seed)

    def begin_run(self, seed: int) -> None:
        """Begin the run of a seed."""
        self.seed = seed
        self._streams = self._of_run()
        self.episodes[:] = 0

    def begin_runs(self, seeds: Seeds, ids: NDArray[np.int32]) -> None:
        """Begin runs in simulations `ids` alone.

        With one seed they have the episodes that they would have in its run; with a list, (B,),
        each has those of simulation 0 of its seed, or goes on where it is None.
        """
        for b in ids:
            if isinstance(seeds, int):
                self._streams[b], self.episodes[b] = (seeds, self._numbers[b]), 0
            elif seeds is not None and (own := seeds[b]) is not None:
                self._streams[b], self.episodes[b] = (own, 0), 0

    def rng(self, stream: Stream, b: int) -> np.random.Generator:
        """The generator of the next episode of simulation b."""
        seed, number = self._streams[b]
        return generator(seed, stream, number, self.episodes[b])

    def snapshot(self) -> dict[str, NDArray[np.generic]]:
        """The state as arrays, which `restore` reads."""
        own = {} if self._streams == self._of_run() else {"streams": np.array(self._streams, "u8")}
        return {"episodes": self.episodes.copy(), "seed": np.array(self.seed, np.uint64), **own}

    def restore(self, state: dict[str, NDArray[np.generic]]) -> None:
        """Continue from a `snapshot`."""
        self.begin_run(int(state["seed"]))
        self.episodes[:] = state["episodes"]
        if "streams" in state:
            self._streams = [(int(seed), int(number)) for seed, number in state["streams"]]

    def _of_run(self) -> list[tuple[int, int]]:
        """Seed and number of each simulation in the run of `seed`."""
        return [(self.seed, number) for number in self._numbers]
