"""Builds the simulations and the networks of a training from its configuration."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from policies.mlsh.actor_critic import Agent
from policies.mlsh.config import TrainConfig
from policies.mlsh.config_checks import hidden_elements
from policies.mlsh.local_groups import LocalGroups
from sim.envs.vec_env import TaskVectorEnv
from sim.physics.robot_model import Robot
from sim.randomization.schema import read_ranges
from sim.tasks.base import TaskFamily


def make_env(
    config: TrainConfig,
    robot: Robot,
    family: TaskFamily,
    groups: LocalGroups,
    tasks: NDArray[np.intp],
) -> TaskVectorEnv:
    """The simulations of the groups of this process.

    Args:
        config: of the training.
        robot: of the configuration.
        family: of the configuration.
        groups: of all processes.
        tasks: (n,) of the groups of this process.
    """
    return TaskVectorEnv(
        robot,
        family,
        groups=len(groups),
        envs=config.mlsh.envs,
        seed=config.seed,
        threads=config.threads,
        tasks=tasks,
        group_ids=groups.group_ids,
        sim_params=config.sim_params,
        domain_randomization=read_ranges(robot) if config.domain_randomization else None,
        privileged=config.network.privileged,
    )


def make_agent(config: TrainConfig, env: TaskVectorEnv, groups: LocalGroups) -> Agent:
    """New masters for the groups of this process, and new skills.

    Args:
        config: of the training.
        env: their simulations, which give the sizes of what they see and do.
        groups: of all processes.
    """
    interface, network = env.interface, config.network
    return Agent(
        observation_size=interface.observation_size,
        action_size=interface.action_size,
        skills=config.mlsh.skills,
        groups=len(groups),
        network=network,
        master=config.master,
        skill=config.skill,
        seed=config.seed,
        group_ids=groups.group_ids,
        masked_inputs=hidden_elements(interface, network, "hidden_from_skills"),
        masked_master_inputs=hidden_elements(interface, network, "hidden_from_masters"),
        privileged=env.privileged.shape[1],
    )
