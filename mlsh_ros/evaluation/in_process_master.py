"""Runs a master in the same process instead of master_node."""

from __future__ import annotations

import numpy as np

from mlsh_ros.control.control_step import Decide
from mlsh_ros.control.controller import Controller, Request, Skill
from mlsh_ros.control.faults import FaultError
from policies.bundle.runtime import choose


def decide_with(controller: Controller, master: Skill) -> Decide:
    """A master in the same process, (1, O) to (1, K), that decides greedily and at once."""

    def decide(request: Request | None) -> None:
        if request is None:
            return
        logits = master(request.observation[None])[0]
        if not np.isfinite(logits).all():
            raise FaultError("master_silent", f"logits are not finite: {logits.tolist()}")
        controller.set_decision(request.macro, choose(logits))

    return decide
