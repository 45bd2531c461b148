"""Recordings: what recorder_node writes, who can read it, and what `mlsh replay` says of it."""

import json
import os
import posixpath
import random
import re
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from mcap.reader import make_reader
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Nodetype
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from mlsh_ros.bringup.graphs import GRAPHS, SIM
from mlsh_ros.control.controller import Controller
from mlsh_ros.messages.conversion import command_writers, topic_readers
from mlsh_ros.messages.labeled_array import (
    OUTCOME,
    Layout,
    applied_layout,
    request_layout,
    response_layout,
    trace_layout,
)
from mlsh_ros.messages.topics import (
    APPLIED_COMMAND,
    DIAGNOSTICS,
    FORMER_NAMES,
    MASTER,
    REQUEST,
    RESPONSE,
    STATE,
    TRACE,
    WATCHDOG_STATE,
    recorded_topics,
)
from mlsh_ros.messages.topics import OUTCOME as OUTCOME_TOPIC
from mlsh_ros.recording.bag_reader import Recording
from mlsh_ros.recording.bag_writer import LOST, Recorder
from mlsh_ros.recording.completeness import Completeness
from mlsh_ros.recording.output_folder import NEEDED, check_place
from mlsh_ros.recording.replay import replay
from mlsh_ros.recording.schemas import Schemas
from mlsh_ros.sim2real.data.recorded_episodes import read_episodes
from mlsh_ros.sim2real.data.recording_data import load
from policies.bundle.bundle import load_bundle, write_bundle
from policies.bundle.golden import golden_bytes
from policies.bundle.manifest import MANIFEST
from policies.bundle.runtime import choose, load_master, load_skills
from sim.errors import UserError
from sim.tasks.task_id import TaskId
from tests.support.bundles import fresh_domain, remembering_robot, restless_bundle
from tests.support.cli import run_mlsh

TREE = Path(__file__).parents[2]
STORE = get_typestore(Stores.ROS2_JAZZY)
TICKS, N, LEAD = 23, 5, 1  # of a session here; of the restless bundle
START_UP = 40.0  # s


# A recording without ROS -----------------------------------------------------------------------


def blank(name):
    """A message of rosbags with nothing in it."""
    values = {}
    for field, (kind, arg) in STORE.fielddefs[name][1]:
        if kind == Nodetype.BASE:
            values[field] = "" if arg[0] == "string" else 0
        elif kind == Nodetype.NAME:
            values[field] = blank(arg)
        elif kind == Nodetype.ARRAY:
            values[field] = np.zeros(arg[1])
        else:
            values[field] = []
    return STORE.types[name](**values)


def array(layout, *values, vectors=()):
    message = blank("std_msgs/msg/Float64MultiArray")
    dim = blank("std_msgs/msg/MultiArrayDimension")
    dim.label, dim.size = layout.label, layout.size
    message.layout.dim = [dim]
    message.data = np.array(layout.pack(*values, vectors=vectors))
    return message


def text(value):
    message = blank("std_msgs/msg/String")
    message.data = value
    return message


def put(message, path, value):
    *parents, (last, _) = path
    for name, index in parents:
        message = getattr(message, name)
        if index is not None:
            while len(message) <= int(index):
                message.append(blank("geometry_msgs/msg/Pose"))
            message = message[int(index)]
    setattr(message, last, value)


def sensor(reader, fields, stamp):
    message = blank(reader.type)
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
    for term, paths in reader.terms:
        for path, value in zip(paths, fields[term.name].tolist(), strict=True):
            put(message, path, value)
    return message


def drive(bundle, sessions=2, first=1, master="goal-0", swap=None, unanswered=()):
    """(relative topic, message) as the nodes say them in lockstep, with random sensors.

    In the first session another bundle is set before a tick (`swap`), or the master is silent at
    some macro steps (`unanswered`).
    """
    interface, manifest = bundle.interface, bundle.manifest
    requests = request_layout(interface.observation_names)
    answers = response_layout(manifest.skills)
    traces = trace_layout(interface.observation_names, interface.action_names)
    network = load_master(bundle, master)
    controller = Controller(
        interface,
        load_skills(bundle),
        manifest.decision_ticks,
        manifest.decision_lead,
        bundle.fingerprint,
    )
    said, moment, rng = [(MASTER, text(master)), (STATE, text("ready"))], 0, None
    rng = np.random.default_rng(5)
    for session in range(first, first + sessions):
        controller.reset()
        said.append((STATE, text("running")))
        for t in range(TICKS):
            moment += 10**8
            if swap is not None and (session, t) == (first, swap[0]):
                controller.swap(load_skills(swap[1]), swap[1].fingerprint)
            fields = {term.name: rng.normal(size=term.size) for term in interface.observation}
            for reader in topic_readers(interface.observation):
                said.append((reader.topic, sensor(reader, fields, moment)))
            request = controller.observe(fields)
            if request is not None:
                seen, key = request.observation, (session, request.macro, t)
                said.append((REQUEST, array(requests, *key, request.bundle, vectors=(seen,))))
                if session > first or request.macro not in unanswered:
                    logits = network(seen[None])[0]
                    controller.schedule.set_decision(request.macro, choose(logits))
                    answer = array(answers, *key, choose(logits), vectors=(logits,))
                    said.append((RESPONSE, answer))
            tick = controller.act()
            vectors = (tick.observation, tick.action, tick.command)
            scalars = (session, t, tick.skill, tick.late, 0, tick.saturated, 0.0, 0.0)
            said.append((TRACE, array(traces, *scalars, vectors=vectors)))
            for writer in command_writers(interface.action):
                message = blank(writer.type)
                for index, path in writer.elements:
                    put(message, path, float(tick.command[index]))
                said.append((writer.topic, message))
            said.append((OUTCOME_TOPIC, array(OUTCOME, session, t, 0.0, 0, 0)))
        said.append((STATE, text("ready")))
        said.append((DIAGNOSTICS, blank("diagnostic_msgs/msg/DiagnosticArray")))
    return said


def open_recorder(bundle, folder, mode="lockstep"):
    topics = recorded_topics(bundle.interface, stamped=True, lockstep=mode == "lockstep")
    manifest = bundle.manifest
    about = {"bundle": manifest.name, "digest": manifest.digest, "mode": mode}
    # Remapped: a reader goes by the relative name.
    names = [(posixpath.join("/bot1", topic.name), topic) for topic in topics]
    return Recorder(folder, names, about, bundle.files[MANIFEST])


def write(bundle, folder, said, mode="lockstep", start=0, close=True, recorder=None):
    recorder = recorder or open_recorder(bundle, folder, mode)
    kinds = {
        t.name: t.type
        for t in recorded_topics(bundle.interface, stamped=True, lockstep=mode == "lockstep")
    }
    for i, (topic, message) in enumerate(said):
        data = bytes(STORE.serialize_cdr(message, kinds[topic]))
        recorder.write(topic, data, received=10**18 + (start + i) * 10**7)
    if close:
        recorder.close()
    return recorder


@pytest.fixture(scope="module")
def said(bundle):
    return drive(bundle)


@pytest.fixture(scope="module")
def folder(bundle, said, tmp_path_factory):
    """A recording of two sessions that nobody changes."""
    folder = tmp_path_factory.mktemp("recording") / "bag"
    write(bundle, folder, said)
    return folder


