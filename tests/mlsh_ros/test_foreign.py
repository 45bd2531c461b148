"""`mlsh gap` on what other recorders write: any channel, order, compression and name."""

import os
import random
import re
import shutil
import time
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import zstandard
from mcap.reader import make_reader
from mcap.writer import Writer

from mlsh_ros.recording.bag_reader import Recording
from mlsh_ros.recording.replay import replay
from mlsh_ros.sim2real.data.recording_data import Where, load
from mlsh_ros.sim2real.data.target import load_target
from mlsh_ros.sim2real.gap.analysis import analyze, analyze_signals
from mlsh_ros.sim2real.gap.closed_loop_return import ClosedLoopReturn
from mlsh_ros.sim2real.gap.findings import from_causes, from_score
from mlsh_ros.sim2real.gap.gap import NO_GAP
from mlsh_ros.sim2real.gap.hypotheses import Hypothesis
from mlsh_ros.sim2real.replay.residuals import AssumedRobot, Element
from policies.bundle.bundle import load_bundle
from sim.errors import UserError
from sim.interface import fold
from sim.physics.robot_model import robot_folder
from tests.support.foreign_bag import SECOND, commanded, heard, mcap, other_robot, rosbag
from tests.support.gap_robot import Robot, Wrong


@pytest.fixture(scope="module")
def omni():
    return load_target("omni")


@pytest.fixture(scope="module")
def said():
    return commanded(load_bundle("moving_bandits"))


@pytest.fixture(scope="module")
def plain(omni, said, tmp_path_factory):
    return load(mcap(tmp_path_factory.mktemp("plain") / "bag.mcap", said), omni).signals


def same(signals, other):
    """Whether two recordings say the same."""
    assert signals.notes == other.notes
    assert len(signals.sessions) == len(other.sessions)
    for one, two in zip(signals.sessions, other.sessions, strict=True):
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


@pytest.mark.slow
def test_many_long_definitions_take_no_longer_than_two(omni, said, plain, tmp_path):
    """Each takes up to two seconds, and a compressed chunk holds hundreds in a few kB."""

    def extra(writer):
        for number in range(100):
            text = f"# {number}\n" + "".join(f"float64 x{i}\n" for i in range(4000))
            schema = writer.register_schema("nav_msgs/msg/Odometry", "ros2msg", text.encode())
            channel = writer.register_channel("/odom", "cdr", schema)
            writer.add_message(channel, 10**18 + number, b"\0\1\0\0", 10**18 + number)

    commands = [row for row in said if row[1] == "cmd_vel"]
    path = mcap(tmp_path / "bag.mcap", commands, extra=extra)
    began = time.process_time()
    with pytest.raises(UserError, match="odom"):
        analyze(omni, [path])
    assert time.process_time() - began < 15.0  # over 100 s without a limit for all


@pytest.mark.timeout(20)
@pytest.mark.parametrize("folder", [False, True])
def test_a_pipe_is_not_waited_for(omni, tmp_path, folder):
    path = tmp_path / "bag.mcap"
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"bag\.mcap: not a file$"):
        load(tmp_path if folder else path, omni)


def test_a_topic_that_cannot_be_read_says_why(omni, said, tmp_path):
    def extra(writer):
        number = writer.register_channel("/odom", "json", schema_id=0)
        writer.add_message(number, said[0][0], b"{}", said[0][0])

    commands = [row for row in said if row[1] == "cmd_vel"]
    path = mcap(tmp_path / "bag.mcap", commands, extra=extra)
    with pytest.raises(UserError, match="a message of /odom is encoded as 'json', 'cdr' is exp"):
        analyze(omni, [path])


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
    with pytest.raises(UserError, match="neither ticks"):
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
    assert len(alone.sessions) == 1
    (whole / f"bag_1.{end}").unlink()
    with pytest.raises(UserError, match=f"bag_1.{end} is missing, which metadata.yaml names"):
        load(whole, omni)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"#ROSBAG V2.0\n" + bytes(100), "is of ROS 1; `rosbags-convert --src"),
        (zstandard.compress(b"hello" * 100), "not an MCAP file, nor a database"),
        (zstandard.compress(bytes(10**8)), "unpacks to more than 67,108,864 bytes"),
        (b"SQLite format 3\0" + bytes(200), "neither ticks .*truncated"),
        (b"PK\3\4", "not an MCAP file, nor a database"),
    ],
)
def test_what_cannot_be_read_says_what_to_do(omni, tmp_path, content, message):
    path = tmp_path / "bag.bin"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"^[^\n]*{message}[^\n]*$"):
        load(path, omni)


