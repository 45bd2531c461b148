"""Provenance of a result: robot, model and simulation parameters by name and digest.

Names alone are not sufficient: two folders may have a robot of the same name.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

import mujoco
import numpy as np

from mlsh_ros.evaluation.case import EvaluationCase
from sim.physics.robot_model import Robot
from sim.randomization.schema import sim_params_to_dict


@dataclass(frozen=True)
class Measured:
    """Identity of the measured bundle, robot and simulation."""

    bundle: str  # its name
    digest: str  # digest of the bundle
    robot: str  # the name in robot.yaml of the robot that was driven
    robot_given: str  # how the user named it: a shipped robot, or a folder
    interface_digest: str  # digest of its robot.yaml
    model_digest: str  # digest of its compiled model, with its meshes
    mujoco: str  # version of MuJoCo; models of two versions cannot be compared by their digest
    sim_params: str | None  # how the user named what differs from the nominal model; None: nothing
    sim_params_digest: str | None  # digest of what differs

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @property
    def facts(self) -> dict[str, str]:
        """Short texts for the user."""
        facts = {
            "robot": self.robot,
            "robot given as": self.robot_given,
            "robot.yaml": self.interface_digest[:12],
            "model": self.model_digest[:12],
            "sim_params": "nominal",
        }
        if self.sim_params is not None and self.sim_params_digest is not None:
            facts["sim_params"] = f"{self.sim_params} ({self.sim_params_digest[:12]})"
        return facts


def measured(case: EvaluationCase) -> Measured:
    """Returns the identity for episodes of a case, or of others with its bundle and robot."""
    robot, params = case.robot, case.sim_params
    differs = None if params is None else json.dumps(sim_params_to_dict(params), sort_keys=True)
    return Measured(
        bundle=case.bundle.manifest.name,
        digest=case.bundle.manifest.digest,
        robot=robot.name,
        robot_given=case.robot_given,
        interface_digest=robot.interface.digest,
        model_digest=_model_digest(robot),
        mujoco=mujoco.__version__,
        sim_params=case.sim_params_given or None,
        sim_params_digest=None if differs is None else _digest(differs),
    )


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _model_digest(robot: Robot) -> str:
    model = robot.compile()
    data = np.zeros(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, data)
    return sha256(data.tobytes()).hexdigest()
