"""`Signals`: a recording as arrays of sensor fields, ticks, commands and outcomes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlsh_ros.messages.conversion import (
    OTHER,
    CommandWriter,
    MessageError,
    TopicReader,
    command_writers,
    shorten,
    stamp_of,
    topic_readers,
)
from mlsh_ros.messages.labelled_array import OUTCOME, Layout, trace_layout
from mlsh_ros.messages.topics import MASTER, TRACE
from mlsh_ros.messages.topics import OUTCOME as OUTCOME_TOPIC
from mlsh_ros.recording.observation_check import ObservationCheck
from sim.errors import UserError, listed
from sim.interface import Floats, Interface, ObservationTerm

Ints = NDArray[np.int64]
Float32 = NDArray[np.float32]
# Of a sensor message: place among all, ns since the first, stamp in ns, and what it says.
Row = tuple[int, int, int, dict[str, Floats]]

LOCKSTEP = "lockstep"  # the mode
MODES = (LOCKSTEP, "realtime")
PAUSE = 0.5  # s of silence, or of a clock's jump, that ends a stretch: no window lies across it
UNTRACED = "no trace of skill_node is in it: nothing is said of skills and decisions"
MOST = 110  # characters of notes behind an error, but for one that is longer
NOTE = 200  # characters of one note: what it is about, and the reason
SHORTEST = 5  # ticks; a shorter stretch says nothing
NANO = 1e-9
SAME = 1e-6  # s; moments that are nearer differ by rounding
NEARLY = 0.5 * np.pi  # rad that a jump by a turn may be off: the joint moves meanwhile
ROUND = 1e-3  # rad
_NEVER = np.iinfo(np.int64).max
ASTRAY = 2  # ticks that a topic may be recorded out of step: messages overtake each other
DONE = OUTCOME.scalars.index("done")


@dataclass(frozen=True)
class SignalStream:
    """The messages of one sensor topic, n of them, in the order in which they came."""

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
    # In lockstep (T,) the stamp (ns) of the sensors that a tick answered; -1 where none tells it.
    moment: Ints = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.tick)


@dataclass(frozen=True)
class Segment:
    """Ticks of a drive that follow one another without a hole."""

    drive: RecordedSession
    begin: int
    end: int  # not part of it

    def __len__(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True)
class Wrap:
    """An angle that jumps by a whole turn, though robot.yaml does not say so."""

    term: str
    index: int
    at: float  # rad, its largest value
    times: int


@dataclass(frozen=True)
class Signals:
    """One recording."""

    name: str
    interface: Interface
    mode: str  # lockstep, realtime, or empty where nobody says
    simulated: bool  # sim_node's outcomes are in it: the robot was a simulator
    drives: list[RecordedSession]
    streams: list[SignalStream]
    ends: Ints  # places at which sim_node ended an episode: the next one begins elsewhere
    wraps: list[Wrap] = field(default_factory=list)  # angles that jump by a turn, unannounced
    notes: list[str] = field(default_factory=list)  # what could not be used, in words

    @property
    def lockstep(self) -> bool:
        """Simulator and controller waited for each other: the tick is the only clock."""
        return self.mode == LOCKSTEP

    @property
    def ticks(self) -> int:
        """Of all drives."""
        return sum(len(drive) for drive in self.drives)

    def stream(self, term: str) -> SignalStream | None:
        """The stream that carries a term."""
        return next((s for s in self.streams if term in s.fields), None)

    def stretches(self) -> list[Segment]:
        """Every run of ticks without a hole, long enough to say something."""
        found = []
        for drive in self.drives:
            edges = [0, *(np.flatnonzero(self._holes(drive)) + 1).tolist(), len(drive)]
            found += [
                Segment(drive, a, b) for a, b in itertools.pairwise(edges) if b - a >= SHORTEST
            ]
        return found

    @property
    def broken(self) -> int:
        """Places where a tick is missing or the recorder's clock jumped."""
        torn = sum(int(self._torn(drive).sum()) for drive in self.drives)
        # Commands alone are a new drive after every pause.
        return torn + max(sum(not drive.traced for drive in self.drives) - 1, 0)

    def _holes(self, drive: RecordedSession) -> NDArray[np.bool_]:
        """(T - 1,) where a stretch ends before the drive does."""
        holes = self._torn(drive)
        if (drive.moment >= 0).any():
            return holes | ended(drive.tick, drive.moment, self.interface)
        # The simulator's message and the tick's own may have overtaken each other.
        for place in np.searchsorted(drive.order, self.ends):
            holes[max(place - 2, 0) : place + 1] = True
        return holes

    def _torn(self, drive: RecordedSession) -> NDArray[np.bool_]:
        """(T - 1,) where a tick is missing after, or the recorder's clock jumped."""
        torn: NDArray[np.bool_] = np.diff(drive.tick) != 1
        if self.lockstep:
            return torn
        step = np.diff(drive.received)
        return np.asarray(torn | (step < 0) | (step > PAUSE + self.interface.control_dt))


