"""Publishes what skill_node reports outside the tick: traces, diagnostics, refused messages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from std_msgs.msg import Float64MultiArray

from mlsh_ros.control.diagnostics import Diagnostic, Refused
from mlsh_ros.control.loop import TickRecord
from mlsh_ros.messages.conversion import shorten
from mlsh_ros.messages.labeled_array import trace_layout
from mlsh_ros.nodes.node import TRACE, array_message, one_line
from sim.interface import Interface

DIAGNOSTICS_PERIOD = 1.0  # s


class Reporter:
    """Builds and publishes reports in its own thread.

    Args:
        node: skill_node.
        interface: names the elements of a trace.
    """

    def __init__(self, node: Any, interface: Interface) -> None:
        self._node, self._interface = node, interface
        self._layout = trace_layout(interface.observation_names, interface.action_names)
        self._trace = array_message(self._layout)
        self._traces = node.create_lifecycle_publisher(Float64MultiArray, "~/trace", TRACE)
        self._diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self.refusals: dict[str, Refused] = {}  # per topic
        self.unused = 0  # decisions that were not requested

    def begin(self) -> None:
        """Start publishing."""
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Publish the remaining reports, then stop."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(timeout=2.0)
            self._thread = None

    def tell(self, session: int, done: TickRecord) -> None:
        """Add the record of a tick; costs the tick one entry in a queue."""
        self._queue.put(partial(self._publish, session, done))

    def log(self, text: str, *, error: bool) -> None:
        """Log a line in this thread, if it runs: a line may take a tenth of a second.

        The thread that brakes the robot does not wait for it.
        """
        write = self._log_error if error else self._log_info
        if self._thread is None:
            write(text)
        else:
            self._queue.put(partial(write, text))

    # One line of code each: rclpy takes another severity from the same line for an error.
    def _log_error(self, text: str) -> None:
        self._node.get_logger().error(text)

    def _log_info(self, text: str) -> None:
        self._node.get_logger().info(text)

    def refused(self, text: str) -> None:
        """Count a refused message, show it in diagnostics and log it."""
        topic, text = text.partition(":")[0], shorten(text)
        count = self.refusals[topic].count if topic in self.refusals else 0
        self.refusals[topic] = Refused(count + 1, text)
        self._node.get_logger().warning(f"refused: {text}", throttle_duration_sec=1.0)

    @property
    def heard(self) -> bool:
        """True if the traces have a subscriber."""
        return bool(self._traces.get_subscription_count())

    def diagnose(self, findings: Sequence[Diagnostic]) -> None:
        """Publish diagnostics (REP-107)."""
        message = DiagnosticArray()
        message.header.stamp = self._node.get_clock().now().to_msg()
        prefix = self._node.get_fully_qualified_name().lstrip("/")
        message.status = [
            DiagnosticStatus(
                level=bytes([int(finding.level)]),
                name=f"{prefix}: {finding.name}",
                message=finding.message,
                hardware_id=self._interface.robot,
                values=[KeyValue(key=k, value=v) for k, v in finding.values.items()],
            )
            for finding in findings
        ]
        self._diagnostics.publish(message)

    def destroy(self) -> None:
        """Destroy the publishers."""
        self._node.destroy_publisher(self._traces)
        self._node.destroy_publisher(self._diagnostics)

    def _run(self) -> None:
        while (report := self._queue.get()) is not None:
            try:
                report()
            except Exception as error:  # the thread would end, and the queue grow
                self.refused(f"report: {one_line(error)}")

    def _publish(self, session: int, done: TickRecord) -> None:
        tick = done.tick
        self._trace.data = self._layout.pack(
            session,
            tick.tick,
            tick.skill,
            tick.late,
            done.missed,
            tick.saturated,
            done.lateness,
            done.compute,
            vectors=(tick.observation, tick.action, tick.command),
        )
        self._traces.publish(self._trace)
