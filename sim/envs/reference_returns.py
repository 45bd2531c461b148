"""Reference returns of a task: random policy, task-blind controller, optimum.

They are 0 and 100 % of a normalized score. Returns of random actions are simulated. The other two
are simulated if the family has a controller (`HasExpert`), and computed by the family otherwise
(`HasReturnEstimate`), for example for robots with legs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sim.envs.world import World
from sim.errors import UserError
from sim.interface import Floats, Interface
from sim.physics.robot_model import Robot
from sim.randomization.schema import SimParams
from sim.seeding import Stream, episode_rng, generator
from sim.tasks.base import HasExpert, HasReturnEstimate, TaskFamily
from sim.tasks.expert_controller import ExpertController

TICKS = 51_200  # of simulation for a controller on a task: 1024 episodes of 50
ROUNDING = 1e-6  # of a return
FEWEST = {True: 32, False: 128}  # episodes, by whether only the random policy is simulated


@dataclass(frozen=True)
class ReferenceReturns:
    """Mean undiscounted returns on one task, over the same episodes."""

    random: float  # uniform actions within the limits
    task_blind: float  # a good controller that ignores the task
    optimum: float  # the controller that knows it

    @property
    def tell_apart(self) -> bool:
        """True if the optimum is better than a random policy, by more than rounding."""
        least = ROUNDING * max(1.0, abs(self.random), abs(self.optimum))
        return self.optimum - self.random > least

    def check(self, task: str) -> None:
        """Refuse a task whose optimum is no better than random.

        Raises:
            UserError: it is not; no score exists.
        """
        if not self.tell_apart:
            raise UserError(
                f"{task} cannot be scored: a random policy returns {self.random:.6g}, the optimum "
                f"{self.optimum:.6g}; the robot hardly moves, or all that it does is as good"
            )

    def normalize(self, value: float) -> float:
        """Returns 0 for random, 1 for the optimum, more for a policy better than that controller.

        Raises:
            UserError: the optimum is no better than random, so no score exists.
        """
        self.check("a return")
        return (value - self.random) / (self.optimum - self.random)


def check_scorable(interface: Interface, family: TaskFamily) -> None:
    """Refuse a robot with which no task of the family can be scored, so that no master is trained.

    Raises:
        UserError: the family has no estimate, and the robot is not one that can be driven.
    """
    if not isinstance(family, HasReturnEstimate):
        ExpertController(interface)


def compute_reference_returns(
    robot: Robot,
    family: TaskFamily,
    task: int,
    *,
    seed: int = 0,
    episodes: int = 1024,
    sim_params: SimParams | None = None,
) -> ReferenceReturns:
    """Simulate three controllers on episodes 0 .. episodes-1 of `seed`.

    Args:
        robot: nominal.
        family: of the task.
        task: its number.
        seed: of the episodes.
        episodes: how many.
        sim_params: what differs from the nominal robot; the controllers do not know it.

    Raises:
        UserError: the family has no estimate, and the robot is not one that can be driven.
    """
    world = World(robot, family, episodes, threads=os.cpu_count() or 1, sim_params=sim_params)
    rng = generator(seed, Stream.ACTIONS)
    low, high = world.interface.limits

    def at_random(fields: dict[str, Floats]) -> Floats:
        return rng.uniform(low, high, (episodes, len(low)))

    def mean_return(controller: Callable[[dict[str, Floats]], Floats]) -> float:
        rngs = [episode_rng(seed, n) for n in range(episodes)]
        world.reset(np.arange(episodes, dtype=np.int32), [task] * episodes, rngs)
        return float(_returns(world, controller).mean())

    if isinstance(family, HasReturnEstimate):
        low_return, high_return = world.calls.estimate(task, world.interface.control_dt)
        return ReferenceReturns(
            random=mean_return(at_random), task_blind=low_return, optimum=high_return
        )
    assert isinstance(family, HasExpert), f"{family.name} has neither an expert nor an estimate"
    controller = ExpertController(world.interface)

    def expert(fields: dict[str, Floats]) -> Floats:
        return controller.command(fields, world.calls.expert_target(world.layout, fields))

    def task_blind(fields: dict[str, Floats]) -> Floats:
        return controller.command(fields, world.calls.task_blind_target(world.layout, fields))

    return ReferenceReturns(
        random=mean_return(at_random),
        task_blind=mean_return(task_blind),
        optimum=mean_return(expert),
    )


def enough(family: TaskFamily) -> int:
    """Number of episodes to simulate: fewer for long episodes."""
    return max(FEWEST[isinstance(family, HasReturnEstimate)], min(1024, TICKS // family.ticks))


@lru_cache(maxsize=16)
def all_reference_returns(robot: Robot, family: TaskFamily) -> list[ReferenceReturns]:
    """Reference returns of every task of the family, in order."""
    episodes = enough(family)
    return [
        compute_reference_returns(robot, family, t, episodes=episodes)
        for t in range(len(family.tasks))
    ]


def _returns(world: World, controller: Callable[[dict[str, Floats]], Floats]) -> Floats:
    total = np.zeros(world.size)
    running: NDArray[np.bool_] = np.ones(world.size, bool)
    fields = world.true_state()
    while running.any():
        action = world.interface.action_for(controller(fields))
        fields, outcome = world.step(action.astype(np.float32))
        total += np.where(running, outcome.reward, 0.0)
        running &= ~(outcome.terminated | outcome.truncated)
    return total
