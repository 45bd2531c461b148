"""Saving and reading arrays: never half a file, never a pickle."""

from __future__ import annotations

import lzma
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sim.errors import UserError

FORMAT = 1
# What zipfile raises on a damaged, truncated, encrypted or exotic archive.
DAMAGED_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    OSError,
    EOFError,
    RuntimeError,
    NotImplementedError,
)
Arrays = dict[str, NDArray[np.generic]]


def save_arrays(path: Path, arrays: Arrays) -> None:
    """Write arrays; the file that was there stays whole until the new one is.

    Raises:
        UserError: the disk is full or not writable; the previous file is untouched.
    """
    partial = path.with_name(f".{path.name}.partial")
    contents: dict[str, Any] = {**arrays, "format": np.array(FORMAT)}
    try:
        with partial.open("wb") as stream:
            np.savez(stream, **contents)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        kept = "; the previous one is kept" if path.exists() else ""
        raise UserError(f"{path}: could not be written ({error.strerror}){kept}") from None


def load_arrays(path: Path) -> Arrays:
    """Read arrays.

    Raises:
        UserError: the file is missing, damaged, or of another format.
    """
    try:
        with path.open("rb") as stream:
            arrays = read_npz(stream)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable checkpoint ({error})") from None
    if not np.array_equal(arrays.pop("format", np.array(0)), FORMAT):
        raise UserError(f"{path}: a checkpoint of another format. Valid: {FORMAT}")
    return arrays


def read_npz(stream: BinaryIO) -> Arrays:
    """The arrays of an npz file that may be damaged or hostile.

    Raises:
        ValueError: it is not one, or it wants something unpickled; one line.
    """
    try:
        archive = np.load(stream, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("not an npz file")
        return {name: np.asarray(archive[name]) for name in archive.files}
    except (*DAMAGED_ZIP, MemoryError, ValueError) as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None
