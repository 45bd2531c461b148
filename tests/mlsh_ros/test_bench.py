"""The benches' own parts, in sizes that measure nothing."""

import ast
import importlib
import json
import sys
import time
from pathlib import Path
from unittest import mock

import mujoco
import numpy as np
import pytest

from mlsh_ros.evaluation.case import resolve_cases
from policies.bundle.bundle import load_bundle
from policies.mlsh.mlsh import Mlsh
from sim.envs.world import World
from sim.errors import UserError
from sim.physics.robot_model import load_robot
from sim.seeding import episode_rng
from sim.tasks import registry
from sim.tasks.registry import add_family, make_family
from tests.benchmarks import gait, output_of, scale
from tests.benchmarks.tick import engine
from tests.support.bundles import small_config


@pytest.fixture
def runners():
    """The module; its family is one only while a test runs."""
    with mock.patch.dict(registry._LOADED):
        from tests.benchmarks import runners

        add_family(runners.Directions)
        yield runners


@pytest.mark.parametrize("name", ["half_cheetah", "ant"])
def test_a_runner_is_gymnasiums_robot_and_is_paid_for_its_speed(runners, name, tmp_path):
    (runner,) = (r for r in runners.RUNNERS if r.name == name)
    robot = load_robot(runner.write(tmp_path))
    theirs = mujoco.MjModel.from_xml_path(str(runners.ASSETS / f"{name}.xml"))
    driven = [theirs.joint(i).name for i in theirs.actuator_trnid[:, 0]]
    assert runner.joints == tuple(driven)  # actions are in gymnasium's order
    assert robot.interface.action_size == len(driven)
    world = World(robot, runners.Directions(ticks=5), 2)
    rngs = [np.random.default_rng(i) for i in range(2)]
    world.reset(np.arange(2, dtype=np.int32), [0, 1], rngs)
    for tick in range(5):
        action = np.full((2, robot.interface.action_size), 0.5, np.float32)
        fields, outcome = world.step(action)
        assert np.isfinite(fields["joints"]).all()
        # The same robot twice, ahead and back.
        np.testing.assert_allclose(outcome.reward, fields["speed"][:, 0] * [1, -1], rtol=1e-6)
        assert outcome.truncated.tolist() == [tick == 4] * 2
    assert abs(fields["speed"][0, 0]) > 1e-3


ARM = """<mujoco><compiler angle="radian"/><option timestep=".004" integrator="implicitfast"/>
<worldbody><body name="upper"><joint name="shoulder" axis="0 1 0" damping=".4" armature=".05"/>
  <geom type="capsule" fromto="0 0 0 .3 0 0" size=".03" mass="1"/>
  <body name="hand" pos=".3 0 0"><joint name="elbow" axis="0 0 1" damping=".2" armature=".05"/>
    <geom type="capsule" fromto="0 0 0 .2 0 0" size=".02" mass=".5"/></body></body></worldbody>
<actuator><position name="lift" joint="shoulder" kp="40" kv="1" ctrlrange="-3 3"/>
  <position name="bend" joint="elbow" kp="20" kv=".5" ctrlrange="-3 3"/></actuator></mujoco>"""


