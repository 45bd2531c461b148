"""Run folders of an earlier schema: the same training, described with the names of this one."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np

from policies.mlsh.config import config_from_dict, read_config
from policies.training.metrics import MOST_BYTES
from policies.training.run import Run
from policies.training.trained_with import (
    KEY,
    Trained,
    read_trained,
    settings_digest,
    stored_training,
)
from sim.errors import UserError
from sim.files.arrays import load_arrays, save_arrays
from sim.files.bounded import read_bounded
from sim.files.migrations import (
    CHANGES,
    CONFIG,
    FILES,
    OLD_SCHEMA,
    SCHEMA,
    rename,
    rename_text,
    undone,
)
from sim.files.output import replacing_folder
from sim.files.strict_json import parse_json
from sim.interface import Interface
from sim.interface.term_sources import drop_later
from sim.physics.robot_model import load_robot

ROBOT = "robot.yaml"
METRICS, CHECKPOINT = "metrics.csv", "checkpoint.npz"
COLUMNS = {"reseeded": "reset_skill"}  # of it
ARRAYS = {  # of a checkpoint
    "collector.astray": "collector.is_random",
    "collector.pending.astray": "collector.pending.is_random",
}


def convert_run(folder: Path) -> tuple[str, ...]:
    """Rewrite a run folder in its place; returns the files that were rewritten.

    Its robot has to have the new names already.

    Raises:
        UserError: the configuration or the checkpoint is damaged, a file that would be rewritten
            is a link, or another process uses it.
    """
    new = rename_text((folder / CONFIG).read_bytes().decode(), CONFIG, folder / CONFIG)
    with Run(folder).locked(), replacing_folder(folder, overwrite=True) as fresh:
        ignore = shutil.ignore_patterns(".lock")
        shutil.copytree(folder, fresh, symlinks=True, dirs_exist_ok=True, ignore=ignore)
        (fresh / CONFIG).write_bytes(new.encode())
        read_config(fresh / CONFIG)
        done = [CONFIG, *_convert_checkpoint(fresh, folder), *_convert_metrics(fresh, folder)]
    return tuple(done)


def _own(path: Path, folder: Path) -> Path:
    """Returns a file of the copy of `folder` that is about to be rewritten.

    Raises:
        UserError: it is a link, as links are copied; its target belongs to something else.
    """
    if path.is_symlink():
        raise UserError(
            f"{folder / path.name}: is a symbolic link, which is not followed; put the file "
            "itself in its place"
        )
    return path


def _convert_checkpoint(fresh: Path, folder: Path) -> list[str]:
    """Rename what a checkpoint states about its training, and the digests in the curves.

    Args:
        fresh: the copy that is rewritten.
        folder: that it is of, named in errors.
    """
    path, where = fresh / CHECKPOINT, folder / CHECKPOINT
    arrays = load_arrays(path) if path.is_file() else {}
    if KEY not in arrays:
        return []
    data = stored_training(arrays, str(where))
    settings = settings_digest(data["config"], tuple(data["changes"]))
    data["config"] = rename(data["config"], CHANGES[CONFIG], where)
    config = config_from_dict(data["config"], str(where))
    before = Trained(config, data["files"], tuple(data["changes"]))
    data["files"] = _same_files(config.robot, data["files"])
    text = json.dumps(data, sort_keys=True).encode()
    arrays = {ARRAYS.get(name, name): array for name, array in arrays.items()}
    save_arrays(_own(path, folder), {**arrays, KEY: np.frombuffer(text, np.uint8)})
    after = read_trained(load_arrays(path), str(path))
    assert after is not None
    old = f",{settings},{before.robot_digest}"
    new = f",{after.settings_digest},{after.robot_digest}"
    return [CHECKPOINT, *_replace_in_curves(fresh, old, new, folder)]


def _convert_metrics(fresh: Path, folder: Path) -> list[str]:
    """Rename columns of the training's metrics."""
    path = fresh / METRICS
    data = read_bounded(path, MOST_BYTES) if path.is_file() else b""
    head, newline, rest = data.partition(b"\n")
    new = ",".join(COLUMNS.get(each, each) for each in head.decode(errors="replace").split(","))
    if new == head.decode(errors="replace"):
        return []
    _own(path, folder).write_bytes(new.encode() + newline + rest)
    return [METRICS]


def _same_files(robot: str, files: dict[str, str]) -> dict[str, str]:
    """Digests of the robot's files, those with new names where nothing but names changed."""
    body = load_robot(robot)
    known = {FILES.get(name, name): digest for name, digest in files.items()}
    if known.get(ROBOT) == _earlier_digest(body.interface):
        known[ROBOT] = body.interface.digest
    for new in FILES.values():
        path = body.model_path.with_name(new)
        if new in known and path.is_file():
            text = path.read_bytes()
            old = text.replace(f"schema: {SCHEMA}".encode(), f"schema: {OLD_SCHEMA}".encode(), 1)
            if known[new] == hashlib.sha256(old).hexdigest():
                known[new] = hashlib.sha256(text).hexdigest()
    return known


def _earlier_digest(interface: Interface) -> str:
    """`Interface.digest` as the same robot had it under the old names."""
    made = json.dumps(asdict(interface, dict_factory=drop_later))  # type: ignore[call-overload]
    data = parse_json(made.encode(), "interface")
    text = json.dumps(rename(data, undone(CHANGES[ROBOT]), ROBOT), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _replace_in_curves(fresh: Path, old: str, new: str, folder: Path) -> list[str]:
    before, after = old.encode(), new.encode()
    tables = [path for path in sorted(fresh.glob("*.csv")) if path.is_file()]
    texts = {path: read_bounded(path, MOST_BYTES) for path in tables}
    found = {path: text.replace(before, after) for path, text in texts.items() if before in text}
    for path, text in found.items():
        _own(path, folder).write_bytes(text)
    return [path.name for path in found]
