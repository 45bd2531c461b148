"""A record or chunk that cannot be read costs itself, not what follows; and it is counted."""

import shlex
import shutil
import sqlite3
import struct
from collections import Counter
from contextlib import closing

import pytest
import zstandard

from mlsh_ros.recording.bag_files import ORPHAN, SHORT, File
from mlsh_ros.recording.bag_reader import Recording
from sim.errors import UserError

MAGIC, HEADER, CHANNEL, MESSAGE, CHUNK, DATA_END = b"\x89MCAP0\r\n", 1, 4, 5, 6, 15


def text(said):
    return struct.pack("<I", len(said)) + said.encode()


def record(opcode, content):
    return bytes([opcode]) + struct.pack("<Q", len(content)) + content


def message(number, channel=1):
    return record(MESSAGE, struct.pack("<HIQQ", channel, number, number, number) + b"m%d" % number)


def chunk(body, compression="zstd", crc=0, size=None):
    packed = zstandard.ZstdCompressor().compress(body) if compression == "zstd" else body
    size = len(body) if size is None else size
    head = struct.pack("<QQQI", 0, 0, size, crc) + text(compression)
    return record(CHUNK, head + struct.pack("<Q", len(packed)) + packed)


def mcap(path, *records):
    """With a channel 1 that has no schema."""
    about = record(CHANNEL, struct.pack("<HH", 1, 0) + text("/x") + text("cdr") + bytes(4))
    end = record(DATA_END, bytes(4))
    path.write_bytes(b"".join([MAGIC, record(HEADER, text("ros2") + text("x")), about]))
    with path.open("ab") as stream:
        stream.write(b"".join([*records, end]))
    return path


