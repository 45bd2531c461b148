"""robot.yaml: where robots stand and what their files say; needs no MuJoCo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from sim.errors import UserError, unknown
from sim.interface import Interface, interface_from_dict

ROBOTS = Path(__file__).parent / "robots"
SCHEMA = 1
MAX_BYTES = 2**20
MAX_VALUES = 100_000


def robot_names() -> list[str]:
    """The robots that ship with the package."""
    return sorted(path.parent.name for path in ROBOTS.glob("*/robot.yaml"))


def robot_folder(name: str) -> Path:
    """Where a robot stands: a shipped one by name, or any folder by path.

    Raises:
        UserError: no such folder.
    """
    folder = ROBOTS / name if name in robot_names() else Path(name)
    if not folder.is_dir():
        raise unknown("robot", name, robot_names())
    return folder


def read_interface(path: Path) -> Interface:
    """The interface that a robot.yaml describes.

    Raises:
        UserError: the file is missing, is no YAML mapping, has another schema, or does not hold.
    """
    interface = interface_from_dict(read_data(path), str(path))
    if hidden := [term.name for term in interface.observation if term.mujoco.task]:
        raise UserError(
            f"{path}: observation term {hidden[0]!r}: mujoco.task is for terms of a task family; "
            "a robot's own are in qpos, qvel or a sensor"
        )
    return interface


def read_data(path: Path) -> dict[str, Any]:
    """What stands in a robot.yaml, its schema checked and taken off.

    Raises:
        UserError: the file is missing, is no YAML mapping, or has another schema.
    """
    if existing(path).stat().st_size > MAX_BYTES:
        raise UserError(f"{path}: larger than {MAX_BYTES} bytes")
    try:
        data: Any = yaml.load(path.read_text("utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise UserError(f"{path}: not YAML: nested too deeply") from None
    _check_amount(data, path)
    if not isinstance(data, dict):
        raise UserError(f"{path}: a mapping is expected, got {type(data).__name__}")
    schema = data.pop("schema", None)
    if schema != SCHEMA:
        raise UserError(f"{path}: schema {schema!r} is not known. Valid: {SCHEMA}")
    return data


def existing(path: Path) -> Path:
    """A file of a robot, which is there.

    Raises:
        UserError: it is not.
    """
    if not path.is_file():
        raise UserError(
            f"{path} does not exist; a robot is a folder with robot.yaml and model.xml"
        )
    return path


def _check_amount(data: Any, path: Path) -> None:
    """Aliases of aliases make gigabytes, or no end at all, out of a few lines."""
    waiting, count = [data], 0
    while waiting:
        each = waiting.pop()
        count += 1
        if count > MAX_VALUES:
            raise UserError(f"{path}: more than {MAX_VALUES} values, with its aliases written out")
        if isinstance(each, dict):
            waiting.extend(each.values())
        elif isinstance(each, (list, tuple, set)):
            waiting.extend(each)


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice; plain YAML keeps the last one in silence."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        keys = [key.value for key, _ in node.value]
        if repeated := [key for key in keys if keys.count(key) > 1]:
            raise yaml.MarkedYAMLError(
                problem=f"key {repeated[0]!r} is given twice", problem_mark=node.start_mark
            )
        return node
