"""Times of the ticks of a lock-step recording, from the stamps of the sensors they answered."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sim.interface import Interface

Ints = NDArray[np.int64]
NANO = 1e-9


def moments(candidates: Sequence[Sequence[int]], tick: Ints, period: int) -> Ints:
    """(T,) when ticks of one session were, ns; -1 where nothing tells it.

    A tick later is a period later, as long as the simulator's episode lasts; the next episode
    begins later than that. A robot that stands shows the same at many moments: what is certain
    is held on to, forwards and backwards, and where the two disagree nothing is told.

    Args:
        candidates: per tick, moments at which what it saw was shown, in order.
        tick: (T,) numbers.
        period: ns, of a tick.
    """
    told = [i for i, each in enumerate(candidates) if each]
    sure = [i for i in told if len(candidates[i]) == 1] or told
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
    """(T - 1,) where nothing shows that the next tick is of the same episode."""
    period = round(interface.control_dt / NANO)
    begin = moment - tick * period  # one number for all ticks of an episode
    ends = np.ones(len(tick) - 1, bool)
    for i, j in itertools.pairwise(np.flatnonzero(moment >= 0)):
        ends[i:j] = abs(int(begin[j] - begin[i])) >= period // 2
    return ends
