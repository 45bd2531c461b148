"""Times at which the messages and commands in a segment of a recording took effect."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mlsh_ros.sim2real.data.signals import PAUSE, RecordedSession, Segment, Signals, SignalStream
from mlsh_ros.sim2real.data.tick_moments import Ints
from sim.interface import Floats


@dataclass(frozen=True)
class Timed:
    """A segment with its times, in s."""

    segment: Segment
    moments: Floats  # (T,) from when on each command acts
    received: Floats  # (n,) when messages came ..
    happened: Floats  # (n,) .. and when what they show was; empty: at once
    given: Floats  # (C,) from when on each command of `orders` acts
    orders: Floats  # (C, A)

    def when(self, received: Floats) -> Floats:
        """Returns the times of measurement of messages with these times of reception."""
        if not len(self.received):
            return received
        late = np.interp(received, self.received, self.received - self.happened)
        return np.asarray(received - late)


def within(signals: Signals, segment: Segment, stream: SignalStream) -> NDArray[np.bool_]:
    """(n,) True for messages received during a segment."""
    session, step = segment.session, signals.interface.control_dt
    low, high = _between(signals, session, segment)
    inside = (stream.order > low) & (stream.order < high)
    # By its place it lies near a tick; by its time too, unless the recorder's clock has jumped.
    order = session.order[segment.begin : segment.end]
    ticks = session.received[segment.begin : segment.end]
    near = ticks[np.maximum(np.searchsorted(order, stream.order) - 1, 0)]
    inside &= (stream.received > near - 2 * step) & (stream.received < near + PAUSE + 2 * step)
    return inside


def _between(signals: Signals, session: RecordedSession, segment: Segment) -> tuple[int, int]:
    """Returns the positions of the ticks before and after a segment, in any session."""
    ticks = np.sort(np.concatenate([each.order for each in signals.sessions]))
    first = np.searchsorted(ticks, session.order[segment.begin])
    after = np.searchsorted(ticks, session.order[segment.end - 1]) + 1
    low = int(ticks[first - 1]) if first else -1
    return low, int(ticks[after]) if after < len(ticks) else np.iinfo(np.int64).max


def timed_events(signals: Signals, segment: Segment) -> Timed:
    """Returns the times of the events in a segment.

    sim_node applies a command in its next physics step, and sends sensors after every step: the
    step that applies it begins when the sensors before the command were sent. Late steps are
    caught up by the following ones, so the later steps limit how late each can have been due.
    """
    interface, none = signals.interface, np.zeros(0)
    session, part = segment.session, slice(segment.begin, segment.end)
    given, orders, places = session.given, session.given_command, session.given_order
    if session.traced:
        given, orders, places = given[part], orders[part], places[part]
    ticks = session.received[part]
    if signals.lockstep:
        grid = interface.control_dt * np.arange(len(segment), dtype=np.float64)
        return Timed(segment, grid, none, none, grid, session.command[part])
    plain = Timed(segment, ticks, none, none, given, orders)
    if not signals.simulated or not signals.streams:
        return plain
    finest = max(signals.streams, key=lambda stream: len(stream.received))
    inside = within(signals, segment, finest)
    received = finest.received[inside]
    if not len(received):
        return plain
    steps = interface.physics_dt * np.arange(len(received), dtype=np.float64)
    happened = np.minimum.accumulate((received - steps)[::-1])[::-1] + steps
    timed = replace(plain, received=received, happened=happened)
    seen = finest.order[inside]
    moments = _obeyed(timed, seen, session.order[part], ticks, interface.physics_dt)
    if session.traced:
        return replace(timed, moments=moments, given=moments)
    given = _obeyed(timed, seen, places, given, interface.physics_dt)
    return replace(timed, moments=moments, given=given)


def _obeyed(timed: Timed, seen: Ints, order: Ints, came: Floats, step: float) -> Floats:
    """(T,) physics steps that applied the received commands, from the sensors received before."""
    place = np.searchsorted(seen, order) - 1
    before = np.maximum(place, 0)
    behind = came - timed.received[before]
    near = (place >= 0) & (behind >= 0) & (behind < 2 * step)
    moments = np.where(near, timed.happened[before], timed.when(came))
    return np.asarray(np.maximum.accumulate(moments))


def first_times(time: Floats, values: Floats) -> Floats:
    """(n,) time at which each value began, if the following ones are exactly the same."""
    if not len(time):
        return time
    new = np.r_[True, (np.diff(values, axis=0) != 0).any(axis=1)]
    return time[np.maximum.accumulate(np.where(new, np.arange(len(time)), 0))]
