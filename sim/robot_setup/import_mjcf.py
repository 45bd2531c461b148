"""Creates a robot folder from an MJCF file: the model's files and a robot.yaml template."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

import mujoco

from sim.errors import UserError, listed
from sim.files.output import replacing_folder
from sim.interface import Interface
from sim.interface.names import ROBOT
from sim.physics.mjcf_addresses import check_addresses
from sim.physics.model_files import assets, documents, load_spec
from sim.physics.robot_bodies import free_bases
from sim.robot_setup.placeholders import filled
from sim.robot_setup.robot_template import draft

NAMED_BY = ("joint", "jointinparent", "tendon", "site", "body", "actuator", "objname", "geom")
# A free joint's position is neither a hinge's nor a slide's: a term reads it through sensors.
FREE_SENSORS = {"framepos": "position", "framequat": "orientation"}
# What may stand at the root of a file that is included in <actuator> or <sensor>. <contact> and
# <plugin> are sections of their own there.
LOOSE = {
    *("general", "motor", "position", "velocity", "intvelocity", "damper", "cylinder"),
    *("muscle", "adhesion", "dcmotor"),
    *(name.removeprefix("mjSENS_").lower() for name in mujoco.mjtSensor.__members__),
} - {"contact", "plugin"}

Judge = Callable[[Interface], list[str]]


def import_mjcf(name: str, mjcf: Path, folder: Path, judge: Judge = lambda _: []) -> str:
    """Write a robot folder; existing files are not changed.

    Args:
        name: of the robot.
        mjcf: the model's main file.
        folder: a folder that does not exist yet.
        judge: returns the errors of the drafted interface, its gaps filled in; must be empty.

    Returns:
        The drafted robot.yaml.

    Raises:
        UserError: the folder exists, the model does not load, or a file of it cannot be copied.
    """
    check_new(name, folder)
    if not mjcf.is_file():
        raise UserError(f"{mjcf} does not exist; an MJCF file is expected")
    root = documents(mjcf)[mjcf]
    if root.tag != "mujoco":
        other = "; --urdf takes it" if root.tag == "robot" else ""
        raise UserError(
            f"{mjcf}: an MJCF file is expected (<mujoco>), it begins with <{root.tag}>{other}"
        )
    model = _compile(mjcf)
    with replacing_folder(folder) as fresh:
        notes = _copy(mjcf, model, fresh)
        text = drafted(name, mjcf, fresh, notes, judge)
        (fresh / "robot.yaml").write_text(text, "utf-8")
    return text


def check_new(name: str, folder: Path) -> None:
    """Refuse what is no name of a robot, and a folder that exists.

    Raises:
        UserError: one of them.
    """
    if not re.fullmatch(ROBOT, name):
        raise UserError(f"robot name {name!r}: letters, digits, - and _ are accepted")
    if folder.exists() or folder.is_symlink():
        raise UserError(f"{folder} exists; nothing is overwritten, give another folder with -o")


def _compile(path: Path) -> mujoco.MjModel:
    spec = load_spec(path)
    try:
        return spec.compile()
    except ValueError as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from None


def drafted(name: str, source: Path, fresh: Path, notes: list[str], judge: Judge) -> str:
    """Returns the text of robot.yaml, valid for its reader once its gaps are filled in.

    Args:
        name: of the robot.
        source: the file that the user gave.
        fresh: the folder with model.xml.
        notes: comments at the top.
        judge: as of `import_mjcf`.

    Raises:
        UserError: model.xml does not load, or the draft would be refused.
    """
    try:
        copy = _compile(fresh / "model.xml")
    except UserError as error:
        # The copy does not load where the original does: MuJoCo found a file that we did not.
        reason = str(error).removeprefix(f"{fresh / 'model.xml'}: ")
        raise UserError(f"{source}: its copy does not load: {reason}") from None
    try:
        text = draft(name, copy, notes)
        interface = filled(text)
        check_addresses(copy, interface)
        if wrong := judge(interface):
            raise UserError(f"the draft would be refused: {listed(wrong, '; ')}")
    except UserError as error:
        raise UserError(f"{source}: {error}" if str(source) not in str(error) else error) from None
    return text


# Files ------------------------------------------------------------------------------------------


def _copy(mjcf: Path, model: mujoco.MjModel, fresh: Path) -> list[str]:
    """Copy all files of the model, adding missing names; returns the added names."""
    texts = {path: path.read_bytes() for path in documents(mjcf)}
    texts, notes = _named(texts)
    texts[mjcf] = with_sensors(texts[mjcf], mjcf, model)
    for path, data in texts.items():
        target = fresh / ("model.xml" if path == mjcf else _inside(mjcf, path))
        if path != mjcf and target == fresh / "model.xml":
            raise UserError(f"{mjcf}: a file of it is called model.xml too; rename that one")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    for path in assets(mjcf):
        target = fresh / _inside(mjcf, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return notes


def _inside(mjcf: Path, path: Path) -> str:
    """Returns the path of a file relative to the model."""
    relative = os.path.relpath(path.absolute(), mjcf.absolute().parent)
    if relative.startswith(os.pardir):
        raise UserError(
            f"{mjcf}: file {str(path)!r} leads out of the model's folder; copy it there "
            "first, so that the robot's folder can hold all of the robot"
        )
    return relative


def _named(texts: dict[Path, bytes]) -> tuple[dict[Path, bytes], list[str]]:
    """Returns files whose actuators and sensors all have names, and the names that were added.

    Everything is mapped by name, and many models name their joints only.
    """
    found = {path: _elements(data) for path, data in texts.items()}
    taken = {a["name"] for places in found.values() for *_, a in places if "name" in a}
    notes: list[str] = []
    named = {}
    for path, data in texts.items():
        pieces, end = [], 0
        for place, tag, attributes in found[path]:
            if "name" in attributes:
                continue
            of = next((attributes[key] for key in NAMED_BY if key in attributes), "")
            name = _free_name(of, tag, taken)
            taken.add(name)
            head = place + 1 + len(tag.encode())  # behind "<tag"
            pieces += [data[end:head], f" name={quoteattr(name)}".encode()]
            end = head
            notes.append(
                f"the {tag} of {of or 'no joint'} has no name in the model; the copy says {name}"
            )
        named[path] = b"".join([*pieces, data[end:]])
    return named, notes


def _free_name(of: str, tag: str, taken: set[str]) -> str:
    stem = of or tag
    choices = (stem, f"{stem}_{tag}", *(f"{stem}_{tag}_{i}" for i in range(len(taken) + 1)))
    return next(choice for choice in choices if choice not in taken)


def _elements(data: bytes) -> list[tuple[int, str, dict[str, str]]]:
    """Actuators and sensors of a file: place, tag, attributes."""
    found: list[tuple[int, str, dict[str, str]]] = []
    path: list[str] = []
    parser = expat.ParserCreate()

    def start(tag: str, attributes: dict[str, str]) -> None:
        inside = path[1:] in (["actuator"], ["sensor"])
        loose = len(path) == 1 and path != ["mujoco"] and tag in LOOSE
        if (inside and tag != "include") or loose:
            found.append((parser.CurrentByteIndex, tag, attributes))
        path.append(tag)

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: path.pop()
    parser.Parse(data, True)
    return found


def with_sensors(data: bytes, mjcf: Path, model: mujoco.MjModel) -> bytes:
    """Returns the text of a model with sensors for its free joints, unless it has them.

    Args:
        data: the text of the main file.
        mjcf: the file that the user gave.
        model: compiled from it.

    Raises:
        UserError: the body of a free joint has no name.
    """
    lines = []
    for j in free_bases(model):
        index = int(model.jnt_bodyid[j])
        if not (body := model.body(index).name):
            raise UserError(f"{mjcf}: body {index} has a free joint and no name; give it one")
        lines += [
            f'    <{tag} name={quoteattr(f"{body}_{what}")} objtype="xbody" '
            f"objname={quoteattr(body)}/>"
            for tag, what in FREE_SENSORS.items()
            if not _has_sensor(model, tag, index)
        ]
    if not lines:
        return data
    note = "  <!-- Added for the free joint: a term reads it through sensors. -->"
    added = "\n".join([note, "  <sensor>", *lines, "  </sensor>\n"]).encode()
    end = _end_of_root(data)
    return data[:end] + added + data[end:]


def _end_of_root(data: bytes) -> int:
    """Returns the offset of the root element's closing tag."""
    depth, end = 0, 0
    parser = expat.ParserCreate()

    def deeper(_tag: str, _attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1

    def higher(_tag: str) -> None:
        nonlocal depth, end
        depth, end = depth - 1, parser.CurrentByteIndex

    parser.StartElementHandler, parser.EndElementHandler = deeper, higher
    parser.Parse(data, True)
    return end


def _has_sensor(model: mujoco.MjModel, tag: str, body: int) -> bool:
    """True if a sensor of this kind is on the body or on one of its sites, in the world frame."""
    kind = getattr(mujoco.mjtSensor, f"mjSENS_{tag.upper()}")
    for i in range(model.nsensor):
        place, on = int(model.sensor_objtype[i]), int(model.sensor_objid[i])
        if place == mujoco.mjtObj.mjOBJ_SITE:
            on = int(model.site_bodyid[on])
        elif place not in (mujoco.mjtObj.mjOBJ_BODY, mujoco.mjtObj.mjOBJ_XBODY):
            continue
        if model.sensor_type[i] == kind and on == body and model.sensor_refid[i] < 0:
            return True
    return False
