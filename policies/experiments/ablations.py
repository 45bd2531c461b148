"""Variants that a sweep compares: baselines and ablations of the default recipe.

A variant is a list of settings over the default recipe, and a way to learn a new task.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import Literal

from policies.mlsh.config import IDENTITY, TrainConfig, check_free, check_once, touches
from policies.mlsh.presets import preset
from sim.errors import UserError, short, unknown

# How a new task is learned: a fresh master with the skills frozen; the one shared policy as a
# whole, from where meta-training left it; or a policy from nothing, ours or Stable-Baselines3's.
Adaptation = Literal["master", "shared", "scratch", "sb3"]


# A policy from nothing has no skills, no groups and no training before.
_ALONE = (
    *("steps", "checkpoint_every"),
    *(f"mlsh.{key}" for key in ("groups", "envs", "warmup", "joint", "probe")),
    *(
        f"mlsh.{key}"
        for key in ("probe_ema", "probe_logit_clip", "reset_skill_below", "balanced_tasks")
    ),
)
WITHOUT_EFFECT: dict[Adaptation, tuple[str, ...]] = {
    "scratch": _ALONE,
    "sb3": (*_ALONE, "master", "skill", "network"),
}
MAX_GRID = 10_000  # combinations
# What a sweep says of every run.
DECIDED = IDENTITY | {
    "seed": "is set by --seeds",
    "threads": "is 1 for each run, and --jobs run at the same time",
}


@dataclass(frozen=True)
class Variant:
    """A way to train, and to learn a new task."""

    why: str
    settings: tuple[str, ...] = ()
    adaptation: Adaptation = "master"
    preset: str = "default"

    @property
    def without_effect(self) -> tuple[str, ...]:
        """Settings, or sections of them, without an effect on this variant."""
        return WITHOUT_EFFECT.get(self.adaptation, ())

    def config(self, family: str, robot: str, seed: int) -> TrainConfig:
        """The complete configuration."""
        return preset(self.preset, family, robot, seed).with_values(list(self.settings))


BASELINES = {
    "mlsh": Variant("the recipe"),
    "no-warm-up": Variant(
        "W = 0 and no probe: skills learn under masters that know nothing",
        ("mlsh.warmup=0", "mlsh.probe=none"),
    ),
    "primitive": Variant(
        "N = 1: the master decides on every tick",
        ("mlsh.decision_ticks=1", "mlsh.decision_lead=0"),
    ),
    "shared": Variant(
        "K = 1: one policy for all tasks, trained on as a whole on the new one",
        ("mlsh.skills=1", "mlsh.probe=none"),
        adaptation="shared",
    ),
    "scratch": Variant("PPO on the new task alone", adaptation="scratch"),
    "sb3": Variant("the same by Stable-Baselines3, its own settings", adaptation="sb3"),
}
# In no set: with the steps of the others its skills have hardly moved.
RELEASED = {
    "faithful-2017": Variant("the released code; needs far more steps", preset="faithful-2017")
}
ABLATIONS = {
    "no-probe": Variant("masters start uniform", ("mlsh.probe=none",)),
    "long-warm-up": Variant("W = 20, as in the paper, after the probe", ("mlsh.warmup=20",)),
    "only-warm-up": Variant(
        "W = 20, as in the paper, and no probe", ("mlsh.warmup=20", "mlsh.probe=none")
    ),
    "probe-teaches": Variant("W = 0: skills learn from the probe's rollout", ("mlsh.warmup=0",)),
    "absolute-probe": Variant("the probe looks at this task only", ("mlsh.probe=absolute",)),
    "no-restart": Variant(
        "a dispensable skill is never started anew", ("mlsh.reset_skill_below=0",)
    ),
    "drawn-tasks": Variant("tasks are drawn, not balanced", ("mlsh.balanced_tasks=false",)),
    "next-bootstrap": Variant(
        "a skill's value goes on with the next skill's", ("mlsh.skill_bootstrap=next",)
    ),
    "group-advantage": Variant(
        "master advantages are scaled per group", ("mlsh.master_advantage=group",)
    ),
    "adam-1e-8": Variant("Adam's usual epsilon for masters", ("master.adam_epsilon=1e-8",)),
    "unscaled-values": Variant(
        "value functions in units of the return", ("mlsh.scaled_returns=false",)
    ),
    "plain-observations": Variant(
        "observations are not normalized", ("network.normalize_observations=false",)
    ),
    # Not in the recipe: with each of them.
    "mutual-information": Variant(
        "masters have a bonus for telling tasks apart", ("mlsh.mutual_information_coef=0.5",)
    ),
    "duration-jitter": Variant(
        "a decision lasts N (1 -+ 0.5) ticks", ("mlsh.duration_jitter=0.5",)
    ),
    "random-skills": Variant(
        "three of ten decisions are random and excluded from all updates",
        ("mlsh.random_skill_fraction=0.3",),
    ),
}
VARIANTS = BASELINES | RELEASED | ABLATIONS
SETS = {"baselines": tuple(BASELINES), "ablations": ("mlsh", *ABLATIONS)}
RENAMED = {  # variants of former versions, and the names that replace them
    "plain-probe": "absolute-probe",
    "information": "mutual-information",
    "commitment": "duration-jitter",
    "stray": "random-skills",
}


def variants(names: list[str]) -> dict[str, Variant]:
    """Returns variants by name; a set's name selects all of its variants.

    Raises:
        UserError: no such variant or set.
    """
    chosen: dict[str, Variant] = {}
    for name in names:
        for one in SETS.get(name, (name,)):
            if one not in VARIANTS:
                raise unknown("variant", one, [*SETS, *VARIANTS], RENAMED)
            chosen[one] = VARIANTS[one]
    return chosen


def grid(chosen: Mapping[str, Variant], settings: list[str]) -> dict[str, Variant]:
    """Returns every variant with every combination of `settings`, each of which may list values.

    `mlsh.warmup=1,9` makes two of each.

    Raises:
        UserError: a setting is fixed by a variant, by another setting or by the sweep, or has no
            effect on a variant; or there are too many combinations.
    """
    choices = [_choices(setting) for setting in settings]
    if (count := prod(len(c) for c in choices)) > MAX_GRID:
        raise UserError(f"--set makes {count:,} combinations; at most {MAX_GRID:,} are accepted")
    check_free(settings, DECIDED)
    check_once(settings)
    for i, setting in enumerate(settings):
        _check_effect(chosen, setting, varied=len(choices[i]) > 1)
    varied = [i for i, c in enumerate(choices) if len(c) > 1]
    out = {}
    for name, variant in chosen.items():
        for combination in product(*choices):
            label = "-".join([name, *(_short(combination[i]) for i in varied)])
            out[label] = replace(variant, settings=(*combination, *variant.settings))
    return out


def _check_effect(chosen: Mapping[str, Variant], setting: str, *, varied: bool) -> None:
    for name, variant in chosen.items():
        own = [s for s in variant.settings if touches(setting, _path(s))]
        if own:
            raise UserError(
                f"setting {short(setting)}: variant {name!r} is {own[0]}; leave one of them out"
            )
    path = _path(setting)
    deaf = [
        name
        for name, variant in chosen.items()
        if any(path == key or path.startswith(f"{key}.") for key in variant.without_effect)
    ]
    # A setting is for all variants, and some have no use for it; but no label says what is not.
    if deaf and (varied or len(deaf) == len(chosen)):
        raise UserError(
            f"setting {short(setting)}: variant {deaf[0]!r} does not depend on {path}; leave one "
            "of them out"
        )


def _choices(setting: str) -> list[str]:
    path, equals, values = setting.partition("=")
    # A value in brackets is a list or a mapping of its own.
    listed = [values] if values.startswith(("[", "{")) else values.split(",")
    return [path + equals + value for value in listed]


def _path(setting: str) -> str:
    return setting.partition("=")[0]


def _short(setting: str) -> str:
    """Shortens mlsh.mutual_information_coef=0.5 to information=0.5."""
    path, equals, value = setting.partition("=")
    return path.rpartition(".")[2] + equals + value
