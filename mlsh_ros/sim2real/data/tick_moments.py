"""Times of the ticks of a lockstep recording, from the stamps of the sensors they answered."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sim.interface import Interface

Ints = NDArray[np.int64]
NANO = 1e-9


def moments(candidates: Sequence[Sequence[int]], tick: Ints, period: int) -> Ints:
    """(T,) times of the ticks of one session, ns; -1 where they cannot be determined.

    A tick follows the previous one by a period within an episode of the simulator; the next
    episode begins later. A robot at rest gives the same observation at many times: unique matches
    are extended forwards and backwards, and where the two disagree the time is not determined.

    Args:
        candidates: per tick, times with the same observation, in order.
        tick: (T,) numbers.
        period: ns, of a tick.
    """
    known = [i for i, each in enumerate(candidates) if each]
    sure = [i for i in known if len(candidates[i]) == 1] or known
    if not sure:
        return np.full(len(tick), -1, np.int64)
    onwards = _followed(candidates, tick, period, range(sure[0], len(tick)))
    back = _followed(candidates, tick, period, range(sure[-1], -1, -1))
    found = np.where(np.arange(len(tick)) < sure[0], back, onwards)
    both = slice(sure[0], sure[-1] + 1)
    found[both] = np.where(onwards[both] == back[both], onwards[both], -1)
    return found


def _followed(candidates: Sequence[Sequence[int]], tick: Ints, period: int, way: range) -> Ints:
    """(T,) moments from one tick on, forwards or backwards; -1 where none fits."""
    found = np.full(len(tick), -1, np.int64)
    at, last = way[0], candidates[way[0]][0]
    for i in way:
        due = last + int(tick[i] - tick[at]) * period
        fits = [each for each in candidates[i] if abs(each - due) < period // 2]
        if not fits and way.step > 0:
            fits = [each for each in candidates[i] if each > due][:1]
        elif not fits:
            fits = [each for each in candidates[i] if each < due][-1:]
        if fits:
            found[i] = last = fits[0]
            at = i
    return found


def ended(tick: Ints, moment: Ints, interface: Interface) -> NDArray[np.bool_]:
    """(T - 1,) True where the next tick is not known to belong to the same episode."""
    period = round(interface.control_dt / NANO)
    begin = moment - tick * period  # one number for all ticks of an episode
    ends = np.ones(len(tick) - 1, bool)
    for i, j in itertools.pairwise(np.flatnonzero(moment >= 0)):
        ends[i:j] = abs(int(begin[j] - begin[i])) >= period // 2
    return ends
