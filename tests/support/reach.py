"""Arms that go to targets by a script, in the simulation."""

import numpy as np

from sim.envs.world import World
from sim.physics.robot_model import Robot
from sim.seeding import episode_rng
from sim.tasks.reach import Reach


def begun(robot: Robot, family: Reach, task: int, size: int) -> World:
    """`size` simulations at the beginning of their episodes of a task."""
    world = World(robot, family, size)
    rngs = [episode_rng(0, n) for n in range(size)]
    world.reset(np.arange(size, dtype=np.int32), [task] * size, rngs)
    return world


def drive(robot: Robot, family: Reach, task: int, choose, size: int) -> tuple[float, np.ndarray]:
    """Mean return of a script that knows the joints of the targets, and (size,) whether solved.

    `choose` names the target, given the layout. An episode that ends early earns nothing more.
    """
    world, each, total = begun(robot, family, task, size), np.arange(size), np.zeros(size)
    fields, running = world.true_state(), np.ones(size, bool)
    for _ in range(family.ticks):
        goal = world.layout["joints"][each, choose(world.layout)]
        aims = family.arm.aim(fields["joint_position"], goal)
        fields, outcome = world.step(world.interface.action_for(aims).astype(np.float32))
        total += np.where(running, outcome.reward, 0)
        running &= ~outcome.terminated
    return float(total.mean()), world.success(fields) & running
