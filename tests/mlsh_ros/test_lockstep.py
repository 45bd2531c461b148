"""In lockstep the rollout through ROS is the offline rollout, bit for bit."""

import re
import time
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest

from mlsh_ros.bringup.graphs import SIM
from mlsh_ros.evaluation.backends import run_offline, run_ros
from mlsh_ros.evaluation.case import resolve_cases
from policies.bundle.bundle import load_bundle, write_bundle
from policies.bundle.manifest import MANIFEST
from sim.errors import UserError
from sim.tasks import registry
from sim.tasks.registry import use_family
from tests.support.bundles import fresh_domain, remembering_robot, restless_bundle
from tests.support.cli import run_mlsh
from tests.support.own_family import write_family

EPISODES = 10  # x 2 tasks x 50 ticks = 1,000 ticks


@pytest.mark.ros
@pytest.mark.parametrize(
    ("lead", "family", "robot", "parameters"),
    [
        (0, "moving_bandits", "omni", {"ticks": 25, "half_width": 2.0}),  # not the defaults
        pytest.param(1, "moving_bandits", "omni", {}, marks=pytest.mark.slow),
        # Eight joints by name, axes of a quaternion.
        pytest.param(1, "ant_movement", "ant", {}, marks=pytest.mark.slow),
        # A LaserScan, quaternions, goals seen by the robot.
        pytest.param(1, "body_bandits", "rover", {}, marks=pytest.mark.slow),
    ],
)
def test_rollout_through_ros_equals_offline(tmp_path, lead, family, robot, parameters):
    bundle = restless_bundle(tmp_path / "restless", lead, family, robot, **parameters)
    cases = resolve_cases(bundle, robot=robot)
    ticks = cases[0].family.ticks
    assert ticks == parameters.get("ticks", ticks)
    episodes = max(1, EPISODES * 50 // ticks)
    offline = run_offline(cases, episodes=episodes, seed=3)
    through_ros = run_ros(cases, episodes=episodes, seed=3, mode="lockstep", domain=fresh_domain())
    assert sum(len(e.skill) for e in offline) >= 1000
    # Otherwise nothing is said about switching.
    assert sum(e.switches for e in offline) > 25
    compare(offline, through_ros)


@pytest.mark.ros
def test_what_an_observation_remembers_is_the_same_too(tmp_path):
    robot = remembering_robot(tmp_path / "robot")
    bundle = restless_bundle(tmp_path / "restless", 1, "moving_bandits", robot)
    cases = resolve_cases(bundle, robot=robot)
    offline = run_offline(cases, episodes=2, seed=3)  # every episode is a session
    through_ros = run_ros(cases, episodes=2, seed=3, mode="lockstep", domain=fresh_domain())
    compare(offline, through_ros)
    assert sum(e.switches for e in offline) > 5
    for episode in offline:
        last, past = (episode.term(bundle.interface, name) for name in ("last", "past"))
        expected = np.clip(0.5 * episode.action[:-1], -2, 2)
        np.testing.assert_array_equal(last, [[0, 0], *expected.astype(np.float32)])
        velocity = episode.term(bundle.interface, "velocity")
        assert past.shape[1] == 3 * (2 + 2)
        np.testing.assert_array_equal(past[0], np.zeros(12))
        for t in range(3, len(past)):  # oldest first, one term behind the other
            parts = velocity[t - 3 : t].ravel(), last[t - 3 : t].ravel()
            np.testing.assert_array_equal(past[t], np.concatenate(parts))


SIGNALS = """    signals: ClassVar[tuple] = (
        Signal("nose", "position", "geom", ("nose",)),
        Signal("pull", "actuator_force", "actuator", ("drive_x", "drive_y")),
    )
"""


@pytest.mark.ros
def test_rewards_that_read_the_simulation_are_the_same_too(tmp_path):
    changes = (
        ("import STRICT\n", "import STRICT\nfrom sim.physics.signals import Signal\n"),
        ("    ticks: int = 20\n", f"{SIGNALS}    ticks: int = 20\n"),
        ('fields["position"][:, 0]', '(fields["nose"][:, 0] - 1e-3 * fields["pull"].sum(axis=1))'),
    )
    file = write_family(tmp_path / "stay.py", *changes)
    with mock.patch.dict(registry._LOADED):
        use_family(str(file))
        bundle = restless_bundle(tmp_path / "restless", 1, "stay", "omni")
        cases = resolve_cases(bundle)
        offline = run_offline(cases, episodes=5, seed=3)
        through_ros = run_ros(cases, episodes=5, seed=3, mode="lockstep", domain=fresh_domain())
    compare(offline, through_ros)
    assert sum(e.switches for e in offline) > 5
    for episode in offline:
        # The nose is 45 mm ahead of the base; the observation shows the base before the tick.
        x = episode.term(bundle.interface, "position")[1:, 0].astype(np.float64)
        sign = 1 if episode.task == "stay/right" else -1
        assert (np.abs(sign * episode.reward[:-1] - x - 0.045) > 1e-4).any()  # servos pull
        assert (np.abs(sign * episode.reward[:-1] - x - 0.045) < 0.17).all()  # at most 160 N


SIM_PARAMS = """
schema: 2
physics: {mass_factor: 1.2, payload_kg: 0.3, friction_factor: 0.7, damping_factor: 2.0}
actuators:
  drive: {gain_factor: 0.9, command_factor: 0.97, delay_s: 0.07}
  turn: {delay_s: 0.12}
sensors:
  position: {delay_s: 0.03, noise: 0.01}
  yaw_rate: {bias: 0.05, noise: 0.05, dropout: 0.2}
  scan: {delay_s: 0.15, scale: 1.02, noise: 0.02, dropout: 0.2}
pushes: {velocity_m_s: 0.05, every_s: 1.3}
"""


@pytest.mark.ros
def test_with_a_sim_params_it_still_does(tmp_path):
    bundle = restless_bundle(tmp_path / "restless", 1, "body_bandits", "rover")
    file = tmp_path / "sim_params.yaml"
    file.write_text(SIM_PARAMS)
    (nominal_case, *_) = resolve_cases(bundle)
    (case, *_) = resolve_cases(bundle, sim_params=str(file))
    how = {"episodes": 1, "seed": 3}
    nominal = run_offline([nominal_case], **how)
    offline = run_offline([case], **how)
    through_ros = run_ros([case], mode="lockstep", domain=fresh_domain(), **how)
    compare(offline, through_ros)
    for one, two in zip(nominal, offline, strict=True):
        # Goals are where they were, 2 at the end of the observation; it is only seen otherwise.
        np.testing.assert_array_equal(one.observation[0, -4:], two.observation[0, -4:])
        assert (one.observation[1:] != two.observation[1:]).any(axis=1).all()


@pytest.mark.ros
def test_a_rule_that_stops_the_robot_stops_it_in_lockstep_too(tmp_path):
    whole = restless_bundle(tmp_path / "restless", 1, "moving_bandits", "omni")
    slow = {skill: {"velocity": (-0.3, 0.3)} for skill in whole.manifest.skills}
    files = {name: data for name, data in whole.files.items() if name != MANIFEST}
    bundle = write_bundle(replace(whole.manifest, skill_limits=slow), files, tmp_path / "slow")
    cases, how = resolve_cases(bundle)[:1], {"episodes": 1, "seed": 3}
    (offline,) = run_offline(cases, **how)
    assert re.match(r"tick \d+: limit: velocity", offline.fault)
    what = offline.fault.partition(": ")[2]
    with pytest.raises(UserError, match=re.escape(f"stopped the robot: fault: {what}")):
        run_ros(cases, mode="lockstep", domain=fresh_domain(), **how)


@pytest.mark.ros
@pytest.mark.slow
def test_the_go2_in_a_maze_is_the_same_through_ros_and_in_the_recording_of_it(
    tmp_path, monkeypatch
):
    """The shipped bundle, whose skills are a policy of another trainer, for 2 x 1,500 ticks."""
    pytest.importorskip("rclpy")
    from mlsh_ros.bringup.process_launcher import Processes
    from mlsh_ros.evaluation.ros_rollout import Remote

    bundle = load_bundle("go2_walk")
    cases = resolve_cases(bundle, task="mazes/maze-7")
    (case,), ticks = cases, cases[0].family.ticks
    assert ticks == 1500
    offline = run_offline(cases, episodes=2, seed=3)
    domain, place, lines = fresh_domain(), tmp_path / "bag", []
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    arguments = {
        "bundle": str(bundle.source),
        "master": case.master,
        "task": str(case.task),
        "mode": "lockstep",
        "auto_arm": "false",
        "auto_reset": "false",
        "namespace": "bot1",
        "record": "true",
        "record_dir": str(place),
    }
    how = {"task": str(case.task), "master": case.master, "ticks": ticks, "realtime": False}
    with (
        Processes(SIM, arguments, lambda *said: lines.append(said), domain) as processes,
        Remote(bundle, "bot1", processes.check) as client,
    ):
        client.wait_until_active("recorder_node", "skill_node", "master_node", "sim_node")
        deadline = time.monotonic() + 40.0
        while not any("hears every" in line for _, line in lines):
            assert time.monotonic() < deadline, lines
            time.sleep(0.02)
        through_ros = [client.run_episode(seed=3, number=n, **how) for n in range(2)]
    compare(offline, through_ros)
    assert [len(episode.skill) for episode in offline] == [ticks, ticks]
    assert sum(episode.switches for episode in offline) > 25
    code, out, err = run_mlsh("replay", place, "go2_walk")
    # A decision for tick 0, and one a tick ahead of every 25.
    decisions = 2 * (1 + ticks // bundle.manifest.decision_ticks)
    said = f"2 sessions, {2 * ticks} ticks, {decisions} decisions, all equal"
    assert (code, out.splitlines()[-1], err) == (0, said, "")


def compare(offline, through_ros):
    assert len(through_ros) == len(offline)
    for a, b in zip(offline, through_ros, strict=True):
        assert (a.task, a.master, a.number, a.success) == (b.task, b.master, b.number, b.success)
        assert b.late == 0
        for name in ("observation", "skill", "action", "command", "reward"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
