"""Checks of a configuration that run before anything is allocated or trained."""

from __future__ import annotations

import math
import sys

from policies.mlsh.config import NetworkConfig, TrainConfig
from policies.mlsh.offpolicy_config import OffPolicyConfig
from policies.mlsh.symmetry import find_symmetry
from sim.envs.privileged import check_privileged
from sim.errors import UserError, unknown
from sim.interface import Interface
from sim.physics.robot_model import load_robot
from sim.tasks.base import HasDifficulty, HasRewards, TaskFamily
from sim.tasks.registry import make_family

# A thread costs memory and a start; the rest is what a rollout is held in.
MAX_THREADS, MAX_SKILLS, MAX_LAYERS, MAX_UNITS = 1024, 1000, 16, 16_384
MAX_SIMULATIONS, MAX_ROLLOUT = 100_000, 100_000_000
# Of masters for new tasks: units of their one layer, samples of the values, and iterations.
MAX_FEATURE_UNITS, MAX_MEMBERS, MAX_VALUE_ITERATIONS = 8192, 1000, 10_000


def check_names(config: TrainConfig) -> None:
    """Refuse names that robot and family do not have, and settings that change nothing.

    Raises:
        UserError: names it, and what there is.
    """
    check_sizes(config)
    family = make_family(config.family, config.family_parameters)
    if config.mlsh.decision_ticks > family.ticks:
        raise UserError(
            f"mlsh.decision_ticks {config.mlsh.decision_ticks}: an episode of {config.family} has "
            f"{family.ticks} ticks, so that its master would decide once and never again; at most "
            f"{family.ticks}"
        )
    if config.master.entropy and entropy_is_void(config):
        raise UserError(
            f"master.entropy {config.master.entropy:g}: has no effect, because it falls to zero "
            f"over mlsh.warmup {config.mlsh.warmup}, whose first update is the probe's; set "
            "mlsh.warmup to 2 or more, or mlsh.probe to none"
        )
    robot = load_robot(config.robot)
    check_privileged(
        robot, family, config.network.privileged, randomized=config.domain_randomization
    )
    find_symmetry(config, robot, family)
    check_curriculum(config, family)
    check_exploration(config)
    interface = robot.interface.with_terms(family.terms)
    for setting in ("hidden_from_skills", "hidden_from_masters"):
        hidden_elements(interface, config.network, setting)


def check_curriculum(config: TrainConfig, family: TaskFamily) -> None:
    """Refuse a curriculum on what the training does not have.

    Raises:
        UserError: names the setting and the family.
    """
    scale, harder = config.curriculum.cost_scale, config.curriculum.difficulty_until
    if harder and not (isinstance(family, HasDifficulty) and family.graded):
        raise UserError(
            f"curriculum.difficulty_until {harder:g}: episodes of task family {config.family!r} "
            "are not easy or hard. Valid: 0; those of velocity_commands are with slope, step or "
            "bumps (ground) or slowest (commands)"
        )
    if (drawn := config.curriculum.randomization_until) and not config.domain_randomization:
        raise UserError(
            f"curriculum.randomization_until {drawn:g}: has no effect without "
            "domain_randomization; set that to true, or this to 0"
        )
    if scale < 1 and not (isinstance(family, HasRewards) and family.rewards.terms):
        raise UserError(
            f"curriculum.cost_scale {scale:g}: task family {config.family!r} has no reward terms. "
            "Valid: 1"
        )


def check_exploration(config: TrainConfig) -> None:
    """Refuse a limit of the exploration that limits nothing.

    Raises:
        UserError: names the setting.
    """
    final, initial = config.exploration.final_std, math.exp(config.network.initial_log_std)
    if final is not None and final >= initial:
        raise UserError(
            f"exploration.final_std {final:g}: the initial standard deviation is {initial:g} "
            "(network.initial_log_std), and the limit falls from it; valid: less than that, or "
            "null"
        )


def entropy_is_void(config: TrainConfig) -> bool:
    """True if the masters' entropy bonus is over before the first update of a master."""
    return config.mlsh.probe != "none" and config.mlsh.warmup <= 1


def check_sizes(config: TrainConfig) -> None:
    """Refuse sizes that no computer can allocate, before allocating anything.

    Raises:
        UserError: names the setting, its value, and the largest accepted value.
    """
    method = config.mlsh
    simulations = method.groups * method.envs
    for what, value, most in (
        ("threads", config.threads, MAX_THREADS),
        ("mlsh.skills", method.skills, MAX_SKILLS),
        ("mlsh.groups x mlsh.envs, simulations,", simulations, MAX_SIMULATIONS),
        (
            "mlsh.groups x mlsh.envs x mlsh.rollout_ticks, steps of a rollout,",
            simulations * method.rollout_ticks,
            MAX_ROLLOUT,
        ),
        *_network_sizes(config.network),
        *_off_policy_sizes(config.offpolicy),
    ):
        if value > most:
            raise UserError(f"{what} {value:,}: at most {most:,} are accepted")


def _network_sizes(network: NetworkConfig) -> list[tuple[str, int, int]]:
    """Setting, value and largest accepted value of the hidden layers."""
    sizes = []
    for name in ("hidden", "skill_hidden", "master_hidden", "value_hidden"):
        hidden = getattr(network, name) or ()
        sizes += [
            (f"network.{name}, units of a layer,", max(hidden, default=0), MAX_UNITS),
            (f"network.{name}, layers,", len(hidden), MAX_LAYERS),
        ]
    return sizes


def _off_policy_sizes(offpolicy: OffPolicyConfig | None) -> list[tuple[str, int, int]]:
    """Setting, value and largest accepted value of what values are learned from."""
    if offpolicy is None:
        return []
    units = 4 * offpolicy.products + offpolicy.features
    return [
        (
            "4 x offpolicy.products + offpolicy.features, units of a layer,",
            units,
            MAX_FEATURE_UNITS,
        ),
        ("offpolicy.members", offpolicy.members, MAX_MEMBERS),
        ("offpolicy.iterations", offpolicy.iterations, MAX_VALUE_ITERATIONS),
    ]


def hidden_elements(interface: Interface, network: NetworkConfig, setting: str) -> list[int]:
    """Returns the elements of the observation that belong to the terms of a setting.

    Args:
        interface: of the robot, with the family's terms.
        network: has the setting.
        setting: `hidden_from_skills` or `hidden_from_masters`.

    Raises:
        UserError: a term that the observation does not have.
    """
    places, terms = interface.observation_slices, getattr(network, setting)
    if missing := [name for name in terms if name not in places]:
        raise unknown(setting, missing[0], places)
    return [i for name in terms for i in range(*places[name].indices(sys.maxsize))]
