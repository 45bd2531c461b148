"""Whether a bundle fits a robot and a task; needs no torch."""

from __future__ import annotations

from policies.bundle import Bundle
from sim.errors import UserError
from sim.interface import ActionTerm, Interface, ObservationTerm
from sim.registry import split_task
from sim.robot import Robot


def check_fits(bundle: Bundle, robot: Robot, task: str) -> None:
    """Refuse a robot or task whose interface is not the one that the skills were trained for.

    Raises:
        UserError: names the first difference.
    """
    family, _ = split_task(task)
    offered, wanted = robot.interface.with_terms(family.terms), bundle.interface
    if offered == wanted:
        return
    theirs = _terms(offered)
    for name, term in _terms(wanted).items():
        if name not in theirs:
            raise UserError(
                f"task {task!r} on robot {robot.name!r} has no term {name!r}, which bundle "
                f"{bundle.manifest.name!r} needs. It has: {', '.join(theirs)}"
            )
        if theirs[name] != term:
            raise UserError(
                f"term {name!r} of task {task!r} on robot {robot.name!r} is not the one that "
                f"bundle {bundle.manifest.name!r} was trained with"
            )
    raise UserError(
        f"task {task!r} on robot {robot.name!r} has another interface than bundle "
        f"{bundle.manifest.name!r}: robot, order of terms or time steps differ"
    )


def _terms(interface: Interface) -> dict[str, ObservationTerm | ActionTerm]:
    return {t.name: t for t in interface.observation} | {t.name: t for t in interface.action}
