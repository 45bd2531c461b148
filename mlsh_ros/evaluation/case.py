"""`EvaluationCase`: bundle, robot, task and master of an evaluation, resolved and checked once."""

from __future__ import annotations

from dataclasses import dataclass

from policies.bundle.bundle import Bundle
from policies.bundle.task_compatibility import check_fits, resolve_task, robot_of
from sim.errors import UserError
from sim.physics.robot_model import Robot, load_robot
from sim.randomization.schema import SimParams, load_sim_params
from sim.tasks.base import TaskFamily
from sim.tasks.task_id import TaskId


@dataclass(frozen=True, eq=False)
class EvaluationCase:
    """A master of a bundle on a task of a robot; `resolve_cases` ensures that they fit."""

    bundle: Bundle
    robot: Robot
    robot_given: str  # how the user named it: a shipped robot, or a folder
    task: TaskId
    family: TaskFamily  # of the task, as the bundle needs it
    number: int  # of the task in its family
    master: str
    sim_params: SimParams | None = None  # that deviate from the nominal model; None: none do
    sim_params_given: str = ""  # how the user named them: a name, or a file


def resolve_cases(
    bundle: Bundle,
    *,
    robot: str | None = None,
    task: str | None = None,
    master: str | None = None,
    sim_params: str = "",
) -> list[EvaluationCase]:
    """Returns every master on its training task, or the selected ones; of one bundle and robot.

    Args:
        bundle: to be evaluated.
        robot: name or folder; by default the bundle's robot.
        task: `family/name`.
        master: of the bundle; by default each that was trained on the task.
        sim_params: simulation parameters that deviate from the nominal model: a name or a file.

    Raises:
        UserError: no such robot, task, master or parameters, a task without a master of its own,
            or robot and task do not fit the bundle.
    """
    chosen = _choose(bundle, None if task is None else TaskId.parse(task), master)
    given = robot_of(bundle, robot)
    body = load_robot(given)
    differs = load_sim_params(sim_params, body) if sim_params else None
    cases = []
    for each, name in chosen:
        check_fits(bundle, body, each)
        family, number = resolve_task(bundle, each)
        case = EvaluationCase(bundle, body, given, each, family, number, name, differs, sim_params)
        cases.append(case)
    return cases


def _choose(bundle: Bundle, task: TaskId | None, master: str | None) -> list[tuple[TaskId, str]]:
    masters = bundle.manifest.masters
    if not masters:
        raise UserError(
            f"bundle {bundle.label} has skills and no master yet; `mlsh finetune` trains one"
        )
    if master is not None:
        bundle.master(master)
        return [(task or masters[master].task_id, master)]
    if task is None:
        return [(entry.task_id, name) for name, entry in masters.items()]
    if task.name is None:
        known = ", ".join(e.task for e in masters.values() if e.task_id.family == task.family)
        raise UserError(
            f"task {str(task)!r} names a family only; give one task, or leave it out to evaluate "
            f"every task that has a master. Valid: {known or 'no task of this family'}"
        )
    resolve_task(bundle, task)
    own = [(task, name) for name, entry in masters.items() if entry.task_id == task]
    if not own:
        known = ", ".join(f"{name} ({entry.task})" for name, entry in masters.items())
        raise UserError(
            f"no master of bundle {bundle.label} was trained on {str(task)!r}. Masters: "
            f"{known}. `mlsh evaluate --master` runs any of them on any task"
        )
    return own
