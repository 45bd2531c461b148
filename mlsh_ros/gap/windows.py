"""A recording cut into windows of one length, for the simulation to follow side by side.

A window begins some ticks before what is compared: by then the simulation has forgotten what the
recording does not tell of its state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlsh_ros.gap.signals import PAUSE, Drive, Ints, Signals, Stream, Stretch
from sim.interface import Floats, Interface, ObservationTerm

LENGTH, BEFORE = 2.0, 1.0  # s that are compared, and before them
OLDEST = 1.0  # s; stamps that are further from the time of arrival are of another clock
REACH = 1.0  # ticks after the last one that its command is taken to hold


@dataclass(frozen=True)
class Plan:
    """How long windows are, in ticks."""

    before: int  # simulated to forget
    length: int  # compared

    @property
    def ticks(self) -> int:
        """Of a whole window."""
        return self.before + self.length


def plan_for(interface: Interface, length: float = LENGTH, before: float = BEFORE) -> Plan:
    """The plan whose times come nearest to `length` and `before`, s."""
    tick = interface.control_dt
    return Plan(max(2, round(before / tick)), max(5, round(length / tick)))


@dataclass(frozen=True)
class Samples:
    """What one term showed, n times in all windows; times in ticks since the window's begin."""

    window: Ints  # (n,)
    time: Floats  # (n,) when it came
    stamp: Floats  # (n,) when it was made, by its stamp; nan where it has none
    first: Floats  # (n,) when this very value came for the first time, on a sensor that repeats
    values: Floats  # (n, count), see `view`

    def take(self, rows: NDArray[np.bool_]) -> Samples:
        """Some of them."""
        return Samples(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Windows:
    """W windows of P ticks each."""

    plan: Plan
    stretch: Ints  # (W,) which stretch
    begin: Ints  # (W,) tick of the stretch at which the comparison begins
    rest: NDArray[np.bool_]  # (W,) begins with the drive: the robot stood until then
    previous: Ints  # (W,) the window that covers the ticks before; -1: none
    command: Floats  # (W, P, A)
    skill: Ints  # (W, P)
    start: dict[str, Floats]  # per term (W, size): the fields at the first tick
    samples: dict[str, Samples]  # per term

    @property
    def count(self) -> int:
        """W."""
        return len(self.begin)


def cut(signals: Signals, plan: Plan) -> Windows:
    """All windows of a recording; the last one of a stretch may show less than its length."""
    rows: list[tuple[int, int, bool, int]] = []
    stretches = signals.stretches()
    for i, stretch in enumerate(stretches):
        rest = stretch.begin == 0 and int(stretch.drive.tick[0]) == 0
        first = 0 if rest else plan.before
        for n, begin in enumerate(range(first, len(stretch), plan.length)):
            rows.append((i, begin, rest and n == 0, len(rows) - 1 if n else -1))
    table = np.array(rows, np.int64).reshape(-1, 4)
    command = [
        _command(signals.interface, stretches[i], begin - plan.before, plan, bool(rest))
        for i, begin, rest, _ in rows
    ]
    skills = [_skill(stretches[i], begin - plan.before, plan) for i, begin, *_ in rows]
    shape = (len(rows), plan.ticks)
    fields = [fields_of(signals, stretch) for stretch in stretches]
    return Windows(
        plan=plan,
        stretch=table[:, 0],
        begin=table[:, 1],
        rest=table[:, 2].astype(bool),
        previous=table[:, 3],
        command=np.array(command).reshape(*shape, signals.interface.action_size),
        skill=np.array(skills, np.int64).reshape(shape),
        start={
            term.name: np.array(
                [fields[i][term.name][max(0, begin - plan.before)] for i, begin, *_ in rows]
            ).reshape(len(rows), term.size)
            for term in signals.interface.observation
        },
        samples={
            term.name: _samples(signals, stretches, term, table, plan)
            for term in signals.interface.observation
        },
    )


def _command(interface: Interface, stretch: Stretch, begin: int, plan: Plan, rest: bool) -> Floats:
    """(P, A) from tick `begin` of the stretch on; before it begins, the safe command."""
    drive = stretch.drive
    wanted = np.arange(begin, begin + plan.ticks) + stretch.begin
    held = drive.command[np.clip(wanted, stretch.begin, stretch.end - 1)]
    return np.where((wanted < stretch.begin)[:, None], interface.safe, held) if rest else held


def _skill(stretch: Stretch, begin: int, plan: Plan) -> Ints:
    wanted = np.arange(begin, begin + plan.ticks) + stretch.begin
    return stretch.drive.skill[np.clip(wanted, stretch.begin, stretch.end - 1)]


def angular(term: ObservationTerm) -> bool:
    """Whether a term is a heading: z and w of a quaternion, which are looked at as an angle."""
    ends = tuple(path.rpartition("orientation.")[2] for path in term.ros.fields)
    return term.derive is None and ends == ("z", "w")


def count_of(term: ObservationTerm) -> int:
    """Numbers of a term that are compared."""
    return 1 if angular(term) else term.count


def view(term: ObservationTerm, shown: Floats) -> Floats:
    """(..., count_of) what is compared of what a term shows (..., count): its unit, or rad."""
    if not angular(term):
        return shown
    return 2 * np.arctan2(shown[..., :1], shown[..., 1:])


def unview(term: ObservationTerm, viewed: Floats) -> Floats:
    """The inverse of `view`."""
    if not angular(term):
        return viewed
    return np.concatenate([np.sin(viewed / 2), np.cos(viewed / 2)], axis=-1)


def unscaled(
    term: ObservationTerm, interface: Interface, observation: NDArray[np.float32]
) -> Floats:
    """(..., count) what a term showed, in its unit, of observations; a clip stays."""
    return (
        observation[..., interface.observation_slices[term.name]].astype(np.float64) / term.scale
    )


def fields_of(signals: Signals, stretch: Stretch) -> dict[str, Floats]:
    """Per term (T, size) the newest field at every tick of a stretch; nan where there is none."""
    drive, fields = stretch.drive, {}
    for term in signals.interface.observation:
        values = np.full((len(stretch), term.size), np.nan)
        stream = None if signals.lockstep else signals.stream(term.name)
        if stream is not None:
            order = drive.order[stretch.begin : stretch.end]
            newest = np.searchsorted(stream.order, order) - 1
            values[newest >= 0] = stream.fields[term.name][newest[newest >= 0]]
        elif term.observed and term.derive is None and drive.traced:
            shown = drive.observation[stretch.begin : stretch.end]
            values[:] = unscaled(term, signals.interface, shown)
        fields[term.name] = values
    return fields


def _samples(
    signals: Signals, stretches: list[Stretch], term: ObservationTerm, table: Ints, plan: Plan
) -> Samples:
    stream = None if signals.lockstep else signals.stream(term.name)
    parts = []
    for i, stretch in enumerate(stretches):
        if stream is not None:
            shown = _from_stream(signals, stretch, stream, term)
        elif term.observed and stretch.drive.traced:
            shown = _from_trace(signals.interface, stretch, term)
        else:
            continue
        place = np.flatnonzero(table[:, 0] == i)
        if not len(place):
            continue
        # Which window a sample lies in: they follow one another without a hole.
        begin = table[place, 1]
        at = np.searchsorted(begin, shown.time, side="right") - 1
        inside = (at >= 0) & (shown.time < len(stretch) - 1 + REACH)
        shown, at = shown.take(inside), at[inside]
        shift = begin[at]
        parts.append(
            Samples(
                place[at],
                shown.time - shift,
                shown.stamp - shift,
                shown.first - shift,
                shown.values,
            )
        )
    if not parts:
        return Samples(np.zeros(0, np.int64), *(np.zeros(0),) * 3, np.zeros((0, count_of(term))))
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    return Samples(*(np.concatenate(column) for column in columns))


def _from_trace(interface: Interface, stretch: Stretch, term: ObservationTerm) -> Samples:
    observation = stretch.drive.observation[stretch.begin : stretch.end]
    time = np.arange(len(stretch), dtype=np.float64)
    values = unscaled(term, interface, observation)
    first = _first(time, values)
    shown = view(term, values)
    return Samples(np.zeros(len(time), np.int64), time, time + np.nan, first, shown)


def _from_stream(
    signals: Signals, stretch: Stretch, stream: Stream, term: ObservationTerm
) -> Samples:
    drive = stretch.drive
    moments = command_moments(signals, drive)[stretch.begin : stretch.end]
    step = signals.interface.control_dt
    low, high = _between(signals, drive, stretch)
    inside = (stream.order > low) & (stream.order < high)
    # By its place it lies near a tick; by its time too, unless the recorder's clock has jumped.
    order = drive.order[stretch.begin : stretch.end]
    near = moments[np.maximum(np.searchsorted(order, stream.order) - 1, 0)]
    inside &= (stream.received > near - 2 * step) & (stream.received < near + PAUSE + 2 * step)
    received, stamp = stream.received[inside], stream.stamp[inside]
    age = np.median(received - stamp) if len(stamp) else np.nan
    if not abs(age) < OLDEST:  # nan too
        stamp = stamp + np.nan
    values = view(term, term.values(stream.fields[term.name][inside]))
    whole = stream.fields[term.name][inside]
    time = _in_ticks(received, moments, step)
    return Samples(
        np.zeros(len(time), np.int64),
        time,
        _in_ticks(stamp, moments, step),
        _first(time, whole),
        values,
    )


def _between(signals: Signals, drive: Drive, stretch: Stretch) -> tuple[int, int]:
    """Places of the ticks before and after a stretch, in whichever drive they are."""
    ticks = np.sort(np.concatenate([each.order for each in signals.drives]))
    first = np.searchsorted(ticks, drive.order[stretch.begin])
    after = np.searchsorted(ticks, drive.order[stretch.end - 1]) + 1
    low = int(ticks[first - 1]) if first else -1
    return low, int(ticks[after]) if after < len(ticks) else np.iinfo(np.int64).max


def command_moments(signals: Signals, drive: Drive) -> Floats:
    """(T,) s, from when on each command acts.

    sim_node takes a command with its next physics step, and sends sensors after every step: the
    step that obeys begins when the sensors before the command were sent.
    """
    if not signals.simulated or not signals.streams:
        return drive.received
    finest = max(signals.streams, key=lambda stream: len(stream.received))
    place = np.searchsorted(finest.order, drive.order) - 1
    before = finest.received[np.maximum(place, 0)]
    step = signals.interface.physics_dt
    near = (place >= 0) & (drive.received - before < 2 * step) & (before <= drive.received)
    return np.where(near, before, drive.received)


def _in_ticks(moment: Floats, ticks: Floats, step: float) -> Floats:
    """Moments in s as ticks; before the first and after the last one by the nominal period."""
    inside = np.interp(moment, ticks, np.arange(len(ticks), dtype=np.float64))
    before, after = moment - ticks[0], moment - ticks[-1]
    inside = np.where(before < 0, before / step, inside)
    return np.where(after > 0, len(ticks) - 1 + after / step, inside)


def _first(time: Floats, values: Floats) -> Floats:
    """(n,) when each value began, where the ones after it are exactly the same."""
    if not len(time):
        return time
    new = np.r_[True, (np.diff(values, axis=0) != 0).any(axis=1)]
    return time[np.maximum.accumulate(np.where(new, np.arange(len(time)), 0))]


def thin(windows: Windows, keep: Ints) -> Windows:
    """Some of the windows, in the order given, with their samples."""
    place = np.full(windows.count + 1, -1)  # the last entry stands for "none before"
    place[keep] = np.arange(len(keep))
    samples = {}
    for name, shown in windows.samples.items():
        chosen = shown.take(place[shown.window] >= 0)
        samples[name] = Samples(
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
    """The windows of several recordings as those of one."""
    if len(windows) == 1:
        return windows[0]
    shift = np.cumsum([0, *(each.count for each in windows)])
    stretch = np.cumsum([0, *(int(w.stretch.max(initial=-1)) + 1 for w in windows)])
    samples: dict[str, Samples] = {}
    for name in windows[0].samples:
        shown = [each.samples[name] for each in windows]
        joined = [
            np.concatenate([getattr(s, key) for s in shown])
            for key in ("time", "stamp", "first", "values")
        ]
        number = np.concatenate([s.window + n for s, n in zip(shown, shift, strict=False)])
        samples[name] = Samples(number, *joined)

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
