"""Checks that a class implements the task family Protocol before it is used."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, cast

import numpy as np
from pydantic import TypeAdapter, ValidationError

from sim.errors import UserError, invalid, short
from sim.interface import ObservationTerm
from sim.physics.signals import Signal
from sim.tasks.base import HasExpert, HasPoseReset, HasReturnEstimate, HasTermSizes, TaskFamily

NAME = r"[a-z][a-z0-9_]*"
METHODS = ("scene", "place", "reset", "fields", "reward", "success", "terminated")
CLASS_VARIABLES = {"name": str, "robot": str, "requires": tuple, "places": bool}


def check_family(cls: type, where: str) -> type[TaskFamily]:
    """Returns the class itself if it is a task family; see `sim.tasks.base.TaskFamily`.

    Args:
        cls: any class.
        where: it comes from, as an error names it.

    Raises:
        UserError: names what it lacks.
    """
    what = f"task family {short(where, 500)}: class {cls.__name__}"
    for variable, kind in CLASS_VARIABLES.items():
        if not isinstance(getattr(cls, variable, None), kind):
            raise UserError(f"{what} lacks the class variable `{variable}`, a {kind.__name__}")
    name = str(cls.name)  # type: ignore[attr-defined]
    if not re.fullmatch(NAME, name):
        raise UserError(f"{what}: name {name!r} is not of lower-case letters, digits and _")
    for method in METHODS:
        if not callable(getattr(cls, method, None)):
            raise UserError(f"{what} lacks the method `{method}`")
    if not (is_dataclass(cls) and cls.__hash__ is not None):
        raise UserError(
            f"{what} is no frozen dataclass: @pydantic.dataclasses.dataclass(frozen=True)"
        )
    if not isinstance(getattr(cls, "recommended", {}), Mapping):
        raise UserError(f"{what}: `recommended` is no mapping of settings to values")
    try:
        family = TypeAdapter(cls).validate_python({})
    except ValidationError as error:
        raise invalid(f"{what}: its defaults", error) from None
    except Exception as error:  # whatever a stranger's class does
        raise UserError(f"{what}: its defaults: {type(error).__name__}: {error}") from None
    check_instance(family, what)
    return cast("type[TaskFamily]", cls)


def check_instance(family: object, what: str) -> None:
    """Refuse a task family with the parameters that it has; errors begin with `what`.

    Raises:
        UserError: a property raises, or is not what a family needs.
    """
    ticks, tasks, terms = (_read(family, each, what) for each in ("ticks", "tasks", "terms"))
    if not isinstance(ticks, int) or ticks < 1:
        raise UserError(f"{what}: `ticks` is {short(ticks)}; a positive integer is expected")
    named = isinstance(tasks, tuple) and all(isinstance(task, str) for task in tasks)
    if not tasks or not named or len(set(tasks)) != len(tasks):
        raise UserError(f"{what}: `tasks` is {short(tasks)}; a tuple of names is expected")
    if not isinstance(terms, tuple) or not all(isinstance(t, ObservationTerm) for t in terms):
        raise UserError(f"{what}: `terms` is {short(terms)}; a tuple of ObservationTerm")
    signals = _read(family, "signals", what) if hasattr(type(family), "signals") else ()
    if not isinstance(signals, tuple) or not all(isinstance(each, Signal) for each in signals):
        raise UserError(f"{what}: `signals` is {short(signals)}; a tuple of Signal is expected")
    if isinstance(family, HasPoseReset):
        _check_pose_reset(family, what)
    if isinstance(family, HasTermSizes):
        _check_term_sizes(family, what)
    if not isinstance(family, (HasExpert, HasReturnEstimate)):
        raise UserError(
            f"{what} lacks the method `estimate`, or both `expert_target` and "
            "`task_blind_target`: without one nothing says what a return is worth"
        )


def _check_pose_reset(family: HasPoseReset, what: str) -> None:
    if not (isinstance(family.shake, (int, float)) and 0 <= family.shake < np.inf):
        raise UserError(f"{what}: `shake` is {short(family.shake)}; rad, 0 or more, are expected")
    if not (isinstance(family.pose_reset, int) and family.pose_reset >= 0):
        raise UserError(
            f"{what}: `pose_reset` is {short(family.pose_reset)}; a number of ticks is expected"
        )


def _check_term_sizes(family: HasTermSizes, what: str) -> None:
    sizes, required = family.term_sizes, family.requires
    fits = isinstance(sizes, Mapping) and all(
        name in required and isinstance(size, int) and size > 0 for name, size in sizes.items()
    )
    if not fits:
        raise UserError(
            f"{what}: `term_sizes` is {short(sizes)}; a mapping from terms in `requires` to their "
            "numbers of elements is expected"
        )


def _read(family: object, attribute: str, what: str) -> Any:
    """The value of an attribute, which may be a property with an error in it."""
    try:
        return getattr(family, attribute)
    except AttributeError as error:
        if hasattr(type(family), attribute):
            raise UserError(f"{what}: `{attribute}`: {error}") from None
        raise UserError(f"{what} lacks `{attribute}`") from None
    except ValidationError as error:
        raise invalid(f"{what}: `{attribute}`", error) from None
    except Exception as error:
        raise UserError(f"{what}: `{attribute}`: {type(error).__name__}: {error}") from None
