"""What `mlsh import-skill` says of a skill that agrees with its policy: what the robot does."""

import re

import numpy as np
import pytest
from onnx import helper

from mlsh_ros.control.faults import FaultError
from mlsh_ros.control.safety_monitor import SafetyMonitor, Tick
from policies.skill_import import comparison, importer, trial
from policies.skill_import.importer import import_skills
from sim.errors import UserError
from sim.physics.robot_model import load_robot
from sim.tasks.registry import make_family
from tests.policies.test_skill_limits import RULES
from tests.support import one_line
from tests.support.cli import run_mlsh
from tests.support.foreign_policy import MODEL, ROBOT, description, model, robot_folder
from tests.support.go2 import POLICY, import_ahead

FACTS = {"command": "test", "versions": {}, "commit": None}
KEY = '<keyframe><key name="up" qpos="0 0 {}"/></keyframe></mujoco>'


@pytest.fixture(autouse=True)
def few_rows(monkeypatch):
    monkeypatch.setattr(importer, "RANDOM_ROWS", 500)


@pytest.fixture
def any_family(monkeypatch):
    """The robot with two joints cannot drive to a goal, so that it has no master."""
    monkeypatch.setattr(importer, "check_scorable", lambda *_: None)


def arms(tmp_path, file=None, robot=ROBOT, **given):
    """An import for the robot with two joints, and the lines that it prints."""
    lines = []
    found = import_skills(
        [file or description(tmp_path / "policy")],
        robot_folder(tmp_path / "arms", robot),
        "moving_bandits",
        tmp_path / "bundle",
        name="arms",
        decision_ticks=5,
        decision_lead=1,
        facts=FACTS,
        say=lines.append,
        **given,
    )
    return found, lines


def go2(tmp_path, change=lambda data: None):
    """An import of the Go2's policy with one skill, and the lines that it prints."""
    lines = []
    return import_ahead(tmp_path, change, say=lines.append), lines


# Falls and motion -------------------------------------------------------------------------


def numbers(line):
    return [float(text) for text in re.findall(r"[-+]?\d+\.?\d*", line)]


def test_the_line_of_a_skill_has_what_the_robots_did(tmp_path):
    """The command is 0.8 m/s ahead: from a crouch 1 to 1.6 m in 2 s, without a fall."""
    found, (line,) = go2(tmp_path)
    assert line.startswith("ahead: 0 of 16 robots fall in 2 s; they move ")
    _, _, _, distance, ahead, left, turn, cut = numbers(line)
    assert 1.0 < ahead < 1.6
    assert abs(distance) >= abs(ahead) > abs(left)
    assert abs(turn) < 0.6
    assert 0 <= cut < 50
    assert found.doubts == []


def test_a_robot_that_turns_is_measured_without_a_jump(tmp_path):
    """By -1 rad/s for 2 s: it passes from -pi to pi in some of 16 random headings."""
    _, (line,) = go2(
        tmp_path, lambda data: data.update(skills={"turn": {"velocity_command": [0.0, 0.0, -1.0]}})
    )
    assert -2.2 < numbers(line)[-2] < -1.6


def without_the_scale_of_velocities(data):
    del data["observation"][4]["scale"]


def test_a_description_with_which_most_robots_fall_is_refused(tmp_path):
    with pytest.raises(
        UserError, match=r"1\d of 16 simulated robots leave .* within 1 s"
    ) as found:
        go2(tmp_path, without_the_scale_of_velocities)
    text = one_line.checked(found.value)
    assert "every scale, offset and sign" in text
    assert not (tmp_path / "bundle").exists()


class Falling(trial.TaskVectorEnv):
    """Some robots end their episode in one tick."""

    falls, tick = 0, 1
    steps = 0

    def step(self, action):
        shown, reward, terminated, truncated, info = super().step(action)
        self.steps += 1
        if self.steps == self.tick:
            terminated = np.arange(self.num_envs) < self.falls
        return shown, reward, terminated, truncated, info


@pytest.mark.parametrize(("falls", "tick"), [(7, 1), (7, 50), (16, 51), (1, 100)])
def test_fewer_falls_and_later_ones_are_a_note(tmp_path, monkeypatch, any_family, falls, tick):
    """A tick takes 0.02 s: with the 50th the first second is over."""
    monkeypatch.setattr(
        trial, "TaskVectorEnv", type("Env", (Falling,), {"falls": falls, "tick": tick})
    )
    found, lines = arms(tmp_path)
    assert lines[0].startswith(f"fast: {falls} of 16 robots fall in 2 s; ")
    note = found.doubts[0]
    assert note.startswith(
        f"skill 'fast': {falls} of 16 simulated robots leave their limits within 2 s"
    )
    assert f"after {tick * 0.02:.2g} s" in note


