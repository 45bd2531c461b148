"""`mlsh gap` on what other recorders write: any channel, order, compression and name."""

import random
import re
import shutil
from copy import deepcopy

import numpy as np
import pytest
import zstandard
from foreign_bag import commanded, mcap, rosbag

from mlsh_ros.gap.analysis import NO_GAP, analyse
from mlsh_ros.gap.reading import Where, load
from mlsh_ros.gap.subject import load_subject
from policies.bundle import load_bundle
from sim.errors import UserError


@pytest.fixture(scope="module")
def omni():
    return load_subject("omni")


@pytest.fixture(scope="module")
def said():
    return commanded(load_bundle("moving_bandits"))


@pytest.fixture(scope="module")
def plain(omni, said, tmp_path_factory):
    return load(mcap(tmp_path_factory.mktemp("plain") / "bag.mcap", said), omni).signals


def same(signals, other):
    """Whether two recordings say the same."""
    assert signals.notes == other.notes
    assert len(signals.drives) == len(other.drives)
    for one, two in zip(signals.drives, other.drives, strict=True):
        assert (one.command == two.command).all()
        assert (one.received == two.received).all()
    for one, two in zip(signals.streams, other.streams, strict=True):
        assert (one.received == two.received).all()
        assert all((one.fields[k] == two.fields[k]).all() for k in one.fields)
    return True


def schema_of(name, encoding, data):
    def extra(writer):
        schema = writer.register_schema(name, encoding, data)
        number = writer.register_channel("/thing", "cdr", schema)
        writer.add_message(number, 10**18, b"\0\1\0\0abc", 10**18)

    return extra


def no_schema(writer):
    number = writer.register_channel("/raw", "json", schema_id=0)
    writer.add_message(number, 10**18, b'{"a": 1}', 10**18)


def unknown_schema(writer):
    number = writer.register_channel("/lost", "cdr", schema_id=777)
    writer.add_message(number, 10**18, b"\0\1\0\0", 10**18)


