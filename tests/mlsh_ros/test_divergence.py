"""A simulation that diverges solves nothing, and everybody who asks is told of it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mlsh_ros.cli.evaluate import show
from mlsh_ros.evaluation import robustness as module
from mlsh_ros.evaluation.backends import run_offline, run_ros
from mlsh_ros.evaluation.case import resolve_cases
from mlsh_ros.evaluation.report.verdict import verdict
from mlsh_ros.evaluation.robustness import parse_axes, robustness
from mlsh_ros.evaluation.scores import summarize
from mlsh_ros.sim2real.gap.analysis import analyze_signals
from mlsh_ros.sim2real.gap.closed_loop_return import closed_loop_returns
from mlsh_ros.sim2real.replay.open_loop_replay import open_loop_of
from policies.bundle.bundle import load_bundle
from policies.experiments.transfer import Transferred, TransferSummary
from policies.training.adapt import adapt
from policies.training.finetune import install_skills, task_config
from sim.envs.reference_returns import ReferenceReturns
from sim.physics.batched_physics import BatchedPhysics
from sim.physics.robot_model import load_robot
from sim.tasks.registry import make_family
from sim.tasks.task_id import TaskId
from tests.mlsh_ros.test_lockstep import compare
from tests.support.bundles import fresh_domain, restless_bundle, unstable_robot
from tests.support.gap_robot import Robot

TASK = "moving_bandits/goal-0"
EVERYWHERE = {"radius": 100.0}  # m: each state counts as solved


@pytest.fixture
def unstable(tmp_path, monkeypatch):
    """The folder of a robot that falls apart within an episode."""
    monkeypatch.chdir(tmp_path)  # MuJoCo writes MUJOCO_LOG.TXT where it stands
    return unstable_robot(tmp_path / "unstable")


@pytest.fixture
def cases(tmp_path, monkeypatch, unstable):
    bundle = restless_bundle(tmp_path / "bundle", 0, **EVERYWHERE)
    # With a radius that covers everything no policy is better than another.
    limits = ReferenceReturns(random=20.0, task_blind=30.0, optimum=40.0)
    monkeypatch.setattr(
        "mlsh_ros.evaluation.scores.compute_reference_returns", lambda *_, **__: limits
    )
    return resolve_cases(bundle, task=TASK, robot=unstable)


def test_an_evaluation_says_that_it_diverged_and_that_nothing_is_solved(cases, capsys):
    done = run_offline(cases, episodes=2, seed=0)
    for episode in done:
        ticks = len(episode.skill)
        assert 1 < ticks < 50
        assert not episode.success
        assert episode.fault == f"the simulation diverged at tick {ticks - 1}"
        # Each tick pays 1, and the one that diverged nothing.
        assert episode.value == ticks - 1
    result = summarize(cases, "sim", 0, done)
    (line,) = result.lines
    assert (line.success, line.diverged, len(line.faults)) == (0.0, 2, 2)
    said = "skill_node would have stopped the robot, or the simulation diverged, in 2"
    assert said in verdict(result)
    show(result)
    printed = " ".join(capsys.readouterr().out.split())
    assert f"{said} of 2 episodes, the first: episode 0, the simulation diverged at" in printed


def test_a_rule_that_was_broken_before_is_told_first(cases):
    bundle = cases[0].bundle
    narrow = {name: {"velocity": (-1e-3, 1e-3)} for name in bundle.manifest.skills}
    guarded = replace(bundle, manifest=replace(bundle.manifest, skill_limits=narrow))
    (episode,) = run_offline([replace(cases[0], bundle=guarded)], episodes=1, seed=0)
    rule, divergence = episode.fault.split("; ")
    assert ": limit: velocity." in rule
    assert divergence.startswith("the simulation diverged at tick ")


def test_a_map_counts_it_as_stopped_and_its_score_as_none(cases, monkeypatch):
    monkeypatch.setattr(module, "POINTS", 2)
    (axis,) = parse_axes(["friction=1:1.5"])
    found = robustness(cases, [axis], episodes=2, seed=0)
    points = [found.nominal, *found.axes["friction"][1]]
    assert [(p.success, p.stopped, p.diverged) for p in points] == [(0.0, 1.0, 1.0)] * 3
    assert all(p.score <= 0 for p in points)
    assert found.verdict("friction").endswith(
        "; skill_node would stop the robot, or the simulation diverges, in 100% of the episodes "
        "at 1, 100% at 1.5"
    )
    assert json.loads(json.dumps(found.to_dict()))["nominal"]["diverged"] == 1.0


@pytest.mark.ros
def test_through_ros_it_is_the_same(cases):
    """sim_node's outcome says that nothing is solved, of the same tick."""
    offline = run_offline(cases, episodes=2, seed=0)
    through_ros = run_ros(cases, episodes=2, seed=0, mode="lockstep", domain=fresh_domain())
    compare(offline, through_ros)
    assert not any(episode.success for episode in through_ros)


def test_masters_that_are_scored_on_it_say_so(unstable, tmp_path):
    bundle = load_bundle("moving_bandits")
    config, _ = task_config(bundle, TaskId.parse(TASK), seed=0, robot=unstable)
    result = adapt(config, lambda a: install_skills(a, bundle), [0], updates=0, episodes=4)
    assert result.curves[0][0].success == 0
    # About 11 ticks each, so that others begin within the same ticks: those do not count.
    assert result.diverged == 4
    count = result.diverged
    said = f"the simulation diverged in {count} evaluation episode(s), "
    said += "which are not solved and end there"
    assert result.divergence == said
    summary = TransferSummary(
        [Transferred("q", 0, make_family("moving_bandits"), result.curves, n) for n in (count, 0)],
        [],
    )
    assert summary.divergence == said
    sound, _ = task_config(bundle, TaskId.parse(TASK), seed=0)
    whole = adapt(sound, lambda a: install_skills(a, bundle), [0], updates=0, episodes=4)
    assert (whole.diverged, whole.divergence) == (0, "")


def test_gap_leaves_out_the_return_of_a_simulation_that_diverged(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    bundle = load_bundle("moving_bandits")
    signals = Robot(bundle, seed=3).drive("goal-0", sessions=2).signals()
    open_loop = open_loop_of(bundle, [signals], load_robot("omni"))
    (whole,) = closed_loop_returns([signals], bundle, open_loop)
    assert len(whole.simulation) == 2
    step, steps, notes = BatchedPhysics.step, [], []

    def spoiled(self, command):
        steps.append(len(command))
        if len(steps) == 5:
            self.batch.bind("qvel")[0, 0] = 2e10  # more than MuJoCo takes
        step(self, command)

    monkeypatch.setattr(BatchedPhysics, "step", spoiled)
    (half,) = closed_loop_returns([signals], bundle, open_loop, notes.append)
    np.testing.assert_array_equal(half.simulation, whole.simulation[1:])
    np.testing.assert_array_equal(half.robot, whole.robot[1:])
    assert set(steps) == {2}
    text = f"{TASK}: the simulation diverged in 1 of 2 sessions, whose returns are not compared"
    assert notes == [text]
    steps.clear()
    assert text in analyze_signals(bundle, [signals], []).notes