def changed(said, topic, index, change):
    """The same, with the index-th message of a topic changed; None takes it out."""
    result, count = [], 0
    for name, message in said:
        if name == topic:
            count += 1
            if count == index + 1:
                if change is None:
                    continue
                data = message.data.copy()
                change(data)
                message = replace(message, data=data)
        result.append((name, message))
    return result


# The file --------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["folder", "file"])
def test_another_reader_finds_every_message_in_it(bundle, said, folder, which):
    path = folder if which == "folder" else folder / "bag_0.mcap"
    with Reader(path) as reader:
        assert reader.message_count == len(said)
    with AnyReader([folder]) as reader:
        found = [(c.topic, reader.deserialize(d, c.msgtype)) for c, _, d in reader.messages()]
    assert [topic for topic, _ in found] == [posixpath.join("/bot1", topic) for topic, _ in said]
    for (_, read), (topic, message) in zip(found, said, strict=True):
        if topic == TRACE:
            np.testing.assert_array_equal(read.data, message.data)
            assert read.layout.dim[0].label == message.layout.dim[0].label
        elif topic in (STATE, MASTER):
            assert read.data == message.data


def test_metadata_is_what_rosbag2_expects(folder, said):
    import yaml

    # PyYAML and rosbags both read it; no references, which not every reader follows.
    content = (folder / "metadata.yaml").read_text()
    assert "&id" not in content
    data = yaml.safe_load(content)["rosbag2_bagfile_information"]
    assert (data["version"], data["storage_identifier"]) == (9, "mcap")
    assert data["message_count"] == len(said)
    assert data["relative_file_paths"] == ["bag_0.mcap"]
    topics = {
        t["topic_metadata"]["name"]: t["topic_metadata"] for t in data["topics_with_message_count"]
    }
    (state,) = topics["/bot1/skill_node/state"]["offered_qos_profiles"]
    assert (state["durability"], state["reliability"]) == ("transient_local", "reliable")
    assert topics["/bot1/watchdog_node/state"]["offered_qos_profiles"] == [state]
    # One for all robots, and nobody hears it a second time.
    (diagnostics,) = topics["/diagnostics"]["offered_qos_profiles"]
    assert (diagnostics["durability"], diagnostics["reliability"]) == ("volatile", "reliable")
    for topic in topics.values():
        assert topic["type_description_hash"].startswith("RIHS01_")


def test_the_manifest_stands_in_it(bundle, folder):
    recording = Recording(folder)
    assert recording.manifest == json.loads(bundle.files[MANIFEST])
    assert recording.about["digest"] == bundle.manifest.digest
    list(recording.entries())
    assert recording.cut == ""


def test_the_silence_of_what_a_graph_may_be_without_is_no_news(bundle, said, tmp_path):
    silent = write(bundle, tmp_path / "bag", said[:1]).silent
    assert {"/bot1/odom", "/bot1/skill_node/trace", "/diagnostics"} <= set(silent)
    assert not {"/bot1/watchdog_node/state", "/bot1/sim_node/outcome"} & set(silent)
    assert write(bundle, tmp_path / "whole", said).silent == []


def test_nothing_is_ever_written_over(bundle, folder):
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(
        UserError, match=r"record_dir .*bag: is not empty, and nothing is ever wri"
    ):
        open_recorder(bundle, folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_two_recorders_that_look_at_once_do_not_share_a_file(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr("mlsh_ros.recording.bag_writer.check_place", lambda folder: None)
    open_recorder(bundle, tmp_path / "bag").close()
    with pytest.raises(UserError, match=r"record_dir .*bag: File exists"):
        open_recorder(bundle, tmp_path / "bag")


def test_a_place_that_cannot_be_written_is_refused_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for path, reason in (
        (tmp_path / "file", "is not a folder"),
        (tmp_path / "file" / "bag", "file is not a folder"),
    ):
        with pytest.raises(UserError, match=reason) as caught:
            check_place(path)
        assert "\n" not in str(caught.value)
    check_place(tmp_path / "not" / "yet" / "there")
    with monkeypatch.context() as patch:
        patch.setattr("os.access", lambda *_: False)
        with pytest.raises(UserError, match=f"{tmp_path} is not writable"):
            check_place(tmp_path / "bag")
    with monkeypatch.context() as patch:
        from types import SimpleNamespace

        patch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=NEEDED - 1))
        with pytest.raises(UserError, match="64 MB are free on its disk, 64 are needed"):
            check_place(tmp_path / "bag")
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda _: None)
        with pytest.raises(UserError, match=r"mcap is not installed; .*mlsh_ros\[record\]"):
            check_place(tmp_path / "bag")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=list(GRAPHS))
def test_a_bad_place_is_refused_before_a_node_is_started(graph, folder):
    given = {"record": "true", "record_dir": str(folder)}
    with pytest.raises(UserError, match="is not empty"):
        graph.parameters(graph.resolve(given))
    graph.parameters(graph.resolve(given | {"record": "false"}))


