"""Stores the files of a bundle; weights that several skills have in common are stored once.

Skills of one policy differ in a few constants. Arrays of weights that are in several skills are
external data, in ONNX's own form, in one file beside them. A loader gets each skill with its
weights in it, byte for byte as before: hashes, checks and ONNX Runtime do not depend on how it is
stored. The path of the external data in a skill is compared with that one file and never opened.
"""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from policies.bundle.bundle_files import MAX_FILE_BYTES, Read, bounded, read_all
from policies.bundle.manifest import sha256
from policies.bundle.onnx_reader import (
    EXTERNAL,
    GRAPH,
    INITIALIZER,
    LOCATION,
    RAW,
    Wire,
    graph_parts,
    name_of,
    to_bytes,
)
from sim.errors import UserError, short
from sim.files.output import replacing, replacing_folder

FOLDER = "skills/"
SKILL = re.compile(rf"{FOLDER}[0-9]+\.onnx")
WEIGHTS = re.compile(rf"{FOLDER}weights-[0-9a-f]{{16}}\.bin")
SMALLEST = 1024  # bytes of an array that is taken out; what refers to it has about 80
NUMBER = re.compile(r"[0-9]{1,9}")
IN_BYTES = 2  # wire type of texts, bytes and messages
Change = Callable[[Wire, bytes], bytes]  # of a tensor


class StoredFiles:
    """Reads the files of a bundle as they were before they were stored.

    Args:
        names: of the files in the folder or zip file, each once.
        read: what reads one of them.
        source: for errors.

    Raises:
        UserError: there are two files of weights, or the one that is there was changed.
    """

    def __init__(self, names: Sequence[str], read: Read, source: Path) -> None:
        self._read, self._source = read, source
        self._used: set[tuple[int, int]] = set()  # parts of the weights: begin and end
        self._weights, self._file = b"", ""
        files = [name for name in names if WEIGHTS.fullmatch(name)]
        self.names = [name for name in names if name not in files]
        if len(files) > 1:
            raise UserError(f"{source}: {len(files)} files of weights, at most one is accepted")
        if files:
            (self._file,) = files
            self._weights = bounded(read, self._file, MAX_FILE_BYTES, source)
            if _name_of(self._weights) != self._file:
                raise UserError(
                    f"{source}: {self._file!r} was cut or changed: its {len(self._weights):,} "
                    "bytes have another digest than its name"
                )

    def read(self, name: str, most: int) -> bytes:
        """Content of a file, so many bytes at most; that of a skill has its weights in it.

        Raises:
            UserError: a skill refers to another file, beyond the end of the weights, or to more
                than a file may have.
        """
        data = self._read(name, most)
        if not SKILL.fullmatch(name):
            return data
        where, size = f"{self._source}/{name}", 0

        def inside(wire: Wire, tensor: bytes) -> bytes:
            nonlocal size
            fields = [*wire.places(tensor)]
            numbers = [number for number, *_ in fields]
            if EXTERNAL not in numbers:
                return tensor
            first = numbers.index(EXTERNAL)
            begin, end = self._part(wire, fields[first:], where)
            if (size := size + end - begin) > MAX_FILE_BYTES:
                raise UserError(f"{where}: larger than {MAX_FILE_BYTES} bytes with its weights")
            self._used.add((begin, end))
            return tensor[: fields[first][2]] + _field(RAW, self._weights[begin:end])

        return _with_tensors(data, inside)

    def _part(
        self, wire: Wire, fields: Sequence[tuple[int, int | bytes, int, int]], where: str
    ) -> tuple[int, int]:
        """Begin and end of the weights that a tensor's last fields refer to."""
        place: dict[str, str] = {}
        for _, entry, _, _ in fields[:-1]:
            text = dict(wire.fields(to_bytes(entry)))
            place[name_of(text.get(1, b""))] = name_of(text.get(2, b""))
        location = place.get("location", "")
        if not self._file or f"{FOLDER}{location}" != self._file:
            raise UserError(
                f"{where}: its external data are in {short(location)}, the bundle has "
                f"{short(self._file) if self._file else 'no file of weights'}"
            )
        form = [number for number, *_ in fields] == [EXTERNAL] * 3 + [LOCATION]
        numbers = [place.get(key, "") for key in ("offset", "length")]
        if not form or fields[-1][1] != 1 or not all(map(NUMBER.fullmatch, numbers)):
            raise UserError(
                f"{where}: external data have a location, an offset and a length, not "
                f"{short(place, 150)}"
            )
        begin, length = map(int, numbers)
        if not 0 < length <= len(self._weights) - begin:
            raise UserError(
                f"{where}: refers to bytes {begin:,} to {begin + length:,} of {self._file!r}, "
                f"which has {len(self._weights):,}"
            )
        return begin, begin + length

    def check_used(self) -> None:
        """Refuse weights that are not exactly the parts that skills refer to.

        Raises:
            UserError: two parts overlap, or no skill refers to some of the bytes.
        """
        at = 0
        for begin, end in sorted(self._used):
            if begin < at:
                raise UserError(
                    f"{self._source}: skills refer to parts of {self._file!r} that overlap at "
                    f"byte {begin:,}"
                )
            if begin > at:
                break
            at = end
        if self._file and (at < len(self._weights) or not self._used):
            raise UserError(
                f"{self._source}: no skill refers to {self._file!r} from byte {at:,} on"
            )


