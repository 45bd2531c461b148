"""Settings that a checkpoint was trained with, compared with the present ones on resume."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from policies.bundle.task_compatibility import FAMILY
from policies.mlsh.config import TrainConfig, config_from_dict, config_to_dict
from sim.errors import UserError, listed, short
from sim.files.arrays import Arrays
from sim.files.strict_json import parse_json
from sim.physics.model_files import assets, documents
from sim.physics.robot_model import load_robot
from sim.randomization.schema import RANGES
from sim.tasks.registry import family_source

KEY = "trained"  # of the array in a checkpoint
FREE = ("steps", "threads", "checkpoint_every")  # what is learned in a tick does not depend on it
# Settings that came later, and their defaults, with which a training is what it was without them:
# digests do not depend on them.
LATER: dict[str, Any] = {
    **dict.fromkeys(("network.skill_hidden", "network.master_hidden", "network.value_hidden")),
    "network.activation": "tanh",
    "network.master_activation": None,
    "network.privileged": [],
    **dict.fromkeys(
        ("regularization.temporal_smoothness", "regularization.spatial_smoothness"), 0.0
    ),
    "regularization.spatial_deviation": 0.05,
    "regularization.symmetry": "none",
    "regularization.mirror_loss": 0.5,
    "curriculum.cost_scale": 1.0,
    "curriculum.cost_until": 0.0,
    "curriculum.difficulty_until": 0.0,
    "curriculum.randomization_until": 0.0,
    "exploration.correlation": 0.0,
    "exploration.final_std": None,
    "exploration.std_until": 0.0,
}
FILES = ("robot.yaml", "model.xml", RANGES)  # of every robot; some have more, named in model.xml


class ChangedError(UserError):
    """A configuration or file changed after a result was computed from it."""


@dataclass(frozen=True)
class Trained:
    """The configuration of a training, the robot's files, and changes during the training."""

    config: TrainConfig
    files: dict[str, str]  # digests by name; that of a family that does not ship is among them
    changes: tuple[str, ...] = ()

    def to_array(self) -> np.ndarray[Any, Any]:
        """Serialize as an array for a checkpoint."""
        data = {
            "config": config_to_dict(self.config),
            "files": self.files,
            "changes": list(self.changes),
        }
        return np.frombuffer(json.dumps(data, sort_keys=True).encode(), np.uint8)

    @property
    def settings_digest(self) -> str:
        """Digest of all settings that affect the training, without the robot's files."""
        return settings_digest(config_to_dict(self.config), self.changes)

    @property
    def robot_digest(self) -> str:
        """Digest of the robot's files."""
        return _digest(json.dumps(self.files, sort_keys=True).encode())[:16]

    def differences(self, other: Trained) -> list[str]:
        """Differences of `other`, including its files: `key mine -> theirs`."""
        mine, theirs = _flat(config_to_dict(self.config)), _flat(config_to_dict(other.config))
        keys = [key for key in {**mine, **theirs} if key not in FREE]
        found = [
            f"{key} {short(mine.get(key), 60)} -> {short(theirs.get(key), 60)}"
            for key in keys
            if mine.get(key) != theirs.get(key)
        ]
        # A file that only the other has comes with a change in one that names it.
        known = dict.fromkeys([*FILES, *self.files])
        names = [name for name in known if self.files.get(name) != other.files.get(name)]
        robot = short(self.config.robot)
        return found + [
            f"the file of {name}" if name.startswith(FAMILY) else f"{name} of robot {robot}"
            for name in names
        ]

    def followed_by(self, now: Trained, iteration: int, versions: Sequence[str] = ()) -> Trained:
        """Returns the continuation of this training with the settings of `now`.

        Args:
            now: the present settings and files.
            iteration: after which it goes on.
            versions: that are others now, in words; each is kept once.
        """
        changes = self.differences(now)
        changes += [text for text in versions if not any(text in c for c in self.changes)]
        more = (f"from iteration {iteration}: {'; '.join(changes)}",) if changes else ()
        return replace(now, changes=(*self.changes, *more))


def trained_now(config: TrainConfig) -> Trained:
    """Returns a configuration with the present state of the robot's files."""
    robot = load_robot(config.robot)
    source = family_source(config.family)
    family = {} if source is None else {f"{FAMILY}{config.family}": source.digest}
    files = {name: _digest(path.read_bytes()) for name, path in _files(robot.model_path).items()}
    files["robot.yaml"] = robot.interface.digest  # but for comments
    # Signals are no part of the interface; of these, value functions learned.
    if seen := [s for s in robot.signals if s.name in config.network.privileged]:
        files["signals"] = _digest(json.dumps([asdict(s) for s in seen]).encode())
    if robot.mirror is not None and config.regularization.symmetry != "none":
        files["mirror"] = _digest(json.dumps(asdict(robot.mirror), sort_keys=True).encode())
    return Trained(config, files | family)


def settings_digest(config: dict[str, Any], changes: tuple[str, ...]) -> str:
    """Digest of a configuration as plain data, without settings that do not affect training."""
    kept = {
        key: value
        for key, value in _flat(config).items()
        if key not in FREE and not (key in LATER and value == LATER[key])
    }
    return _digest(json.dumps([kept, changes], sort_keys=True).encode())[:16]


@contextmanager
def held(trained: Trained) -> Iterator[None]:
    """Check around a block that the robot's files do not change while it reads them.

    Raises:
        ChangedError: they were changed, so the result is invalid.
    """
    yield
    if changes := trained.differences(trained_now(trained.config)):
        raise ChangedError(f"changed during the training: {listed(changes, '; ')}")


def _files(model: Path) -> dict[str, Path]:
    folder = model.absolute().parent
    named = [p for p in (folder / name for name in FILES) if p.is_file()]
    more = [Path(os.path.abspath(p)) for p in (*documents(folder / model.name), *assets(model))]
    return {os.path.relpath(p, folder): p for p in (*named, *more) if p.is_file()}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read_trained(arrays: Arrays, where: str) -> Trained | None:
    """Returns the training stored in a checkpoint; None if its version did not store it.

    Raises:
        UserError: the checkpoint is damaged.
    """
    if KEY not in arrays:
        return None
    data = stored_training(arrays, where)
    return Trained(config_from_dict(data["config"], where), data["files"], tuple(data["changes"]))


def stored_training(arrays: Arrays, where: str) -> dict[str, Any]:
    """Returns what a checkpoint states about its training: `config`, `files` and `changes`.

    Raises:
        UserError: it is damaged: these are not a mapping, a mapping of texts, and texts.
    """
    try:
        data = parse_json(arrays[KEY].astype(np.uint8).tobytes(), where)
        config, files, changes = (data[key] for key in ("config", "files", "changes"))
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise UserError(f"{where}: what it was trained with is not readable ({error})") from None
    if not (isinstance(config, dict) and isinstance(files, dict) and isinstance(changes, list)):
        raise UserError(
            f"{where}: what it was trained with is not readable: config {short(config, 40)}, "
            f"files {short(files, 40)}, changes {short(changes, 40)}"
        )
    if odd := [each for each in (*files.values(), *changes) if not isinstance(each, str)]:
        raise UserError(
            f"{where}: what it was trained with is not readable: {short(odd[0], 40)} is no text"
        )
    return {"config": config, "files": files, "changes": changes}


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        inner = isinstance(value, dict) and value
        flat |= _flat(value, f"{prefix}{key}.") if inner else {prefix + key: value}
    return flat
