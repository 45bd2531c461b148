"""Settings of masters for new tasks: refuses those that are fixed or have no effect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from policies.mlsh.config import TrainConfig, check_free
from policies.mlsh.config_checks import entropy_is_void
from policies.mlsh.offpolicy_config import Learner, OffPolicyConfig
from sim.errors import UserError

# What is not for `--set`: an option says it, or the skills have it.
DECIDED = {
    "family": "is set by the task",
    "robot": "is set by --robot",
    "seed": "is set by --seed or --seeds",
    "sim_params": "is the bundle's, or set by --sim-params",
    **dict.fromkeys(
        (
            *("mlsh.skills", "network.hidden", "network.skill_hidden", "network.activation"),
            "network.hidden_from_skills",
        ),
        "is fixed by the skills of the bundle",
    ),
}
EFFECTIVE = (
    *("master.*", "mlsh.rollout_ticks", "mlsh.probe", "mlsh.probe_logit_clip"),
    *("mlsh.master_advantage", "network.hidden_from_masters", "network.master_hidden"),
    *("network.master_activation", "network.value_hidden", "domain_randomization", "threads"),
)
_IDLE = f"has no effect where skills are frozen; settings that have: {', '.join(EFFECTIVE)}"
IDLE = {
    "steps": "has no effect here: --updates sets the number of updates",
    "mlsh.envs": "has no effect here: --episodes sets the experience per update",
    "mlsh.groups": "has no effect here: there is one master for each task",
    "checkpoint_every": "has no effect here: there are no checkpoints",
    "curriculum": "has no effect here: the whole costs are paid from the first step on",
    **dict.fromkeys(
        ("exploration.final_std", "exploration.std_until"),
        "has no effect here: the exploration of skills is limited in their training alone",
    ),
    **{
        f"mlsh.{key}": _IDLE
        for key in (
            *("joint", "balanced_tasks", "probe_ema", "reset_skill_below", "skill_bootstrap"),
            *("duration_jitter", "mutual_information_coef", "fresh_adam", "same_init"),
        )
    },
}
# Of these, PPO from scratch makes something.
IDLE_ALONE = {
    key: f"{_IDLE}, and there is no PPO from scratch beside them"
    for key in (
        *("skill", "regularization", "exploration"),
        "network.initial_log_std",
        "network.normalize_observations",
        "network.privileged",
        "mlsh.random_skill_fraction",
    )
}


IDLE_PPO = {"offpolicy": "has no effect with --learner ppo; settings of the section master have"}
# What the off-policy learner makes nothing of.
IDLE_OFF_POLICY = dict.fromkeys(
    (
        *("master", "mlsh.warmup", "mlsh.probe", "mlsh.probe_logit_clip", "mlsh.master_advantage"),
        *("network.master_hidden", "network.master_activation", "network.value_hidden"),
    ),
    "has no effect with --learner q; settings of the section offpolicy have",
)


def with_settings(
    config: TrainConfig,
    settings: Sequence[str],
    *,
    baseline: bool,
    started: bool = False,
    learner: Learner = "ppo",
    unfrozen: bool = False,
) -> TrainConfig:
    """Returns the settings of `task_config` with further settings applied.

    Args:
        config: of `task_config`.
        settings: `section.key=value`.
        baseline: whether they are for PPO from scratch as well.
        started: whether the masters are initialized from existing ones.
        learner: of the masters.
        unfrozen: whether a skill is trained as well.

    Raises:
        UserError: a setting is fixed, has no effect, or is invalid.
    """
    if learner == "uniform" and (settings or started):
        option = "--set" if settings else "--init-from"
        raise UserError(f"{option}: has no effect with --learner uniform, which does not learn")
    alone = {k: why for k, why in IDLE_ALONE.items() if not (unfrozen and k == "skill")}
    check_free(settings, DECIDED | IDLE | ({} if baseline else alone))
    if learner == "q":
        if started:
            raise UserError(
                "--init-from: has no effect with --learner q, which begins with one episode of "
                "each skill; leave --init-from out, or take --learner ppo"
            )
        check_free(settings, IDLE_OFF_POLICY)
        config = replace(config, offpolicy=OffPolicyConfig())
        return config.with_values(list(settings))
    check_free(settings, IDLE_PPO)
    changed = config.with_values(list(settings))
    idle = {}
    if not changed.master.entropy:
        idle["mlsh.warmup"] = "has no effect here without master.entropy, which falls over it"
    if started:
        idle["mlsh.probe"] = (
            "has no effect with --init-from, which gives the masters their initial weights"
        )
    elif entropy_is_void(changed):
        idle["master.entropy"] = (
            f"falls to zero over mlsh.warmup {changed.mlsh.warmup}, whose first update is the "
            "probe's, and has no effect; set mlsh.warmup to 2 or more too"
        )
    if started or changed.mlsh.probe == "none":
        idle["mlsh.probe_logit_clip"] = "has no effect without the probe"
    check_free(settings, idle)
    return changed
