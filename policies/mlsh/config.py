"""The settings of a training run (config.yaml), as frozen dataclasses that read and write YAML.

The comment beside a setting becomes its row in docs/reference/config.md. The defaults of the
recipe are in `presets.py`, those of a task family in its `recommended`, checks in
`config_checks.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, model_validator
from pydantic.dataclasses import dataclass
from typing_extensions import Self

from policies.mlsh.curriculum_config import CurriculumConfig
from policies.mlsh.exploration_config import ExplorationConfig
from policies.mlsh.networks import Activation
from policies.mlsh.offpolicy_config import OffPolicyConfig
from policies.mlsh.regularization_config import RegularizationConfig
from sim.errors import UserError, short, unknown, validated
from sim.files.migrations import (
    CONFIG,
    OLD_SCHEMA,
    SCHEMA,
    check_schema,
    earlier_names,
    renamed_keys,
)
from sim.files.output import write_file
from sim.files.strict_yaml import dump_yaml, parse_yaml, read_mapping
from sim.interface import STRICT, Integer, NonNegative, Number, Positive, Setting
from sim.randomization.schema import SimParams
from sim.tasks.registry import recommended_settings

LISTED = "all: mlsh train --list-settings, or config.yaml of a run"
RECOMMENDABLE = (
    "mlsh",
    "master",
    "skill",
    "network",
    "regularization",
    "curriculum",
    "exploration",
    "domain_randomization",
)  # settings, or sections of them, that a family may say
MOST = 10**12  # of anything that is counted
Count = Annotated[Integer, Field(ge=1, le=MOST)]
Natural = Annotated[Integer, Field(ge=0, le=MOST)]
Fraction = Annotated[Number, Field(ge=0, le=1)]


@dataclass(frozen=True, config=STRICT)
class PpoConfig:
    """Proximal policy optimization of one level."""

    learning_rate: Positive  # learning rate of Adam
    gamma: Fraction  # discount factor, per decision (masters) or per tick (skills)
    gae_lambda: Fraction  # lambda of generalized advantage estimation (GAE)
    epochs: Count  # passes over the rollout per update
    minibatch: Count  # samples per minibatch; more than there are means one full batch
    clip: Positive = 0.2  # clip range of the probability ratio
    entropy: NonNegative = 0.0  # coefficient of the entropy bonus
    value_coefficient: Positive = 0.5  # weight of the value loss
    max_grad_norm: Positive | None = 1.0  # largest norm of a gradient; null: not limited
    adam_epsilon: Positive = 1e-8  # added to the denominator of Adam
    # Largest change of a value per update, null: not limited; a switch of `faithful-2017`.
    value_clip: Positive | None = None
    drop_remainder: bool = False  # use whole minibatches only; a switch of `faithful-2017`


@dataclass(frozen=True, config=STRICT)
class MlshConfig:
    """Parameters of MLSH. Letters as in the paper and in docs/glossary.md."""

    skills: Count  # K, number of skills, which all tasks share
    decision_ticks: Count  # N, ticks between two decisions of a master
    warmup: Natural  # W, updates of the master alone on a new task
    joint: Count  # U, updates of master and skills together
    groups: Count  # G, task groups, each with a master of its own
    envs: Count  # E, simulations per group
    rollout_ticks: Count  # T, ticks per rollout; a multiple of N
    decision_lead: Literal[0, 1] = 1  # L, ticks by which a decision is taken ahead
    # The groups' tasks are spread evenly over the family; false: each is drawn independently.
    balanced_tasks: bool = True
    # In the first rollout of a task each skill controls a part of the episodes alone. Its return
    # initializes the master's output: unchanged (absolute), or minus the running mean of the
    # skill's returns (centered).
    probe: Literal["none", "absolute", "centered"] = "centered"
    probe_ema: Fraction = 0.2  # rate of the running mean of each skill's return
    # Largest logit that the probe sets, so that a master still explores.
    probe_logit_clip: Positive = 3.0
    # Reinitialize a skill whose absence would cost less than this fraction of the best normalized
    # return and which no master selects by state, three times at most and not in the last fifth of
    # the training; 0: never. Needs the probe.
    reset_skill_below: Fraction = 0.12
    # Value function at the end of a skill's segment: its own, or that of the skill that follows.
    skill_bootstrap: Literal["same", "next"] = "same"
    # Normalization of the masters' advantages: per group, over all groups, or centered only.
    master_advantage: Literal["group", "global", "centered"] = "centered"
    # Fraction of the decisions that select a skill uniformly at random. That skill acts
    # deterministically, and these steps are excluded from all updates.
    random_skill_fraction: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    # A macro step lasts between N (1 - x) and N (1 + x) ticks, drawn uniformly, with this x.
    duration_jitter: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    # Coefficient of the mutual information of skill and task, a bonus of the masters' rewards in
    # units of the return that a decision can add.
    mutual_information_coef: NonNegative = 0.0
    # Probability of a random skill that is recorded as the master's; a switch of `faithful-2017`.
    master_epsilon: Fraction = 0.0
    fresh_adam: bool = True  # a fresh master gets a fresh optimizer; `faithful-2017`: false
    # Every fresh master of a group has the same initial weights; `faithful-2017`: true.
    same_init: bool = False
    # The previous master takes the first decision of a rollout; a switch of `faithful-2017`.
    stale_first_decision: bool = False
    # A truncated episode is bootstrapped with the value of its last state; `faithful-2017`: false.
    bootstrap_truncated: bool = True
    # Rewards are normalized: minus the mean reward of random actions, divided by the reward that a
    # step of the task earns more at the optimum; `faithful-2017`: false.
    scaled_returns: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.rollout_ticks % self.decision_ticks:
            raise ValueError(
                f"rollout_ticks {self.rollout_ticks} is not a multiple of decision_ticks "
                f"{self.decision_ticks} ({self.rollout_ticks} = "
                f"{self.rollout_ticks // self.decision_ticks} x {self.decision_ticks} + "
                f"{self.rollout_ticks % self.decision_ticks})"
            )
        if self.decision_lead >= self.decision_ticks:
            raise ValueError(
                f"decision_lead {self.decision_lead} must be below decision_ticks "
                f"{self.decision_ticks}"
            )
        shortest = self.decision_ticks - round(self.duration_jitter * self.decision_ticks)
        if shortest <= self.decision_lead:
            raise ValueError(
                f"duration_jitter {self.duration_jitter} of decision_ticks {self.decision_ticks} "
                f"leaves {shortest} ticks, decision_lead {self.decision_lead} needs more"
            )
        if self.probe != "none" and self.envs < 2 * self.skills:
            raise ValueError(
                f"the probe needs two simulations per skill: envs {self.envs} < 2 x {self.skills}"
            )
        return self

    @property
    def steps_per_update(self) -> int:
        """Environment steps that a group collects per update of its master."""
        return self.envs * self.rollout_ticks

    @property
    def steps_per_iteration(self) -> int:
        """Environment steps that all groups collect per iteration."""
        return self.groups * self.steps_per_update


@dataclass(frozen=True, config=STRICT)
class NetworkConfig:
    """Networks of policies and value functions: by default two tanh layers, as in the paper."""

    hidden: tuple[Count, ...] = (64, 64)  # width of each hidden layer of every network
    skill_hidden: tuple[Count, ...] | None = None  # those of the skills; null: as `hidden`
    master_hidden: tuple[Count, ...] | None = None  # those of the masters; null: as `hidden`
    # Those of the value functions of both levels; null: as the policies of their level.
    value_hidden: tuple[Count, ...] | None = None
    activation: Activation = "tanh"  # function between the layers of every network
    # That of the masters and their value functions; null: as `activation`.
    master_activation: Activation | None = None
    initial_log_std: Number = 0.0  # logarithm of the skills' initial standard deviation
    # Normalize observations by their running mean and standard deviation.
    normalize_observations: bool = True
    # Observation terms that are not an input of the skills, such as the position: walking does not
    # depend on it, and values outside the training range then have no effect.
    hidden_from_skills: tuple[str, ...] = ()
    # Observation terms that are not an input of the masters: a few hundred decisions are too few
    # to learn which of many joints matter.
    hidden_from_masters: tuple[str, ...] = ()
    # What the skills' value functions see beside the observation, by name: true values of
    # observation terms, also of those that are no policy input; signals of the task family and of
    # robot.yaml; `sim_params`, what the episode drew. No part of a bundle.
    privileged: tuple[str, ...] = ()

    @property
    def of_skills(self) -> NetworkConfig:
        """The same with the sizes of the skills as `hidden`."""
        skills = self.hidden if self.skill_hidden is None else self.skill_hidden
        return replace(self, hidden=skills)

    @property
    def of_masters(self) -> NetworkConfig:
        """The same with what is said of masters as `hidden` and `activation`."""
        masters = self.hidden if self.master_hidden is None else self.master_hidden
        activation = self.master_activation or self.activation
        return replace(self, hidden=masters, activation=activation)

    @property
    def value_sizes(self) -> tuple[int, ...]:
        """Hidden layers of the value functions beside policies with `hidden`."""
        return self.hidden if self.value_hidden is None else self.value_hidden


@dataclass(frozen=True, config=STRICT)
class TrainConfig:
    """Configuration of a training run."""

    family: str  # task family; the argument FAMILY
    robot: str  # name or folder of the robot; the option --robot
    mlsh: MlshConfig  # the method
    master: PpoConfig  # updates of the masters
    skill: PpoConfig  # updates of the skills
    network: NetworkConfig = NetworkConfig()
    regularization: RegularizationConfig = RegularizationConfig()  # of the skills
    curriculum: CurriculumConfig = CurriculumConfig()  # of the reward terms
    exploration: ExplorationConfig = ExplorationConfig()  # of the skills
    family_parameters: dict[str, Setting] = Field(default_factory=dict)  # by name
    seed: Natural = 0  # random seed; the option --seed
    steps: Count = 1_000_000  # environment steps of meta-training
    threads: Count = 2  # threads of the simulator and of the skills' updates
    checkpoint_every: Count = 20  # iterations between two checkpoints
    # Every episode draws from the ranges in the robot's domain_randomization.yaml.
    domain_randomization: bool = False
    # Of masters for new tasks (`mlsh finetune`); null: they learn with PPO.
    offpolicy: OffPolicyConfig | None = None
    sim_params: SimParams | None = None  # sim parameters; the option --sim-params

    @property
    def iterations(self) -> int:
        """Iterations that fit into `steps`, at least one."""
        return max(1, self.steps // self.mlsh.steps_per_iteration)

    def with_values(self, assignments: list[str]) -> TrainConfig:
        """A copy with `section.key=value` assignments, values as in YAML.

        Raises:
            UserError: no such key, an invalid value, or two assignments of one setting.
        """
        check_once(assignments)
        data = asdict(self)
        for assignment in assignments:
            path, equals, text = assignment.partition("=")
            if not equals:
                raise UserError(f"setting {short(assignment)}: key=value is expected")
            section, leaf = self._place(data, path)
            section[leaf] = parse_yaml(text, f"setting {short(assignment)}")
        return config_from_dict(data, "settings")

    def recommended_by(self, family: str) -> TrainConfig:
        """Returns a copy with the settings that a task family recommends.

        Raises:
            UserError: no such setting, one that only the user may set, or an invalid value.
        """
        data, where = asdict(self), f"recommended settings of task family {family!r}"
        for path, value in recommended_settings(family).items():
            if path.partition(".")[0] not in RECOMMENDABLE:
                raise UserError(
                    f"{where}: {short(path)} cannot be recommended by a family. Valid: "
                    f"{', '.join(RECOMMENDABLE)}"
                )
            try:
                section, leaf = self._place(data, path)
            except UserError as error:
                raise UserError(f"{where}: {error}") from None
            section[leaf] = value
        return config_from_dict(data, where)

    def _place(self, data: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
        """Returns the part of `data` with a setting, and the setting's key in it."""
        *parents, leaf = path.split(".")
        section: Any = data
        free = parents[:1] == ["family_parameters"]  # the family knows the names
        for parent in parents:
            if free and isinstance(section, dict) and not isinstance(section.get(parent), dict):
                section[parent] = {}  # a parameter of parts, of which one is said
            section = section.get(parent) if isinstance(section, dict) else None
        if not isinstance(section, dict) or not (free or leaf in section):
            problem = unknown("setting", path, setting_names(self), renamed_keys(CONFIG))
            raise UserError(f"{problem}; {LISTED}")
        return section, leaf


