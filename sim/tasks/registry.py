"""All task families by name: shipped (`FAMILIES`), from installed packages, and the user's own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from sim.errors import UserError, short, unknown, validated
from sim.files.entry_points import installed
from sim.tasks.ant_bandits import AntBandits
from sim.tasks.ant_mazes import AntMazes
from sim.tasks.ant_movement import AntMovement
from sim.tasks.ant_obstacles import AntObstacles
from sim.tasks.base import HELD_OUT, TaskFamily
from sim.tasks.body_bandits import BodyBandits
from sim.tasks.body_patrol import BodyPatrol
from sim.tasks.body_rooms import BodyRooms
from sim.tasks.family_check import check_family, check_instance
from sim.tasks.family_source import (
    EXPECTED,
    GROUP,
    FamilySource,
    is_source,
    load_entry_point,
    load_source,
    owner,
    source_of,
)
from sim.tasks.mazes import Mazes
from sim.tasks.moving_bandits import MovingBandits
from sim.tasks.obstacles import Obstacles
from sim.tasks.patrol import Patrol
from sim.tasks.reach import Reach
from sim.tasks.reach_sequence import ReachSequence
from sim.tasks.ring_bandits import RingBandits
from sim.tasks.rooms import Rooms
from sim.tasks.table_reach import TableReach
from sim.tasks.table_reach_sequence import TableReachSequence
from sim.tasks.task_id import TaskId
from sim.tasks.two_targets import TwoTargets
from sim.tasks.velocity_commands import VelocityCommands

MAX_TICKS = 100_000  # of an episode, which is simulated and held in memory as a whole

# Those that ship with the package.
FAMILIES: dict[str, type[TaskFamily]] = {
    cls.name: cls
    for cls in (
        MovingBandits,
        RingBandits,
        Patrol,
        BodyBandits,
        Rooms,
        AntMovement,
        AntBandits,
        AntMazes,
        AntObstacles,
        TwoTargets,
        BodyPatrol,
        Mazes,
        BodyRooms,
        Obstacles,
        Reach,
        ReachSequence,
        TableReach,
        TableReachSequence,
        VelocityCommands,
    )
}
# Those that the user has named in this process, and entry points that were loaded.
_LOADED: dict[str, tuple[type[TaskFamily], FamilySource]] = {}


def family_names() -> list[str]:
    """Names of all available task families; imports nothing."""
    return list(dict.fromkeys([*FAMILIES, *installed(GROUP), *_LOADED]))


def family_class(name: str) -> type[TaskFamily]:
    """Returns a family's class by its name.

    Raises:
        UserError: there is none, there are two, or an installed package's does not load.
    """
    if name in _LOADED:
        return _LOADED[name][0]
    if len(owners := _owners(name)) > 1:
        raise UserError(f"task family {name!r} is two: {' and '.join(owners)}; uninstall one")
    if name in FAMILIES:
        return FAMILIES[name]
    if name not in installed(GROUP):
        raise UserError(
            f"{unknown('task family', name, family_names())}; or name its class: {EXPECTED}"
        )
    cls, source = load_entry_point(installed(GROUP)[name][0])
    family = check_family(cls, source.text)
    if family.name != name:
        raise UserError(
            f"task family {name!r}: {owners[0]} calls itself {family.name!r}; the entry point "
            "has to have that name"
        )
    _LOADED[name] = family, source
    return family


def use_family(text: str) -> str:
    """Load and register a family that the user refers to; returns its name.

    Args:
        text: the name of a known family, or package.module:Class, FILE.py, or FILE.py:Class.

    Raises:
        UserError: it does not import, is no task family, or another one has its name.
    """
    if not is_source(text):
        family_class(text)
        return text
    cls, source = load_source(text)
    family = check_family(cls, text)
    name = family.name
    others = [each for each in _owners(name) if not each.startswith(f"{source.text} of ")]
    if name in _LOADED and _LOADED[name][1] != source:
        others.append(_LOADED[name][1].text)
    if others:
        raise UserError(
            f"task family {short(text, 500)} is called {name!r}, and so is {others[0]}; give it "
            "another name"
        )
    _LOADED[name] = family, source
    return name


def use_families(texts: str) -> None:
    r"""Load and register several families, separated by commas; an empty text has none.

    A comma in the path of a file is written as `\,`, as `joined_sources` does.
    """
    for text in filter(None, re.split(r"(?<!\\),", texts)):
        use_family(text.strip().replace("\\,", ","))


def add_family(cls: type) -> str:
    """Register a class that is already in this process; returns its name.

    Raises:
        UserError: it is no task family, or another one has its name.
    """
    family = check_family(cls, cls.__qualname__)
    if (others := _owners(family.name)) or _LOADED.get(family.name, (cls,))[0] is not cls:
        also = others[0] if others else family_source(family.name)
        raise UserError(f"task family {family.name!r}: {also} has that name; give it another one")
    _LOADED[family.name] = family, source_of(cls)
    return family.name


def family_source(name: str) -> FamilySource | None:
    """Returns the origin of a family; None if it is shipped with the package."""
    family_class(name)
    return _LOADED[name][1] if name in _LOADED else None


def user_sources() -> list[str]:
    """Origins of the families that the user has loaded, for another process to load too."""
    return [source.text for _, source in _LOADED.values()]


def joined_sources() -> str:
    """`user_sources` as one text, which `use_families` reads."""
    return ",".join(text.replace(",", "\\,") for text in user_sources())


def _owners(name: str) -> list[str]:
    """Returns the origins of a family name, without those the user loaded."""
    shipped = FAMILIES.get(name)
    return [
        *([f"{shipped.__module__}:{shipped.__name__} of package mlsh_ros"] if shipped else []),
        *(owner(entry) for entry in installed(GROUP).get(name, [])),
    ]


def make_family(name: str, parameters: Mapping[str, Any] | None = None) -> TaskFamily:
    """A task family with the given parameters, the others at their defaults.

    Raises:
        UserError: no such family or parameter, or with these a property of the family is wrong.
    """
    adapter: TypeAdapter[TaskFamily] = TypeAdapter(family_class(name))
    family = validated(adapter, dict(parameters or {}), f"task family {name!r}")
    if name in _LOADED:  # a user's, whose properties depend on the parameters
        check_instance(family, f"task family {name!r}")
    if family.ticks > MAX_TICKS:  # before anybody simulates or allocates them
        raise UserError(
            f"task family {name!r}: ticks {family.ticks:,}: at most {MAX_TICKS:,} are accepted"
        )
    return family


def recommended_settings(name: str) -> dict[str, Any]:
    """Returns the training settings that a family recommends, by name; empty for most families."""
    return dict(getattr(family_class(name), "recommended", {}))


def all_tasks(name: str) -> dict[str, float | int]:
    """Returns the parameters with which a family has all its tasks; empty for most families.

    Tasks keep their number, whatever a run has seen of them.
    """
    return dict(getattr(family_class(name), "all_tasks", {}))


def find_task(task: TaskId, parameters: Mapping[str, Any] | None = None) -> tuple[TaskFamily, int]:
    """Returns the family of a task and the task's number in it.

    Args:
        task: to be found.
        parameters: of the family; which tasks a training saw does not count among them.

    Raises:
        UserError: no such family, parameter or task; the valid ones are listed.
    """
    given = {k: v for k, v in (parameters or {}).items() if k != HELD_OUT}
    family = make_family(task.family, {**given, **all_tasks(task.family)})
    return family, task.index_in(family.tasks)
