"""Node graphs as data, shared by launch/*.launch.py and the command line.

A node's parameter is `Arg(name)`: the value of a launch argument.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlsh_ros.bringup.import_check import require_one_root

require_one_root()  # the first of our modules that a launch file imports

from mlsh_ros.bringup.params import NODES, RENAMED, Param, Value  # noqa: E402
from mlsh_ros.bringup.params_file import check_params_file  # noqa: E402
from mlsh_ros.recording.output_folder import check_place, default_folder  # noqa: E402
from sim.errors import UserError, unknown  # noqa: E402
from sim.files.strict_yaml import whole_number  # noqa: E402

PACKAGE = "mlsh_ros"
RESPAWN = 2.0  # s after which a node that has died is started again; as Nav2 does
BOOL = ("true", "false")
# `autostart` is a parameter of the nodes: the one of their lifecycle.
RENAMED_ARGUMENTS = {**RENAMED, "autostart": "auto_arm"}
USE_SIM_TIME = "use_sim_time"  # declared by rclpy in every node
_NUMBERS: dict[type, str] = {int: "a whole number", float: "a number"}
_NAMESPACE = re.compile(r"/?|/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*/?", re.ASCII)


@dataclass(frozen=True)
class Argument:
    """A launch argument; its value is a text until a parameter defines its type."""

    name: str
    default: str
    description: str
    choices: tuple[str, ...] = ()  # a single one: it cannot be changed
    required: bool = False  # the user has to give it; `default` is empty


@dataclass(frozen=True)
class Arg:
    """Refers to the value of launch argument `name`."""

    name: str


@dataclass(frozen=True)
class NodeSpec:
    """One node of a graph."""

    executable: str
    parameters: Mapping[str, Arg] = field(default_factory=dict)
    # Parameters that have these values if an argument is true, whatever else is given.
    if_true: Mapping[Arg, Mapping[str, Value]] = field(default_factory=dict)
    when: Arg | None = None  # started only if this argument is true
    respawn: bool = False  # started again if it dies and the user wants that
    respawn_delay: float = RESPAWN  # s
    ready_message: str = ""  # what it prints when those after it may be started; empty: at once
    required: bool = True  # False: the others go on without it

    @property
    def name(self) -> str:
        """Node name: the executable's."""
        return self.executable

    @property
    def module(self) -> str:
        """Module that `python -m` runs."""
        return f"mlsh_ros.nodes.{self.executable}"


