"""Bounds what a file of a bag turns into when it is read.

Reading takes time and memory in proportion to the file only if what comes out of it is bounded by
its size: compressed data grow up to 30,000 times, and hold records of no size.
"""

from __future__ import annotations

import zstandard

from sim.errors import UserError

LARGEST_MESSAGE = 2**27  # bytes, unpacked
# Bytes, unpacked. Writers end a chunk after about 1 MB, unless a single message is larger.
LARGEST_CHUNK = LARGEST_MESSAGE
# Times that a file may grow. MCAP with zstd, and nothing that changes but the stamps: joint states
# grow 19 times, odometry 26 times, a laser scanner that sees nothing 190 times; with LZ4 13, 16
# and 94 times, 235 at most. Only images and maps of a single value grow more, 3000 to 9000 times.
DENSEST = 1000
FREE = 2**26  # bytes that every file may grow to, for such images
# Records that every file may have; beyond that, one for each byte of it. The index of a message
# has 16 bytes, which are not compressed; without index, 6 bytes were seen.
FREE_RECORDS = 2**16
# A message that is compressed on its own may grow to as much, whatever its size.
FREE_MESSAGE = 2**16


class Growth:
    """Counts what comes out of a file, in one pass over it.

    Args:
        size: bytes of the file as it was given, compressed or not.
        most: bytes that may come out of it; None: what a compressed file may grow to.
    """

    def __init__(self, size: int, most: int | None = None) -> None:
        self._size, self._stored = size, most is not None
        self._most = most if most is not None else largest(size)
        self._bytes, self._records = self._most, max(FREE_RECORDS, size)

    def add(self, count: int, records: int = 0) -> None:
        """Count bytes, before they are unpacked, and records in them.

        Raises:
            UserError: there is more than a recording of that size can hold.
        """
        self._bytes -= count
        self._records -= records
        if self._bytes < 0 and self._stored:
            raise UserError(f"its rows hold more than the {self._most:,} bytes of the database")
        if self._bytes < 0:
            raise UserError(
                f"it unpacks to more than {self._most:,} bytes, too many for a file of "
                f"{self._size:,}; if it is a recording, store it uncompressed"
            )
        if self._records < 0:
            raise UserError("it has more records than bytes; that is no recording")


def largest(size: int) -> int:
    """Bytes that a compressed file of `size` bytes may grow to."""
    return max(FREE, DENSEST * size)


def unzstd(data: bytes, most: int) -> bytes:
    """Decompress, but no more than `most` bytes.

    Raises:
        zstandard.ZstdError: it is no zstd, or larger.
    """
    told = zstandard.frame_content_size(data)
    if told > most:
        raise zstandard.ZstdError(f"{told} bytes, at most {most} are expected")
    return zstandard.ZstdDecompressor().decompress(data, max_output_size=most)


def unzstd_message(data: bytes) -> bytes:
    """Decompress a message that is compressed on its own.

    Raises:
        UserError: it grows to more than a message can.
        zstandard.ZstdError: it is no zstd.
    """
    most = min(LARGEST_MESSAGE, max(FREE_MESSAGE, DENSEST * len(data)))
    if (told := zstandard.frame_content_size(data)) > most:
        raise UserError(
            f"it unpacks from {len(data):,} to {told:,} bytes, at most {most:,} are accepted"
        )
    return unzstd(data, most)
