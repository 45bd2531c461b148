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
from sim.errors import UserError

TOPIC = "/clock"
SLOWEST = 0.5  # s that a physics step may take; simulated time stands meanwhile
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


def wall_period(physics_dt: float, factor: float, *, lockstep: bool, simulated: bool) -> float:
    """Duration of a physics step by the system's clock, s.

    Args:
        physics_dt: of the simulation, s.
        factor: simulated seconds in a second.
        lockstep: whether time waits for commands.
        simulated: whether all nodes go by simulated time.

    Raises:
        UserError: the factor does not fit the rest.
    """
    if factor != 1 and lockstep:
        raise UserError(
            f"real_time_factor {factor:g} is for mode realtime; lockstep goes as fast as it can"
        )
    if factor != 1 and not simulated:
        raise UserError(
            f"real_time_factor {factor:g} needs use_sim_time, for all nodes; only 1 does not"
        )
    period = physics_dt / factor
    if simulated and not lockstep and period > SLOWEST:
        raise UserError(
            f"real_time_factor {factor:g} makes {period:g} s of a physics step, at most "
            f"{SLOWEST:g} s are accepted; {physics_dt / SLOWEST:g} or more is "
            "valid"
        )
    return period
