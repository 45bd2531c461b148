"""Sorts the messages of a recording into sessions of ticks and decisions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlsh_ros.messages.conversion import OTHER, MessageError, shorten
from mlsh_ros.messages.labeled_array import Layout, request_layout, response_layout, trace_layout
from mlsh_ros.messages.topics import MASTER, REQUEST, RESPONSE, TRACE
from mlsh_ros.recording.bag_reader import Entry, Recording
from mlsh_ros.recording.observation_check import ObservationCheck
from policies.bundle.bundle import Bundle
from sim.errors import UserError
from sim.interface import Floats

Float32 = NDArray[np.float32]
# Takes a message, and what it says or why it was refused; None where it is of no sensor.
Listen = Callable[[Entry, Any, dict[str, Floats] | MessageError | None], None]


@dataclass(frozen=True)
class RecordedTick:
    """One recorded tick."""

    tick: int
    skill: int
    late: bool
    observation: Float32  # (O,)
    action: Float32  # (A,)
    command: Floats  # (A,)
    received: int  # ns


@dataclass(frozen=True)
class RecordedDecision:
    """One recorded decision."""

    tick: int  # whose observation decided
    skill: int
    logits: Float32  # (K,)
    master: str  # that decided; empty if it is not recorded


@dataclass
class Session:
    """Recorded data of one session."""

    number: int
    ticks: list[RecordedTick] = field(default_factory=list)
    questions: dict[int, Float32] = field(default_factory=dict)  # macro step: observation (O,)
    bundles: dict[int, int] = field(default_factory=dict)  # macro step: fingerprint, see Bundle
    asked: int = -1  # the last tick in a request or a response
    answers: dict[int, RecordedDecision] = field(default_factory=dict)  # macro step


def collect_sessions(
    recording: Recording,
    bundle: Bundle,
    unread: list[str],
    listen: Listen | None,
    wants: Callable[[str], bool],
) -> tuple[list[Session], ObservationCheck]:
    """Sort the messages into sessions and sensors; adds the reason of unreadable ones."""
    interface = bundle.interface
    layouts = {
        REQUEST: request_layout(interface.observation_names),
        RESPONSE: response_layout(bundle.manifest.skills),
        TRACE: trace_layout(interface.observation_names, interface.action_names),
    }
    sessions: list[Session] = []
    seen = ObservationCheck(interface, lockstep=recording.about.get("mode") == "lockstep")
    master = ""
    refused: dict[str, MessageError] = {}  # the first of each topic
    read: set[str] = set()
    ours = {*seen.topics, *layouts, MASTER}
    for entry in recording.entries(
        lambda each: each.relative_name in ours or wants(each.relative_name)
    ):
        known = entry.topic in ours
        if not known and not wants(entry.topic):
            continue
        try:
            message = recording.message(entry)
        except UserError as error:
            if known:
                unread.append(str(error))  # the nodes could not read it either
            continue
        sensor = entry.topic in seen.topics
        try:
            said = seen.add(entry.topic, message, entry.received) if sensor else None
            name = str(message.data) if entry.topic == MASTER else master
        except OTHER as error:
            unread.append(shorten(f"{entry.topic}: not a {entry.type}: {error}"))
            continue
        if listen is not None:
            listen(entry, message, said)
        if sensor or not known:
            continue
        if entry.topic == MASTER:
            master = name
        else:
            try:
                scalars, vectors = _read(layouts[entry.topic], message)
            except MessageError as error:
                refused.setdefault(entry.topic, error)
                unread.append(shorten(f"{entry.topic}: {error}"))
                continue
            session = _session(sessions, entry.topic, scalars)
            _add(session, entry, scalars, vectors, master)
            read.add(entry.topic)
    for topic, cause in refused.items():
        if topic not in read:
            raise UserError(
                f"recording {recording.file}: {topic} is not of this bundle's robot: {cause}"
            )
    return sessions, seen


def _read(layout: Layout, message: Any) -> tuple[dict[str, float], dict[str, NDArray[np.float64]]]:
    try:
        return layout.read(message)
    except MessageError:
        raise
    except OTHER as error:  # of another type, whatever it is called
        raise MessageError(f"{type(error).__name__}: {error}") from None


def _add(
    session: Session,
    entry: Entry,
    scalars: dict[str, float],
    vectors: dict[str, Floats],
    master: str,
) -> None:
    macro = int(scalars.get("macro", 0))
    if entry.topic != TRACE:
        session.asked = max(session.asked, int(scalars["tick"]))
    if entry.topic == TRACE:
        session.ticks.append(_told(scalars, vectors, entry.received))
    elif entry.topic == REQUEST:
        session.questions.setdefault(macro, vectors["observation"].astype(np.float32))
        session.bundles.setdefault(macro, int(scalars["bundle"]))
    else:
        session.answers.setdefault(macro, _answer(scalars, vectors, master))


def _session(sessions: list[Session], topic: str, scalars: dict[str, float]) -> Session:
    """Returns the session of a message; skill_node counts from 1 again when it restarts."""
    number = int(scalars["session"])
    for session in reversed(sessions):
        if session.number == number:
            again = topic == REQUEST and scalars["tick"] == 0 and len(session.ticks) > 1
            if not again:
                return session
            break
    sessions.append(Session(number))
    return sessions[-1]


def _told(scalars: dict[str, float], vectors: dict[str, Floats], received: int) -> RecordedTick:
    return RecordedTick(
        tick=int(scalars["tick"]),
        skill=int(scalars["skill"]),
        late=bool(scalars["late"]),
        observation=vectors["observation"].astype(np.float32),
        action=vectors["action"].astype(np.float32),
        command=vectors["command"],
        received=received,
    )


def _answer(
    scalars: dict[str, float], vectors: dict[str, Floats], master: str
) -> RecordedDecision:
    logits = vectors["logits"].astype(np.float32)
    return RecordedDecision(int(scalars["tick"]), int(scalars["skill"]), logits, master)
