"""`Signals`: a recording as arrays of sensor fields, ticks, commands and outcomes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mlsh_ros.messages.labeled_array import OUTCOME
from mlsh_ros.sim2real.data.tick_moments import NANO, Ints, ended
from sim.errors import listed
from sim.interface import Floats, Interface

Float32 = NDArray[np.float32]

LOCKSTEP = "lockstep"  # the mode
PAUSE = 0.5  # s of silence, or of a clock's jump, that ends a segment: no window lies across it
MOST = 110  # characters of notes behind an error, but for one that is longer
NOTE = 200  # characters of one note: what it is about, and the reason
ASTRAY = 2  # ticks that a topic may be recorded out of step: messages overtake each other
SHORTEST = 5  # ticks; a shorter segment says nothing
SAME = 1e-6  # s; moments that are nearer differ by rounding
DONE = OUTCOME.scalars.index("done")
_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class SignalStream:
    """The messages of one sensor topic, n of them, in the order of reception."""

    topic: str
    order: Ints  # (n,) place among all messages of the recording
    received: Floats  # (n,) s since the recording's first message
    stamp: Floats  # (n,) s on the same scale, by the sender's clock; nan where it says none
    moment: Ints  # (n,) ns, the stamp as it is
    fields: dict[str, Floats]  # per term (n, size), in the term's unit
    refused: int  # messages that skill_node could not have used
    reason: str  # of the first of them


@dataclass(frozen=True)
class RecordedSession:
    """The ticks of one session, T of them; without traces, one per control period."""

    number: int
    master: str  # empty if the recording does not say
    traced: bool  # False: made of the command messages alone
    order: Ints  # (T,) place among all messages
    received: Floats  # (T,) s, when the tick's trace came: just after its command
    tick: Ints  # (T,)
    skill: Ints  # (T,); -1 without traces
    late: Ints  # (T,) 1 where a decision came late
    missed: Ints  # (T,) ticks left out before this one
    lateness: Floats  # (T,) s; nan without traces
    compute: Floats  # (T,) s
    observation: Float32  # (T, O) as the policy saw it
    action: Float32  # (T, A); nan without traces
    command: Floats  # (T, A)
    # When commands came, C of them, and what they said: with traces those of the ticks. Each is
    # in force until the next one.
    given: Floats  # (C,) s
    given_order: Ints  # (C,) place among all messages
    given_command: Floats  # (C, A)
    # In lockstep (T,) the stamp (ns) of the sensors that a tick answered; -1 where unknown.
    moment: Ints = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.tick)


@dataclass(frozen=True)
class Segment:
    """Consecutive ticks of a session without a gap."""

    session: RecordedSession
    begin: int
    end: int  # not part of it

    def __len__(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True)
class Wrap:
    """An angle that jumps by a full turn without `wraps` in robot.yaml."""

    term: str
    index: int
    at: float  # rad, its largest value
    times: int


@dataclass(frozen=True)
class Signals:
    """One recording."""

    name: str
    interface: Interface
    mode: str  # lockstep, realtime, or empty where unknown
    simulated: bool  # sim_node's outcomes are in it: the robot was a simulator
    sessions: list[RecordedSession]
    streams: list[SignalStream]
    # Of sim_node, one for each tick of its episodes, n of them, in the order of reception.
    outcome_order: Ints  # (n,) place among all messages
    outcome: Floats  # (n, 5) in the order of `OUTCOME.scalars`
    # Of sim_node in real time, one for each command that it applied, n of them.
    applied_number: Ints  # (n,) consecutive
    applied_step: Ints  # (n,) number of the first physics step with it
    applied_moment: Ints  # (n,) ns, stamp of the sensors that show that step
    applied_command: Floats  # (n, A)
    wraps: list[Wrap] = field(default_factory=list)  # angles that jump by a turn, unannounced
    notes: list[str] = field(default_factory=list)  # what could not be used, in words

    @property
    def lockstep(self) -> bool:
        """True if simulator and controller waited for each other: time is counted in ticks."""
        return self.mode == LOCKSTEP

    @property
    def ends(self) -> Ints:
        """Places at which sim_node ended an episode: the next one begins elsewhere."""
        return np.asarray(self.outcome_order[self.outcome[:, DONE] != 0])

    @property
    def ticks(self) -> int:
        """Number of ticks of all sessions."""
        return sum(len(session) for session in self.sessions)

    def stream(self, term: str) -> SignalStream | None:
        """Returns the stream of a term."""
        return next((s for s in self.streams if term in s.fields), None)

    def segments(self) -> list[Segment]:
        """Returns every run of ticks without a gap that is long enough to compare."""
        found = []
        for session in self.sessions:
            edges = [0, *(np.flatnonzero(self._holes(session)) + 1).tolist(), len(session)]
            found += [
                Segment(session, a, b) for a, b in itertools.pairwise(edges) if b - a >= SHORTEST
            ]
        return found

    @property
    def broken(self) -> int:
        """Number of gaps: a missing tick or a jump of the recorder's clock."""
        torn = sum(int(self._torn(session).sum()) for session in self.sessions)
        # Commands alone are a new session after every pause.
        return torn + max(sum(not session.traced for session in self.sessions) - 1, 0)

    def _holes(self, session: RecordedSession) -> NDArray[np.bool_]:
        """(T - 1,) True where a segment ends before the session does."""
        holes = self._torn(session)
        if (session.moment >= 0).any():
            return holes | ended(session.tick, session.moment, self.interface)
        # The simulator's message and the tick's own may have overtaken each other.
        for place in np.searchsorted(session.order, self.ends):
            holes[max(place - 2, 0) : place + 1] = True
        return holes

    def _torn(self, session: RecordedSession) -> NDArray[np.bool_]:
        """(T - 1,) True where a tick is missing after, or the recorder's clock jumped."""
        torn: NDArray[np.bool_] = np.diff(session.tick) != 1
        if self.lockstep:
            return torn
        step = np.diff(session.received)
        return np.asarray(torn | (step < 0) | (step > PAUSE + self.interface.control_dt))


