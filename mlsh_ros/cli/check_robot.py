"""mlsh check-robot: validate a robot folder, then test the robot in simulation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from mlsh_ros.cli.console import Screen, console, say
from mlsh_ros.cli.options import number
from sim.errors import UserError, counted
from sim.interface import ActionTerm, Interface, ObservationTerm, spread

if TYPE_CHECKING:
    import mujoco

    from sim.robot_setup.step_test import StepTest, StepTestReport

STILL = 1e-3  # of any unit; what moves by less is not worth a word
MANY = 8  # elements of a term beyond which they are shown in one line


def check_robot(
    robot: Annotated[
        str,
        typer.Argument(help="Robot: the name of a shipped one, or the path of a robot folder."),
    ],
    seconds: Annotated[
        float, number(0.5, 60, help="Simulated seconds for which each command is held.")
    ] = 3.0,
) -> None:
    """Report all errors of a robot folder; without errors, test the robot in simulation."""
    from mlsh_ros.messages.binding_check import binding_errors, binding_warnings
    from sim.physics.robot_model import load_robot, robot_folder
    from sim.robot_setup.rest_test import unrest
    from sim.robot_setup.step_test import run_step_tests
    from sim.robot_setup.time_step_test import coarse
    from sim.robot_setup.validation import find_errors, find_warnings, label

    folder = robot_folder(robot)
    wrong = find_errors(folder)
    if not wrong:
        loaded = load_robot(robot)
        wrong = binding_errors(loaded.interface)
    if wrong:
        _refuse(folder, wrong)
    interface, model = loaded.interface, loaded.compile()
    _show(interface, model)
    trial = run_step_tests(interface, model, seconds)
    if not trial.held.finite:
        _refuse(folder, ["the simulation diverges while the safe command is held"])
    _show_trial(interface, trial, seconds)
    if bad := [drive for drive in trial.drives if not drive.shown.finite]:
        _refuse(folder, [f"the simulation diverges with {label(bad[0])}"])
    loose = list(unrest(interface, model, seconds))
    names = {model.joint(i).name for i in range(model.njnt)}
    names |= {model.actuator(i).name for i in range(model.nu)}
    found = [*loose, *binding_warnings(interface, names), *find_warnings(interface, model, trial)]
    if not loose:  # who falls, falls another way at every step
        found += coarse(interface, model)
    for each in found:
        say(f"  warning: {each}")
    verdict = "sound"
    if trial.skipped:
        verdict = "no errors, but not every command was tested"
    if loose:
        verdict = "no errors, but it does not stay where `safe_command` holds it"
    say(f"robot {interface.robot}: {verdict}, {counted(len(found), 'warning')}")


def _refuse(folder: object, wrong: list[str]) -> None:
    if len(wrong) > 1:
        for number, each in enumerate(wrong, 1):
            say(f"{number:3}. {each}")
        raise UserError(f"{folder}: {counted(len(wrong), 'error')}")
    text = wrong[0]
    raise UserError(text if str(folder) in text else f"{folder}: {text}")


# What it is -------------------------------------------------------------------------------------


def _table(*heads: str) -> Table:
    table = Table(box=None, padding=(0, 1))
    for head in heads:
        table.add_column(head, overflow="fold")
    return table


def _print(table: Table) -> None:
    # In a pipe there is no width to keep to; paths of messages are long.
    wide = console if console.is_terminal else Screen(220)
    wide.print(table)


def _show(interface: Interface, model: mujoco.MjModel) -> None:
    from sim.robot_setup.validation import mujoco_sources

    i = interface
    checked = sum(term.count for term in i.observation if not term.policy_input)
    hidden = f" and {checked} (in brackets) for the safety monitor alone" if checked else ""
    say(
        f"robot {i.robot}: {i.observation_size} observations{hidden}, {i.action_size} actions, a "
        f"tick every {i.control_dt:g} s, {i.substeps} physics steps of {i.physics_dt:g} s"
    )
    table = _table("observation", "unit", "frame", "limit", "max age", "MuJoCo", "ROS")
    for term in i.observation:
        sources, fields = mujoco_sources(model, term), term.ros.fields
        labels = [f"{term.name}.{k}" for k in range(term.count)]
        limits = _limits(term)
        if (term.size > MANY and len(set(limits)) == 1) or term.derive:
            labels = [labels[0] + (f" .. {term.count - 1}" if term.count > 1 else "")]
            limits = [", ".join(dict.fromkeys(limits))]
            sources, fields = [f"{sources[0]} .."], (f"{fields[0]} .. {fields[-1]}",)
        if not term.policy_input:
            labels = [f"({label})" for label in labels]
        for name, limit, place, field in zip(labels, limits, sources, fields, strict=True):
            table.add_row(
                name,
                term.unit,
                term.frame,
                limit,
                f"{term.max_age:g} s",
                place,
                f"{term.ros.topic} {term.ros.type.split('/')[-1]} {field}",
            )
    for name, width in i.computed_terms.widths.items():
        (kind,) = (term.kind for term in i.computed if term.name == name)
        label = f"{name}.0" + (f" .. {width - 1}" if width > 1 else "")
        table.add_row(label, "", "", "", "", f"computed: {kind.replace('_', ' ')}", "")
    _print(table)
    heads = ("limit", "rate limit", "safe command", "smoothing", "tracking", "MuJoCo", "ROS")
    table = _table("action", "unit", "frame", *heads)
    for action in i.action:
        for k, actuator in enumerate(action.mujoco.actuators):
            table.add_row(
                f"{action.name}.{k}",
                action.unit,
                action.frame,
                _range(action.limits[0][k], action.limits[1][k]),
                f"{action.rate_limits[k]:g}/s",
                f"{action.safe_command[k]:g}",
                f"{action.smoothing_times[k]:g} s",
                _tracking(action, k),
                f"{actuator} = ctrl[{model.actuator(actuator).id}]",
                f"{action.ros.topic} {action.ros.type.split('/')[-1]} {action.ros.fields[k]}",
            )
    _print(table)


def _show_trial(interface: Interface, trial: StepTestReport, seconds: float) -> None:
    units = {term.name: term.unit for term in interface.observation}
    moved = {n: float((high - trial.held.low[n]).max()) for n, high in trial.held.high.items()}
    words = [_amount(name, moved[name], units[name]) for name in moved if moved[name] > STILL]
    shown = f"what moves, and by how much: {', '.join(words)}" if words else "nothing moves"
    say(f"held at its safe command for {seconds:g} s: {shown}")
    table = _table("driven to", "gain", "lag (ms)", "worst error", "beyond tolerance (s)")
    for name in ("command stops (s)", "robot stops (s)"):
        table.add_column(name)
    for drive in trial.drives:
        table.add_row(*_cells(drive))
    _print(table)


def _amount(name: str, moved: float, unit: str) -> str:
    return f"{name} {moved:.2g}" + ("" if unit == "1" else f" {unit}")


def _cells(drive: StepTest) -> tuple[str, ...]:
    from sim.robot_setup.validation import label

    did = drive.followed
    if did is None:
        return (label(drive), "-", "-", "-", "-", f"{drive.ramp:.2f}", "-")
    return (
        label(drive),
        f"{did.gain:.2f}",
        "-" if did.lag is None else f"{1e3 * did.lag:.0f}",
        f"{did.error:.2g}",
        f"{did.longest:.2g}",
        f"{drive.ramp:.2f}",
        "-" if did.stop is None else f"{did.stop:.2f}",
    )


def _limits(term: ObservationTerm) -> list[str]:
    if term.limits is None:
        return ["none"] * term.count
    return [_range(low, high) for low, high in zip(*term.limits, strict=True)]


def _tracking(action: ActionTerm, element: int) -> str:
    rule, at = action.tracking, action.measured[element]
    if rule is None or at is None:
        return "none"
    tolerance = spread(rule.tolerance, action.size)[element]
    term = rule.term if at == element else f"{rule.term}.{at}"
    return f"{term} {tolerance:g} for {rule.timeout:g} s"


def _range(low: float, high: float) -> str:
    return f"{low:g} .. {high:g}"