def test_a_robot_that_matches_has_no_gap_by_whoever_recorded_it(omni, said, tmp_path):
    found = analyze(omni, [mcap(tmp_path / "bag.mcap", said)])
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
    found = analyze(omni, [mcap(tmp_path / "bag.mcap", lacking(said, "twist"))])
    assert {m.element.term for m in found.measures} == {"position"}
    assert any("not be used as a whole" in n and "velocity is not fin" in n for n in found.notes)
    assert found.findings == []
    neither = mcap(tmp_path / "none.mcap", lacking(said, "twist", "pose"))
    with pytest.raises(
        UserError, match=r"sensor of robot omni is recorded: .*position is not finite"
    ):
        analyze(omni, [neither])


# Robots that no bundle drives --------------------------------------------------------------------


@pytest.fixture(scope="module")
def patched():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def arm(patched, tmp_path_factory):
    return other_robot("arm", tmp_path_factory.mktemp("arm"), patched)[0]


@pytest.fixture(scope="module")
def moved(arm, patched, tmp_path_factory):
    """20 s of an arm: fields and commands."""
    hidden = other_robot("arm", tmp_path_factory.mktemp("hidden"), patched)[1]
    return list(hidden.drive(20, 3))


def verdict(robot, rows, folder):
    return analyze(robot, [mcap(folder / "bag.mcap", list(heard(robot, rows)))]).verdict


@pytest.mark.parametrize("begin", [0.0, 7.3, 10.0])
def test_a_recording_that_begins_on_the_way_is_no_gap(arm, moved, tmp_path, begin):
    rows = [row for row in moved if row[0] >= moved[0][0] + begin * SECOND]
    assert verdict(arm, rows, tmp_path) == [NO_GAP]


def on_change(rows):
    """Without the commands that say what the one before said."""
    last = None
    for received, said in rows:
        if isinstance(said, dict) or last is None or (said != last).any():
            yield received, said
        last = last if isinstance(said, dict) else said


def test_a_command_is_in_force_until_the_next_one(arm, moved, tmp_path):
    rows = list(on_change(moved))
    assert len(rows) < 0.95 * len(moved)
    assert verdict(arm, rows, tmp_path) == [NO_GAP]
    signals = load(tmp_path / "bag.mcap", arm).signals
    assert [len(drive) for drive in signals.sessions] == [1000]  # 20 s of 20 ms


def test_a_velocity_that_is_told_no_more_ends_a_drive(omni, said, tmp_path):
    """Bases stop by themselves then, sooner or later: nobody knows when."""
    middle = said[0][0] + 2 * SECOND
    silent = [r for r in said if r[1] == "odom" or not middle < r[0] < middle + 1.5 * SECOND]
    drives = load(mcap(tmp_path / "bag.mcap", silent), omni).signals.sessions
    assert len(drives) == 3  # two sessions, the first in two parts
    assert max(np.ptp(drive.given) for drive in drives) < 5.2


def test_nothing_that_moved_is_no_pass(arm, moved, tmp_path):
    still = next(said for _, said in moved if isinstance(said, dict))
    safe = arm.interface.safe_command
    rows = [(t, still if isinstance(said, dict) else safe) for t, said in moved]
    with pytest.raises(UserError, match="did not move: its commands did not change"):
        verdict(arm, rows, tmp_path)


