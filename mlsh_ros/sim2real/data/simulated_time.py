"""Times of a recording in the simulated time of its sensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mlsh_ros.sim2real.data.tick_moments import NANO

APART = 1.0  # s between stamps and times of reception, from which on they are of two clocks
# How much faster or slower one of them runs: two real clocks differ by 0.0001, and a stamp in
# another unit by 1000.
LEAST_RATE, MOST_RATE = 0.02, 50.0
LEAST = 10  # different stamps
PARTS = 5  # of a recording, whose median rate counts


def simulated_time(
    received: Sequence[int], stamp: Sequence[int], origin: int
) -> Callable[[Sequence[int]], list[int]] | None:
    """Returns a function from times of reception to the simulated time that passed, both in ns.

    A simulator may be faster or slower than real time, or pause. What its robot does in a second
    is known in the time of its own stamps alone.

    Args:
        received: (n,) ns since `origin`, when the messages of a sensor came; of any size.
        stamp: (n,) ns, their stamps.
        origin: ns, the recorder's time of the first message.

    Returns:
        None if the stamps are of the recorder's clock, of another one that runs as fast, or of one
        that jumps back. Time 0 is that of the first stamp.
    """
    came = np.array(received, np.float64)
    passed = np.array([each - stamp[0] for each in stamp], np.float64)
    steps = np.diff(passed)
    if (steps > 0).sum() < LEAST or (steps < 0).any() or (np.diff(came) < 0).any():
        return None
    if any(abs(a - origin - b) * NANO < APART for a, b in zip(stamp, received, strict=True)):
        return None
    # Of most of the recording: a network that stands still at its begin is no other clock.
    at = np.linspace(0, len(came) - 1, PARTS + 1).astype(np.int64)
    rate = float(np.median(np.diff(passed[at]) / np.maximum(np.diff(came[at]), 1.0)))
    if abs(rate - 1.0) < LEAST_RATE or not 1 / MOST_RATE < rate < MOST_RATE:
        return None

    def convert(times: Sequence[int]) -> list[int]:
        at = np.interp(np.array(times, np.float64), came, passed)
        return [round(each) for each in at.tolist()]

    return convert


def retime(messages: list[Any], convert: Callable[[Sequence[int]], list[int]]) -> None:
    """Convert the times of reception of messages: the second element of each tuple, ns."""
    times = convert([each[1] for each in messages])
    messages[:] = [(each[0], time, *each[2:]) for each, time in zip(messages, times, strict=True)]
