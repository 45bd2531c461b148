"""The publishers of a robot's command topics."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from rclpy.duration import Duration
from rclpy.node import Node

from mlsh_ros.core.conversion import CommandWriter
from mlsh_ros.nodes.node import COMMAND, message_type
from sim.interface import Floats

UNKNOWN = "_NODE_NAME_UNKNOWN_"  # what rmw calls a node whose name it has not heard
INTRODUCTION = 2.0  # s that it may take to be heard; whoever has no name then is not of ROS


class Commander:
    """Turns command vectors into messages; the messages are made once and filled every tick.

    Args:
        node: the owner of the publishers.
        writers: one per topic.
        lifecycle: publish only while the node is active.
    """

    def __init__(self, node: Node, writers: Sequence[CommandWriter], *, lifecycle: bool) -> None:
        self._node, self._writers = node, tuple(writers)
        types = [message_type(writer.type) for writer in writers]
        create = node.create_lifecycle_publisher if lifecycle else node.create_publisher
        self._publishers = [
            create(kind, w.topic, COMMAND) for kind, w in zip(types, writers, strict=True)
        ]
        self._messages = [kind() for kind in types]
        self._strangers: dict[str, float] = {}  # per topic: since when somebody has no name, s
        for message, writer in zip(self._messages, writers, strict=True):
            if hasattr(message, "header"):
                message.header.frame_id = writer.frame

    @property
    def stamped(self) -> bool:
        """Whether every command carries the time."""
        return all(hasattr(message, "header") for message in self._messages)

    def send(self, command: Floats, stamp: int) -> None:
        """Send a command (A,), stamped in ns, to every topic even if one fails."""
        failed: Exception | None = None
        for publisher, message, writer in zip(
            self._publishers, self._messages, self._writers, strict=True
        ):
            try:
                if hasattr(message, "header"):
                    header = message.header.stamp
                    header.sec, header.nanosec = divmod(stamp, 10**9)
                writer.write(message, command)
                publisher.publish(message)
            except Exception as error:
                failed = error
        if failed is not None:
            raise failed

    def send_again(self) -> None:
        """The last command, word for word."""
        for publisher, message in zip(self._publishers, self._messages, strict=True):
            publisher.publish(message)

    def others(self, friends: Collection[str]) -> str:
        """Who else publishes these commands, but for nodes of our namespace named in `friends`."""
        own = self._node.get_name(), self._node.get_namespace()
        for writer in self._writers:
            if self._node.count_publishers(writer.topic) < 2:
                continue
            found = self._node.get_publishers_info_by_topic(
                self._node.resolve_topic_name(writer.topic)
            )
            nodes = [(info.node_name, info.node_namespace) for info in found]
            if own in nodes:
                nodes.remove(own)
            if self._still_unknown(writer.topic, nodes):
                continue
            for name, namespace in nodes:
                if namespace == own[1] and name in friends:
                    continue
                who = f"{namespace.rstrip('/')}/{name}"
                return (
                    f"{who} publishes {writer.topic!r} too; end it (a killed node is remembered "
                    "for up to 20 s)"
                )
        return ""

    def _still_unknown(self, topic: str, nodes: Collection[tuple[str, str]]) -> bool:
        """Whether someone who publishes may yet turn out to be a friend.

        DDS knows a new publisher a moment before it knows which node it belongs to.
        """
        if not any(UNKNOWN in name for name, _ in nodes):
            self._strangers.pop(topic, None)
            return False
        now = time.monotonic()
        return now - self._strangers.setdefault(topic, now) < INTRODUCTION

    def wait_for_delivery(self, patience: Duration) -> None:
        """Until the last command has arrived everywhere, or `patience` is over."""
        for publisher in self._publishers:
            publisher.wait_for_all_acked(patience)

    def destroy(self) -> None:
        """Take the publishers away."""
        for publisher in self._publishers:
            self._node.destroy_publisher(publisher)
