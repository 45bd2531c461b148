"""Checks that need no simulation: messages, ticks, saturation, and the training range."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlsh_ros.sim2real.data.physics_steps import share_lost
from mlsh_ros.sim2real.data.samples import OLDEST
from mlsh_ros.sim2real.data.signals import Signals, SignalStream, lacking
from mlsh_ros.sim2real.replay.residuals import action_labels, observation_labels
from sim.interface import Floats, Interface

GAP = 1.5  # periods between two messages from which on one is missing
# A tenth of the range beyond what was seen is where the networks have not been.
MARGIN = 0.1
NEAR = 1e-9  # of a command at its limit
MILLI = 1e3


@dataclass(frozen=True)
class Channel:
    """Statistics of one sensor topic."""

    topic: str
    messages: int
    refused: int
    rate: float  # 1/s, of the usual period
    lost: float | None  # share of the messages that should have come at that rate; None: no rate
    longest: float | None  # s without a message while the robot drove
    age: float | None  # s, median time from stamp to arrival; None: another clock, or no stamps
    age_p99: float | None
    # Share of the samples that repeat an old value while the robot moves; None: not compared.
    stale: float | None


@dataclass(frozen=True)
class ChannelTiming:
    """Timing of the ticks."""

    ticks: int
    missed: int | None  # None without traces
    late_decisions: int | None
    period: float | None  # s, mean time between two; None in lockstep
    period_p99: float | None  # s, of the difference from the nominal one
    lateness_p50: float | None  # s; None without traces
    lateness_p99: float | None
    compute_p50: float | None
    compute_p99: float | None


@dataclass(frozen=True)
class Saturation:
    """Saturation of one element of the action."""

    name: str
    saturated: float  # share of the ticks whose action was cut by the limit
    rate_limited: float  # share whose command was held back by the rate limit


@dataclass(frozen=True)
class Drift:
    """Range of one element of the observation, relative to that in simulation."""

    name: str
    low: float  # of what was seen in simulation, as the policy sees it
    high: float
    # Share of the ticks that are further outside than a tenth of the range; None: never observed.
    outside: float | None
    farthest: float | None  # ranges beyond it, the most


def channels(signals: Signals, stale: dict[str, float]) -> list[Channel]:
    """Returns the statistics of every received topic.

    Args:
        signals: of one recording.
        stale: share of stale samples by topic, of those that were compared.
    """
    # If some messages of a topic lack a term, use the stream with the most messages.
    fullest = {s.topic: s for s in sorted(signals.streams, key=lambda s: len(s.received))}
    streams = [s for s in signals.streams if fullest[s.topic] is s]
    return [_channel(signals, stream, stale.get(stream.topic)) for stream in streams]


def _channel(signals: Signals, stream: SignalStream, stale: float | None) -> Channel:
    steps, edges, count = _steps(signals, stream)
    # What falls silent before the robot drives was heard before that.
    every_step = steps if len(steps) else np.asarray(np.diff(stream.received))
    usual = float(np.median(every_step)) if len(every_step) else 0.0
    silent = np.concatenate([steps, edges])
    lost = None
    if signals.lockstep:
        missing, every = lacking(signals, stream)
        lost = missing / every if every else None
    elif (exact := share_lost(signals, stream)) is not None:
        lost = exact
    elif usual > 0:
        # The next message may have been due just after the edge.
        gaps = np.concatenate([steps, edges[edges > GAP * usual]]) / usual  # in periods
        absent = np.where(gaps > GAP, np.round(gaps) - 1, 0).sum()
        # What was only late has come all the same.
        absent = min(absent, max((gaps - 1).sum(), 0.0))
        lost = float(absent / max(absent + count, 1))
    age = stream.received - stream.stamp
    age = age[np.isfinite(age)]
    known = len(age) > 0 and abs(np.median(age)) < OLDEST and not signals.lockstep
    return Channel(
        topic=stream.topic,
        messages=len(stream.received),
        refused=stream.refused,
        rate=1 / usual if usual > 0 else 0.0,
        lost=lost,
        longest=float(silent.max()) if len(silent) else None,
        age=float(np.median(age)) if known else None,
        age_p99=float(np.percentile(age, 99)) if known else None,
        stale=stale,
    )


def _steps(signals: Signals, stream: SignalStream) -> tuple[Floats, Floats, int]:
    """Times between messages of a topic within the segments, and those to a segment's edges.

    Returns:
        Time differences of successive messages (s); time from the begin of each segment to its
        first message, and from its last message to the end (s), or the whole of a segment without
        a message; the number of messages.
    """
    steps, edges, count = [np.zeros(0)], [], 0
    for segment in signals.segments():
        session = segment.session
        order = session.order[segment.begin : segment.end]
        begin, end = session.received[segment.begin], session.received[segment.end - 1]
        first, last = np.searchsorted(stream.order, [order[0], order[-1]])
        heard = stream.received[first:last]
        step = np.diff(heard)
        steps.append(step[step >= 0])  # a clock that jumped back
        edges += [heard[0] - begin, end - heard[-1]] if len(heard) else [end - begin]
        count += len(heard)
    return np.concatenate(steps), np.maximum(edges, 0.0), count


def timing(signals: list[Signals]) -> ChannelTiming:
    """Returns the timing of all ticks."""
    sessions = [session for each in signals for session in each.sessions]
    steps = [
        np.diff(s.session.received[s.begin : s.end])
        for each in signals
        if not each.lockstep
        for s in each.segments()
    ]
    period = np.concatenate([np.zeros(0), *steps])
    nominal = signals[0].interface.control_dt
    traced = [session for session in sessions if session.traced]

    def quantile(name: str, percent: float) -> float | None:
        if not traced or any(each.lockstep for each in signals):
            return None
        return float(np.percentile(np.concatenate([getattr(d, name) for d in traced]), percent))

    return ChannelTiming(
        ticks=sum(len(session) for session in sessions),
        missed=sum(int(session.missed.sum()) for session in traced) if traced else None,
        late_decisions=sum(int(session.late.sum()) for session in traced) if traced else None,
        period=float(period.mean()) if len(period) else None,
        period_p99=float(np.percentile(np.abs(period - nominal), 99)) if len(period) else None,
        lateness_p50=quantile("lateness", 50),
        lateness_p99=quantile("lateness", 99),
        compute_p50=quantile("compute", 50),
        compute_p99=quantile("compute", 99),
    )


def saturation(signals: list[Signals]) -> list[Saturation]:
    """Returns the saturation of every action element; empty without traces."""
    interface = signals[0].interface
    sessions = [d for each in signals for d in each.sessions if d.traced and len(d) > 1]
    if not sessions:
        return []
    saturated = np.concatenate([interface.saturated(d.action) for d in sessions])
    held = np.concatenate([_held(interface, d.command) for d in sessions])
    return [
        Saturation(name, float(saturated[:, i].mean()), float(held[:, i].mean()))
        for i, name in enumerate(action_labels(interface))
    ]


def _held(interface: Interface, command: Floats) -> Floats:
    """(T - 1, A) True where the rate limit changed the command."""
    before, after = command[:-1], command[1:]
    rate = np.abs(interface.brake(interface.safe_command + 1e6) - (interface.safe_command + 1e6))
    return (np.abs(after - before) > rate * (1 - 1e-6) - NEAR).astype(float)


def out_of_distribution(
    signals: list[Signals], known: NDArray[np.float32], read: NDArray[np.bool_]
) -> list[Drift]:
    """Compares the observation elements that are `read` (O,) with `known` ones (n, O).

    Each counts where it was observed: a recording may lack others from beginning to end.
    """
    seen = np.concatenate([d.observation for each in signals for d in each.sessions])
    low, high = known.min(axis=0), known.max(axis=0)
    # An element that never moved has no range of its own.
    span = np.where(high > low, high - low, np.maximum(np.abs(high), 1e-6)).astype(np.float64)
    beyond = np.maximum(low - seen, seen - high) / span  # (T, O)
    names = observation_labels(signals[0].interface)
    found = []
    for i in np.flatnonzero(read):
        mine = beyond[np.isfinite(seen[:, i]), i]
        share = float((mine > MARGIN).mean()) if len(mine) else None
        most = max(float(mine.max()), 0.0) if len(mine) else None
        found.append(Drift(names[i], float(low[i]), float(high[i]), share, most))
    return found
