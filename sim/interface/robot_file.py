"""Finds robot folders and parses robot.yaml; does not need MuJoCo.

The keys of robot.yaml are the fields of `Interface` (`sim.interface.interface`) and of the terms
(`sim.interface.terms`). `sim.physics.robot_model` adds the MuJoCo model.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sim.errors import UserError, short, unknown
from sim.files.entry_points import installed
from sim.files.lookup import check_text, find
from sim.files.migrations import check_schema
from sim.files.strict_yaml import read_mapping
from sim.interface import Interface, interface_from_dict

ROBOTS = Path(__file__).parents[1] / "robots"
GROUP = "mlsh_ros.robots"  # of entry points: name -> package.folder
# Keys of a robot.yaml that only simulation and training read (`sim.physics.simulation_only`).
SIMULATION_ONLY = ("signals", "mirror")


def robot_names() -> list[str]:
    """Names of the available robots: shipped ones, then those of installed packages."""
    return list(dict.fromkeys([*_shipped(), *installed(GROUP)]))


def robot_folder(name: str) -> Path:
    """Returns the folder of a shipped or installed robot by name, or any folder by path.

    Raises:
        UserError: no such folder, its path is no text, or the name belongs to two robots.
    """
    check_text("robot", name)
    known = {each: ROBOTS / each for each in _shipped()}
    entries = installed(GROUP).get(name, [])
    if len(entries) + (name in known) > 1:
        owners = [f"{each.value} of package {each.dist.name}" for each in entries if each.dist]
        also = [f"{known[name]} of package mlsh_ros"] if name in known else []
        raise UserError(f"robot {name!r} is two: {' and '.join(also + owners)}; uninstall one")
    known |= {
        each: _folder_of(entries[0]) if each == name else ROBOTS for each in installed(GROUP)
    }
    folder = find("robot", name, known, "; or the path of a folder")
    if not folder.is_dir():
        raise unknown("robot", name, robot_names())
    return folder


def _shipped() -> list[str]:
    return sorted(path.parent.name for path in ROBOTS.glob("*/robot.yaml"))


def _folder_of(entry: EntryPoint) -> Path:
    """Returns the folder named by package.folder, relative to the location of the package.

    Raises:
        UserError: there is none with a robot.yaml.
    """
    package, *inside = entry.value.split(".")
    spec = find_spec(package)  # of a top-level package: does not import it
    places = list(spec.submodule_search_locations or []) if spec is not None else []
    for place in places:
        if (folder := Path(place, *inside) / "robot.yaml").is_file():
            return folder.parent
    raise UserError(
        f"robot {entry.name!r}: its entry point {short(entry.value)} leads to no folder with "
        "robot.yaml; package.folder is expected"
    )


def read_interface(path: Path) -> Interface:
    """The interface that a robot.yaml describes.

    Raises:
        UserError: the file is missing, no YAML mapping, of another schema, or invalid.
    """
    return read_robot_file(path)[0]


def read_robot_file(path: Path) -> tuple[Interface, dict[str, Any]]:
    """The interface that a robot.yaml describes, and what it says for simulation alone.

    Raises:
        UserError: as of `read_interface`.
    """
    data = read_data(path)
    only = {key: data.pop(key) for key in SIMULATION_ONLY if key in data}
    interface = interface_from_dict(data, str(path))
    if hidden := [term.name for term in interface.observation if term.mujoco.task]:
        raise UserError(
            f"{path}: observation term {hidden[0]!r}: mujoco.task is for terms of a task family; "
            "a robot's own are in qpos, qvel or a sensor"
        )
    return interface, only


def read_data(path: Path) -> dict[str, Any]:
    """Returns the content of a robot.yaml, without its schema, which is checked.

    Raises:
        UserError: the file is missing, is no YAML mapping, or has another schema.
    """
    data = read_mapping(existing(path))
    check_schema(data, "robot.yaml", path, path.parent)
    del data["schema"]
    return data


def existing(path: Path) -> Path:
    """Returns the path of a robot's file, which must exist.

    Raises:
        UserError: it is not.
    """
    if not path.is_file():
        raise UserError(
            f"{path} does not exist; a robot is a folder with robot.yaml and model.xml"
        )
    return path
