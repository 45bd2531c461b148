"""Reading a recording back: MCAP to messages, without ROS."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mcap.data_stream import ReadDataStream
from mcap.exceptions import InvalidMagic, McapError
from mcap.records import Attachment, Channel, Chunk, DataEnd, McapRecord, Message, Metadata, Schema
from mcap.stream_reader import StreamReader, breakup_chunk, read_magic
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from mlsh_ros.core.recording import ABOUT, MANIFEST, TOPIC
from sim.errors import UserError


@dataclass(frozen=True)
class Entry:
    """One recorded message."""

    topic: str  # relative name, whatever it was remapped to
    type: str
    received: int  # ns since 1970, by the recorder's clock
    data: bytes  # CDR


class Recording:
    """An MCAP file that recorder_node wrote; read from front to end, nothing is kept.

    Args:
        path: the file, or its folder.
        ours: refuse what recorder_node did not write; otherwise `about` may be empty.

    Raises:
        UserError: no such file, not MCAP, or not a recording of ours.
    """

    def __init__(self, path: Path, *, ours: bool = True) -> None:
        self.file, self._ours = _file(path), ours
        self.about: dict[str, str] = {}  # mode, bundle, digest
        self.manifest: dict[str, Any] = {}  # of the bundle that ran
        self.cut = ""  # why it could not be read to its end; known after `entries`
        self._store = get_typestore(Stores.EMPTY)
        self._types: set[str] = set()
        try:
            with self.file.open("rb") as stream:
                read_magic(ReadDataStream(stream))
        except OSError as error:
            raise UserError(f"recording {self.file}: {error.strerror}") from None
        except (InvalidMagic, McapError, struct.error):  # the last: shorter than the magic
            raise UserError(f"recording {self.file}: not an MCAP file") from None
        for record in self._records():
            if isinstance(record, Message):
                break
            if isinstance(record, Metadata) and record.name == ABOUT:
                self.about = dict(record.metadata)
            if isinstance(record, Attachment) and record.name == MANIFEST:
                self.manifest = _json(record.data)
        if ours and not (self.about and self.manifest):
            raise UserError(
                f"recording {self.file}: it does not say which bundle ran; "
                "only what recorder_node wrote can be replayed"
            )

    def entries(self) -> Iterator[Entry]:
        """Every message in the order in which it came; ends where the file breaks off."""
        schemas: dict[int, Schema] = {}
        channels: dict[int, tuple[str, str]] = {}
        for record in self._records():
            if isinstance(record, DataEnd):
                return  # what follows repeats what was said
            if isinstance(record, Schema):
                schemas[record.id] = record
                try:
                    self._learn(record)
                except Exception as error:  # rosbags, of a definition that is damaged
                    self.cut = type(error).__name__
                    return
            elif isinstance(record, Channel):
                name = record.metadata.get(TOPIC, record.topic)
                channels[record.id] = name, schemas[record.schema_id].name
            elif isinstance(record, Message):
                topic, kind = channels[record.channel_id]
                yield Entry(topic, kind, record.log_time, record.data)

    def message(self, entry: Entry) -> Any:
        """The message of an entry, with the attributes of its ROS type.

        Raises:
            UserError: its bytes are not of that type.
        """
        try:
            return self._store.deserialize_cdr(entry.data, entry.type)
        except Exception as error:  # whatever the bytes drive the decoder to
            raise UserError(
                f"recording {self.file}: a message of {entry.topic} is not a {entry.type} "
                f"({type(error).__name__})"
            ) from None

    def _learn(self, schema: Schema) -> None:
        if schema.name not in self._types:
            self._types.add(schema.name)
            found = get_types_from_msg(schema.data.decode(), schema.name)
            known = self._store.fielddefs
            self._store.register({k: v for k, v in found.items() if k not in known})

    def _records(self) -> Iterator[McapRecord]:
        with self.file.open("rb") as stream:
            try:
                yield from _until_the_end(stream, self._ours)
            except Exception as error:  # mcap, zstd and struct each have their own
                self.cut = type(error).__name__


def _until_the_end(stream: IO[bytes], ours: bool) -> Iterator[McapRecord]:
    for record in StreamReader(stream, emit_chunks=True, validate_crcs=True).records:
        if isinstance(record, Chunk):
            yield from breakup_chunk(record, validate_crc=True)
        elif ours and isinstance(record, Message):
            # Ours are all in chunks, which have a checksum each: this was another record once.
            raise McapError("a message outside of a chunk")
        else:
            yield record


def _file(path: Path) -> Path:
    if not path.is_dir():
        if not path.exists():
            raise UserError(f"recording {path}: no such file or folder")
        return path
    files = sorted(path.glob("*.mcap"))
    if len(files) != 1:
        raise UserError(f"recording {path}: {len(files)} files *.mcap in it, one is expected")
    return files[0]


def _json(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
