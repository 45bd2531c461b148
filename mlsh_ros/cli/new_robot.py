"""mlsh new-robot: create a robot folder from an MJCF model."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from mlsh_ros.cli.console import say


def new_robot(
    name: Annotated[str, typer.Argument(help="Name of the robot: letters, digits, - and _.")],
    mjcf: Annotated[Path, typer.Option(help="Main MJCF file of the model.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder; it must not exist.")],
) -> None:
    """Draft robot.yaml from a MuJoCo model and copy the model beside it."""
    from mlsh_ros.messages.binding_check import binding_errors
    from sim.robot_setup.import_mjcf import import_mjcf
    from sim.robot_setup.placeholders import TODO

    text = import_mjcf(name, mjcf, output, binding_errors)
    count = sum(TODO in line.partition("#")[0] for line in text.splitlines())
    say(f"robot {name}: {output / 'robot.yaml'} and {output / 'model.xml'}")
    say(f"{count} lines of robot.yaml are {TODO}: the model does not contain them")
    say(f"next: mlsh check-robot {quote(str(output))}")
