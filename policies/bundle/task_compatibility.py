"""Constructs the task family for a bundle and checks both against a robot; without torch."""

from __future__ import annotations

import logging
from dataclasses import fields
from typing import Any

from policies.bundle.bundle import Bundle
from policies.bundle.robot_compatibility import difference
from sim.errors import UserError, short, visible
from sim.interface import ActionTerm, Interface, ObservationTerm
from sim.physics.robot_model import Robot, robot_names
from sim.tasks.base import TaskFamily
from sim.tasks.registry import family_names, family_source, find_task, make_family
from sim.tasks.rewards import Rewards
from sim.tasks.task_id import TaskId

FAMILY = "task family "  # and its name: a version in the provenance, the digest of its file

_log = logging.getLogger(__name__)
_SAID: set[str] = set()  # warnings that stand on the terminal already


def robot_of(bundle: Bundle, robot: str | None) -> str:
    """Returns name or folder of the given robot; by default the bundle's, if it is shipped.

    Raises:
        UserError: the bundle's robot is not shipped, so its folder must be given.
    """
    own = bundle.interface.robot
    if robot is None and own not in robot_names():
        raise UserError(
            f"bundle {bundle.label} is for robot {own!r}, which does not ship with this "
            f"package; name its folder with --robot FOLDER. Shipped: {', '.join(robot_names())}"
        )
    return robot or own


def resolve_task(bundle: Bundle, task: TaskId) -> tuple[TaskFamily, int]:
    """Returns the family of a task with the bundle's parameters, and the task's number in it.

    The family that the skills were trained on has the parameters of that training, any other
    family its defaults.

    Raises:
        UserError: no such family or task; the valid ones are listed.
    """
    return find_task(task, _parameters(bundle, task.family))


def select_tasks(bundle: Bundle, task: TaskId) -> list[TaskId]:
    """Returns the task itself, or all tasks of a family that is named without one."""
    if task.name is not None:
        return [task]
    family = make_family(task.family, _parameters(bundle, task.family))
    return [TaskId(family.name, name) for name in family.tasks]


def _parameters(bundle: Bundle, family: str) -> dict[str, Any] | None:
    own = bundle.manifest.family
    _check_is_known(bundle, family)
    _warn_of_another_file(bundle, family)
    return own.parameters if family == own.name else None


def _check_is_known(bundle: Bundle, family: str) -> None:
    """Refuse a user's task family that is not loaded; no file of a bundle makes it load one.

    Raises:
        UserError: says how to load it.
    """
    manifest = bundle.manifest
    of_masters = {TaskId.parse(each.task).family for each in manifest.masters.values()}
    if family in family_names() or family not in {manifest.family.name, *of_masters}:
        return
    raise UserError(
        f"bundle {bundle.label} was trained on task family {family!r}, which does not ship "
        "with this package and is not imported unless you name it: --family FILE.py:Class, and "
        "family:=FILE.py:Class with launch"
    )


def _warn_of_another_file(bundle: Bundle, family: str) -> None:
    """Warn if a user's task family is not the file that the bundle was trained with."""
    key, manifest = f"{FAMILY}{family}", bundle.manifest
    provenances = [manifest.provenance, *(each.provenance for each in manifest.masters.values())]
    recorded = {each.versions[key] for each in provenances if key in each.versions}
    if not recorded or (source := family_source(family)) is None or source.digest in recorded:
        return
    text = (
        f"bundle {bundle.label} was trained with another file of task family {family!r} than "
        f"{source.file}: its scores may be of another task"
    )
    if text not in _SAID:
        _SAID.add(text)
        _log.warning(visible(text))


def changed_parameters(bundle: Bundle, task: TaskId) -> dict[str, Any]:
    """Parameters of a task's family that are not its defaults, see `resolve_task`."""
    family, _ = resolve_task(bundle, task)
    default, _ = find_task(task)
    names = [field.name for field in fields(family)]  # type: ignore[arg-type]
    values = {name: getattr(family, name) for name in names}
    changed = {k: v for k, v in values.items() if v != getattr(default, k)}
    return {k: v.to_dict() if isinstance(v, Rewards) else v for k, v in changed.items()}


def check_fits(bundle: Bundle, robot: Robot, task: TaskId) -> None:
    """Refuse a robot or task whose interface differs from the one the skills were trained for.

    Raises:
        UserError: names the first difference.
    """
    check_family_fits(bundle, robot, resolve_task(bundle, task)[0], task)


def check_family_fits(bundle: Bundle, robot: Robot, family: TaskFamily, task: TaskId) -> None:
    """Refuse a family, with any parameters, that does not fit; `task` is its name in errors."""
    offered, wanted = robot.interface.with_terms(family.terms), bundle.interface
    if offered == wanted:
        return
    theirs = _terms(offered)
    for name, term in _terms(wanted).items():
        if name not in theirs:
            raise UserError(
                f"task {str(task)!r} on robot {robot.name!r} has no term {name!r}, which bundle "
                f"{bundle.label} needs. It has: {', '.join(theirs)}"
            )
        if theirs[name] != term:
            key, own, here = difference(term, theirs[name]) or ("", term, theirs[name])
            raise UserError(
                f"term {name!r} of task {str(task)!r} on robot {robot.name!r} is not the one that "
                f"bundle {bundle.label} was trained with: {name}{key} is "
                f"{short(own, 100)} in the bundle and {short(here, 100)} there"
            )
    seen = [term.name for term in wanted.observation]
    more = [term.name for term in offered.observation if term.name not in seen]
    if more and offered.action == wanted.action:
        raise UserError(
            f"task {str(task)!r} on robot {robot.name!r} shows {', '.join(more)}, which bundle "
            f"{bundle.label} does not observe; mlsh import-skill {bundle.source} {family.name} "
            f"--robot {robot.name} -o FOLDER makes a bundle of its skills whose masters do"
        )
    key, own, here = difference(wanted, offered) or ("", wanted, offered)
    raise UserError(
        f"task {str(task)!r} on robot {robot.name!r} has another interface than bundle "
        f"{bundle.label}: {key.lstrip('.')} is {short(own, 100)} in the bundle and "
        f"{short(here, 100)} there"
    )


def _terms(interface: Interface) -> dict[str, ObservationTerm | ActionTerm]:
    return {t.name: t for t in interface.observation} | {t.name: t for t in interface.action}
