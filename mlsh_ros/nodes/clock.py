"""Selects a node's time source: system time, or /clock with `use_sim_time`."""

from __future__ import annotations

import threading
from typing import Any

from rclpy.clock import Clock as RosClock
from rclpy.clock import ClockType
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock as ClockMessage

from mlsh_ros.control.clock import PATIENCE, Clock, SimulatedClock, Time
from mlsh_ros.messages.conversion import shorten
from mlsh_ros.nodes.inputs import Inputs

TOPIC = "/clock"
# Word by word and not the newest only, which would overtake the sensors that came before it.
IN_ORDER = QoSProfile(depth=1000, reliability=ReliabilityPolicy.BEST_EFFORT)


def make_clock(
    node: Any,
    new_data: threading.Condition,
    inputs: Inputs,
    *,
    lockstep: bool = False,
    compare: bool = True,
    patience: float = PATIENCE,
) -> Time:
    """Returns the clock for ticks and ages.

    Args:
        node: with the parameter use_sim_time.
        new_data: notified when the time has advanced.
        inputs: receives simulated time.
        lockstep: there, messages make the ticks, and patience is the system's.
        compare: whether stamps of messages are compared with the system's clock.
        patience: s of the system's clock for which simulated time may stop during motion.
    """
    if lockstep or not node.get_parameter("use_sim_time").value:
        return Clock() if compare else Clock(system=None)
    clock = SimulatedClock(new_data, patience=patience)

    def on_clock(message: ClockMessage) -> None:
        clock.set_time(message.clock.sec + message.clock.nanosec * 1e-9)

    def refuse(text: str) -> None:
        node.get_logger().warning(f"refused: {shorten(text)}", throttle_duration_sec=1.0)

    inputs.listen(ClockMessage, TOPIC, on_clock, IN_ORDER, refuse)
    return clock


def steady() -> RosClock:
    """A clock for timers that continue when simulated time stops."""
    return RosClock(clock_type=ClockType.STEADY_TIME)
