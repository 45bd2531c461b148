"""mlsh sysid: identify parameters of a robot's simulation from recordings."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

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
)
from sim.errors import UserError


def sysid(
    bundle: BundleOrRobotName,
    bags: Recordings,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="YAML file for the identified parameters.")
    ] = Path("sim_params.yaml"),
    parameters: Annotated[
        list[str] | None,
        typer.Option(
            help="Identify only this parameter, such as drive_x.delay_s; "
            "gain_factor selects it for every actuator. Repeatable."
        ),
    ] = None,
    fix: Annotated[
        list[str] | None,
        typer.Option(
            help="Do not identify this parameter, for example because it was measured. Repeatable."
        ),
    ] = None,
    prior: Annotated[
        str,
        typer.Option(
            help="Known deviations from the nominal model: a name shipped with "
            "the robot, or a YAML file."
        ),
    ] = "",
    ranges: Annotated[
        Path | None,
        typer.Option(
            help="YAML file with the ranges of the parameters. Default: "
            "domain_randomization.yaml of the robot."
        ),
    ] = None,
    robot: NominalRobotName = None,
    bindings: BindingsFile = "",
    namespace: RecordedNamespace = None,
    topic: RenamedTopics = None,
    overwrite: Overwrite = False,
    family_source: FamilyOption = None,
) -> int:
    """Identify masses, friction, gains, delays and biases; writes them with standard errors.

    Parameters that cannot be identified from the recordings keep their nominal value and are
    listed. Exit status 1: no parameter could be identified, or the result predicts worse than the
    nominal model; no file is written then.
    """
    for needed in ("scipy", "tabulate"):
        if find_spec(needed) is None:
            raise UserError(
                f"{needed} is not installed, which mujoco.sysid needs: install the extra `sysid`"
            )
    from mlsh_ros.sim2real.data.recording_data import Where, check_distinct, load
    from mlsh_ros.sim2real.data.target import load_target, nominal
    from mlsh_ros.sim2real.sysid.identify import identify
    from mlsh_ros.sim2real.sysid.least_squares import FLOOR
    from sim.files.output import check_place, write_file
    from sim.randomization.schema import RANGES, load_ranges, load_sim_params

    check_order("mlsh sysid BUNDLE RECORDING", bundle=bundle, recording=str(bags[0]))
    check_place(output, overwrite=overwrite)
    logging.getLogger("absl").setLevel(logging.ERROR)  # of numbers that start at a bound
    where = Where.of(namespace, topic or ())
    loaded = load_target(bundle, bindings)
    body = nominal(loaded, robot)
    if ranges is None and not body.model_path.with_name(RANGES).is_file():
        raise UserError(
            f"robot {body.name!r} has no {RANGES}, so nothing says what may differ: give a file "
            "with --ranges, as docs/sim-params.md describes it"
        )
    differs = load_ranges(ranges, body) if ranges else None
    check_distinct(bags)
    found = identify(
        loaded,
        [load(bag, loaded, where).signals for bag in bags],
        robot=robot,
        prior=load_sim_params(prior, body) if prior else None,
        ranges=differs,
        parameters=parameters or (),
        fix=fix or (),
        report=say,
    )
    for line in found.lines():
        say(line)
    if all(number.why_not for number in found.numbers):
        raise UserError("no parameter could be identified from the recordings; no file is written")
    # No model is better than FLOOR: below that neither of two is the better one.
    if not found.after <= max(found.before, FLOOR):  # nan too
        raise UserError(
            f"what was found predicts worse than the nominal model: RMSE {found.before:.3g} "
            f"before, {found.after:.3g} after, in windows that were not fitted; nothing is "
            "written: the nominal model is the better one"
        )
    write_file(output, found.to_yaml([str(bag) for bag in bags]), overwrite=overwrite)
    say(f"sim parameters: {output}")
    return 0
