"""Builds a ROS launch description from a node graph; needs `launch` and `launch_ros`."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import launch.logging
from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.event_handlers import OnProcessIO
from launch.events.process import ProcessExited, ProcessIO
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from mlsh_ros.bringup.network import LAUNCHER, localhost_environment
from mlsh_ros.bringup.node_graph import PACKAGE, RENAMED_ARGUMENTS, Graph, NodeSpec
from mlsh_ros.bringup.params import Value
from mlsh_ros.bringup.resolve_arguments import GRACE, grace, resolve_arguments
from sim.errors import UserError, unknown

PUSHED = "ros_namespace"  # the launch configuration that PushRosNamespace sets
OnExit = Callable[[ProcessExited, LaunchContext], list[Any] | None]


def build_launch_description(graph: Graph) -> LaunchDescription:
    """Returns arguments and nodes of `graph`, for `generate_launch_description`."""
    arguments = [
        DeclareLaunchArgument(
            a.name,
            default_value=None if a.required else a.default,
            description=a.description,
            choices=list(a.choices) or None,
        )
        for a in graph.arguments
    ]
    nodes = OpaqueFunction(function=_nodes, args=[graph])
    # No robot drives on alone: nodes that this process starts end with it, see nodes.node.
    launcher = SetEnvironmentVariable(LAUNCHER, str(os.getpid()))
    return LaunchDescription([*arguments, launcher, *_network(graph), nodes])


def _network(graph: Graph) -> list[Any]:
    """Restrict a simulation to this computer, unless the user has set the range."""
    if graph.name != "sim":
        return []
    return [
        SetEnvironmentVariable(name, value)
        for name, value in localhost_environment(os.environ).items()
    ]


def _nodes(context: LaunchContext, graph: Graph) -> list[Any]:
    """Returns the nodes; errors in the arguments are reported before any node starts."""
    names = [a.name for a in graph.arguments]
    _check_names(graph, context.launch_configurations, names)
    given = {name: LaunchConfiguration(name).perform(context) for name in names}
    # An included launch file does not reveal which arguments were given and which are defaults.
    told = {text.partition(":=")[0] for text in sys.argv if ":=" in text}
    # From here on there is one namespace: that in which the nodes will be.
    given["namespace"] = _joined(context.launch_configurations.get(PUSHED, ""), given["namespace"])
    values = resolve_arguments(graph, graph.resolve(given), told)
    parameters = graph.parameters(values)
    specs = graph.enabled_nodes(values)
    renamed = graph.remappings(values)
    rest = [_node(graph, spec, parameters[spec.name], values, renamed) for spec in specs[1:]]
    later = _When(specs[0].ready_message, rest)
    on_exit = _on_exit if specs[0].required else later.on_exit
    first = _node(graph, specs[0], parameters[specs[0].name], values, renamed, on_exit)
    if not specs[0].ready_message:
        return [first, *rest]
    handler = OnProcessIO(target_action=first, on_stdout=later, on_stderr=later)
    return [RegisterEventHandler(handler), first]


class _When:
    """Starts actions once, when a process has printed a text."""

    def __init__(self, text: str, actions: list[Any]) -> None:
        self._text, self._actions, self._heard = text, actions, ""

    def __call__(self, event: ProcessIO) -> list[Any] | None:
        self._heard += event.text.decode(errors="replace")  # a line may come in pieces
        if self._text not in self._heard:
            return None
        started, self._actions = self._actions, []
        return started

    def on_exit(self, event: ProcessExited, context: LaunchContext) -> list[Any] | None:
        """Handle the end of a process that the others need only to begin."""
        return _on_exit(event, context) if self._actions else None


def _node(
    graph: Graph,
    spec: NodeSpec,
    parameters: Mapping[str, Value],
    values: Mapping[str, str],
    remappings: Mapping[str, str],
    on_exit: OnExit | None = None,
) -> Node:
    respawn = graph.respawns(spec, values)
    # Without a type, launch would read text such as "1" as a number.
    typed = {name: ParameterValue(v, value_type=type(v)) for name, v in parameters.items()}
    return Node(
        package=PACKAGE,
        executable=spec.executable,
        name=spec.name,
        namespace=values["namespace"],
        parameters=[typed, *filter(None, [values["params_file"]])],
        remappings=list(remappings.items()),
        arguments=["--ros-args", "--log-level", values["log_level"]],
        output="both",  # nodes write no log files; launch keeps what they print in its own
        respawn=respawn,
        respawn_delay=spec.respawn_delay,
        # Before launch becomes impatient the robot has come to rest.
        sigterm_timeout=str(grace(values)),
        sigkill_timeout=str(GRACE),
        on_exit=None if respawn else on_exit or _on_exit,
    )


def _joined(outer: str, namespace: str) -> str:
    """A namespace inside a pushed one, as launch_ros joins them; absolute, so joined once."""
    if namespace.startswith("/") or not (above := outer.strip("/")):
        return namespace
    return "/".join(("", above, namespace)).rstrip("/")


def _on_exit(event: ProcessExited, context: LaunchContext) -> list[Any] | None:
    """End the launch when a required node ends; a failure determines the exit status."""
    if context.is_shutdown:
        return None
    name = event.process_name.partition("-")[0]  # skill_node-2
    if event.returncode != 0:
        raise UserError(f"{name} ended with status {event.returncode}; its reason is above")
    return [Shutdown(reason=f"{name} has ended")]


def _check_names(graph: Graph, given: Iterable[str], known: list[str]) -> None:
    """Warn of an unknown argument that is similar to a known one.

    Raises:
        UserError: one is that of a former version; another launch file may have it as its own.
    """
    ours = any(Path(text).name == f"{graph.name}.launch.py" for text in sys.argv)
    for name in given:
        if not any(text.startswith(f"{name}:=") for text in sys.argv):
            continue  # of a launch file that includes this one
        if ours and name in RENAMED_ARGUMENTS and name not in known:
            raise unknown("argument", name, known, RENAMED_ARGUMENTS)
        if name not in known and (near := difflib.get_close_matches(name, known, n=1, cutoff=0.8)):
            launch.logging.get_logger("launch").warning(
                f"argument {name!r} is not used. Did you mean {near[0]!r}?"
            )
