"""mlsh gap: compare recordings of a robot with its simulation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from mlsh_ros.cli.argument_order import check_order
from mlsh_ros.cli.console import say
from mlsh_ros.cli.family_option import FamilyOption
from mlsh_ros.cli.options import (
    BindingsFile,
    BundleOrRobotName,
    NominalRobotName,
    Overwrite,
    RecordedNamespace,
    Recordings,
    RenamedTopics,
    SimParamsName,
)
from sim.errors import UserError

ABOVE = 2  # exit status: a gate is passed


def gap(
    bundle: BundleOrRobotName,
    bags: Recordings,
    robot: NominalRobotName = None,
    sim_params: SimParamsName = "",
    master: Annotated[
        str | None,
        typer.Option(
            help="Master that selected the skills. Required only if a recording "
            "does not contain its name."
        ),
    ] = None,
    bindings: BindingsFile = "",
    namespace: RecordedNamespace = None,
    topic: RenamedTopics = None,
    fail_above: Annotated[
        list[str] | None,
        typer.Option(
            help="KEY=VALUE: exit status 2 if this number of gap.json is larger. Repeatable."
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for gap.html and gap.json.")
    ] = Path("reports"),
    overwrite: Overwrite = False,
    family_source: FamilyOption = None,
) -> int:
    """Report how robot and simulation differ, why, and possible remedies: text, HTML and JSON.

    The simulation replays the recorded commands. Status 0: the comparison is complete, whatever
    its result. 2: a number exceeds --fail-above, or wrong usage. 1: a comparison was not possible.
    """
    from mlsh_ros.sim2real.data.recording_data import Where
    from mlsh_ros.sim2real.data.target import load_target
    from mlsh_ros.sim2real.gap.analysis import analyze
    from mlsh_ros.sim2real.gap.report import render
    from sim.files.output import check_place, write_result

    check_order("mlsh gap BUNDLE RECORDING", bundle=bundle, recording=str(bags[0]))
    gates = [_gate(text) for text in fail_above or []]
    files = [output / "gap.json", output / "gap.html"]
    for file in files:
        check_place(file, overwrite=overwrite)
    found = analyze(
        load_target(bundle, bindings),
        bags,
        robot=robot,
        sim_params=sim_params,
        master=master,
        where=Where.of(namespace, topic or ()),
    )
    contents = found.to_json(), render(found)
    write_result(dict(zip(files, contents, strict=True)), overwrite=overwrite)
    for note in found.notes:
        say(f"note: {note}")
    for number, line in enumerate(found.verdict, 1):
        say(f"{number}. {line}" if found.findings else line)
    say(f"report: {output / 'gap.html'}")
    data = found.to_dict()
    limits = [(key, limit, number_at(data, key)) for key, limit in gates]
    above = [(k, limit, v) for k, limit, v in limits if v is not None and v > limit]
    for key, limit, high in above:
        say(f"{key} is {high:.4g}, at most {limit:g} is allowed")
    for key, _, value in limits:
        if value is None:
            say(f"{key} is not known in this recording")
    # What is not known has not passed a gate.
    return ABOVE if above or any(value is None for *_, value in limits) else 0


def _gate(text: str) -> tuple[str, float]:
    key, equals, value = text.partition("=")
    try:
        if not (key and equals):
            raise ValueError
        limit = float(value)
        if not math.isfinite(limit):  # nothing is above nan
            raise ValueError
    except ValueError:
        raise typer.BadParameter(
            f"--fail-above {text!r} is not KEY=VALUE, a finite number"
        ) from None
    return key, limit


def number_at(data: dict[str, Any], key: str) -> float | None:
    """Returns the number at a path such as `worst.nrmse` or `terms.velocity.x.lag`; null is None.

    Raises:
        UserError: there is none; the keys at the place where it goes wrong are named.
    """
    place: Any = data
    left = key
    while left:
        if not isinstance(place, dict):
            break
        # Names of terms hold dots themselves: the longest one that fits.
        fits = [name for name in place if left == name or left.startswith(f"{name}.")]
        if not fits:
            break
        name = max(fits, key=len)
        place, left = place[name], left[len(name) + 1 :]
    if left or isinstance(place, (dict, list, str)):
        choices = ", ".join(place) if isinstance(place, dict) else "none below it"
        raise UserError(f"--fail-above {key}: no number of that name. Valid there: {choices}")
    return None if place is None else float(place)
