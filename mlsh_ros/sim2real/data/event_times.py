"""Times at which the messages and commands in a segment of a recording took effect."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mlsh_ros.sim2real.data.physics_steps import SAME_STAMP, due_times, step_numbers
from mlsh_ros.sim2real.data.signals import PAUSE, RecordedSession, Segment, Signals, SignalStream
from mlsh_ros.sim2real.data.tick_moments import NANO, Ints
from sim.interface import Floats

MORE = 2  # ticks after a segment whose sensors tell whether its last ones were late


@dataclass(frozen=True)
class Timed:
    """A segment with its times, in s."""

    segment: Segment
    moments: Floats  # (T,) from when on each command acts
    received: Floats  # (n,) when messages came ..
    happened: Floats  # (n,) .. and when what they show was; empty: at once
    shown: Ints  # (n,) ns, their stamps in ascending order; empty: they tell nothing
    given: Floats  # (C,) from when on each command of `orders` acts
    orders: Floats  # (C, A)

    def measured(self, stream: SignalStream, chosen: NDArray[np.bool_] | Ints) -> Floats:
        """Returns the times of measurement of some messages of a stream."""
        time = self.when(stream.received[chosen])
        if not len(self.shown):
            return time
        moment = stream.moment[chosen]  # messages with the same stamp are of the same step
        place = np.minimum(np.searchsorted(self.shown, moment), len(self.shown) - 1)
        return np.asarray(np.where(self.shown[place] == moment, self.happened[place], time))

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

    sim_node sends sensors after every physics step, and says which step was the first to apply
    each command. In recordings without that, late steps are taken to be caught up by the following
    ones, so that these limit how late each can have been due, and a command is taken to act in the
    step that begins when the sensors before it were sent; where both come at the same time, it may
    have been the next one.
    """
    interface, none, unstamped = signals.interface, np.zeros(0), np.zeros(0, np.int64)
    session, part = segment.session, slice(segment.begin, segment.end)
    given, orders, places = session.given, session.given_command, session.given_order
    if session.traced:
        given, orders, places = given[part], orders[part], places[part]
    ticks = session.received[part]
    if signals.lockstep:
        grid = interface.control_dt * np.arange(len(segment), dtype=np.float64)
        return Timed(segment, grid, none, none, unstamped, grid, session.command[part])
    plain = Timed(segment, ticks, none, none, unstamped, given, orders)
    if not signals.simulated or not signals.streams:
        return plain
    finest = max(signals.streams, key=lambda stream: len(stream.received))
    inside = within(signals, segment, finest)
    received = finest.received[inside]
    if not len(received):
        return plain
    happened = _step_times(signals, finest, inside)
    stamps = finest.moment[inside]
    shown = stamps if (np.diff(stamps) > 0).all() else unstamped
    timed = replace(plain, received=received, happened=happened, shown=shown)
    seen = finest.order[inside]
    moments = _obeyed(timed, seen, session.order[part], ticks, interface.physics_dt)
    begins = not segment.begin and not session.tick[0]
    if applied := _applied(signals, shown, happened - interface.physics_dt, new=begins):
        return replace(timed, moments=moments, given=applied[0], orders=applied[1])
    if session.traced:
        return replace(timed, moments=moments, given=moments)
    given = _obeyed(timed, seen, places, given, interface.physics_dt)
    return replace(timed, moments=moments, given=given)


def _step_times(signals: Signals, stream: SignalStream, inside: NDArray[np.bool_]) -> Floats:
    """(n,) s, when the physics steps that sensors of a simulator show were due.

    Each message shows one step, of which the simulator says the number. In recordings without that
    some come late, and the next ones catch up; a step is skipped only where all that follow are
    later by a whole step: the recorder lost a message.
    """
    interface, step = signals.interface, signals.interface.physics_dt
    first, last = np.flatnonzero(inside)[[0, -1]]
    after = slice(first, last + 1 + MORE * interface.substeps)  # the last ones may be late, too
    received, shown = stream.received[after], stream.moment[after]
    if (np.diff(shown) > 0).all() and (numbers := step_numbers(signals, shown)) is not None:
        return np.asarray(due_times(received, numbers, step)[inside[after]])
    steps = step * np.arange(len(received), dtype=np.float64)
    late = np.minimum.accumulate((received - steps)[::-1])[::-1]
    skipped = np.round((late - late[0]) / step)
    return np.asarray((late[0] + steps + step * skipped)[inside[after]])


def _applied(
    signals: Signals, shown: Ints, began: Floats, *, new: bool
) -> tuple[Floats, Floats] | None:
    """Returns when physics steps began to apply each command (C,), and the commands (C, A).

    Args:
        signals: of the recording.
        shown: (n,) ns, stamps of the sensors of a segment in ascending order, or none.
        began: (n,) s, when the physics steps that they show began.
        new: the segment begins with its session, before which the robot may have been reset.

    Returns:
        None if the simulator does not say it, or not for all commands.
    """
    moment = signals.applied_moment
    if not len(shown) or (np.diff(moment) < 0).any():
        return None
    first = int(np.searchsorted(moment, shown[0] + (-SAME_STAMP if new else SAME_STAMP)))
    first = first if new else max(first - 1, 0)  # the one that is in force when it begins
    last = int(np.searchsorted(moment, shown[-1] + SAME_STAMP))
    number = np.r_[-1, signals.applied_number]  # with the one before
    if first == last or (np.diff(number[first : last + 1]) != 1).any():
        return None
    at = np.searchsorted(shown, moment[first:last] - SAME_STAMP)
    # Sensors that the recorder lost came earlier than the next ones.
    if (numbers := step_numbers(signals, shown)) is not None:
        lost = (numbers[at] - signals.applied_step[first:last]) * signals.interface.physics_dt
    else:
        lost = np.maximum(shown[at] - moment[first:last] - SAME_STAMP, 0) * NANO
    return began[at] - lost, signals.applied_command[first:last]


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
