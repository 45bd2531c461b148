"""Divides recordings into windows of equal length for open-loop replay.

A window begins some ticks before the part that is compared, so that errors of the unmeasured part
of the initial state have decayed. It begins with the newest sensors of a tick; from there on the
recorded times count, so that a command is in force for as long as it was on the robot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlsh_ros.sim2real.data.compared_values import unscaled
from mlsh_ros.sim2real.data.event_times import Timed, timed_events
from mlsh_ros.sim2real.data.samples import TermSamples, samples_of
from mlsh_ros.sim2real.data.signals import SAME, Segment, Signals, SignalStream
from mlsh_ros.sim2real.data.tick_moments import Ints
from mlsh_ros.sim2real.data.window_plan import WindowPlan
from sim.interface import Floats, Interface, ObservationTerm

STILL = 0.05  # of a velocity's own movement: what is below stands
CONSTANT = 1e-3  # of an action's limits: commands that change less move nothing


@dataclass(frozen=True)
class Windows:
    """W windows of P ticks each."""

    plan: WindowPlan
    segment: Ints  # (W,) which segment
    begin: Ints  # (W,) tick of the segment at which the comparison begins
    rest: NDArray[np.bool_]  # (W,) begins with the session: the robot stood until then
    previous: Ints  # (W,) the window that covers the ticks before; -1: none
    command: Floats  # (W, S, A) the mean one in each physics step, S of them
    skill: Ints  # (W, P)
    start: dict[str, Floats]  # per term (W, size): the fields at the first tick
    samples: dict[str, TermSamples]  # per term

    @property
    def count(self) -> int:
        """W, number of windows."""
        return len(self.begin)

    def has_changing_commands(self, interface: Interface) -> bool:
        """True if an element of the commands changes so much that it may move something."""
        low, high = interface.limits
        return bool((self.command.std(axis=(0, 1)) > CONSTANT * (high - low)).any())


def make_windows(signals: Signals, plan: WindowPlan, interface: Interface) -> Windows:
    """Returns all windows of a recording; the last one of a segment may be shorter.

    Args:
        signals: of the recording.
        plan: length of the windows.
        interface: of the simulation that follows them: its physics steps.
    """
    rows: list[tuple[int, int, bool, int]] = []
    segments = [timed_events(signals, segment) for segment in signals.segments()]
    for i, timed in enumerate(segments):
        segment = timed.segment
        rest = _stands(signals, segment)
        first = 0 if rest else plan.before
        for n, begin in enumerate(range(first, len(segment), plan.length)):
            rows.append((i, begin, rest and n == 0, len(rows) - 1 if n else -1))
    table = np.array(rows, np.int64).reshape(-1, 4)
    starts = [_start(signals, segments[i], begin - plan.before) for i, begin, *_ in rows]
    command = [
        _command(interface, segments[i], start, plan, bool(rest))
        for (i, _, rest, _), start in zip(rows, starts, strict=True)
    ]
    skills = [_skill(segments[i].segment, begin - plan.before, plan) for i, begin, *_ in rows]
    fields = [fields_of(signals, timed.segment) for timed in segments]
    count, steps = len(rows), plan.ticks * interface.substeps
    begins = np.array(starts) + plan.before * interface.control_dt
    return Windows(
        plan=plan,
        segment=table[:, 0],
        begin=table[:, 1],
        rest=table[:, 2].astype(bool),
        previous=table[:, 3],
        command=np.array(command).reshape(count, steps, interface.action_size),
        skill=np.array(skills, np.int64).reshape(count, plan.ticks),
        start={
            term.name: np.array(
                [
                    _at_start(signals, segments[i], term, fields[i], begin - plan.before, start)
                    for (i, begin, *_), start in zip(rows, starts, strict=True)
                ]
            ).reshape(count, term.size)
            for term in interface.observation
        },
        samples={
            term.name: samples_of(signals, segments, term, table[:, 0], begins, plan, fields)
            for term in interface.observation
        },
    )


def _start(signals: Signals, timed: Timed, tick: int) -> float:
    """Returns the time of the newest sensors of a tick, s, at which simulation steps begin, too.

    A tick before the first one is earlier by the nominal period.
    """
    period, at = signals.interface.control_dt, max(tick, 0)
    moment, order = timed.moments[at], timed.segment.session.order[timed.segment.begin + at]
    seen = [moment - period]
    for stream in signals.streams if not signals.lockstep else ():
        place = int(np.searchsorted(stream.order, order)) - 1
        if place >= 0 and not _of_task(signals.interface, stream):
            came = float(timed.measured(stream, np.array([place]))[0])
            seen += [came] if came <= moment else []
    newest = max(seen)
    return float((newest if newest > seen[0] else moment) + min(tick, 0) * period)


def _at_start(
    signals: Signals,
    timed: Timed,
    term: ObservationTerm,
    fields: Mapping[str, Floats],
    tick: int,
    start: float,
) -> Floats:
    """(size,) the newest field of a term at the time at which a window begins.

    The topics of one physics step reach the recorder one after the other, so that a tick may be
    recorded between them: what came before it may be of two steps.
    """
    at, stream = max(tick, 0), signals.stream(term.name)
    shown: Floats = fields[term.name][at]
    if stream is None or signals.lockstep or not np.isfinite(shown).all():
        return shown
    begins = start - min(tick, 0) * signals.interface.control_dt
    order = timed.segment.session.order[timed.segment.begin + at]
    place, reach = int(np.searchsorted(stream.order, order)) - 1, signals.interface.substeps
    near = np.arange(max(place - reach, 0), min(place + reach + 1, len(stream.order)))
    known = near[timed.measured(stream, near) <= begins + SAME]
    return np.asarray(stream.fields[term.name][known[-1]]) if len(known) else shown


def _stands(signals: Signals, segment: Segment) -> bool:
    """True if a segment begins with a robot at rest.

    It must be the first of its session, without a measured velocity. Without a trace of the
    beginning of a session, the first command must be the safe one, and a velocity must be
    measured: most recordings of other recorders begin during motion.
    """
    session, interface = segment.session, signals.interface
    if segment.begin or int(session.tick[0]):
        return False
    known, fields = session.traced, fields_of(signals, segment)
    for term in interface.observation:
        if not term.unit.endswith("/s") or term.mujoco.task:
            continue
        values = term.values(fields[term.name])
        spread = np.nan_to_num(np.nanmax(np.abs(values), axis=0, initial=0.0))
        if (np.abs(values[0]) > STILL * spread + 3 * term.noises).any():
            return False
        known = known or bool(np.isfinite(values[0]).all())
    return known and (
        session.traced or bool(np.allclose(session.command[0], interface.safe_command))
    )


def _of_task(interface: Interface, stream: SignalStream) -> bool:
    terms = [term for term in interface.observation if term.name in stream.fields]
    return all(term.mujoco.task for term in terms)


def _command(
    interface: Interface, timed: Timed, start: float, plan: WindowPlan, rest: bool
) -> Floats:
    """(S, A) mean command in every physics step from time `start` on.

    Before the first command it is the session's initial one if the robot was at rest, else the
    same.
    """
    step = interface.physics_dt
    edges = start + step * np.arange(plan.ticks * interface.substeps + 1)
    first, last = np.searchsorted(timed.given, [edges[0], edges[-1]], side="right")
    first = max(int(first) - 1, 0)
    moments, commands = timed.given[first:last], timed.orders[first:last]
    # The first command is at most one tick's rate from what held the robot.
    before = interface.brake(timed.orders[0]) if rest else timed.orders[0]
    moments, commands = np.r_[start, np.maximum(moments, start)], np.r_[before[None], commands]
    total = np.r_[
        np.zeros_like(commands[:1]), np.cumsum(commands[:-1] * np.diff(moments)[:, None], 0)
    ]
    now = np.searchsorted(moments, edges, side="right") - 1
    summed = total[now] + (edges - moments[now])[:, None] * commands[now]
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


def _skill(segment: Segment, begin: int, plan: WindowPlan) -> Ints:
    wanted = np.arange(begin, begin + plan.ticks) + segment.begin
    return segment.session.skill[np.clip(wanted, segment.begin, segment.end - 1)]


def fields_of(signals: Signals, segment: Segment) -> dict[str, Floats]:
    """Per term (T, size) the newest field at every tick of a segment; nan where there is none.

    In lockstep it is that with the stamp that the tick answered, whenever it was recorded.
    """
    session, fields = segment.session, {}
    for term in signals.interface.observation:
        values = np.full((len(segment), term.size), np.nan)
        stream = signals.stream(term.name)
        if (
            (stream is None or signals.lockstep)
            and term.policy_input
            and term.derive is None
            and session.traced
        ):
            shown = session.observation[segment.begin : segment.end]
            values[:] = unscaled(term, signals.interface, shown)
        if stream is not None:
            chosen, known = _at_ticks(signals, segment, stream)
            values[known] = stream.fields[term.name][chosen[known]]
        fields[term.name] = values
    return fields


def _at_ticks(
    signals: Signals, segment: Segment, stream: SignalStream
) -> tuple[Ints, NDArray[np.bool_]]:
    """(T,) messages that the ticks of a segment used, and whether they are known."""
    part, session = slice(segment.begin, segment.end), segment.session
    if not signals.lockstep:
        chosen = np.searchsorted(stream.order, session.order[part]) - 1
        return chosen, chosen >= 0
    moment = session.moment[part] if len(session.moment) else np.full(len(segment), -1)
    order = np.argsort(stream.moment, kind="stable")
    place = np.searchsorted(stream.moment[order], moment)
    chosen = order[np.minimum(place, len(order) - 1)]
    return chosen, (moment >= 0) & (stream.moment[chosen] == moment)


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
        segment=windows.segment[keep],
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
    segment = np.cumsum([0, *(int(w.segment.max(initial=-1)) + 1 for w in windows)])
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
        segment=join([w.segment + n for w, n in zip(windows, segment, strict=False)]),
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
