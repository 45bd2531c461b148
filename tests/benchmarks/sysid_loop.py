"""The loop: record with harsh sim parameters, identify them, train with them, evaluate again.

`python -m tests.benchmarks.sysid_loop [--steps N] [--sessions N] [--only NAME] [--folder DIR]`

For omni and Moving Bandits. Only the recordings and the evaluations know what is hidden;
`mlsh finetune` (the masters alone) and `mlsh train` get the file that identification wrote. With
`--steps 0` nothing is trained anew. What is won back is of what was lost, and of what of it the
robot's force and delays leave to any controller.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from mlsh_ros.evaluation.backends import run_offline
from mlsh_ros.evaluation.case import EvaluationCase, resolve_cases
from mlsh_ros.sim2real.sysid.identify import identify
from policies.bundle.bundle import Bundle, load_bundle
from sim.envs.reference_returns import compute_reference_returns
from sim.envs.world import World
from sim.physics.robot_model import load_robot
from sim.randomization.schema import SimParams, sim_params_from_dict
from sim.seeding import episode_rng
from sim.tasks.moving_bandits import MovingBandits
from sim.tasks.registry import make_family
from tests.benchmarks import one_line_errors, output_of
from tests.support.synthetic_recording import synthesize_recording

BUNDLE = MovingBandits.name  # the shipped one
EPISODES, SEED = 50, 7  # per task, the same everywhere; recordings have seed 0
FINETUNED = "here-"  # before the names of masters that were learned for this robot


def _robot(x: dict[str, float], y: dict[str, float], sensors_late: float = 0.0) -> SimParams:
    sensors = {
        "position": {"delay_s": sensors_late, "noise": 0.003},
        "velocity": {"delay_s": sensors_late, "noise": 0.01},
    }
    actuators = {"drive_x": x, "drive_y": y}
    return sim_params_from_dict({"actuators": actuators, "sensors": sensors}, "bench")


LATE, FAST = {"delay_s": 0.2}, {"command_factor": 1.5, "delay_s": 0.1}
WEAK = {"gain_factor": 0.15, "delay_s": 0.1}
HIDDEN = {
    "late": _robot(LATE, LATE),
    "late with old sensors": _robot({"delay_s": 0.16}, {"delay_s": 0.16}, 0.06),
    "fast": _robot(FAST, FAST),
    "fast and late": _robot({**FAST, "delay_s": 0.16}, {**FAST, "delay_s": 0.16}),
    "weak": _robot(WEAK, WEAK),
    "lopsided": _robot(
        {"command_factor": 1.3, "delay_s": 0.2}, {"gain_factor": 0.3, "delay_s": 0.1}
    ),
}
# Of a robot of which nobody knows more than that; wider than the shipped ranges.
_DRIVE = {"gain_factor": [0.1, 1.2], "command_factor": [0.7, 1.5], "delay_s": [0.0, 0.12]}
_SENSOR = {"delay_s": [0.0, 0.05], "noise": [0.0, 0.02]}
RANGES = sim_params_from_dict(
    {
        "actuators": {"drive_x": _DRIVE, "drive_y": _DRIVE},
        "sensors": {"position": _SENSOR, "velocity": _SENSOR},
    },
    "bench",
)


def mean_return(cases: list[EvaluationCase], sim_params: SimParams | None) -> float:
    """Over all tasks."""
    differing = [replace(case, sim_params=sim_params) for case in cases]
    done = run_offline(differing, episodes=EPISODES, seed=SEED)
    return float(np.mean([each.value for each in done]))


def expert(bundle: Bundle, sim_params: SimParams) -> float:
    """Mean over all tasks of the controller that knows the goal but no sim parameters."""
    family = make_family(BUNDLE)
    robot, numbers = load_robot(bundle.interface.robot), range(len(family.tasks))
    found = [
        compute_reference_returns(robot, family, n, seed=SEED, sim_params=sim_params)
        for n in numbers
    ]
    return float(np.mean([each.optimum for each in found]))


def at_most(bundle: Bundle, cases: list[EvaluationCase], sim_params: SimParams | None) -> float:
    """What no controller can exceed in the same episodes: the mean over all tasks.

    From rest, full commands along both axes reach the corner of a box that grows; a goal counts
    from the tick on in which the box touches its disc, as if nobody had to stop there.
    """
    robot, family = load_robot(bundle.interface.robot), MovingBandits()
    world = World(robot, family, 1, sim_params=sim_params)
    world.reset(np.zeros(1, np.int32), [0], [episode_rng(SEED, 0)])
    start, corner = world.true_state()["position"][0], []
    for _ in range(family.ticks):
        fields, _ = world.step(np.ones((1, len(bundle.interface.action_names)), np.float32))
        corner.append(fields["position"][0] - start)
    total = []
    for case in cases:
        slot = case.task.index_in(family.tasks)
        for number in range(EPISODES):
            goal = family.reset(slot, episode_rng(SEED, number))["goals"][slot] - start
            beyond = np.maximum(np.abs(goal) - np.array(corner), 0.0)
            total.append((np.linalg.norm(beyond, axis=1) <= family.radius).sum())
    return float(np.mean(total))


def finetuned(sim_params: Path, folder: Path) -> list[EvaluationCase]:
    """The bundle with masters that were learned with sim parameters, and what to evaluate."""
    source, chosen = BUNDLE, []
    for name, entry in load_bundle(BUNDLE).manifest.masters.items():
        mine, target = f"{FINETUNED}{name}", folder / f"finetuned-{name}"
        what = ["--task", entry.task, "--name", mine, "--sim-params", sim_params, "--no-baseline"]
        _mlsh("finetune", source, *what, "-o", target)
        source = str(target)
        chosen.append((entry.task, mine))
    bundle = load_bundle(source)
    found = [resolve_cases(bundle, task=task, master=name) for task, name in chosen]
    return [case for (case,) in found]


def trained(sim_params: Path, folder: Path, steps: int) -> list[EvaluationCase]:
    """A new bundle, trained with sim parameters, and what to evaluate."""
    run = folder / "run"
    settings = ["--set", f"steps={steps}", "--set", "threads=1"]
    _mlsh("train", BUNDLE, "--output", run, *settings, "--sim-params", sim_params)
    _mlsh("export", run)
    return resolve_cases(load_bundle(str(run / "bundle")))


def _mlsh(*arguments: object) -> None:
    output_of([sys.executable, "-m", "mlsh_ros.cli.main", *map(str, arguments)])


@one_line_errors
def main() -> None:
    """Print a line per robot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--sessions", type=int, default=4)
    parser.add_argument("--only", choices=HIDDEN)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    logging.getLogger("absl").setLevel(logging.ERROR)  # of numbers that start at a bound
    parent = options.folder or Path(tempfile.mkdtemp(prefix="mlsh_loop_"))
    bundle = load_bundle(BUNDLE)
    shipped = resolve_cases(bundle)
    nominal = mean_return(shipped, None)
    print(f"nominal robot: {nominal:.1f}; means of {EPISODES} episodes per task", flush=True)
    for name in [options.only] if options.only else HIDDEN:
        began, hidden = time.monotonic(), HIDDEN[name]
        folder = parent / name.replace(" ", "-")
        folder.mkdir(parents=True)
        file = folder / "sim_params.yaml"
        signals = synthesize_recording(bundle, hidden, sessions=options.sessions, seed=0)
        found = identify(bundle, [signals], ranges=RANGES)
        file.write_text(found.to_yaml([name]), encoding="utf-8")
        before = mean_return(shipped, hidden)
        lost = nominal - before
        parts = [f"{name}: {before:.1f}, {lost / nominal:.0%} lost"]
        most = at_most(bundle, shipped, hidden)
        parts.append(f"who knows the goal drives {expert(bundle, hidden):.1f}, at most {most:.1f}")
        parts.append(f"held-out RMSE {found.before:.3g} -> {found.after:.3g}")
        bundles = {"finetuned": finetuned(file, folder)}
        if options.steps:
            bundles["trained"] = trained(file, folder, options.steps)
        for how, cases in bundles.items():
            value = mean_return(cases, hidden)
            back = value - before
            parts.append(
                f"{how} {value:.1f}, {back / lost:.0%} won back, {back / (most - before):.0%} "
                "of what can be"
            )
        print("; ".join(parts) + f" ({time.monotonic() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
