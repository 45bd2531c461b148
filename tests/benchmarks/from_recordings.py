"""Masters from recordings beside masters with episodes of their own: docs/results/new_tasks.md.

python -m tests.benchmarks.from_recordings [--seeds 3] [--episodes 20] [BUNDLE:TASK ..]

Episodes of a master that draws its skills run through skill_node, master_node and sim_node in
lockstep, and recorder_node records them. A master learns from the recording alone, another one
from as many episodes of its own in the simulation, each with the defaults of `mlsh finetune`. Both
are scored on the same episodes that neither has seen.
"""

import argparse
import os
import random
import sys
import tempfile
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mlsh_ros.bringup.graphs import SIM
from mlsh_ros.bringup.network import localhost_environment
from mlsh_ros.messages.topics import OUTCOME
from mlsh_ros.sim2real.data.recorded_episodes import read_episodes
from policies.bundle.bundle import Bundle, load_bundle
from policies.bundle.task_compatibility import resolve_task
from policies.mlsh.config import TrainConfig
from policies.offpolicy.evaluation import OffPolicyEstimate
from policies.training.adapt import OFF_POLICY_EPISODES, adapt, envs_for_episodes
from policies.training.finetune import finetune, install_skills, task_config
from policies.training.finetune_settings import with_settings
from policies.training.run import environment
from sim.errors import UserError
from sim.tasks.task_id import TaskId
from tests.benchmarks import one_line_errors

CASES = (
    "moving_bandits:moving_bandits/goal-1",
    "moving_bandits:ring_bandits/sector-0",
    "moving_bandits:patrol/tilted",
    "go2_walk:two_targets/goal-1",
)
SHOWN = ("moving_bandits", "ring_bandits")  # families whose reward the recorded sensors show
DRAWN = "random"  # name of the master that draws its skills
START_UP = 30.0  # s until recorder_node hears everybody


@dataclass(frozen=True)
class Result:
    """Returns with one seed."""

    seed: int
    estimate: OffPolicyEstimate  # of the learned master, from the recording
    learned: float  # greedy return of the master from the recording
    online: float  # of the one that collected its own episodes

    @property
    def ratio(self) -> float:
        """Return of the master from the recording, as a part of the other one's."""
        return self.learned / self.online

    @property
    def inside(self) -> bool:
        """True if the interval of the estimate holds the return in the simulation."""
        return not self.estimate.contradiction(self.learned)


def record(bundle: Bundle, task: TaskId, seed: int, episodes: int, place: Path) -> None:
    """Record episodes whose decisions are drawn, each a session of skill_node."""
    from mlsh_ros.bringup.process_launcher import Processes
    from mlsh_ros.evaluation.ros_rollout import Remote

    params = place.with_suffix(".yaml")
    params.write_text(f"/**/master_node:\n  ros__parameters:\n    seed: {seed}\n")
    arguments = {
        **{"bundle": str(bundle.source), "master": DRAWN, "greedy": "false", "task": str(task)},
        **{"mode": "lockstep", "seed": str(seed), "params_file": str(params)},
        **{"auto_arm": "false", "auto_reset": "false", "watchdog": "false"},
        **{"record": "true", "record_dir": str(place), "namespace": f"mlsh_{os.getpid()}"},
    }
    listening = threading.Event()

    def on_line(node: str, line: str) -> None:
        if "hears every sensor" in line:
            listening.set()
        if "[WARN]" in line or "[ERROR]" in line:
            print(f"{node}: {line}", file=sys.stderr)

    ticks = resolve_task(bundle, task)[0].ticks
    with (
        Processes(SIM, arguments, on_line) as processes,
        Remote(bundle, arguments["namespace"], processes.check) as client,
    ):
        client.wait_until_active("recorder_node", "skill_node", "master_node", "sim_node")
        if not listening.wait(START_UP):
            raise UserError(f"recorder_node did not hear all topics in {START_UP:g} s")
        for number in range(episodes):
            client.run_episode(
                task=str(task),
                master=DRAWN,
                seed=seed,
                number=number,
                ticks=ticks,
                realtime=False,
            )


