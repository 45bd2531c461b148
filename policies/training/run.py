"""The run folder of one training: configuration, checkpoints, metrics, lock.

config.yaml      the resolved configuration
family.json      where the task family's class came from, if it does not ship with this package
versions.json    of Python, this package and what it computes with; command and commit
metrics.csv      one row per iteration; the same in tensorboard/
checkpoint.npz   everything needed to go on bit for bit
curves.png       learning curves
failures/        ticks after which a simulation was not finite, to be repeated
adaptation.csv   a fresh master for each task, learned with the final skills frozen; and of which
                 iteration, settings and robot

`create_run` begins one, `train` fills it, `open_run` reads it.
"""

from __future__ import annotations

import json
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from policies.bundle.adaptation import AdaptationPoint
from policies.mlsh.actor_critic import Agent
from policies.mlsh.config import TrainConfig, read_config, write_config
from policies.mlsh.config_checks import check_names
from policies.mlsh.distributed import ALONE, Ranks
from policies.mlsh.mlsh import Mlsh
from policies.training.adapt import AdaptationResult, adapt
from policies.training.adaptation_file import Origin, write_adaptation
from policies.training.divergence import write_failures
from policies.training.metrics import CsvLog, Row, column_names, describe, plot_curves
from policies.training.trained_with import (
    KEY,
    ChangedError,
    Trained,
    held,
    read_trained,
    trained_now,
)
from sim.errors import UserError, listed
from sim.files.arrays import Arrays, load_arrays, save_arrays
from sim.files.output import locked, write_file
from sim.files.strict_json import parse_json
from sim.tasks.base import HELD_OUT
from sim.tasks.registry import family_names, family_source, make_family

ADAPTATION_UPDATES = 10
ALLOW = "--allow-changes"
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
        return locked(self.path / ".lock", f"run {str(self.path)!r}")

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
                f"run {str(self.path)!r} is not what its checkpoint was trained with: "
                f"{listed(changes, '; ')}. Put that back, or train on with it: "
                f"{shlex.join(['mlsh', 'train', '--resume', str(self.path), ALLOW])}"
            )
        return replace(kept, config=replace(kept.config, threads=now.config.threads))

    @property
    def provenance(self) -> dict[str, object]:
        """Content of versions.json."""
        path = self.path / "versions.json"
        try:
            data = parse_json(path.read_bytes(), path)
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
    # A pipe would be waited for, without an end.
    if odd := [p.name for p in path.iterdir() if not (p.is_file() or p.is_dir())]:
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
        source = str(parse_json(path.read_bytes(), path)["source"])
    except (OSError, TypeError, KeyError) as error:
        raise UserError(f"{path}: not readable ({error})") from None
    raise UserError(
        f"run {str(run.path)!r} was trained on task family {name!r}, which does not ship with "
        f"this package and is not imported unless you name it: {shlex.join(['--family', source])}"
    )


def create_run(config: TrainConfig, path: Path) -> Run:
    """A new run folder.

    Raises:
        UserError: the configuration names what its robot or family does not have, or the folder
            has a checkpoint already, is in use or cannot be written.
    """
    check_names(config)
    run = Run(path)
    with run.locked():
        if run.checkpoint.exists():
            raise UserError(
                f"run {str(path)!r} exists; give another --output, or go on with --resume"
            )
        write_config(config, path / "config.yaml")
        if source := family_source(config.family):
            facts = {"source": source.text, "sha256": source.digest}
            text = json.dumps(facts, indent=1)
            write_file(path / "family.json", text + "\n", overwrite=True)
        text = json.dumps(environment(), indent=1)
        write_file(path / "versions.json", text + "\n", overwrite=True)
    return run


