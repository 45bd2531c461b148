"""Finds joints whose recorded angles contradict their recorded velocities."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlsh_ros.sim2real.data.signals import PAUSE, Signals
from mlsh_ros.sim2real.data.tick_moments import Ints
from mlsh_ros.sim2real.replay.residuals import labels
from sim.interface import Floats, Interface

SPAN = 0.2  # s over which an angle's change is held against the velocities in between
FEWEST = 50  # of such changes
HOLDS = 0.95  # correlation from which on both are of one joint
LEAST = 1e-3  # rad or m: a joint that moves less says nothing


@dataclass(frozen=True)
class Angle:
    """Ratio between a joint's angle and the integral of its velocity."""

    name: str  # of the element that shows the angle
    ratio: float  # 1: they agree
    correlation: float


def angles(interface: Interface, recordings: Sequence[Signals]) -> list[Angle]:
    """Returns the ratio for every moving joint with both measurements."""
    pairs = [
        ((term.name, i), (other.name, other.mujoco.qvel.index(joint)), f"{term.name}.{name}")
        for term in interface.observation
        for i, (joint, name) in enumerate(zip(term.mujoco.qpos, labels(term), strict=False))
        for other in interface.observation
        if joint in other.mujoco.qvel and "[" not in joint  # a free joint's: turns have no sum
    ]
    found = []
    for position, velocity, name in pairs:
        parts = [_changes(each, position, velocity) for each in recordings]
        shown, summed = np.concatenate(parts, axis=1)
        if len(shown) < FEWEST or min(shown.std(), summed.std()) < LEAST:
            continue
        ratio = float(shown @ summed / (summed @ summed))
        found.append(Angle(name, ratio, float(np.corrcoef(shown, summed)[0, 1])))
    return found


def _changes(signals: Signals, position: tuple[str, int], velocity: tuple[str, int]) -> Floats:
    """(2, n) changes of an angle, and of its velocity's sum, over the same spans of time."""
    none = np.zeros((2, 0))
    angle, speed = (_shown(signals, *place) for place in (position, velocity))
    if signals.lockstep or angle is None or speed is None:
        return none
    parts = [none]
    for first, last in _runs(speed[0]):
        time, rate = speed[0][first:last], speed[1][first:last]
        total = np.r_[0.0, np.cumsum(np.diff(time) * (rate[1:] + rate[:-1]) / 2)]
        inside = (angle[0] >= time[0]) & (angle[0] <= time[-1])
        at, value = angle[0][inside], angle[1][inside]
        later = np.searchsorted(at, at + SPAN)
        begin = np.flatnonzero(later < len(at))
        begin = begin[at[later[begin]] - at[begin] < 2 * SPAN] if len(begin) else begin
        summed = np.interp(at, time, total)
        parts.append(np.stack([each[later[begin]] - each[begin] for each in (value, summed)]))
    return np.concatenate(parts, axis=1)


def _shown(signals: Signals, term: str, index: int) -> tuple[Floats, Floats] | None:
    """(n,) times of measurement, s, and (n,) values; None if the term is not recorded."""
    stream = signals.stream(term)
    if stream is None or len(stream.received) < 2:
        return None
    made = np.where(np.isfinite(stream.stamp), stream.stamp, stream.received)
    value = stream.fields[term][:, index]
    good = np.isfinite(value)
    return made[good], value[good]


def _runs(time: Floats) -> list[tuple[int, int]]:
    """Returns segments without a pause or a jump of the clock."""
    step = np.diff(time)
    edges: Ints = np.r_[0, np.flatnonzero((step <= 0) | (step > PAUSE)) + 1, len(time)]
    return [(int(a), int(b)) for a, b in itertools.pairwise(edges) if b - a > 1]
