"""Begins a run from the arguments of a user: family, robot, preset, settings, sim parameters."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from policies.mlsh.config import IDENTITY, check_free
from policies.mlsh.distributed import ALONE, Ranks
from policies.mlsh.presets import preset
from policies.training.run import Run, create_run
from sim.errors import UserError
from sim.physics.robot_model import load_robot
from sim.randomization.schema import load_sim_params
from sim.tasks.registry import make_family, use_family


def start_run(
    family: str,
    *,
    robot: str | None = None,
    seed: int = 0,
    recipe: str = "default",
    settings: Sequence[str] = (),
    sim_params: str = "",
    path: Path | None = None,
    ranks: Ranks = ALONE,
) -> Run:
    """Make a run folder with the resolved configuration; nothing is trained.

    Args:
        family: of the tasks: a name, package.module:Class or FILE.py.
        robot: name or folder; None: that of the family.
        seed: of initialization, tasks, episodes and exploration.
        recipe: name of a preset.
        settings: `section.key=value` over the preset.
        sim_params: simulation parameters, by name or as a file; empty: the nominal model.
        path: the folder; None: one under runs/ that is named by family, robot, seed and time.
        ranks: the processes that train together; the first one alone writes.

    Raises:
        UserError: a name or a setting is not valid, or the folder cannot be made.
    """
    family = use_family(family)
    robot = robot or make_family(family).robot
    body = load_robot(robot)
    check_free(list(settings), IDENTITY | {"sim_params": "is set by --sim-params"})
    config = preset(recipe, family, robot, seed).with_values(list(settings))
    if sim_params:
        config = replace(config, sim_params=load_sim_params(sim_params, body))
    ranks.local_groups(config.mlsh.groups)  # says so before a folder is made
    if path is None and ranks.size > 1:
        raise UserError("several processes need one folder; give --output")
    if path is not None:
        run = create_run(config, path) if ranks.first else Run(path)
    else:
        path = _new_folder(f"{family}-{body.name}-s{config.seed}")
        try:
            run = create_run(config, path)
        except BaseException:  # nothing is left of what was refused or interrupted
            with suppress(OSError):
                path.rmdir()
            raise
    ranks.any(True)  # nobody reads it before it is there
    return run


def _new_folder(name: str) -> Path:
    """Make a folder under runs/ that no other process has, also one that starts in this second.

    Raises:
        UserError: it cannot be made.
    """
    stem = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in itertools.count(1):
        path = Path("runs") / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"{path}: could not be written ({error.strerror})") from None
    raise AssertionError  # numbers do not end
