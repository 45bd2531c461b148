"""Checks that need no simulation: messages, ticks, saturation, and the training range."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
    lost: float  # share of the messages that should have come at that rate
    longest: float  # s without a message while the robot drove
    age: float | None  # s, median time from stamp to arrival; None: another clock, or no stamps
    age_p99: float | None
    stale: float  # share of the samples that repeat an old value while the robot moves


@dataclass(frozen=True)
class ChannelTiming:
    """Timing of the ticks."""

    ticks: int
    missed: int
    late_decisions: int
    period: float  # s, mean time between two
    period_p99: float  # s, of the difference from the nominal one
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
    outside: float  # share of the ticks that are further outside than a tenth of the range
    farthest: float  # ranges beyond it, the most


def channels(signals: Signals, stale: dict[str, float]) -> list[Channel]:
    """Returns the statistics of every received topic."""
    # If some messages of a topic lack a term, use the stream with the most messages.
    fullest = {s.topic: s for s in sorted(signals.streams, key=lambda s: len(s.received))}
    streams = [s for s in signals.streams if fullest[s.topic] is s]
    return [_channel(signals, stream, stale.get(stream.topic, 0.0)) for stream in streams]


def _channel(signals: Signals, stream: SignalStream, stale: float) -> Channel:
    steps = np.concatenate([np.zeros(0), *_steps(signals, stream)])
    usual = float(np.median(steps)) if len(steps) else 0.0
    lost = 0.0
    if signals.lockstep:
        missing, count = lacking(signals, stream)
        lost = missing / max(count, 1)
    elif usual > 0:
        absent = np.where(steps > GAP * usual, np.round(steps / usual) - 1, 0).sum()
        # What was only late has come all the same.
        absent = min(absent, max(steps.sum() / usual - len(steps), 0.0))
        lost = float(absent / (absent + len(steps)))
    age = stream.received - stream.stamp
    age = age[np.isfinite(age)]
    known = len(age) > 0 and abs(np.median(age)) < OLDEST and not signals.lockstep
    return Channel(
        topic=stream.topic,
        messages=len(stream.received),
        refused=stream.refused,
        rate=1 / usual if usual > 0 else 0.0,
        lost=lost,
        longest=float(steps.max(initial=0.0)),
        age=float(np.median(age)) if known else None,
        age_p99=float(np.percentile(age, 99)) if known else None,
        stale=stale,
    )


def _steps(signals: Signals, stream: SignalStream) -> list[Floats]:
    """Time differences between messages of a topic, within each segment."""
    found = []
    for segment in signals.segments():
        order = segment.session.order[segment.begin : segment.end]
        first, last = np.searchsorted(stream.order, [order[0], order[-1]])
        step = np.diff(stream.received[first:last])
        found.append(step[step >= 0])  # a clock that jumped back
    return found


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
        missed=sum(int(session.missed.sum()) for session in sessions),
        late_decisions=sum(int(session.late.sum()) for session in sessions),
        period=float(period.mean()) if len(period) else nominal,
        period_p99=float(np.percentile(np.abs(period - nominal), 99)) if len(period) else 0.0,
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
    """Compares the observation elements that are `read` (O,) with `known` ones (n, O)."""
    seen = np.concatenate([d.observation for each in signals for d in each.sessions])
    seen = seen[np.isfinite(seen).all(axis=1)]
    low, high = known.min(axis=0), known.max(axis=0)
    # An element that never moved has no range of its own.
    span = np.where(high > low, high - low, np.maximum(np.abs(high), 1e-6)).astype(np.float64)
    beyond = np.maximum(low - seen, seen - high) / span  # (T, O)
    names = observation_labels(signals[0].interface)
    return [
        Drift(
            name=name,
            low=float(low[i]),
            high=float(high[i]),
            outside=float((beyond[:, i] > MARGIN).mean()) if len(seen) else 0.0,
            farthest=float(max(beyond[:, i].max(initial=0.0), 0.0)),
        )
        for i, name in enumerate(names)
        if read[i]
    ]
