"""mlsh new-robot: create a robot folder from an MJCF model or a URDF."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from mlsh_ros.cli.console import say
from sim.errors import UserError, listed

if TYPE_CHECKING:
    from sim.robot_setup.import_urdf import UrdfSettings

T = TypeVar("T")


def new_robot(
    name: Annotated[str, typer.Argument(help="Name of the robot: letters, digits, - and _.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder; it must not exist.")],
    mjcf: Annotated[Path | None, typer.Option(help="Main MJCF file of the model.")] = None,
    urdf: Annotated[
        Path | None,
        typer.Option(help="URDF of the robot, in the place of an MJCF file; without xacro."),
    ] = None,
    joints: Annotated[
        str,
        typer.Option(
            help="Of a URDF: driven joints, as a,b,c. Default: those of its ros2_control, else of "
            "its transmissions, else all that move and mimic none."
        ),
    ] = "",
    command: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[JOINT=]KIND",
            help="Of a URDF: position, velocity or effort, as JOINT=KIND, or as KIND for all "
            "joints of which the URDF does not say one. Repeatable.",
        ),
    ] = None,
    stiffness: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[JOINT=]NUMBER",
            help="Of a URDF: stiffness of position servos, N m/rad or N/m, as NUMBER for all "
            "joints or as JOINT=NUMBER. Repeatable.",
        ),
    ] = None,
    damping: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[JOINT=]NUMBER",
            help="Of a URDF: damping of position servos and gain of velocity servos, N m s/rad or "
            "N s/m, as NUMBER for all joints or as JOINT=NUMBER. Repeatable.",
        ),
    ] = None,
    floating_base: Annotated[
        bool, typer.Option("--floating-base", help="Of a URDF: the base is not fixed.")
    ] = False,
    package: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FOLDER",
            help="Of a URDF: where a ROS package with meshes is, as NAME=FOLDER, if neither "
            "around the URDF nor installed. Repeatable.",
        ),
    ] = None,
) -> None:
    """Draft robot.yaml from a MuJoCo model or a URDF and copy the model beside it."""
    if (mjcf is None) == (urdf is None):
        raise UserError("new-robot needs one model: either --mjcf FILE or --urdf FILE")
    from mlsh_ros.messages.binding_check import binding_errors
    from sim.robot_setup.import_mjcf import import_mjcf
    from sim.robot_setup.import_urdf import import_urdf
    from sim.robot_setup.placeholders import TODO

    given = {
        "--joints": joints,
        "--command": command,
        "--stiffness": stiffness,
        "--damping": damping,
        "--floating-base": floating_base,
        "--package": package,
    }
    said: list[str] = []
    if urdf is not None:
        settings = _settings(joints, command, stiffness, damping, floating_base, package)
        text, said = import_urdf(name, urdf, output, settings, binding_errors)
    elif mjcf is not None:
        if unused := [option for option, value in given.items() if value]:
            raise UserError(f"{listed(unused)}: of a URDF; an MJCF file says it itself")
        text = import_mjcf(name, mjcf, output, binding_errors)
    for each in said:
        say(f"  {each}")
    count = sum(TODO in line.partition("#")[0] for line in text.splitlines())
    say(f"robot {name}: {output / 'robot.yaml'} and {output / 'model.xml'}")
    say(f"{count} lines of robot.yaml are {TODO}: the model does not contain them")
    say(f"next: mlsh check-robot {quote(str(output))}")


def _settings(
    joints: str,
    command: list[str] | None,
    stiffness: list[str] | None,
    damping: list[str] | None,
    floating: bool,
    package: list[str] | None,
) -> UrdfSettings:
    from sim.robot_setup.import_urdf import UrdfSettings
    from sim.robot_setup.urdf_joints import KINDS, Drives

    def kind(text: str) -> str:
        if text not in KINDS:
            raise ValueError(f"Valid: {listed(KINDS)}")
        return text

    gains = {
        "stiffness": _each("--stiffness", stiffness, _gain),
        "damping": _each("--damping", damping, _gain),
    }
    names = tuple(part.strip() for part in joints.split(",") if part.strip())
    packages = _each("--package", package, Path)
    if "" in packages:
        raise UserError(f"--package {packages['']}: NAME=FOLDER is expected")
    return UrdfSettings(
        Drives(names, _each("--command", command, kind), gains), packages, floating
    )


def _gain(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ValueError("a number that is not negative is expected")
    return value


def _each(option: str, given: list[str] | None, parse: Callable[[str], T]) -> dict[str, T]:
    """Returns what is given for each name; "" is the name of a value without one."""
    found: dict[str, T] = {}
    for text in given or ():
        name, _, value = text.rpartition("=")
        if name in found:
            raise UserError(f"{option} {text}: given twice{f' for {name}' if name else ''}")
        try:
            found[name] = parse(value)
        except ValueError as error:
            raise UserError(f"{option} {text}: {error}") from None
    return found
