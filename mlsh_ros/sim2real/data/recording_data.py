"""Loads `Signals` from this project's recordings and from other rosbag2 files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlsh_ros.messages.conversion import MessageError, shorten
from mlsh_ros.recording.bag_files import files_of
from mlsh_ros.recording.bag_reader import Entry, Recording
from mlsh_ros.recording.bag_records import Topic
from mlsh_ros.recording.replay import Result, replay
from mlsh_ros.sim2real.data.signal_listener import UNTRACED, Listener
from mlsh_ros.sim2real.data.signals import LOCKSTEP, Signals
from mlsh_ros.sim2real.data.target import Target
from policies.bundle.bundle import Bundle
from sim.errors import UserError, listed, unknown
from sim.interface import Floats

SHOWN = 16  # characters of a digest


@dataclass(frozen=True)
class Where:
    """Topics of a robot in a recording that was not made by recorder_node.

    Args:
        namespace: of the robot, "/" is the root; None: the one that contains the topics.
        topics: from the robot's own name of a topic to the one in the recording, with its slash.
    """

    namespace: str | None = None
    topics: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, namespace: str | None, remaps: Sequence[str]) -> Where:
        """Parse `OURS:=THEIRS` for each topic.

        Raises:
            UserError: it is not of that form, or names a topic twice.
        """
        topics: dict[str, str] = {}
        for text in remaps:
            ours, sign, theirs = text.partition(":=")
            if not (ours and sign and theirs.strip("/")):
                raise UserError(f"--topic {text!r} is not OURS:=THEIRS")
            if ours in topics:
                raise UserError(f"--topic {ours}: given twice")
            topics[ours] = _absolute(theirs)
        return cls(namespace, topics)

    def check(self, known: Iterable[str]) -> None:
        """Refuse names that the robot does not have.

        Raises:
            UserError: with the valid ones.
        """
        for name in self.topics:
            if name not in known:
                raise unknown("topic of the robot", name, sorted(known))

    def relative(self, topic: Topic, wanted: Iterable[str]) -> str | None:
        """Returns the robot's name for a topic; None: not a topic of the robot."""
        for ours, theirs in self.topics.items():
            if _absolute(topic.name) == theirs:
                return ours
        left = [name for name in wanted if name not in self.topics]
        if topic.relative_name:
            return topic.relative_name if topic.relative_name in left else None
        return next((name for name in left if self._is(_absolute(topic.name), name)), None)

    def _is(self, topic: str, name: str) -> bool:
        if name.startswith("/"):
            return topic == name
        if self.namespace is None:
            return topic.endswith(f"/{name}")
        space = self.namespace.strip("/")
        return topic == (f"/{space}/{name}" if space else f"/{name}")


@dataclass(frozen=True)
class Loaded:
    """A recording, and the result of its replay through the bundle."""

    signals: Signals
    replayed: Result | None  # None: it holds no decisions or traces to compare


def check_distinct(paths: Sequence[Path]) -> None:
    """Refuse a file that is given twice, under any name, because it would count twice.

    Raises:
        UserError: names both.
    """
    seen: dict[tuple[int, int], int] = {}
    for number, path in enumerate(paths):
        try:
            files = [file.stat() for file in files_of(path)]
        except (UserError, OSError):
            continue  # who reads it says why it cannot be read
        for file in files:
            first = seen.setdefault((file.st_dev, file.st_ino), number)
            if first != number:
                raise UserError(
                    f"recording {path}: is given twice, first as {paths[first]}; give it once"
                )


def load(path: Path, target: Target, where: Where | None = None) -> Loaded:
    """Read a recording.

    Args:
        path: an MCAP file, a .db3 file of rosbag2, or the folder of either; compressed or not.
        target: a bundle or a robot: names the topics and their fields.
        where: the robot's topics in a recording of another recorder.

    Raises:
        UserError: it cannot be read, or it has no topic of this robot.
    """
    recording = Recording(path, ours=False)
    if recording.about and recording.manifest and isinstance(target, Bundle):
        return _ours(recording, target, where or Where())
    return Loaded(_foreign(recording, target, where or Where()), None)


def _ours(recording: Recording, bundle: Bundle, where: Where) -> Loaded:
    bundle = recording.bound(bundle)
    listener = Listener(bundle.interface)

    def take(entry: Entry, message: Any, said: dict[str, Floats] | MessageError | None) -> None:
        if entry.topic in listener.topics:
            listener.take(entry.topic, entry.type, entry.received, message, said)

    notes, replayed = _origin(recording, bundle), None
    if where != Where():
        notes.append(
            "--namespace and --topic are ignored: recorder_node has recorded the topics of one "
            "robot, under the robot's own names"
        )
    try:
        replayed = replay(recording, bundle, listen=take, wants=listener.wants)
    except UserError as error:
        notes.append(str(error).removeprefix(f"recording {recording.file}: "))
    notes += recording.unreadable
    if replayed is not None and replayed.unread:
        notes.append(_unread(replayed.unread))
    if replayed is not None and replayed.missing:
        notes.append(
            f"ticks are missing in {len(replayed.missing)} place(s): "
            f"{listed(replayed.missing, most=90)}; no comparison spans them"
        )
    if replayed is not None and replayed.other:
        notes.append(f"another bundle ran from {listed(replayed.other, most=90)} on")
    mode = recording.about.get("mode", "")
    signals = listener.finish(recording.file.name, mode, known=notes)
    return Loaded(replace(signals, notes=[*notes, *signals.notes]), replayed)


