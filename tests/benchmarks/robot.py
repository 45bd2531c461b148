"""The bench's robot: publishes its state, drives skill_node, keeps what it hears."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import numpy as np

from mlsh_ros.messages.labeled_array import trace_layout
from policies.bundle.bundle import Bundle
from tests.benchmarks.tick import JOINTS

START_UP = 30.0  # s


class Robot:
    """Every state has a first joint position of its own, so that a command can be traced to it.

    Args:
        bundle: of `tests.benchmarks.tick`.
        rate: states per second.
    """

    def __init__(self, bundle: Bundle, rate: float) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from sensor_msgs.msg import JointState
        from std_msgs.msg import Float64MultiArray, String

        from mlsh_ros.nodes.node import LATCHED, SENSOR, TRACE

        interface = bundle.interface
        self._layout = trace_layout(interface.observation_names, interface.action_names)
        self._scale = float(interface.observation[0].scales[0])
        self._draw = random.Random(0)
        self.traces: list[dict[str, float]] = []
        self._seen: list[tuple[float, float]] = []  # of a tick: first position, first command
        self._sent: dict[float, float] = {}  # first position: when, s
        self._came: dict[float, float] = {}  # first command: when, s
        self.transport: list[float] = []  # s, from a command's stamp to its arrival
        self.state = ""
        rclpy.init()
        self.node = rclpy.create_node("bench_robot")
        names = [f"joint_{i}" for i in range(JOINTS)]
        self._message = JointState(name=names)
        for field in ("position", "velocity", "effort"):
            setattr(self._message, field, [0.1] * JOINTS)
        self._states = self.node.create_publisher(JointState, "joint_states", SENSOR)
        self._references = self.node.create_publisher(JointState, "references", SENSOR)
        self.node.create_subscription(Float64MultiArray, "skill_node/trace", self._on_trace, TRACE)
        self.node.create_subscription(String, "skill_node/state", self._on_state, LATCHED)
        self.node.create_subscription(JointState, "command", self._on_command, 1)
        self.node.create_timer(1 / rate, self._publish)
        self.node.create_timer(0.1, lambda: self._references.publish(self._message))
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _publish(self) -> None:
        # A multiple of 2**-20: neither the message nor float32 rounds it.
        first = self._draw.randrange(1 << 20) / (1 << 20)
        self._message.position[0] = first
        self._message.header.stamp = self.node.get_clock().now().to_msg()
        self._sent[first] = time.monotonic()
        self._states.publish(self._message)

    def _on_trace(self, message: Any) -> None:
        scalars, vectors = self._layout.read(message)
        self.traces.append(scalars)
        self._seen.append((vectors["observation"][0] / self._scale, vectors["command"][0]))

    def _on_state(self, message: Any) -> None:
        self.state = str(message.data)

    def _on_command(self, message: Any) -> None:
        self._came[message.position[0]] = time.monotonic()
        stamp = message.header.stamp
        self.transport.append(time.time() - stamp.sec - stamp.nanosec * 1e-9)

    def _spin(self) -> None:
        while not self._closing.is_set():
            self.executor.spin_once(timeout_sec=0.1)

    def forget(self) -> None:
        """What was heard so far."""
        self.traces.clear()
        self._seen.clear()
        self.transport.clear()

    @property
    def reaction(self) -> np.ndarray:
        """s, per tick, from the sending of the state it saw to the arrival of its command."""
        return np.array(
            [
                self._came[command] - self._sent[state]
                for state, command in self._seen
                if state in self._sent and command in self._came
            ]
        )

    def call(self, service: str) -> None:
        """One of skill_node's."""
        from std_srvs.srv import Trigger

        client = self.node.create_client(Trigger, f"skill_node/{service}")
        assert client.wait_for_service(timeout_sec=START_UP)
        time.sleep(1.0)  # both sides know each other
        future = client.call_async(Trigger.Request())
        deadline = time.monotonic() + START_UP
        while not future.done() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert future.result().success, future.result().message

    def close(self) -> None:
        """Leave."""
        import rclpy

        self._closing.set()
        self._thread.join()
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown()
