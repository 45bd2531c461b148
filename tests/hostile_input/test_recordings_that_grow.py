"""Recordings from which more comes than is in them: computed by SQLite, or unpacked."""

import sqlite3
import struct

import numpy as np
import pytest
import zstandard
from mcap.records import Attachment
from mcap.writer import CompressionType, Writer

from mlsh_ros.recording import bag_files
from mlsh_ros.recording.bag_files import File
from mlsh_ros.recording.bag_reader import Recording
from sim.errors import UserError
from tests.support.gap_robot import STORE, blank

TOPICS = "CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT, %s TEXT)"
MESSAGES = "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER%s)"
COUNTING = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"


def database(path, messages, *more, rows=40):
    """As rosbag2 writes it, but for the table of messages."""
    base = sqlite3.connect(path)
    base.execute(TOPICS % "serialization_format")
    base.execute("INSERT INTO topics VALUES (1, '/odom', 'nav_msgs/msg/Odometry', 'cdr')")
    base.execute(messages)
    if messages.startswith("CREATE TABLE"):
        many = ((i,) for i in range(rows))
        base.executemany("INSERT INTO messages (topic_id, timestamp) VALUES (1, ?)", many)
    for each in more:
        base.execute(each)
    base.commit()
    base.close()
    return path


COMPUTED = {
    # 12 kB, of which each row would have 200 MB.
    "large": MESSAGES % ", data GENERATED ALWAYS AS (zeroblob(200000000)) VIRTUAL",
    # The time of each row grows with the square of the size: 100 days for 1e9.
    "slow": MESSAGES
    % ", data GENERATED ALWAYS AS (instr(zeroblob(20000), zeroblob(10000) || x'01'))",
    "stored": MESSAGES % ", data GENERATED ALWAYS AS (zeroblob(9)) STORED",
}


@pytest.mark.parametrize("name", COMPUTED)
def test_a_column_that_is_computed_is_refused(name, tmp_path):
    path = database(tmp_path / "bag.db3", COMPUTED[name])
    with pytest.raises(UserError, match=r"bag\.db3: .* table messages computes data; [^\n]*$"):
        list(File(path).records())


@pytest.mark.parametrize("table", ["topics", "message_definitions"])
def test_so_it_is_in_every_table_that_is_read(table, tmp_path):
    computed = "encoding TEXT, topic_type TEXT, encoded_message_definition TEXT, id INTEGER, "
    computed += "type TEXT, serialization_format TEXT, name AS (hex(zeroblob(99999999)))"
    more = [f"CREATE TABLE {table}({computed})"]
    if table == "topics":
        more.insert(0, "DROP TABLE topics")
    path = database(tmp_path / "bag.db3", MESSAGES % ", data BLOB", *more)
    with pytest.raises(UserError, match=f"table {table} computes name;"):
        list(File(path).records())