def environment() -> dict[str, object]:
    """Returns command, commit and versions: what a result depends on besides its configuration."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return {"command": command, "commit": _commit(), "versions": versions}


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


@dataclass
class Training:
    """A training in progress."""

    run: Run
    learner: Mlsh
    rows: list[Row]
    seconds: float = 0.0  # that it took so far, all sittings together
    failures: int = 0  # of simulations that were kept
    set_aside: Path | None = None  # what was there as metrics.csv, if that was damaged
    finished: bool = False


def train(
    run: Run,
    *,
    resume: bool = False,
    allow_changes: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    on_iteration: Callable[[Training], None] = lambda _: None,
    ranks: Ranks = ALONE,
) -> Training:
    """Train for the configured steps or until a stop is requested; leaves a checkpoint.

    Args:
        run: the run folder.
        resume: continue from its checkpoint, bit for bit.
        allow_changes: resume although configuration or robot differ from the checkpoint's.
        should_stop: called before every iteration.
        on_iteration: called after every iteration.
        ranks: the processes that train together; the first one alone writes.

    Raises:
        UserError: the run cannot be resumed, the disk is full, or a loss is not finite any more.
    """
    with run.locked() if ranks.first else nullcontext():
        return _train(run, resume, allow_changes, should_stop, on_iteration, ranks)


def _train(
    run: Run,
    resume: bool,
    allow_changes: bool,
    should_stop: Callable[[], bool],
    on_iteration: Callable[[Training], None],
    ranks: Ranks,
) -> Training:
    config = run.config
    trained = trained_now(config)
    arrays = load_arrays(run.checkpoint) if resume else {}
    if resume and not allow_changes:
        run.still_trained(arrays)
    learner = Mlsh(config, ranks=ranks)
    earlier = _restore(learner, run, arrays) if resume else 0.0
    if resume and (kept := read_trained(arrays, str(run.checkpoint))):
        trained = kept.followed_by(trained, learner.iteration)
    tasks, bounds = learner.family.tasks, learner.bounds
    training = Training(run, learner, [])
    log = _Log(run, learner, training) if ranks.first else None
    start = time.perf_counter()

    def seconds() -> float:
        return earlier + time.perf_counter() - start

    def save() -> None:
        training.seconds = seconds()
        state = learner.state()  # of all ranks
        if log is not None:
            more = {"seconds": np.array(training.seconds), KEY: trained.to_array()}
            save_arrays(run.checkpoint, {**state, **more})

    try:
        while learner.iteration < config.iterations and not ranks.any(should_stop()):
            before = time.perf_counter()
            iteration = learner.iterate()
            rate = config.mlsh.steps_per_iteration / (time.perf_counter() - before)
            row = describe(iteration, tasks, bounds, config.mlsh.warmup, seconds(), rate)
            training.rows.append(row)
            if log is not None:
                log.write(row)
                failures = learner.env.world.failures
                write_failures(run.path, failures, training.failures)
                training.failures = len(failures)
            if lost := iteration.not_finite:
                # Before this reaches the checkpoint, from which one can go on.
                raise _not_finite(run, lost, iteration.number)
            if iteration.number % config.checkpoint_every == 0:
                save()
            on_iteration(training)
        save()
        if log is not None:
            skills = config.mlsh.skills
            plot_curves(training.rows, tasks, bounds, skills, run.path / "curves.png")
    except OSError as error:
        raise UserError(f"{run.path}: could not be written ({error.strerror})") from None
    finally:
        if log is not None:
            log.close()
    training.finished = learner.iteration >= config.iterations
    return training


def _not_finite(run: Run, lost: str, iteration: int) -> UserError:
    what = f"{run.path}: {lost} not finite in iteration {iteration}; "
    if not run.checkpoint.is_file():
        level = lost.partition("/")[0]
        rate = getattr(run.config, level).learning_rate
        return UserError(
            f"{what}there is no checkpoint yet: train again with a lower learning rate, "
            f"such as --set {level}.learning_rate={rate / 10:.3g}"
        )
    resume = shlex.join(["mlsh", "train", "--resume", str(run.path), ALLOW])
    return UserError(
        f"{what}the last checkpoint is of before: lower learning_rate in "
        f"{run.path / 'config.yaml'}, then: {resume}"
    )


class _Log:
    """metrics.csv and tensorboard/ of a run; keeps existing rows."""

    def __init__(self, run: Run, learner: Mlsh, training: Training) -> None:
        from torch.utils.tensorboard import SummaryWriter

        columns = column_names(learner.family.tasks, learner.method.skills)
        try:
            self._csv = CsvLog(run.path / "metrics.csv", columns, keep_until=learner.iteration)
            training.rows, training.set_aside = self._csv.earlier, self._csv.set_aside
            folder = str(run.path / "tensorboard")
            self._board = SummaryWriter(folder, purge_step=learner.iteration + 1)
        except OSError as error:
            raise UserError(f"{run.path}: could not be written ({error.strerror})") from None

    def write(self, row: Row) -> None:
        """Append an iteration."""
        self._csv.write(row)
        for name, value in row.items():
            self._board.add_scalar(name, value, int(row["iteration"]))

    def close(self) -> None:
        """Close both."""
        self._csv.close()
        with suppress(OSError):  # rows are on disk, or the error is on its way already
            self._board.close()


def _restore(learner: Mlsh, run: Run, arrays: Arrays) -> float:
    """Load the run's state into the learner; returns the seconds trained so far."""
    try:
        learner.restore(arrays)
    except (KeyError, ValueError) as error:
        raise _misfit(run, error) from None
    return seconds_of(run, arrays)


