"""Writes a bag: a folder with an MCAP file and rosbag2's metadata.yaml.

`ros2 bag`, Foxglove, PlotJuggler and other readers of MCAP with ROS 2 messages open it. The
manifest of the bundle is an attachment at its beginning.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from mcap.writer import Writer
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2.metadata import dump_qos_v9

from mlsh_ros.messages.topics import Topic
from mlsh_ros.recording.bag_files import METADATA, TOLD
from mlsh_ros.recording.output_folder import check_place
from mlsh_ros.recording.schemas import Schemas
from sim.errors import UserError

CHUNK = 64 * 1024  # bytes; a reader of a killed recording loses the last chunk
ABOUT, MANIFEST = "mlsh_ros", "manifest.json"
LOST = "mlsh_ros_lost"  # in the metadata of a recording that lacks something
LAYOUT = 9  # of metadata.yaml
_NEVER = QosTime(9223372036, 854775807)  # as rosbag2 writes it


class _Plain(yaml.SafeDumper):
    """YAML without references."""

    def ignore_aliases(self, data: Any) -> bool:
        """Returns True for all values."""
        return True


@dataclass
class _Channel:
    number: int
    name: str  # full
    topic: Topic
    qos: list[dict[str, Any]]
    digest: str
    count: int = 0


class Recorder:
    """Writes messages in the order of reception; thread safe.

    Args:
        folder: of the recording; must not exist, or be empty.
        topics: (full name, topic) of everything that may come.
        about: what a reader should know, such as the mode.
        manifest: the bundle's manifest.json.

    Raises:
        UserError: it cannot be written, or a message type is not known.
    """

    def __init__(
        self,
        folder: Path,
        topics: Sequence[tuple[str, Topic]],
        about: Mapping[str, str],
        manifest: bytes,
    ) -> None:
        check_place(folder)
        self.folder = folder
        self.file = folder / f"{folder.absolute().name}_0.mcap"
        self.fault = ""  # why nothing more is written
        self._lock = threading.Lock()
        self._closed = False
        self._first = self._last = 0  # ns
        schemas = Schemas([topic.type for _, topic in topics])
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._stream = self.file.open("xb")
            self._writer = Writer(self._stream, chunk_size=CHUNK)
            self._writer.start(profile="ros2", library="mlsh_ros")
            self._writer.add_attachment(
                time.time_ns(), time.time_ns(), MANIFEST, "application/json", manifest
            )
            self._writer.add_metadata(ABOUT, dict(about))
            self._channels = self._register(topics, schemas)
            self._flush()
        except OSError as error:
            raise UserError(f"record_dir {folder}: {error.strerror or error}") from None

    def _register(
        self, topics: Sequence[tuple[str, Topic]], schemas: Schemas
    ) -> dict[str, _Channel]:
        numbers = {
            kind: self._writer.register_schema(kind, "ros2msg", schemas.text(kind).encode())
            for kind in dict.fromkeys(topic.type for _, topic in topics)
        }
        channels = {}
        for name, topic in topics:
            qos: Any = dump_qos_v9([_offered(topic)])
            digest = schemas.digest(topic.type)
            number = self._writer.register_channel(
                name,
                "cdr",
                numbers[topic.type],
                {
                    "offered_qos_profiles": yaml.dump(qos, Dumper=_Plain),
                    "topic_type_hash": digest,
                    TOLD: topic.name,
                },
            )
            channels[topic.name] = _Channel(number, name, topic, qos, digest)
        return channels

    def write(self, topic: str, data: bytes, *, received: int) -> None:
        """Add a message; does nothing after a fault or the end.

        Args:
            topic: its relative name, as in `Topic.name`.
            data: CDR.
            received: ns since 1970; also used as the time of publication, which rclpy's
                EventsExecutor does not give for messages that it hands over as bytes.

        Raises:
            UserError: the disk is full; raised once.
        """
        with self._lock:
            if self._closed:
                return
            channel = self._channels[topic]
            self._guarded(
                lambda: self._writer.add_message(
                    channel.number, received, data, received, channel.count
                )
            )
            channel.count += 1
            self._first = min(self._first or received, received)
            self._last = max(self._last, received)

    def flush(self) -> None:
        """Flush all messages to the operating system; they survive the end of this process.

        Raises:
            UserError: the disk is full; raised once.
        """
        with self._lock:
            if not self._closed:
                self._guarded(self._flush)

    def close(self, lost: str = "") -> None:
        """Write the index and metadata.yaml; a second call has no effect.

        Args:
            lost: description of known losses; written to both.

        Raises:
            UserError: the disk is full.
        """
        with self._lock:
            if self._closed:
                return
            self._guarded(lambda: self._finish(lost))
            self._closed = True

    @property
    def count(self) -> int:
        """Number of messages written."""
        return sum(channel.count for channel in self._channels.values())

    @property
    def silent(self) -> list[str]:
        """Mandatory topics without a message."""
        return [c.name for c in self._channels.values() if not (c.count or c.topic.optional)]

    def _flush(self) -> None:
        self._writer.flush()  # type: ignore[no-untyped-call]

    def _finish(self, lost: str) -> None:
        if lost:
            self._writer.add_metadata(LOST, {"lost": lost})
        self._writer.finish()  # type: ignore[no-untyped-call]
        self._stream.close()
        content = {"rosbag2_bagfile_information": self._metadata(lost)}
        text = yaml.dump(content, Dumper=_Plain, sort_keys=False)
        with (self.folder / METADATA).open("x") as stream:
            stream.write(text)

    def _guarded(self, action: Any) -> None:
        try:
            action()
        except OSError as error:
            self._closed = True
            with suppress(OSError):
                self._stream.close()
            self.fault = (
                f"recording {self.file}: {error.strerror or error}; it ends after "
                f"{self.count} messages"
            )
            raise UserError(self.fault) from None

    def _metadata(self, lost: str) -> dict[str, Any]:
        span = {
            "duration": {"nanoseconds": self._last - self._first},
            "starting_time": {"nanoseconds_since_epoch": self._first},
            "message_count": self.count,
        }
        topics = [
            {
                "topic_metadata": {
                    "name": channel.name,
                    "type": channel.topic.type,
                    "serialization_format": "cdr",
                    "offered_qos_profiles": channel.qos,
                    "type_description_hash": channel.digest,
                },
                "message_count": channel.count,
            }
            for channel in self._channels.values()
        ]
        return {
            "version": LAYOUT,
            "storage_identifier": "mcap",
            **span,
            "topics_with_message_count": topics,
            "compression_format": "",
            "compression_mode": "",
            "relative_file_paths": [self.file.name],
            "files": [{"path": self.file.name, **span}],
            "custom_data": {LOST: lost} if lost else None,
            "ros_distro": "jazzy",
        }


def _offered(topic: Topic) -> Qos:
    """QoS profile that `ros2 bag play` offers."""
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=1 if topic.latched else 10,
        reliability=QosReliability.RELIABLE if topic.reliable else QosReliability.BEST_EFFORT,
        durability=QosDurability.TRANSIENT_LOCAL if topic.latched else QosDurability.VOLATILE,
        deadline=_NEVER,
        lifespan=_NEVER,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=_NEVER,
        avoid_ros_namespace_conventions=False,
    )