def settings(bundle: Bundle, task: TaskId, seed: int) -> tuple[TrainConfig, int]:
    """The defaults of `mlsh finetune`; and the task's number."""
    plain, number = task_config(bundle, task, seed=seed)
    config = with_settings(plain, [], baseline=False, learner="q")
    return replace(config, threads=1), number


def measure(
    bundle: Bundle, task: TaskId, seed: int, episodes: int, scored: int, place: Path
) -> Result:
    """Record, learn from the recording and online, and score both."""
    record(bundle, task, seed, episodes, place)
    topic = None if task.family in SHOWN else OUTCOME
    recorded = read_episodes(
        [place], bundle, [task], topic, note=lambda text: print(text, file=sys.stderr)
    )
    config, number = settings(bundle, task, seed)

    def learn(updates: int, **given: list) -> tuple[float, tuple[OffPolicyEstimate, ...]]:
        found = adapt(
            config,
            lambda agent: install_skills(agent, bundle),
            [number],
            updates=updates,
            envs=envs_for_episodes(config, OFF_POLICY_EPISODES),
            episodes=scored,
            score_every=updates,
            **given,
        )
        return found.curves[0][-1].greedy, found.estimates

    learned, (estimate,) = learn(1, recorded=recorded)
    online, _ = learn(episodes // OFF_POLICY_EPISODES)
    return Result(seed, estimate, learned, online)


def show(task: str, each: Result) -> None:
    """Print the row of a seed."""
    estimate = each.estimate
    print(
        f"| {task} | {each.seed} | {estimate.recorded:.1f} | {estimate.value:.1f}, "
        f"{estimate.low:.1f} to {estimate.high:.1f} | {each.learned:.1f} | {each.online:.1f} | "
        f"{each.ratio:.0%} |",
        flush=True,
    )


def show_all(task: str, results: list[Result]) -> None:
    """Print a row for all seeds."""
    learned, online = (np.mean([getattr(r, k) for r in results]) for k in ("learned", "online"))
    worst = min(results, key=lambda r: r.ratio)
    inside = sum(r.inside for r in results)
    print(
        f"| {task} | all | | {inside} of {len(results)} hold | {learned:.1f} | {online:.1f} | "
        f"{learned / online:.0%}, worst {worst.ratio:.0%} (seed {worst.seed}) |",
        flush=True,
    )


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", default=CASES, metavar="BUNDLE:TASK")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=20, help="recorded, and online")
    parser.add_argument("--scored", type=int, default=32, help="greedy episodes of each master")
    parser.add_argument("--output", type=Path, help="where recordings stay; default: nowhere")
    given = parser.parse_args()
    if given.episodes < 1 or given.episodes % OFF_POLICY_EPISODES:
        parser.error(f"--episodes {given.episodes}: updates are of {OFF_POLICY_EPISODES} episodes")
    return given


@one_line_errors
def main() -> None:
    """Entry point."""
    given = arguments()
    os.environ.update(localhost_environment(os.environ))
    os.environ["ROS_DOMAIN_ID"] = str(random.SystemRandom().randint(1, 100))
    print("| task | seed | recorded | estimate, interval | from the recording | online | ratio |")
    print("|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = given.output or Path(name)
        for case in given.cases:
            source, _, text = case.partition(":")
            task = TaskId.parse(text)
            place = folder / f"{source}-{text.replace('/', '-')}"
            place.mkdir(parents=True)
            bundle = finetune(
                load_bundle(source),
                task,
                place / "bundle",
                name=DRAWN,
                updates=0,
                seed=0,
                learner="uniform",
                facts=environment(),
            ).bundle
            results = []
            for seed in range(given.first_seed, given.first_seed + given.seeds):
                where = place / f"seed-{seed}"
                results.append(measure(bundle, task, seed, given.episodes, given.scored, where))
                show(text, results[-1])
            show_all(text, results)


if __name__ == "__main__":
    main()
