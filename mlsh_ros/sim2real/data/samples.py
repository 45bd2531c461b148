"""Measurements of each term within windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlsh_ros.sim2real.data.angle_wraps import turns, unwound
from mlsh_ros.sim2real.data.compared_values import count_of, to_compared, unfolded, unscaled
from mlsh_ros.sim2real.data.event_times import Timed, first_times, within
from mlsh_ros.sim2real.data.signals import SAME, Signals, SignalStream
from mlsh_ros.sim2real.data.tick_moments import Ints
from mlsh_ros.sim2real.data.window_plan import WindowPlan
from sim.interface import Floats, ObservationTerm

OLDEST = 1.0  # s; stamps that are further from the time of arrival are of another clock
REACH = 1.0  # ticks after the last one that its command is taken to hold


@dataclass(frozen=True)
class TermSamples:
    """Measurements of one term, n in all windows.

    Times count from the beginning of the comparison, in ticks of nominal length.
    """

    window: Ints  # (n,)
    time: Floats  # (n,) when it came
    stamp: Floats  # (n,) when it was made, by its stamp; nan where it has none
    first: Floats  # (n,) when this very value came for the first time, on a sensor that repeats
    values: Floats  # (n, count), see `compared_values`

    def take(self, rows: NDArray[np.bool_]) -> TermSamples:
        """Select samples."""
        return TermSamples(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def samples_of(
    signals: Signals,
    segments: list[Timed],
    term: ObservationTerm,
    segment: Ints,
    begins: Floats,
    plan: WindowPlan,
    fields: Sequence[Mapping[str, Floats]],
) -> TermSamples:
    """Returns the samples of a term.

    Args:
        signals: all.
        segments: of the recording.
        term: which.
        segment: (W,) of the windows.
        begins: (W,) s, when their comparisons begin.
        plan: of the windows.
        fields: of each segment, per term (T, size) at its ticks.
    """
    stream = None if signals.lockstep else signals.stream(term.name)
    tick = signals.interface.control_dt
    parts = []
    for i, timed in enumerate(segments):
        shown = fields[i][term.name]
        if signals.lockstep and np.isfinite(shown).all(axis=1).any():
            found = _from_ticks(timed, term, unfolded(term, shown))
        elif stream is not None:
            found = _from_stream(signals, timed, stream, term)
        elif term.policy_input and timed.segment.session.traced:
            part = slice(timed.segment.begin, timed.segment.end)
            observation = timed.segment.session.observation[part]
            found = _from_ticks(timed, term, unscaled(term, signals.interface, observation))
        else:
            continue
        place = np.flatnonzero(segment == i)
        if not len(place):
            continue
        # Windows follow one another; where ticks came unevenly, with holes that nobody simulates.
        begin = begins[place]
        at = np.searchsorted(begin - SAME, found.time, side="right") - 1
        inside = (at >= 0) & (found.time < timed.moments[-1] + REACH * tick)
        inside &= found.time - begin[at] < plan.length * tick + SAME
        found, at = found.take(inside), at[inside]
        time, stamp, first = (
            (each - begin[at]) / tick for each in (found.time, found.stamp, found.first)
        )
        parts.append(TermSamples(place[at], time, stamp, first, found.values))
    if not parts:
        return TermSamples(
            np.zeros(0, np.int64), *(np.zeros(0),) * 3, np.zeros((0, count_of(term)))
        )
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    return TermSamples(*(np.concatenate(column) for column in columns))


def _from_ticks(timed: Timed, term: ObservationTerm, values: Floats) -> TermSamples:
    """Measurements (T, count) of all ticks at which they are known; times in s."""
    known = np.isfinite(values).all(axis=1)
    time, values = timed.moments[known], values[known]
    first = first_times(time, values)
    if turns(term):
        values, _ = unwound(values)
    return TermSamples(
        np.zeros(len(time), np.int64), time, time + np.nan, first, to_compared(term, values)
    )


def _from_stream(
    signals: Signals, timed: Timed, stream: SignalStream, term: ObservationTerm
) -> TermSamples:
    """Times in s."""
    inside = within(signals, timed.segment, stream)
    received = stream.received[inside]
    age = received - stream.stamp[inside]
    if not abs(np.median(age) if len(age) else np.nan) < OLDEST:  # nan too
        age = age + np.nan
    whole = stream.fields[term.name][inside]
    time = timed.measured(stream, inside)
    values = to_compared(term, unfolded(term, whole))
    return TermSamples(
        np.zeros(len(time), np.int64), time, time - age, first_times(time, whole), values
    )
