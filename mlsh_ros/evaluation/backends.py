"""The two backends of an evaluation: offline, and through the ROS nodes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from mlsh_ros.bringup.graphs import SIM
from mlsh_ros.control.controller import Controller
from mlsh_ros.evaluation.case import EvaluationCase
from mlsh_ros.evaluation.episode import Episode
from mlsh_ros.evaluation.offline_rollout import Watch, default_safety_monitor, run_episode
from policies.bundle.runtime import load_master, load_skills
from sim.envs.world import World
from sim.randomization.schema import SimParams
from sim.tasks.registry import joined_sources

if TYPE_CHECKING:
    from mlsh_ros.evaluation.ros_rollout import Remote

_log = logging.getLogger(__name__)
OnTick = Callable[[dict[str, float], float], None]  # the tick's trace, the return so far
OnEpisode = Callable[[Episode], None]


def run_offline(
    cases: Sequence[EvaluationCase],
    *,
    episodes: int,
    seed: int,
    around: SimParams | None = None,
    on_episode: OnEpisode = lambda _: None,
    watch: Watch = lambda *_: None,
) -> list[Episode]:
    """Drive episodes 0 .. episodes-1 of `seed` for every case, in this process.

    Args:
        cases: of one bundle.
        episodes: of each case.
        seed: of the episodes.
        around: what differs from the cases' simulation parameters, perhaps in ranges from which
            each episode draws.
        on_episode: called with each episode that is over.
        watch: as of `run_episode`.
    """
    bundle = cases[0].bundle
    manifest = bundle.manifest
    controller = Controller(
        bundle.interface, load_skills(bundle), manifest.decision_ticks, manifest.decision_lead
    )
    safety_monitor = default_safety_monitor(bundle)
    done = []
    for case in cases:
        world = World(
            case.robot, case.family, 1, sim_params=case.sim_params, domain_randomization=around
        )
        master = load_master(bundle, case.master)
        for n in range(episodes):
            done.append(
                run_episode(
                    world,
                    controller,
                    master,
                    task=case.number,
                    label=str(case.task),
                    master_name=case.master,
                    seed=seed,
                    number=n,
                    safety_monitor=safety_monitor,
                    watch=watch,
                )
            )
            on_episode(done[-1])
    return done


def run_ros(
    cases: Sequence[EvaluationCase],
    *,
    episodes: int,
    seed: int,
    mode: str,
    domain: int | None = None,
    on_episode: OnEpisode = lambda _: None,
    on_tick: OnTick = lambda *_: None,
) -> list[Episode]:
    """Drive the same episodes through skill_node, master_node and sim_node."""
    done = []
    with nodes(cases[0], seed, mode, domain) as client:
        for case in cases:
            for n in range(episodes):
                done.append(
                    client.run_episode(
                        task=str(case.task),
                        master=case.master,
                        seed=seed,
                        number=n,
                        ticks=case.family.ticks,
                        realtime=mode == "realtime",
                        on_tick=on_tick,
                    )
                )
                on_episode(done[-1])
    return done


@contextmanager
def nodes(first: EvaluationCase, seed: int, mode: str, domain: int | None) -> Iterator[Remote]:
    """The simulation graph, started and active, with a client that drives it."""
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
        "bundle": str(first.bundle.source.resolve()),
        "master": first.master,
        "robot": first.robot_given,
        "task": str(first.task),
        "family": joined_sources(),
        "seed": str(seed),
        "sim_params": first.sim_params_given,
        "mode": mode,
        "auto_arm": "false",
        "auto_reset": "false",
        "watchdog": "true" if mode == "realtime" else "false",
        "log_level": "warn",
        "namespace": namespace,
    }
    with (
        Processes(SIM, arguments, partial(_log.info, "%s: %s"), domain) as processes,
        Remote(first.bundle, namespace, processes.check) as client,
    ):
        client.wait_until_active("skill_node", "master_node", "sim_node")
        yield client