@pytest.mark.parametrize("tick", [1, 50])
def test_half_of_the_robots_are_too_many(tmp_path, monkeypatch, any_family, tick):
    monkeypatch.setattr(
        trial, "TaskVectorEnv", type("Env", (Falling,), {"falls": 8, "tick": tick})
    )
    with pytest.raises(UserError, match=r"'fast': 8 of 16 simulated robots .* within 1 s"):
        arms(tmp_path)


def test_the_end_of_a_short_episode_is_no_fall(tmp_path, any_family):
    found, lines = arms(tmp_path, settings=["family_parameters.ticks=30"])
    assert lines[0].startswith("fast: 0 of 16 robots fall in 2 s; ")
    assert found.doubts == []


def test_joints_of_a_robot_without_a_base_are_measured():
    """The expected number is that of a robot's own state: both joints by 0.5 rad."""
    env = trial.TaskVectorEnv(load_robot("arm"), make_family("reach"), groups=1, envs=2, seed=0)
    env.reset()
    motion = trial.RobotMotion(env)
    env.world.physics.perturb_joints(np.arange(2, dtype=np.int32), np.full((2, 2), 0.5))
    motion.follow(np.ones(2, bool))
    assert motion.text == "their joints move 0.50 rad"


# Limits of the robot that cut the targets -------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("rate_limit: 20.0", "rate_limit: 0.01", r"rate_limit: \d\d+ %\)"),
        ("limit: [-1.5, 1.5]", "limit: [-0.31, 0.41]", r"\(limit: \d\d+ %, rate_limit: \d %\)"),
    ],
)
def test_limits_that_cut_most_targets_are_a_note(tmp_path, any_family, old, new, said):
    assert arms(tmp_path / "plain")[0].doubts == []
    found, _ = arms(tmp_path, robot=ROBOT.replace(old, new))
    assert len(found.doubts) == 2  # one for each skill
    for note in found.doubts:
        assert re.search(r"the robot cuts \d+ % of the targets of arms.[01] ", note)
        assert re.search(said, note)
        assert "compare limit and rate_limit in robot.yaml" in note


def test_a_policy_that_accelerates_as_fast_as_it_may_has_no_note():
    """Half of its targets are cut: the omni may change a command by 5 m/s^2 * 0.1 s = 0.5 m/s."""
    env = trial.TaskVectorEnv(
        load_robot("omni"), make_family("ring_bandits"), groups=1, envs=2, seed=0
    )
    env.reset()
    cuts, all_run = trial.Cuts(env), np.ones(2, bool)
    for ahead in (0.8, 0.8, -0.1, -0.1):  # commands 0.5, 0.8, 0.3, -0.1 m/s: two of four are cut
        action = np.array([[ahead, 0.0]] * 2, np.float32)
        cuts.count(action, all_run)
        env.step(action)
    assert cuts.text == "25 % of the targets are cut"  # those of y are not
    assert cuts.notes("fast") == []
    for _ in range(8):  # beyond the limit of 1 m/s: 10 of 12 are cut, 8 of them by the limit
        action = np.array([[1.5, 0.0]] * 2, np.float32)
        cuts.count(action, all_run)
        env.step(action)
    (note,) = cuts.notes("fast")
    assert "cuts 83 % of the targets of base_velocity.0 (limit: 67 %, rate_limit: " in note


# A policy without weights -----------------------------------------------------------------


def test_a_policy_whose_weights_are_zero_is_a_note(tmp_path, any_family):
    nodes = [helper.make_node("MatMul", ["obs", "w"], ["actions"])]
    dead = model(nodes, 7, 2, {"w": np.zeros((7, 2), np.float32)})
    found, _ = arms(tmp_path, description(tmp_path / "policy", dead))
    assert [note.split(";")[0] for note in found.doubts] == [
        "skill 'fast': its action is the same for every observation",
        "skill 'slow': its action is the same for every observation",
    ]


# Robot and family -------------------------------------------------------------------------


def test_a_robot_that_no_master_could_drive_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(UserError, match="robot 'arms' has no wheeled base"):
        arms(tmp_path)
    code, out, err = run_mlsh(
        *("import-skill", POLICY.with_name("go2_velocity.yaml"), "moving_bandits"),
        *("--robot", "go2", "-o", tmp_path / "bundle"),
    )
    assert (code, out) == (1, "")
    assert err.startswith("error: robot 'go2' has no wheeled base")
    assert not (tmp_path / "bundle").exists()


