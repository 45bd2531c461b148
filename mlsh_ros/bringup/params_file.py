"""Validates a user's parameter file before any node starts.

ROS ignores a section that no node has and a parameter that no node declares, so that a typing
error would have no effect and no message. The nodes check the values.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from json import dumps
from pathlib import Path
from typing import Any

from mlsh_ros.bringup.params import NODES, RENAMED
from sim.errors import UserError, short, unknown
from sim.files.strict_yaml import read_mapping

# Declared by rclpy itself.
BUILT_IN = ("use_sim_time", "qos_overrides", "start_type_description_service")


def check_params_file(path: str, namespace: str, fixed: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a file with unknown nodes or parameters, or with changes of fixed parameters.

    Args:
        path: the file.
        namespace: of the nodes.
        fixed: for each node, parameters that no file may change.

    Raises:
        UserError: no such file, not YAML, a section without a node, a parameter that none of
            its nodes has, or another value for a fixed one.
    """
    for section, parameters in _sections(path):
        last = section.rpartition("/")[2]
        reached = _reached(section, namespace)
        for nodes in ([last] if last in NODES else [], reached):
            _check_names(path, section, parameters, nodes)
        if not reached:
            where = f"params_file {path}: no node of this graph is at {short(section)}"
            raise UserError(f"{where}. Valid: /**, {', '.join(_places(namespace))}")
        for node in (node for node in fixed if node in reached):
            for name in fixed[node].keys() & parameters.keys():
                if parameters[name] != fixed[node][name]:
                    raise UserError(
                        f"params_file {path}: {node}: {name} must stay {dumps(fixed[node][name])}"
                    )


def overrides_from_file(path: str, namespace: str) -> dict[str, dict[str, list[Any]]]:
    """Returns the values in a parameter file, by node and parameter; there may be several.

    Args:
        path: the file.
        namespace: of the nodes.
    """
    said: dict[str, dict[str, list[Any]]] = {}
    for section, parameters in _sections(path):
        for node in _reached(section, namespace):
            for name, value in parameters.items():
                said.setdefault(node, {}).setdefault(name, []).append(value)
    return said


def _check_names(
    path: str, section: str, parameters: Mapping[str, Any], nodes: Collection[str]
) -> None:
    known = list(dict.fromkeys(param.name for node in nodes for param in NODES[node]))
    where = next(iter(nodes)) if len(nodes) == 1 else _named(section)
    for name in parameters if nodes else ():
        if name.partition(".")[0] not in (*known, *BUILT_IN):
            raise UserError(
                f"params_file {path}: {where}: {unknown('parameter', name, known, RENAMED)}"
            )


def _places(namespace: str) -> dict[str, str]:
    """Returns the full names of the nodes, and their base names."""
    above = "/".join(part for part in namespace.split("/") if part)
    return {f"/{above}/{node}" if above else f"/{node}": node for node in NODES}


def _reached(section: str, namespace: str) -> list[str]:
    """Returns the nodes that match a section: * is one part of a name, ** any number of them."""
    parts = [part for part in section.split("/") if part]
    forms = {"*": r"/\w+", "**": r"(/\w+)*"}
    pattern = "".join(forms.get(part, "/" + re.escape(part)) for part in parts)
    places = _places(namespace)
    return [node for place, node in places.items() if parts and re.fullmatch(pattern, place)]


def _sections(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (node name or pattern, its parameters); the name may be nested, level by level."""
    where = f"params_file {path}"
    waiting: list[tuple[str, object]] = [("", read_mapping(Path(path), where))]
    while waiting:
        above, inside = waiting.pop()
        if not isinstance(inside, dict):
            raise UserError(f"{where}: {_named(above)}: ros__parameters is missing above it")
        for key, value in reversed(inside.items()):
            if key != "ros__parameters":
                waiting.append((f"{above}/{key}" if above else key, value))
            elif isinstance(value, dict) and value:
                yield above, value
            else:
                raise UserError(f"{where}: {_named(above)}: ros__parameters has no parameters")


def _named(section: str) -> str:
    """Returns a section's name for an error, truncated if it is long."""
    return section if len(section) <= 80 else f"{section[:77]} .."