@contextmanager
def disk_of(size):
    """Files may not grow beyond `size` bytes; Python has writes fail then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_ends_the_recording_once_and_by_name(bundle, said, tmp_path):
    recorder = write(bundle, tmp_path / "bag", said[:100], close=False)
    recorder.flush()
    with disk_of(recorder.file.stat().st_size + 100):
        recorder.write(STATE, random.randbytes(5000), received=10**18)
        with pytest.raises(UserError, match=r"bag_0\.mcap: File too large; it ends after 101 "):
            recorder.flush()
        recorder.flush()
        recorder.write(STATE, b"", received=10**18)
        recorder.close()
    assert "File too large" in recorder.fault
    recording = Recording(tmp_path / "bag")
    assert len(list(recording.entries())) == 100


def test_a_disk_that_is_full_at_once_is_one_line(bundle, tmp_path):
    with disk_of(1000), pytest.raises(UserError, match=r"record_dir .*bag: File too large"):
        open_recorder(bundle, tmp_path / "bag")


def test_messages_of_a_robots_own_package_are_found_where_ros_installs_them(tmp_path, monkeypatch):
    folder = tmp_path / "share" / "my_msgs" / "msg"
    folder.mkdir(parents=True)
    (folder / "Thing.msg").write_text("std_msgs/Header header\nPart[] parts\nfloat64[3] x\n")
    (folder / "Part.msg").write_text("string name\nfloat32 weight\n")
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/nowhere:{tmp_path}")
    schemas = Schemas(["my_msgs/msg/Thing", "nav_msgs/msg/Odometry"])
    found = schemas.text("my_msgs/msg/Thing")
    assert "MSG: my_msgs/Part" in found
    assert "MSG: std_msgs/Header" in found
    assert schemas.digest("my_msgs/msg/Thing").startswith("RIHS01_")
    with pytest.raises(UserError, match="ROS message 'my_msgs/msg/Other' is not known: no share/"):
        Schemas(["my_msgs/msg/Other"])


def test_topics_have_the_names_that_the_nodes_use(bundle):
    pytest.importorskip("rclpy")
    from mlsh_ros.nodes.master_node import REQUEST_TOPIC, RESPONSE_TOPIC
    from mlsh_ros.nodes.watchdog_node import WATCHDOG

    assert (REQUEST, RESPONSE) == (REQUEST_TOPIC, RESPONSE_TOPIC)
    assert f"{WATCHDOG}/state" == WATCHDOG_STATE
    for lockstep in (False, True):
        topics = {
            t.name: t for t in recorded_topics(bundle.interface, stamped=True, lockstep=lockstep)
        }
        # Who publishes a command waits for reliable listeners when it ends.
        assert {topics[n].reliable for n in ("odom", "goals", "cmd_vel")} == {lockstep}
        assert topics[TRACE].reliable
        assert topics[STATE].latched
        assert topics[WATCHDOG_STATE].latched
        # Who is heard on one of the last knows of all before it: nothing of a tick comes later.
        order = list(topics)
        heard_first = min(order.index(name) for name in ("odom", "goals", STATE, MASTER))
        for name in (REQUEST, RESPONSE, TRACE, OUTCOME_TOPIC, "cmd_vel"):
            assert order.index(name) < heard_first


def test_the_layout_for_foxglove_shows_what_its_labels_say(bundle):
    interface = bundle.interface
    names = {
        "/skill_node/trace": trace_layout(interface.observation_names, interface.action_names),
        "/decision/response": response_layout(bundle.manifest.skills),
    }
    topics = {
        posixpath.join("/", t.name)
        for t in recorded_topics(interface, stamped=True, lockstep=False)
    }
    layout = json.loads((TREE / "config" / "foxglove.json").read_text())
    shown, listened = set(), set()
    for panel in layout["configById"].values():
        if "topicPath" in panel or "topicToRender" in panel:
            whole = panel.get("topicPath") or panel["topicToRender"]
            listened.add(whole.partition(".")[0])
        for path in panel.get("paths", []):
            listened.add(path["value"].partition(".")[0])
            topic, _, rest = path["value"].partition(".data[")
            if topic in names:
                name = names[topic].names[int(rest.rstrip("]"))]
                what = path["label"].replace("decided ", "")
                what = what.replace("skill 0", "logits.skill-0").replace(
                    "skill 1", "logits.skill-1"
                )
                assert name == what, path
                shown.add(name)
    assert {"skill", "lateness", "compute", "late"} <= shown
    assert listened <= topics
    assert {"/skill_node/state", "/watchdog_node/state", "/diagnostics"} <= listened

    def leaves(node):
        return {node} if isinstance(node, str) else leaves(node["first"]) | leaves(node["second"])

    assert leaves(layout["layout"]) == set(layout["configById"])


# Replay ----------------------------------------------------------------------------------------


def test_with_the_bundle_that_ran_everything_is_equal(bundle, folder):
    for path in (folder, folder / "bag_0.mcap"):
        result = replay(Recording(path), bundle)
        assert result.equal
        assert result.whole
        assert (result.sessions, result.ticks, result.decisions) == (2, 2 * TICKS, 10)
        assert result.unseen == result.unjudged == result.missing == result.unread == []


def swapped(bundle, path):
    """The same bundle with its skills exchanged."""
    files = {k: v for k, v in bundle.files.items() if k != MANIFEST}
    files["skills/0.onnx"], files["skills/1.onnx"] = bundle.skills[1], bundle.skills[0]
    golden = replace(bundle.golden, action=bundle.golden.action[::-1])
    files["golden.npz"] = golden_bytes(golden)
    return write_bundle(bundle.manifest, files, path)


def test_an_altered_bundle_gives_a_named_first_difference(bundle, folder, tmp_path):
    result = replay(Recording(folder), swapped(bundle, tmp_path / "other"))
    assert not result.equal
    assert (result.different_ticks, result.different_decisions) == (2 * TICKS, 0)
    first = result.first_tick
    assert (first.session, first.tick, first.what) == (1, 0, "action base_velocity.0")
    assert str(first).startswith("session 1 tick 0: action base_velocity.0 recorded ")
    assert first.recorded != first.replayed


def test_another_master_gives_a_named_first_decision(bundle, folder):
    result = replay(Recording(folder), bundle, master="goal-1")
    assert result.first_tick is None
    assert str(result.first_decision).startswith("session 1 tick 0: decision 0: logit skill-0 rec")
    with pytest.raises(UserError, match="no master 'nobody'"):
        replay(Recording(folder), bundle, master="nobody")


def set_to(index, value):
    def change(data):
        data[index] = value

    return change


# The trace: 8 scalars, 8 observations, 2 actions, 2 commands.
@pytest.mark.parametrize(
    ("topic", "index", "element", "value", "expected"),
    [
        (TRACE, 7, 16, 0.25, "session 1 tick 7: action base_velocity.0 recorded 0.25, replayed "),
        (TRACE, 7, 19, 0.25, "session 1 tick 7: command base_velocity.1 recorded 0.25, replayed "),
        (
            TRACE,
            TICKS + 3,
            2,
            9,
            "session 2 tick 3: skill recorded 9, replayed no such skill, 0 to 1",
        ),
        (
            RESPONSE,
            2,
            4,
            0.5,
            "session 1 tick 9: decision 2: logit skill-0 recorded 0.5, replayed ",
        ),
    ],
)
def test_one_changed_number_is_found(
    bundle, said, tmp_path, topic, index, element, value, expected
):
    write(bundle, tmp_path / "bag", changed(said, topic, index, set_to(element, value)))
    result = replay(Recording(tmp_path / "bag"), bundle)
    first = result.first_tick or result.first_decision
    assert str(first).startswith(expected)
    # Each is compared with what was recorded before it: one error stays one error, but for a
    # command or skill, which the tick after it rests on.
    assert result.different_ticks + result.different_decisions <= 2


@pytest.fixture(scope="module")
def remembering(tmp_path_factory):
    folder = tmp_path_factory.mktemp("remembering")
    return restless_bundle(folder / "bundle", robot=remembering_robot(folder / "robot"))


def test_what_an_observation_remembers_is_made_again_from_the_ticks_before(remembering, tmp_path):
    said = drive(remembering)
    write(remembering, tmp_path / "bag", said)
    result = replay(Recording(tmp_path / "bag"), remembering)
    assert (result.equal, result.whole, result.ticks) == (True, True, 2 * TICKS)


@pytest.mark.parametrize("element", ["last.1", "wanted.0", "past.5"])
def test_a_memory_that_does_not_follow_from_the_ticks_before_is_found(
    remembering, tmp_path, element
):
    names = remembering.interface.observation_names
    traces = trace_layout(names, remembering.interface.action_names)
    place = len(traces.scalars) + names.index(element)

    def change(data):
        data[place] += 0.125

    said = changed(drive(remembering, sessions=1), TRACE, 7, change)
    write(remembering, tmp_path / "bag", said)
    result = replay(Recording(tmp_path / "bag"), remembering)
    assert re.match(rf"session 1 tick 7: observation {element} recorded", str(result.first_tick))


def test_what_depends_on_missing_ticks_is_not_judged(remembering, tmp_path):
    said = changed(drive(remembering, sessions=1), TRACE, 7, None)
    write(remembering, tmp_path / "bag", said)
    result = replay(Recording(tmp_path / "bag"), remembering)
    # The history reaches back three ticks.
    unknown = [text for text in result.unjudged if text.endswith("earlier ticks")]
    assert unknown == [f"session 1 tick {t}: earlier ticks" for t in (8, 9, 10)]
    assert result.equal


def test_a_recording_with_a_former_topic_name_is_read(bundle, said, tmp_path, monkeypatch):
    (old,) = FORMER_NAMES
    topics = recorded_topics(bundle.interface, stamped=True, lockstep=True)
    former = [replace(t, name=old) if t.name == RESPONSE else t for t in topics]
    with monkeypatch.context() as patch:
        patch.setattr(f"{__name__}.recorded_topics", lambda *_, **__: former)
        renamed = [(old if name == RESPONSE else name, message) for name, message in said]
        write(bundle, tmp_path / "bag", renamed)
    with Reader(tmp_path / "bag") as reader:
        names = {c.topic for c in reader.connections}
    assert f"/bot1/{old}" in names
    assert f"/bot1/{RESPONSE}" not in names
    result = replay(Recording(tmp_path / "bag"), bundle)
    assert result.equal
    assert result.whole
    assert result.decisions == sum(name == RESPONSE for name, _ in said)
    # As `gap` and `sysid` read it.
    replayed = load(tmp_path / "bag", bundle).replayed
    assert replayed is not None
    assert replayed.decisions == result.decisions


def test_a_drawn_skill_is_a_difference_unless_one_says_that_it_was_drawn(bundle, said, tmp_path):
    def other(data):
        data[3] = 1 - data[3]

    write(bundle, tmp_path / "bag", changed(said, RESPONSE, 4, other))
    result = replay(Recording(tmp_path / "bag"), bundle)
    assert "session 1 tick 19: decision 4: skill recorded" in str(result.first_decision)
    assert "session 1 tick 20: skill recorded" in str(result.first_tick)
    assert replay(Recording(tmp_path / "bag"), bundle, stochastic=True).first_decision is None


@pytest.mark.parametrize("topic", ["odom", "goals"])
def test_a_tick_that_no_recorded_sensors_explain_is_named(bundle, said, tmp_path, topic):
    write(bundle, tmp_path / "bag", changed(said, topic, 3, None))
    result = replay(Recording(tmp_path / "bag"), bundle)
    assert result.unseen == ["session 1 tick 3"]
    assert result.equal


def test_in_lockstep_sensors_of_different_moments_explain_nothing(bundle, said, tmp_path):
    later = []
    for topic, message in said:
        if topic == "goals":
            stamp = replace(message.header.stamp, nanosec=message.header.stamp.nanosec + 1)
            message = replace(message, header=replace(message.header, stamp=stamp))
        later.append((topic, message))
    write(bundle, tmp_path / "lockstep", later)
    assert len(replay(Recording(tmp_path / "lockstep"), bundle).unseen) == 2 * TICKS
    write(bundle, tmp_path / "realtime", later, mode="realtime")
    assert replay(Recording(tmp_path / "realtime"), bundle).unseen == []


def test_in_realtime_an_old_message_explains_nothing(bundle, said, tmp_path):
    sensors = [m for m in said if m[0] in ("odom", "goals")]
    rest = [m for m in said if m[0] not in ("odom", "goals")]
    # 92 sensor messages, a gap of 2 s, and then the ticks: 0.3 s is the highest age of odom.
    recorder = write(bundle, tmp_path / "bag", sensors, mode="realtime", close=False)
    kinds = {
        t.name: t.type for t in recorded_topics(bundle.interface, stamped=True, lockstep=False)
    }
    for i, (topic, message) in enumerate(rest):
        data = bytes(STORE.serialize_cdr(message, kinds[topic]))
        recorder.write(topic, data, received=10**18 + (len(sensors) + i) * 10**7 + 2 * 10**9)
    recorder.close()
    assert len(replay(Recording(tmp_path / "bag"), bundle).unseen) == 2 * TICKS


def test_a_session_that_may_have_begun_anywhere_is_not_judged_there(bundle, folder, monkeypatch):
    monkeypatch.setattr("mlsh_ros.recording.observation_check.MOST_STARTS", 0)
    result = replay(Recording(folder), bundle)
    text = "tick 0: command (it may have begun from more than 10,000 measured states)"
    assert result.unjudged == [f"session {number} {text}" for number in (1, 2)]
    assert result.equal
    assert not result.whole


def test_a_recording_that_begins_late_is_compared_from_there(bundle, said, tmp_path):
    cut = [i for i, (topic, _) in enumerate(said) if topic == TRACE][2] + 1
    write(bundle, tmp_path / "bag", [said[0], *said[cut:]])
    result = replay(Recording(tmp_path / "bag"), bundle)
    assert result.equal
    assert result.ticks == 2 * TICKS - 3
    assert result.unjudged == ["session 1 tick 3: skill", "session 1 tick 3: command"]
    assert result.missing == ["session 1 tick 0 to 2"]
    assert not result.whole


def test_ticks_that_are_missing_are_named(bundle, said, tmp_path):
    for index in (TICKS + 9, 6, 4, 3):  # a change shifts those after it
        said = changed(said, TRACE, index, None)
    write(bundle, tmp_path / "bag", said)
    result = replay(Recording(tmp_path / "bag"), bundle)
    assert result.missing == ["session 1 tick 3 to 4", "session 1 tick 6", "session 2 tick 9"]
    assert result.equal
    assert not result.whole
    assert result.ticks == 2 * TICKS - 4


def test_ticks_that_are_missing_at_the_end_are_named(bundle, said, tmp_path):
    """Who asks at a tick has made all those before it."""
    last = max(i for i, (topic, _) in enumerate(said) if topic == REQUEST)
    tail = [m for m in said[: last + 1] if m[0] != TRACE or m[1].data[0] == 1 or m[1].data[1] < 3]
    asked = int(said[last][1].data[2])
    write(bundle, tmp_path / "bag", tail)
    result = replay(Recording(tmp_path / "bag"), bundle)
    assert result.missing == [f"session 2 tick 3 to {asked - 1}"]
    assert not result.whole


def without(said, topic, gone):
    """The same, without the messages of a topic for whose numbers (an array) `gone` is true."""
    return [m for m in said if m[0] != topic or not gone(m[1].data)]


def test_a_session_of_whose_ticks_none_is_recorded_is_named(bundle, said, tmp_path):
    said = without(said, TRACE, lambda numbers: numbers[0] == 2)
    write(bundle, tmp_path / "bag", said)
    result = replay(Recording(tmp_path / "bag"), bundle)
    # Its last request is of tick 19; what the master said is compared all the same.
    assert result.missing == ["session 2 tick 0 to 18"]
    assert (result.sessions, result.ticks, result.decisions) == (2, TICKS, 10)
    assert (result.equal, result.whole) == (True, False)
    write(bundle, tmp_path / "none", without(said, TRACE, lambda numbers: True))
    result = replay(Recording(tmp_path / "none"), bundle)
    assert result.missing == ["session 1 tick 0 to 18", "session 2 tick 0 to 18"]
    assert (result.equal, result.whole) == (True, False)


def test_a_session_that_ended_before_its_first_tick_lacks_nothing(bundle, said, tmp_path):
    """It was stopped while it waited for the first decision."""
    said = without(said, TRACE, lambda numbers: numbers[0] == 2)
    for topic in (REQUEST, RESPONSE):
        said = without(said, topic, lambda numbers: numbers[0] == 2 and numbers[1] > 0)
    write(bundle, tmp_path / "bag", said)
    result = replay(Recording(tmp_path / "bag"), bundle)
    assert (result.equal, result.whole, result.decisions) == (True, True, 6)


@pytest.mark.parametrize("mode", ["lockstep", "realtime"])
def test_only_in_lockstep_the_first_decision_is_of_what_tick_0_saw(bundle, said, tmp_path, mode):
    """In real time the sensors are read anew when the decision has come."""
    write(bundle, tmp_path / "bag", changed(said, REQUEST, 0, None), mode=mode)
    result = replay(Recording(tmp_path / "bag"), bundle)
    unjudged = [] if mode == "lockstep" else ["session 1 tick 0: decision 0"]
    assert (result.equal, result.unjudged) == (True, unjudged)
    write(bundle, tmp_path / "later", changed(said, REQUEST, 1, None), mode=mode)
    assert replay(Recording(tmp_path / "later"), bundle).unjudged == []


def test_ticks_of_another_bundle_that_took_over_are_named_and_not_judged(bundle, tmp_path):
    other = swapped(bundle, tmp_path / "other")
    began = f"(its digest begins with {bundle.manifest.digest[:12]})"
    took_over = f"(its digest begins with {other.manifest.digest[:12]})"
    write(bundle, tmp_path / "bag", drive(bundle, swap=(12, other)))
    recording = Recording(tmp_path / "bag")
    result = replay(recording, bundle)
    # Set before tick 12, asked for at 14, it runs from the next macro step on.
    assert result.other == [f"session 1 tick 15 {took_over}", f"session 2 tick 0 {took_over}"]
    assert (result.equal, result.whole) == (True, False)
    assert (result.ticks, result.decisions) == (2 * TICKS, 3)
    # Of the bundle that took over the other part is judged.
    result = replay(recording, other)
    assert result.other == [f"session 1 tick 0 {began}"]
    assert (result.equal, result.decisions) == (True, 7)
    code, out, err = run_mlsh("replay", tmp_path / "bag", bundle.source)
    assert (code, err) == (3, "")
    said = f"2 changes to another bundle, which is not compared: session 1 tick 15 {took_over}, "
    assert said in out
    # As `gap` and `sysid` say it.
    (note,) = [n for n in load(tmp_path / "bag", bundle).signals.notes if "another" in n]
    assert note.startswith(f"another bundle ran from session 1 tick 15 {took_over}")


def test_a_difference_beside_another_bundle_is_found(bundle, tmp_path):
    said = drive(bundle, swap=(12, swapped(bundle, tmp_path / "other")))
    write(bundle, tmp_path / "bag", changed(said, TRACE, 7, set_to(16, 0.25)))
    result = replay(Recording(tmp_path / "bag"), bundle)
    assert str(result.first_tick).startswith("session 1 tick 7: action base_velocity.0 recorded")


@pytest.mark.parametrize("lost", [[], [3], [4]])
def test_a_bundle_whose_decision_is_late_takes_over_with_the_next(bundle, tmp_path, lost):
    """The old skills go on; a request that is not recorded may have been about either."""
    other = swapped(bundle, tmp_path / "other")
    said = drive(bundle, sessions=1, swap=(12, other), unanswered=[3])
    write(bundle, tmp_path / "bag", without(said, REQUEST, lambda numbers: numbers[1] in lost))
    result = replay(Recording(tmp_path / "bag"), bundle)
    assert [text.partition(" (")[0] for text in result.other] == ["session 1 tick 20"]
    assert result.equal


def heard(bundle, said):
    kinds = {
        t.name: t.type for t in recorded_topics(bundle.interface, stamped=True, lockstep=False)
    }
    sensors = [reader.topic for reader in topic_readers(bundle.interface.observation)]
    found = Completeness(bundle.manifest, sensors)
    for topic, message in said:
        found.hear(topic, bytes(STORE.serialize_cdr(message, kinds[topic])))
    return found


def test_a_recorder_knows_what_it_has_lost(bundle, said):
    assert heard(bundle, said).lacking() == []
    goals = [i for i, (topic, _) in enumerate(said) if topic == "goals"]
    traces = [i for i, (topic, _) in enumerate(said) if topic == TRACE]
    outcomes = [i for i, (topic, _) in enumerate(said) if topic == OUTCOME_TOPIC]
    gone = {*goals[5:9], *traces[2:4], traces[6], *outcomes[3:5]}
    lost = heard(bundle, [m for i, m in enumerate(said) if i not in gone]).lacking()
    assert lost == [
        "skill_node/trace: ticks 2 to 3, 6 of session 1",
        "sim_node/outcome: 2 ticks",
        f"goals: 4 of {len(goals) - 3} messages",
    ]
    last = max(i for i, (topic, _) in enumerate(said) if topic == REQUEST)
    asked = int(said[last][1].data[2])
    tail = [m for i, m in enumerate(said[: last + 1]) if i not in traces[-asked + 1 :]]
    (lost,) = heard(bundle, tail).lacking()
    assert lost.endswith(f"to {asked - 1} of session 2")


def test_a_recorder_knows_which_applied_commands_it_has_lost(bundle, said):
    layout = applied_layout(bundle.interface.action_names)
    command = np.zeros(bundle.interface.action_size)
    applied = [
        (APPLIED_COMMAND, array(layout, number, 20 * number, 1e9 + number, vectors=[command]))
        for number in range(9)
    ]
    assert heard(bundle, [*said, *applied]).lacking() == []
    lost = heard(bundle, [*said, *applied[:3], *applied[5:7], *applied[8:]]).lacking()
    assert lost == ["sim_node/applied_command: 3 commands"]


@pytest.mark.parametrize(
    ("topic", "gone", "expected"),
    [
        (REQUEST, lambda n: n[0] == 1 and n[1] in (3, 4), "macro steps 3 to 4 of session 1"),
        (REQUEST, lambda n: n[0] == 1 and n[1] == 0, "macro steps 0 of session 1"),
        (RESPONSE, lambda n: n[0] == 2 and n[1] in (0, 3), "macro steps 0, 3 of session 2"),
        (TRACE, lambda n: n[0] == 1 and n[1] < 3, "ticks 0 to 2 of session 1"),
        (TRACE, lambda n: n[0] == 2 and n[1] < 3, "ticks 0 to 2 of session 2"),
        (TRACE, lambda n: n[0] == 2, "ticks 0 to 18 of session 2"),
        (OUTCOME_TOPIC, lambda n: n[0] == 2 and n[1] < 3, "3 ticks"),
    ],
)
def test_the_head_of_a_session_and_its_decisions_are_missed_too(
    bundle, said, topic, gone, expected
):
    lost = heard(bundle, without(said, topic, gone)).lacking()
    assert lost == [f"{topic}: {expected}"]


def test_the_head_of_a_session_is_missed_without_its_first_request_if_it_was_seen_to_begin(
    bundle, said
):
    """All of its first macro step is lost; before it, skill_node was `ready`."""
    early = without(said, TRACE, lambda n: n[0] == 1 and n[1] < 4)
    for topic in (REQUEST, RESPONSE):
        early = without(early, topic, lambda n: n[0] == 1 and n[2] < 4)
    lost = [f"{TRACE}: ticks 0 to 3 of session 1", f"{REQUEST}: macro steps 0 of session 1"]
    assert heard(bundle, early).lacking() == lost
    # A recorder that comes later lacks nothing of that; the state that it hears first is latched.
    states = [i for i, (topic, _) in enumerate(early) if topic == STATE]
    late = [m for i, m in enumerate(early) if i != states[0]]
    assert heard(bundle, late).lacking() == []


def test_a_late_master_is_no_message_that_was_lost(bundle):
    assert heard(bundle, drive(bundle, unanswered=[2, 3])).lacking() == []


def test_a_long_list_of_what_is_missing_is_cut(bundle, said):
    many = [m for n in range(20) for m in drive(bundle, sessions=1, first=n + 1)]
    many = without(many, TRACE, lambda n: n[1] == 7)
    lost = heard(bundle, [m for m in many if m[0] in (TRACE, REQUEST, RESPONSE)]).lacking()
    assert len(lost) == 11
    assert lost[9:] == [f"{TRACE}: ticks 7 of session 10", "10 more"]


def test_bytes_that_are_no_message_are_passed_over(bundle):
    found = heard(bundle, [])
    for topic in (TRACE, REQUEST, OUTCOME_TOPIC, "odom", "elsewhere"):
        for data in (b"", b"\0\1\0\0", b"\0\1\0\0abc", b"\0\1" + b"\xff" * 400):
            found.hear(topic, data)
    longer = array(Layout(tuple(f"a{i}" for i in range(40))), *range(40))
    for number in (3, 9):  # as if it were a trace of ticks with a hole between them
        longer.data = np.full(40, float(number))
        found.hear(TRACE, bytes(STORE.serialize_cdr(longer, "std_msgs/msg/Float64MultiArray")))
    assert found.lacking() == []


def test_what_was_lost_stands_in_the_file(bundle, said, tmp_path):
    recorder = write(bundle, tmp_path / "bag", said, close=False)
    recorder.close("goals: 4 of 47 messages")
    with recorder.file.open("rb") as stream:
        told = {m.name: m.metadata for m in make_reader(stream).iter_metadata()}
    assert told[LOST] == {"lost": "goals: 4 of 47 messages"}
    about = yaml.safe_load((tmp_path / "bag" / "metadata.yaml").read_text())
    assert about["rosbag2_bagfile_information"]["custom_data"] == {LOST: "goals: 4 of 47 messages"}
    assert replay(Recording(tmp_path / "bag"), bundle).equal
    with Reader(tmp_path / "bag") as reader:
        assert reader.message_count == len(said)


def test_what_no_node_could_read_is_left_out_by_replay_too(bundle, said, tmp_path):
    """As somebody else on the network may say; the ticks in between are whole."""
    recorder = write(bundle, tmp_path / "bag", said[: len(said) // 2], close=False)
    recorder.write("odom", b"garbage", received=10**18)
    recorder.write(RESPONSE, b"\0\1\0\0", received=10**18)
    wrong = array(OUTCOME, 1, 2, 3, 4, 5)
    data = bytes(STORE.serialize_cdr(wrong, "std_msgs/msg/Float64MultiArray"))
    recorder.write(RESPONSE, data, received=10**18)
    write(bundle, None, said[len(said) // 2 :], start=len(said) // 2, recorder=recorder)
    result = replay(Recording(tmp_path / "bag"), bundle)
    assert result.equal
    assert result.whole
    assert len(result.unread) == 3
    assert "a message of odom is not a nav_msgs/msg/Odometry" in result.unread[0]
    assert result.unread[2].startswith("decision/response: its element 0 is 'episode', not")


def test_a_skill_node_that_was_restarted_begins_another_session_1(bundle, said, tmp_path):
    write(bundle, tmp_path / "bag", [*said, *drive(bundle, sessions=1)])
    result = replay(Recording(tmp_path / "bag"), bundle)
    # The simulator's stamps begin anew as well.
    assert (result.sessions, result.equal, result.unseen) == (3, True, [])


def opened(path):
    """The recording, or None if it is refused, which takes a UserError."""
    try:
        return Recording(path)
    except UserError:
        return None


def test_a_recording_that_breaks_off_anywhere_is_read_up_to_there(bundle, folder, tmp_path):
    data = (folder / "bag_0.mcap").read_bytes()
    whole = list(Recording(folder).entries())
    path, counts = tmp_path / "cut.mcap", []
    for size in range(0, len(data), 997):
        path.write_bytes(data[:size])
        recording = opened(path)
        found = [] if recording is None else list(recording.entries())
        assert [(e.topic, e.data) for e in found] == [
            (e.topic, e.data) for e in whole[: len(found)]
        ]
        counts.append(len(found))
    assert counts == sorted(counts)
    assert counts[0] == 0
    assert counts[-1] == len(whole)


def test_a_damaged_recording_is_read_up_to_the_damage(bundle, folder, tmp_path):
    data = bytearray((folder / "bag_0.mcap").read_bytes())
    rng, path = random.Random(3), tmp_path / "damaged.mcap"
    whole = {(e.topic, e.data) for e in Recording(folder).entries()}
    for _ in range(200):
        place = rng.randrange(len(data))
        damaged = data.copy()
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        recording = opened(path)
        if recording is not None:
            assert {(e.topic, e.data) for e in recording.entries()} <= whole


def test_an_index_that_became_a_message_is_none(folder, tmp_path):
    """One flipped bit makes opcode 7 a 5, and nothing outside of chunks has a checksum there."""
    data = bytearray((folder / "bag_0.mcap").read_bytes())
    whole = [(e.topic, e.data) for e in Recording(folder).entries()]
    place, indices = 8, []  # after the magic
    while data[place] != 0x0F:  # DataEnd
        if data[place] == 0x07:
            indices.append(place)
        place += 9 + int.from_bytes(data[place + 1 : place + 9], "little")
    assert indices
    for index in indices:
        damaged = data.copy()
        damaged[index] = 0x05
        path = tmp_path / "damaged.mcap"
        path.write_bytes(damaged)
        read = Recording(path)
        found = [(e.topic, e.data) for e in read.entries()]
        assert found == whole[: len(found)]
        assert read.cut


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "recording {}: no such file or folder"),
        (b"", "recording {}: not an MCAP file"),
        (b"abc", "recording {}: not an MCAP file"),
        (b"SQLite format 3\0" * 10, "recording {}: not an MCAP file"),
        ("empty folder", "recording {}: 0 files *.mcap in it, one is expected"),
        (
            "foreign",
            "recording {}: it does not contain the bundle that ran; only what recorder_node ",
        ),
    ],
)
def test_what_is_no_recording_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "bag"
    if content == "empty folder":
        path.mkdir()
    elif content == "foreign":
        from mcap.writer import Writer

        with path.open("wb") as stream:
            writer = Writer(stream)
            writer.start()
            writer.finish()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        Recording(path)
    assert str(caught.value).startswith(message.format(path))
    assert "\n" not in str(caught.value)


def test_a_recording_of_another_robot_or_of_no_drive_is_refused(bundle, said, folder, tmp_path):
    write(bundle, tmp_path / "still", [m for m in said if m[0] in (STATE, MASTER, "odom")])
    with pytest.raises(UserError, match="no tick is recorded: the robot did not drive"):
        replay(Recording(tmp_path / "still"), bundle)
    term = replace(bundle.interface.action[0], name="other")
    interface = replace(bundle.interface, action=(term,))
    other = replace(bundle, manifest=replace(bundle.manifest, interface=interface))
    with pytest.raises(UserError, match="skill_node/trace is not of this bundle's robot: its"):
        replay(Recording(folder), other)


HOLES = {
    "a tick is missing": (TRACE, 7),
    "a sensor message is missing": ("odom", 4),
    "a decision is missing": (RESPONSE, 2),
}


@pytest.mark.parametrize("what", [*HOLES, "it is truncated", "it has a hole and a difference"])
def test_a_recording_with_holes_ends_with_3_unless_something_differs(bundle, said, tmp_path, what):
    place = tmp_path / "bag"
    if what == "it is truncated":
        write(bundle, place, said[: len(said) * 2 // 3], close=False).flush()
    elif what in HOLES:
        write(bundle, place, changed(said, *HOLES[what], None))
    else:
        holed = changed(said, TRACE, 7, None)
        write(bundle, place, changed(holed, TRACE, 12, set_to(16, 0.25)))
    code, out, err = run_mlsh("replay", place, bundle.source)
    if "difference" in what:
        assert (code, err) == (1, "")
        assert "session 1 tick 13: action base_velocity.0 recorded 0.25" in out
    else:
        assert (code, err) == (3, "")
        assert "decisions, equal as far as recorded" in out


def test_the_command_says_what_it_found_and_ends_with_0_1_or_2(bundle, folder, tmp_path):
    code, out, err = run_mlsh("replay", folder, bundle.source)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "2 sessions, 46 ticks, 10 decisions, all equal"
    swapped(bundle, tmp_path / "other")
    code, out, err = run_mlsh("replay", folder / "bag_0.mcap", tmp_path / "other")
    assert (code, err) == (1, "")
    assert "another bundle ran: its digest is " in out
    assert "first difference (46 of 46): session 1 tick 0: action base_velocity.0 " in out
    code, out, err = run_mlsh("replay", tmp_path / "nothing", bundle.source)
    assert (code, out) == (1, "")
    assert err == f"error: recording {tmp_path / 'nothing'}: no such file or folder\n"
    assert run_mlsh("replay", folder)[0] == 2


def test_replay_needs_neither_ros_nor_torch_nor_mujoco(bundle, folder):
    script = f"""