def _misfit(run: Run, error: Exception) -> UserError:
    return UserError(
        f"{run.checkpoint}: does not fit config.yaml and this version ({error.args[0]})"
    )


def learn_masters(
    run: Run,
    on_update: Callable[[list[AdaptationPoint]], None] = lambda _: None,
    *,
    held_out: bool = False,
    envs: int | None = None,
    name: str = "adaptation.csv",
) -> AdaptationResult:
    """Train a master for every task of the family, skills frozen; writes their curves.

    Args:
        run: a finished one.
        on_update: called with the latest `AdaptationPoint` of every task.
        held_out: of those tasks too that training has not seen.
        envs: simulations per update; by default those of 2,000 steps.
        name: of the file with the curves.

    Raises:
        UserError: the checkpoint is damaged or of another configuration, or the disk is full.
    """
    arrays = load_arrays(run.checkpoint)
    trained = run.still_trained(arrays)
    config = trained.config
    if held_out:
        config = with_all_tasks(config)
    tasks = make_family(config.family, config.family_parameters).tasks

    def install(agent: Agent) -> None:
        try:
            agent.restore_skills(arrays)
        except (KeyError, ValueError) as error:
            raise _misfit(run, error) from None

    with run.locked():
        with held(trained):
            result = adapt(
                config,
                install,
                list(range(len(tasks))),
                updates=ADAPTATION_UPDATES,
                envs=envs,
                on_update=on_update,
            )
        origin = Origin.of(trained, iteration_of(run, arrays))
        write_adaptation(run.path / name, tasks, result.curves, origin)
    return result


def iteration_of(run: Run, arrays: Arrays) -> int:
    """Number of iterations of a checkpoint."""
    try:
        return int(arrays["iteration"])
    except (KeyError, TypeError, ValueError) as error:
        raise _misfit(run, error) from None


def seconds_of(run: Run, arrays: Arrays) -> float:
    """Training time of a checkpoint, s."""
    try:
        return float(arrays["seconds"])
    except (KeyError, TypeError, ValueError) as error:
        raise _misfit(run, error) from None


def with_all_tasks(config: TrainConfig) -> TrainConfig:
    """Returns the configuration without held-out tasks."""
    seen = {k: v for k, v in config.family_parameters.items() if k != HELD_OUT}
    return replace(config, family_parameters=seen)