def lacking(signals: Signals, stream: SignalStream) -> tuple[int, int]:
    """Returns the number of lockstep times at which a topic has no message, and of all times.

    Every topic has a message at each time, because the simulation cannot continue otherwise: a
    missing one is missing in the recording alone. The last two may have come after its end.
    """
    first = min(int(d.moment[d.moment >= 0].min(initial=_NEVER)) for d in signals.sessions)
    every = [each.moment for each in signals.streams]
    every += [session.moment for session in signals.sessions]
    shown = np.unique(np.concatenate(every))[:-2]
    shown = shown[shown >= max(first, 0)]
    return int((~np.isin(shown, stream.moment)).sum()), len(shown)


def behind(signals: Signals) -> int:
    """Returns the largest delay of a recorded topic in a lockstep recording, ticks."""
    period, most = round(signals.interface.control_dt / NANO), 0
    for session, stream in itertools.product(signals.sessions, signals.streams):
        newest = np.maximum(np.searchsorted(stream.order, session.order) - 1, 0)
        known = session.moment >= 0
        if known.any():
            apart = stream.moment[newest[known]] - session.moment[known]
            most = max(most, int(np.abs(apart).max()) // period)
    return most


def out_of_step(signals: Signals) -> list[str]:
    """Reports messages that the recorder of a lockstep simulation lost or received late."""
    notes = []
    for stream in signals.streams:
        lost, count = lacking(signals, stream)
        if lost:
            text = f"{lost} of {count} messages of {stream.topic} are missing: in lockstep the "
            notes.append(f"{text}nodes wait for every message, so the recorder lost them")
    if (apart := behind(signals)) > ASTRAY:
        notes.append(
            "the recorder fell behind: messages of the same time are recorded up to "
            f"{apart} ticks apart; they are matched by their time stamps"
        )
    return notes


def because(notes: Sequence[str]) -> str:
    """Appends known reasons to an error."""
    return f": {listed((note[:NOTE] for note in notes), '; ', MOST)}" if notes else ""