import sys
class No:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in ('rclpy', 'torch', 'mujoco', 'std_msgs', 'gymnasium'):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, No())
sys.argv = ['mlsh', 'replay', {str(folder)!r}, {str(bundle.source)!r}]
from mlsh_ros.cli.main import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


# The node, over DDS ----------------------------------------------------------------------------


def wait_for(happened, what, seconds=START_UP):
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, what() if callable(what) else what
        time.sleep(0.02)


@pytest.mark.ros
def test_what_the_nodes_do_in_lockstep_is_recorded_whole_and_replays_equal(
    bundle, tmp_path, monkeypatch
):
    """Every message that was sent is in it, and every tick's observation can be built again."""
    pytest.importorskip("rclpy")
    from mlsh_ros.bringup.process_launcher import Processes
    from mlsh_ros.evaluation.ros_rollout import Remote

    domain, place, episodes = fresh_domain(), tmp_path / "bag", 3
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    arguments = {
        "bundle": str(bundle.source),
        "mode": "lockstep",
        "auto_arm": "false",
        "auto_reset": "false",
        "namespace": "bot1",
        "record": "true",
        "record_dir": str(place),
    }
    lines = []
    with (
        Processes(SIM, arguments, lambda *said: lines.append(said), domain) as processes,
        Remote(bundle, "bot1", processes.check) as client,
    ):
        client.wait_until_active("recorder_node", "skill_node", "master_node", "sim_node")
        wait_for(lambda: any("hears every" in line for _, line in lines), lambda: lines)
        driven = [
            client.run_episode(
                task=f"moving_bandits/{master}",
                master=master,
                seed=3,
                number=n,
                ticks=50,
                realtime=False,
            )
            for n, master in enumerate(["goal-0", "goal-1", "goal-0"])
        ]
    recording = Recording(place)
    result = replay(recording, bundle)
    assert result.equal, (result.first_tick, result.first_decision)
    # A decision for tick 0, and one 1 tick ahead of every 5.
    counts = (result.sessions, result.ticks, result.decisions)
    assert counts == (episodes, episodes * 50, episodes * 11)
    assert result.unseen == result.unjudged == []
    assert recording.cut == ""
    assert recording.about["namespace"] == "/bot1"
    with AnyReader([place]) as reader:
        found = {c.topic: c.msgcount for c in reader.connections}
        traces = [
            reader.deserialize(data, c.msgtype).data
            for c, _, data in reader.messages()
            if c.topic == "/bot1/skill_node/trace"
        ]
        said = [
            reader.deserialize(data, c.msgtype).data
            for c, _, data in reader.messages()
            if c.topic == "/bot1/skill_node/state"
        ]
    assert set(found) == {
        posixpath.join("/bot1", t.name)
        for t in recorded_topics(bundle.interface, stamped=True, lockstep=True)
    }
    assert found["/bot1/sim_node/outcome"] == episodes * 50
    # The recorder hears skill_node out; its very last word, "disarmed", may die with it.
    assert said[-1] in ("ready", "disarmed")
    assert said.count("running") == episodes
    layout = trace_layout(bundle.interface.observation_names, bundle.interface.action_names)
    actions = np.array([layout.unpack(trace)[1]["action"] for trace in traces])
    np.testing.assert_array_equal(actions, np.concatenate([e.action for e in driven]))
    assert any("messages in" in line for node, line in lines if node == "recorder_node")
    # What a master can learn from: the reward that the simulator said of each tick.
    task = TaskId("moving_bandits", "goal-0")
    (episodes,) = read_episodes([place], bundle, [task], OUTCOME_TOPIC)
    for learned, ran in zip(episodes, driven, strict=True):
        assert np.concatenate(learned.rewards).tolist() == ran.reward[:-1].tolist()


