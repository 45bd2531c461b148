"""Privileged values: seen by the skills' value functions, and never outside of the training."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from policies.bundle.bundle import load_bundle
from policies.bundle.onnx_reader import read_graph
from policies.mlsh.config_checks import check_names
from policies.mlsh.losses import value_sums
from policies.mlsh.mlsh import Mlsh
from policies.mlsh.ppo import ppo_update
from policies.training.export_run import export_run
from policies.training.finetune import finetune
from policies.training.run import create_run, environment
from policies.training.train import train
from policies.training.trained_with import trained_now
from sim.envs.vec_env import TaskVectorEnv
from sim.errors import UserError
from sim.physics.robot_model import load_robot
from sim.randomization.schema import sim_params_from_dict
from sim.robot_setup.validation import find_errors
from sim.tasks.registry import make_family
from sim.tasks.task_id import TaskId
from tests.support.bundles import changed_robot, small_config
from tests.support.learners import PPO, by_torch, draw, level, rng, shuffle

NAMES = ("wanted", "position", "speed", "sim_params")
TERMS = """
  - name: wanted
    size: 2
    unit: m/s
    frame: base_link
    scale: 3.0
    clip: null
    noise: 0.5
    max_age: 0.3
    limit: null
    inf_values: null
    policy_input: false
    mujoco: {qvel: [slide_x, slide_y]}
    ros:
      topic: estimate
      type: nav_msgs/msg/Odometry
      fields: [twist.twist.linear.x, twist.twist.linear.y]
      required_values: {}

action:
"""
SIGNALS = """
signals:
  - {name: speed, quantity: linear_velocity, of: body, names: [base_link]}
  - {name: place, quantity: position, of: geom, names: [nose]}

