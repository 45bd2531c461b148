"""Collects the files that an MJCF model includes and reads its MjSpec."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import mujoco

from sim.errors import UserError

# Elements that name another MJCF file.
NESTING = ("include", "model")
MAX_DOCUMENTS = 1000
MAX_XML_BYTES = 2**26  # of an MJCF file
MAX_ASSET_BYTES = 2**29  # of a mesh, a texture or a height field


def load_spec(path: Path) -> mujoco.MjSpec:
    """The specification that an MJCF file describes.

    Raises:
        UserError: it does not load; one line.
    """
    documents(path)
    try:
        return mujoco.MjSpec.from_file(str(path))
    except ValueError as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from None


def documents(mjcf: Path) -> dict[Path, ElementTree.Element]:
    """Returns the root element of every MJCF file of a model, the main file first.

    A missing file is reported by MuJoCo later.

    Raises:
        UserError: a file is not XML, or includes itself or reads a pipe, in which cases MuJoCo
            would not terminate; or one is larger than a model's files are.
    """
    found: dict[Path, ElementTree.Element] = {}
    _visit(mjcf, mjcf.parent, found, ())
    _check_regular(mjcf, found)
    return found


def _check_regular(mjcf: Path, known: dict[Path, ElementTree.Element]) -> None:
    """Refuse pipes, devices and huge files wherever MuJoCo may look for what a model names."""
    folders, places = _folders(mjcf, known)
    named = {
        name
        for root in known.values()
        for element in root.iter()
        for key, name in element.attrib.items()
        if key.startswith("file") and name  # also the six of a cube's texture
    }
    for name in sorted(named):
        for folder in (*folders, *places):
            for choice in (folder / name, folder / os.path.basename(name)):
                if os.path.exists(choice) and not (choice.is_file() or choice.is_dir()):
                    raise UserError(
                        f"{mjcf}: {name!r} is not a file, but a pipe, a device or a socket"
                    )
                if choice.is_file() and choice.stat().st_size > MAX_ASSET_BYTES:
                    raise UserError(f"{mjcf}: {name!r} is larger than {MAX_ASSET_BYTES:,} bytes")


def _folders(mjcf: Path, known: dict[Path, ElementTree.Element]) -> tuple[list[Path], list[Path]]:
    """Folders of a model's files, and those that its compilers name for meshes and textures."""
    folders = [mjcf.parent, *(path.parent for path in known)]
    places = [
        base / folder
        for path, root in known.items()
        for compiler in root.iter("compiler")
        for base in (mjcf.parent, path.parent)
        for key in ("assetdir", "meshdir", "texturedir")
        if (folder := compiler.get(key)) is not None
    ]
    return [*dict.fromkeys(folders)], [*dict.fromkeys(places)]


def _visit(
    path: Path, main: Path, found: dict[Path, ElementTree.Element], above: tuple[Path, ...]
) -> None:
    if path in above:
        raise UserError(f"{path}: includes itself, by <include> or <model>")
    if path in found:
        return
    if len(found) >= MAX_DOCUMENTS:
        raise UserError(f"{above[0]}: more than {MAX_DOCUMENTS} files of MJCF")
    root = found[path] = _parse(path)
    for element in root.iter():
        name = element.get("file")
        if element.tag not in NESTING or not name:
            continue
        for folder in (main, path.parent):
            nested = Path(os.path.normpath(folder / name))
            if nested.is_file():
                # MuJoCo takes a model's own files from the model's folder.
                base = nested.parent if element.tag == "model" else main
                _visit(nested, base, found, (*above, path))
                break


def _parse(path: Path) -> ElementTree.Element:
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: not a file")
    try:
        if path.stat().st_size > MAX_XML_BYTES:
            raise UserError(f"{path}: larger than {MAX_XML_BYTES:,} bytes")
        return ElementTree.parse(path).getroot()
    except UserError:
        raise
    except (ElementTree.ParseError, UnicodeDecodeError, LookupError, ValueError) as error:
        raise UserError(f"{path}: not XML ({error})") from None
    except RecursionError:
        raise UserError(f"{path}: not XML that can be read (nested too deeply)") from None
    except OSError as error:
        raise UserError(f"{path}: not readable ({error.strerror})") from None


def assets(mjcf: Path) -> Iterator[Path]:
    """Returns every file that a model reads in addition to its MJCF files.

    Raises:
        UserError: one is missing.
    """
    mjcf = mjcf.absolute()  # what MuJoCo names is relative to where we are, else
    known = documents(mjcf)
    folders, places = _folders(mjcf, known)
    compilers = [each for root in known.values() for each in root.iter("compiler")]
    stripped = any(compiler.get("strippath") == "true" for compiler in compilers)
    inside = {os.path.normpath(path) for path in known}
    for named in dict.fromkeys(mujoco.mju_getXMLDependencies(str(mjcf))):
        # MuJoCo names a file as it looks for it first; it goes on beside the file that names it.
        choices = [mjcf.parent / named, *(folder / named for folder in folders)]
        bare = [place / os.path.basename(named) for place in (*places, *folders)]
        choices = [*bare, *choices] if stripped else [*choices, *bare]
        path = next((choice for choice in choices if choice.is_file()), None)
        if path is None:
            raise UserError(f"{mjcf}: file {named!r} does not exist")
        if os.path.normpath(path) not in inside:
            yield Path(os.path.normpath(path))