@pytest.mark.ros
@pytest.mark.realtime
def test_a_killed_recorder_leaves_what_it_had_written(bundle, tmp_path, monkeypatch):
    """In realtime; and the robot drives on until it is told to stop.

    In simulated time at half the speed: a machine that is busy is no fault of the robot's.
    """
    pytest.importorskip("rclpy")
    from mlsh_ros.bringup.process_launcher import Processes
    from mlsh_ros.evaluation.ros_rollout import Remote

    place, lines, domain = tmp_path / "bag", [], fresh_domain()
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    arguments = {
        "bundle": str(bundle.source),
        "auto_arm": "false",
        "record": "true",
        "record_dir": str(place),
        "use_sim_time": "true",
        "real_time_factor": "0.5",
    }
    with (
        Processes(SIM, arguments, lambda *said: lines.append(said), domain) as processes,
        Remote(bundle, "", processes.check) as client,
    ):
        client.wait_until_active("skill_node", "master_node", "sim_node")
        wait_for(lambda: any("hears every" in line for _, line in lines), lambda: lines)

        def armed():
            with suppress(UserError):  # nothing has come on /clock yet
                return client.trigger("skill_node/arm")

        wait_for(armed, lambda: lines)
        client.trigger("skill_node/start")
        time.sleep(4.5)
        os.kill(processes.pid("recorder_node"), signal.SIGKILL)
        for _ in range(15):
            processes.check()
            time.sleep(0.1)
        assert client.state == "running"
        client.trigger("skill_node/stop")
    said = [line for node, line in lines if node == "recorder_node"]
    assert said[-1] == "[ERROR] ended with SIGKILL; the others go on"
    assert not [line for node, line in lines if node == "skill_node" and "ERROR" in line]
    assert not (place / "metadata.yaml").exists()
    recording = Recording(place)
    result = replay(recording, bundle)
    assert recording.cut
    assert result.equal, (result.first_tick, result.first_decision)
    # 4.5 s, half as many of the robot's, at 10 Hz; less the start and the last half second.
    assert result.ticks >= 15
    assert result.unseen == result.unjudged == []


