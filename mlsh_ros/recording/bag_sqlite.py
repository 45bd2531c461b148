"""Reads the databases of rosbag2.

SQLite computes much of what it seems to read: views, virtual tables and generated columns are
programs in the file. A database that has any of them is refused, and what is left is stored once,
so that nothing larger than the file can come out of it.
"""

from __future__ import annotations

import shlex
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from mlsh_ros.recording.bag_records import Stored, Topic
from mlsh_ros.recording.unpacking import LARGEST_MESSAGE, Growth
from sim.errors import UserError, listed

SQLITE = b"SQLite format 3\0"
TOPICS, MESSAGES, DEFINITIONS = "topics", "messages", "message_definitions"
# How SQLite itself spells the statement of what is stored and not computed.
# Beside a database: what its file lacks, or has to be taken back in it. Per ending from which
# size (bytes) on and with which first bytes there is something in it, and what brings it home.
BESIDE = {
    "-wal": (33, b"\x37\x7f\x06", "PRAGMA wal_checkpoint(TRUNCATE)"),
    "-journal": (8, b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7", "PRAGMA quick_check"),
}
STORED = ("CREATE TABLE ", "CREATE INDEX ", "CREATE UNIQUE INDEX ")
LONGEST_STATEMENT = 2**16  # bytes; rosbag2's have some hundred
MOST_COLUMNS = 100


def check_complete(path: Path) -> None:
    """Refuse a database that is not whole without a file beside it: it is in use, or was killed.

    It is read without that file, and would lack its newest messages, or be neither old nor new.

    Raises:
        UserError: names the file, and a command that writes its content into the database.
    """
    place = path.resolve()  # SQLite follows links, too
    for ending, (least, magic, cure) in BESIDE.items():
        beside = place.with_name(place.name + ending)
        if not beside.is_file() or beside.stat().st_size < least:
            continue
        with beside.open("rb") as stream:
            if stream.read(len(magic)) != magic:
                continue
        raise UserError(
            f"recording {path}: is not whole without {beside.name}, which is not read: it is in "
            "use, or its recorder was killed; "
            f"{shlex.join(['sqlite3', str(path), cure])} makes it whole"
        )


def rows(path: Path, size: int, passed_over: Counter[str]) -> Iterator[Stored]:
    """Yields every readable message of a database in the order of its table.

    Args:
        path: the database, uncompressed.
        size: bytes of the file as it was given.
        passed_over: counts the rows that are no messages.

    Raises:
        UserError: no database of rosbag2, or one in which something is computed.
        sqlite3.Error: it is damaged.
    """
    # Read only, without writing a journal beside the file.
    uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    with closing(sqlite3.connect(uri, uri=True)) as base:
        _limit(base)
        found = _Database(base, Growth(size, most=path.stat().st_size))
        tables = found.tables()
        if not {TOPICS, MESSAGES} <= tables:
            raise UserError("a database without the tables of rosbag2")
        topics = _topics(found, DEFINITIONS in tables)
        for number, received, data in found.rows(MESSAGES, "topic_id", "timestamp", "data"):
            if number in topics and isinstance(received, int) and isinstance(data, bytes):
                yield Stored(topics[number], received, data)
            else:
                passed_over["row that is no message of a topic"] += 1


def _limit(base: sqlite3.Connection) -> None:
    base.execute("PRAGMA trusted_schema = OFF")
    base.execute("PRAGMA cell_size_check = ON")
    if sys.version_info >= (3, 11):
        base.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST_MESSAGE)
        base.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, LONGEST_STATEMENT)
        base.setlimit(sqlite3.SQLITE_LIMIT_COLUMN, MOST_COLUMNS)


class _Database:
    """Reads tables from front to end; nothing is sorted or computed."""

    def __init__(self, base: sqlite3.Connection, growth: Growth) -> None:
        self._base, self._growth = base, growth

    def tables(self) -> set[str]:
        """Names of the tables.

        Raises:
            UserError: the database has something other than tables and indices of them.
        """
        found = set()
        for name, sql in self._counted("SELECT name, sql FROM sqlite_master"):
            # Its type is a text that the file states; what SQLite goes by is the statement.
            if sql is not None and not str(sql).startswith(STORED):
                what = " ".join(str(sql).split()[1:3])[:60]
                raise UserError(
                    f"a database with {what}; tables and indices alone are read, as rosbag2 "
                    "writes them"
                )
            found.add(name)
        return found

    def rows(self, table: str, *columns: str) -> Iterator[tuple[Any, ...]]:
        """Yields the columns of each row, in the order of the table.

        Raises:
            UserError: a column is computed, or the rows hold more than the file.
        """
        said = self._base.execute(f"PRAGMA table_xinfo({table})")
        if computed := [name for _, name, *_, hidden in said if hidden]:
            raise UserError(
                f"a database whose table {table} computes {listed(computed)}; columns that are "
                "stored alone are read, as rosbag2 writes them"
            )
        # An order of its own would be sorted first, and an index may be anything.
        yield from self._counted(f"SELECT {', '.join(columns)} FROM {table} NOT INDEXED")

    def _counted(self, query: str) -> Iterator[tuple[Any, ...]]:
        for row in self._base.execute(query):
            self._growth.add(sum(len(v) for v in row if isinstance(v, (bytes, str))), 1)
            yield row


def _topics(base: _Database, defined: bool) -> dict[int, Topic]:
    definitions: dict[str, tuple[str, bytes]] = {}
    if defined:
        for kind, encoding, text in base.rows(
            DEFINITIONS, "topic_type", "encoding", "encoded_message_definition"
        ):
            if isinstance(encoding, str) and isinstance(text, str):
                definitions[kind] = encoding, text.encode()
    found = {}
    for number, name, kind, encoding in base.rows(
        TOPICS, "id", "name", "type", "serialization_format"
    ):
        if all(isinstance(each, str) for each in (name, kind, encoding)):
            schema, text = definitions.get(kind, ("", b""))
            found[number] = Topic(name, "", kind, encoding, schema, text)
    return found
