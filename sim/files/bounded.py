"""Reads files whole, but only up to a size: what lies beside a file may be anything."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

from sim.errors import UserError

MOST_LINES = 1_000_000


def read_bounded(path: Path, most: int) -> bytes:
    """Returns the content of a file of at most `most` bytes.

    Raises:
        UserError: it is larger, or no file; one line.
        OSError: it is missing or not readable.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for, without an end
        raise UserError(f"{path}: not a file")
    with path.open("rb") as stream:
        data = stream.read(most + 1)
    if len(data) > most:
        raise UserError(f"{path}: larger than {most:,} bytes")
    return data


def read_lines(path: Path, most: int, errors: str = "strict") -> list[str]:
    """Returns the lines of a UTF-8 text of at most `most` bytes, with their ends.

    Args:
        path: the file.
        most: bytes.
        errors: what becomes of bytes that are no UTF-8, as `bytes.decode` has it.

    Raises:
        UserError: it is larger, or has more than `MOST_LINES` lines; or it is no file. One line.
        UnicodeDecodeError: bytes are no UTF-8, and `errors` is "strict".
        OSError: it is missing or not readable.
    """
    text = read_bounded(path, most).decode(errors=errors)
    ends = text.count("\n") + text.count("\r") - text.count("\r\n")
    if ends > MOST_LINES:  # each line becomes an object
        raise UserError(f"{path}: more than {MOST_LINES:,} lines")
    return list(StringIO(text, newline=""))