@pytest.mark.ros
@pytest.mark.parametrize(
    "mode",
    [
        pytest.param("lockstep", marks=pytest.mark.slow),
        pytest.param("realtime", marks=pytest.mark.realtime),
    ],
)
def test_a_graph_that_starts_by_itself_is_recorded_from_its_first_tick(
    bundle, tmp_path, monkeypatch, mode
):
    """It waits for the recorder: every tick, what it saw, and who watched it."""
    pytest.importorskip("rclpy")
    from mlsh_ros.bringup.process_launcher import Processes
    from mlsh_ros.nodes.watchdog_node import INACTIVE, WATCHING

    domain, place, lines = fresh_domain(), tmp_path / "bag", []
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    arguments = {
        "bundle": str(bundle.source),
        "mode": mode,
        "namespace": "bot1",
        "record": "true",
        "record_dir": str(place),
    }

    def said(node, text):
        return any(name == node and text in line for name, line in lines)

    def moment(line):  # of the log: lines of two processes may come in any order
        return float(re.match(r"\[INFO\] \[([0-9.]+)\]", line)[1])

    with Processes(SIM, arguments, lambda *said: lines.append(said), domain) as processes:
        wait_for(lambda: processes.check() or said("skill_node", "running"), lambda: lines)
        time.sleep(2.0)
    heard, running = (
        next(moment(line) for node, line in lines if (node, text in line) == (who, True))
        for who, text in (("recorder_node", "hears every"), ("skill_node", "]: running"))
    )
    assert heard < running
    result = replay(Recording(place), bundle)
    assert result.equal, (result.first_tick, result.first_decision)
    assert result.whole, result
    assert result.ticks >= 15
    with Reader(place) as reader:
        counts = {c.topic: c.msgcount for c in reader.connections}
    assert counts["/diagnostics"] >= 2
    recording, topic = Recording(place), "/bot1/watchdog_node/state"
    heard = [e for e in recording.entries(lambda each: each.name == topic)]
    states = [recording.message(entry).data for entry in heard]
    # It watched and did not trip; if it ends before the recorder, it says that too.
    assert states[0] == WATCHING
    assert set(states) <= {WATCHING, INACTIVE}
    assert not said("recorder_node", "nothing came from"), lines


