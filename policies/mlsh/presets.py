"""Named training configurations: the recipe of this project and the code released in 2017."""

from __future__ import annotations

from dataclasses import replace

from policies.mlsh.config import MlshConfig, NetworkConfig, PpoConfig, TrainConfig
from sim.errors import unknown
from sim.physics.robot_model import load_robot
from sim.tasks.registry import make_family


def default_config(family: str, robot: str, seed: int = 0) -> TrainConfig:
    """Returns the recipe of docs/results.md, with the family's own sizes."""
    base = TrainConfig(
        family=family,
        robot=robot,
        seed=seed,
        mlsh=MlshConfig(
            skills=2, decision_ticks=10, warmup=1, joint=10, groups=10, envs=32, rollout_ticks=50
        ),
        master=PpoConfig(
            learning_rate=0.01,
            gamma=0.99,
            gae_lambda=0.98,
            epochs=10,
            minibatch=100_000,
            # A decided master has next to no gradient; Adam's usual 1e-8 would blow it up to
            # full steps of pure noise.
            adam_epsilon=1e-2,
        ),
        skill=PpoConfig(learning_rate=1e-3, gamma=0.99, gae_lambda=0.98, epochs=5, minibatch=1024),
    )
    return _known_terms(base.recommended_by(family))


def _known_terms(config: TrainConfig) -> TrainConfig:
    """Removes hidden terms that this robot lacks: a recommendation applies to all robots."""
    family = make_family(config.family)
    names = load_robot(config.robot).interface.with_terms(family.terms).observation_slices
    network = replace(
        config.network,
        hidden_from_skills=tuple(t for t in config.network.hidden_from_skills if t in names),
        hidden_from_masters=tuple(t for t in config.network.hidden_from_masters if t in names),
    )
    return replace(config, network=network)


def faithful_config(family: str, robot: str, seed: int = 0) -> TrainConfig:
    """Returns the settings of the code released in 2017; docs/faithful-2017.md lists them."""
    base = default_config(family, robot, seed)
    return replace(
        base,
        mlsh=replace(
            base.mlsh,
            warmup=9,
            joint=2,  # the code's `>=` makes U = 1 two updates
            decision_lead=0,
            balanced_tasks=False,
            probe="none",
            reset_skill_below=0.0,
            skill_bootstrap="next",
            master_advantage="global",
            master_epsilon=0.1,
            fresh_adam=False,
            same_init=True,
            stale_first_decision=True,
            bootstrap_truncated=False,
            scaled_returns=False,
        ),
        master=replace(
            base.master,
            minibatch=64,
            adam_epsilon=1e-8,
            value_clip=0.2,
            drop_remainder=True,
            max_grad_norm=None,
        ),
        skill=replace(
            base.skill,
            learning_rate=3e-5,
            epochs=10,
            value_clip=0.2,
            drop_remainder=True,
            max_grad_norm=None,
        ),
        network=NetworkConfig(hidden=(32, 32)),
    )


PRESETS = {"default": default_config, "faithful-2017": faithful_config}


def preset(name: str, family: str, robot: str, seed: int = 0) -> TrainConfig:
    """Returns a named recipe.

    Raises:
        UserError: no such preset.
    """
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    return PRESETS[name](family, robot, seed)
