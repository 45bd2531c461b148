"""A published walking policy of the Go2 becomes skills of the robot `go2`, and walks."""

import numpy as np
import pytest

from policies.bundle.bundle import load_bundle
from policies.bundle.runtime import TOLERANCE, load_skills
from policies.skill_import import importer, trial
from sim.envs.vec_env import TaskVectorEnv
from sim.errors import UserError
from sim.interface.memory import ObservationMemory
from sim.physics.robot_model import load_robot
from sim.tasks.registry import make_family
from sim.tasks.running import leans
from tests.support.go2 import DEFAULT, FALLEN, JOINTS, import_ahead, infer, inputs

AHEAD = (0.8, 0.0, 0.0)


def test_the_imported_policy_walks_and_is_the_policy_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(trial, "ENVS", 2)
    monkeypatch.setattr(importer, "RANDOM_ROWS", 500)
    robot, family = load_robot("go2"), make_family("two_targets", {"ticks": 300})
    made = import_ahead(tmp_path, settings=["family_parameters.ticks=300"])
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


# The shipped skills against the policy, whose inputs are made here of raw measurements ---------

SHIPPED = load_bundle("go2_walk")
COMMANDS = [SHIPPED.manifest.imported[name].constants for name in SHIPPED.manifest.skills]


def gravity_in_base(quaternion):
    """(n, 3) the direction of gravity in the base's frame, for unit quaternions (n, 4) w, x, y, z.

    The base's axes seen from the world are the columns of its rotation matrix; gravity is the
    world's -z, so that it has minus the matrix's last row in the base's frame.
    """
    w, x, y, z = np.transpose(quaternion)
    return -np.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], axis=1)


def policy_inputs(quaternion, angular_velocity, position, velocity, last, command):
    """(n, 45) as its publisher describes them: rad, rad/s, joints in the order of `JOINTS`."""
    return np.concatenate(
        [
            0.25 * angular_velocity,
            gravity_in_base(quaternion),
            np.broadcast_to(command, (len(last), 3)),
            position - DEFAULT,
            0.05 * velocity,
            last,
        ],
        axis=1,
    )


def worst_difference(skills, seen, *measured):
    """Largest of all skills, of actions (n, 12), relative to those that are larger than 1."""
    worst = 0.0
    for skill, constants in zip(skills, COMMANDS, strict=True):
        expected = infer(policy_inputs(*measured, constants["velocity_command"]))
        error = np.abs(skill(seen) - expected) / np.maximum(1, np.abs(expected))
        worst = max(worst, float(error.max()))
    return worst


def random_measurements(spread):
    """Measurements of 10,000 rows, joints around the default pose, and the skills' observation.

    Args:
        spread: of the joints, rad.
    """
    interface, rng, rows = SHIPPED.interface, np.random.default_rng(0), 10_000
    quaternion = rng.standard_normal((rows, 4))
    quaternion /= np.linalg.norm(quaternion, axis=1, keepdims=True)
    angular_velocity = 2 * rng.standard_normal((rows, 3))
    position = DEFAULT + spread * rng.standard_normal((rows, 12))
    velocity = 5 * rng.standard_normal((rows, 12))
    last = 2 * rng.standard_normal((rows, 12)).astype(np.float32)
    fields = {t.name: rng.standard_normal((rows, t.size)) for t in interface.observation}
    fields |= {name: quaternion for name in ("orientation", "projected_gravity", "tilt")}
    fields |= {"angular_velocity": angular_velocity}
    fields |= {"joint_position": position, "joint_velocity": velocity}
    memory = ObservationMemory(interface, (rows,))
    memory.remember(np.zeros((rows, interface.observation_size), np.float32), last)
    seen = interface.observe(fields, memory=memory)
    return seen, (quaternion, angular_velocity, position, velocity, last)


def test_the_shipped_skills_are_the_policy_on_ten_thousand_random_measurements():
    """10,000 of each skill; joints around the default pose by 0.2 rad, any orientation."""
    seen, measured = random_measurements(0.2)
    worst = worst_difference(load_skills(SHIPPED), seen, *measured)
    print(f"random measurements: largest difference {worst:.1e}")
    assert worst <= TOLERANCE == 1e-5


def test_far_from_the_default_pose_the_difference_is_rounding():
    """By 1 rad it is no larger than what the last place of each input changes in the policy."""
    seen, measured = random_measurements(1.0)
    worst = worst_difference(load_skills(SHIPPED), seen, *measured)
    rows = policy_inputs(*measured, AHEAD).astype(np.float32)
    signs = np.random.default_rng(1).choice([-np.inf, np.inf], rows.shape).astype(np.float32)
    output, changed = infer(rows), infer(np.nextafter(rows, signs))
    largest = float(np.abs(output).max())
    rounding = float((np.abs(changed - output) / np.maximum(1, np.abs(output))).max())
    print(
        f"by 1 rad: largest difference {worst:.1e}, largest output {largest:.0f}; the policy "
        f"changes by {rounding:.1e} where each input changes in the last place"
    )
    assert worst <= 2 * rounding


def test_the_shipped_skills_are_the_policy_in_ten_thousand_visited_states():
    """50 robots for 210 ticks, which change their skill twice a second; all skills in each state.

    Measurements are read from the state of the simulation, by the names of the model's joints.
    Actions have noise, so that robots with one skill do not do the same.
    """
    skills, rng, robots, ticks = load_skills(SHIPPED), np.random.default_rng(0), 50, 210
    env = TaskVectorEnv(
        load_robot("go2"), make_family("two_targets"), groups=1, envs=robots, seed=0, noise=False
    )
    shown, _ = env.reset()
    physics = env.world.physics
    joints = [physics.model.joint(name) for name in JOINTS]
    qpos, qvel = ([int(getattr(j, at)[0]) for j in joints] for at in ("qposadr", "dofadr"))
    last, states = np.zeros((robots, 12)), []
    for tick in range(ticks):
        if tick % 25 == 0:
            running = rng.integers(len(skills), size=robots)
        position, velocity = physics.batch.qpos.copy(), physics.batch.qvel.copy()
        measured = (position[:, 3:7], velocity[:, 3:6], position[:, qpos], velocity[:, qvel], last)
        states.append((shown.copy(), *measured))
        actions = np.stack([skill(shown) for skill in skills])
        last = actions[running, np.arange(robots)]
        last = last + 0.1 * rng.standard_normal((robots, 12)).astype(np.float32)
        shown, _, terminated, truncated, _ = env.step(last)
        assert not (terminated | truncated).any()
    seen, *measured = (np.concatenate(each) for each in zip(*states, strict=True))
    assert len(np.unique(measured[2], axis=0)) >= 10_000
    worst = worst_difference(skills, seen, *measured)
    print(f"visited states: largest difference {worst:.1e}, {len(seen):,} rows")
    assert worst <= TOLERANCE


def test_a_policy_that_throws_the_robot_over_is_refused(tmp_path, monkeypatch):
    """The family ends the episode at the limit of the lean, and the simulation begins anew."""
    monkeypatch.setattr(trial, "ENVS", 2)

    def thrice_and_back(data):
        data["action"]["scale"] = [-3 * scale for scale in data["action"]["scale"]]

    with pytest.raises(
        UserError, match="skill 'ahead': 2 of 2 simulated robots leave their limits"
    ):
        import_ahead(tmp_path, thrice_and_back)
