"""The run folder of one training: configuration, checkpoints, metrics, lock.

config.yaml      the resolved configuration
family.json      where the task family's class came from, if it does not ship with this package
versions.json    of Python, this package and what it computes with; command and commit
metrics.csv      one row per iteration; the same in tensorboard/
checkpoint.npz   all state; `mlsh train --resume` continues from it bit for bit
curves.png       learning curves
failures/        ticks before a simulation was not finite (`policies.training.divergence`)
adaptation.csv   learning curve of a fresh master for each task with the final skills frozen, and
                 the iteration, settings and robot of the skills

`create_run` begins one, `train.py` fills it, `open_run` reads it.
"""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path

from policies.bundle.bundle_files import MAX_BUNDLE_BYTES, MAX_FILE_BYTES
from policies.mlsh.config import TrainConfig, read_config, write_config
from policies.mlsh.config_checks import check_names
from policies.training.trained_with import ChangedError, Trained, read_trained, trained_now
from sim.envs.world import World
from sim.errors import UserError, listed, short, visible
from sim.files.arrays import Arrays, load_arrays
from sim.files.bounded import read_bounded
from sim.files.output import locked, write_json
from sim.files.strict_json import parse_json
from sim.physics.robot_model import load_robot
from sim.tasks.base import HELD_OUT
from sim.tasks.registry import family_names, family_source, make_family

ALLOW = "--allow-changes"
LOCK = ".lock"
# What reading an array raises whose values, type or shape are not those that were saved.
DAMAGES = (KeyError, ValueError, TypeError, OverflowError, IndexError)
MOST_ITERATIONS = 10**9
ABOUT_BYTES = 2**20  # of versions.json and family.json
NETWORK_OVERHEAD = 2**16  # bytes of an ONNX file or a bundle that are no weights
PACKAGES = ("mlsh_ros", "numpy", "torch", "mujoco", "gymnasium", "onnxruntime")


@dataclass(frozen=True)
class Run:
    """A run folder."""

    path: Path

    @property
    def checkpoint(self) -> Path:
        """Path of the latest checkpoint."""
        return self.path / "checkpoint.npz"

    @property
    def config(self) -> TrainConfig:
        """Configuration that the run was started with."""
        return read_config(self.path / "config.yaml")

    def locked(self) -> AbstractContextManager[None]:
        """Lock for writing to the folder; a second process is refused."""
        return locked(self.path / LOCK, f"run {str(self.path)!r}")

    @property
    def trained(self) -> Trained:
        """Configuration and files that its checkpoint was trained with.

        Raises:
            UserError: there is no checkpoint, or one of these was changed after it was written.
        """
        return self.still_trained(load_arrays(self.checkpoint))

    def still_trained(self, arrays: Arrays) -> Trained:
        """Returns the same as `trained` for a checkpoint that has been read."""
        kept, now = read_trained(arrays, str(self.checkpoint)), trained_now(self.config)
        if kept is None:
            return now
        if changes := kept.differences(now):
            raise ChangedError(
                f"run {str(self.path)!r} differs from what its checkpoint was trained with: "
                f"{listed(changes, '; ')}. Restore it, or continue the training with the changes: "
                f"{shlex.join(['mlsh', 'train', '--resume', str(self.path), ALLOW])}"
            )
        return replace(kept, config=replace(kept.config, threads=now.config.threads))

    @property
    def provenance(self) -> dict[str, object]:
        """Content of versions.json."""
        path = self.path / "versions.json"
        try:
            data = parse_json(read_bounded(path, ABOUT_BYTES), path)
            if not isinstance(data["versions"], dict):
                raise TypeError(f"versions: a mapping is expected, got {short(data['versions'])}")
            return {key: data[key] for key in ("command", "commit", "versions")}
        except (OSError, TypeError, KeyError) as error:
            raise UserError(f"{path}: not readable ({error})") from None


def open_run(path: Path) -> Run:
    """Returns an existing run folder with a checkpoint.

    Raises:
        UserError: not a run folder, or training stopped before the first checkpoint.
    """
    run = Run(path)
    if not (path / "config.yaml").is_file():
        near = sorted(p.parent.name for p in path.parent.glob("*/config.yaml"))
        raise UserError(f"no run {str(path)!r}. Runs beside it: {', '.join(near) or 'none'}")
    # A pipe would be waited for, without an end; a link that leads nowhere is nobody's.
    if odd := [p.name for p in path.iterdir() if p.exists() and not (p.is_file() or p.is_dir())]:
        raise UserError(f"run {str(path)!r}: {sorted(odd)[0]!r} is neither a file nor a folder")
    if not run.checkpoint.is_file():
        raise UserError(
            f"run {str(path)!r} has no checkpoint.npz: it stopped before the first checkpoint; "
            "train again, the same --output may be given"
        )
    _check_family(run)
    return run


