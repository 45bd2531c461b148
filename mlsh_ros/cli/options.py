"""Arguments and options that several commands share, and the number types of options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sim.files.strict_yaml import whole_number

MAX_SEED = 2**31 - 1  # what a ROS parameter of ours may hold
MAX_EPISODES = 100_000  # each is a simulation of its own for the reference returns
MAX_UPDATES = 1_000_000  # of a master: every one leaves a row


def whole(low: int, high: int | None = None, *names: str, help: str) -> Any:
    """Returns an option for a whole number from `low` to `high`, such as 1e6."""

    def parse(value: str | int) -> int:
        try:
            number = value if isinstance(value, int) else whole_number(value)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        if number < low or (high is not None and number > high):
            most = "" if high is None else f" and at most {high}"
            raise typer.BadParameter(f"{number} is not at least {low}{most}")
        return number

    metavar = f"INTEGER>={low}" if high is None else f"INTEGER {low}..{high}"
    return typer.Option(*names, parser=parse, metavar=metavar, help=help)


def one_of(choices: tuple[str, ...], *, help: str) -> Any:
    """Returns an option for one of some words."""

    def parse(value: str) -> str:
        if value not in choices:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(choices)}")
        return value

    return typer.Option(parser=parse, metavar="|".join(choices), help=help)


def number(low: float, high: float, *, help: str) -> Any:
    """Returns an option for a number from `low` to `high`, without nan."""

    def parse(value: str | float) -> float:
        try:
            found = float(value)
        except ValueError:
            raise typer.BadParameter(f"{value!r} is not a number") from None
        if not low <= found <= high:
            raise typer.BadParameter(f"{found:g} is not at least {low:g} and at most {high:g}")
        return found

    return typer.Option(parser=parse, metavar=f"NUMBER {low:g}..{high:g}", help=help)


# Objects of an evaluation ------------------------------------------------------------------------

BundleName = Annotated[
    str,
    typer.Argument(help="Bundle: the name of a shipped one, or the path of a folder or zip file."),
]
RobotName = Annotated[
    str | None,
    typer.Option(
        help="Robot: the name of a shipped one, or the path of a robot folder. Default: the "
        "bundle's robot."
    ),
]
TaskName = Annotated[
    str | None,
    typer.Option(help="Task, as family/task. Default: every task that has a master."),
]
MasterName = Annotated[
    str | None,
    typer.Option(help="Master that selects the skills. Default: the masters of the task."),
]
SimParamsName = Annotated[
    str,
    typer.Option(
        help="Simulation parameters that deviate from the nominal model: a name shipped with the "
        "robot, or a YAML file."
    ),
]
EpisodesPerTask = Annotated[int, whole(1, MAX_EPISODES, help="Number of episodes per task.")]
EpisodeSeed = Annotated[int, whole(0, MAX_SEED, help="Random seed of the episodes.")]
RosDomain = Annotated[int | None, typer.Option(help="ROS domain ID.")]

# Learning ----------------------------------------------------------------------------------------

FamilyName = Annotated[
    str,
    typer.Argument(
        help="Task family, for example moving_bandits; one of your own as package.module:Class or "
        "FILE.py."
    ),
]
FamilyRobotName = Annotated[
    str | None,
    typer.Option(
        help="Robot: the name of a shipped one, or the path of a robot folder. Default: the robot "
        "of the task family."
    ),
]
MasterUpdates = Annotated[int, whole(1, MAX_UPDATES, help="Number of updates of each new master.")]
_LEARNERS = (
    "Learner of masters: q learns the values of all decisions so far (off-policy) and needs few "
    "episodes; ppo is the learner of the meta-training"
)
LearnerName = Annotated[str, one_of(("ppo", "q"), help=f"{_LEARNERS}.")]
AnyLearnerName = Annotated[
    str | None,
    one_of(
        ("ppo", "q", "uniform"),
        help=f"{_LEARNERS}; uniform does not learn and gives all skills the same probability, to "
        "record random decisions with greedy:=false. Default: q; ppo with --init-from or "
        "--unfreeze.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Change a setting: KEY=VALUE. `mlsh train --list-settings` lists those of the "
        "training. Repeatable.",
    ),
]
Baseline = Annotated[
    bool,
    typer.Option(help="Also learn each task from scratch with PPO, with the same experience."),
]
TargetScore = Annotated[float, number(0.01, 1, help="Normalized score that counts as success.")]

# Recordings -------------------------------------------------------------------------------------

BundleOrRobotName = Annotated[
    str,
    typer.Argument(
        help="Bundle that controlled the robot, or the robot if another controller did: "
        "the name of a shipped one, or a path."
    ),
]
Recordings = Annotated[
    list[Path], typer.Argument(help="Recordings: MCAP files, or folders of rosbag2.")
]
NominalRobotName = Annotated[
    str | None,
    typer.Option(
        help="Robot that gives the nominal model: the name of a shipped one, or the path of a "
        "robot folder. Default: the bundle's robot."
    ),
]
BindingsFile = Annotated[
    str,
    typer.Option(
        help="File of bindings: topics, message types and fields in place of the robot's own."
    ),
]
RecordedNamespace = Annotated[
    str | None,
    typer.Option(
        help="Namespace of the robot, for a recording with several robots; / is the root."
    ),
]
RenamedTopics = Annotated[
    list[str] | None,
    typer.Option(help="OURS:=THEIRS: a topic that has another name in the recording. Repeatable."),
]

# Results ----------------------------------------------------------------------------------------

SkillLimitsFile = Annotated[
    Path | None,
    typer.Option(
        help="YAML file that limits what a robot may measure while a skill is active: per "
        "skill and observation term [lowest, highest]."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing output files.")]
