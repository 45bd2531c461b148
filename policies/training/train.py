"""Trains a run: skills and masters together, then a fresh master for each task."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from policies.bundle.adaptation import AdaptationPoint
from policies.mlsh.actor_critic import Agent
from policies.mlsh.config import TrainConfig
from policies.mlsh.distributed import ALONE, Ranks
from policies.mlsh.mlsh import Mlsh
from policies.mlsh.offpolicy_config import Learner, OffPolicyConfig
from policies.training.adapt import AdaptationResult, adapt
from policies.training.adaptation_file import CurveOrigin, write_adaptation
from policies.training.divergence import FOLDER as FAILURES
from policies.training.divergence import count_failures, write_failures
from policies.training.metrics import CsvLog, Row, column_names, describe, plot_curves
from policies.training.pruning import prune, untrained_skills
from policies.training.run import (
    ALLOW,
    DAMAGES,
    Run,
    iteration_of,
    misfit,
    other_versions,
    seconds_of,
    with_all_tasks,
)
from policies.training.trained_with import KEY, held, read_trained, trained_now
from sim.errors import UserError
from sim.files.arrays import Arrays, load_arrays, save_arrays
from sim.tasks.registry import make_family

ADAPTATION_UPDATES = 10
FOLDERS = ("tensorboard", FAILURES)
WRITTEN = (*FOLDERS, "metrics.csv", "checkpoint.npz", "curves.png", "adaptation.csv")


@dataclass
class Training:
    """A training in progress."""

    run: Run
    learner: Mlsh
    rows: list[Row]
    seconds: float = 0.0  # that it took so far, all sittings together
    failures: int = 0  # of simulations that were kept
    earlier_failures: int = 0  # of earlier sittings, whose files come first
    set_aside: Path | None = None  # what was there as metrics.csv, if that was damaged
    other_versions: Sequence[str] = ()  # than the run was begun with, in words
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
    if ranks.first:
        _check_no_links(run)
    config = run.config
    trained = trained_now(config)
    arrays = load_arrays(run.checkpoint) if resume else {}
    versions: list[str] = []
    if resume and not allow_changes:
        run.still_trained(arrays)
    learner = Mlsh(config, ranks=ranks)
    earlier = _restore(learner, run, arrays) if resume else 0.0
    if resume and (kept := read_trained(arrays, str(run.checkpoint))):
        goes_on = learner.iteration < config.iterations
        versions = other_versions(run) if goes_on else []
        trained = kept.followed_by(trained, learner.iteration, versions)
    tasks, reference_returns = learner.family.tasks, learner.reference_returns
    training = Training(run, learner, [], other_versions=versions)
    training.earlier_failures = count_failures(run.path)
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
            row = describe(
                iteration, tasks, reference_returns, config.mlsh.warmup, seconds(), rate
            )
            training.rows.append(row)
            if log is not None:
                log.write(row)
                failures = learner.env.world.failures
                new = failures[training.failures :]
                write_failures(run.path, new, training.earlier_failures + training.failures)
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
            plot_curves(training.rows, tasks, reference_returns, skills, run.path / "curves.png")
    except OSError as error:
        raise UserError(f"{run.path}: could not be written ({error.strerror})") from None
    finally:
        if log is not None:
            log.close()
    training.finished = learner.iteration >= config.iterations
    return training


def _check_no_links(run: Run) -> None:
    """Refuse links in the places that a training writes to, before it begins.

    Raises:
        UserError: there is one; its target belongs to something else.
    """
    for name in WRITTEN:
        if (run.path / name).is_symlink():
            raise UserError(
                f"{run.path / name}: is a symbolic link, which is not followed; put the "
                f"{'folder' if name in FOLDERS else 'file'} itself in its place"
            )


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

        terms = learner.env.world.terms
        columns = column_names(
            learner.family.tasks, learner.method.skills, () if terms is None else terms.names
        )
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
    except DAMAGES as error:
        raise misfit(run, error) from None
    iteration_of(run, arrays)
    return seconds_of(run, arrays)


def learn_masters(
    run: Run,
    on_update: Callable[[list[AdaptationPoint]], None] = lambda _: None,
    *,
    held_out: bool = False,
    envs: int | None = None,
    name: str = "adaptation.csv",
    learner: Learner = "ppo",
) -> AdaptationResult:
    """Train a master for every task of the family, skills frozen; writes their curves.

    Args:
        run: a finished one.
        on_update: called with the latest `AdaptationPoint` of every task.
        held_out: of those tasks too that training has not seen.
        envs: simulations per update; by default those of 2,000 steps.
        name: of the file with the curves.
        learner: of the masters: PPO, or value iteration over all decisions (q).

    Raises:
        UserError: the checkpoint is damaged or of another configuration, or the disk is full.
    """
    arrays = load_arrays(run.checkpoint)
    trained = run.still_trained(arrays)
    pruned = pruned_skills(run, trained.config, arrays)
    config, arrays = prune(trained.config, arrays, pruned)
    if held_out:
        config = with_all_tasks(config)
    if learner == "q":
        config = replace(config, offpolicy=OffPolicyConfig())
    tasks = make_family(config.family, config.family_parameters).tasks

    def install(agent: Agent) -> None:
        try:
            agent.restore_skills(arrays)
        except DAMAGES as error:
            raise misfit(run, error) from None

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
        origin = CurveOrigin.of(trained, iteration_of(run, arrays))
        write_adaptation(run.path / name, tasks, result.curves, origin)
    return replace(result, pruned=pruned)


def pruned_skills(run: Run, config: TrainConfig, arrays: Arrays) -> tuple[int, ...]:
    """Skills of a run that no master gets, because nothing trained them.

    Args:
        run: the run folder.
        config: of the training.
        arrays: of its checkpoint.

    Raises:
        UserError: the checkpoint is damaged or of another configuration.
    """
    try:
        return untrained_skills(config, arrays)
    except DAMAGES as error:
        raise misfit(run, error) from None
