"""Reads the files of a bag: MCAP, or rosbag2's SQLite.

The first bytes decide the kind of a file, not its name. Nothing is decoded here, so that a channel
that is not needed costs no time and cannot cause an error.
"""

from __future__ import annotations

import re
import struct
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO

import lz4.frame  # type: ignore[import-untyped]
import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Attachment, Channel, Chunk, DataEnd, Metadata, Schema

from mlsh_ros.messages.topics import FORMER_NAMES
from mlsh_ros.recording.bag_records import Record, Stored, Topic
from mlsh_ros.recording.bag_sqlite import SQLITE, check_complete, rows
from mlsh_ros.recording.unpacking import LARGEST_CHUNK, Growth, unzstd
from sim.errors import UserError
from sim.files.bounded import read_bounded

METADATA = "metadata.yaml"  # of rosbag2
METADATA_BYTES = 2**24  # of a recording of 10,000 files and as many topics: 3 MB
TOLD = "mlsh_topic"  # key of a channel's metadata: the relative name, whatever it was remapped to
MCAP = b"\x89MCAP0\r\n"
ZSTD, ROS1 = b"\x28\xb5\x2f\xfd", b"#ROSBAG V"
ENDINGS = (".mcap", ".db3")
PACKED = (*ENDINGS, *(f"{end}{z}" for end in ENDINGS for z in (".zstd", ".zst")))
LARGEST_RECORD = LARGEST_CHUNK + 2**10  # bytes: the head of a chunk besides
MOST_REASONS = 10  # why chunks are damaged, that are told apart
SHORT, ORPHAN = "message shorter than its header", "message of a channel that is not described"
PIECE = 2**20  # bytes that are read at once
HEADER = struct.Struct("<HIQQ")  # of a message: channel, sequence, times of logging and publishing
RECORD = struct.Struct("<BQ")
_LISTED = re.compile(r"^ *relative_file_paths:[ \r]*\n((?: *- [^\n]*(?:\n|$))+)", re.MULTILINE)
_NUMBERS = re.compile(r"(\d+)", re.ASCII)


