"""A user's parameter file, read before any node starts.

ROS ignores a parameter that no node declares, so that a slip of the pen would go unnoticed. Values
are judged by the nodes themselves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from json import dumps
from pathlib import Path
from typing import Any

import yaml

from mlsh_ros.params import NODES
from sim.errors import UserError, unknown

# Declared by rclpy itself.
BUILT_IN = ("use_sim_time", "qos_overrides", "start_type_description_service")
EVERY_NODE = ("/**", "**")


def check_params_file(path: str, fixed: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a file that does not say what its author means.

    Args:
        path: the file.
        fixed: for each node, parameters that no file may change.

    Raises:
        UserError: no such file, not YAML, a parameter that a node of ours does not have, or
            another value for a fixed one.
    """
    for section, parameters in _sections(_read(path)):
        node = section.rpartition("/")[2]
        if node in NODES:
            known = [param.name for param in NODES[node]]
            for name in parameters:
                if name not in (*known, *BUILT_IN):
                    raise UserError(
                        f"params_file {path}: {node}: {unknown('parameter', name, known)}"
                    )
        for other, values in fixed.items():
            if section in EVERY_NODE or node == other:
                for name in values.keys() & parameters.keys():
                    if parameters[name] != values[name]:
                        raise UserError(
                            f"params_file {path}: {other}: {name} must stay {dumps(values[name])}"
                        )


def said_by_file(path: str, namespace: str, names: Collection[str]) -> dict[str, str]:
    """What a parameter file says of some text parameters, for whichever node of a namespace.

    Args:
        path: the file.
        namespace: of the nodes.
        names: of the parameters.
    """
    here = {"", "**", namespace.strip("/")}
    said: dict[str, str] = {}
    for section, parameters in _sections(_read(path)):
        above, _, node = section.rpartition("/")
        if section in EVERY_NODE or (node in NODES and above.strip("/") in here):
            said |= {k: v for k, v in parameters.items() if k in names and isinstance(v, str)}
    return said


def _read(path: str) -> dict[str, Any]:
    try:
        data = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise UserError(f"params_file {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"params_file {path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise UserError(
            f"params_file {path}: a mapping of nodes is expected, got {type(data).__name__}"
        )
    return data


def _sections(data: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """(node name or pattern, its parameters); the name may be nested, level by level."""
    for key, value in data.items():
        if key == "ros__parameters":
            yield above, value if isinstance(value, dict) else {}
        elif isinstance(value, dict):
            yield from _sections(value, f"{above}/{key}" if above else str(key))