def test_what_did_not_move_beside_others_is_named(omni, said, tmp_path):
    """Driving straight along x says nothing of y, not even its sign."""
    rows = []
    for received, topic, message in said:
        message = deepcopy(message)
        twist = message.twist if topic == "cmd_vel" else message.twist.twist
        twist.linear.y = 0.0
        if topic == "odom":
            message.pose.pose.position.y = 0.0
        rows.append((received, topic, message))
    found = analyze(omni, [mcap(tmp_path / "bag.mcap", rows)])
    assert found.notes == ["not compared, because it did not move: position.y, velocity.y"]
    assert found.verdict == [f"{NO_GAP} in what could be compared"]


@pytest.fixture(scope="module")
def wheel(patched, tmp_path_factory):
    """A robot with a hinge that turns without end, its rows, and the same wrapped."""
    robot, hidden = other_robot("wheel", tmp_path_factory.mktemp("wheel"), patched)
    rows = list(hidden.drive(20, 3))

    def wrapped(said):
        if not isinstance(said, dict):
            return said
        return {k: fold(v) if k == "joint_position" else v for k, v in said.items()}

    return robot, rows, [(t, wrapped(said)) for t, said in rows]


def test_an_encoder_that_wraps_is_named_so_and_is_no_wrong_sign(wheel, tmp_path):
    robot, plain, wrapped = wheel
    assert verdict(robot, plain, tmp_path) == [NO_GAP]
    (line,) = verdict(robot, wrapped, tmp_path)
    assert re.match(r"joint_position wraps at 3\.1\d rad, as it did", line)
    said_so = tuple(
        replace(term, wraps=True) if term.name == "joint_position" else term
        for term in robot.interface.observation
    )
    declared = replace(robot, interface=replace(robot.interface, observation=said_so))
    assert verdict(declared, wrapped, tmp_path) == [NO_GAP]


@pytest.mark.slow
def test_what_wraps_is_identified_as_what_counts(wheel, tmp_path):
    pytest.importorskip("scipy")
    from mlsh_ros.sim2real.sysid.identify import identify

    robot, plain, wrapped = wheel
    found = []
    for name, rows in (("plain", plain), ("wrapped", wrapped)):
        path = mcap(tmp_path / f"{name}.mcap", list(heard(robot, rows)))
        signals = load(path, robot).signals
        found.append(identify(robot, [signals], parameters=["turn.delay_s", "damping_factor"]))
    one, two = ({n.unknown.name: n.value for n in each.numbers} for each in found)
    assert two == pytest.approx(one, rel=1e-6)
    assert any("wraps at" in note for note in found[1].notes)


# What is of the model alone ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def fine(tmp_path_factory):
    """Omni in steps of 2 ms; its own has 20."""
    source = robot_folder("omni")
    folder = tmp_path_factory.mktemp("fine") / "omni"
    shutil.copytree(source, folder)
    for name, old, new in (
        ("robot.yaml", "physics_dt: 0.02 ", "physics_dt: 0.002 "),
        ("model.xml", 'timestep="0.02"', 'timestep="0.002"'),
    ):
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))
    return str(folder)


@pytest.mark.slow
def test_another_physics_step_is_no_gap(fine, tmp_path):
    """Neither of the robot that was recorded, nor of the one that it is held against."""
    bundle = load_bundle("moving_bandits")
    bag = Robot(bundle, seed=1, robot=fine).drive("goal-0", sessions=3).bag(tmp_path / "bag")
    assert analyze(bundle, [bag]).verdict == [NO_GAP]
    assert analyze(bundle, [bag], robot=fine).verdict == [NO_GAP]
    own = Robot(bundle, seed=1).drive("goal-0", sessions=3).bag(tmp_path / "own")
    assert analyze(bundle, [own], robot=fine).verdict == [NO_GAP]


