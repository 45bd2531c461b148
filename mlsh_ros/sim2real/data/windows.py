"""Divides recordings into windows of equal length for open-loop replay.

A window begins some ticks before what is compared: by then the simulation has forgotten what the
recording does not tell of its state. It begins with the sensors that a tick saw; from there on the
clock counts, so that a command holds for as long as it did on the robot.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlsh_ros.sim2real.data.angle_wraps import turns, unwound
from mlsh_ros.sim2real.data.signals import (
    PAUSE,
    SAME,
    RecordedSession,
    Segment,
    Signals,
    SignalStream,
)
from mlsh_ros.sim2real.data.tick_moments import Ints
from sim.interface import Floats, Interface, ObservationTerm

LENGTH, BEFORE = 2.0, 1.0  # s that are compared, and before them
OLDEST = 1.0  # s; stamps that are further from the time of arrival are of another clock
REACH = 1.0  # ticks after the last one that its command is taken to hold
STILL = 0.05  # of a velocity's own movement: what is below stands


@dataclass(frozen=True)
class Plan:
    """Length of windows, in ticks."""

    before: int  # simulated to forget
    length: int  # compared

    @property
    def ticks(self) -> int:
        """Length of a window, in ticks."""
        return self.before + self.length


def plan_for(interface: Interface, length: float = LENGTH, before: float = BEFORE) -> Plan:
    """Returns the plan closest to `length` and `before`, s."""
    tick = interface.control_dt
    return Plan(max(2, round(before / tick)), max(5, round(length / tick)))


@dataclass(frozen=True)
class TermSamples:
    """Measurements of one term, n in all windows.

    Times count from the beginning of the comparison, in ticks of nominal length.
    """

    window: Ints  # (n,)
    time: Floats  # (n,) when it came
    stamp: Floats  # (n,) when it was made, by its stamp; nan where it has none
    first: Floats  # (n,) when this very value came for the first time, on a sensor that repeats
    values: Floats  # (n, count), see `view`

    def take(self, rows: NDArray[np.bool_]) -> TermSamples:
        """Select samples."""
        return TermSamples(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Windows:
    """W windows of P ticks each."""

    plan: Plan
    stretch: Ints  # (W,) which stretch
    begin: Ints  # (W,) tick of the stretch at which the comparison begins
    rest: NDArray[np.bool_]  # (W,) begins with the drive: the robot stood until then
    previous: Ints  # (W,) the window that covers the ticks before; -1: none
    command: Floats  # (W, S, A) the mean one in each physics step, S of them
    skill: Ints  # (W, P)
    start: dict[str, Floats]  # per term (W, size): the fields at the first tick
    samples: dict[str, TermSamples]  # per term

    @property
    def count(self) -> int:
        """W, number of windows."""
        return len(self.begin)


@dataclass(frozen=True)
class _Timed:
    """A stretch with its times, in s."""

    stretch: Segment
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


def make_windows(signals: Signals, plan: Plan, interface: Interface) -> Windows:
    """Returns all windows of a recording; the last one of a stretch may be shorter.

    Args:
        signals: of the recording.
        plan: length of the windows.
        interface: of the simulation that follows them: its physics steps.
    """
    rows: list[tuple[int, int, bool, int]] = []
    stretches = [_timed(signals, stretch) for stretch in signals.stretches()]
    for i, timed in enumerate(stretches):
        stretch = timed.stretch
        rest = _stands(signals, stretch)
        first = 0 if rest else plan.before
        for n, begin in enumerate(range(first, len(stretch), plan.length)):
            rows.append((i, begin, rest and n == 0, len(rows) - 1 if n else -1))
    table = np.array(rows, np.int64).reshape(-1, 4)
    starts = [_start(signals, stretches[i], begin - plan.before) for i, begin, *_ in rows]
    command = [
        _command(interface, stretches[i], start, plan, bool(rest))
        for (i, _, rest, _), start in zip(rows, starts, strict=True)
    ]
    skills = [_skill(stretches[i].stretch, begin - plan.before, plan) for i, begin, *_ in rows]
    fields = [fields_of(signals, timed.stretch) for timed in stretches]
    count, steps = len(rows), plan.ticks * interface.substeps
    begins = np.array(starts) + plan.before * interface.control_dt
    return Windows(
        plan=plan,
        stretch=table[:, 0],
        begin=table[:, 1],
        rest=table[:, 2].astype(bool),
        previous=table[:, 3],
        command=np.array(command).reshape(count, steps, interface.action_size),
        skill=np.array(skills, np.int64).reshape(count, plan.ticks),
        start={
            term.name: np.array(
                [fields[i][term.name][max(0, begin - plan.before)] for i, begin, *_ in rows]
            ).reshape(count, term.size)
            for term in interface.observation
        },
        samples={
            term.name: _samples(signals, stretches, term, table[:, 0], begins, plan)
            for term in interface.observation
        },
    )


def _start(signals: Signals, timed: _Timed, tick: int) -> float:
    """Returns the time of the newest sensors of a tick, s, at which simulation steps begin, too.

    A tick before the first one is earlier by the nominal period.
    """
    period, at = signals.interface.control_dt, max(tick, 0)
    moment, order = timed.moments[at], timed.stretch.drive.order[timed.stretch.begin + at]
    seen = [moment - period]
    for stream in signals.streams if not signals.lockstep else ():
        place = int(np.searchsorted(stream.order, order)) - 1
        if place >= 0 and not _of_task(signals.interface, stream):
            came = float(timed.when(stream.received[place : place + 1])[0])
            seen += [came] if came <= moment else []
    newest = max(seen)
    return float((newest if newest > seen[0] else moment) + min(tick, 0) * period)


def _stands(signals: Signals, stretch: Segment) -> bool:
    """True if a stretch begins with a robot at rest.

    It must be the first of its drive, without a measured velocity. Without a trace of the
    beginning of a session, the first command must be the safe one, and a velocity must be
    measured: most recordings of other recorders begin during motion.
    """
    drive, interface = stretch.drive, signals.interface
    if stretch.begin or int(drive.tick[0]):
        return False
    known, fields = drive.traced, fields_of(signals, stretch)
    for term in interface.observation:
        if not term.unit.endswith("/s") or term.mujoco.task:
            continue
        values = term.values(fields[term.name])
        spread = np.nan_to_num(np.nanmax(np.abs(values), axis=0, initial=0.0))
        if (np.abs(values[0]) > STILL * spread + 3 * term.noises).any():
            return False
        known = known or bool(np.isfinite(values[0]).all())
    return known and (drive.traced or bool(np.allclose(drive.command[0], interface.safe_command)))


def _of_task(interface: Interface, stream: SignalStream) -> bool:
    terms = [term for term in interface.observation if term.name in stream.fields]
    return all(term.mujoco.task for term in terms)


def _command(interface: Interface, timed: _Timed, start: float, plan: Plan, rest: bool) -> Floats:
    """(S, A) mean command in every physics step from time `start` on.

    Before the first command it is the session's initial one if the robot was at rest, else the
    same.
    """
    step = interface.physics_dt
    edges = start + step * np.arange(plan.ticks * interface.substeps + 1)
    first, last = np.searchsorted(timed.given, [edges[0], edges[-1]], side="right")
    first = max(int(first) - 1, 0)
    moments, told = timed.given[first:last], timed.orders[first:last]
    # The first command is at most one tick's rate from what held the robot.
    before = interface.brake(timed.orders[0]) if rest else timed.orders[0]
    moments, told = np.r_[start, np.maximum(moments, start)], np.r_[before[None], told]
    total = np.r_[np.zeros_like(told[:1]), np.cumsum(told[:-1] * np.diff(moments)[:, None], 0)]
    now = np.searchsorted(moments, edges, side="right") - 1
    summed = total[now] + (edges - moments[now])[:, None] * told[now]
    return np.asarray(np.diff(summed, axis=0) / step)


def delayed(command: Floats, late: Floats) -> Floats:
    """(W, S, A) mean commands of physics steps if `command` acts `late` (A,) steps later.

    A delay by a fraction of a step changes a command within a step. Before the first step its
    command was in force.
    """
    count, steps, size = command.shape
    total = np.concatenate([np.zeros((count, 1, size)), np.cumsum(command, axis=1)], axis=1)
    means = np.empty_like(command)
    for a in range(size):
        moment = np.arange(steps + 1) - late[a]
        low = np.clip(np.floor(moment), 0, steps - 1).astype(np.int64)
        summed = total[:, low, a] + (moment - low) * command[:, low, a]
        means[:, :, a] = np.diff(summed, axis=1)
    return means


def _skill(stretch: Segment, begin: int, plan: Plan) -> Ints:
    wanted = np.arange(begin, begin + plan.ticks) + stretch.begin
    return stretch.drive.skill[np.clip(wanted, stretch.begin, stretch.end - 1)]


def angular(term: ObservationTerm) -> bool:
    """True if a term is a heading: z and w of a quaternion, which are compared as an angle."""
    ends = tuple(path.rpartition("orientation.")[2] for path in term.ros.fields)
    return term.derive is None and ends == ("z", "w")


def count_of(term: ObservationTerm) -> int:
    """Number of compared values of a term."""
    return 1 if angular(term) else term.count


def to_compared(term: ObservationTerm, shown: Floats) -> Floats:
    """Converts measurements (..., count) to the compared values (..., count_of); unit or rad."""
    if not angular(term):
        return shown
    return 2 * np.arctan2(shown[..., :1], shown[..., 1:])


def unfolded(term: ObservationTerm, field: Floats) -> Floats:
    """Converts a field (..., size) to measurements (..., count); angles stay unwrapped."""
    return field if term.derive is None else term.values(field)


def from_compared(term: ObservationTerm, viewed: Floats) -> Floats:
    """The inverse of `to_compared`."""
    if not angular(term):
        return viewed
    return np.concatenate([np.sin(viewed / 2), np.cos(viewed / 2)], axis=-1)


def unscaled(
    term: ObservationTerm, interface: Interface, observation: NDArray[np.float32]
) -> Floats:
    """(..., count) measurements, in their unit, of observations; clipping is not undone."""
    shown = observation[..., interface.observation_slices[term.name]].astype(np.float64)
    return np.asarray(shown / term.scales)


def fields_of(signals: Signals, stretch: Segment) -> dict[str, Floats]:
    """Per term (T, size) the newest field at every tick of a stretch; nan where there is none."""
    drive, fields = stretch.drive, {}
    for term in signals.interface.observation:
        values = np.full((len(stretch), term.size), np.nan)
        stream = None if signals.lockstep else signals.stream(term.name)
        if stream is not None:
            order = drive.order[stretch.begin : stretch.end]
            newest = np.searchsorted(stream.order, order) - 1
            values[newest >= 0] = stream.fields[term.name][newest[newest >= 0]]
        elif term.policy_input and term.derive is None and drive.traced:
            shown = drive.observation[stretch.begin : stretch.end]
            values[:] = unscaled(term, signals.interface, shown)
        fields[term.name] = values
    return fields


def _samples(
    signals: Signals,
    stretches: list[_Timed],
    term: ObservationTerm,
    stretch: Ints,
    begins: Floats,
    plan: Plan,
) -> TermSamples:
    """Returns the samples of a term.

    Args:
        signals: all.
        stretches: of the recording.
        term: which.
        stretch: (W,) of the windows.
        begins: (W,) s, when their comparisons begin.
        plan: of the windows.
    """
    stream = None if signals.lockstep else signals.stream(term.name)
    tick = signals.interface.control_dt
    parts = []
    for i, timed in enumerate(stretches):
        if stream is not None:
            found = _from_stream(signals, timed, stream, term)
        elif term.policy_input and timed.stretch.drive.traced:
            found = _from_trace(signals.interface, timed, term)
        else:
            continue
        place = np.flatnonzero(stretch == i)
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


def _from_trace(interface: Interface, timed: _Timed, term: ObservationTerm) -> TermSamples:
    """Times in s."""
    stretch, time = timed.stretch, timed.moments
    observation = stretch.drive.observation[stretch.begin : stretch.end]
    values = unscaled(term, interface, observation)
    first = _first(time, values)
    if turns(term):
        values, _ = unwound(values)
    viewed = to_compared(term, values)
    return TermSamples(np.zeros(len(time), np.int64), time, time + np.nan, first, viewed)


def _from_stream(
    signals: Signals, timed: _Timed, stream: SignalStream, term: ObservationTerm
) -> TermSamples:
    """Times in s."""
    inside = _within(signals, timed.stretch, stream)
    received = stream.received[inside]
    age = received - stream.stamp[inside]
    if not abs(np.median(age) if len(age) else np.nan) < OLDEST:  # nan too
        age = age + np.nan
    whole = stream.fields[term.name][inside]
    time = timed.when(received)
    values = to_compared(term, unfolded(term, whole))
    return TermSamples(
        np.zeros(len(time), np.int64), time, time - age, _first(time, whole), values
    )


def _within(signals: Signals, stretch: Segment, stream: SignalStream) -> NDArray[np.bool_]:
    """(n,) True for messages received during a stretch."""
    drive, step = stretch.drive, signals.interface.control_dt
    low, high = _between(signals, drive, stretch)
    inside = (stream.order > low) & (stream.order < high)
    # By its place it lies near a tick; by its time too, unless the recorder's clock has jumped.
    order = drive.order[stretch.begin : stretch.end]
    ticks = drive.received[stretch.begin : stretch.end]
    near = ticks[np.maximum(np.searchsorted(order, stream.order) - 1, 0)]
    inside &= (stream.received > near - 2 * step) & (stream.received < near + PAUSE + 2 * step)
    return inside


def _between(signals: Signals, drive: RecordedSession, stretch: Segment) -> tuple[int, int]:
    """Returns the positions of the ticks before and after a stretch, in any drive."""
    ticks = np.sort(np.concatenate([each.order for each in signals.drives]))
    first = np.searchsorted(ticks, drive.order[stretch.begin])
    after = np.searchsorted(ticks, drive.order[stretch.end - 1]) + 1
    low = int(ticks[first - 1]) if first else -1
    return low, int(ticks[after]) if after < len(ticks) else np.iinfo(np.int64).max


def _timed(signals: Signals, stretch: Segment) -> _Timed:
    """Returns the times of the events in a stretch.

    sim_node applies a command in its next physics step, and sends sensors after every step: the
    step that applies it begins when the sensors before the command were sent. Late steps are
    caught up by the following ones, so the later steps limit how late each can have been due.
    """
    interface, none = signals.interface, np.zeros(0)
    drive, part = stretch.drive, slice(stretch.begin, stretch.end)
    given, orders, places = drive.given, drive.given_command, drive.given_order
    if drive.traced:
        given, orders, places = given[part], orders[part], places[part]
    ticks = drive.received[part]
    if signals.lockstep:
        grid = interface.control_dt * np.arange(len(stretch), dtype=np.float64)
        return _Timed(stretch, grid, none, none, grid, drive.command[part])
    plain = _Timed(stretch, ticks, none, none, given, orders)
    if not signals.simulated or not signals.streams:
        return plain
    finest = max(signals.streams, key=lambda stream: len(stream.received))
    inside = _within(signals, stretch, finest)
    received = finest.received[inside]
    if not len(received):
        return plain
    steps = interface.physics_dt * np.arange(len(received), dtype=np.float64)
    happened = np.minimum.accumulate((received - steps)[::-1])[::-1] + steps
    timed = replace(plain, received=received, happened=happened)
    seen = finest.order[inside]
    moments = _obeyed(timed, seen, drive.order[part], ticks, interface.physics_dt)
    if drive.traced:
        return replace(timed, moments=moments, given=moments)
    given = _obeyed(timed, seen, places, given, interface.physics_dt)
    return replace(timed, moments=moments, given=given)


def _obeyed(timed: _Timed, seen: Ints, order: Ints, came: Floats, step: float) -> Floats:
    """(T,) physics steps that applied the received commands, from the sensors received before."""
    place = np.searchsorted(seen, order) - 1
    before = np.maximum(place, 0)
    behind = came - timed.received[before]
    near = (place >= 0) & (behind >= 0) & (behind < 2 * step)
    moments = np.where(near, timed.happened[before], timed.when(came))
    return np.asarray(np.maximum.accumulate(moments))


def _first(time: Floats, values: Floats) -> Floats:
    """(n,) time at which each value began, if the following ones are exactly the same."""
    if not len(time):
        return time
    new = np.r_[True, (np.diff(values, axis=0) != 0).any(axis=1)]
    return time[np.maximum.accumulate(np.where(new, np.arange(len(time)), 0))]


def subsample(windows: Windows, keep: Ints) -> Windows:
    """Returns some of the windows, in the given order, with their samples."""
    place = np.full(windows.count + 1, -1)  # the last entry stands for "none before"
    place[keep] = np.arange(len(keep))
    samples = {}
    for name, shown in windows.samples.items():
        chosen = shown.take(place[shown.window] >= 0)
        samples[name] = TermSamples(
            place[chosen.window], chosen.time, chosen.stamp, chosen.first, chosen.values
        )
    return Windows(
        plan=windows.plan,
        stretch=windows.stretch[keep],
        begin=windows.begin[keep],
        rest=windows.rest[keep],
        previous=place[windows.previous[keep]],
        command=windows.command[keep],
        skill=windows.skill[keep],
        start={name: values[keep] for name, values in windows.start.items()},
        samples=samples,
    )


def merge(windows: list[Windows]) -> Windows:
    """Joins the windows of several recordings."""
    if len(windows) == 1:
        return windows[0]
    shift = np.cumsum([0, *(each.count for each in windows)])
    stretch = np.cumsum([0, *(int(w.stretch.max(initial=-1)) + 1 for w in windows)])
    samples: dict[str, TermSamples] = {}
    for name in windows[0].samples:
        shown = [each.samples[name] for each in windows]
        joined = [
            np.concatenate([getattr(s, key) for s in shown])
            for key in ("time", "stamp", "first", "values")
        ]
        number = np.concatenate([s.window + n for s, n in zip(shown, shift, strict=False)])
        samples[name] = TermSamples(number, *joined)

    def join(parts: list[NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate(parts)

    return Windows(
        plan=windows[0].plan,
        stretch=join([w.stretch + n for w, n in zip(windows, stretch, strict=False)]),
        begin=join([w.begin for w in windows]),
        rest=join([w.rest for w in windows]),
        previous=join(
            [
                np.where(w.previous < 0, -1, w.previous + n)
                for w, n in zip(windows, shift, strict=False)
            ]
        ),
        command=join([w.command for w in windows]),
        skill=join([w.skill for w in windows]),
        start={k: join([w.start[k] for w in windows]) for k in windows[0].start},
        samples=samples,
    )
