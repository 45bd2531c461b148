"""What the arguments of a graph come to, once bundle, robot and task have been looked at.

All of it is refused by the nodes too, but only when others have started.
"""

from __future__ import annotations

from collections.abc import Mapping

from mlsh_ros.bringup.node_graph import Graph
from mlsh_ros.bringup.params_file import said_by_file
from policies.bundle.bundle import Bundle, load_bundle
from policies.bundle.robot_compatibility import check_agrees
from sim.errors import UserError
from sim.interface.robot_file import robot_names

GRACE = 5.0  # s, beside braking, that a node has to end before it is killed
FILLED = {"bundle", "robot", "master", "task"}


def settle(graph: Graph, values: Mapping[str, str]) -> dict[str, str]:
    """The `resolve`d arguments with robot, master and task filled in where they follow.

    Raises:
        UserError: there is no such bundle, robot, master or task, or they do not fit each other.
    """
    values = dict(values)
    if file := values["params_file"]:  # beats the arguments, but for a robot that was named
        open_ = FILLED & values.keys() - ({"robot"} if values["robot"] else set())
        values |= said_by_file(file, values["namespace"], open_)
    bundle = load_bundle(values["bundle"])
    if values["master"]:
        bundle.master(values["master"])
    if graph.simulates:
        return _simulated(bundle, values)
    if values["robot"]:
        check_agrees(bundle, values["robot"])
    return values


def grace(values: Mapping[str, str]) -> float:
    """S that a node may take to end: what braking the bundle's robot takes, and some more."""
    return GRACE + load_bundle(values["bundle"]).interface.braking_time[0]


def _simulated(bundle: Bundle, values: dict[str, str]) -> dict[str, str]:
    """With a world, whose robot and task have to be the bundle's."""
    try:  # a robot's computer has no MuJoCo
        from policies.bundle.task_compatibility import check_fits, task_of
        from sim.physics.robot_model import load_robot
        from sim.randomization.schema import load_reality
    except ModuleNotFoundError as error:
        raise UserError(
            f"{error.name} is not installed, which a simulation needs; pip install "
            "'mlsh_ros[sim]' brings it"
        ) from None
    robot = values["robot"] or bundle.interface.robot
    if not values["robot"] and robot not in robot_names():
        raise UserError(
            f"bundle {bundle.manifest.name!r} is for robot {robot!r}, which does not ship with "
            "the package; give its folder as robot:=PATH"
        )
    masters = bundle.manifest.masters
    master = values["master"] or next(iter(masters))
    task = values["task"] or masters[master].task
    task_of(bundle, task)
    known = ", ".join(f"{entry.task} ({name})" for name, entry in masters.items())
    if not values["master"] and task not in [entry.task for entry in masters.values()]:
        raise UserError(
            f"no master of bundle {bundle.manifest.name!r} was trained on task {task!r}. Valid: "
            f"{known}; or name one as master:=NAME"
        )
    try:
        body = load_robot(robot)
        check_fits(bundle, body, task)
    except UserError as error:
        raise UserError(
            f"{error}. The bundle is for robot {bundle.interface.robot!r} and has masters for: "
            f"{known}"
        ) from None
    if values["reality"]:
        load_reality(values["reality"], body)
    return {**values, "robot": robot, "task": task}
