"""Reads the arguments that environments get from users of gymnasium."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from sim.errors import UserError, short, unknown
from sim.tasks.base import TaskFamily
from sim.tasks.task_id import TaskId

LARGEST_SEED = 2**64 - 1
Seeds = int | list[int | None] | None
OPTIONS = ("task", "reset_mask")
RENDER_MODES = ("rgb_array",)
WIDTH, HEIGHT = 480, 360  # of a picture, pixels
NO_LIMIT = -1  # as max_episode_steps, in gymnasium


@dataclass(frozen=True)
class ResetOptions:
    """The environments that begin an episode, and the tasks that are given for it."""

    ids: NDArray[np.int32]  # (n,) their numbers
    tasks: Mapping[int, int]  # task number by environment, for those whose task is given


def read_render_mode(mode: object) -> str | None:
    """Read a render mode.

    Raises:
        UserError: no such mode.
    """
    if mode is not None and mode not in RENDER_MODES:
        raise unknown("render_mode", mode, [*RENDER_MODES, "None"])
    return mode  # type: ignore[return-value]


def read_autoreset_mode(mode: object) -> AutoresetMode:
    """Read an autoreset mode, or its value as gymnasium has it.

    Raises:
        UserError: no such mode.
    """
    try:
        return AutoresetMode(mode)
    except ValueError:
        raise unknown("autoreset_mode", mode, [each.value for each in AutoresetMode]) from None


def read_count(name: str, value: object) -> int:
    """Read a positive integer.

    Raises:
        UserError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise UserError(f"{name}: a positive integer is expected, got {short(value)}")
    return int(value)


def read_max_episode_steps(steps: object) -> int | None:
    """Read after how many steps an episode is truncated; None stands for the family's number.

    Raises:
        UserError: neither a positive integer, nor -1 for no limit, nor None.
    """
    if steps is None:
        return None
    return sys.maxsize if steps == NO_LIMIT else read_count("max_episode_steps", steps)


def read_options(options: object, family: TaskFamily, num_envs: int) -> ResetOptions:
    """Read the options of a vector environment's reset.

    Args:
        options: None, or a dictionary with any of `task`, a name or a list of a name or None per
            environment, and `reset_mask`, (B,) bool.
        family: has the tasks.
        num_envs: B.

    Raises:
        UserError: another option, no such task, or a mask of another type or shape.
    """
    if options is not None and not isinstance(options, Mapping):
        raise UserError(f"reset: options has to be a dictionary or None, got {short(options)}")
    given: Mapping[Any, Any] = options or {}
    for name in given:
        if name not in OPTIONS:
            raise unknown("option of reset", name, OPTIONS)
    ids = np.arange(num_envs, dtype=np.int32)
    if (mask := given.get("reset_mask")) is not None:
        ids = ids[_mask(mask, num_envs)]
    names = given.get("task")
    if names is None or isinstance(names, str):
        names = [names] * num_envs
    names = _list("option 'task'", "a name", names, num_envs)
    tasks = {
        int(i): TaskId(family.name, names[i]).index_in(family.tasks)
        for i in ids
        if names[i] is not None
    }
    return ResetOptions(ids, tasks)


def read_seeds(seed: object, num_envs: int) -> Seeds:
    """Read the seed of a vector environment's reset: one, one or None per environment, or None.

    Raises:
        UserError: not an integer from 0 to 2**64 - 1, or a list of another length.
    """
    if seed is None:
        return None
    if isinstance(seed, int | np.integer):
        return _seed(seed)
    seeds = _list("seed", "an integer", seed, num_envs)
    return [None if each is None else _seed(each) for each in seeds]


def _seed(seed: Any) -> int:
    if not isinstance(seed, int | np.integer) or not 0 <= seed <= LARGEST_SEED:
        raise UserError(f"reset: seed has to be an integer from 0 to 2**64 - 1, got {short(seed)}")
    return int(seed)


def _list(what: str, kind: str, value: Any, num_envs: int) -> list[Any]:
    values = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(values, list | tuple) or len(values) != num_envs:
        raise UserError(
            f"reset: {what} has to be {kind} or a list of {num_envs}, one for each environment, "
            f"got {short(value)}"
        )
    return list(values)


def _mask(mask: object, num_envs: int) -> NDArray[np.bool_]:
    got = f"{mask.dtype} of shape {mask.shape}" if isinstance(mask, np.ndarray) else short(mask)
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (num_envs,):
        raise UserError(
            f"reset: option 'reset_mask' has to be a numpy array of bool of shape ({num_envs},), "
            f"got {got}"
        )
    if not mask.any():
        raise UserError("reset: option 'reset_mask' is False for every environment")
    return mask
