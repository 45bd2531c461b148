"""Recordings as other tools write them: mcap, rosbags, and what rosbag2 does to files."""

from gap_robot import STORE, Robot

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