action:
"""
RANGES = sim_params_from_dict(
    {"physics": {"mass_factor": [0.5, 2.0]}, "sensors": {"position": {"bias": [-1, 1]}}}, "ranges"
)


@pytest.fixture
def robot(tmp_path) -> str:
    """The omni with a term that policies do not see, and two signals of its own."""
    changes = ("\naction:\n", TERMS), ("\naction:\n", SIGNALS)
    return changed_robot(tmp_path / "robot", "omni", *changes)


def learner(robot, names=NAMES[:3], **changes) -> Mlsh:
    config = small_config(5, robot=robot)
    return Mlsh(replace(config, network=replace(config.network, privileged=names), **changes))


# What is seen -------------------------------------------------------------------------------


def env_of(robot, names=NAMES, **more) -> TaskVectorEnv:
    family = make_family("moving_bandits", {"ticks": 7})
    given = {"groups": 2, "envs": 3, "domain_randomization": RANGES, "privileged": names, **more}
    return TaskVectorEnv(load_robot(robot), family, **given)


def truth(env: TaskVectorEnv) -> np.ndarray:
    """(B, 7) the same but for what was drawn, from the positions and velocities of the joints."""
    physics = env.world.physics
    place, speed = physics._qpos, physics._qvel
    return np.concatenate([speed, place, speed, np.zeros((env.num_envs, 1))], axis=1)


def test_true_values_are_seen_also_of_what_no_policy_observes(robot):
    env = env_of(robot)
    observation, _ = env.reset(seed=3)
    random = np.random.default_rng(0)
    ends = 0
    for _ in range(20):
        known = truth(env)
        assert env.privileged.shape == (6, 2 + 2 + 3 + 3)
        assert env.privileged[:, :7] == pytest.approx(known, abs=1e-6)
        # The observed position has the bias of the episode, the true one has none.
        bias = observation[:, :2] - env.privileged[:, 2:4]
        drawn = env.privileged[:, 7:]
        assert np.ptp(drawn, axis=0).all()  # of every simulation another
        assert bias == pytest.approx(drawn[:, 1:], abs=1e-6)
        assert ((drawn >= [0.5, -1, -1]) & (drawn <= [2, 1, 1])).all()
        before = env.privileged.copy()
        observation, _, _, _, info = env.step(random.uniform(-1, 1, (6, 2)).astype(np.float32))
        if "final_info" in info:
            ends += 1
            rows = info["_final_info"]
            final = info["final_info"]["privileged"][rows]
            # Of the state before the reset: this episode's draw, and a place near the one before.
            assert np.array_equal(final[:, 7:], before[rows, 7:])
            assert np.abs(final[:, 2:4] - before[rows, 2:4]).max() <= 0.1 + 1e-6  # 1 m/s, 0.1 s
            assert not np.array_equal(env.privileged[rows, 7:], before[rows, 7:])
    assert ends == 2


def test_the_simulation_moves_as_without(robot):
    plain, seen = env_of(robot, ()), env_of(robot)
    assert plain.privileged.shape == (6, 0)
    for env in (plain, seen):
        env.reset(seed=3)
    random = np.random.default_rng(0)
    for _ in range(20):
        action = random.uniform(-1, 1, (6, 2)).astype(np.float32)
        for one, other in zip(plain.step(action)[:4], seen.step(action)[:4], strict=True):
            assert np.array_equal(one, other)


def test_contacts_are_of_the_state_that_was_returned():
    robot, family = load_robot("go2"), make_family("ant_movement", {"ticks": 60})
    env = TaskVectorEnv(robot, family, groups=1, envs=2, privileged=("foot_force",))
    rest = np.tile(robot.interface.action_for(robot.interface.safe_command), (2, 1))
    env.reset(seed=0)
    for _ in range(59):
        env.step(rest.astype(np.float32))
    weight = 15.2064 * 9.81
    assert env.privileged.sum(axis=1) == pytest.approx(weight, rel=0.03)
    _, _, _, _, info = env.step(rest.astype(np.float32))
    assert info["_final_info"].all()
    final = info["final_info"]["privileged"]
    assert final.sum(axis=1) == pytest.approx(weight, rel=0.03)
    # Of the next episode, whose joints are shaken, and not what the feet bore before.
    now = env.world.privileged_values()
    assert env.privileged == pytest.approx(now, rel=0.01, abs=0.1)
    assert np.abs(env.privileged - final).max() > 1


# What learns --------------------------------------------------------------------------------


def with_privileged(policies, n, seed=0):
    """Samples whose return is one of three privileged values, and nothing of the observation."""
    hidden = rng(seed).standard_normal((n, 3)).astype(np.float32)
    one = draw(policies, 0, n, reward=lambda o, a: hidden[:, 1], seed=seed)
    return replace(one, privileged=hidden)


def critic(**network):
    return level(count=1, privileged=3, **network)


def test_gradient_of_a_value_function_with_privileged_values_is_torchs():
    policies = critic()
    assert policies.policy.sizes[0] == 4
    assert policies.value.sizes[0] == 4 + 3
    s = with_privileged(policies, 40)
    ours = value_sums(policies.value, 0, s, PPO)
    parameters = torch.from_numpy(policies.value.numpy[0]).clone().requires_grad_()
    seen = np.concatenate([s.obs, s.privileged], axis=1)
    predicted = by_torch(policies.value, 0, seen, parameters)[0][:, 0]
    error = ((predicted - torch.from_numpy(s.target)) ** 2).sum()
    (PPO.value_coefficient * error).backward()
    assert ours.gradient == pytest.approx(parameters.grad.numpy(), rel=1e-3, abs=1e-3)
    assert np.abs(ours.gradient[4 * 8 : 7 * 8]).max() > 1  # also by the privileged weights


def test_a_value_function_learns_what_only_it_sees():
    errors = []
    for policies, blind in ((critic(), False), (level(count=1), True)):
        one = with_privileged(policies, 256)
        one = replace(one, privileged=None) if blind else one
        for update in range(60):
            ppo_update(policies, [one], shuffle(update))
        predicted = policies.values(one.value_obs, np.zeros(256, np.intp))
        errors.append(np.sqrt(((predicted - one.target) ** 2).mean()))
    assert errors[0] < 0.2
    assert errors[1] > 0.8  # the deviation of the target is 1


def test_policies_of_a_training_do_not_see_it(robot):
    # Until a value function has changed a policy, both trainings are the same.
    plain, seen = learner(robot, ()), learner(robot)
    size = plain.env.interface.observation_size
    assert seen.agent.skills.policy.sizes[0] == seen.agent.masters.value.sizes[0] == size
    assert seen.agent.skills.value.sizes[0] == size + 7
    assert np.array_equal(*(each.agent.skills.policy.numpy for each in (plain, seen)))
    one, other = (each.collector.collect(0, ticks=50) for each in (plain, seen))
    for name, value in vars(one).items():
        if value is not None:
            assert np.array_equal(value, getattr(other, name)), name
    assert other.privileged.shape == (51, 8, 7)
    assert other.final_privileged.shape == (8, 7)


def test_a_training_goes_on_to_the_bit(robot):
    whole = learner(robot, NAMES, domain_randomization=True)
    for _ in range(2):
        whole.iterate()
    state = {name: np.array(value) for name, value in whole.state().items()}
    assert state["privileged.mean"].shape == (whole.env.privileged.shape[1],)
    resumed = learner(robot, NAMES, domain_randomization=True)
    resumed.restore(state)
    for each in (whole, resumed):
        each.iterate()
    ends = whole.state(), resumed.state()
    assert ends[0].keys() == ends[1].keys()
    for name, value in ends[0].items():
        assert np.array_equal(value, ends[1][name]), name


def test_a_training_without_has_no_array_of_it(robot):
    assert not [name for name in learner(robot, ()).state() if "privileged" in name]


# What leaves the training -------------------------------------------------------------------


def test_nothing_of_it_is_in_a_bundle(robot, tmp_path, monkeypatch):
    monkeypatch.setattr("policies.training.train.ADAPTATION_UPDATES", 1)
    monkeypatch.setattr("policies.training.adapt.MAX_UPDATE_STEPS", 400)
    config = replace(small_config(5, robot=robot), steps=800)
    for name, privileged in (("plain", ()), ("seen", NAMES[:3])):
        changed = replace(config, network=replace(config.network, privileged=privileged))
        train(create_run(changed, tmp_path / name))
        export_run(tmp_path / name, tmp_path / f"{name}-bundle", name="demo")
    plain, seen = (load_bundle(tmp_path / f"{name}-bundle") for name in ("plain", "seen"))
    assert seen.manifest.interface == plain.manifest.interface
    assert seen.manifest.interface.digest == plain.manifest.interface.digest
    assert seen.files.keys() == plain.files.keys()
    for name, data in seen.files.items():
        if name.endswith(".onnx"):
            shapes = [
                {key: array.shape for key, array in read_graph(each, name).initializers.items()}
                for each in (data, plain.files[name])
            ]
            assert shapes[0] == shapes[1]
    manifest = asdict(seen.manifest)
    assert "speed" in json.dumps([manifest.pop("provenance"), manifest.pop("masters")])  # recipe
    assert "speed" not in json.dumps(manifest)
    more = finetune(
        *(seen, TaskId.parse("moving_bandits/goal-0"), tmp_path / "more"),
        **{"updates": 1, "seed": 0, "name": "new", "learner": "ppo", "robot": robot},
        facts=environment(),
    ).bundle
    assert more.skill_hashes() == seen.skill_hashes()


def test_a_changed_signal_is_another_training(robot, tmp_path):
    config = small_config(robot=robot)
    seen = replace(config, network=replace(config.network, privileged=("speed",)))
    before = trained_now(config), trained_now(seen)
    path = tmp_path / "robot" / "robot.yaml"
    path.write_text(path.read_text().replace("linear_velocity", "position"))
    after = trained_now(config), trained_now(seen)
    assert not before[0].differences(after[0])  # nothing of it was trained with
    assert before[1].differences(after[1]) == [f"signals of robot {robot!r}"]


# What is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("sped",), "no privileged value 'sped'. Did you mean 'speed'? Valid: position, velocity"),
        (("friction",), "wanted, goals, speed, place"),
        (("sim_params",), "'sim_params' is what episodes draw, and domain_randomization is false"),
        (("speed", "speed"), "network.privileged: ['speed', 'speed'] has a name twice"),
    ],
)
def test_names_of_nothing_are_refused(robot, names, said):
    config = small_config(robot=robot)
    config = replace(config, network=replace(config.network, privileged=names))
    for act in (check_names, Mlsh):
        with pytest.raises(UserError) as caught:
            act(config)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("linear_velocity, of: body", "colour, of: body", "signals.0.quantity: input should be "),
        ("names: [nose]", "names: [nosy]", "signal 'place': no geom 'nosy'. Did you mean 'nose'?"),
        ("names: [nose]", "names: []", "signals.1.names"),
        ("quantity: position, of: geom", "quantity: position, of: actuator", "no position of"),
        ("{name: speed,", "{name: speed, unit: m,", "signals.0: no key 'unit'"),
    ],
)
def test_signals_of_a_robot_that_cannot_be_are_refused(robot, tmp_path, old, new, said):
    path = tmp_path / "robot" / "robot.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    (text,) = find_errors(tmp_path / "robot")
    assert said in text
    assert "\n" not in text


def test_a_signal_with_the_name_of_a_term_is_refused(robot, tmp_path):
    path = tmp_path / "robot" / "robot.yaml"
    path.write_text(path.read_text().replace("{name: speed,", "{name: velocity,"))
    with pytest.raises(UserError, match="signal 'velocity' has the name of an observation term"):
        env_of(robot, ("velocity",))