def setting_names(config: TrainConfig) -> list[str]:
    """Names of all settings that `with_values` can change, as `section.key`."""
    return _paths(config_to_dict(config))


def touches(assignment: str, key: str) -> bool:
    """True if an assignment changes a setting: itself, its section, or a part of it."""
    path = assignment.partition("=")[0]
    return path == key or path.startswith(f"{key}.") or key.startswith(f"{path}.")


def check_once(assignments: Sequence[str]) -> None:
    """Refuse a setting that is given twice, also as a part of another: the last one would win.

    Raises:
        UserError: names both assignments.
    """
    for i, later in enumerate(assignments):
        path = later.partition("=")[0]
        if twice := [each for each in assignments[:i] if touches(each, path)]:
            raise UserError(f"settings {short(twice[0])} and {short(later)}: give it once")


def check_free(assignments: Sequence[str], taken: Mapping[str, str]) -> None:
    """Refuse settings that a command determines itself.

    Args:
        assignments: as of `TrainConfig.with_values`.
        taken: by name of the setting, what decides it.

    Raises:
        UserError: one would be overridden in silence, or do nothing.
    """
    for assignment in assignments:
        for key, why in taken.items():
            if touches(assignment, key):
                raise UserError(f"setting {short(assignment)}: {key} {why}")