@dataclass(frozen=True)
class Graph:
    """Nodes and their launch arguments."""

    name: str
    description: str
    arguments: tuple[Argument, ...]
    nodes: tuple[NodeSpec, ...]

    @property
    def simulates(self) -> bool:
        """True if the graph contains sim_node, which publishes the time."""
        return any(node.executable == "sim_node" for node in self.nodes)

    def resolve(self, given: Mapping[str, str]) -> dict[str, str]:
        """Returns the value of every argument.

        Raises:
            UserError: an argument is unknown, or its value is not one that it may have.
        """
        known = {a.name: a for a in self.arguments}
        for name, value in given.items():
            if name not in known:
                raise unknown("argument", name, known, RENAMED_ARGUMENTS)
            if known[name].choices and value not in known[name].choices:
                raise unknown(f"value for {name}", value, known[name].choices)
        values = {name: given.get(name, a.default) for name, a in known.items()}
        if not _NAMESPACE.fullmatch(values["namespace"]):
            raise UserError(
                f"namespace {values['namespace']!r} is not valid; letters, digits, _ and / only, "
                "no digit after a /"
            )
        return values

    def enabled_nodes(self, values: Mapping[str, str]) -> tuple[NodeSpec, ...]:
        """Returns the nodes to start, from the `resolve`d arguments."""
        return tuple(n for n in self.nodes if n.when is None or values[n.when.name] == "true")

    def parameters(self, values: Mapping[str, str]) -> dict[str, dict[str, Value]]:
        """Returns the typed parameters of each node, from the `resolve`d arguments.

        Raises:
            UserError: a value cannot be read as its parameter's type or is out of its range, the
                parameter file does not hold, or a recording cannot be written.
        """
        factor = _real_time_factor(values)
        if factor != 1 and values["mode"] == "lockstep":
            raise UserError(
                f"argument real_time_factor: {values['real_time_factor']} is for mode "
                "realtime; lockstep goes as fast as it can"
            )
        if values["params_file"]:
            check_params_file(values["params_file"], values["namespace"], self._fixed(values))
        typed = {
            node.name: {
                name: _typed(_param(node.name, name), value.name, values[value.name])
                for name, value in node.parameters.items()
            }
            for node in self.enabled_nodes(values)
        }
        for node in self.enabled_nodes(values):
            typed[node.name].update(_implied(node, values))
        if values[USE_SIM_TIME] == "true" or factor != 1:
            for parameters in typed.values():
                parameters[USE_SIM_TIME] = True
        if recorder := typed.get("recorder_node"):
            # The node would find out as well, but only while the others begin to drive.
            check_place(Path(str(recorder["record_dir"]) or default_folder()))
        return typed

    def told(self, name: str, values: Mapping[str, str]) -> list[str]:
        """Returns the nodes that receive an argument as the parameter of the same name."""
        nodes = self.enabled_nodes(values)
        if name == USE_SIM_TIME:
            return [node.name for node in nodes]
        return [node.name for node in nodes if node.parameters.get(name) == Arg(name)]

    def remappings(self, values: Mapping[str, str]) -> dict[str, str]:
        """Returns the name remappings of all nodes, from the `resolve`d arguments.

        /clock is one for all nodes of a domain. A world in a namespace has its own time, so that
        two of them do not pull at each other's.
        """
        namespace = values["namespace"].strip("/")
        return {"/clock": f"/{namespace}/clock"} if self.simulates and namespace else {}

    def respawns(self, node: NodeSpec, values: Mapping[str, str]) -> bool:
        """True if a node is restarted when it has ended."""
        return node.respawn and values["use_respawn"] == "true"

    def _fixed(self, values: Mapping[str, str]) -> dict[str, dict[str, Value]]:
        """Parameters that a parameter file must not change.

        Those whose argument has a single choice; the robot, once it has been named, because the
        bundle is compared with it; and the time by which the nodes go where only one is right.
        """
        only = {a.name: a.choices[0] for a in self.arguments if len(a.choices) == 1}
        fixed = {
            node.name: {
                name: _typed(_param(node.name, name), value.name, only[value.name])
                for name, value in node.parameters.items()
                if value.name in only
            }
            for node in self.nodes
        }
        for node in self.nodes:
            fixed[node.name].update(_implied(node, values))
        if values["robot"]:
            fixed["skill_node"]["robot"] = values["robot"]
        if _real_time_factor(values) != 1:
            for parameters in fixed.values():
                parameters[USE_SIM_TIME] = True
        return fixed


def _implied(node: NodeSpec, values: Mapping[str, str]) -> dict[str, Value]:
    true = [implied for arg, implied in node.if_true.items() if values[arg.name] == "true"]
    return {name: value for implied in true for name, value in implied.items()}


def _param(node: str, name: str) -> Param:
    return next(p for p in NODES[node] if p.name == name)


def argument_value(name: str, text: str) -> Value:
    """Converts an argument's text to the type of the node parameters of its name."""
    params = (param for node in NODES.values() for param in node if param.name == name)
    if (param := next(params, None)) is not None:
        return _typed(param, name, text)
    return text == "true" if name == USE_SIM_TIME else text


def _real_time_factor(values: Mapping[str, str]) -> float:
    """Real time factor of the simulation, from the `resolve`d arguments."""
    param = _param("sim_node", "real_time_factor")
    return float(_typed(param, param.name, values[param.name]))


def _typed(param: Param, argument: str, text: str) -> Value:
    """Converts an argument's text to the type of its parameter."""
    kind = type(param.default)
    value: Value = text
    if kind is bool:
        if text not in BOOL:
            raise unknown(f"value for {argument}", text, BOOL)
        value = text == "true"
    elif kind in _NUMBERS:
        try:
            value = whole_number(text) if kind is int else kind(text)
        except ValueError:
            raise UserError(f"argument {argument}: {text!r} is not {_NUMBERS[kind]}") from None
    if fault := param.check(value):
        raise UserError(f"argument {argument}: {fault.partition(': ')[2]}")
    return value
