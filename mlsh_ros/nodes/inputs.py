"""The sensor subscriptions of a node, served by their own thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.task import Future

from mlsh_ros.nodes.node import FOREVER, one_line, receiver


def side_node(owner: Node, suffix: str) -> Node:
    """Create a second node in the process and namespace of `owner`: `<name>_<suffix>`.

    It does not take the global arguments, which would give it the name of its owner; so topics
    are to be resolved by `owner`.
    """
    return rclpy.create_node(
        f"{owner.get_name()}_{suffix}",
        namespace=owner.get_namespace(),
        use_global_arguments=False,
        start_parameter_services=False,
        enable_rosout=False,
    )


class Inputs:
    """Receives topics while services, parameters and transitions of `owner` are executed.

    Args:
        owner: the node; topics are named and remapped as there.
    """

    def __init__(self, owner: Node) -> None:
        from rclpy.experimental.events_executor import EventsExecutor

        self._owner = owner
        self._node = side_node(owner, "inputs")
        self._executor = EventsExecutor()
        self._executor.add_node(self._node)
        self._done = Future()
        self._thread = threading.Thread(target=self._spin, name="inputs", daemon=True)
        self._thread.start()

    def listen(
        self,
        kind: Any,
        topic: str,
        use: Callable[[Any], None],
        quality: QoSProfile,
        refuse: Callable[[str], None],
    ) -> Any:
        """Subscribe to a topic, see `CoreNode.listen`."""
        name = self._owner.resolve_topic_name(topic)
        receive = receiver(kind, topic, use, refuse)
        return self._node.create_subscription(kind, name, receive, quality, raw=True)

    def destroy(self) -> None:
        """End; nothing is received after this returns."""
        self._done.set_result(None)
        self._executor.wake()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=2.0)
        self._executor.shutdown()
        self._node.destroy_node()

    def _spin(self) -> None:
        while not self._done.done():
            try:
                self._executor.spin_until_future_complete(self._done, timeout_sec=FOREVER)
            except rclpy.executors.ExternalShutdownException:
                return
            except Exception as error:
                self._owner.get_logger().error(f"callback failed: {one_line(error)}")