@pytest.mark.slow
@pytest.mark.parametrize("own", [True, False])
def test_a_fault_chooses_no_physics_step(fine, own):
    """Of the model's own steps, or shorter ones, those remain in which the robot was simulated."""
    bundle = load_bundle("moving_bandits")
    robot = Robot(bundle, Wrong(actuation_delay=0.02), seed=1, robot=None if own else fine)
    gap = analyze_signals(bundle, [robot.drive("goal-0", sessions=3).signals()], [])
    assert [cause.kind for cause in gap.causes] == ["delay"]
    assert gap.causes[0].value == pytest.approx(0.02, abs=5e-4)
    assert max(m.nrmse for m in gap.explained if m.element.moves) < (0.002 if own else 0.01)


def test_another_robot_in_its_place_is_refused_in_one_line(tmp_path):
    bundle = load_bundle("moving_bandits")
    bag = Robot(bundle, seed=1).drive("goal-0", sessions=1).bag(tmp_path / "bag")
    with pytest.raises(UserError, match=r"^[^\n]*(no joint|no actuator|no sensor)[^\n]*$"):
        analyze(bundle, [bag], robot="rover")


def test_goals_are_no_sensor_of_the_robot(tmp_path):
    """A perception node says them now and then, a little off by rounding."""
    bundle = load_bundle("moving_bandits")
    robot = Robot(bundle, seed=1).drive("goal-0", sessions=2)
    rng, count, rows = np.random.default_rng(0), 0, []
    for received, topic, message in robot.messages():
        if topic == "goals":
            count += 1
            if count % 40 != 1:
                continue
            message = deepcopy(message)
            for pose in message.poses:
                pose.position.x = float(np.float32(pose.position.x + rng.normal(0, 1e-7)))
        rows.append((received, topic, message))
    found = analyze(bundle, [robot.bag(tmp_path / "bag", rows)])
    told = [f for f in found.findings if any("goals" in each for each in f.where)]
    assert told == []
    assert not any("goals" in m.element.name for m in found.measures)


def element(**changed):
    plain = {
        "name": "velocity.z", "term": "velocity", "index": 2, "topic": "odom", "unit": "m/s",
        "noise": 0.0, "scale": 1e-13, "recorded": 1e-7, "rounding": 2e-6, "beside": 0.01,
        "remembers": False, "angle": False, "quaternion": False,
    }  # fmt: skip
    return Element(**{**plain, **changed})


def test_rounding_is_no_percentage():
    """The movement of what stands is rounding, and everything is a lot of that."""
    e = element()
    assert e.still
    assert not e.moves
    assert e.size == 0.01
    assert e.floor >= 2e-6
    assert element(scale=0.5, rounding=0.0).size == 0.5


def cause(kind, where, value, whole=False):
    return Hypothesis(kind, where, value, 100.0, whole, 0.5, AssumedRobot())


def test_no_line_denies_another():
    """What is found twice is one line; what takes itself back is none."""
    xy = ("position.x", "position.y")
    lines = from_causes(
        [
            cause("mass", (), 2.5),
            cause("lag", xy, 0.016),
            cause("mass", (), 1.3),
            cause("lag", xy, -0.0155),
            cause("lag", ("odom",), 0.02, whole=True),
            cause("lag", ("velocity.x",), 0.01),
        ],
        {},
    )
    texts = [line.text for line in lines]
    assert texts[0] == "the robot moves as if it had 1.30 times its mass (or weaker servos)"
    assert texts[1] == "odom lags 20 ms, the other topics do not"
    assert texts[2] == "velocity.x lags 10 ms, the rest of the topic does not"
    assert len(texts) == 3


