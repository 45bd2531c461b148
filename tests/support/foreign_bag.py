"""Recordings as other tools write them: mcap, rosbags, and what rosbag2 does to files."""

import numpy as np

from mlsh_ros.messages.conversion import command_writers, topic_readers
from tests.support.gap_robot import STORE, Robot, blank

SECOND = 10**9


def commanded(bundle, wrong=None, *, seed=3, sessions=2, **more):
    """(received, topic, message) of odom and commands alone, by a robot that a bundle drove."""
    robot = Robot(bundle, wrong, seed=seed, **more).drive("goal-1", sessions=sessions)
    return [row for row in robot.messages() if row[1] in ("odom", "cmd_vel")]


def rosbag(folder, messages, *, storage="MCAP", space="", compress=None, version=9):
    """By rosbags."""
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

    writer = Writer(folder, version=version, storage_plugin=StoragePlugin[storage])
    if compress:
        writer.set_compression(CompressionMode[compress], CompressionFormat.ZSTD)
    with writer:
        connections = {}
        for received, topic, message in messages:
            kind = message.__msgtype__
            if topic not in connections:
                name = f"{space}/{topic}"
                connections[topic] = writer.add_connection(name, kind, typestore=STORE)
            data = bytes(STORE.serialize_cdr(message, kind))
            writer.write(connections[topic], received, data)
    return folder


def mcap(path, messages, *, space="", extra=lambda writer: None, **options):
    """By mcap's own writer; `extra` adds channels of its own."""
    from mcap.writer import Writer

    with path.open("wb") as stream:
        writer = Writer(stream, **options)
        writer.start(profile="ros2", library="somebody else")
        extra(writer)
        numbers = {}
        for received, topic, message in messages:
            kind = message.__msgtype__
            if topic not in numbers:
                text = STORE.generate_msgdef(kind, ros_version=2)[0].encode()
                schema = writer.register_schema(kind, "ros2msg", text)
                numbers[topic] = writer.register_channel(f"{space}/{topic}", "cdr", schema)
            data = bytes(STORE.serialize_cdr(message, kind))
            writer.add_message(numbers[topic], received, data, received)
        writer.finish()
    return path


ARM = """<mujoco><compiler angle="radian"/><option timestep=".004" integrator="implicitfast"/>
<worldbody><body name="upper"><joint name="shoulder" axis="0 1 0" damping=".4" armature=".05"/>
  <geom type="capsule" fromto="0 0 0 .3 0 0" size=".03" mass="1"/>
  <body name="hand" pos=".3 0 0"><joint name="elbow" axis="0 0 1" damping=".2" armature=".05"/>
    <geom type="capsule" fromto="0 0 0 .2 0 0" size=".02" mass=".5"/></body></body></worldbody>
<actuator><position name="lift" joint="shoulder" kp="40" kv="1" ctrlrange="-3 3"/>
  <position name="bend" joint="elbow" kp="20" kv=".5" ctrlrange="-3 3"/></actuator></mujoco>"""
WHEEL = """<mujoco><compiler angle="radian"/><option timestep=".004" integrator="implicitfast"/>
<worldbody><body name="hand"><joint name="spin" axis="0 0 1" damping=".1" armature=".02"/>
  <geom type="capsule" fromto="0 0 0 .2 0 0" size=".02" mass=".5"/></body></worldbody>
<actuator><velocity name="turn" joint="spin" kv="1" ctrlrange="-5 5"/></actuator></mujoco>"""
HOME = {"arm": ((0.0, 0.0), (0.7, 0.7), ARM), "wheel": ((0.0,), (4.0,), WHEEL)}


def other_robot(name, folder, monkeypatch):
    """A robot that no bundle drives, and another simulation of it, which is finer."""
    from sim.randomization.schema import SimParams
    from tests.benchmarks import third_party_models

    home, reach, text = HOME[name]
    (folder / f"{name}.xml").write_text(text)
    model = third_party_models.Model("none", f"{name}.xml", "hand", home, reach, 0.004)
    monkeypatch.setattr(third_party_models, "source", lambda _: folder / f"{name}.xml")
    monkeypatch.setitem(third_party_models.MODELS, name, model)
    robot = third_party_models.adopt(name, folder / name)
    return robot, third_party_models.Arm(model, robot, SimParams())


def heard(robot, rows):
    """(received, topic, message) of fields and commands (A,)."""
    readers, writers = (
        topic_readers(robot.interface.observation),
        command_writers(robot.interface.action),
    )
    for received, said in rows:
        for each in readers if isinstance(said, dict) else writers:
            message = blank(each.type)
            if isinstance(said, dict):
                message.header.stamp.sec, message.header.stamp.nanosec = divmod(received, SECOND)
            each.write(message, said)
            for part in ("position", "velocity", "effort", "data"):
                if hasattr(message, part):
                    setattr(message, part, np.array(getattr(message, part), np.float64))
            yield received, each.topic, message
