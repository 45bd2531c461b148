"""All node parameters with type, default, range and description."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from mlsh_ros.control.clock import FASTEST
from mlsh_ros.control.joystick import PROFILES
from mlsh_ros.messages.fault_injection import INJECTIONS
from sim.errors import UserError, unknown

Value = bool | int | float | str


@dataclass(frozen=True)
class Param:
    """A node parameter."""

    name: str
    default: Value  # its type is the parameter's type
    description: str
    low: float | None = None  # inclusive, for numbers
    high: float | None = None
    choices: tuple[str, ...] = ()
    read_only: bool = True  # False: may change while the node runs

    def check(self, value: object) -> str:
        """Returns the reason that `value` is not accepted, in one line; else empty."""
        if self.choices and value not in self.choices:
            return f"{self.name}: {value!r} is not one of {', '.join(self.choices)}"
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return ""
        if not math.isfinite(value):
            return f"{self.name}: {value} is not finite"
        if self.low is not None and value < self.low:
            return f"{self.name}: {value} is below {self.low:g}"
        if self.high is not None and value > self.high:
            return f"{self.name}: {value} is above {self.high:g}"
        return ""


MODES = ("realtime", "lockstep")

# Names of former versions, and the names that replace them.
RENAMED = {
    "start_by_itself": "auto_arm",
    "await_recorder": "require_recorder",
    "late_decisions": "max_late_decisions",
    "missed_ticks": "max_missed_ticks",
    "clock_jump": "max_clock_jump",
    "patience": "timeout_ticks",
    "speed": "real_time_factor",
    "loop": "auto_reset",
    "inject": "fault",
    "record_to": "record_dir",
    "stamped_cmd_vel": "enable_stamped_cmd_vel",
    "reality": "sim_params",
}

_BUNDLE = Param("bundle", "", "Bundle to run: a shipped one by name, or a folder or zip file.")
_SWAPPED = replace(_BUNDLE, read_only=False)
_AUTOSTART = Param(
    "autostart",
    True,
    "Configure and activate automatically. Never starts to move the robot.",
)
_MODE = Param(
    "mode",
    "realtime",
    "realtime: ticks follow the clock. lockstep: simulator and controller wait for each other.",
    choices=MODES,
)
_BINDINGS = Param(
    "bindings",
    "",
    "File of bindings: topics, message types and fields in place of the bundle's; empty: none.",
)
_STAMPED = Param(
    "enable_stamped_cmd_vel", True, "Publish TwistStamped; false publishes Twist instead."
)

SKILL_NODE = (
    _SWAPPED,
    _BINDINGS,
    Param(
        "robot",
        "",
        "Robot whose robot.yaml must match the bundle: a shipped one by name, or a folder; "
        "empty: not checked.",
    ),
    _AUTOSTART,
    _MODE,
    Param(
        "auto_arm",
        False,
        "Arm and start as soon as all sensors and the master are available. For simulation only.",
    ),
    Param(
        "require_recorder",
        False,
        "Refuse to start until recorder_node reports that it is recording all topics.",
        read_only=False,
    ),
    _STAMPED,
    Param(
        "max_late_decisions",
        3,
        "Accepted consecutive macro steps without a decision, before the robot is stopped.",
        low=1,
        high=1000,
    ),
    Param(
        "max_missed_ticks",
        3,
        "Missed ticks, without one in time between them, that stop the robot. A watchdog_node "
        "stops it after its timeout_ticks, if that is shorter.",
        low=1,
        high=1000,
    ),
    Param(
        "max_switches",
        10,
        "Accepted number of skill switches in 10 decisions; 10 accepts any.",
        low=0,
        high=10,
    ),
    Param(
        "check_clock",
        True,
        "Stop when stamps are older than max_age or the system's clock jumps, and refuse old "
        "requests by their stamps; false where a computer with another clock stamps them.",
    ),
    Param(
        "max_clock_jump",
        0.1,
        "Accepted jump of the system's clock while the robot moves, s.",
        low=0.001,
        high=10.0,
    ),
    Param(
        "watchdog",
        True,
        "Require watchdog_node: arm only while its heartbeat arrives, stop when it ceases. False "
        "is for simulation only.",
    ),
    Param(
        "shared_topics",
        "",
        "Sensor topics, separated by spaces, that several nodes may publish, such as the "
        "joint_states of an arm and of a gripper. On any other a second publisher is a fault.",
    ),
    Param(
        "estop",
        False,
        "Require the topic `estop` (std_msgs/Bool): arm only while every publisher sends "
        "false, stop when messages of one cease. True on it always stops.",
    ),
    Param(
        "estop_max_age",
        0.5,
        "Seconds after which a required `estop` counts as lost.",
        low=0.05,
        high=10.0,
    ),
    Param(
        "realtime_priority",
        0,
        "Priority of the control thread under SCHED_FIFO; 0 keeps the default scheduling.",
        low=0,
        high=99,
    ),
    Param("cpu", -1, "Core for the control thread; -1: chosen by the system.", low=-1, high=1023),
    Param(
        "start_timeout",
        2.0,
        "Seconds to wait for the sensors and for the first decision after `start`.",
        low=0.1,
        high=60.0,
    ),
)

MASTER_NODE = (
    _SWAPPED,
    _AUTOSTART,
    Param("master", "", "Master to run; empty runs the one of `task`.", read_only=False),
    Param(
        "task",
        "",
        "Task, as family/task, that selects the master; empty: that of the first master.",
    ),
    Param("greedy", True, "Select the most probable skill; false samples it from the softmax."),
    Param(
        "seed",
        -1,
        "Random seed for sampling skills when greedy is false; -1: another one at every start.",
        low=-1,
        high=2**31 - 1,
    ),
)

WATCHDOG_NODE = (
    _BUNDLE,
    _BINDINGS,
    _AUTOSTART,
    _MODE,
    _STAMPED,
    Param(
        "timeout_ticks",
        2.5,
        "Ticks without a new command after which a moving robot is brought to rest.",
        low=1.2,
        high=1000.0,
    ),
)

SIM_NODE = (
    _AUTOSTART,
    _MODE,
    Param(
        "real_time_factor",
        1.0,
        "Simulated seconds per second, in realtime mode; values other than 1 need use_sim_time.",
        low=0.1,
        high=FASTEST,
    ),
    Param("robot", "omni", "Robot to simulate: a shipped one by name, or a folder."),
    Param(
        "bundle",
        "",
        "Bundle whose training defines the parameters of the task's family; empty: its defaults.",
    ),
    _BINDINGS,
    Param(
        "family",
        "",
        "Your own task families for `task`, imported by this node: "
        "package.module:Class or FILE.py, several separated by commas.",
    ),
    Param(
        "task",
        "moving_bandits/goal-0",
        "Task as family/task; takes effect at the next reset.",
        read_only=False,
    ),
    Param(
        "sim_params",
        "",
        "Deviations from the nominal model: a name shipped with the robot, or a YAML file.",
    ),
    Param("seed", 0, "Random seed of the episodes.", low=0, high=2**31 - 1, read_only=False),
    Param(
        "episode",
        0,
        "Number of the next episode; later ones count up from it.",
        low=0,
        high=2**31 - 1,
        read_only=False,
    ),
    Param(
        "auto_reset",
        True,
        "Begin the next episode automatically; false waits for the reset service.",
    ),
    Param("enable_stamped_cmd_vel", True, "Expect TwistStamped; false expects Twist."),
    Param(
        "fault",
        "none",
        "Simulated fault of the robot, for tests; only in realtime mode.",
        choices=INJECTIONS,
        read_only=False,
    ),
    Param("publish_clock", True, "Publish /clock in lockstep mode and with use_sim_time."),
)

RECORDER_NODE = (
    _BUNDLE,
    _BINDINGS,
    _MODE,
    Param("enable_stamped_cmd_vel", True, "Subscribe to TwistStamped; false subscribes to Twist."),
    Param(
        "record_dir",
        "",
        "Folder of the recording; must not exist. Empty: named by time, in the working directory.",
    ),
    Param(
        "flush_every",
        0.5,
        "Interval of writing to disk, s; this much is lost if the node is killed.",
        low=0.05,
        high=60.0,
    ),
)

JOYSTICK_NODE = (
    replace(_BUNDLE, description="Bundle whose masters the joystick chooses from; empty: none."),
    _AUTOSTART,
    Param(
        "joystick_profile",
        "game_controller",
        "Order of the buttons: game_controller is that of this node of the package joy, for every "
        "pad that it knows; xbox and playstation are those of joy_node on Linux.",
        choices=tuple(PROFILES),
    ),
    Param(
        "joystick_max_age",
        0.5,
        "Seconds without a message of the joystick, after which it counts as lost.",
        low=0.1,
        high=2.0,
    ),
)

NODES = {
    "skill_node": SKILL_NODE,
    "master_node": MASTER_NODE,
    "watchdog_node": WATCHDOG_NODE,
    "sim_node": SIM_NODE,
    "recorder_node": RECORDER_NODE,
    "joystick_node": JOYSTICK_NODE,
}


def declare(node: Any, params: Iterable[Param]) -> dict[str, Value]:
    """Declare parameters on an rclpy node and return their values.

    Raises:
        UserError: a given value has another type or is out of range, or a name is one of a former
            version.
    """
    from rcl_interfaces.msg import (
        FloatingPointRange,
        IntegerRange,
        ParameterDescriptor,
        SetParametersResult,
    )
    from rclpy.exceptions import (
        InvalidParameterTypeException,
        InvalidParameterValueException,
        ParameterUninitializedException,
    )

    specs = {param.name: param for param in params}
    _refuse_former_names(node, specs)
    values: dict[str, Value] = {}
    for param in specs.values():
        descriptor = ParameterDescriptor(
            description=param.description,
            additional_constraints=f"one of {', '.join(param.choices)}" if param.choices else "",
            read_only=param.read_only,
        )
        if param.low is not None and param.high is not None:
            if isinstance(param.default, float):
                descriptor.floating_point_range = [
                    FloatingPointRange(from_value=param.low, to_value=param.high)
                ]
            else:
                descriptor.integer_range = [
                    IntegerRange(from_value=int(param.low), to_value=int(param.high), step=1)
                ]
        try:
            value = node.declare_parameter(param.name, param.default, descriptor).value
        except (
            InvalidParameterTypeException,
            InvalidParameterValueException,
            ParameterUninitializedException,
        ) as error:
            raise UserError(f"parameter {param.name!r}: {' '.join(str(error).split())}") from None
        if fault := param.check(value):
            raise UserError(f"parameter {fault}")
        values[param.name] = value

    def judge(changes: Iterable[Any]) -> SetParametersResult:
        for change in changes:
            if change.name in specs and (fault := specs[change.name].check(change.value)):
                return SetParametersResult(successful=False, reason=fault)
        return SetParametersResult(successful=True)

    node.add_on_set_parameters_callback(judge)
    return values


def _refuse_former_names(node: Any, known: Iterable[str]) -> None:
    """Refuse a value for a former name, because ROS ignores unknown parameters."""
    from rcl_interfaces.msg import ParameterDescriptor

    untyped = ParameterDescriptor(dynamic_typing=True)
    names = [*known]
    for old in (old for old, new in RENAMED.items() if new in names):
        given = node.declare_parameter(old, None, untyped).value is not None
        node.undeclare_parameter(old)
        if given:
            raise unknown("parameter", old, names, RENAMED)