def _check_family(run: Run) -> None:
    """Refuse a run whose task family is not loaded; it is never imported from the run's files.

    Raises:
        UserError: names the file that the user may load.
    """
    path = run.path / "family.json"
    if not path.is_file() or (name := run.config.family) in family_names():
        return
    try:
        source = str(parse_json(read_bounded(path, ABOUT_BYTES), path)["source"])
    except (OSError, TypeError, KeyError) as error:
        raise UserError(f"{path}: not readable ({error})") from None
    raise UserError(
        f"run {str(run.path)!r} was trained on task family {name!r}, which does not ship with "
        f"this package and is not imported unless you name it: {shlex.join(['--family', source])}"
    )


def create_run(config: TrainConfig, path: Path) -> Run:
    """A new run folder.

    Raises:
        UserError: the configuration names what its robot or family does not have, they do not
            fit each other, or the folder has a checkpoint already, is in use or cannot be written.
    """
    check_names(config)
    _check_bundle_size(config)
    # Refuses a family that does not fit the robot, before there is a folder.
    World(load_robot(config.robot), make_family(config.family, config.family_parameters), 1)
    run = Run(path)
    with run.locked():
        if run.checkpoint.exists():
            raise UserError(
                f"run {str(path)!r} exists; give another --output, or go on with --resume"
            )
        _check_ours(run)
        write_config(config, path / "config.yaml")
        if source := family_source(config.family):
            facts = {"source": source.text, "sha256": source.digest}
            write_json(path / "family.json", facts, overwrite=True)
        write_json(path / "versions.json", environment(), overwrite=True)
    return run


def _check_bundle_size(config: TrainConfig) -> None:
    """Refuse networks that no bundle can hold, before they are trained.

    Raises:
        UserError: names their size.
    """
    family = make_family(config.family, config.family_parameters)
    interface = load_robot(config.robot).interface.with_terms(family.terms)
    skills, network = config.mlsh.skills, config.network

    def size(hidden: tuple[int, ...], outputs: int) -> int:
        layers = pairwise((interface.observation_size, *hidden, outputs))
        return 4 * sum((inputs + 1) * units for inputs, units in layers)

    of_skills, of_masters = network.of_skills.hidden, network.of_masters.hidden
    skill, master = size(of_skills, interface.action_size), size(of_masters, skills)
    every = skills * skill + len(family.tasks) * master
    for what, size_of, most in (
        ("a network", max(skill, master), MAX_FILE_BYTES),
        (f"{skills} skills and {len(family.tasks)} masters", every, MAX_BUNDLE_BYTES),
    ):
        if size_of + NETWORK_OVERHEAD > most:
            raise UserError(
                f"network.hidden {list(max(of_skills, of_masters, key=sum))}: {what} would have "
                f"{size_of:,} bytes, at most {most:,} fit into a bundle"
            )


def _check_ours(run: Run) -> None:
    """Refuse a folder with files of something else, which a run would replace.

    A run that stopped before its first checkpoint may be begun anew.

    Raises:
        UserError: names one of the files.
    """
    there = sorted(each.name for each in run.path.iterdir() if each.name != LOCK)
    if not there:
        return
    try:
        read_config(run.path / "config.yaml")
    except UserError:
        raise UserError(
            f"{run.path} has files that are not of a run, such as {there[0]!r}; give another "
            "--output"
        ) from None


def environment() -> dict[str, object]:
    """Returns command, commit and versions: what a result depends on besides its configuration."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    command = visible(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))
    return {"command": command, "commit": _commit(), "versions": versions}


def other_versions(run: Run) -> list[str]:
    """Lists what a run was begun with and is another version now: `torch 2.8.0 -> 2.9.0`."""
    try:
        before = run.provenance["versions"]
    except UserError:
        return []  # who exports the run is told
    now = environment()["versions"]
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return []
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return [f"{name} {before.get(name)} -> {now.get(name)}" for name in names]


def _commit() -> str | None:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def misfit(run: Run, error: Exception) -> UserError:
    """Returns the error for a checkpoint that is damaged or of another configuration."""
    return UserError(
        f"{run.checkpoint}: does not fit config.yaml and this version ({error.args[0]})"
    )


def iteration_of(run: Run, arrays: Arrays) -> int:
    """Number of iterations of a checkpoint.

    Raises:
        UserError: it has none, or none that a training can have.
    """
    number = int(_number(run, arrays, "iteration", int))
    if not 0 <= number <= MOST_ITERATIONS:
        raise misfit(run, ValueError(f"iteration {number:.6g}"))
    return number


def seconds_of(run: Run, arrays: Arrays) -> float:
    """Training time of a checkpoint, s."""
    return _number(run, arrays, "seconds", float)


def _number(run: Run, arrays: Arrays, key: str, kind: type[int] | type[float]) -> float:
    try:
        return kind(arrays[key])
    except DAMAGES as error:
        raise misfit(run, error) from None


def with_all_tasks(config: TrainConfig) -> TrainConfig:
    """Returns the configuration without held-out tasks."""
    seen = {k: v for k, v in config.family_parameters.items() if k != HELD_OUT}
    return replace(config, family_parameters=seen)