def files_of(path: Path) -> list[Path]:
    """Returns the files of a recording: itself, or those of a folder in recorded order.

    Raises:
        UserError: the path is missing, or the files of the folder are not listed.
    """
    if not path.exists():
        raise UserError(f"recording {path}: no such file or folder")
    if not path.is_dir():
        return [path]
    there = [each for each in path.iterdir() if each.name.lower().endswith(PACKED)]
    there.sort(key=lambda each: _natural(each.name))
    if (path / METADATA).is_file() and there:
        return _listed(path, there) or there
    if len(there) == 1:
        return there
    raise UserError(
        f"recording {path}: {len(there)} MCAP files and no {METADATA} in it; name a file, or a "
        "folder with one of the two"
    )


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key by which bag_10 follows bag_9."""
    return [
        (int(part or 0), "") if i % 2 else (0, part) for i, part in enumerate(_NUMBERS.split(name))
    ]


def _listed(folder: Path, there: list[Path]) -> list[Path]:
    """Returns the files listed in metadata.yaml of rosbag2; empty without a list.

    Raises:
        UserError: a file is missing, or metadata.yaml is larger than that of a recording.
    """
    try:
        about = read_bounded(folder / METADATA, METADATA_BYTES).decode()
    except UserError as error:
        raise UserError(f"recording {error}; name the files of the recording one by one") from None
    except (OSError, UnicodeDecodeError):
        return []
    listed = _LISTED.search(about)
    lines = listed[1].split("\n") if listed else []
    names = [PurePosixPath(line.strip(" -'\"\r")).name for line in lines if line.strip()]
    found = []
    for name in names:
        # The file may be packed by now, or no longer.
        same = [f for f in there if f.name in (name, f"{name}.zstd", Path(name).stem)]
        exact = [f for f in same if f.name == name]
        if not same:
            raise UserError(
                f"recording {folder}: {name} is missing, which {METADATA} names; name the files "
                "that are there one by one"
            )
        found.append((exact or same)[0])
    return found


class File:
    """One file of a recording; unpacked into a temporary one if it is compressed as a whole.

    Raises:
        UserError: it cannot be read, or is of no kind that is known.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cut = ""  # why it could not be read to its end; known after `records`
        # What could not be read and was passed over, and how often; known after `records`.
        self.passed_over: Counter[str] = Counter()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._plain = path
        if not path.is_file():  # a pipe would be waited for, without an end
            raise UserError(f"recording {path}: not a file")
        try:
            self._size = path.stat().st_size
            head = _head(path)
            if head.startswith(ZSTD):
                self._unpack()
                head = _head(self._plain)
        except OSError as error:
            raise UserError(f"recording {path}: {error.strerror or error}") from None
        if head.startswith(ROS1):
            raise UserError(
                f"recording {path}: is of ROS 1; `rosbags-convert --src {path} --dst FOLDER` "
                "makes a rosbag2 of it"
            )
        if not head.startswith((MCAP, SQLITE)):
            raise UserError(
                f"recording {path}: not an MCAP file, nor a database (.db3) of rosbag2"
            )
        self.mcap = head.startswith(MCAP)
        if not self.mcap and self._plain == path:
            check_complete(path)

    def _unpack(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="mlsh_recording_")
        self._plain = Path(self._folder.name) / "recording"
        unpacker = zstandard.ZstdDecompressor()
        growth = Growth(self._size)
        try:
            with (
                self.path.open("rb") as packed,
                self._plain.open("wb") as plain,
                unpacker.stream_reader(packed, read_across_frames=True) as source,
            ):
                while block := source.read(PIECE):
                    growth.add(len(block))
                    plain.write(block)
        except UserError as error:
            raise UserError(f"recording {self.path}: {error}") from None
        except zstandard.ZstdError as error:
            self.cut = f"zstd: {error}"

    def records(self, *, ours: bool = False) -> Iterator[Record]:
        """Yields every readable record in file order; stops where the file is truncated.

        Records and chunks of a readable length with an unreadable content are passed over, and
        counted in `passed_over`. Of recorder_node's files reading stops at the first chunk that is
        damaged: each has a checksum.

        Args:
            ours: written by recorder_node, with all messages in chunks that have checksums.

        Raises:
            UserError: more comes out of it than a recording of its size can hold, or something
                in it would be computed.
        """
        self.passed_over.clear()
        try:
            if self.mcap:
                with self._plain.open("rb") as stream:
                    yield from _Mcap(stream, ours, Growth(self._size), self.passed_over).records()
            else:
                yield from rows(self._plain, self._size, self.passed_over)
        except UserError as error:
            raise UserError(f"recording {self.path}: {error}") from None
        except Exception as error:  # mcap, zstd, sqlite and struct each have their own
            self.cut = self.cut or _why(error)


def _why(error: Exception) -> str:
    text = " ".join(str(error).split())
    return type(error).__name__ if not text else f"{type(error).__name__}: {text[:100]}"


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(16)


# MCAP -------------------------------------------------------------------------------------------


