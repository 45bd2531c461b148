"""mlsh launch: start a node graph without `ros2 launch`."""

from __future__ import annotations

import signal
import time
from queue import SimpleQueue
from typing import Annotated

import typer

from mlsh_ros.bringup.graphs import GRAPHS
from mlsh_ros.bringup.node_graph import Graph
from mlsh_ros.bringup.process_launcher import Processes
from mlsh_ros.cli.console import console, make_table, say
from mlsh_ros.cli.options import RosDomain
from sim.errors import UserError, unknown


def launch(
    graph: Annotated[
        str,
        typer.Argument(
            help="sim: the nodes with a MuJoCo simulation of the robot. robot: the nodes alone."
        ),
    ] = "sim",
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Launch arguments, as name:=value.")
    ] = None,
    show_args: Annotated[bool, typer.Option(help="List the launch arguments.")] = False,
    domain: RosDomain = None,
) -> int:
    """Start the nodes that `ros2 launch mlsh_ros GRAPH.launch.py` starts; Ctrl-C ends them."""
    if graph not in GRAPHS:
        raise unknown("graph", graph, GRAPHS)
    chosen = GRAPHS[graph]
    if show_args:
        _show(chosen)
        return 0
    # Not an Event: its lock could be held by the very thread that the handler interrupts.
    stop: SimpleQueue[int] = SimpleQueue()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP):
        signal.signal(number, lambda number, _: stop.put(number))

    def show(node: str, line: str) -> None:
        say(f"[{node}] {line}")

    given = _parse(arguments or [])
    with Processes(chosen, given, show, domain, lambda: not stop.empty()) as processes:
        while stop.empty():
            processes.check()
            time.sleep(0.1)
    lost = sorted(processes.gone)
    if lost:
        say(f"{', '.join(lost)} ended before the others; what it wrote is not complete")
    for text in processes.failures:
        say(text)
    return 1 if lost or processes.failures else 0


def _parse(arguments: list[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for text in arguments:
        name, sign, value = text.partition(":=")
        if not sign:
            raise UserError(f"argument {text!r} is not of the form name:=value")
        if name in given:
            raise UserError(f"argument {name} is given twice: {given[name]!r} and {value!r}")
        given[name] = value
    return given


def _show(graph: Graph) -> None:
    say(graph.description)
    table = make_table("argument", "default", "description")
    for a in graph.arguments:
        choices = f" One of {', '.join(a.choices)}." if a.choices else ""
        default = "must be given" if a.required else a.default or "''"
        table.add_row(a.name, default, a.description + choices)
    console.print(table)
