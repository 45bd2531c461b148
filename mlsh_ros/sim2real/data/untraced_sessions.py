"""Sessions of a recording without traces: one tick per control period, from commands alone."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

import numpy as np

from mlsh_ros.sim2real.data.signals import (
    PAUSE,
    SAME,
    SHORTEST,
    Float32,
    RecordedSession,
    SignalStream,
)
from mlsh_ros.sim2real.data.tick_moments import NANO, Ints
from sim.interface import Floats, Interface, ObservationMemory

# A command message: place among all, ns since the first, topic, and the command (A,), nan where
# it has no element.
CommandRow = tuple[int, int, str, Floats]


def untraced_sessions(
    interface: Interface,
    commands: Sequence[CommandRow],
    topics: Collection[str],
    streams: Sequence[SignalStream],
    notes: list[str],
) -> list[RecordedSession]:
    """Returns ticks where only commands are recorded: each is in force until the next one."""
    order, received, command = _changes(interface, commands, topics, notes)
    if not len(order):
        return []
    messages = np.concatenate([order, *(s.order for s in streams)])
    heard = np.concatenate([received, *(s.received for s in streams)])
    rows = np.argsort(messages, kind="stable")
    messages, heard = messages[rows], heard[rows]
    edges = [0, *(_cuts(interface, order, received, command, messages, heard) + 1), len(order)]
    sessions: list[RecordedSession] = []
    for a, b in itertools.pairwise(edges):
        end = received[b - 1]
        if b == len(order) and _holds(interface, command[-1]):
            end = _until(end, heard[messages >= order[-1]])
        time = np.arange(received[a], end + SAME, interface.control_dt)
        if len(time) < SHORTEST:
            continue
        later = messages >= order[b] if b < len(order) else messages < 0
        inside = (messages >= order[a]) & (heard <= end) & ~later
        moments = np.maximum.accumulate(heard[inside])
        place = np.searchsorted(moments, time + SAME, side="right") - 1
        at = messages[inside][place] + 1
        now = np.searchsorted(received[a:b], time + SAME, side="right") - 1
        observation = _newest(interface, streams, at)
        given = received[a:b], order[a:b], command[a:b]
        sessions.append(_untraced(len(sessions), at, time, observation, command[a:b][now], given))
    return sessions


def _changes(
    interface: Interface, commands: Sequence[CommandRow], topics: Collection[str], notes: list[str]
) -> tuple[Ints, Floats, Floats]:
    """Returns index (C,), time (C,) and full command (C, A) of every message that changed it."""
    spoken = {row[2] for row in commands}
    for topic in sorted({*topics} - spoken) if spoken else ():
        notes.append(f"no command is recorded on {topic}: the safe command is assumed")
    missing, held = set(spoken), np.array(interface.safe_command)
    rows = []
    for order, at, topic, command in commands:
        held = np.where(np.isnan(command), held, command)
        missing.discard(topic)
        if not missing:  # the command in force before is unknown
            rows.append((order, at, held))
    size = interface.action_size
    return (
        np.array([row[0] for row in rows], np.int64),
        np.array([row[1] for row in rows], np.float64) * NANO,
        np.array([row[2] for row in rows]).reshape(-1, size),
    )


def _cuts(
    interface: Interface,
    order: Ints,
    received: Floats,
    command: Floats,
    messages: Ints,
    heard: Floats,
) -> Ints:
    """Returns the commands after which a session ends.

    At a step back of the clock; and in a pause without any messages, or after which the robot may
    have stopped: many bases stop by themselves when no velocity command arrives.
    """
    pause = PAUSE + interface.control_dt
    step = np.diff(received)
    cut = step < 0
    for i in np.flatnonzero(step > pause):
        between = heard[(messages >= order[i]) & (messages <= order[i + 1])]
        deaf = np.abs(np.diff(between)).max(initial=0.0) > pause
        cut[i] = deaf or not _holds(interface, command[i])
    return np.flatnonzero(cut)


def _holds(interface: Interface, command: Floats) -> bool:
    """True if a robot certainly keeps executing a command until the next one."""
    return all(
        not term.unit.endswith("/s") or np.array_equal(command[part], interface.safe_command[part])
        for term in interface.action
        for part in (interface.action_slices[term.name],)
    )


def _until(begin: float, heard: Floats) -> float:
    """Returns the time at which messages stopped after a given time."""
    times = np.r_[begin, heard]
    holes = np.flatnonzero(np.abs(np.diff(times)) > PAUSE)
    return float(times[holes[0]] if len(holes) else times[-1])


def _newest(interface: Interface, streams: Sequence[SignalStream], order: Ints) -> Float32:
    """(T, O) observations at these positions of the recording; NaN without a message.

    What the policy gave is not recorded, so that what depends on earlier ticks is NaN too.
    """
    fields = {t.name: np.full((len(order), t.size), np.nan) for t in interface.observation}
    for stream in streams:
        newest = np.searchsorted(stream.order, order) - 1
        for name, values in stream.fields.items():
            fields[name][newest >= 0] = values[newest[newest >= 0]]
    memory = ObservationMemory(interface, (len(order),))
    memory.forget()
    return interface.observe(fields, memory=memory)


def _untraced(
    number: int,
    order: Ints,
    received: Floats,
    observation: Float32,
    command: Floats,
    given: tuple[Floats, Ints, Floats],
) -> RecordedSession:
    count = len(order)
    none, unknown = np.zeros(count, np.int64), np.full(count, np.nan)
    return RecordedSession(
        number=number,
        master="",
        traced=False,
        order=order,
        received=received,
        tick=np.arange(count),
        skill=none - 1,
        late=none,
        missed=none,
        lateness=unknown,
        compute=unknown,
        observation=observation,
        action=np.full(command.shape, np.nan, np.float32),
        command=command,
        given=given[0],
        given_order=given[1],
        given_command=given[2],
    )
