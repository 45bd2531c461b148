"""The node graph as data: launch/*.launch.py and `mlsh up` both build from it.

A node's parameter is a value, or `Arg(name)`: the value of a launch argument.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlsh_ros.roots import require_one_root

require_one_root()  # the first of our modules that a launch file imports

from mlsh_ros.core.place import check_place, default_folder  # noqa: E402
from mlsh_ros.params import MODES, NODES, Param, Value  # noqa: E402
from mlsh_ros.params_file import check_params_file  # noqa: E402
from sim.errors import UserError, unknown  # noqa: E402

PACKAGE = "mlsh_ros"
_BOOL = ("true", "false")
_NUMBERS: dict[type, str] = {int: "a whole number", float: "a number"}
_NAMESPACE = re.compile(r"/?|/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*/?", re.ASCII)


@dataclass(frozen=True)
class Argument:
    """A launch argument; its value is text until a parameter gives it a type."""

    name: str
    default: str
    description: str
    choices: tuple[str, ...] = ()  # a single one: nobody may change it


@dataclass(frozen=True)
class Arg:
    """The value of launch argument `name`."""

    name: str


@dataclass(frozen=True)
class NodeSpec:
    """One node of a graph."""

    executable: str
    parameters: Mapping[str, Value | Arg] = field(default_factory=dict)
    when: Arg | None = None  # started only if this argument is true
    ready: str = ""  # what it prints when those after it may be started; empty: at once
    vital: bool = True  # False: the others go on without it

    @property
    def name(self) -> str:
        """Node name: the executable's."""
        return self.executable

    @property
    def module(self) -> str:
        """What `python -m` runs."""
        return f"mlsh_ros.nodes.{self.executable}"


@dataclass(frozen=True)
class Graph:
    """Nodes and the arguments they depend on."""

    name: str
    description: str
    arguments: tuple[Argument, ...]
    nodes: tuple[NodeSpec, ...]

    def resolve(self, given: Mapping[str, str]) -> dict[str, str]:
        """The value of every argument.

        Raises:
            UserError: an argument is unknown, or its value is not one that it may have.
        """
        known = {a.name: a for a in self.arguments}
        for name, value in given.items():
            if name not in known:
                raise unknown("argument", name, known)
            if known[name].choices and value not in known[name].choices:
                raise unknown(f"value for {name}", value, known[name].choices)
        values = {name: given.get(name, a.default) for name, a in known.items()}
        if not _NAMESPACE.fullmatch(values["namespace"]):
            raise UserError(
                f"namespace {values['namespace']!r} is not valid; letters, digits, _ and / only, "
                "no digit after a /"
            )
        return values

    def chosen(self, values: Mapping[str, str]) -> tuple[NodeSpec, ...]:
        """The nodes to start, from the `resolve`d arguments."""
        return tuple(n for n in self.nodes if n.when is None or values[n.when.name] == "true")

    def parameters(self, values: Mapping[str, str]) -> dict[str, dict[str, Value]]:
        """For each node its parameters, typed, from the `resolve`d arguments.

        Raises:
            UserError: a value cannot be read as its parameter's type or is out of its range, the
                parameter file does not hold, or a recording cannot be written.
        """
        if values["params_file"]:
            check_params_file(values["params_file"], self._fixed())
        typed = {
            node.name: {
                name: _typed(_param(node, name), value.name, values[value.name])
                if isinstance(value, Arg)
                else value
                for name, value in node.parameters.items()
            }
            for node in self.chosen(values)
        }
        if recorder := typed.get(RECORDER.name):
            # The node would find out as well, but only while the others begin to drive.
            check_place(Path(str(recorder["record_to"]) or default_folder()))
        return typed

    def _fixed(self) -> dict[str, dict[str, Value]]:
        """Parameters whose argument has a single choice: a parameter file must not change them."""
        only = {a.name: a.choices[0] for a in self.arguments if len(a.choices) == 1}
        return {
            node.name: {
                name: _typed(_param(node, name), value.name, only[value.name])
                for name, value in node.parameters.items()
                if isinstance(value, Arg) and value.name in only
            }
            for node in self.nodes
        }