def moments(candidates: Sequence[Sequence[int]], tick: Ints, period: int) -> Ints:
    """(T,) when ticks of one session were, ns; -1 where nothing tells it.

    A tick later is a period later, as long as the simulator's episode lasts; the next episode
    begins later than that. A robot that stands shows the same at many moments: what is certain
    is held on to, forwards and backwards, and where the two disagree nothing is told.

    Args:
        candidates: per tick, moments at which what it saw was shown, in order.
        tick: (T,) numbers.
        period: ns, of a tick.
    """
    told = [i for i, each in enumerate(candidates) if each]
    sure = [i for i in told if len(candidates[i]) == 1] or told
    if not sure:
        return np.full(len(tick), -1, np.int64)
    onwards = _followed(candidates, tick, period, range(sure[0], len(tick)))
    back = _followed(candidates, tick, period, range(sure[-1], -1, -1))
    found = np.where(np.arange(len(tick)) < sure[0], back, onwards)
    both = slice(sure[0], sure[-1] + 1)
    found[both] = np.where(onwards[both] == back[both], onwards[both], -1)
    return found


def _followed(candidates: Sequence[Sequence[int]], tick: Ints, period: int, way: range) -> Ints:
    """(T,) moments from one tick on, forwards or backwards; -1 where none fits."""
    found = np.full(len(tick), -1, np.int64)
    at, last = way[0], candidates[way[0]][0]
    for i in way:
        due = last + int(tick[i] - tick[at]) * period
        fits = [each for each in candidates[i] if abs(each - due) < period // 2]
        if not fits and way.step > 0:
            fits = [each for each in candidates[i] if each > due][:1]
        elif not fits:
            fits = [each for each in candidates[i] if each < due][-1:]
        if fits:
            found[i] = last = fits[0]
            at = i
    return found


def ended(tick: Ints, moment: Ints, interface: Interface) -> NDArray[np.bool_]:
    """(T - 1,) where nothing shows that the next tick is of the same episode."""
    period = round(interface.control_dt / NANO)
    begin = moment - tick * period  # one number for all ticks of an episode
    ends = np.ones(len(tick) - 1, bool)
    for i, j in itertools.pairwise(np.flatnonzero(moment >= 0)):
        ends[i:j] = abs(int(begin[j] - begin[i])) >= period // 2
    return ends


def lacking(signals: Signals, stream: SignalStream) -> tuple[int, int]:
    """Moments of a lockstep recording that a topic lacks, and how many there are.

    Each topic has a message of every moment, or nobody could have driven on: what is missing is
    missing in the recording alone. The last two may have come after its end.
    """
    first = min(int(d.moment[d.moment >= 0].min(initial=_NEVER)) for d in signals.drives)
    every = [each.moment for each in signals.streams]
    every += [drive.moment for drive in signals.drives]
    shown = np.unique(np.concatenate(every))[:-2]
    shown = shown[shown >= max(first, 0)]
    return int((~np.isin(shown, stream.moment)).sum()), len(shown)


def behind(signals: Signals) -> int:
    """Ticks of a lockstep recording by which a topic was recorded out of step, at most."""
    period, most = round(signals.interface.control_dt / NANO), 0
    for drive, stream in itertools.product(signals.drives, signals.streams):
        newest = np.maximum(np.searchsorted(stream.order, drive.order) - 1, 0)
        known = drive.moment >= 0
        if known.any():
            apart = stream.moment[newest[known]] - drive.moment[known]
            most = max(most, int(np.abs(apart).max()) // period)
    return most


class Listener:
    """Takes messages one by one and makes `Signals` of them.

    Args:
        interface: of the bundle.
    """

    def __init__(self, interface: Interface) -> None:
        self.interface = interface
        self._readers = {r.topic: r for r in topic_readers(interface.observation)}
        # Of a message that lacks a term, the others count all the same.
        self._single = {
            topic: [topic_readers([term])[0] for term, _ in reader.terms]
            for topic, reader in self._readers.items()
        }
        self._writers: dict[tuple[str, str], CommandWriter] = {
            (w.topic, w.type): w
            for stamped in (True, False)
            for w in command_writers(interface.action, stamped=stamped)
        }
        commands = {topic for topic, _ in self._writers}
        self._silent = commands - {*self._readers}  # once there are ticks
        self.topics = {*self._readers, *commands, TRACE, MASTER, OUTCOME_TOPIC}
        self._trace = trace_layout(interface.observation_names, interface.action_names)
        self._sensors: dict[str, list[Row]] = {topic: [] for topic in self._readers}
        self._partly: dict[str, list[Row]] = {topic: [] for topic in self._readers}
        self._types: dict[str, str] = {}
        self._refused: dict[str, list[str]] = {}
        self._ticks: list[tuple[int, int, str, NDArray[np.float64]]] = []
        self._commands: list[tuple[int, int, CommandWriter, Floats]] = []
        self._outcomes: list[tuple[int, NDArray[np.float64]]] = []
        self._master = ""
        self._count = 0
        self._origin: int | None = None

    def wants(self, topic: str) -> bool:
        """Whether a message would be of use: commands are not, where ticks tell of them."""
        return topic in self.topics and not (self._ticks and topic in self._silent)

    def take(
        self,
        topic: str,
        kind: str,
        received: int,
        message: Any,
        said: dict[str, Floats] | MessageError | None = None,
    ) -> None:
        """Take a message.

        Args:
            topic: its relative name.
            kind: its type.
            received: ns.
            message: anything with the attributes of that type.
            said: what a sensor's message says or why it was refused, if somebody has read it.
        """
        self._count += 1
        if self._origin is None:
            self._origin = received
        at = self._count, received - self._origin
        try:
            if topic in self._readers:
                self._sensor(self._readers[topic], kind, at, message, said)
            elif (topic, kind) in self._writers:
                self._command(self._writers[topic, kind], at, message)
            elif topic == TRACE:
                self._ticks.append((*at, self._master, self._numbers(message, self._trace)))
            elif topic == OUTCOME_TOPIC:
                self._outcomes.append((at[0], self._numbers(message, OUTCOME)))
            elif topic == MASTER:
                self._master = str(message.data)
            elif topic in self.topics:
                raise MessageError(f"{topic}: a {kind} is not what the robot takes")
        except MessageError as error:
            self._refused.setdefault(topic, []).append(shorten(str(error)))
        except OTHER as error:
            reason = shorten(f"it is not what a {kind} is ({type(error).__name__}: {error})")
            self._refused.setdefault(topic, []).append(reason)

    def add_fields(self, topic: str, received: int, stamp: int, fields: dict[str, Floats]) -> None:
        """Take the fields of a sensor message that someone has read already; times in ns."""
        self._count += 1
        if self._origin is None:
            self._origin = received
        self._sensors[topic].append((self._count, received - self._origin, stamp, fields))

    def add_tick(self, received: int, master: str, numbers: NDArray[np.float64]) -> None:
        """Take the numbers of a trace, in the order of its layout."""
        self._count += 1
        if self._origin is None:
            self._origin = received
        self._ticks.append((self._count, received - self._origin, master, numbers))

    def _sensor(
        self,
        reader: TopicReader,
        kind: str,
        at: tuple[int, int],
        message: Any,
        said: dict[str, Floats] | MessageError | None,
    ) -> None:
        self._types.setdefault(reader.topic, kind)
        if kind != reader.type:
            raise MessageError(f"{reader.topic}: a {kind}, {reader.type} is expected")
        stamp = stamp_of(message, reader.topic)
        if said is None:
            try:
                said = reader.read(message)
            except MessageError as error:
                said = error
        if isinstance(said, MessageError):
            if part := self._part_of(reader.topic, message):
                self._partly[reader.topic].append((*at, stamp, part))
            raise said
        self._sensors[reader.topic].append((*at, stamp, said))

    def _part_of(self, topic: str, message: Any) -> dict[str, Floats]:
        """The terms that can be read of a message that does not hold."""
        fields: dict[str, Floats] = {}
        for single in self._single[topic]:
            with suppress(MessageError, *OTHER):
                fields |= single.read(message)
        return fields

    def _command(self, writer: CommandWriter, at: tuple[int, int], message: Any) -> None:
        command = np.full(self.interface.action_size, np.nan)
        writer.read(message, command)
        self._commands.append((*at, writer, command))

    def _numbers(self, message: Any, layout: Layout) -> NDArray[np.float64]:
        dims = message.layout.dim
        if (label := dims[0].label if dims else "") != layout.label:
            raise MessageError(layout.unlike(label))
        data = np.asarray(message.data, np.float64)
        layout.unpack(data)
        return data

    def finish(
        self, name: str, mode: str, *, simulated: bool | None = None, known: Sequence[str] = ()
    ) -> Signals:
        """Everything taken so far.

        Args:
            name: of the recording.
            mode: in which it was made.
            simulated: whether the robot was; None: tell by its outcomes.
            known: what else is known of why something may be missing, for the error.

        Raises:
            UserError: there is neither a tick nor a command, or no usable sensor message.
        """
        self._use_parts()
        streams = [
            stream
            for topic, rows in self._sensors.items()
            for stream in _streams(topic, rows, self._origin or 0, self._refused.get(topic, []))
        ]
        notes = self._notes()
        if mode not in MODES and self._waited():
            if not self._ticks:
                raise UserError(
                    f"recording {name}: its stamps are those of lockstep, where only ticks count, "
                    f"and it has none of this bundle{because([*known, *notes])}"
                )
            mode = LOCKSTEP
            notes.append("nobody says how it was made; its stamps are those of lockstep")
        drives = self._drives() if self._ticks else self._silent_drives(streams, notes)
        if self._ticks and mode == LOCKSTEP:
            drives = self._by_stamps(drives, notes)
        streams, wraps = _unwound(self.interface, streams)
        if not drives:
            raise UserError(
                f"recording {name}: neither a tick of skill_node nor a command is in it"
                f"{because([*known, *notes])}"
            )
        if not self._ticks:
            notes.append(UNTRACED)
        found = Signals(
            name=name,
            interface=self.interface,
            mode=mode,
            simulated=bool(self._outcomes) if simulated is None else simulated,
            drives=drives,
            streams=streams,
            ends=np.array([at for at, row in self._outcomes if row[DONE]], np.int64),
            wraps=wraps,
            notes=notes,
        )
        if found.lockstep and self._ticks:
            notes += _out_of_step(found)
        return found

    def _waited(self) -> bool:
        """Whether its stamps are those of a simulator and a controller that wait for each other.

        The simulator's clock begins at 0 and goes on by whole ticks, however many physics steps
        each of them has.
        """
        stamps = np.unique([row[2] for rows in self._sensors.values() for row in rows])
        period = round(self.interface.control_dt / NANO)
        if not self._outcomes or self.interface.substeps < 2 or len(stamps) < SHORTEST:
            return False
        early = (self._origin or 0) - stamps[-1] > period
        return bool(early and (np.abs(stamps - np.round(stamps / period) * period) <= 1).all())

    def _use_parts(self) -> None:
        """Of a topic that mostly lacks a term, which no policy could have run on, take the others.

        Of one whose messages do not hold now and then they are as good as lost, as on the robot.
        """
        for topic, rows in self._sensors.items():
            if len(self._partly[topic]) > len(rows):
                rows[:] = sorted([*rows, *self._partly[topic]], key=lambda row: row[0])
            else:
                self._partly[topic].clear()

    def _notes(self) -> list[str]:
        notes = [
            f"{len(reasons)} messages of {topic} could not be used"
            f"{' as a whole' if self._partly.get(topic) else ''}, the first one because "
            f"{reasons[0]}"
            for topic, reasons in self._refused.items()
        ]
        for reader in self._readers.values():
            if not self._sensors[reader.topic] and reader.topic not in self._refused:
                terms = ", ".join(term.name for term, _ in reader.terms)
                notes.append(f"topic {reader.topic} is missing: it carries {terms}")
        return notes

    def _by_stamps(self, drives: list[RecordedSession], notes: list[str]) -> list[RecordedSession]:
        """The drives with the moments of their ticks, whenever their messages were recorded."""
        seen = ObservationCheck(self.interface, lockstep=True)
        for topic, rows in self._sensors.items():
            for *_, stamp, fields in rows:
                seen.add_fields(topic, stamp, fields)
        period = round(self.interface.control_dt / NANO)
        found = [
            replace(d, moment=moments([seen.moments(o) for o in d.observation], d.tick, period))
            for d in drives
        ]
        ticks = sum(len(drive) for drive in found)
        unknown = sum(int((drive.moment < 0).sum()) for drive in found)
        if unknown == ticks:
            notes.append(
                "no sensor message tells when its ticks were: where a simulator's episode ends is "
                "taken from the order of recording, which may be wrong"
            )
        elif unknown:
            notes.append(
                f"of {unknown} of {ticks} ticks no recorded sensor message tells for certain when "
                "they were: they are compared only where those around are of one episode"
            )
        return found

    def _drives(self) -> list[RecordedSession]:
        numbers = np.array([row[3] for row in self._ticks])
        session, tick = numbers[:, 0].astype(int), numbers[:, 1].astype(int)
        new = (np.diff(session) != 0) | (np.diff(tick) <= 0)
        edges = [0, *(np.flatnonzero(new) + 1).tolist(), len(numbers)]
        return [self._drive(numbers, a, b) for a, b in itertools.pairwise(edges)]

    def _drive(self, numbers: Floats, begin: int, end: int) -> RecordedSession:
        rows, table = self._ticks[begin:end], numbers[begin:end]
        whole = table[:, :6].astype(np.int64)
        start, size = len(self._trace.scalars), self.interface.observation_size
        action = start + size + self.interface.action_size
        return RecordedSession(
            number=int(whole[0, 0]),
            master=rows[-1][2],
            traced=True,
            order=np.array([row[0] for row in rows]),
            received=np.array([row[1] for row in rows]) * NANO,
            tick=whole[:, 1],
            skill=whole[:, 2],
            late=whole[:, 3],
            missed=whole[:, 4],
            lateness=table[:, 6],
            compute=table[:, 7],
            observation=table[:, start : start + size].astype(np.float32),
            action=table[:, start + size : action].astype(np.float32),
            command=table[:, action:],
            given=np.array([row[1] for row in rows]) * NANO,
            given_order=np.array([row[0] for row in rows]),
            given_command=table[:, action:],
        )

    def _silent_drives(
        self, streams: Sequence[SignalStream], notes: list[str]
    ) -> list[RecordedSession]:
        """Ticks where only commands are recorded: each is in force until the next one."""
        order, received, command = self._given(notes)
        if not len(order):
            return []
        messages = np.concatenate([order, *(s.order for s in streams)])
        heard = np.concatenate([received, *(s.received for s in streams)])
        rows = np.argsort(messages, kind="stable")
        messages, heard = messages[rows], heard[rows]
        edges = [0, *(self._cuts(order, received, command, messages, heard) + 1), len(order)]
        drives: list[RecordedSession] = []
        for a, b in itertools.pairwise(edges):
            end = received[b - 1]
            if b == len(order) and self._holds(command[-1]):
                end = _until(end, heard[messages >= order[-1]])
            time = np.arange(received[a], end + SAME, self.interface.control_dt)
            if len(time) < SHORTEST:
                continue
            later = messages >= order[b] if b < len(order) else messages < 0
            inside = (messages >= order[a]) & (heard <= end) & ~later
            moments = np.maximum.accumulate(heard[inside])
            place = np.searchsorted(moments, time + SAME, side="right") - 1
            at = messages[inside][place] + 1
            now = np.searchsorted(received[a:b], time + SAME, side="right") - 1
            observation = _newest(self.interface, streams, at)
            given = received[a:b], order[a:b], command[a:b]
            drives.append(_untraced(len(drives), at, time, observation, command[a:b][now], given))
        return drives

    def _given(self, notes: list[str]) -> tuple[Ints, Floats, Floats]:
        """Place (C,), time (C,) and whole command (C, A) of every message that changed it."""
        writers = {writer.topic: writer for writer in self._writers.values()}
        spoken = {row[2].topic for row in self._commands}
        for topic in sorted({*writers} - spoken) if spoken else ():
            notes.append(f"no command is on {topic}: it is taken for the safe one")
        missing, held = set(spoken), np.array(self.interface.safe)
        rows = []
        for order, at, writer, command in self._commands:
            held = np.where(np.isnan(command), held, command)
            missing.discard(writer.topic)
            if not missing:  # nobody knows what was in force before
                rows.append((order, at, held))
        size = self.interface.action_size
        return (
            np.array([row[0] for row in rows], np.int64),
            np.array([row[1] for row in rows], np.float64) * NANO,
            np.array([row[2] for row in rows]).reshape(-1, size),
        )

    def _cuts(
        self, order: Ints, received: Floats, command: Floats, messages: Ints, heard: Floats
    ) -> Ints:
        """After which commands a drive ends.

        Where the clock steps back; and in a pause in which nothing was heard, or after which
        nobody knows whether the robot still obeyed: bases stop by themselves when they are told a
        velocity no more.
        """
        pause = PAUSE + self.interface.control_dt
        step = np.diff(received)
        cut = step < 0
        for i in np.flatnonzero(step > pause):
            between = heard[(messages >= order[i]) & (messages <= order[i + 1])]
            deaf = np.abs(np.diff(between)).max(initial=0.0) > pause
            cut[i] = deaf or not self._holds(command[i])
        return np.flatnonzero(cut)

    def _holds(self, command: Floats) -> bool:
        """Whether a robot obeys a command for as long as no other one comes, for certain."""
        interface = self.interface
        return all(
            not term.unit.endswith("/s") or np.array_equal(command[part], interface.safe[part])
            for term in interface.action
            for part in (interface.action_slices[term.name],)
        )


def _until(begin: float, heard: Floats) -> float:
    """When messages stopped coming, after a moment."""
    times = np.r_[begin, heard]
    holes = np.flatnonzero(np.abs(np.diff(times)) > PAUSE)
    return float(times[holes[0]] if len(holes) else times[-1])


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


def unwound(values: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Angles (n, count) without jumps by a whole turn, and how many there were of each (count,).

    A driver that wraps shows all of them within one turn.
    """
    step = np.abs(np.diff(values, axis=0))
    jumps = (np.abs(step - 2 * np.pi) < NEARLY).sum(axis=0)
    within = np.ptp(values, axis=0) < 2 * np.pi + ROUND if len(values) else jumps > 0
    jumps = np.where(within, jumps, 0)
    return np.where(jumps > 0, np.unwrap(values, axis=0), values), jumps


def turns(term: ObservationTerm) -> bool:
    """Whether a term's numbers are angles that may wrap."""
    return term.unit == "rad" and term.derive is None and not term.mujoco.task


def _unwound(
    interface: Interface, streams: Sequence[SignalStream]
) -> tuple[list[SignalStream], list[Wrap]]:
    """The streams with angles that go on counting, as those of the simulation do."""
    terms, found, wraps = {t.name: t for t in interface.observation}, [], []
    for stream in streams:
        fields = dict(stream.fields)
        for name, values in stream.fields.items():
            if not turns(terms[name]):
                continue
            fields[name], jumps = unwound(values)
            for i in np.flatnonzero((jumps > 0) & ~terms[name].wrapped):
                wraps.append(Wrap(name, int(i), float(values[:, i].max()), int(jumps[i])))
        found.append(replace(stream, fields=fields))
    return found, wraps


def _out_of_step(signals: Signals) -> list[str]:
    """What a recorder missed, or heard late, of a simulator that waits for everybody."""
    notes = []
    for stream in signals.streams:
        lost, count = lacking(signals, stream)
        if lost:
            notes.append(
                f"{lost} of {count} messages of {stream.topic} are missing: in lockstep nobody "
                "could go on without them, so it is the recorder that lost them"
            )
    if (apart := behind(signals)) > ASTRAY:
        notes.append(
            f"the recorder fell behind: topics are recorded up to {apart} ticks out of step; they "
            "are put together by their stamps"
        )
    return notes


def _newest(interface: Interface, streams: Sequence[SignalStream], order: Ints) -> Float32:
    """(T, O) what a policy would have seen at these places of the recording; nan if nothing."""
    fields = {t.name: np.full((len(order), t.size), np.nan) for t in interface.observation}
    for stream in streams:
        newest = np.searchsorted(stream.order, order) - 1
        for name, values in stream.fields.items():
            fields[name][newest >= 0] = values[newest[newest >= 0]]
    return interface.observe(fields)


def _streams(
    topic: str,
    rows: Sequence[Row],
    origin: int,
    refused: Sequence[str],
) -> list[SignalStream]:
    """One of all terms that the same messages showed; mostly that is one."""
    shown: dict[bytes, list[str]] = {}
    for name in dict.fromkeys(name for row in rows for name in row[3]):
        mask = np.array([name in row[3] for row in rows])
        shown.setdefault(mask.tobytes(), []).append(name)
    return [
        _stream(topic, [row for row in rows if names[0] in row[3]], names, origin, refused)
        for names in shown.values()
    ]


def _stream(
    topic: str,
    rows: Sequence[Row],
    names: Sequence[str],
    origin: int,
    refused: Sequence[str],
) -> SignalStream:
    stamps = np.array([row[2] for row in rows], np.int64)
    return SignalStream(
        topic=topic,
        order=np.array([row[0] for row in rows]),
        received=np.array([row[1] for row in rows]) * NANO,
        # Differences of integers: a float does not hold ns since 1970.
        stamp=np.where(stamps > 0, (stamps - origin) * NANO, np.nan),
        moment=stamps,
        fields={name: np.array([row[3][name] for row in rows]) for name in names},
        refused=len(refused),
        reason=refused[0] if refused else "",
    )


def because(notes: Sequence[str]) -> str:
    """What is known of why, behind an error."""
    return f": {listed((note[:NOTE] for note in notes), '; ', MOST)}" if notes else ""


def listen(
    interface: Interface, entries: Iterable[tuple[str, str, int, Any]], name: str, mode: str
) -> Signals:
    """`Signals` of (topic, type, received, message) in the order in which they came."""
    listener = Listener(interface)
    for topic, kind, received, message in entries:
        listener.take(topic, kind, received, message)
    return listener.finish(name, mode)