def whole(files: Mapping[str, bytes], source: Path) -> dict[str, bytes]:
    """The files of a bundle from those that are stored.

    Args:
        files: by name, as `read_files` returns them.
        source: for errors.

    Raises:
        UserError: weights and skills do not fit, as in `StoredFiles`.
    """
    reader = StoredFiles([*files], lambda name, most: files[name][:most], source)
    found = dict(read_all(reader.read, reader.names, source))
    reader.check_used()
    return found


def stored(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files of a bundle as they are stored; the same ones if its skills share nothing large.

    Args:
        files: all files of a valid bundle, by name. The result depends on nothing else.
    """
    skills = sorted(name for name in files if SKILL.fullmatch(name))
    arrays = Counter(
        _values(Wire(), to_bytes(tensor))[1]
        for name in skills
        for part, tensor in graph_parts(Wire(), files[name], name)
        if part == INITIALIZER
    )
    offsets: dict[bytes, int] = {}
    size = 0
    for values, count in arrays.items():
        if count > 1 and len(values) >= SMALLEST and size + len(values) <= MAX_FILE_BYTES:
            offsets[values] = size
            size += len(values)
    weights = b"".join(offsets)
    file = _name_of(weights)

    def referring(wire: Wire, tensor: bytes) -> bytes:
        head, values = _values(wire, tensor)
        if values not in offsets:
            return tensor
        place = {
            "location": file.removeprefix(FOLDER),
            "offset": f"{offsets[values]}",
            "length": f"{len(values)}",
        }
        for key, text in place.items():
            head += _field(EXTERNAL, _field(1, key.encode()) + _field(2, text.encode()))
        return head + _varint(LOCATION << 3) + _varint(1)

    made = {**files, **{name: _with_tensors(files[name], referring) for name in skills}}
    if weights:
        made[file] = weights
    # Another writer may encode lengths in more bytes than needed: such files stay as they are.
    try:
        same = whole(made, Path(FOLDER)) == files
    except UserError:
        same = False  # it has more fields in this form than a reader accepts
    return made if same else dict(files)


def write_folder(files: Mapping[str, bytes], path: Path) -> None:
    """Store the files in the place of a bundle folder, all or none of them."""
    with replacing_folder(path, overwrite=True) as fresh:
        for name, data in stored(files).items():
            (fresh / name).parent.mkdir(exist_ok=True)
            (fresh / name).write_bytes(data)


def write_zip(files: Mapping[str, bytes], path: Path) -> None:
    """Store the files in the place of a bundle's zip file."""
    with replacing(path, overwrite=True) as fresh, zipfile.ZipFile(fresh, "w") as archive:
        for name, data in stored(files).items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)


def _name_of(weights: bytes) -> str:
    return f"{FOLDER}weights-{sha256(weights)[:16]}.bin"


def _values(wire: Wire, tensor: bytes) -> tuple[bytes, bytes]:
    """Splits a tensor before its values; there are none if they are not its last field."""
    *_, (number, values, begin, _) = wire.places(tensor)
    return (tensor[:begin], to_bytes(values)) if number == RAW else (tensor, b"")


def _with_tensors(data: bytes, change: Change) -> bytes:
    """An ONNX file with other initializers; what is no ONNX file is returned as it is."""
    wire = Wire()
    try:
        return _with_fields(
            wire,
            data,
            GRAPH,
            lambda graph: _with_fields(
                wire, graph, INITIALIZER, lambda tensor: change(wire, tensor)
            ),
        )
    except UserError:
        raise
    except (IndexError, ValueError, OverflowError):
        return data  # the reader of the graph reports the reason


def _with_fields(wire: Wire, data: bytes, number: int, change: Callable[[bytes], bytes]) -> bytes:
    """A message whose fields of one number are others; the rest is the same byte for byte."""
    parts = []
    for each, value, begin, end in wire.places(data):
        old = data[begin:end]
        if each == number and isinstance(value, bytes) and (new := change(value)) != value:
            old = _field(number, new)
        parts.append(old)
    return b"".join(parts)


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | IN_BYTES) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """A number in groups of seven bits, the lowest first."""
    groups = bytearray()
    while value >= 0x80:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
