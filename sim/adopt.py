"""A robot folder from any MJCF file: the model with all its files, and a drafted robot.yaml."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

import mujoco

from sim.draft import draft
from sim.errors import UserError

NAMED_BY = ("joint", "jointinparent", "tendon", "site", "body", "actuator", "objname", "geom")
NAME = r"[A-Za-z0-9][A-Za-z0-9_-]*"
# A free joint's position is neither a hinge's nor a slide's: a term reads it through sensors.
FREE_SENSORS = {"framepos": "position", "framequat": "orientation"}


def adopt(name: str, mjcf: Path, folder: Path) -> str:
    """Write a robot folder; nothing that stands there already is touched.

    Args:
        name: of the robot.
        mjcf: the model's main file.
        folder: that does not exist yet.

    Returns:
        The drafted robot.yaml.

    Raises:
        UserError: the folder exists, the model does not load, or a file of it cannot be copied.
    """
    if not re.fullmatch(NAME, name):
        raise UserError(f"robot name {name!r}: letters, digits, - and _ are accepted")
    if folder.exists() or folder.is_symlink():
        raise UserError(f"{folder} exists; nothing is overwritten, give another folder with -o")
    if not mjcf.is_file():
        raise UserError(f"{mjcf} does not exist; an MJCF file is expected")
    root = _parse(mjcf)
    if root.tag != "mujoco":
        raise UserError(
            f"{mjcf}: an MJCF file is expected (<mujoco>), it begins with <{root.tag}>"
        )
    model = _compile(mjcf, mjcf)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; nothing was written") from None
    try:
        data, notes = _named(mjcf.read_bytes())
        (fresh / "model.xml").write_bytes(_with_sensors(data, mjcf, model))
        for path in sorted(set(_files(mjcf, root))):
            (fresh / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(mjcf.parent / path, fresh / path)
        try:
            text = draft(name, _compile(fresh / "model.xml", mjcf), notes)
        except UserError as error:
            raise UserError(f"{mjcf}: {error}" if str(mjcf) not in str(error) else error) from None
        (fresh / "robot.yaml").write_text(text, "utf-8")
        fresh.chmod(0o755)
        os.rename(fresh, folder)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; nothing was written") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return text


def _parse(path: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not XML ({error})") from None
    except OSError as error:
        raise UserError(f"{path}: not readable ({error.strerror})") from None


def _compile(path: Path, shown: Path) -> mujoco.MjModel:
    try:
        return mujoco.MjSpec.from_file(str(path)).compile()
    except ValueError as error:
        # The copy does not load where the original does: MuJoCo found a file that we did not.
        copied = "" if path == shown else "its copy does not load: "
        raise UserError(f"{shown}: {copied}{' '.join(str(error).split())}") from None


def _named(data: bytes) -> tuple[bytes, list[str]]:
    """A model whose actuators and sensors have names, and what was named.

    Everything is mapped by name, and many models name their joints only.
    """
    found: list[tuple[int, str, dict[str, str]]] = []  # place in the file, tag, attributes
    path: list[str] = []
    parser = expat.ParserCreate()

    def start(tag: str, attributes: dict[str, str]) -> None:
        if path in (["mujoco", "actuator"], ["mujoco", "sensor"]):
            found.append((parser.CurrentByteIndex, tag, attributes))
        path.append(tag)

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: path.pop()
    parser.Parse(data, True)
    taken = {attributes["name"] for _, _, attributes in found if "name" in attributes}
    pieces, end, notes = [], 0, []
    for place, tag, attributes in found:
        if "name" in attributes:
            continue
        of = next((attributes[key] for key in NAMED_BY if key in attributes), "")
        stem = of or tag
        choices = (stem, f"{stem}_{tag}", *(f"{stem}_{tag}_{i}" for i in range(len(found))))
        name = next(choice for choice in choices if choice not in taken)
        taken.add(name)
        head = place + 1 + len(tag.encode())  # behind "<tag"
        pieces += [data[end:head], f" name={quoteattr(name)}".encode()]
        end = head
        notes.append(
            f"the {tag} of {of or 'no joint'} has no name in the model; the copy says {name}"
        )
    return b"".join([*pieces, data[end:]]), notes


def _with_sensors(data: bytes, mjcf: Path, model: mujoco.MjModel) -> bytes:
    lines = []
    for j in range(model.njnt):
        if model.jnt_type[j] != mujoco.mjtJoint.mjJNT_FREE:
            continue
        index = int(model.jnt_bodyid[j])
        if not (body := model.body(index).name):
            raise UserError(f"{mjcf}: body {index} has a free joint and no name; give it one")
        lines += [
            f'    <{tag} name="{body}_{what}" objtype="xbody" objname="{body}"/>'
            for tag, what in FREE_SENSORS.items()
            if not _has_sensor(model, tag, index)
        ]
    if not lines:
        return data
    note = "  <!-- Added for the free joint: a term reads it through sensors. -->"
    added = "\n".join([note, "  <sensor>", *lines, "  </sensor>\n"])
    head, end, tail = data.rpartition(b"</mujoco>")
    return head + added.encode() + end + tail


def _has_sensor(model: mujoco.MjModel, tag: str, body: int) -> bool:
    """Whether a sensor of this kind sits on the body or on one of its sites."""
    kind = getattr(mujoco.mjtSensor, f"mjSENS_{tag.upper()}")
    for i in range(model.nsensor):
        place, on = int(model.sensor_objtype[i]), int(model.sensor_objid[i])
        if place == mujoco.mjtObj.mjOBJ_SITE:
            on = int(model.site_bodyid[on])
        elif place not in (mujoco.mjtObj.mjOBJ_BODY, mujoco.mjtObj.mjOBJ_XBODY):
            continue
        if model.sensor_type[i] == kind and on == body:
            return True
    return False


def _files(mjcf: Path, root: ElementTree.Element) -> Iterator[str]:
    """Every file that the model reads, relative to it; includes and theirs too.

    Raises:
        UserError: one is missing, or leads out of the model's folder.
    """
    roots, queue = [root], [root]
    while queue:
        for element in queue.pop().iter("include"):
            path = _inside(mjcf, "include", [element.get("file", "")])
            yield path
            roots.append(_parse(mjcf.parent / path))
            queue.append(roots[-1])
            if len(roots) > 100:
                raise UserError(f"{mjcf}: more than 100 includes")
    compilers = [c.attrib for each in roots for c in each.iter("compiler")]
    folders = {k: v for attributes in compilers for k, v in attributes.items()}
    assets = folders.get("assetdir", "")
    for each in roots:
        for element in each.iter():
            if element.tag == "include":
                continue
            own = folders.get("texturedir" if element.tag == "texture" else "meshdir", assets)
            for key, value in element.attrib.items():
                if key.startswith("file") and value:
                    name = Path(value).name if folders.get("strippath") == "true" else value
                    yield _inside(mjcf, element.tag, [os.path.join(own, name), name])


def _inside(mjcf: Path, kind: str, choices: list[str]) -> str:
    for choice in choices:
        path = os.path.normpath(choice)
        if PurePosixPath(path).is_absolute() or path.startswith(".."):
            raise UserError(
                f"{mjcf}: {kind} file {choice!r} leads out of the model's folder; copy it there "
                "first, so that the robot's folder can hold all of the robot"
            )
        if (mjcf.parent / path).is_file():
            return path
    raise UserError(f"{mjcf}: {kind} file {choices[0]!r} does not exist")