def test_a_return_names_causes_only_where_there_are_some():
    line = ClosedLoopReturn(
        "moving_bandits/goal-0", "goal-0", 49, np.array([1.0, 1.1]), np.array([9.0, 9.2]),
        np.array([True, True]), np.array([True, True]), np.zeros((1, 8), np.float32),
        np.zeros((1, 2), np.float32),
    )  # fmt: skip
    (alone,) = from_score([line], [])
    assert alone.advice == "this is what the gap costs; no cause was found"
    (below,) = from_score([line], from_causes([cause("sign", ("velocity.y",), -1.0)], {}))
    assert below.advice == "this is what the gap costs; the causes are listed above"


# What is written --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_sim_params_that_predicts_worse_is_not_written(
    arm, moved, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("scipy")
    from mlsh_ros.cli.sysid import sysid
    from mlsh_ros.sim2real.sysid import identify as module

    path = mcap(tmp_path / "bag.mcap", list(heard(arm, moved[:3000])))
    robot, output = str(arm.model_path.parent), tmp_path / "sim_params.yaml"
    plain = module._validate
    for after in (0.02, float("nan")):  # beyond what the nominal model is taken to be good for
        monkeypatch.setattr(module, "_validate", lambda *args, a=after: (plain(*args)[0], 0.01, a))
        with pytest.raises(
            UserError, match=r"predicts worse than the nominal model: RMSE 0\.01 b"
        ):
            sysid(robot, [path], output=output, parameters=["lift.delay_s"])
        assert not output.exists()
    assert "lift.delay_s" in capsys.readouterr().out


def test_files_of_the_user_are_kept(said, tmp_path):
    from mlsh_ros.cli.gap import gap

    bag, output = mcap(tmp_path / "bag.mcap", said), tmp_path / "reports"
    assert gap("omni", [bag], output=output) == 0
    first = (output / "gap.json").read_bytes()
    with pytest.raises(UserError, match=r"gap\.json exists; .*--overwrite"):
        gap("omni", [bag], output=output)
    assert gap("omni", [bag], output=output, overwrite=True) == 0
    assert (output / "gap.json").read_bytes() == first
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (output / "gap.html").unlink()
    (output / "gap.html").symlink_to(precious)
    for overwrite in (False, True):
        with pytest.raises(UserError, match=r"gap\.(html|json)"):
            gap("omni", [bag], output=output, overwrite=overwrite)
    assert precious.read_text() == "mine"
    assert sorted(each.name for each in output.iterdir()) == ["gap.html", "gap.json"]


@pytest.mark.parametrize("topic", ["skill_node/trace", "master_node/master", "odom"])
def test_a_topic_of_ours_with_messages_of_another_type_is_refused(tmp_path, topic):
    bundle = load_bundle("moving_bandits")
    own = Robot(bundle, seed=1).drive("goal-0", sessions=1, ticks=30).bag(tmp_path / "bag")
    path = tmp_path / "other.mcap"
    with next(own.glob("*.mcap")).open("rb") as source, path.open("wb") as stream:
        reader, writer, numbers = make_reader(source), Writer(stream), {}
        writer.start(profile="ros2", library="")
        for each in reader.iter_attachments():
            writer.add_attachment(1, 1, each.name, each.media_type, each.data)
        for about in reader.iter_metadata():
            writer.add_metadata(about.name, dict(about.metadata))
        for schema, channel, message in reader.iter_messages(log_time_order=False):
            if channel.id not in numbers:
                other = channel.metadata["mlsh_topic"] == topic
                text = b"uint8 a\n" if other else schema.data
                number = writer.register_schema(schema.name, "ros2msg", text)
                numbers[channel.id] = writer.register_channel(
                    channel.topic, "cdr", number, dict(channel.metadata)
                )
            writer.add_message(numbers[channel.id], message.log_time, message.data, 0)
        writer.finish()
    said = []
    for read in (lambda: replay(Recording(path), bundle).unread, lambda: load(path, bundle)):
        try:
            found = read()
            said.append(str(found if isinstance(found, list) else found.signals.notes))
        except UserError as error:
            said.append(str(error))
    assert [topic in each for each in said] == [True, True], said