class _Mcap:
    """Reads the data section of an MCAP file from front to end.

    It reads single records, because the reader of the library stops at a schema or channel that
    violates the format.
    """

    def __init__(
        self, stream: IO[bytes], ours: bool, growth: Growth, passed_over: Counter[str]
    ) -> None:
        self._stream, self._ours, self._growth = stream, ours, growth
        self._passed_over = passed_over
        self._crc = 0
        self._schemas: dict[int, Schema] = {}
        self._topics: dict[int, Topic] = {}

    def records(self) -> Iterator[Record]:
        self._read(len(MCAP))
        while True:
            before = self._crc
            opcode, length = RECORD.unpack(self._read(RECORD.size))
            self._growth.add(0, 1)
            if length > LARGEST_RECORD:
                self._skip(opcode, length)
                continue
            content = self._read(length)
            if opcode == Opcode.DATA_END:
                told = DataEnd.read(ReadDataStream(BytesIO(content))).data_section_crc
                # A chunk that was passed over is a part of these data.
                if told and told != before and (self._ours or not self._passed_over):
                    raise McapError("the checksum of the data does not match")
                return  # what follows repeats what was said
            if opcode == Opcode.CHUNK:
                yield from self._chunk(content)
            elif opcode == Opcode.MESSAGE and self._ours:
                # It was another record once.
                raise McapError("a message outside of a chunk")
            else:
                yield from self._record(opcode, memoryview(content))

    def _read(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:  # piece by piece: the length may be a lie
            data += self._piece(count - len(data))
        return bytes(data)

    def _skip(self, opcode: int, length: int) -> None:
        """Pass over what is too large to be kept, such as an attached video."""
        if opcode in (Opcode.CHUNK, Opcode.MESSAGE):
            raise McapError(f"a record of {length} bytes")
        while length:
            length -= len(self._piece(length))

    def _piece(self, most: int) -> bytes:
        piece = self._stream.read(min(most, PIECE))
        if not piece:
            raise McapError("the file ends within a record")
        self._crc = zlib.crc32(piece, self._crc)
        return piece

    def _damaged(self, reason: str) -> None:
        """Count a damaged chunk that is passed over; in a file of ours it ends the reading."""
        if self._ours:
            raise McapError(reason)
        what = f"damaged chunk ({reason})"
        known = what in self._passed_over or len(self._passed_over) < MOST_REASONS
        self._passed_over[what if known else "damaged chunk"] += 1

    def _chunk(self, content: bytes) -> Iterator[Record]:
        try:
            chunk = Chunk.read(ReadDataStream(BytesIO(content)))
        except Exception as error:  # mcap and struct each have their own
            self._damaged(_why(error))
            return
        if chunk.uncompressed_size > LARGEST_CHUNK:
            self._damaged(f"{chunk.uncompressed_size} bytes")
            return
        self._growth.add(chunk.uncompressed_size)
        try:
            data = _unpacked(chunk)
            if chunk.uncompressed_crc and zlib.crc32(data) != chunk.uncompressed_crc:
                raise McapError("its checksum does not match")
        except Exception as error:  # mcap, zstd and lz4 each have their own
            self._damaged(_why(error))
            return
        view, place = memoryview(data), 0
        while place < len(view):
            self._growth.add(0, 1)
            head = view[place : place + RECORD.size]
            opcode, length = RECORD.unpack(head) if len(head) == RECORD.size else (0, len(view))
            place += RECORD.size
            if length > len(view) - place:
                self._damaged("it ends within a record")
                return
            yield from self._record(opcode, view[place : place + length])
            place += length

    def _record(self, opcode: int, content: memoryview) -> Iterator[Record]:
        if opcode == Opcode.MESSAGE:
            if len(content) < HEADER.size:
                self._passed_over[SHORT] += 1
                return
            channel, _, received, _ = HEADER.unpack_from(content)
            if channel not in self._topics:  # its type is unknown
                self._passed_over[ORPHAN] += 1
            else:
                yield Stored(self._topics[channel], received, bytes(content[HEADER.size :]))
            return
        stream = ReadDataStream(BytesIO(content))
        try:
            if opcode == Opcode.SCHEMA:
                schema = Schema.read(stream)
                self._schemas[schema.id] = schema
            elif opcode == Opcode.CHANNEL:
                channel = Channel.read(stream)
                self._topics[channel.id] = self._topic(channel)
            elif opcode == Opcode.METADATA:
                yield Metadata.read(stream)
            elif opcode == Opcode.ATTACHMENT:
                yield Attachment.read(stream)
        except (ValueError, McapError, struct.error):
            return  # it is not as the format says: as if it were not there

    def _topic(self, channel: Channel) -> Topic:
        schema = self._schemas.get(channel.schema_id)
        told = channel.metadata.get(TOLD, "")
        return Topic(
            name=channel.topic,
            relative_name=FORMER_NAMES.get(told, told),
            type=schema.name if schema else "",
            encoding=channel.message_encoding,
            schema=schema.encoding if schema else "",
            definition=schema.data if schema else b"",
        )


def _unpacked(chunk: Chunk) -> bytes:
    """Decompress the records of a chunk; never more bytes than it declares."""
    size = chunk.uncompressed_size
    if not chunk.compression:
        return chunk.data
    if chunk.compression == "zstd":
        return unzstd(chunk.data, size)
    if chunk.compression == "lz4":
        unpacker = lz4.frame.LZ4FrameDecompressor()
        data: bytes = unpacker.decompress(chunk.data, size)
        return data
    raise McapError(f"compression {chunk.compression!r}; zstd and lz4 can be read")