@pytest.mark.ros
@pytest.mark.realtime
@pytest.mark.parametrize("name", ["moving_bandits", "body_bandits"])
def test_a_simulator_in_real_time_is_compared_by_the_steps_that_it_made(
    name, tmp_path, monkeypatch
):
    """Whatever the phase between ticks and physics steps, and whatever came late."""
    pytest.importorskip("rclpy")
    from mlsh_ros.bringup.process_launcher import Processes
    from mlsh_ros.sim2real.gap.analysis import analyze

    domain, place, lines = fresh_domain(), tmp_path / "bag", []
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    arguments = {"bundle": name, "record": "true", "record_dir": str(place)}
    with Processes(SIM, arguments, lambda *said: lines.append(said), domain) as processes:
        wait_for(
            lambda: processes.check() or any("]: running" in line for _, line in lines),
            lambda: lines,
        )
        time.sleep(6.0)
    gap = analyze(load_bundle(name), [place])
    # In most windows: in the first one, the rover has not settled on its floor.
    off = {m.element.name: m.usual / m.element.size for m in gap.measures if m.element.moves}
    assert off
    assert max(off.values()) < 0.01, off


class Alone:
    """recorder_node as a process, and somebody who talks to it."""

    def __init__(self, bundle, place, monkeypatch, disk=None):
        domain = fresh_domain()
        monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
        self.output = place.parent / "output.txt"
        command = [sys.executable, "-m", "mlsh_ros.nodes.recorder_node", "--ros-args"]
        for name, value in (
            ("bundle", bundle.source),
            ("record_dir", place),
            ("flush_every", 0.1),
        ):
            command += ["-p", f"{name}:={value}"]

        def limit():
            if disk is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (disk, disk))

        with self.output.open("w") as stream:
            self.process = subprocess.Popen(
                command,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, "ROS_LOG_DIR": str(place.parent / "log")},
                preexec_fn=limit,
            )

    @property
    def text(self):
        return self.output.read_text()

    def end(self, number):
        self.process.send_signal(number)
        return self.process.wait(timeout=10.0)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def traces():
    """Somebody who says `count` traces that everybody who is there hears."""
    rclpy = pytest.importorskip("rclpy")
    from std_msgs.msg import Float64MultiArray

    from mlsh_ros.nodes.node import TRACE as QUALITY

    context = rclpy.Context()
    made = []

    def say(count):
        if not made:
            rclpy.init(context=context)
            node = rclpy.create_node("talker", context=context)
            made.extend((node, node.create_publisher(Float64MultiArray, TRACE, QUALITY)))
        publisher = made[1]
        wait_for(lambda: publisher.get_subscription_count() == 1, "recorder_node listens")
        for i in range(count):
            # All of tick 0, so that nothing is missing; the last number is of the command.
            publisher.publish(Float64MultiArray(data=[0.0] * 19 + [float(i)]))

    yield say
    if made:
        made[0].destroy_node()
        context.try_shutdown()