@pytest.mark.slow
def test_somebody_elses_arm_is_identified_without_a_bundle(monkeypatch, tmp_path):
    pytest.importorskip("scipy")
    pytest.importorskip("tabulate")
    from mlsh_ros.sim2real.data.recording_data import load
    from mlsh_ros.sim2real.sysid.identify import identify
    from sim.randomization.schema import sim_params_from_dict
    from tests.benchmarks import third_party_models

    (tmp_path / "arm.xml").write_text(ARM)
    model = third_party_models.Model("none", "arm.xml", "hand", (0.0, 0.0), (0.5, 0.5), 0.004)
    monkeypatch.setattr(third_party_models, "source", lambda _: tmp_path / "arm.xml")
    monkeypatch.setitem(third_party_models.MODELS, "arm", model)
    robot = third_party_models.adopt("arm", tmp_path / "arm")
    late = {"lift": {"delay_s": 0.031}, "bend": {"delay_s": 0.011, "gain_factor": 0.8}}
    physics = {"damping_factor": 1.5, "joint_friction": 0.2}
    hidden = sim_params_from_dict({"actuators": late, "physics": physics}, "hidden")
    arm = third_party_models.Arm(model, robot, hidden)
    signals = load(
        third_party_models.record(arm, tmp_path / "bag", seconds=8, seed=0), robot
    ).signals
    assert signals.notes == []
    names = ["damping_factor", "joint_friction", "gain_factor", "lift.delay_s", "bend.delay_s"]
    found = {n.unknown.name: n.value for n in identify(robot, [signals], parameters=names).numbers}
    assert found["lift.delay_s"] == pytest.approx(0.031, abs=0.002)
    assert found["bend.delay_s"] == pytest.approx(0.011, abs=0.002)
    assert found["bend.gain_factor"] == pytest.approx(0.8, rel=0.03)
    assert found["damping_factor"] == pytest.approx(1.5, rel=0.1)
    assert found["joint_friction"] == pytest.approx(0.2, rel=0.1)


def test_a_rank_of_the_scaling_bench_reports_its_run(runners, monkeypatch, capsys):
    monkeypatch.setattr(runners, "GROUPS", 2)
    monkeypatch.setattr(runners, "ENVS", 4)
    monkeypatch.setattr(runners, "TICKS", 20)
    monkeypatch.setattr(scale, "WARM", 1)
    scale.worker("directions", 2)
    run = scale.Run(**json.loads(capsys.readouterr().out))
    assert run.steps == 2 * 4 * 20
    assert run.seconds > 0
    assert run.skills in (0, 0.5, 1)
    assert run.calls == run.bytes == 0  # alone it speaks to nobody


def test_what_more_ranks_are_expected_to_bring(capsys):
    # 1 s for 1,000 steps; two ranks wait 0.1 s for 10 messages: 10 ms each.
    # R ranks: 1 + 10 * 0.01 * log2(R) s for R * 1,000 steps.
    # 1: 1 s, 1,000/s; 4: 1.2 s, 3,333/s, 83 %; 128: 1.7 s, 75,294/s, 59 %.
    one = scale.Run(seconds=1.0, steps=1000, skills=1.0, calls=0.0, bytes=0.0, talk=0.0)
    two = scale.Run(seconds=1.1, steps=1000, skills=1.0, calls=10.0, bytes=8e4, talk=0.1)
    scale._predict(one, two)
    head, *lines = (" ".join(line.split()) for line in capsys.readouterr().out.splitlines())
    assert "10000 us" in head
    assert [int(line.split()[0]) for line in lines] == list(scale.RANKS)
    assert lines[0] == "1 ranks 1,000 steps/s 100% of linear"
    assert lines[2] == "4 ranks 3,333 steps/s 83% of linear"
    assert lines[-1] == "128 ranks 75,294 steps/s 59% of linear"


@pytest.mark.slow
def test_a_profile_is_all_of_the_time_and_each_part_is_its_own(runners):
    from tests.benchmarks import profile

    training = Mlsh(small_config())
    with profile.measured() as seconds:
        start = time.perf_counter()
        training.iterate()
        whole = time.perf_counter() - start
    assert set(seconds) <= set(profile.PARTS)
    assert {"physics", "skills act", "masters learn", "rest"} <= set(seconds)
    assert min(seconds.values()) >= 0
    assert sum(seconds.values()) == pytest.approx(whole, rel=0.02)
    kept = dict(seconds)
    training.iterate()  # not measured any more
    assert seconds == kept


