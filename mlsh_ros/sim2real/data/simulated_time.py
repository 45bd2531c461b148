"""Times of a recording in the simulated time of its sensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlsh_ros.sim2real.data.tick_moments import NANO, Ints

APART = 1.0  # s between stamps and times of reception, from which on they are of two clocks
# How much faster or slower one of them runs: two real clocks differ by 0.0001, and a stamp in
# another unit by 1000.
LEAST_RATE, MOST_RATE = 0.02, 50.0
LEAST = 10  # different stamps


def simulated_time(received: Ints, stamp: Ints, origin: int) -> Callable[[Ints], Ints] | None:
    """Returns a function from times of reception to the simulated time that passed, both in ns.

    A simulator may be faster or slower than real time, or pause. What its robot does in a second
    is known in the time of its own stamps alone.

    Args:
        received: (n,) ns since `origin`, when the messages of a sensor came.
        stamp: (n,) ns, their stamps.
        origin: ns, the recorder's time of the first message.

    Returns:
        None if the stamps are of the recorder's clock, of another one that runs as fast, or of one
        that jumps back. Time 0 is that of the first stamp.
    """
    steps = np.diff(stamp)
    if (steps > 0).sum() < LEAST or (steps < 0).any() or (np.diff(received) < 0).any():
        return None
    passed = stamp - stamp[0]
    if (np.abs(stamp - origin - received) * NANO < APART).any():
        return None
    rate = float(passed[-1]) / max(float(np.ptp(received)), 1.0)
    if abs(rate - 1.0) < LEAST_RATE or not 1 / MOST_RATE < rate < MOST_RATE:
        return None

    def convert(times: Ints) -> Ints:
        return np.asarray(np.round(np.interp(times, received, passed)), np.int64)

    return convert


def retime(messages: list[Any], convert: Callable[[Ints], Ints]) -> None:
    """Convert the times of reception of messages: the second element of each tuple, ns."""
    times = convert(np.array([each[1] for each in messages], np.int64)).tolist()
    messages[:] = [(each[0], time, *each[2:]) for each, time in zip(messages, times, strict=True)]
