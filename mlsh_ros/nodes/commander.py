"""Publishes commands on the robot's command topics."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from rclpy.duration import Duration
from rclpy.node import Node

from mlsh_ros.control.clock import steady_time
from mlsh_ros.control.faults import FaultError
from mlsh_ros.messages.conversion import CommandWriter
from mlsh_ros.nodes.node import COMMAND, message_type
from sim.interface import Floats


class Commander:
    """Converts command vectors to messages, created once and filled every tick.

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
        for message, writer in zip(self._messages, writers, strict=True):
            if hasattr(message, "header"):
                message.header.frame_id = writer.frame

    @property
    def unstamped(self) -> list[str]:
        """Topics whose messages have no time stamp."""
        return [
            f"{writer.topic} ({writer.type})"
            for message, writer in zip(self._messages, self._writers, strict=True)
            if not hasattr(message, "header")
        ]

    def send(self, command: Floats, stamp: int, by: float = math.inf) -> None:
        """Send a command (A,), stamped in ns, to every topic even if one fails.

        A topic with an element that is not finite is skipped, because the robot's reaction to it
        is undefined.

        Args:
            command: that has been checked.
            stamp: ns.
            by: s, by the steady clock, when it must leave. This process may stand still between
                the check and here, and the robot be braked meanwhile.

        Raises:
            FaultError: it is too late; nothing has been sent.
            RuntimeError: the node is not active, so that nothing would be sent.
            Exception: of ROS.
        """
        failed: Exception | None = None
        filled = []
        for publisher, message, writer in zip(
            self._publishers, self._messages, self._writers, strict=True
        ):
            if not np.isfinite(command[writer.indices]).all():
                continue
            try:
                if not getattr(publisher, "is_activated", True):
                    raise RuntimeError(f"{writer.topic!r} is not sent: the node is not active")
                if hasattr(message, "header"):
                    header = message.header.stamp
                    header.sec, header.nanosec = divmod(stamp, 10**9)
                writer.write(message, command)
                filled.append((publisher, message))
            except Exception as error:
                failed = error
        if (late := steady_time() - by) > 0:
            raise FaultError(
                "deadline", f"a command was held up before it left, {late:.3f} s too long"
            )
        for publisher, message in filled:
            try:
                publisher.publish(message)
            except Exception as error:
                failed = error
        if failed is not None:
            raise failed

    def send_again(self) -> None:
        """Send the last command again, unchanged."""
        for publisher, message in zip(self._publishers, self._messages, strict=True):
            publisher.publish(message)

    def wait_for_delivery(self, patience: Duration) -> None:
        """Wait until all subscribers have received the last command, at most `patience`."""
        for publisher in self._publishers:
            publisher.wait_for_all_acked(patience)

    def destroy(self) -> None:
        """Destroy the publishers."""
        for publisher in self._publishers:
            self._node.destroy_publisher(publisher)
