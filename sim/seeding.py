"""Seeds: stateless random streams, each a function of the seed, its purpose and its indices.

Philox is counter based, so a generator is made where it is needed. Nothing has to be saved to
resume a run, and a draw does not depend on earlier draws of other streams.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """Purpose of random numbers; streams never overlap."""

    EPISODE = 0
    NOISE = 1
    INIT = 2
    TASKS = 3
    ACTIONS = 4
    DECISIONS = 5
    SHUFFLE = 6
    PROBE = 7
    SHUFFLE_SKILLS = 8
    SIM_PARAMS = 9
    SMOOTHNESS = 10


def generator(seed: int, stream: Stream, a: int = 0, b: int = 0) -> np.random.Generator:
    """Returns the generator for position (a, b) of a stream, for example (simulation, episode)."""
    counter = np.array([0, stream, a, b], np.uint64)  # element 0 counts the draws
    return np.random.Generator(np.random.Philox(key=seed, counter=counter))


def episode_rng(seed: int, episode: int) -> np.random.Generator:
    """Returns the generator of an evaluation episode, shared by offline rollouts and sim_node."""
    return generator(seed, Stream.EPISODE, 0, episode)
