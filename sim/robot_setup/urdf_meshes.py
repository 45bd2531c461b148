"""Finds the meshes that a URDF names, and copies those of its collision shapes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

from sim.errors import UserError, listed
from sim.physics.model_files import MAX_ASSET_BYTES

READ = (".stl", ".obj", ".msh")  # by MuJoCo
FOLDER = "meshes"


def copy_meshes(
    root: ElementTree.Element, urdf: Path, packages: Mapping[str, Path], fresh: Path
) -> None:
    """Copy the meshes of all collision shapes into `fresh`, and name the copies in the tree.

    MuJoCo calls a mesh by its file's name without folder, so that two of one name would become
    one; each copy has a name of its own.

    Args:
        root: the URDF's tree.
        urdf: its file.
        packages: folders of ROS packages by name.
        fresh: the folder of the robot.

    Raises:
        UserError: a mesh is not there or cannot be read by MuJoCo; it names file and link.
    """
    compiler = root.find("mujoco/compiler")
    meshdir = "" if compiler is None else compiler.attrib.pop("meshdir", "")
    copies: dict[Path, str] = {}
    taken: set[str] = set()
    meshes = [
        (link.get("name", ""), mesh)
        for link in root.findall("link")
        for mesh in link.iterfind("collision/geometry/mesh")
    ]
    names = [(link, mesh.get("filename", "")) for link, mesh in meshes]
    if other := [each for each in names if Path(each[1]).suffix.lower() not in READ]:
        shown = listed(dict.fromkeys(f"{name!r} (link {link})" for link, name in other))
        raise UserError(
            f"MuJoCo does not read {shown} of collision shapes; convert and name the new files. "
            f"Valid: {listed(READ)}"
        )
    for (link, name), (_, mesh) in zip(names, meshes, strict=True):
        path = _find(name, f"link {link}", urdf, packages, meshdir)
        if path not in copies:
            copies[path] = _copy(path, fresh / FOLDER, taken)
        mesh.set("filename", f"{FOLDER}/{copies[path]}")


def _copy(path: Path, folder: Path, taken: set[str]) -> str:
    choices = (path.stem, *(f"{path.stem}_{i}" for i in range(2, len(taken) + 3)))
    stem = next(choice for choice in choices if choice not in taken)
    taken.add(stem)
    folder.mkdir(exist_ok=True)
    shutil.copyfile(path, folder / f"{stem}{path.suffix.lower()}")
    return f"{stem}{path.suffix.lower()}"


def _find(name: str, where: str, urdf: Path, packages: Mapping[str, Path], meshdir: str) -> Path:
    scheme, _, rest = name.rpartition("://")
    package, _, inside = rest.lstrip("/").partition("/")
    advice = ""
    if scheme == "package":
        choices = [folder / inside for folder in _package(package, urdf, packages)]
        advice = f"; --package {package}=FOLDER says where the package is"
    elif scheme == "file":
        choices = [urdf.parent / unquote(rest)]
    elif scheme:
        raise UserError(f"{where}: mesh {name!r}: package://, file:// or a path is expected")
    else:
        places = (urdf.parent, urdf.parent / meshdir) if meshdir else (urdf.parent,)
        choices = [place / part for part in (name, os.path.basename(name)) for place in places]
    tried = [Path(os.path.normpath(choice)) for choice in choices]
    path = next((choice for choice in tried if choice.is_file()), None)
    if path is None:
        looked = f"; looked for {listed(map(str, dict.fromkeys(tried)))}" if tried else ""
        raise UserError(f"{where}: mesh {name!r} does not exist{looked}{advice}")
    if path.stat().st_size > MAX_ASSET_BYTES:
        raise UserError(f"{where}: mesh {path} is larger than {MAX_ASSET_BYTES:,} bytes")
    return path


def _package(name: str, urdf: Path, packages: Mapping[str, Path]) -> Iterator[Path]:
    """Yields where a ROS package may be: as it is said, around the URDF, or installed."""
    if name in packages:
        yield packages[name]
        return
    for parent in urdf.absolute().parents:
        if parent.name == name:
            yield parent
        elif (parent / name).is_dir():
            yield parent / name
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        if prefix:
            yield Path(prefix) / "share" / name
