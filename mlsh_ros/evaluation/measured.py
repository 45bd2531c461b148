"""What was measured: a result names its robot, its model and what differed, by name and digest.

Names alone do not tell: two folders may hold a robot of one name.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

import mujoco
import numpy as np

from policies.bundle.bundle import Bundle
from sim.physics.robot_model import Robot, load_robot
from sim.randomization.schema import load_reality, reality_to_dict


@dataclass(frozen=True)
class Measured:
    """Whose scores they are."""

    bundle: str
    digest: str  # of the bundle
    robot: str  # the name in robot.yaml of the robot that was driven
    robot_given: str  # how the user named it: a shipped robot, or a folder
    interface_digest: str  # of its robot.yaml
    model_digest: str  # of its compiled model, which holds meshes and all
    mujoco: str  # version, without which the latter cannot be compared
    reality: str | None  # how the user named what differs from the model; None: nothing
    reality_digest: str | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @property
    def facts(self) -> dict[str, str]:
        """For people, in short."""
        facts = {
            "robot": self.robot,
            "robot given as": self.robot_given,
            "robot.yaml": self.interface_digest[:12],
            "model": self.model_digest[:12],
            "reality": "nominal",
        }
        if self.reality is not None and self.reality_digest is not None:
            facts["reality"] = f"{self.reality} ({self.reality_digest[:12]})"
        return facts


def measured(bundle: Bundle, robot: str, reality: str = "") -> Measured:
    """What is measured with these names.

    Raises:
        UserError: there is no such robot or reality.
    """
    body = load_robot(robot)
    differs = reality_to_dict(load_reality(reality, body)) if reality else None
    return Measured(
        bundle=bundle.manifest.name,
        digest=bundle.manifest.digest,
        robot=body.name,
        robot_given=robot,
        interface_digest=body.interface.digest,
        model_digest=_model_digest(body),
        mujoco=mujoco.__version__,
        reality=reality or None,
        reality_digest=None if differs is None else _digest(json.dumps(differs, sort_keys=True)),
    )


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _model_digest(robot: Robot) -> str:
    model = robot.compile()
    data = np.zeros(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, data)
    return sha256(data.tobytes()).hexdigest()