def test_what_no_controller_can_exceed_is_what_force_and_delay_leave():
    pytest.importorskip("scipy")
    from tests.benchmarks import sysid_loop

    bundle = load_bundle(sysid_loop.BUNDLE)
    work = resolve_cases(bundle)
    drives = [{"gain_factor": 1e-6}] * 2
    family = make_family(sysid_loop.BUNDLE)
    goals = [
        family.reset(slot, episode_rng(sysid_loop.SEED, n))["goals"][slot]
        for slot in range(2)
        for n in range(sysid_loop.EPISODES)
    ]
    at_hand = np.linalg.norm(goals, axis=1) <= family.radius
    # Without force only goals count that lie where the robot stands.
    assert (
        sysid_loop.at_most(bundle, work, sysid_loop._robot(*drives))
        == family.ticks * at_hand.mean()
    )
    # Two ticks later everywhere; goals that are reached in less lose less.
    most = sysid_loop.at_most(bundle, work, None)
    lost = most - sysid_loop.at_most(bundle, work, sysid_loop.HIDDEN["late"])
    # There a session begins from what a sensor that is late and noisy measures.
    assert 1.7 < lost <= 2 * (1 - at_hand.mean()) + 0.05
    # Nobody is sooner than along the diagonal at 1 m/s in both axes; a tick is 0.1 s.
    away = np.maximum(np.linalg.norm(goals, axis=1) - family.radius, 0.0)
    soonest = np.ceil(away / np.sqrt(2) / 0.1)  # ticks
    assert most <= (family.ticks - np.maximum(soonest - 1, 0)).mean()


@pytest.mark.parametrize(
    ("bench", "arguments"),
    [
        ("skill_speed", ["nobody"]),
        ("wall_recovery", ["nobody"]),
        ("profile", ["--family", "nobody"]),
        ("scale", ["--family", "nobody"]),
        ("single_task_ppo", ["nobody", "right"]),
        ("sb3", ["ppo", "nobody/goal-1"]),
        ("sb3", ["ppo", "moving_bandits/nobody"]),
        ("sysid", ["--bundle", "nobody"]),
        ("single_task_ppo", ["ant_bandits", "nobody"]),
        ("gait", ["nobody"]),
    ],
)
def test_a_wrong_name_is_one_line(bench, arguments, monkeypatch):
    monkeypatch.setattr("sys.argv", [bench, *arguments])
    wrong = r"^no .* '((ant|moving)_bandits/)?nobody'.*Valid: .*"
    refused = pytest.raises(SystemExit, match=wrong)
    with mock.patch.dict(registry._LOADED), refused:
        importlib.import_module(f"tests.benchmarks.{bench}").main()


def test_clearance_is_that_of_whole_swings():
    # One robot, one foot: a swing up to 6 cm above the lowest point, and one that never lands.
    height = np.array([0.02, 0.03, 0.08, 0.05, 0.02, 0.09, 0.3]).reshape(-1, 1, 1)
    contact = np.array([1, 0, 0, 0, 1, 0, 0], bool).reshape(-1, 1, 1)
    up = np.ones((7, 1), bool)
    assert gait._clearance(height, contact, up) == pytest.approx(0.06)
    assert gait._clearance(height, np.ones_like(contact), up) == 0


def test_every_bench_says_errors_in_one_line():
    """`one_line_errors` is what the test above rests on."""
    entries = [
        (path.name, [ast.unparse(each) for each in node.decorator_list])
        for path in (Path(__file__).parents[1] / "benchmarks").glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name == "main"
    ]
    assert len(entries) > 25
    assert [name for name, decorators in entries if decorators != ["one_line_errors"]] == []


def test_the_error_of_a_command_is_said():
    assert output_of([sys.executable, "-c", "print(3)"]) == "3\n"
    code = "import sys; print('much'); sys.exit('no such task')"
    with pytest.raises(UserError, match=r"-c .*: ended with status 1: no such task$"):
        output_of([sys.executable, "-c", code])
    with pytest.raises(UserError, match=r"status 3: it said nothing$"):
        output_of([sys.executable, "-c", "raise SystemExit(3)"])


def test_the_benchmark_of_the_tick_drives_every_tick():
    late, missed, _ = engine(200, 0.1)
    assert len(late) + missed >= 20
