"""A task family that terminates, and its environment for gymnasium."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar
from unittest import mock

import gymnasium
from pydantic.dataclasses import dataclass

from sim.envs.gym_env import register_family
from sim.interface import STRICT
from sim.tasks.moving_bandits import MovingBandits
from sim.tasks.registry import FAMILIES


@dataclass(frozen=True, config=STRICT)
class Touch(MovingBandits):
    """Ends when the robot touches the goal that counts; short enough for both ways to happen."""

    name: ClassVar[str] = "touch"

    ticks: int = 9

    def terminated(self, layout, fields):
        return self.success(layout, fields)


@contextmanager
def registered() -> Iterator[str]:
    """The id of its environment, which gymnasium knows as long as the context exists."""
    with mock.patch.dict(FAMILIES, touch=Touch):
        name = register_family("touch")
        yield name
        del gymnasium.registry[name]
