"""Many runs: variants x seeds over the cores, each in a process and a run folder of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from policies.bundle.adaptation import Progress
from policies.experiments.ablations import Adaptation, Variant
from policies.mlsh.actor_critic import Agent
from policies.mlsh.config import TrainConfig
from policies.training.adapt import envs_for_episodes, from_scratch
from policies.training.run import (
    ADAPTATION_UPDATES,
    Run,
    create_run,
    learn_masters,
    open_run,
    train,
    with_all_tasks,
    write_adaptation,
)
from sim.errors import UserError
from sim.files.arrays import load_arrays
from sim.files.output import locked
from sim.tasks.registry import make_family


@dataclass(frozen=True)
class Job:
    """One run of a sweep."""

    variant: str
    adaptation: Adaptation
    config: TrainConfig
    path: Path
    episodes: int | None = None  # per update on a new task; None: 2,000 steps

    @property
    def result(self) -> Path:
        """The curves of new tasks; of other numbers of episodes beside one another."""
        more = "" if self.episodes is None else f"-{self.episodes}"
        return self.path / f"adaptation{more}.csv"

    @property
    def done(self) -> bool:
        """Whether it has its result."""
        return self.result.is_file()


def plan(
    family: str,
    robot: str,
    variants: dict[str, Variant],
    seeds: list[int],
    folder: Path,
    episodes: int | None = None,
) -> list[Job]:
    """All runs, seeds first, so that every variant soon has something to show.

    Args:
        family: task family.
        robot: name or folder.
        variants: by name.
        seeds: of each variant.
        folder: of all runs; one that is trained already only learns the tasks anew.
        episodes: per update on a new task; by default 2,000 steps.

    Raises:
        UserError: a setting does not hold, a folder has a run of another configuration, or
            Stable-Baselines3 is wanted and missing.
    """
    missing = find_spec("stable_baselines3") is None
    jobs = []
    for seed in seeds:
        for name, variant in variants.items():
            if variant.adaptation == "sb3" and missing:
                raise UserError(
                    f"variant {name!r} needs stable-baselines3: pip install 'mlsh_ros[bench]'"
                )
            config = replace(variant.config(family, robot, seed), threads=1)
            job = Job(name, variant.adaptation, config, folder / f"{name}-{seed}", episodes)
            if episodes is not None:
                envs_for_episodes(config, episodes)  # says so before anything runs
            if (job.path / "config.yaml").exists() and Run(job.path).config != config:
                raise UserError(f"{job.path} has a run of other settings; give another folder")
            jobs.append(job)
    return jobs


def sweep(jobs: list[Job], processes: int) -> Iterator[tuple[Job, str]]:
    """Do what is not done yet; yields each run that is, with the reason if it failed."""
    open_jobs = [job for job in jobs if not job.done]
    yield from ((job, "") for job in jobs if job.done)
    if not open_jobs:
        return
    folder = open_jobs[0].path.parent
    with locked(folder / ".lock", f"sweep {str(folder)!r}"):
        yield from _run_all(open_jobs, processes)


def _run_all(open_jobs: list[Job], processes: int) -> Iterator[tuple[Job, str]]:
    context = multiprocessing.get_context("spawn")  # torch does not survive a fork
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        futures: dict[Future[str], Job] = {pool.submit(run_job, job): job for job in open_jobs}
        try:
            for future in as_completed(futures):
                try:
                    reason = future.result()
                except BrokenProcessPool:  # the others of the pool end with it
                    reason = "its process or another one was killed; sweep again to go on"
                yield futures[future], reason
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def run_job(job: Job) -> str:
    """Train, then learn every task anew; returns why not, if not."""
    try:
        envs = None if job.episodes is None else envs_for_episodes(job.config, job.episodes)
        resume = (job.path / "checkpoint.npz").is_file()
        started = (job.path / "config.yaml").is_file()
        folder = Run(job.path) if started else create_run(job.config, job.path)
        everything = with_all_tasks(job.config)
        if job.adaptation == "scratch":
            _write(
                job,
                lambda task: from_scratch(
                    everything, task, updates=ADAPTATION_UPDATES, envs=envs
                ).curves[0],
            )
            return ""
        if job.adaptation == "sb3":
            from policies.experiments import (
                sb3_baseline as sb3,  # its packages are of the extra `bench`
            )

            _write(
                job,
                lambda task: sb3.learn(everything, task, updates=ADAPTATION_UPDATES, envs=envs),
            )
            return ""
        train(folder, resume=resume)
        if job.adaptation == "shared":
            arrays = load_arrays(open_run(job.path).checkpoint)

            def install(agent: Agent) -> None:
                agent.restore_skills(arrays)

            _write(
                job,
                lambda task: from_scratch(
                    everything,
                    task,
                    updates=ADAPTATION_UPDATES,
                    envs=envs,
                    install_skill=install,
                ).curves[0],
            )
        else:
            learn_masters(folder, held_out=True, envs=envs, name=job.result.name)
    except UserError as error:
        return str(error)
    return ""


def _write(job: Job, learn: Callable[[int], list[Progress]]) -> None:
    config = with_all_tasks(job.config)
    tasks = make_family(config.family, config.family_parameters).tasks
    curves = [learn(task) for task in range(len(tasks))]
    write_adaptation(job.result, tasks, curves)


def interval(values: list[float], draws: int = 10_000) -> tuple[float, float]:
    """95 % of the mean of `values`, by drawing them again and again (bootstrap)."""
    data = np.asarray(values)
    rng = np.random.default_rng(0)
    means = data[rng.integers(len(data), size=(draws, len(data)))].mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)