@pytest.mark.ros
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_closes_the_file_and_nothing_is_lost(
    bundle, tmp_path, monkeypatch, traces, number
):
    place = tmp_path / "bag"
    with Alone(bundle, place, monkeypatch) as alone:
        traces(800)
        wait_for(lambda: list(place.glob("*.mcap")) and recorded(place) == 800, "800 traces")
        assert alone.end(number) == 0, alone.text
        assert "Traceback" not in alone.text
    with Reader(place) as reader:
        assert reader.message_count == 800
    with AnyReader([place]) as reader:
        found = [reader.deserialize(d, c.msgtype).data[-1] for c, _, d in reader.messages()]
    assert found == list(range(800))


@pytest.mark.slow
@pytest.mark.ros
def test_what_a_recorder_was_too_busy_for_is_written_before_it_ends(
    bundle, tmp_path, monkeypatch, traces
):
    place = tmp_path / "bag"
    with Alone(bundle, place, monkeypatch) as alone:
        traces(10)
        wait_for(lambda: list(place.glob("*.mcap")) and recorded(place) == 10, "10 traces")
        alone.process.send_signal(signal.SIGSTOP)
        traces(900)
        time.sleep(1.0)
        alone.process.send_signal(signal.SIGINT)
        alone.process.send_signal(signal.SIGCONT)
        assert alone.process.wait(timeout=15.0) == 0, alone.text
    assert recorded(place) == 910


def recorded(place):
    return sum(entry.topic == TRACE for entry in Recording(place).entries())


@pytest.mark.ros
def test_a_disk_that_fills_up_is_an_error_in_the_log_and_disturbs_nobody(
    bundle, tmp_path, monkeypatch, traces
):
    place = tmp_path / "bag"
    with Alone(bundle, place, monkeypatch, disk=24_000) as alone:
        for _ in range(4):
            traces(900)
            time.sleep(0.15)
        wait_for(lambda: "ERROR" in alone.text, lambda: alone.text, 10.0)
        time.sleep(0.3)
        assert alone.process.poll() is None
        errors = [line for line in alone.text.splitlines() if "ERROR" in line]
        assert len(errors) == 1, alone.text
        assert "File too large; it ends after" in errors[0]
        assert alone.end(signal.SIGTERM) == 1
        assert "Traceback" not in alone.text
    assert 0 <= recorded(place) < 3600


@pytest.mark.ros
def test_a_recorder_that_cannot_begin_ends_with_one_line(bundle, tmp_path, monkeypatch):
    pytest.importorskip("rclpy")
    place = tmp_path / "bag"
    place.mkdir()
    (place / "mine").write_text("precious")
    with Alone(bundle, place, monkeypatch) as alone:
        assert alone.process.wait(timeout=START_UP) == 1
        (line,) = alone.text.splitlines()
    assert "is not empty, and nothing is ever written over" in line
    assert [p.name for p in place.iterdir()] == ["mine"]
