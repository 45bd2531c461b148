"""A published walking policy of the Go2 becomes skills of the robot `go2`, and walks."""

import numpy as np
import pytest
import yaml

from policies.bundle.runtime import load_skills
from policies.skill_import import importer
from policies.skill_import.importer import import_skills
from sim.envs.vec_env import TaskVectorEnv
from sim.errors import UserError
from sim.physics.robot_model import load_robot
from sim.tasks.registry import make_family
from sim.tasks.running import leans
from tests.support.go2 import FALLEN, POLICY, infer, inputs

AHEAD = (0.8, 0.0, 0.0)


def test_the_imported_policy_walks_and_is_the_policy_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(importer, "ENVS", 2)
    monkeypatch.setattr(importer, "RANDOM_ROWS", 500)
    data = yaml.safe_load(POLICY.with_name("go2_velocity.yaml").read_text())
    data |= {"policy": str(POLICY), "skills": {"ahead": data["skills"]["ahead"]}}
    (tmp_path / "go2.yaml").write_text(yaml.safe_dump(data))
    robot, family = load_robot("go2"), make_family("moving_bandits", {"ticks": 300})
    made = import_skills(
        [tmp_path / "go2.yaml"],
        "go2",
        family,
        tmp_path / "bundle",
        name="go2",
        decision_ticks=25,
        decision_lead=1,
        facts={"command": "test", "versions": {}, "commit": None},
    )
    assert made.random == pytest.approx(0, abs=1e-5)
    assert made.visited == pytest.approx(0, abs=1e-5)
    assert made.doubts == []
    assert made.bundle.manifest.provenance.config["robot"] == "go2"  # no folder of this machine
    assert made.bundle.manifest.family.parameters == {"ticks": 300}
    (skill,) = load_skills(made.bundle)
    env = TaskVectorEnv(robot, family, groups=1, envs=1, seed=0, noise=False)
    seen, _ = env.reset()
    for _ in range(200):
        action = skill(seen)
        np.testing.assert_allclose(action, infer(inputs(env.interface, seen, AHEAD)), atol=1e-5)
        seen, *_ = env.step(action)
    fields = env.world.true_state()
    assert fields["position"][0, 0] > 2.0  # m in 4 s, from a crouch
    assert not leans(fields["orientation"], FALLEN).any()


def test_a_policy_that_throws_the_robot_over_is_refused(tmp_path, monkeypatch):
    """The family ends the episode at the limit of the lean, and the simulation begins anew."""
    monkeypatch.setattr(importer, "ENVS", 2)
    data = yaml.safe_load(POLICY.with_name("go2_velocity.yaml").read_text())
    data |= {"policy": str(POLICY), "skills": {"ahead": data["skills"]["ahead"]}}
    data["action"]["scale"] = [-3 * scale for scale in data["action"]["scale"]]
    (tmp_path / "go2.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(UserError, match="skill 'ahead' does not keep the robot within its limits"):
        import_skills(
            [tmp_path / "go2.yaml"],
            "go2",
            make_family("two_targets"),
            tmp_path / "bundle",
            name="go2",
            decision_ticks=25,
            decision_lead=1,
            facts={"command": "test", "versions": {}, "commit": None},
        )
