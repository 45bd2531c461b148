"""Collects the messages of a recording, one by one, into `Signals`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
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
from mlsh_ros.messages.labeled_array import OUTCOME, Layout, applied_layout, trace_layout
from mlsh_ros.messages.topics import APPLIED_COMMAND, MASTER, TRACE
from mlsh_ros.messages.topics import OUTCOME as OUTCOME_TOPIC
from mlsh_ros.recording.observation_check import ObservationCheck
from mlsh_ros.sim2real.data.angle_wraps import unwrap_streams
from mlsh_ros.sim2real.data.physics_steps import slower
from mlsh_ros.sim2real.data.signal_streams import Row, streams_of
from mlsh_ros.sim2real.data.signals import (
    LOCKSTEP,
    SHORTEST,
    RecordedSession,
    Signals,
    because,
    out_of_step,
)
from mlsh_ros.sim2real.data.simulated_time import retime, simulated_time
from mlsh_ros.sim2real.data.tick_moments import NANO, moments
from mlsh_ros.sim2real.data.untraced_sessions import CommandRow, untraced_sessions
from sim.errors import UserError
from sim.interface import Floats, Interface

MODES = (LOCKSTEP, "realtime")
UNTRACED = "no trace of skill_node is in it: skills and decisions are not compared"


class Listener:
    """Converts messages, one by one, to `Signals`.

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
        commands = self._command_topics = {topic for topic, _ in self._writers}
        self._silent = commands - {*self._readers}  # once there are ticks
        self.topics = {*self._readers, *commands, TRACE, MASTER, OUTCOME_TOPIC, APPLIED_COMMAND}
        self._trace = trace_layout(interface.observation_names, interface.action_names)
        self._sensors: dict[str, list[Row]] = {topic: [] for topic in self._readers}
        self._partly: dict[str, list[Row]] = {topic: [] for topic in self._readers}
        self._types: dict[str, str] = {}
        self._refused: dict[str, list[str]] = {}
        self._ticks: list[tuple[int, int, str, NDArray[np.float64]]] = []
        self._commands: list[CommandRow] = []
        self._outcomes: list[tuple[int, NDArray[np.float64]]] = []
        self._applied_layout = applied_layout(interface.action_names)
        self._applied: list[NDArray[np.float64]] = []
        self._master = ""
        self._count = 0
        self._origin: int | None = None

    def wants(self, topic: str) -> bool:
        """True if a message is needed: commands are not, if traces contain them."""
        return topic in self.topics and not (self._ticks and topic in self._silent)

    def take(
        self,
        topic: str,
        kind: str,
        received: int,
        message: Any,
        said: dict[str, Floats] | MessageError | None = None,
    ) -> None:
        """Add a message of any topic.

        Args:
            topic: its relative name.
            kind: its type.
            received: ns.
            message: anything with the attributes of that type.
            said: values or refusal of a sensor's message, if it has been read already.
        """
        at = self._place(received)
        try:
            if topic in self._readers:
                self._sensor(self._readers[topic], kind, at, message, said)
            elif (topic, kind) in self._writers:
                self._command(self._writers[topic, kind], at, message)
            elif topic == TRACE:
                self._ticks.append((*at, self._master, self._numbers(message, self._trace)))
            elif topic == OUTCOME_TOPIC:
                self._outcomes.append((at[0], self._numbers(message, OUTCOME)))
            elif topic == APPLIED_COMMAND:
                self.add_applied(self._numbers(message, self._applied_layout))
            elif topic == MASTER:
                self._master = str(message.data)
            elif topic in self.topics:
                raise MessageError(f"{topic}: {kind} is not the type of this command or sensor")
        except MessageError as error:
            self._refused.setdefault(topic, []).append(shorten(str(error)))
        except OTHER as error:
            reason = shorten(f"its fields are not of {kind} ({type(error).__name__}: {error})")
            self._refused.setdefault(topic, []).append(reason)

    def add_fields(self, topic: str, received: int, stamp: int, fields: dict[str, Floats]) -> None:
        """Add the fields of a sensor message that has been read already; times in ns."""
        self._sensors[topic].append((*self._place(received), stamp, fields))

    def add_tick(self, received: int, master: str, numbers: NDArray[np.float64]) -> None:
        """Add the numbers of a trace, in the order of its layout."""
        self._ticks.append((*self._place(received), master, numbers))

    def add_applied(self, numbers: NDArray[np.float64]) -> None:
        """Add the numbers of a command that a simulator applied, in the order of its layout."""
        self._applied.append(numbers)

    def _place(self, received: int) -> tuple[int, int]:
        """Returns the number of the next message, and its time in ns since the first."""
        self._count += 1
        if self._origin is None:
            self._origin = received
        return self._count, received - self._origin

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
        """Returns the readable terms of an invalid message."""
        fields: dict[str, Floats] = {}
        for single in self._single[topic]:
            with suppress(MessageError, *OTHER):
                fields |= single.read(message)
        return fields

    def _command(self, writer: CommandWriter, at: tuple[int, int], message: Any) -> None:
        command = np.full(self.interface.action_size, np.nan)
        writer.read(message, command)
        self._commands.append((*at, writer.topic, command))

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
        """Returns the signals of all messages.

        Args:
            name: of the recording.
            mode: in which it was made.
            simulated: whether the robot was simulated; None: derived from its outcomes.
            known: possible reasons for missing data, for the error.

        Raises:
            UserError: there is neither a tick nor a command, or no usable sensor message.
        """
        self._use_parts()
        unknown = mode not in MODES and self._waited()
        notes = [] if unknown or mode == LOCKSTEP else self._use_simulated_time()
        streams = [
            stream
            for topic, rows in self._sensors.items()
            for stream in streams_of(topic, rows, self._origin or 0, self._refused.get(topic, []))
        ]
        notes += self._notes()
        if unknown:
            if not self._ticks:
                raise UserError(
                    f"recording {name}: its time stamps are those of lockstep, where time is "
                    "counted in ticks, and it has no ticks of this bundle"
                    f"{because([*known, *notes])}"
                )
            mode = LOCKSTEP
            notes.append("its mode is not recorded; its time stamps are those of lockstep")
        sessions = (
            self._recorded_sessions()
            if self._ticks
            else untraced_sessions(
                self.interface, self._commands, self._command_topics, streams, notes
            )
        )
        if self._ticks and mode == LOCKSTEP:
            sessions = self._by_stamps(sessions, notes)
        streams, wraps = unwrap_streams(self.interface, streams)
        if not sessions:
            raise UserError(
                f"recording {name}: it has neither ticks of skill_node nor commands"
                f"{because([*known, *notes])}"
            )
        if not self._ticks:
            notes.append(UNTRACED)
        applied = np.array(self._applied).reshape(-1, self._applied_layout.size)
        found = Signals(
            name=name,
            interface=self.interface,
            mode=mode,
            simulated=bool(self._outcomes) if simulated is None else simulated,
            sessions=sessions,
            streams=streams,
            outcome_order=np.array([at for at, _ in self._outcomes], np.int64),
            outcome=np.array([row for _, row in self._outcomes]).reshape(-1, OUTCOME.size),
            applied_number=applied[:, 0].astype(np.int64),
            applied_step=applied[:, 1].astype(np.int64),
            applied_moment=np.round(applied[:, 2] / NANO).astype(np.int64),
            applied_command=applied[:, 3:],
            wraps=wraps,
            notes=notes,
        )
        if found.lockstep and self._ticks:
            notes += out_of_step(found)
        notes += slower(found)
        return found

    def _waited(self) -> bool:
        """True if its stamps are those of a simulator and a controller in lockstep.

        The simulator's clock begins at 0 and advances by whole ticks, whatever their physics
        steps.
        """
        stamps = np.unique([row[2] for rows in self._sensors.values() for row in rows])
        period = round(self.interface.control_dt / NANO)
        if not self._outcomes or self.interface.substeps < 2 or len(stamps) < SHORTEST:
            return False
        early = (self._origin or 0) - stamps[-1] > period
        return bool(early and (np.abs(stamps - np.round(stamps / period) * period) <= 1).all())

    def _use_parts(self) -> None:
        """Use the other terms of a topic that mostly lacks a term required by a policy.

        If only some messages are invalid they count as lost, as on the robot.
        """
        for topic, rows in self._sensors.items():
            if len(self._partly[topic]) > len(rows):
                rows[:] = sorted([*rows, *self._partly[topic]], key=lambda row: row[0])
            else:
                self._partly[topic].clear()

    def _use_simulated_time(self) -> list[str]:
        """Count all times in the simulated time of the stamps; returns a note if they have one."""
        rows = max(self._sensors.values(), key=len, default=[])
        received, stamp = [row[1] for row in rows], [row[2] for row in rows]
        convert = simulated_time(received, stamp, self._origin or 0)
        if convert is None:
            return []
        every: list[list[Any]] = [*self._sensors.values(), self._ticks, self._commands]
        for messages in every:
            retime(messages, convert)
        self._origin = stamp[0]
        return [
            "its stamps are of a simulated clock that did not run with real time: all times are "
            "those of this clock"
        ]

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

    def _by_stamps(
        self, sessions: list[RecordedSession], notes: list[str]
    ) -> list[RecordedSession]:
        """Returns the sessions with times from stamps, independent of the times of recording."""
        seen = ObservationCheck(self.interface, lockstep=True)
        for topic, rows in self._sensors.items():
            for *_, stamp, fields in rows:
                seen.add_fields(topic, stamp, fields)
        period = round(self.interface.control_dt / NANO)
        found = [
            replace(d, moment=moments([seen.moments(o) for o in d.observation], d.tick, period))
            for d in sessions
        ]
        ticks = sum(len(session) for session in found)
        unknown = sum(int((session.moment < 0).sum()) for session in found)
        if unknown == ticks:
            notes.append(
                "no sensor message shows the time of its ticks: the ends of simulated episodes "
                "are taken from the order of the recorded messages, which may be wrong"
            )
        elif unknown:
            notes.append(
                f"the time of {unknown} of {ticks} ticks is not certain from the recorded sensor "
                "messages: they are compared only if the ticks around them are of one episode"
            )
        return found

    def _recorded_sessions(self) -> list[RecordedSession]:
        numbers = np.array([row[3] for row in self._ticks])
        session, tick = numbers[:, 0].astype(int), numbers[:, 1].astype(int)
        new = (np.diff(session) != 0) | (np.diff(tick) <= 0)
        edges = [0, *(np.flatnonzero(new) + 1).tolist(), len(numbers)]
        return [self._recorded_session(numbers, a, b) for a, b in itertools.pairwise(edges)]

    def _recorded_session(self, numbers: Floats, begin: int, end: int) -> RecordedSession:
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


def listen(
    interface: Interface, entries: Iterable[tuple[str, str, int, Any]], name: str, mode: str
) -> Signals:
    """Returns `Signals` of (topic, type, received, message) in the order of reception."""
    listener = Listener(interface)
    for topic, kind, received, message in entries:
        listener.take(topic, kind, received, message)
    return listener.finish(name, mode)
