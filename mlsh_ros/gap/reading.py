"""From a file to `Signals`: recordings of ours, and other rosbag2 files with the same topics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlsh_ros.core.conversion import MessageError, shorten
from mlsh_ros.core.recorded import Entry, Recording
from mlsh_ros.core.replay import Result, replay
from mlsh_ros.gap.signals import UNTRACED, Listener, Signals
from mlsh_ros.gap.subject import Subject
from policies.bundle import Bundle
from sim.errors import UserError
from sim.interface import Floats

DATABASE, METADATA = ".db3", "metadata.yaml"
SHOWN = 16  # characters of a digest


@dataclass(frozen=True)
class Loaded:
    """A recording, and what its own replay through the bundle says."""

    signals: Signals
    replayed: Result | None  # None: it holds no decisions or traces to compare


def load(path: Path, subject: Subject, namespace: str = "") -> Loaded:
    """Read a recording once, from front to end.

    Args:
        path: an MCAP file, a folder of rosbag2, or its .db3 file.
        subject: a bundle or a robot: names the topics and their fields.
        namespace: of the robot, for a foreign recording with several.

    Raises:
        UserError: it cannot be read, or nothing of this robot is in it.
    """
    if not path.exists():
        raise UserError(f"recording {path}: no such file or folder")
    if path.is_dir() and not _is_mcap(path) and not (path / METADATA).is_file():
        count = len(list(path.glob("*.mcap")))
        raise UserError(
            f"recording {path}: {count} MCAP files and no {METADATA} in it; name a file, or a "
            "folder with one of the two"
        )
    if _is_mcap(path):
        recording = Recording(path, ours=False)
        if recording.about and recording.manifest and isinstance(subject, Bundle):
            return _ours(recording, subject)
        entries = _entries(recording)
        return Loaded(_foreign(recording.file.name, entries, subject, namespace), None)
    return Loaded(_foreign(path.name, _rosbag(path), subject, namespace), None)


def _is_mcap(path: Path) -> bool:
    """One MCAP file, which is read even where it breaks off; the rest is left to rosbags."""
    return len(list(path.glob("*.mcap"))) == 1 if path.is_dir() else path.suffix != DATABASE


def _ours(recording: Recording, bundle: Bundle) -> Loaded:
    listener = Listener(bundle.interface)

    def take(entry: Entry, message: Any, said: dict[str, Floats] | MessageError | None) -> None:
        if entry.topic in listener.topics:
            listener.take(entry.topic, entry.type, entry.received, message, said)

    notes, replayed = _origin(recording, bundle), None
    try:
        replayed = replay(recording, bundle, listen=take, wants=listener.wants)
    except UserError as error:
        notes.append(str(error).removeprefix(f"recording {recording.file}: "))
    if recording.cut:
        notes.append(f"it breaks off ({recording.cut}); what comes before is used")
    try:
        signals = listener.finish(recording.file.name, recording.about.get("mode", ""))
    except UserError as error:
        raise UserError("; ".join([str(error), *notes])) from None
    return Loaded(replace(signals, notes=[*notes, *signals.notes]), replayed)


def _origin(recording: Recording, bundle: Bundle) -> list[str]:
    """What differs between the bundle that ran and the one that it is compared with.

    Raises:
        UserError: they are for different robots.
    """
    manifest = bundle.manifest
    digest = str(recording.manifest.get("digest"))
    if digest == manifest.digest:
        return []
    told = recording.manifest.get("interface", {})
    ran = recording.about.get("bundle", "unknown")
    robot = told.get("robot") if isinstance(told, Mapping) else None
    notes = [
        f"another bundle ran: {ran} ({digest[:SHOWN]}), not {manifest.name} "
        f"({manifest.digest[:SHOWN]})"
    ]
    if robot != manifest.interface.robot:
        raise UserError(
            f"recording {recording.file}: another robot was recorded: {robot}, not "
            f"{manifest.interface.robot}"
        )
    return notes


def _entries(recording: Recording) -> Iterator[tuple[str, str, int, Any]]:
    for entry in recording.entries():
        try:
            message: Any = recording.message(entry)
        except UserError as error:
            message = error
        yield entry.topic, entry.type, entry.received, message
    if recording.cut:
        yield "", "", 0, UserError(f"it breaks off ({recording.cut}); what comes before is used")


def _rosbag(path: Path) -> Iterator[tuple[str, str, int, Any]]:
    from rosbags.highlevel import AnyReader
    from rosbags.typesys import Stores, get_typestore

    folder = path if path.is_dir() else path.parent
    try:
        # Bags of before Jazzy do not hold the definitions of their messages.
        with AnyReader([folder], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as reader:
            for connection, received, data in reader.messages():
                try:
                    message: Any = reader.deserialize(data, connection.msgtype)
                except Exception as error:  # whatever the bytes drive the decoder to
                    message = UserError(f"a message of {connection.topic}: {error}")
                yield connection.topic, connection.msgtype, received, message
    except Exception as error:  # rosbags, sqlite and struct each have their own
        yield "", "", 0, UserError(f"{type(error).__name__}: {error}; what comes before is used")


def _foreign(
    name: str, entries: Iterator[tuple[str, str, int, Any]], subject: Subject, namespace: str
) -> Signals:
    listener = Listener(subject.interface)
    relative: dict[str, str | None] = {"": None}
    notes: list[str] = []
    unread = 0
    for topic, kind, received, message in entries:
        if topic not in relative:
            relative[topic] = _relative(topic, listener.topics, namespace)
        wanted = relative[topic]
        if isinstance(message, UserError):
            if not topic:
                notes.append(shorten(str(message)))
            unread += bool(topic and wanted)
        elif wanted:
            listener.take(wanted, kind, received, message)
    _check_one_robot(name, relative)
    if unread:
        notes.append(f"{unread} messages could not be read, left out")
    try:
        signals = listener.finish(name, "")
    except UserError as error:
        seen = ", ".join(sorted(topic for topic in relative if topic)) or "none"
        raise UserError("; ".join([f"{error}. Topics in it: {seen}", *notes])) from None
    own = signals.notes
    if isinstance(subject, Bundle):
        notes.insert(0, "it is not of recorder_node: nobody says which bundle ran")
    else:
        own = [note for note in own if note != UNTRACED]
    return replace(signals, notes=[*notes, *own])


def _relative(topic: str, wanted: set[str], namespace: str) -> str | None:
    """The robot's name for a topic: the same behind the namespace, whatever that is."""
    prefix = f"/{namespace.strip('/')}/" if namespace.strip("/") else "/"
    if namespace and not topic.startswith(prefix):
        return None
    return next((name for name in wanted if f"/{topic}".endswith(f"/{name}")), None)


def _check_one_robot(name: str, relative: dict[str, str | None]) -> None:
    for wanted in {each for each in relative.values() if each}:
        same = sorted(topic for topic, each in relative.items() if each == wanted)
        if len(same) > 1:
            raise UserError(
                f"recording {name}: {len(same)} topics could be {wanted}: {', '.join(same)}; "
                "say which robot with --namespace"
            )
