"""Runs variants x seeds in parallel, each in its own process and run folder."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from policies.bundle.adaptation import AdaptationPoint
from policies.experiments.ablations import Adaptation, Variant
from policies.mlsh.actor_critic import Agent
from policies.mlsh.config import TrainConfig
from policies.mlsh.offpolicy_config import Learner
from policies.training.adapt import envs_for_episodes, from_scratch
from policies.training.adaptation_file import (
    CurveOrigin,
    Curves,
    read_adaptation,
    write_adaptation,
)
from policies.training.run import (
    Run,
    create_run,
    iteration_of,
    open_run,
    seconds_of,
    with_all_tasks,
)
from policies.training.train import ADAPTATION_UPDATES, learn_masters, train
from policies.training.trained_with import ChangedError, Trained, held, trained_now
from sim.errors import UserError, visible
from sim.files.arrays import load_arrays
from sim.files.output import locked
from sim.tasks.registry import make_family, use_family, user_sources

MAX_RUNS = 10_000  # of a sweep


@dataclass(frozen=True)
class SweepJob:
    """One run of a sweep."""

    variant: str
    adaptation: Adaptation
    config: TrainConfig
    path: Path
    episodes: int | None = None  # per update on a new task; None: 2,000 steps
    learner: Learner = "ppo"  # of masters for new tasks

    @property
    def result(self) -> Path:
        """Path of the learning curves; other learners and numbers of episodes have their own."""
        learner = self.learner if self.adaptation == "master" else "ppo"
        return self.path / f"adaptation{suffix(learner, self.episodes)}.csv"

    def envs(self) -> int | None:
        """Simulations per update on a new task; None: those of 2,000 steps.

        Raises:
            UserError: the episodes are too few for the probe, or more than the limit.
        """
        if self.episodes is None:
            return None
        config = self.config
        if self.adaptation != "master" or self.learner == "q":  # nothing is probed
            config = replace(config, mlsh=replace(config.mlsh, probe="none"))
        return envs_for_episodes(config, self.episodes)

    @property
    def trains(self) -> bool:
        """True if meta-training precedes the learning of new tasks."""
        return self.adaptation in ("master", "shared")

    def curves(self) -> Curves | None:
        """Returns its result; None without a complete one of the present run.

        Raises:
            ChangedError: it was made with other settings or another robot.
        """
        try:
            found = read_adaptation(self.result, ADAPTATION_UPDATES)
            made = CurveOrigin.of(*self.trained())
        except ChangedError:
            raise
        except UserError:
            return None
        if not self.trains and found.origin != made:
            raise ChangedError(
                f"{self.result} was made with other settings or other files of robot "
                f"{self.config.robot!r} than the present ones; restore them, or give another "
                "folder"
            )
        config = with_all_tasks(self.config)
        tasks = make_family(config.family, config.family_parameters).tasks
        return found if (found.origin, tuple(found.by_task)) == (made, tasks) else None

    def seconds(self) -> float:
        """Training time, s; 0 without a training."""
        if not self.trains:
            return 0.0
        run = Run(self.path)
        return seconds_of(run, load_arrays(run.checkpoint))

    def check(self) -> None:
        """Refuse a folder with a different run.

        Raises:
            UserError: names what differs.
        """
        if not (self.path / "config.yaml").exists():
            return
        run = Run(self.path)
        if run.config != self.config:
            raise UserError(f"{self.path} has a run of other settings; give another folder")
        try:
            if self.trains and run.checkpoint.is_file():
                self.trained()
            self.curves()
        except ChangedError:
            raise
        except UserError:
            return  # it is damaged: said when it is its turn, and no other run ends by that

    def trained(self) -> tuple[Trained, int]:
        """Returns the training that new tasks use, and its number of iterations.

        Raises:
            UserError: the checkpoint is missing or damaged, or not of the present files.
        """
        if not self.trains:
            return trained_now(self.config), 0
        run = Run(self.path)
        arrays = load_arrays(run.checkpoint)
        return run.still_trained(arrays), iteration_of(run, arrays)


def suffix(learner: Learner, episodes: int | None) -> str:
    """Returns what the names of result files of a learner and a number of episodes end with."""
    parts = ("" if learner == "ppo" else f"-{learner}", "" if episodes is None else f"-{episodes}")
    return "".join(parts)


def plan(
    family: str,
    robot: str,
    variants: dict[str, Variant],
    seeds: list[int],
    folder: Path,
    episodes: int | None = None,
    learner: Learner = "ppo",
) -> list[SweepJob]:
    """Returns all runs, seeds first, so that every variant has an early result.

    Args:
        family: task family.
        robot: name or folder.
        variants: by name.
        seeds: of each variant.
        folder: of all runs; one that is trained already only learns the tasks anew.
        episodes: per update on a new task; by default 2,000 steps.
        learner: of masters for new tasks.

    Raises:
        UserError: a setting is invalid, a folder has a run of another configuration or robot,
            there are too many, or Stable-Baselines3 is wanted and missing.
    """
    if (count := len(variants) * len(seeds)) > MAX_RUNS:
        raise UserError(
            f"{len(variants)} variants with {len(seeds)} seeds each are {count:,} runs; at most "
            f"{MAX_RUNS:,} are accepted"
        )
    missing = find_spec("stable_baselines3") is None
    jobs = []
    for seed in seeds:
        for name, variant in variants.items():
            if variant.adaptation == "sb3" and missing:
                raise UserError(
                    f"variant {name!r} needs stable-baselines3: pip install 'mlsh_ros[bench]'"
                )
            config = replace(variant.config(family, robot, seed), threads=1)
            job = SweepJob(
                name, variant.adaptation, config, folder / f"{name}-{seed}", episodes, learner
            )
            job.envs()  # reports invalid settings before anything runs
            job.check()
            jobs.append(job)
    return jobs


def sweep(jobs: list[SweepJob], processes: int) -> Iterator[tuple[SweepJob, str]]:
    """Run the remaining jobs; yields each finished job, with the reason if it failed."""
    done = [job.curves() is not None for job in jobs]
    yield from ((job, "") for job, is_done in zip(jobs, done, strict=True) if is_done)
    open_jobs = [job for job, is_done in zip(jobs, done, strict=True) if not is_done]
    if not open_jobs:
        return
    folder = open_jobs[0].path.parent
    with locked(folder / ".lock", f"sweep {str(folder)!r}"):
        yield from _run_all(open_jobs, min(processes, len(open_jobs)))


def _run_all(open_jobs: list[SweepJob], processes: int) -> Iterator[tuple[SweepJob, str]]:
    context = multiprocessing.get_context("spawn")  # torch does not survive a fork
    others = set(multiprocessing.active_children())
    known = (user_sources(),)
    with ProcessPoolExecutor(processes, context, initializer=_begin, initargs=known) as pool:
        try:
            with _interrupts_held_back():
                futures: dict[Future[str], SweepJob] = {
                    pool.submit(run_job, j): j for j in open_jobs
                }
            for future in as_completed(futures):
                try:
                    reason = future.result()
                except BrokenProcessPool:  # the others of the pool end with it
                    reason = "its process or another one was killed; sweep again to go on"
                yield futures[future], reason
        except BaseException:  # interrupted, or the rest is not needed: finished jobs are saved
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Block interrupts while processes are started, which inherit the setting.

    Ctrl-C in a terminal reaches all processes, but only this one handles it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(sources: list[str]) -> None:
    """Initialize a process of the pool: load the user's task families, and end with the sweep."""
    for source in sources:
        use_family(source)
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def run_job(job: SweepJob) -> str:
    """Train, then learn every task anew; returns the reason of a failure."""
    try:
        envs = job.envs()
        resume = (job.path / "checkpoint.npz").is_file()
        folder = Run(job.path) if resume else create_run(job.config, job.path)
        everything, updates = with_all_tasks(job.config), ADAPTATION_UPDATES

        def alone(
            task: int, install: Callable[[Agent], None] | None = None
        ) -> list[AdaptationPoint]:
            return from_scratch(
                everything, task, updates=updates, envs=envs, install_skill=install
            ).curves[0]

        if job.adaptation == "scratch":
            _write(job, alone)
        elif job.adaptation == "sb3":
            from policies.experiments import sb3_baseline as sb3  # needs the extra `bench`

            _write(job, lambda task: sb3.learn(everything, task, updates=updates, envs=envs))
        else:
            train(folder, resume=resume)
            if job.adaptation == "shared":
                arrays = load_arrays(open_run(job.path).checkpoint)
                _write(job, lambda task: alone(task, lambda agent: agent.restore_skills(arrays)))
            else:
                learn_masters(
                    folder, held_out=True, envs=envs, name=job.result.name, learner=job.learner
                )
    except UserError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename or job.path}: {error.strerror or error}"
    except Exception as error:  # a user's family may raise anything; the other runs go on
        return visible(f"{type(error).__name__}: {error}")
    return ""


def _write(job: SweepJob, learn: Callable[[int], list[AdaptationPoint]]) -> None:
    config = with_all_tasks(job.config)
    tasks = make_family(config.family, config.family_parameters).tasks
    trained, iteration = job.trained()
    with held(trained):
        curves = [learn(task) for task in range(len(tasks))]
    write_adaptation(job.result, tasks, curves, CurveOrigin.of(trained, iteration))