# Limits of a skill ------------------------------------------------------------------------


def test_limits_of_a_skill_are_those_of_the_bundle_and_hold(tmp_path, any_family):
    file = tmp_path / "limits.yaml"
    file.write_text("slow: {joint_position: [-0.7, 0.7]}\n")
    bundle = arms(tmp_path, skill_limits=file)[0].bundle
    manifest = bundle.manifest
    assert manifest.skill_limits == {"slow": {"joint_position": (-0.7, 0.7)}}
    guard = SafetyMonitor(manifest.interface, manifest.skills, manifest.skill_limits, RULES)
    fields = {term.name: np.zeros(term.size) for term in manifest.interface.observation}
    fields["joint_position"] = np.array([0.8, 0.0])
    shown, still = np.zeros(manifest.interface.observation_size, np.float32), np.zeros(2)

    def judge(skill):
        command = manifest.interface.safe_command
        guard.check(Tick(1, skill, shown, still, command, False, False, False), fields, 0.0)

    assert manifest.skills == ("fast", "slow")
    judge(0)
    with pytest.raises(
        FaultError, match=r"joint_position.0 is 0.8 rad, skill 'slow' may see -0.7"
    ):
        judge(1)


def test_limits_of_a_skill_that_is_not_there_are_refused(tmp_path, any_family):
    file = tmp_path / "limits.yaml"
    file.write_text("slowly: {joint_position: [-0.7, 0.7]}\n")
    code, _, err = run_mlsh(
        *("import-skill", description(tmp_path / "policy"), "moving_bandits"),
        *("--robot", robot_folder(tmp_path / "arms"), "-o", tmp_path / "bundle"),
        *("--skill-limits", file),
    )
    assert code == 1
    assert "no skill 'slowly'. Did you mean 'slow'? Valid: fast, slow" in err
    assert not (tmp_path / "bundle").exists()


# Time -------------------------------------------------------------------------------------


def test_the_number_of_compared_rows_grows_with_the_number_of_skills(
    tmp_path, monkeypatch, any_family
):
    """Each skill is compared on its own 1600 and on 400 of the others: 12 on 24,000 rows."""
    monkeypatch.setattr(comparison, "VISITED_ROWS", 2000)
    rows, before = [], comparison._difference

    def counted(skill, shown):
        rows.append(len(shown))
        return before(skill, shown[:10])

    monkeypatch.setattr(comparison, "_difference", counted)
    skills = {f"s{i:02}": {"command": [i / 12]} for i in range(12)}
    found, lines = arms(tmp_path, description(tmp_path / "policy", skills=skills))
    assert rows == [500, 2000] * 12
    assert found.rows == 2000
    assert lines[-1] == "10 of 12 skills compared with their policies"
    assert [line.partition(":")[0] for line in lines[:-1]] == [*skills]


def test_a_skill_is_compared_on_all_that_it_has_seen_and_on_others():
    """Own are rows 30 to 60 of 100; drawn are 20 of the other 70, none of them twice."""
    comparison_rows = comparison._compared
    rng = np.random.default_rng(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "VISITED_ROWS", 50)
        rows = comparison_rows(30, 60, 100, rng)
        many = comparison_rows(0, 80, 100, rng)
    assert len({*rows}) == 50
    assert {*range(30, 60)} < {*rows} < {*range(100)}
    assert {*many} == {*range(80)}
    assert {*comparison_rows(30, 60, 100, rng)} == {*range(100)}


# Start pose -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("joints", "said"),
    [
        (
            "3 -3",
            r"keyframe 'up' of model.xml has joint 'left' at 3; put it into its range, -2 to 2",
        ),
        ("1.95 -.2", r"joint_position.1 is 1.95 rad; put it into its limit, -1.9 to 1.9"),
    ],
)
def test_a_start_pose_beyond_range_or_limit_is_refused(tmp_path, any_family, joints, said):
    robot = robot_folder(tmp_path / "arms", ROBOT + "start_pose: {keyframe: up}\n")
    (tmp_path / "arms" / "model.xml").write_text(MODEL.replace("</mujoco>", KEY.format(joints)))
    with pytest.raises(UserError, match=said) as found:
        load_robot(robot).compile()
    one_line.checked(found.value)


def test_a_start_pose_on_the_limit_is_accepted(tmp_path):
    robot = robot_folder(tmp_path / "arms", ROBOT + "start_pose: {keyframe: up}\n")
    (tmp_path / "arms" / "model.xml").write_text(
        MODEL.replace("</mujoco>", KEY.format("1.9 -1.9"))
    )
    load_robot(robot).compile()
