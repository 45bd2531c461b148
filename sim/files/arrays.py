"""Saves and loads arrays atomically and without pickle."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sim.errors import UserError, short, visible
from sim.files.output import replacing

FORMAT = 1
MAX_CHECKPOINT_BYTES = 2**32
AT_ONCE = 2**18  # bytes
Arrays = dict[str, NDArray[np.generic]]


def save_arrays(path: Path, arrays: Arrays) -> None:
    """Write arrays; an existing file is replaced only when the new one is complete.

    Raises:
        UserError: the disk is full or not writable; the previous file is untouched.
    """
    contents: dict[str, Any] = {**arrays, "format": np.array(FORMAT)}
    with replacing(path, overwrite=True) as fresh, fresh.open("wb") as stream:
        np.savez(stream, **contents)


def load_arrays(path: Path) -> Arrays:
    """Read arrays.

    Raises:
        UserError: the file is missing, damaged, or of another format.
    """
    try:
        with path.open("rb") as stream:
            arrays = read_npz(stream, MAX_CHECKPOINT_BYTES)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable checkpoint ({error})") from None
    if not np.array_equal(arrays.pop("format", np.array(0)), FORMAT):
        raise UserError(f"{path}: a checkpoint of another format. Valid: {FORMAT}")
    return arrays


def read_npz(stream: BinaryIO, most: int) -> Arrays:
    """Returns the arrays of an npz file that may be damaged or hostile, at most `most` bytes.

    Raises:
        ValueError: not an npz file, or an array needs unpickling; one line.
    """
    try:
        with open_zip(stream) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > most:
                raise ValueError(f"larger than {most} bytes")
        stream.seek(0)
        arrays = np.load(_Piecewise(stream), allow_pickle=False)
        return {name: np.asarray(arrays[name]) for name in arrays.files}
    except Exception as error:  # whatever zipfile and numpy meet in it
        text = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(text[:200]) from None


def open_zip(stream: IO[bytes]) -> zipfile.ZipFile:
    """Open a zip archive that may be hostile; an archive with a long list of files is refused.

    Raises:
        zipfile.BadZipFile: it is none, or has a file in a compression whose growth is not bounded.
    """
    archive = zipfile.ZipFile(_Piecewise(stream))  # type: ignore[arg-type]
    for entry in archive.infolist():
        # Of bzip2 and LZMA zipfile unpacks all that is read of the file, however much it becomes.
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise zipfile.BadZipFile(
                f"{visible(short(entry.filename))} has compression {entry.compress_type}. "
                "Valid: 0 (stored), 8 (deflated)"
            )
    return archive


def read_piecewise(stream: IO[bytes], most: int) -> bytes:
    """Read at most the given number of bytes of a file in an archive of `open_zip`."""
    pieces, left = [], most
    while left > 0 and (piece := stream.read(min(left, AT_ONCE))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


class _Piecewise:
    """A stream that is read in small pieces.

    zipfile reads the list of an archive's files whole, however long it claims to be.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            size = AT_ONCE  # the end of the file, where the list is told of
        if size > AT_ONCE:
            raise zipfile.BadZipFile(f"{size} bytes in one piece")
        return self._stream.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