FOREIGN = {
    "no schema": no_schema,
    "a schema that is not there": unknown_schema,
    "jsonschema": schema_of("Thing", "jsonschema", b'{"type": "object"}'),
    "protobuf": schema_of("my.Thing", "protobuf", b"\x0a\xff\xfe\x00"),
    "ros2idl": schema_of("my_msgs/msg/Thing", "ros2idl", b"module my_msgs { module msg {"),
    "a damaged definition": schema_of("my_msgs/msg/Thing", "ros2msg", b"\xff\xfe int32 ] a"),
    "an empty definition": schema_of("my_msgs/msg/Thing", "ros2msg", b""),
    "another Odometry": schema_of("nav_msgs/msg/Odometry", "ros2msg", b"int32 a\n"),
    "a Header of its own": schema_of("std_msgs/msg/Header", "ros2msg", b"string a\n"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_nobody_asked_for_is_skipped_whatever_it_is(omni, said, plain, tmp_path, name):
    path = mcap(tmp_path / "bag.mcap", said, extra=FOREIGN[name])
    assert same(load(path, omni).signals, plain)


def test_a_topic_that_cannot_be_read_says_why(omni, said, tmp_path):
    def extra(writer):
        number = writer.register_channel("/odom", "json", schema_id=0)
        writer.add_message(number, said[0][0], b"{}", said[0][0])

    commands = [row for row in said if row[1] == "cmd_vel"]
    path = mcap(tmp_path / "bag.mcap", commands, extra=extra)
    with pytest.raises(UserError, match="a message of /odom is encoded as 'json', 'cdr' is exp"):
        analyse(omni, [path])


@pytest.mark.parametrize("order", ["by topic", "shaken"])
def test_the_time_of_logging_is_the_order_and_not_the_place_in_the_file(
    omni, said, plain, tmp_path, order
):
    rng = random.Random(1)
    key = (
        (lambda row: row[1]) if order == "by topic" else (lambda row: row[0] + rng.uniform(0, 3e7))
    )
    path = mcap(tmp_path / "bag.mcap", sorted(said, key=key))
    assert same(load(path, omni).signals, plain)


def test_a_root_robot_can_be_named(omni, said, plain, tmp_path):
    two = [(t, f"gripper/{topic}", m) for t, topic, m in said if topic == "odom"] + said
    path = mcap(tmp_path / "bag.mcap", two)
    with pytest.raises(
        UserError, match=r"2 topics could be odom.*--namespace, one of /, /gripper"
    ):
        load(path, omni)
    for root in ("/", ""):
        assert same(load(path, omni, Where.of(root, ())).signals, plain)
    assert same(load(path, omni, Where.of(None, ["odom:=/odom"])).signals, plain)
    assert same(load(path, omni, Where.of(None, ["odom:=gripper/odom"])).signals, plain)
    with pytest.raises(UserError, match="neither a tick"):
        load(path, omni, Where.of("gripper", ()))


def test_a_topic_of_another_name_is_mapped(omni, said, plain, tmp_path):
    other = [(t, {"odom": "wheels/odometry"}.get(topic, topic), m) for t, topic, m in said]
    path = mcap(tmp_path / "bag.mcap", other)
    mapped = Where.of(None, ["odom:=/wheels/odometry"])
    assert same(load(path, omni, mapped).signals, plain)
    for remaps, message in (
        (
            ["odom:=/wheel"],
            r"no topic /wheel, which --topic says is odom\. Topics in it: /cmd_vel",
        ),
        (["odo:=/wheels/odometry"], "no topic of the robot 'odo'"),
        (["odom"], "'odom' is not OURS:=THEIRS"),
        (["odom:=/a", "odom:=/b"], "--topic odom: given twice"),
    ):
        with pytest.raises(UserError, match=message):
            load(path, omni, Where.of(None, remaps))


def test_two_robots_are_not_taken_for_one_in_silence(omni, said, tmp_path):
    two = [(t, f"{'a' if topic == 'odom' else 'b'}/{topic}", m) for t, topic, m in said]
    notes = load(mcap(tmp_path / "bag.mcap", two), omni).signals.notes
    assert "topics of several namespaces are taken for one robot: /a, /b" in notes


@pytest.mark.parametrize("storage", ["MCAP", "SQLITE3"])
@pytest.mark.parametrize("mode", [None, "MESSAGE", "FILE"])
def test_every_compression_of_rosbag2_is_read(omni, said, plain, tmp_path, storage, mode):
    folder = rosbag(tmp_path / "bag", said, storage=storage, compress=mode)
    files = [each for each in folder.iterdir() if each.name != "metadata.yaml"]
    assert same(load(folder, omni).signals, plain)
    assert same(load(files[0], omni).signals, plain)
    upper = tmp_path / files[0].name.upper()
    shutil.copy(files[0], upper)
    assert same(load(upper, omni).signals, plain)


@pytest.mark.parametrize("storage", ["MCAP", "SQLITE3"])
def test_a_split_bag_is_read_as_one_and_each_file_alone(omni, said, plain, tmp_path, storage):
    half, end = len(said) // 2, "mcap" if storage == "MCAP" else "db3"
    whole = rosbag(tmp_path / "bag", said[:half], storage=storage)
    other = rosbag(tmp_path / "other", said[half:], storage=storage)
    shutil.copy(other / f"other.{end}", whole / f"bag_1.{end}")
    about = (whole / "metadata.yaml").read_text()
    indent = re.search(rf"( *)- bag.{end}\n", about)
    both = f"{indent[0]}{indent[1]}- bag_1.{end}\n"
    (whole / "metadata.yaml").write_text(about.replace(indent[0], both, 1))
    assert same(load(whole, omni).signals, plain)
    alone = load(whole / f"bag_1.{end}", omni).signals
    assert len(alone.drives) == 1
    (whole / f"bag_1.{end}").unlink()
    with pytest.raises(UserError, match=f"bag_1.{end} is missing, which metadata.yaml names"):
        load(whole, omni)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"#ROSBAG V2.0\n" + bytes(100), "is of ROS 1; `rosbags-convert --src"),
        (zstandard.compress(b"hello" * 100), "not an MCAP file, nor a database"),
        (zstandard.compress(bytes(10**8)), "grows to more than 1000 times its size"),
        (b"SQLite format 3\0" + bytes(200), "neither a tick .*breaks off"),
        (b"PK\3\4", "not an MCAP file, nor a database"),
    ],
)
def test_what_cannot_be_read_says_what_to_do(omni, tmp_path, content, message):
    path = tmp_path / "bag.bin"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"^[^\n]*{message}[^\n]*$"):
        load(path, omni)


def test_a_robot_that_matches_has_no_gap_by_whoever_recorded_it(omni, said, tmp_path):
    found = analyse(omni, [mcap(tmp_path / "bag.mcap", said)])
    assert found.verdict == [NO_GAP]


def lacking(said, *parts):
    """Odometry without a number for them."""
    rows = []
    for received, topic, message in said:
        if topic == "odom":
            message = deepcopy(message)
            if "twist" in parts:
                message.twist.twist.linear.x = np.nan
            if "pose" in parts:
                message.pose.pose.position.x = np.nan
        rows.append((received, topic, message))
    return rows


def test_what_is_there_of_a_message_counts_where_a_part_is_missing(omni, said, tmp_path):
    found = analyse(omni, [mcap(tmp_path / "bag.mcap", lacking(said, "twist"))])
    assert {m.element.term for m in found.measures} == {"position"}
    assert any("not be used as a whole" in n and "velocity is not fin" in n for n in found.notes)
    assert found.findings == []
    neither = mcap(tmp_path / "none.mcap", lacking(said, "twist", "pose"))
    with pytest.raises(UserError, match=r"no sensor of omni is in it: .*position is not finite"):
        analyse(omni, [neither])