THREE = [message(number) for number in (1, 2, 3)]
DAMAGED = {
    "3 bytes": (record(MESSAGE, b"abc"), SHORT),
    "21 bytes, one too few": (record(MESSAGE, bytes(21)), SHORT),
    "in a chunk": (chunk(record(MESSAGE, b"abc")), SHORT),
    "unknown channel": (message(9, channel=7), ORPHAN),
    "unknown compression": (
        chunk(b"abc", "brotli"),
        "damaged chunk (McapError: compression 'brotli'; zstd and lz4 can be read)",
    ),
    "no zstd": (
        chunk(b"abc", "zstd", size=2),
        "damaged chunk (ZstdError: 3 bytes, at most 2 are expected)",
    ),
    "checksum": (chunk(b"abc", crc=1), "damaged chunk (McapError: its checksum does not match)"),
    "a size beyond all bounds": (
        chunk(b"abc", size=2**60),
        f"damaged chunk ({2**60} bytes)",
    ),
    "ends in a head": (chunk(b"abc"), "damaged chunk (it ends within a record)"),
    "ends in a record": (
        chunk(record(MESSAGE, bytes(30))[:-1]),
        "damaged chunk (it ends within a record)",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_cannot_be_read_is_passed_over_and_counted(name, tmp_path):
    bad, what = DAMAGED[name]
    path = mcap(tmp_path / "bag.mcap", bad, *THREE[:2], bad, chunk(THREE[2]))
    file = File(path)
    assert [each.data for each in file.records()] == [b"m1", b"m2", b"m3"]
    assert file.cut == ""
    assert file.passed_over == {what: 2}
    recording = Recording(path, ours=False)
    for _ in range(2):  # each pass counts for itself
        assert len(list(recording.entries())) == 3
        assert recording.unreadable == [f"what cannot be read is passed over: 2 x {what}"]


def test_the_checksum_of_the_data_says_nothing_of_a_chunk_that_is_passed_over(tmp_path):
    """It is that of the data as they were written; they were read to their end all the same."""
    path = mcap(tmp_path / "bag.mcap", *THREE)
    whole = path.read_bytes()[: -len(record(DATA_END, bytes(4)))]
    bad = chunk(b"abc", crc=1)
    path.write_bytes(whole + bad + record(DATA_END, struct.pack("<I", 12345)))
    file = File(path)
    assert len(list(file.records())) == 3
    assert file.cut == ""
    path.write_bytes(whole + record(DATA_END, struct.pack("<I", 12345)))
    assert len(list(file.records())) == 3
    assert "the checksum of the data does not match" in file.cut


def test_a_short_chunk_record_is_passed_over(tmp_path):
    file = File(mcap(tmp_path / "bag.mcap", record(CHUNK, b"abc"), *THREE))
    assert len(list(file.records())) == 3
    assert [what.startswith("damaged chunk (") for what in file.passed_over] == [True]


def test_reasons_that_differ_in_every_chunk_are_not_all_kept(tmp_path):
    path = mcap(tmp_path / "bag.mcap", *(chunk(b"", f"kind {i}") for i in range(100)), *THREE)
    file = File(path)
    assert len(list(file.records())) == 3
    assert len(file.passed_over) == 11
    assert file.passed_over.total() == 100


@pytest.mark.parametrize("name", ["unknown compression", "checksum", "ends in a head"])
def test_of_our_recorder_a_damaged_chunk_ends_the_reading(name, tmp_path):
    """Each of its chunks has a checksum: what follows damage may be no more what it was."""
    path = mcap(tmp_path / "bag.mcap", chunk(THREE[0]), DAMAGED[name][0], chunk(THREE[1]))
    file = File(path)
    assert [each.data for each in file.records(ours=True)] == [b"m1"]
    assert file.cut
    assert file.passed_over == {}


def test_a_short_message_of_our_recorder_is_counted(tmp_path):
    path = mcap(tmp_path / "bag.mcap", chunk(record(MESSAGE, b"abc") + THREE[0]))
    file = File(path)
    assert [each.data for each in file.records(ours=True)] == [b"m1"]
    assert file.passed_over == {SHORT: 1}


def test_rows_of_a_database_that_are_no_messages_are_counted(tmp_path):
    base = sqlite3.connect(tmp_path / "bag.db3")
    base.execute(
        "CREATE TABLE topics(id INTEGER, name TEXT, type TEXT, serialization_format TEXT)"
    )
    base.execute("INSERT INTO topics VALUES (1, '/x', 'std_msgs/msg/Empty', 'cdr')")
    base.execute("CREATE TABLE messages(topic_id INTEGER, timestamp INTEGER, data BLOB)")
    rows = [(1, 1, b"m"), (7, 2, b"m"), (1, "x", b"m"), (1, 4, None)]
    base.executemany("INSERT INTO messages VALUES (?, ?, ?)", rows)
    base.commit()
    base.close()
    file = File(tmp_path / "bag.db3")
    assert len(list(file.records())) == 1
    assert file.passed_over == Counter({"row that is no message of a topic": 3})


def killed(path, mode, leave):
    """A database of three messages, as its recorder left it when it was killed at `leave`."""
    base = sqlite3.connect(path, isolation_level=None)
    base.execute(f"PRAGMA journal_mode = {mode}")
    base.execute("PRAGMA wal_autocheckpoint = 0")
    base.execute("PRAGMA cache_size = 1")
    base.execute(
        "CREATE TABLE topics(id INTEGER, name TEXT, type TEXT, serialization_format TEXT)"
    )
    base.execute("INSERT INTO topics VALUES (1, '/x', 'std_msgs/msg/Empty', 'cdr')")
    base.execute("CREATE TABLE messages(topic_id INTEGER, timestamp INTEGER, data BLOB)")
    base.execute("INSERT INTO messages VALUES (1, 1, x'00')")
    base.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    base.execute("BEGIN")
    base.executemany("INSERT INTO messages VALUES (1, ?, zeroblob(9000))", [(2,), (3,)])
    if mode == "WAL":
        base.execute("COMMIT")
    for each in path.parent.glob("bag.db3*"):  # as they are now; SQLite tidies up when it closes
        shutil.copy(each, leave)
    base.close()
    return leave / path.name


@pytest.mark.parametrize(
    ("mode", "ending", "count"), [("WAL", "-wal", 3), ("DELETE", "-journal", 1)]
)
def test_a_database_that_is_not_whole_alone_says_how_it_becomes_so(tmp_path, mode, ending, count):
    (tmp_path / "left").mkdir()
    path = killed(tmp_path / "bag.db3", mode, tmp_path / "left")
    with pytest.raises(UserError) as caught:
        File(path)
    said = str(caught.value)
    assert said.startswith(f"recording {path}: is not whole without bag.db3{ending}, which is not")
    link = tmp_path / "link.db3"
    link.symlink_to(path)
    with pytest.raises(UserError, match=f"is not whole without bag.db3{ending}"):
        File(link)
    words = shlex.split(said.partition("killed; ")[2])[:3]
    assert words[:2] == ["sqlite3", str(path)]
    with closing(sqlite3.connect(path)) as base:  # what the command does
        base.execute(words[2]).fetchall()
    assert len(list(File(path).records())) == count


def test_files_beside_a_database_that_hold_nothing_are_no_reason(tmp_path):
    (tmp_path / "left").mkdir()
    path = killed(tmp_path / "bag.db3", "WAL", tmp_path / "left")
    wal = path.with_name("bag.db3-wal")
    for content in (b"", wal.read_bytes()[:32], b"notes of somebody, longer than a head of a log"):
        wal.write_bytes(content)
        assert len(list(File(path).records())) == 1
