"""Robots, bundles and other files of an earlier schema, rewritten with the names of this one.

The new file or folder is written beside the old one and takes its place when it is complete. An
interrupt leaves the old one or the new one, and the same command can be given again.
"""

from __future__ import annotations

import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

from policies.bundle.bundle import load_bundle
from policies.bundle.bundle_files import read_files
from policies.bundle.earlier_bundle import converted, is_current
from policies.bundle.manifest import MANIFEST
from policies.bundle.storage import stored, whole, write_folder, write_zip
from policies.mlsh.config import read_config
from policies.training.earlier_run import convert_run
from sim.errors import UserError
from sim.files.migrations import (
    CONFIG,
    FILES,
    OLD_SCHEMA,
    SIM_PARAMS,
    check_schema,
    is_earlier,
    rename_text,
)
from sim.files.output import check_place, replacing_folder, write_file
from sim.files.strict_yaml import parse_yaml, read_mapping
from sim.randomization.schema import sim_params_from_dict

ACCEPTED = "a robot folder, a sim-parameter file, a run folder, a bundle as a folder or zip file"
ROBOT = "robot.yaml"


@dataclass(frozen=True)
class Migration:
    """Result of a migration: the kind of the path, and the files that were rewritten."""

    kind: str
    files: tuple[str, ...]  # that were rewritten; none: all had this schema already


def migrate(path: Path) -> Migration:
    """Rewrite what an earlier version wrote, in its place.

    Raises:
        UserError: it is nothing that is known, it is damaged, or it could not be written. What
            was there is unchanged then.
    """
    check_place(path, overwrite=True, folder=not path.is_file())  # brings back what a kill moved
    if (path / ROBOT).is_file():
        return _robot(path)
    if (path / MANIFEST).is_file() or zipfile.is_zipfile(path):
        return _bundle(path)
    if (path / CONFIG).is_file():
        return _run(path)
    if path.suffix in (".yaml", ".yml") and path.name != ROBOT and path.is_file():
        return _sim_params(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; {ACCEPTED} is expected")
    raise UserError(f"{path}: nothing that can be migrated. Valid: {ACCEPTED}")


def _robot(folder: Path) -> Migration:
    """robot.yaml, and what is beside it under the names that it has now."""
    for name in (*FILES, *FILES.values()):
        _check_no_link(folder / name)
    new = {ROBOT: _renamed(folder / ROBOT, ROBOT)}
    for old, name in FILES.items():
        if (folder / old).exists() and (folder / name).exists():
            raise UserError(f"{folder} has both {old} and {name}; leave one")
        files = [folder / old, *sorted((folder / old).glob("*.yaml"))]
        files += [folder / name, *sorted((folder / name).glob("*.yaml"))]
        for file in files:
            if file.is_file():
                new[str(file.relative_to(folder))] = _renamed(file, SIM_PARAMS)
    moved = {old: name for old, name in FILES.items() if (folder / old).exists()}
    changed = {name: text for name, text in new.items() if text is not None}
    if not changed and not moved:
        return Migration("robot", ())
    with replacing_folder(folder, overwrite=True) as fresh:
        shutil.copytree(folder, fresh, symlinks=True, dirs_exist_ok=True)
        for name, text in changed.items():
            (fresh / name).write_bytes(text.encode())
        for old, name in moved.items():
            (fresh / old).rename(fresh / name)
    return Migration("robot", tuple(changed) + tuple(f"{a} as {b}" for a, b in moved.items()))


def _sim_params(file: Path) -> Migration:
    new = _renamed(file, SIM_PARAMS)
    if new is None:
        return Migration("sim parameters", ())
    data = parse_yaml(new, file)
    sim_params_from_dict({key: data[key] for key in data if key != "schema"}, str(file))
    write_file(file, new, overwrite=True)
    return Migration("sim parameters", (file.name,))


def _run(folder: Path) -> Migration:
    _check_no_link(folder / CONFIG)
    if not is_earlier({"schema": OLD_SCHEMA, **read_mapping(folder / CONFIG)}, CONFIG):
        read_config(folder / CONFIG)
        return Migration("run", ())
    return Migration("run", convert_run(folder))


def _bundle(path: Path) -> Migration:
    """Its names, and the form in which skills that have weights in common are stored."""
    found = read_files(path)
    files = whole(found, path)
    rewritten: tuple[str, ...] = (MANIFEST,)
    if is_current(files, path):
        load_bundle(path)
        rewritten = tuple(n for n, data in stored(files).items() if found.get(n) != data)
    else:
        files = converted(files, path)
    if rewritten:
        (write_folder if path.is_dir() else write_zip)(files, path)
        load_bundle(path)
    return Migration("bundle", rewritten)


def _renamed(file: Path, kind: str) -> str | None:
    """The text of a file with the new names; None where it has them already.

    Raises:
        UserError: it is no YAML mapping, or of an unknown schema.
    """
    _check_no_link(file)
    data = read_mapping(file)
    if not is_earlier(data, kind):
        check_schema(data, kind, file, file)
        return None
    return rename_text(file.read_bytes().decode(), kind, file)  # no line end is changed


def _check_no_link(path: Path) -> None:
    """Refuse a link: what it leads to belongs to something else, and may be used there.

    Raises:
        UserError: it is one.
    """
    if path.is_symlink():
        raise UserError(f"{path}: is a symbolic link, which is not followed; migrate its target")