# What an argument or an option of `mlsh train` and `mlsh sweep` says.
IDENTITY = {
    "family": "is the argument FAMILY",
    "robot": "is set by --robot",
    "seed": "is set by --seed",
    "offpolicy": "is for new tasks: mlsh finetune",
}


_ADAPTER = TypeAdapter(TrainConfig)


def config_from_dict(data: object, where: str) -> TrainConfig:
    """Validate plain data into a configuration.

    Raises:
        UserError: one line that names the key.
    """
    if names := earlier_names(data, CONFIG):
        raise UserError(f"{where}: {names}")
    return validated(_ADAPTER, data, where)


def config_to_dict(config: TrainConfig) -> dict[str, Any]:
    """Plain data that `config_from_dict` reads back equal."""
    data: dict[str, Any] = _ADAPTER.dump_python(config, mode="json")
    if data["offpolicy"] is None:  # no part of a training: its digests do not depend on it
        del data["offpolicy"]
    return data


def read_config(path: Path) -> TrainConfig:
    """Read a configuration from YAML.

    Raises:
        UserError: the file is missing, not readable, or invalid.
    """
    data = {"schema": OLD_SCHEMA, **read_mapping(path)}
    check_schema(data, CONFIG, path, path.parent)
    del data["schema"]
    return config_from_dict(data, str(path))


def write_config(config: TrainConfig, path: Path) -> None:
    """Write a configuration as YAML."""
    data = {"schema": SCHEMA, **config_to_dict(config)}
    write_file(path, dump_yaml(data), overwrite=True)


def _paths(data: dict[str, Any], prefix: str = "") -> list[str]:
    paths = []
    for key, value in data.items():
        paths += _paths(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]
    return paths
