"""Velocity commands: what is told, what counts as done, and how the settings name it."""

import numpy as np
import pytest

from policies.mlsh.config import config_from_dict, config_to_dict
from policies.mlsh.presets import default_config
from sim.envs.vec_env import TaskVectorEnv
from sim.envs.world import World
from sim.errors import UserError
from sim.physics.robot_model import load_robot
from sim.tasks.registry import make_family
from sim.tasks.velocity_commands import WALKING, VelocityCommands

GO2, DT = load_robot("go2"), 0.02
ALL = VelocityCommands(commands=7)
UPRIGHT, LEANS = (1.0, 0, 0, 0), (np.cos(0.6), np.sin(0.6), 0, 0)  # 1.2 rad


def drawn(family, task=0, size=1):
    rows = [family.reset(task, np.random.default_rng(i)) for i in range(size)]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def moved(family, layout, velocity, ticks, quaternion=UPRIGHT, push=0.0):
    """The layout after ticks with a velocity (3,) in the robot's frame, and the last fields."""
    for _ in range(ticks):
        x, y, heading = layout["before"][0]
        ahead, left, turn = velocity
        heading += turn * DT  # it turns, then goes where it looks
        cos, sin = np.cos(heading), np.sin(heading)
        x, y = x + (cos * ahead - sin * left) * DT, y + (sin * ahead + cos * left) * DT
        half, leaning = heading / 2, np.asarray(quaternion)
        # The heading, then the leaning: z * q
        w, i, j, k = leaning
        whole = (
            np.cos(half) * w - np.sin(half) * k,
            np.cos(half) * i - np.sin(half) * j,
            np.cos(half) * j + np.sin(half) * i,
            np.cos(half) * k + np.sin(half) * w,
        )
        fields = {"position": np.array([[x, y]]), "orientation": np.array([whole])}
        layout = {**layout, **family.advance(layout, fields, DT)}
    return layout, {**fields, "base": np.array([[push]])}


# Commands ---------------------------------------------------------------------------------------


def test_commands_are_the_directions_at_their_speeds():
    family = VelocityCommands(commands=7, ahead=0.9, back=0.3, aside=0.2, turn=1.5)
    given = [family.reset(task, np.random.default_rng(0))["given"] for task in range(7)]
    told = dict(zip(family.tasks, given, strict=True))
    np.testing.assert_allclose(told["ahead"], [0.9, 0, 0])
    np.testing.assert_allclose(told["back"], [-0.3, 0, 0])
    np.testing.assert_allclose(told["left"], [0, 0.2, 0])
    np.testing.assert_allclose(told["right"], [0, -0.2, 0])
    np.testing.assert_allclose(told["turn_left"], [0, 0, 1.5])
    np.testing.assert_allclose(told["turn_right"], [0, 0, -1.5])
    np.testing.assert_allclose(told["stand"], 0)
    assert VelocityCommands().tasks == ("ahead", "back", "turn_left", "turn_right", "stand")


def test_a_spread_draws_weaker_commands():
    layout = drawn(VelocityCommands(spread=0.5), size=200)
    ahead = layout["given"][:, 0]
    assert 0.4 <= ahead.min() < 0.45
    assert 0.75 < ahead.max() <= 0.8
    np.testing.assert_array_equal(layout["given"][:, 1:], 0)


def test_policies_see_the_command_only_where_it_is_shown():
    rng = np.random.default_rng(0)
    seen = {}
    for shown in (False, True):
        family = VelocityCommands(shown=shown, ticks=20)
        env = TaskVectorEnv(GO2, family, groups=2, envs=1, tasks=[0, 3], noise=False)
        env.reset()
        seen[shown], *_ = env.step(rng.normal(0, 0, (2, 12)).astype(np.float32))
    assert seen[True].shape[1] == seen[False].shape[1] + 3
    slices = env.interface.observation_slices
    np.testing.assert_allclose(seen[True][:, slices["velocity_command"]], [[0.8, 0], [0, 0]])
    np.testing.assert_allclose(seen[True][:, slices["turn_command"]], [[0], [-1]])
    ros = env.interface.observation[-1].ros
    assert (ros.topic, ros.type) == ("velocity_command", "geometry_msgs/msg/TwistStamped")


# Success ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", range(7))
@pytest.mark.parametrize(
    ("off", "solved"),
    [
        ((0, 0, 0), True),
        ((0.06, 0.06, 0), True),  # 0.085 m/s
        ((0.08, 0.08, 0), False),  # 0.113 m/s
        ((0, 0, 0.14), True),
        ((0, 0, -0.16), False),
    ],
)
def test_it_is_solved_by_the_mean_velocity_after_the_first_second(task, off, solved):
    layout = drawn(ALL, task)
    told = layout["given"][0]
    # In the first second anything may happen.
    layout, _ = moved(ALL, layout, (3, -3, 3), 50)
    np.testing.assert_array_equal(layout["judged"], 0)
    layout, fields = moved(ALL, layout, told + off, 100)
    np.testing.assert_allclose(ALL.mean_error(layout), [off], atol=1e-6)
    assert ALL.success(layout, fields)[0] == solved
    # Twice as fast for as long as too slow is right in the mean.
    layout, _ = moved(ALL, layout, told - off, 100)
    np.testing.assert_allclose(ALL.mean_error(layout), 0, atol=1e-6)


