"""What a checkpoint was trained with: kept in it, and held against what stands there now."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from policies.mlsh.config import TrainConfig, config_from_dict, config_to_dict
from sim.errors import UserError, short
from sim.files.arrays import Arrays
from sim.files.strict_json import parse_json
from sim.physics.robot_model import load_robot
from sim.randomization.schema import RANGES

KEY = "trained"  # of the array in a checkpoint
FREE = ("steps", "threads", "checkpoint_every")  # what is learned in a tick does not depend on it
FILES = ("robot.yaml", "model.xml", RANGES)  # of a robot


@dataclass(frozen=True)
class Trained:
    """The configuration of a training, the robot's files, and what was changed on the way."""

    config: TrainConfig
    files: dict[str, str]  # digests by name
    changes: tuple[str, ...] = ()

    def to_array(self) -> np.ndarray[Any, Any]:
        """As an array for a checkpoint."""
        data = {
            "config": config_to_dict(self.config),
            "files": self.files,
            "changes": list(self.changes),
        }
        return np.frombuffer(json.dumps(data, sort_keys=True).encode(), np.uint8)

    def differences(self, other: Trained) -> list[str]:
        """What `other` has differently, and what it learns from: `key mine -> theirs`."""
        mine, theirs = _flat(config_to_dict(self.config)), _flat(config_to_dict(other.config))
        keys = [key for key in {**mine, **theirs} if key not in FREE]
        found = [
            f"{key} {short(mine.get(key), 60)} -> {short(theirs.get(key), 60)}"
            for key in keys
            if mine.get(key) != theirs.get(key)
        ]
        names = [name for name in FILES if self.files.get(name) != other.files.get(name)]
        return found + [f"{name} of robot {short(self.config.robot)}" for name in names]

    def followed_by(self, now: Trained, iteration: int) -> Trained:
        """What goes on from here with the settings of `now`."""
        changes = self.differences(now)
        more = (f"from iteration {iteration}: {'; '.join(changes)}",) if changes else ()
        return replace(now, changes=(*self.changes, *more))


def trained_now(config: TrainConfig) -> Trained:
    """A configuration, with the robot's files as they are."""
    robot = load_robot(config.robot)
    paths = [robot.model_path.with_name(name) for name in FILES]
    files = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in paths if p.is_file()}
    return Trained(config, {**files, "robot.yaml": robot.interface.digest})  # but for comments


def read_trained(arrays: Arrays, where: str) -> Trained | None:
    """What stands in a checkpoint; None in one of a version that did not keep it.

    Raises:
        UserError: it is damaged.
    """
    if KEY not in arrays:
        return None
    try:
        data = parse_json(arrays[KEY].astype(np.uint8).tobytes(), where)
        return Trained(
            config_from_dict(data["config"], where), dict(data["files"]), tuple(data["changes"])
        )
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{where}: what it was trained with is not readable ({error})") from None


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        inner = isinstance(value, dict) and value
        flat |= _flat(value, f"{prefix}{key}.") if inner else {prefix + key: value}
    return flat
