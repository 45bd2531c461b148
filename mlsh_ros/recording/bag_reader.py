"""Reads and decodes the messages of a bag without ROS.

`bag_files.py` reads the files' bytes; `completeness.py` finds messages that are missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcap.records import Attachment, Metadata
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from mlsh_ros.recording.bag_files import ZSTD, File, files_of
from mlsh_ros.recording.bag_records import Stored, Topic
from mlsh_ros.recording.bag_writer import ABOUT, MANIFEST
from mlsh_ros.recording.unpacking import unzstd_message
from policies.bundle.bound_bundle import bound
from policies.bundle.bundle import Bundle
from sim.errors import UserError
from sim.files.strict_json import parse_json
from sim.interface.bindings import bindings_from_dict

# ns by which one topic's messages step back in time: the recorder's clock jumped, and what
# follows was recorded later all the same.
JUMP = 500_000_000
LONGEST = 2**16  # bytes of a definition: to make a type of as many takes up to 2 s
DEFINITIONS = 2**17  # bytes of all definitions that are parsed of one recording
CDR = "cdr"


@dataclass(frozen=True)
class Entry:
    """One recorded message."""

    topic: str  # relative name, whatever it was remapped to; of other recorders as it was recorded
    type: str
    received: int  # ns since 1970, by the recorder's clock
    data: bytes  # CDR, or what else the topic says
    source: Topic


class Recording:
    """The files of a recording; read from front to end.

    Args:
        path: the file, or its folder.
        ours: refuse recordings of other programs; otherwise `about` may be empty.

    Raises:
        UserError: no such file, an unknown kind of file, or not written by recorder_node.
    """

    def __init__(self, path: Path, *, ours: bool = True) -> None:
        self._files = _one_mcap(path) if ours else [File(each) for each in files_of(path)]
        self.file = self._files[0].path if len(self._files) == 1 else path
        self.about: dict[str, str] = {}  # mode, bundle, digest, bindings
        self.manifest: dict[str, Any] = {}  # of the bundle that ran
        self.cut = ""  # why it could not be read to its end; known after `entries`
        # What could not be read and was passed over, and how often; known after `entries`.
        self.passed_over: Counter[str] = Counter()
        self._stores: dict[tuple[str, str, bytes], Typestore | UserError] = {}
        self._parsed = 0  # bytes of definitions
        for record in self._files[0].records():
            if isinstance(record, Stored):
                break
            if isinstance(record, Metadata) and record.name == ABOUT:
                self.about = dict(record.metadata)
            if isinstance(record, Attachment) and record.name == MANIFEST:
                self.manifest = _json(record.data)
        self._ours = bool(self.about and self.manifest)
        if ours and not self._ours:
            raise UserError(
                f"recording {self.file}: it does not contain the bundle that ran; "
                "only what recorder_node wrote can be replayed"
            )

    def bound(self, bundle: Bundle) -> Bundle:
        """Returns a bundle with the bindings that the recorded nodes had, if they had any.

        Raises:
            UserError: they are invalid, or of another robot than the bundle.
        """
        if not (text := self.about.get("bindings")):
            return bundle
        where = f"recording {self.file}: bindings"
        return bound(bundle, bindings_from_dict(parse_json(text.encode(), where), where), where)

    @property
    def unreadable(self) -> list[str]:
        """Describes what could not be read, each part in a line; known after `entries`."""
        found = []
        if self.cut:
            found.append(f"it is truncated ({self.cut}); the part before is used")
        if self.passed_over:
            parts = [f"{count} x {what}" for what, count in self.passed_over.items()]
            found.append(f"what cannot be read is passed over: {', '.join(parts)}")
        return found

    def check_robot(self, name: str) -> None:
        """Refuse a recording of another robot.

        Raises:
            UserError: names both robots.
        """
        interface = self.manifest.get("interface")
        robot = interface.get("robot", name) if isinstance(interface, dict) else name
        if robot != name:
            raise UserError(
                f"recording {self.file}: another robot was recorded: {robot}, not {name}"
            )

    def entries(self, wanted: Callable[[Topic], bool] = lambda topic: True) -> Iterator[Entry]:
        """Yields the messages of the selected topics, in the order of reception.

        Files may hold them in another one: the times of logging count.
        """
        said: dict[Topic, bool] = {}
        spans: list[list[Stored]] = [[]]
        newest: dict[Topic, int] = {}
        for record in self._stored():
            topic = record.topic
            if topic not in said:
                said[topic] = wanted(topic)
            if not said[topic]:
                continue
            if record.received < newest.get(topic, record.received) - JUMP:
                spans.append([])
                newest = {}
            newest[topic] = max(record.received, newest.get(topic, record.received))
            spans[-1].append(record)
        for span in spans:
            for each in sorted(span, key=lambda stored: stored.received):
                name = each.topic.relative_name or each.topic.name
                yield Entry(name, each.topic.type, each.received, each.data, each.topic)

    def _stored(self) -> Iterator[Stored]:
        self.cut = ""
        self.passed_over.clear()
        for file in self._files:
            for record in file.records(ours=self._ours):
                if isinstance(record, Stored):
                    yield record
            self.cut = self.cut or file.cut
            self.passed_over += file.passed_over

    def message(self, entry: Entry) -> Any:
        """Returns the message of an entry, with the attributes of its ROS type.

        Raises:
            UserError: its bytes are not of that type, or the type is unknown.
        """
        where = f"recording {self.file}: a message of {entry.topic}"
        source, data = entry.source, entry.data
        if source.encoding != CDR:
            raise UserError(f"{where} is encoded as {source.encoding!r}, {CDR!r} is expected")
        try:
            if data.startswith(ZSTD):  # rosbag2's compression by message; no CDR begins so
                data = unzstd_message(data)
            return self._store(source).deserialize_cdr(data, entry.type)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        except Exception as error:  # whatever the bytes drive the decoder to
            raise UserError(f"{where} is not a {entry.type} ({type(error).__name__})") from None

    def _store(self, topic: Topic) -> Typestore:
        """Returns the types of a topic's own definition.

        Each topic has its own, because two definitions of one name may differ.

        Raises:
            UserError: the type is unknown.
        """
        key = topic.type, topic.schema, topic.definition
        if key not in self._stores:
            self._parsed += len(topic.definition)
            try:
                if self._parsed > DEFINITIONS:
                    raise UserError(f"its definitions have more than {DEFINITIONS} bytes in all")
                self._stores[key] = _types(topic)
            except UserError as error:
                self._stores[key] = error
            except Exception as error:  # rosbags, of a definition that is damaged
                self._stores[key] = UserError(
                    f"the definition of {topic.type} is not readable ({type(error).__name__})"
                )
        found = self._stores[key]
        if isinstance(found, UserError):
            raise found
        return found


def _types(topic: Topic) -> Typestore:
    if not topic.definition:
        # Bags from before Jazzy do not contain the definitions of their messages.
        store = get_typestore(Stores.ROS2_JAZZY)
        if topic.type not in store.fielddefs:
            raise UserError(f"it has no definition of {topic.type or 'the message type'}")
        return store
    if len(topic.definition) > LONGEST:
        raise UserError(f"the definition of {topic.type} has {len(topic.definition)} bytes")
    text = topic.definition.decode()
    if topic.schema == "ros2idl":
        found = get_types_from_idl(text)
    elif topic.schema == "ros2msg":
        found = get_types_from_msg(text, topic.type)
    else:
        raise UserError(
            f"the definition of {topic.type} is {topic.schema!r}, ros2msg and ros2idl can be read"
        )
    store = get_typestore(Stores.EMPTY)
    store.register({k: v for k, v in found.items() if k not in store.fielddefs})
    return store


def _one_mcap(path: Path) -> list[File]:
    if path.is_dir():
        files = sorted(path.glob("*.mcap"))
        if len(files) != 1:
            raise UserError(f"recording {path}: {len(files)} files *.mcap in it, one is expected")
        path = files[0]
    file = File(files_of(path)[0])
    if not file.mcap:
        raise UserError(f"recording {path}: not an MCAP file")
    return [file]


def _json(data: bytes) -> dict[str, Any]:
    try:
        found = parse_json(data, "manifest")
    except UserError:
        return {}
    return found if isinstance(found, dict) else {}