def test_a_robot_that_leans_or_whose_base_touches_something_has_fallen():
    for quaternion, push, fallen in ((UPRIGHT, 0, 0), (LEANS, 0, 1), (UPRIGHT, 9, 1)):
        layout, fields = moved(ALL, drawn(ALL, 4), (0, 0, 0), 100, quaternion, push)
        assert ALL.terminated(layout, fields)[0] == bool(fallen)
        assert ALL.success(layout, fields)[0] == (not fallen)
    assert not ALL.success(drawn(ALL, 4), fields)[0]  # before anything is judged


def test_a_go2_on_its_back_has_fallen_and_one_at_rest_has_not():
    world = World(GO2, make_family("velocity_commands"), 2)
    rngs = [np.random.default_rng(i) for i in range(2)]
    world.reset(np.arange(2, dtype=np.int32), [4, 4], rngs)
    world.physics.batch.qpos[1, 2] = 0.06
    world.physics.batch.qpos[1, 3:7] = 0, 1, 0, 0
    ended = np.zeros(2, bool)
    for _ in range(25):
        ended |= world.step_command(np.tile(GO2.interface.safe_command, (2, 1)))[1].terminated
    np.testing.assert_array_equal(ended, [False, True])


# Returns ----------------------------------------------------------------------------------------


def test_the_optimum_is_that_of_exact_tracking_and_one_command_for_all_is_worse():
    kernels = {"track_velocity": {"sigma": 0.25}, "track_yaw_rate": {"sigma": 0.5}}
    fine = {"track_velocity_fine": 0, "track_yaw_rate_fine": 0}
    fine |= {"speed_along_command": 0, "turn_along_command": 0}
    family = make_family("velocity_commands", {"ticks": 100, "rewards": {**kernels, **fine}})
    for task in range(5):
        assert family.estimate(task, DT)[1] == pytest.approx(200)
    # Standing where 0.8 m/s, 0.5 m/s or 1 rad/s are told: exp(-0.64 / 0.25) and so on.
    low = [family.estimate(task, DT)[0] for task in range(5)]
    ahead, back, turning = 1 + np.exp(-2.56), 1 + np.exp(-1.0), 1 + np.exp(-2.0)
    np.testing.assert_allclose(low, [100 * x for x in (ahead, back, turning, turning, 2)])
    # Of the weights that ship, 2.0 is of the speed along a command to walk, 1.0 of one to turn.
    assert VelocityCommands(ticks=100).estimate(0, DT)[1] == pytest.approx(475)
    assert VelocityCommands(ticks=100).estimate(2, DT)[1] == pytest.approx(375)
    assert VelocityCommands(ticks=100).estimate(4, DT)[1] == pytest.approx(275)
    rewards = {**kernels, **fine, "speed_along_command": {"weight": 10, "enough": 1}}
    paid = make_family("velocity_commands", {"ticks": 100, "rewards": rewards})
    assert paid.estimate(1, DT)[1] == pytest.approx(200 + 1000)


# Settings ---------------------------------------------------------------------------------------


def test_weights_are_settings_and_come_back_from_a_file():
    config = default_config("velocity_commands", "go2").with_values(
        [
            "family_parameters.rewards.torque=-0.1",
            "family_parameters.rewards.track_velocity.sigma=0.1",
            "family_parameters.commands=3",
        ]
    )
    assert config_from_dict(config_to_dict(config), "config") == config
    family = make_family(config.family, config.family_parameters)
    changed, ours = family.rewards.to_dict(), WALKING.to_dict()
    assert changed.pop("torque") == {"weight": -0.1}
    assert changed.pop("track_velocity") == {**ours["track_velocity"], "sigma": 0.1}
    assert changed == {k: v for k, v in ours.items() if k not in ("torque", "track_velocity")}
    assert len(family.tasks) == 3
    whole = config.with_values(["family_parameters.rewards={pose: 0}"])
    assert whole.family_parameters["rewards"] == {"pose": 0}


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("rewards.torqe=-1", "rewards: no reward term 'torqe'. Did you mean 'torque'?"),
        ("rewards.torque.share=1", "torque: no parameter 'share'. Valid: weight"),
        ("rewards=3", "rewards: 3 is no mapping of reward terms to weights"),
        ("commands=8", "commands: input should be less than or equal to 7"),
        ("spread=2", "spread: input should be less than or equal to 1"),
    ],
)
def test_what_the_family_does_not_know_is_refused(setting, said):
    config = default_config("velocity_commands", "go2")
    config = config.with_values([f"family_parameters.{setting}"])
    with pytest.raises(UserError) as caught:
        make_family(config.family, config.family_parameters)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).count("rewards:") <= 1  # where it stands is said once


def test_a_weight_is_a_number():
    config = default_config("velocity_commands", "go2")
    with pytest.raises(UserError, match=r"rewards\.torque: a number is expected"):
        config.with_values(["family_parameters.rewards.torque=much"])
    with pytest.raises(UserError, match="a number is expected, got True"):
        config.with_values(["family_parameters.rewards.torque.weight=true"])
