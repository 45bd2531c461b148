"""The task families by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from sim.errors import UserError, invalid, unknown
from sim.tasks.ant_bandits import AntBandits
from sim.tasks.ant_mazes import AntMazes
from sim.tasks.ant_movement import AntMovement
from sim.tasks.ant_obstacles import AntObstacles
from sim.tasks.base import HELD_OUT, TaskFamily
from sim.tasks.body_bandits import BodyBandits
from sim.tasks.moving_bandits import MovingBandits
from sim.tasks.ring_bandits import RingBandits
from sim.tasks.rooms import Rooms

FAMILIES: dict[str, type[TaskFamily]] = {
    cls.name: cls
    for cls in (
        MovingBandits,
        RingBandits,
        BodyBandits,
        Rooms,
        AntMovement,
        AntBandits,
        AntMazes,
        AntObstacles,
    )
}


def make_family(name: str, parameters: Mapping[str, Any] | None = None) -> TaskFamily:
    """A task family with the given parameters, the others at their defaults.

    Raises:
        UserError: no such family or parameter.
    """
    if name not in FAMILIES:
        raise unknown("task family", name, FAMILIES)
    try:
        family: TaskFamily = TypeAdapter(FAMILIES[name]).validate_python(dict(parameters or {}))
    except ValidationError as error:
        raise invalid(f"task family {name!r}", error) from None
    return family


def task_number(family: TaskFamily, task: str) -> int:
    """The number of a task by its name.

    Raises:
        UserError: no such task; the valid ones are named.
    """
    if task not in family.tasks:
        raise unknown("task", task, family.tasks)
    return family.tasks.index(task)


def all_tasks(name: str) -> dict[str, float | int]:
    """The parameters with which a family has every task that there is; mostly none.

    Tasks keep their number, whatever a run has seen of them.
    """
    return dict(getattr(FAMILIES[name], "all_tasks", {}))


def split_task(
    text: str, parameters: Mapping[str, float | int] | None = None
) -> tuple[TaskFamily, int]:
    """The family and the task number that `family/task` names.

    Args:
        text: family/task.
        parameters: of the family; which tasks a training saw does not count among them.

    Raises:
        UserError: no such family, parameter or task; the valid ones are named.
    """
    name, slash, task = text.partition("/")
    given = {k: v for k, v in (parameters or {}).items() if k != HELD_OUT}
    family = make_family(name, {**given, **all_tasks(name)} if name in FAMILIES else None)
    choices = [f"{name}/{each}" for each in family.tasks]
    if not slash:
        raise UserError(f"task {text!r} names a family only. Valid: {', '.join(choices)}")
    if task not in family.tasks:
        raise unknown("task", text, choices)
    return family, family.tasks.index(task)