COMMON = (
    Argument(
        "bundle", "moving_bandits", "Bundle: a shipped one by name, or a folder or zip file."
    ),
    Argument("master", "", "Master of the bundle; empty: of the task, or the first."),
    Argument("namespace", "", "Namespace of all nodes and topics."),
    Argument(
        "params_file",
        "",
        "YAML file with node parameters; beats the arguments. See config/params.example.yaml.",
    ),
    Argument(
        "log_level", "info", "Log level of all nodes.", ("debug", "info", "warn", "error", "fatal")
    ),
    Argument(
        "stamped_cmd_vel", "true", "Velocity commands are TwistStamped; false: Twist.", _BOOL
    ),
    Argument("record", "false", "Write everything that the nodes say to an MCAP file.", _BOOL),
    Argument(
        "record_to",
        "",
        "Folder of the recording; must not exist. Empty: one named by time, in the current one.",
    ),
)
RECORDER = NodeSpec(
    "recorder_node",
    {
        "bundle": Arg("bundle"),
        "mode": Arg("mode"),
        "stamped_cmd_vel": Arg("stamped_cmd_vel"),
        "record_to": Arg("record_to"),
    },
    when=Arg("record"),
    # First it listens: what cannot be recorded is not driven, and no tick is missed.
    ready="recording to ",
    # A robot does not stop because nobody takes notes.
    vital=False,
)
_WATCHDOG = NodeSpec(
    "watchdog_node",
    {"bundle": Arg("bundle"), "stamped_cmd_vel": Arg("stamped_cmd_vel")},
    when=Arg("watchdog"),
)
_MASTER = {"bundle": Arg("bundle"), "master": Arg("master")}
_SKILLS = NodeSpec(
    "skill_node",
    {
        "bundle": Arg("bundle"),
        "stamped_cmd_vel": Arg("stamped_cmd_vel"),
        "mode": Arg("mode"),
        "start_by_itself": Arg("autostart"),
        "await_recorder": Arg("record"),
    },
)

ROBOT = Graph(
    name="robot",
    description="Policy on a real robot: waits for ~/start before it moves anything.",
    arguments=(
        *COMMON,
        Argument("mode", "realtime", "Always realtime on a robot.", ("realtime",)),
        Argument("autostart", "false", "A robot never starts to move by itself.", ("false",)),
        Argument("watchdog", "true", "A robot is always watched by watchdog_node.", ("true",)),
    ),
    nodes=(RECORDER, NodeSpec("master_node", _MASTER), _WATCHDOG, _SKILLS),
)
SIM = Graph(
    name="sim",
    description="MuJoCo as the robot, with the policy.",
    arguments=(
        *COMMON,
        Argument("mode", "realtime", "realtime, or lockstep: as fast as it goes.", MODES),
        Argument("autostart", "true", "Begin to drive as soon as everything is there.", _BOOL),
        Argument("robot", "omni", "Robot: a shipped one by name, or a folder."),
        Argument("task", "moving_bandits/goal-0", "Task, as family/task; chooses the master too."),
        Argument("seed", "0", "Seed of the episodes: where the goals are."),
        Argument("loop", "true", "Begin the next episode by itself.", _BOOL),
        Argument("watchdog", "true", "Start watchdog_node too; of no use in lockstep.", _BOOL),
    ),
    nodes=(
        RECORDER,
        NodeSpec("master_node", {**_MASTER, "task": Arg("task")}),
        _WATCHDOG,
        _SKILLS,
        NodeSpec(
            "sim_node",
            {
                "robot": Arg("robot"),
                "task": Arg("task"),
                "seed": Arg("seed"),
                "mode": Arg("mode"),
                "loop": Arg("loop"),
                "stamped_cmd_vel": Arg("stamped_cmd_vel"),
            },
        ),
    ),
)
GRAPHS = {graph.name: graph for graph in (SIM, ROBOT)}


def _param(node: NodeSpec, name: str) -> Param:
    return next(p for p in NODES[node.executable] if p.name == name)


def _typed(param: Param, argument: str, text: str) -> Value:
    """An argument's text as the type of the parameter it is for."""
    kind = type(param.default)
    value: Value = text
    if kind is bool:
        if text not in _BOOL:
            raise unknown(f"value for {argument}", text, _BOOL)
        value = text == "true"
    elif kind in _NUMBERS:
        try:
            value = kind(text)
        except ValueError:
            raise UserError(f"argument {argument}: {text!r} is not {_NUMBERS[kind]}") from None
    if fault := param.check(value):
        raise UserError(f"argument {argument}: {fault.partition(': ')[2]}")
    return value
