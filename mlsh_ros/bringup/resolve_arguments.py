"""Resolves the arguments of a node graph against bundle, robot and task.

The nodes check the same, but only after other nodes have started.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from json import dumps
from pathlib import Path

from mlsh_ros.bringup.node_graph import USE_SIM_TIME, Graph, argument_value
from mlsh_ros.bringup.params_file import overrides_from_file
from mlsh_ros.messages.binding_check import check_bindings
from policies.bundle.bound_bundle import bound_by_file
from policies.bundle.bundle import Bundle, load_bundle, pretrained_names
from policies.bundle.robot_compatibility import check_agrees
from sim.errors import UserError
from sim.interface.robot_file import robot_names

GRACE = 5.0  # s, beside braking, that a node has to end before it is killed
# What all nodes of a graph have to agree on: they are one robot's.
SHARED = ("bundle", "bindings", "robot", "mode", "enable_stamped_cmd_vel", USE_SIM_TIME)
OF_THE_TASK = ("master", "task")  # may be said for one node, and hold for the others
NAMES = ("bundle", "robot", "sim_params")  # arguments that nodes look up, as a name or a path


def resolve_arguments(
    graph: Graph, values: Mapping[str, str], given: Collection[str] = ()
) -> dict[str, str]:
    """Returns the `resolve`d arguments with robot, master and task filled in.

    Args:
        graph: of the nodes.
        values: of all arguments.
        given: those that the user gave; any that is not at its default is one too.

    Raises:
        UserError: there is no such bundle, robot, master or task, they do not fit each other, or
            the parameter file contradicts an argument or itself.
    """
    values = dict(values)
    for argument in graph.arguments:
        if argument.required and not values[argument.name]:
            raise UserError(
                f"argument {argument.name} must be given, as {argument.name}:=NAME or a path: "
                f"which policy drives a robot is never assumed. Valid: "
                f"{', '.join(pretrained_names())}, or a folder or zip file"
            )
    if values["params_file"]:
        changed = {a.name for a in graph.arguments if values[a.name] != a.default}
        values |= _agreed(graph, values, changed | {*given})
    bundle = load_bundle(values["bundle"])
    bound = bound_by_file(bundle, values["bindings"])
    check_bindings(bound.interface, values["bindings"])
    if values["master"]:
        bundle.master(values["master"])
    if graph.simulates:
        values = _simulated(bundle, values)
    elif values["robot"]:
        check_agrees(bound, values["robot"], values["bindings"])
    _check_recording(values)
    return values


def _agreed(graph: Graph, values: Mapping[str, str], given: Collection[str]) -> dict[str, str]:
    """Returns the arguments set by a parameter file, where all their nodes agree.

    Raises:
        UserError: it contradicts an argument that was given, or two nodes would differ in what
            they share.
    """
    where = f"params_file {values['params_file']}"
    said = overrides_from_file(values["params_file"], values["namespace"])
    found = {}
    for argument in graph.arguments:
        name, own = argument.name, argument_value(argument.name, values[argument.name])
        nodes = graph.told(name, values)
        told = [(node, value) for node in nodes for value in said.get(node, {}).get(name, [])]
        wrong = next((node for node, value in told if value != own), None)
        if wrong is not None and name in given:
            raise UserError(
                f"{where}: {wrong}: {name} must stay {dumps(own)}, as the argument says"
            )
        if name in SHARED and told:
            told += [(node, own) for node in nodes if name not in said.get(node, {})]
        differs = next((each for each in told if each[1] != told[0][1]), None)
        if differs is not None and name in (*SHARED, *OF_THE_TASK):
            one, two = (f"{dumps(v, default=str)} for {node}" for node, v in (told[0], differs))
            raise UserError(
                f"{where}: {name} is {one} and {two}; all nodes need the same: say it once, under "
                f"/**, or as {name}:="
            )
        # Nobody may change an argument of a single choice; another type is the node's to refuse.
        if told and differs is None and len(argument.choices) != 1:
            value = told[0][1]
            if type(value) is type(own):
                found[name] = str(value).lower() if isinstance(value, bool) else str(value)
    return found


def _check_recording(values: Mapping[str, str]) -> None:
    """Refuse a recording under which one name of this graph would have two meanings."""
    folder = values["record_dir"]
    for name in NAMES if folder and values["record"] == "true" else ():
        if values.get(name) and Path(folder).resolve() == Path(values[name]).resolve():
            raise UserError(
                f"record_dir {folder}: its folder would stand where {name} {values[name]!r} is "
                "looked up; choose another name for the recording"
            )


def grace(values: Mapping[str, str]) -> float:
    """Time that a node may take to end, s: the longest braking time and a margin."""
    return GRACE + load_bundle(values["bundle"]).interface.braking_time[0]


def _simulated(bundle: Bundle, values: dict[str, str]) -> dict[str, str]:
    """Fills in robot and task of a simulation, which must be those of the bundle."""
    try:  # a robot's computer has no MuJoCo
        from policies.bundle.task_compatibility import check_fits, resolve_task
        from sim.physics.robot_model import load_robot
        from sim.randomization.schema import load_sim_params
        from sim.tasks.registry import use_families
        from sim.tasks.task_id import TaskId
    except ModuleNotFoundError as error:
        raise UserError(
            f"{error.name} is not installed, which a simulation needs; pip install "
            "'mlsh_ros[sim]' brings it"
        ) from None
    use_families(values["family"])
    robot = values["robot"] or bundle.interface.robot
    if not values["robot"] and robot not in robot_names():
        raise UserError(
            f"bundle {bundle.label} is for robot {robot!r}, which does not ship with "
            "the package; give its folder as robot:=PATH"
        )
    masters = bundle.manifest.masters
    if not masters:
        raise UserError(
            f"bundle {bundle.label} has no master yet, which selects its skills; "
            "`mlsh finetune` trains one"
        )
    master = values["master"] or next(iter(masters))
    task = values["task"] or masters[master].task
    resolve_task(bundle, TaskId.parse(task))
    known = ", ".join(f"{entry.task} ({name})" for name, entry in masters.items())
    if not values["master"] and task not in [entry.task for entry in masters.values()]:
        raise UserError(
            f"no master of bundle {bundle.label} was trained on task {task!r}. Valid: "
            f"{known}; or name one as master:=NAME"
        )
    try:
        body = load_robot(robot)
        check_fits(bundle, body, TaskId.parse(task))
    except UserError as error:
        raise UserError(
            f"{error}. The bundle is for robot {bundle.interface.robot!r} and has masters for: "
            f"{known}"
        ) from None
    if values["sim_params"]:
        load_sim_params(values["sim_params"], body)
    return {**values, "robot": robot, "task": task}