PROGRAMS = {
    "VIEW messages": [f"CREATE VIEW messages AS {COUNTING} SELECT 1 topic_id, i timestamp, "
                      "zeroblob(9) data, i id FROM n"],
    "VIEW seen": [MESSAGES % ", data BLOB", "CREATE VIEW seen AS SELECT * FROM messages"],
    "TRIGGER told": [
        MESSAGES % ", data BLOB",
        "CREATE TRIGGER told AFTER INSERT ON topics BEGIN SELECT 1; END",
    ],
    "VIRTUAL TABLE": ["CREATE VIRTUAL TABLE messages USING fts4(topic_id, timestamp, data)"],
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_is_no_table_is_refused(name, tmp_path):
    path = database(tmp_path / "bag.db3", *PROGRAMS[name])
    with pytest.raises(UserError, match=rf"bag\.db3: a database with {name}; [^\n]*$"):
        list(File(path).records())


def test_rows_cannot_hold_more_than_the_file(tmp_path):
    """A default is stored once; each of 4000 rows that lack the column has its 30,000 bytes."""
    more = f"ALTER TABLE messages ADD COLUMN data DEFAULT x'{'00' * 30_000}'"
    path = database(tmp_path / "bag.db3", MESSAGES % "", more, rows=4000)
    size = path.stat().st_size
    assert size < 4000 * 30_000 / 100
    with pytest.raises(UserError, match=f"rows hold more than the {size:,} bytes of the database"):
        list(File(path).records())


def test_pages_that_are_used_again_and_again_do_not_go_on_for_ever(tmp_path):
    """All branches of the tree lead to its last page, and from there back one level."""
    path = database(tmp_path / "bag.db3", MESSAGES % ", data BLOB", rows=0)
    base = sqlite3.connect(path)
    rows = ((1, i, b"x") for i in range(40_000))
    base.executemany("INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)", rows)
    base.commit()
    (root,) = base.execute("SELECT rootpage FROM sqlite_master WHERE name = 'messages'").fetchone()
    (page,) = base.execute("PRAGMA page_size").fetchone()
    base.close()
    raw = bytearray(path.read_bytes())
    begin = (root - 1) * page
    (cells,) = struct.unpack_from(">H", raw, begin + 3)
    assert raw[begin] == 5  # an inner page of a table
    places = struct.unpack_from(f">{cells}H", raw, begin + 12)
    leaf = raw[begin + 8 : begin + 12]  # the rightmost one
    inner = bytearray(raw[begin : begin + page])
    for place in places:
        inner[place : place + 4] = leaf
    levels = 6  # of `cells` branches each: over 100 million rows in as many pages
    for _ in range(levels):
        number = struct.pack(">I", len(raw) // page + 1)
        raw += inner
        for place in places:
            inner[place : place + 4] = number
        inner[8:12] = number
    raw[begin : begin + page] = inner
    raw[28:32] = struct.pack(">I", len(raw) // page)  # the size of the database
    path.write_bytes(raw)
    with pytest.raises(UserError, match=r"its rows hold more|more records than bytes"):
        sum(1 for _ in File(path).records())
    assert cells**levels > 1e8


# MCAP -------------------------------------------------------------------------------------------


def text(said):
    return struct.pack("<I", len(said)) + said.encode()


def record(opcode, content):
    return bytes([opcode]) + struct.pack("<Q", len(content)) + content


def chunks(path, body, count):
    """An MCAP file in which `body` stands `count` times, packed each time."""
    packed = zstandard.ZstdCompressor(level=1).compress(body)
    head = struct.pack("<QQQI", 0, 0, len(body), 0) + text("zstd")
    chunk = record(6, head + struct.pack("<Q", len(packed)) + packed)
    path.write_bytes(b"\x89MCAP0\r\n" + record(1, text("ros2") + text("x")) + count * chunk)
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_chunks_cannot_unpack_to_more_than_a_recording(tmp_path, packed):
    """40 times 16 MiB of nothing in 22 kB."""
    path = chunks(tmp_path / "bag.mcap", record(0x80, bytes(2**24)), 40)
    if packed:
        path.write_bytes(zstandard.compress(path.read_bytes()))
    with pytest.raises(UserError, match=r"unpacks to more than 67,108,864 bytes, too many for a"):
        list(File(path).records())


@pytest.mark.parametrize("opcode", [5, 0x80])
def test_records_of_no_size_are_counted(tmp_path, opcode):
    body = record(opcode, struct.pack("<HIQQ", 1, 0, 0, 0) if opcode == 5 else b"") * 2**18
    path = chunks(tmp_path / "bag.mcap", body, 4)
    with pytest.raises(UserError, match="more records than bytes; that is no recording"):
        list(File(path).records())


def test_a_chunk_of_a_size_that_nobody_writes_is_not_unpacked(tmp_path):
    path = chunks(tmp_path / "bag.mcap", bytes(2**27 + 1), 1)
    file = File(path)
    assert list(file.records()) == []
    assert file.passed_over == {"damaged chunk (134217729 bytes)": 1}


def repeated(path, kind, count, compression, **values):
    """The same message again and again; nothing but its stamps changes."""
    message = blank(kind)
    for name, value in values.items():
        setattr(message, name, value)
    data = bytes(STORE.serialize_cdr(message, kind))
    with path.open("wb") as stream:
        writer = Writer(stream, chunk_size=786_432, compression=compression)  # rosbag2's
        writer.start("ros2", "x")
        definition = STORE.generate_msgdef(kind, ros_version=2)[0].encode()
        schema = writer.register_schema(kind, "ros2msg", definition)
        channel = writer.register_channel("/x", "cdr", schema)
        for i in range(count):
            writer.add_message(channel, 10**18 + i * 10**7, data, 10**18 + i * 10**7, i)
        writer.finish()
    return count * len(data)


NOTHING_SEEN = {"ranges": np.full(720, np.inf, np.float32), "intensities": np.zeros(720, "f4")}


@pytest.mark.parametrize("compression", [CompressionType.ZSTD, CompressionType.LZ4])
def test_a_scanner_that_sees_nothing_is_read(tmp_path, compression):
    """The densest that a robot's sensors are: 180 times, beyond what every file may have."""
    path = tmp_path / "bag.mcap"
    held = repeated(path, "sensor_msgs/msg/LaserScan", 12_000, compression, **NOTHING_SEEN)
    assert held > 2**26
    assert held > 80 * path.stat().st_size
    assert sum(1 for _ in File(path).records()) == 12_000


def test_a_camera_with_its_cap_on_is_read(tmp_path):
    """3000 times, but 46 MB."""
    path = tmp_path / "bag.mcap"
    black = np.zeros(640 * 480 * 3, np.uint8)
    held = repeated(path, "sensor_msgs/msg/Image", 50, CompressionType.ZSTD, data=black)
    assert held > 1000 * path.stat().st_size
    assert sum(1 for _ in File(path).records()) == 50


def test_a_message_cannot_unpack_to_more_than_a_message(tmp_path):
    path = tmp_path / "bag.mcap"
    kind = "sensor_msgs/msg/JointState"
    bomb = zstandard.compress(bytes(2**26))
    with path.open("wb") as stream:
        writer = Writer(stream)
        writer.start("ros2", "x")
        definition = STORE.generate_msgdef(kind, ros_version=2)[0].encode()
        schema = writer.register_schema(kind, "ros2msg", definition)
        writer.add_message(writer.register_channel("/x", "cdr", schema), 1, bomb, 1)
        writer.finish()
    recording = Recording(path, ours=False)
    (entry,) = recording.entries()
    most = 1000 * len(bomb)
    with pytest.raises(UserError, match=rf"to 67,108,864 bytes, at most {most:,} are accepted$"):
        recording.message(entry)


def test_what_is_too_large_and_not_needed_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(bag_files, "LARGEST_RECORD", 5000)
    path = tmp_path / "bag.mcap"
    with path.open("wb") as stream:
        writer = Writer(stream)
        writer.start("ros2", "x")
        writer.add_attachment(1, 1, "video", "video/mp4", bytes(3 * 2**20))
        writer.add_message(writer.register_channel("/x", "cdr", 0), 1, b"abc", 1)
        writer.finish()
    file = File(path)
    found = list(file.records())
    assert [each.data for each in found if not isinstance(each, Attachment)] == [b"abc"]
    assert not any(isinstance(each, Attachment) for each in found)
    assert file.cut == ""  # the checksum of the whole counts what was passed over
