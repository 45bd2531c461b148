"""Copies and pickles of a vector environment continue from its state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# What copies have besides a snapshot; spaces have generators of their own.
KEPT = (
    *("spec", "closed", "diverged", "_np_random", "_np_random_seed"),
    *("action_space", "observation_space", "single_action_space", "single_observation_space"),
)


def recreated(kind: Callable[..., Any], arguments: dict[str, Any], state: dict[str, Any]) -> Any:
    """Make the environment of a copy or a pickle from its arguments and its snapshot."""
    env = kind(**arguments)
    if state["episodes"].any():
        env.restore(state)
    return env
