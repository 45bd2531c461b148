"""Mutates recordings as strangers send them: `python -m tests.support.fuzz_mcap --seconds 120`.

The law is that of fuzz.py, for what `mlsh gap`, `sysid` and `replay` read: whatever comes
is read, or refused by a UserError of one line, within a bounded time.
"""

from __future__ import annotations

import io
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from mcap.reader import make_reader
from mcap.writer import CompressionType, Writer

from mlsh_ros.recording.bag_reader import Recording
from mlsh_ros.recording.replay import replay
from mlsh_ros.sim2real.data.recording_data import load
from mlsh_ros.sim2real.data.target import load_target, nominal
from mlsh_ros.sim2real.data.window_plan import plan_for
from mlsh_ros.sim2real.gap.comparison import windows_of
from mlsh_ros.sim2real.replay.open_loop_replay import open_loop_of
from policies.bundle.bundle import load_bundle
from sim.errors import UserError
from tests.support import fuzz
from tests.support.foreign_bag import commanded, rosbag
from tests.support.gap_robot import Robot

TIMES = (0, 1, 10**18, 2**63, 2**64 - 1, 10**9)
ENCODINGS = ("", "cdr", "json", "protobuf", "cbor", "\x1b[31m", "ros1")
SCHEMAS = ("", "ros2msg", "ros2idl", "jsonschema", "protobuf", "omgidl")


def remade(data: bytes, rng: random.Random) -> bytes:
    """The same messages by mcap's writer, with a few things other than they were."""
    out = io.BytesIO()
    kind = rng.choice((CompressionType.NONE, CompressionType.LZ4, CompressionType.ZSTD))
    writer = Writer(out, chunk_size=rng.choice((200, 10_000, 2**20)), compression=kind)
    writer.start(profile="ros2", library="")
    reader = make_reader(io.BytesIO(data))
    for each in reader.iter_attachments():
        if rng.random() < 0.9:
            content = fuzz.raw(each.data, rng) if rng.random() < 0.1 else each.data
            writer.add_attachment(1, 1, each.name, each.media_type, content)
    for about in reader.iter_metadata():
        if rng.random() < 0.9:
            writer.add_metadata(about.name, dict(about.metadata))
    what, numbers = rng.randrange(8), {}
    victim: Any = None
    for schema, channel, message in reader.iter_messages(log_time_order=False):
        victim = victim or rng.choice((channel.topic, None))
        if channel.id not in numbers:
            mine = rng.random() < 0.4
            numbers[channel.id] = registered(writer, schema, channel, what if mine else -1, rng)
        time, content = message.log_time, message.data
        if what == 4:
            time = max(0, time + int(rng.gauss(0, 1) * rng.choice((1e6, 3e7, 1e9, 1e12))))
        elif what == 5 and rng.random() < 0.01:
            time = rng.choice(TIMES)
        elif what == 6 and rng.random() < 0.1:
            content = fuzz.raw(content, rng)
        if what == 7 and rng.random() < 0.5:
            continue
        writer.add_message(numbers[channel.id], time, content, time)
    writer.finish()
    whole = out.getvalue()
    return whole[: rng.randrange(len(whole))] if rng.random() < 0.2 else whole


def registered(writer: Writer, schema: Any, channel: Any, what: int, rng: random.Random) -> int:
    """A channel, with another schema, type, encoding or name."""
    name, encoding, text = schema.name, schema.encoding, schema.data
    told, sort, topic = dict(channel.metadata), channel.message_encoding, channel.topic
    if what == 0:
        text = rng.choice((b"", fuzz.raw(text, rng), b"int32 a\n" * 5000, rng.randbytes(500)))
    elif what == 1:
        encoding = rng.choice(SCHEMAS)
        name = rng.choice((name, "a/msg/B", *fuzz.TEXTS[:8]))
    elif what == 2:
        sort = rng.choice(ENCODINGS)
    elif what == 3:
        topic = rng.choice(("", "/", "odom", "/a/odom", "/cmd_vel", topic * 20))
        told = rng.choice(({}, {"mlsh_topic": rng.choice(("odom", "x", "skill_node/trace"))}))
    clean = [each.encode("utf-8", "replace").decode() for each in (name, encoding, sort, topic)]
    name, encoding, sort, topic = clean
    number = 0 if rng.random() < 0.05 else writer.register_schema(name, encoding, text)
    return writer.register_channel(topic, sort, number, told)


def change(data: bytes, rng: random.Random) -> bytes:
    """As bytes, or as messages."""
    if not data.startswith(b"\x89MCAP") or rng.random() < 0.4:
        return fuzz.raw(data, rng)
    return remade(data, rng)


class Reader:
    """What the three commands read of a file, up to what they simulate."""

    def __init__(self) -> None:
        self.bundle, self.robot = load_bundle("moving_bandits"), load_target("omni")
        self.open_loop = open_loop_of(self.robot, [], nominal(self.robot, None))

    def __call__(self, path: Path) -> None:
        said = None
        for read in (self._replay, self._gap, self._robot):
            try:
                read(path)
            except UserError as error:
                said = error
        if said is not None:
            raise said

    def _replay(self, path: Path) -> None:
        replay(Recording(path), self.bundle)

    def _gap(self, path: Path) -> None:
        load(path, self.bundle)

    def _robot(self, path: Path) -> None:
        signals = load(path, self.robot).signals
        windows_of([signals], plan_for(self.open_loop.interface), self.open_loop, [])


def targets() -> dict[str, fuzz.Target]:
    """By name."""
    bundle, read = load_bundle("moving_bandits"), Reader()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        robot = Robot(bundle, seed=1).drive("goal-0", sessions=1, ticks=40)
        own = robot.bag(folder / "own")
        rows = commanded(bundle, sessions=1)
        other = rosbag(folder / "other", rows)
        base = rosbag(folder / "base", rows, storage="SQLITE3")
        packed = rosbag(folder / "packed", rows, compress="FILE")
        mcaps = [next(each.glob("*.mcap")).read_bytes() for each in (own, other)]
        rest = [next(base.glob("*.db3")), next(packed.glob("*.zstd"))]
        return {
            # Read three times.
            "mcap": fuzz.Target(mcaps, change, read, ".mcap", 3 * fuzz.SECONDS),
            "other bags": fuzz.Target([p.read_bytes() for p in rest], change, read, ".db3"),
        }


if __name__ == "__main__":
    sys.exit(fuzz.main(targets()))
