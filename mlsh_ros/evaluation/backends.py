"""The two ways to drive a bundle through episodes: offline, and through the real nodes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from mlsh_ros.bringup.node_graph import SIM
from mlsh_ros.control.controller import Controller
from mlsh_ros.evaluation.episode import Episode
from mlsh_ros.evaluation.offline_rollout import Watch, default_guard, run_episode
from policies.bundle.bundle import Bundle
from policies.bundle.runtime import load_master, load_skills
from policies.bundle.task_compatibility import check_fits, task_of
from sim.envs.world import World
from sim.errors import UserError
from sim.physics.robot_model import load_robot
from sim.randomization.schema import Reality
from sim.tasks.registry import user_sources

if TYPE_CHECKING:
    from mlsh_ros.evaluation.ros_rollout import Remote

_log = logging.getLogger(__name__)
OnTick = Callable[[dict[str, float], float], None]  # the tick's trace, the return so far
OnEpisode = Callable[[Episode], None]


@dataclass(frozen=True)
class Job:
    """A master on a task, for a number of episodes."""

    task: str  # family/task
    master: str


def jobs(bundle: Bundle, task: str | None, master: str | None) -> list[Job]:
    """What to evaluate: every master on the task it was trained for, or what is asked for.

    Raises:
        UserError: no such master or task, or a task without a master of its own.
    """
    masters = bundle.manifest.masters
    if master is not None:
        bundle.master(master)
        return [Job(task or masters[master].task, master)]
    if task is None:
        return [Job(entry.task, name) for name, entry in masters.items()]
    task_of(bundle, task)
    own = [name for name, entry in masters.items() if entry.task == task]
    if not own:
        known = ", ".join(f"{name} ({entry.task})" for name, entry in masters.items())
        raise UserError(
            f"no master of bundle {bundle.manifest.name!r} was trained on {task!r}; name one with "
            f"--master. Masters: {known}"
        )
    return [Job(task, name) for name in own]


def check_work(bundle: Bundle, robot: str, work: list[Job]) -> None:
    """Refuse a robot or a task that is not the bundle's, before anything is simulated.

    Raises:
        UserError: so.
    """
    for job in work:
        check_fits(bundle, load_robot(robot), job.task)


def run_offline(
    bundle: Bundle,
    robot: str,
    work: list[Job],
    *,
    episodes: int,
    seed: int,
    reality: Reality | None = None,
    around: Reality | None = None,
    on_episode: OnEpisode = lambda _: None,
    watch: Watch = lambda *_: None,
) -> list[Episode]:
    """Drive episodes 0 .. episodes-1 of `seed` for every job, in this process.

    Args:
        bundle: what drives.
        robot: name or folder.
        work: masters and tasks.
        episodes: of each.
        seed: of them.
        reality: what differs from the nominal model.
        around: what differs from that, perhaps in ranges from which each episode draws.
        on_episode: called with each that is over.
        watch: as of `run_episode`.
    """
    manifest, body = bundle.manifest, load_robot(robot)
    controller = Controller(
        bundle.interface, load_skills(bundle), manifest.decision_ticks, manifest.decision_lead
    )
    guard = default_guard(bundle)
    done = []
    for job in work:
        check_fits(bundle, body, job.task)
        family, number = task_of(bundle, job.task)
        world = World(body, family, 1, reality=reality, randomise=around)
        master = load_master(bundle, job.master)
        for n in range(episodes):
            done.append(
                run_episode(
                    world,
                    controller,
                    master,
                    task=number,
                    label=job.task,
                    master_name=job.master,
                    seed=seed,
                    number=n,
                    guard=guard,
                    watch=watch,
                )
            )
            on_episode(done[-1])
    return done


def run_ros(
    bundle: Bundle,
    robot: str,
    work: list[Job],
    *,
    episodes: int,
    seed: int,
    mode: str,
    domain: int | None = None,
    reality: str = "",
    on_episode: OnEpisode = lambda _: None,
    on_tick: OnTick = lambda *_: None,
) -> list[Episode]:
    """The same through skill_node, master_node and sim_node; `reality` is a name or a file."""
    check_work(bundle, robot, work)
    done = []
    with nodes(bundle, robot, work[0], seed, mode, domain, reality) as client:
        for job in work:
            ticks = task_of(bundle, job.task)[0].ticks
            for n in range(episodes):
                done.append(
                    client.run_episode(
                        task=job.task,
                        master=job.master,
                        seed=seed,
                        number=n,
                        ticks=ticks,
                        realtime=mode == "realtime",
                        on_tick=on_tick,
                    )
                )
                on_episode(done[-1])
    return done


@contextmanager
def nodes(
    bundle: Bundle,
    robot: str,
    first: Job,
    seed: int,
    mode: str,
    domain: int | None,
    reality: str = "",
) -> Iterator[Remote]:
    """The simulation graph, started and active, with a client to drive it."""
    import os

    from mlsh_ros.bringup.process_launcher import Processes, require_ros, ros_environment

    require_ros()
    # The client that comes next is in this process.
    wanted = ("ROS_", "FASTRTPS_", "FASTDDS_")
    os.environ.update({k: v for k, v in ros_environment(domain).items() if k.startswith(wanted)})
    from mlsh_ros.evaluation.ros_rollout import Remote

    # A namespace of its own, so that no other graph in the domain is disturbed or taken for ours.
    namespace = f"mlsh_{os.getpid()}"
    arguments = {
        "bundle": str(bundle.source.resolve()),
        "master": first.master,
        "robot": robot,
        "task": first.task,
        "family": ",".join(user_sources()),
        "seed": str(seed),
        "reality": reality,
        "mode": mode,
        "autostart": "false",
        "loop": "false",
        "watchdog": "true" if mode == "realtime" else "false",
        "log_level": "warn",
        "namespace": namespace,
    }
    with (
        Processes(SIM, arguments, partial(_log.info, "%s: %s"), domain) as processes,
        Remote(bundle, namespace, processes.check) as client,
    ):
        client.wait_until_active("skill_node", "master_node", "sim_node")
        yield client