def _origin(recording: Recording, bundle: Bundle) -> list[str]:
    """Describes the difference between the recorded bundle and the given one.

    Raises:
        UserError: they are for different robots.
    """
    manifest = bundle.manifest
    digest = str(recording.manifest.get("digest"))
    if digest == manifest.digest:
        return []
    ran = recording.about.get("bundle", "unknown")
    notes = [
        f"another bundle ran: {ran} ({digest[:SHOWN]}), not {manifest.name} "
        f"({manifest.digest[:SHOWN]})"
    ]
    recording.check_robot(manifest.interface.robot)
    return notes


def _foreign(recording: Recording, target: Target, where: Where) -> Signals:
    _same_robot(recording, target)
    listener = Listener(target.interface)
    where.check(listener.topics)
    relative: dict[Topic, str | None] = {}

    def wanted(topic: Topic) -> bool:
        relative[topic] = where.relative(topic, listener.topics)
        return relative[topic] is not None

    unread: list[str] = []
    for entry in recording.entries(wanted):
        name = relative[entry.source]
        assert name is not None
        try:
            message = recording.message(entry)
        except UserError as error:
            unread.append(shorten(str(error).removeprefix(f"recording {recording.file}: ")))
            continue
        listener.take(name, entry.type, entry.received, message)
    notes = _places(recording.file, relative, where)
    notes += recording.unreadable
    if unread:
        notes.append(_unread(unread))
    try:
        signals = listener.finish(recording.file.name, "", known=notes)
    except UserError as error:
        seen = _some({topic.name for topic in relative})
        raise UserError(f"{error}. Topics in it: {seen}") from None
    own = signals.notes
    if isinstance(target, Bundle):
        notes.insert(
            0,
            "it was not made by recorder_node, so it does not say which bundle ran, or whether in "
            "lockstep or in real time",
        )
    else:
        own = [note for note in own if note != UNTRACED]
    return replace(signals, notes=[*notes, *own])


def _same_robot(recording: Recording, target: Target) -> None:
    """Refuse a recording of another robot, or one that only its bundle can interpret.

    Raises:
        UserError: names the robot or the bundle.
    """
    recording.check_robot(target.interface.robot)
    if recording.about.get("mode") == LOCKSTEP and not isinstance(target, Bundle):
        raise UserError(
            f"recording {recording.file}: was made in lockstep, where time is counted in ticks, "
            "which only the bundle can read: give bundle "
            f"{recording.about.get('bundle', 'that ran')} instead of the robot"
        )


def _unread(reasons: Sequence[str]) -> str:
    return (
        f"{len(reasons)} messages could not be read, left out, the first one because {reasons[0]}"
    )


def _places(file: Path, relative: dict[Topic, str | None], where: Where) -> list[str]:
    """Returns notes on where the robot's topics were found.

    Raises:
        UserError: a topic is ambiguous, or a given one is missing.
    """
    found: dict[str, set[str]] = {}
    for topic, name in relative.items():
        if name:
            found.setdefault(name, set()).add(topic.name)
    names = {topic.name for topic in relative}
    for ours, theirs in where.topics.items():
        if not any(_absolute(name) == theirs for name in names):
            raise UserError(
                f"recording {file}: no topic {theirs}, which --topic says is {ours}. "
                f"Topics in it: {_some(names)}"
            )
    for name, same in found.items():
        if len(same) > 1:
            choices = _some(_space(topic, name) for topic in same)
            raise UserError(
                f"recording {file}: {len(same)} topics could be {name}: "
                f"{_some(same)}; say which robot with --namespace, one of {choices}, "
                f"or --topic {name}:=TOPIC"
            )
    spaces = {
        _space(topic, name)
        for name, same in found.items()
        for topic in same
        if name not in where.topics and not name.startswith("/") and topic.startswith("/")
    }
    if len(spaces) > 1:
        return [f"topics of several namespaces are taken for one robot: {_some(spaces)}"]
    return []


def _some(names: Iterable[str]) -> str:
    return listed((name[:60] for name in sorted(names)), most=90) or "none"


def _space(topic: str, name: str) -> str:
    """Returns the namespace in which a topic has this relative name."""
    return _absolute(topic).removesuffix(name).rstrip("/") or "/"


def _absolute(name: str) -> str:
    return f"/{name.lstrip('/')}"
