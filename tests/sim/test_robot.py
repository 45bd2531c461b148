"""Robots: what a robot.yaml may not say, and that the simulation is MuJoCo's own, by name."""

import copy
import shutil
from dataclasses import replace

import mujoco
import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from sim.envs.world import World
from sim.errors import UserError
from sim.interface import interface_from_dict
from sim.physics.batched_physics import BatchedPhysics
from sim.physics.robot_model import ROBOTS, Robot, load_robot, robot_names
from sim.tasks.registry import make_family
from tests.support.robots import ODD_ROBOT, odd_robot


@pytest.fixture
def odd(tmp_path) -> Robot:
    return odd_robot(tmp_path / "odd")


def moving(robot: Robot, size: int = 1) -> World:
    world = World(robot, make_family("moving_bandits"), size)
    rngs = [np.random.default_rng(i) for i in range(size)]
    world.reset(np.arange(size, dtype=np.int32), [0] * size, rngs)
    return world


# What a robot.yaml may not say ------------------------------------------------------------

GONE = object()
NAN, INF = float("nan"), float("inf")
POSITION, DRIVE = ("observation", 1), ("action", 1)
FAN = {"site": "imu", "angle_min": -1.0, "angle_max": 1.0, "range_min": 0.1, "range_max": 3.0}
SCAN = {
    **yaml.safe_load(ODD_ROBOT)["observation"][0],
    "name": "scan",
    "size": 3,
    "inf_values": [0.1, 3.0],
    "mujoco": {"rays": FAN},
    "ros": {
        "topic": "scan",
        "type": "sensor_msgs/msg/LaserScan",
        "fields": ["ranges[0]", "ranges[1]", "ranges[2]"],
        "required_values": {
            "angle_min": -1.0,
            "angle_max": 1.0,
            "angle_increment": 1.0,
            "range_min": 0.1,
            "range_max": 3.0,
        },
    },
}
CORRUPTIONS = [
    # where in the file, what stands there, what the one line must name
    (("schema",), GONE, ["schema is missing; the first line has to be schema: 2"]),
    (("schema",), 3, ["schema 3", "Valid: 2"]),
    (("schema",), 1, ["schema 1, 2 is expected", "mlsh migrate"]),
    (("robot",), GONE, ["robot: field required"]),
    (("robot",), "", ["robot.yaml: robot is empty"]),
    (("robot",), [1], ["robot: ", "got [1]"]),
    (("control_dt",), GONE, ["control_dt: field required"]),
    (("control_dt",), 0, ["control_dt: ", "greater than 0", "got 0"]),
    (("control_dt",), 0.055, ["control_dt 0.055", "multiple of physics_dt 0.01"]),
    (("control_dt",), 0.005, ["control_dt 0.005", "multiple of physics_dt 0.01"]),
    (("physics_dt",), NAN, ["physics_dt: ", "finite", "got nan"]),
    (("physics_dt",), 0.05, ["timestep 0.01", "physics_dt 0.05"]),
    (("color",), "red", ["robot.yaml: no key 'color'. Valid: robot, control_dt, "]),
    (("observation",), [], ["robot.yaml: observation is empty"]),
    (("observation",), "all", ["observation: ", "got 'all'"]),
    (("action",), GONE, ["action: field required"]),
    (("action",), [], ["robot.yaml: action is empty"]),
    ((*POSITION, "unit"), GONE, ["observation.1.unit: field required"]),
    ((*POSITION, "color"), "red", ["observation.1: no key 'color'. Valid: name, size, unit, "]),
    ((*POSITION, "name"), "angle", ["observation term 'angle' is given twice"]),
    ((*POSITION, "size"), 3, ["'position'", "ros.fields has 2 elements, size is 3"]),
    ((*POSITION, "size"), 0, ["observation.1.size: ", "greater than 0", "got 0"]),
    ((*POSITION, "size"), "two", ["observation.1.size: ", "got 'two'"]),
    ((*POSITION, "scale"), INF, ["observation.1.scale: ", "finite", "got inf"]),
    ((*POSITION, "scale"), 0, ["observation.1.scale: 0 would make the term dead"]),
    ((*POSITION, "clip"), [1, 1], ["'position'", "clip (1.0, 1.0) is empty"]),
    ((*POSITION, "clip"), [NAN, 1], ["observation.1.clip.0: ", "finite", "got nan"]),
    ((*POSITION, "clip"), [1], ["observation.1.clip.1: field required"]),
    ((*POSITION, "noise"), -0.1, ["observation.1.noise: ", "got -0.1"]),
    ((*POSITION, "max_age"), 0, ["observation.1.max_age: ", "greater than 0", "got 0"]),
    ((*POSITION, "mujoco"), {}, ["observation.1.mujoco: ", "exactly one", "got none"]),
    ((*POSITION, "mujoco", "sensor"), "angle", ["exactly one", "got ['qpos', 'sensor']"]),
    ((*POSITION, "mujoco"), {"task": "goals"}, ["'position'", "mujoco.task", "task family"]),
    (
        (*POSITION, "mujoco", "qpos"),
        ["x"],
        ["'position'", "mujoco.qpos has 1 elements, size is 2"],
    ),
    (
        (*POSITION, "mujoco", "qpos"),
        ["x", "z"],
        ["'position': mujoco.qpos: no joint 'z'", "Valid: y, x, elbow"],
    ),
    (
        (*POSITION, "mujoco"),
        {"qvel": ["x", "ex"]},
        ["'position': mujoco.qvel: no joint 'ex'", "Did you mean 'x'?"],
    ),
    (
        (*POSITION, "mujoco", "qpos"),
        ["x", "loose"],
        ["'position': mujoco.qpos: joint 'loose' is neither hinge nor slide"],
    ),
    (
        ("observation", 0, "mujoco", "sensor"),
        "angel",
        ["'angle': mujoco.sensor: no sensor 'angel'. Did you mean 'angle'?", "hand, angle, shake"],
    ),
    (
        ("observation", 0, "mujoco", "sensor"),
        "hand",
        ["'angle': mujoco.sensor: sensor 'hand' has 3 elements, size is 1"],
    ),
    (
        (*POSITION, "mujoco", "elements"),
        [0, 1],
        ["elements (0, 1) are of a sensor; qpos has none"],
    ),
    (
        ("observation", 0, "mujoco"),
        {"sensor": "hand", "elements": [3]},
        ["'angle': mujoco.elements: sensor 'hand' has no element 3. Valid: 0 to 2"],
    ),
    (
        ("observation", 0, "mujoco"),
        {"sensor": "hand", "elements": [1, 0]},
        ["'angle'", "mujoco.elements has 2 elements, size is 1"],
    ),
    (
        ("observation", 0, "mujoco"),
        {"rays": FAN},
        ["'angle': mujoco.rays needs inf_values"],
    ),
    (
        ("observation", 0),
        SCAN | {"mujoco": {"rays": FAN | {"site": "lidar"}}},
        ["'scan': mujoco.rays.site: no site 'lidar'", "Valid: imu"],
    ),
    (
        ("observation", 0),
        SCAN | {"mujoco": {"rays": FAN | {"range_max": 5.5}}},
        ["'scan': mujoco.rays has ranges (0.1, 5.5) beyond inf_values (0.1, 3.0)"],
    ),
    (
        ("observation", 0),
        SCAN | {"mujoco": {"rays": FAN | {"range_max": 0.1}}},
        ["range_min .. range_max (0.1, 0.1) is empty"],
    ),
    (
        ("observation", 0),
        SCAN | {"mujoco": {"rays": FAN | {"angle_max": 0.9}}},
        ["'scan': mujoco.rays makes angle_max 0.9, ros.required_values says 1.0"],
    ),
    (
        (*POSITION, "ros", "required_values"),
        GONE,
        ["observation.1.ros.required_values: field required"],
    ),
    ((*POSITION, "ros", "required_values"), [1], ["observation.1.ros.required_values", "got 1"]),
    (
        (*POSITION, "ros", "required_values"),
        {"a": NAN},
        ["observation.1.ros.required_values", "got nan"],
    ),
    ((*POSITION, "ros", "topic"), "/odom", ["topic '/odom' must be relative"]),
    ((*POSITION, "ros", "type"), "Odometry", ["observation.1.ros.type: ", "got 'Odometry'"]),
    ((*POSITION, "ros", "fields"), ["pose.x"], ["'position'", "ros.fields has 1 elements"]),
    ((*DRIVE, "limit"), [0.7, -0.8], ["'drive'", "limit (0.7, -0.8) is empty"]),
    ((*DRIVE, "limit"), [-0.8, INF], ["action.1.limit.1: ", "finite", "got inf"]),
    (
        (*DRIVE, "limit"),
        [-0.85, 0.7],
        ["'drive': mujoco.actuators: limit (-0.85, 0.7)", "ctrlrange (-0.8, 0.9) of 'go_x'"],
    ),
    ((*DRIVE, "scale"), 0.0, ["action.1.scale: 0 would make the term dead"]),
    ((*DRIVE, "offset"), None, ["action.1.offset is empty"]),
    ((*DRIVE, "rate_limit"), 0, ["action.1.rate_limit: ", "greater than 0", "got 0"]),
    (
        (*DRIVE, "safe_command"),
        [0.0, 0.71],
        ["'drive'", "safe_command 0.71 is outside limit (-0.8, 0.7)"],
    ),
    ((*DRIVE, "safe_command"), [0.0], ["'drive'", "safe_command has 1 elements, size is 2"]),
    ((*DRIVE, "safe_command"), [0.0, NAN], ["action.1.safe_command.1: ", "finite", "got nan"]),
    ((*DRIVE, "name"), "arm", ["action term 'arm' is given twice"]),
    (
        (*DRIVE, "mujoco", "actuators"),
        ["go_x", "go_z"],
        ["'drive': mujoco.actuators: no actuator 'go_z'", "Valid: bend, go_y, go_x"],
    ),
    ((*DRIVE, "mujoco", "actuators"), ["go_x", "bend"], ["actuator 'bend' is given twice"]),
    ((*DRIVE, "mujoco", "motors"), [], ["action.1.mujoco: no key 'motors'. Valid: actuators"]),
    ((*DRIVE, "ros", "fields"), ["v", "v"], ["ROS field 'cmd_vel v' is given twice"]),
    # Numbers that would overflow in what is computed from them, and what is no number.
    (("control_dt",), 1e308, ["control_dt: ", "got 1e+308"]),
    (("control_dt",), 60, ["control_dt: ", "less than or equal to 10", "got 60"]),
    (("physics_dt",), 1e-300, ["physics_dt: ", "got 1e-300"]),
    (("control_dt",), True, ["control_dt: a number is expected, got True"]),
    (("control_dt",), "0.1", ["control_dt: a number is expected, got '0.1'"]),
    (("control_dt",), 10**400, ["control_dt: "]),
    ((*POSITION, "size"), 10**9, ["observation.1.size: ", "equal to 10000", "got 1000000000"]),
    ((*POSITION, "size"), True, ["observation.1.size: a number is expected"]),
    ((*POSITION, "scale"), 1e300, ["observation.1.scale: ", "got 1e+300"]),
    ((*POSITION, "scale"), 1e-300, ["observation.1.scale: 1e-300 is too near 0"]),
    ((*POSITION, "noise"), 1e300, ["observation.1.noise: ", "got 1e+300"]),
    ((*POSITION, "clip"), [-1e300, 1], ["observation.1.clip.0: ", "got -1e+300"]),
    ((*DRIVE, "offset"), -1e300, ["action.1.offset: ", "got -1e+300"]),
    ((*DRIVE, "limit"), [-1, 1e300], ["action.1.limit.1: ", "got 1e+300"]),
    ((*DRIVE, "rate_limit"), 1e300, ["action.1.rate_limit: ", "got 1e+300"]),
    # Names that would break a line, a topic or a terminal.
    (("robot",), "omni\nall is well", [r"robot: 'omni\nall is well' is not a name"]),
    (("robot",), "omni\x1b[31m", [r"robot: 'omni\x1b[31m' is not a name"]),
    (("robot",), "<script>", ["robot: '<script>' is not a name"]),
    (("robot",), "../omni", ["robot: '../omni' is not a name"]),
    (("robot",), "a" * 101, ["robot: ", "at most 100 characters"]),
    ((*POSITION, "name"), "pos[0]", ["observation.1.name: 'pos[0]' is not a name"]),
    ((*POSITION, "unit"), "m[/x]", ["observation.1.unit: 'm[/x]' is not a name: a unit"]),
    ((*POSITION, "frame"), "odom\t", [r"observation.1.frame: 'odom\t' is not a name"]),
    ((*POSITION, "mujoco", "qpos"), ["x", "y\n"], [r"mujoco.qpos.1: 'y\n' has characters"]),
    ((*DRIVE, "mujoco", "actuators"), ["\u202ex", "y"], ["actuators.0: ", "has characters"]),
    ((*DRIVE, "ros", "fields"), ["a\x1b", "b"], ["ros.fields.0: ", "has characters"]),
    *(
        ((*DRIVE, "ros", "topic"), name, [f"{name!r} is not a relative topic name"])
        for name in ("a b", "a//b", "a/", "1a", "~/a", "a-b", "a{b}", "caf\xe9")
    ),
    *(
        ((*place, "ros", "topic"), name, [f"topic '{name}' belongs to the nodes themselves"])
        for place in (POSITION, DRIVE)
        for name in (
            "estop",
            "decision/response",
            "skill_node/arm",
            "watchdog_node/state",
            "clock",
        )
    ),
    (
        (*POSITION, "ros", "topic"),
        "cmd_vel",
        ["observation term 'position' reads topic 'cmd_vel', on which the command goes out"],
    ),
]


@pytest.mark.parametrize(
    ("where", "value", "names"),
    CORRUPTIONS,
    ids=[f"{'.'.join(map(str, c[0]))}={c[1] if c[1] is not GONE else ''}" for c in CORRUPTIONS],
)
def test_every_corruption_is_refused_in_one_line(odd, where, value, names):
    path = odd.model_path.with_name("robot.yaml")
    data = copy.deepcopy(yaml.safe_load(ODD_ROBOT))
    place = data
    for key in where[:-1]:
        place = place[key]
    if value is GONE:
        del place[where[-1]]
    else:
        place[where[-1]] = value
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(UserError) as info:
        load_robot(str(path.parent)).compile()
    message = str(info.value)
    assert "\n" not in message
    assert str(path.parent) in message
    assert len(message.replace(str(path.parent), "")) < 350
    for name in names:
        assert name in message


@pytest.mark.parametrize("name", ["left arm/joint[1]", "1", "arm.j1", "Gelenk_\u00fc", "a:b"])
def test_whatever_a_joint_is_called_in_mujoco_may_stand_in_robot_yaml(odd, name):
    data = yaml.safe_load(ODD_ROBOT.replace("[x, y]", f"[{name!r}, y]"))
    del data["schema"]
    assert interface_from_dict(data, "odd").observation[1].mujoco.qpos == (name, "y")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (b"robot: [", ["robot.yaml: not YAML"]),
        (b"- robot", ["robot.yaml: a mapping is expected, got list"]),
        (b"", ["robot.yaml: a mapping is expected, got NoneType"]),
        (b"robot: \xff\xfe", ["robot.yaml: not YAML", "0xff"]),
        (b"schema: 2\nrobot: a\nrobot: b", ["robot.yaml: not YAML: key 'robot' is given twice"]),
        (b"a: &a [*a]", ["robot.yaml: not YAML: nested too deeply"]),
        (
            b"a: &a [x, x, x, x, x, x, x, x]\n"
            + b"".join(
                b"%c: &%c [%s]\n" % (i, i, b", ".join([b"*%c" % (i - 1)] * 8))
                for i in b"bcdefghij"
            ),
            ["robot.yaml: not YAML: more than 10000 values"],
        ),
        (b"[" * 100_000, ["robot.yaml: not YAML: nested too deeply"]),
        (b"{" * 100_000, ["robot.yaml: not YAML: nested too deeply"]),
        (b"#" * 2**21, ["robot.yaml: larger than 262144 bytes"]),
        (b"".join(b"k%d: 1\n" % i for i in range(25_000)), ["more than 10000 values"]),
        (b"schema: 2\nrobot: 2020-01-01\nphysics_dt: 2020-01-01", ["physics_dt", "'2020-01-01'"]),
        (b"schema: 2\nphysics_dt: 2020-13-45", ["physics_dt: a number is", "got '2020-13-45'"]),
        (b"schema: 2\nphysics_dt: 0:0.1", ["physics_dt: a number is expected, got '0:0.1'"]),
        (b"schema: 2\nphysics_dt: " + b"1" * 5000, ["not YAML", "longer than 18 digits"]),
        (b"schema: 2\nphysics_dt: 0x" + b"f" * 5000, ["physics_dt: a number is expected"]),
        (b"schema: 2\nrobot: !!binary gIGC", ["robot.yaml: not YAML: tag 'binary' is not"]),
        (b"schema: 2\nrobot: !!python/name:os.system", ["tag 'python/name:os.system' is not"]),
        (b"schema: 2\n[a]: 1", ["robot.yaml: not YAML: a key is a list or a mapping"]),
    ],
)
def test_what_is_no_robot_file_is_refused_in_one_line(odd, text, names):
    path = odd.model_path.with_name("robot.yaml")
    path.write_bytes(text)
    with pytest.raises(UserError) as info:
        load_robot(str(path.parent))
    assert "\n" not in str(info.value)
    assert len(str(info.value).replace(str(path.parent), "")) < 350
    for name in [str(path), *names]:
        assert name in str(info.value)


@pytest.mark.parametrize("name", ["robot.yaml", "model.xml"])
def test_a_missing_file_is_named(odd, name):
    (odd.model_path.parent / name).unlink()
    with pytest.raises(UserError, match=f"{name} does not exist"):
        load_robot(str(odd.model_path.parent))


def test_a_model_that_does_not_load_is_one_line(odd):
    odd.model_path.write_text("<mujoco>\n<nonsense/>\n</mujoco>")
    with pytest.raises(UserError, match=r"model\.xml: .*nonsense") as info:
        odd.compile()
    assert "\n" not in str(info.value)


def test_an_unknown_robot_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"no robot 'omny'\. Did you mean 'omni'\? Valid: .*omni"):
        load_robot("omny")


def test_a_robot_is_its_two_files_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in robot_names():
        shutil.copytree(ROBOTS / name, tmp_path / "mine" / name)
        for path in (str(tmp_path / "mine" / name), f"mine/{name}"):
            assert load_robot(path).interface == load_robot(name).interface


def test_a_family_needs_its_terms_and_may_not_repeat_them(odd):
    path = odd.model_path.with_name("robot.yaml")
    family = make_family("moving_bandits")
    path.write_text(ODD_ROBOT.replace("name: position", "name: place"))
    without = load_robot(str(path.parent))
    with pytest.raises(
        UserError, match=r"needs the observation term 'position'.*It has: angle, place"
    ):
        World(without, family, 1)
    path.write_text(ODD_ROBOT.replace("name: shake", "name: goals"))
    twice = load_robot(str(path.parent))
    with pytest.raises(UserError, match=r"robot 'odd'.*'goals' is given twice") as info:
        World(twice, family, 1)
    assert "\n" not in str(info.value)


# The simulation is MuJoCo's ---------------------------------------------------------------


def test_fields_are_what_mujoco_says_by_name(odd):
    """Bit for bit a plain mj_step loop with named access, one tick of 5 physics steps."""
    world, model = moving(odd), odd.compile()
    data = mujoco.MjData(model)
    for tick in range(30):
        command = np.array([[0.4 * np.sin(tick), 0.3, -0.2 * np.cos(tick)]])
        fields, _ = world.step_command(command)
        for name, value in zip(("bend", "go_x", "go_y"), command[0], strict=True):
            data.actuator(name).ctrl[0] = value
        for _ in range(5):
            mujoco.mj_step(model, data)
        x, y, elbow = (data.joint(name) for name in ("x", "y", "elbow"))
        np.testing.assert_array_equal(fields["position"][0], [x.qpos[0], y.qpos[0]])
        np.testing.assert_array_equal(fields["rates"][0], [elbow.qvel[0], x.qvel[0]])
        # A sensor is not a physics step late, as it would be after mj_step.
        np.testing.assert_array_equal(fields["angle"][0], elbow.qpos)
        np.testing.assert_array_equal(fields["shake"][0], data.sensor("shake").data)
    assert all(np.abs(value).max() > 0.01 for value in fields.values())


def test_a_tick_has_as_many_steps_as_can_be_simulated():
    omni = load_robot("omni").interface
    most = replace(omni, control_dt=1.0, physics_dt=1e-5)
    assert most.substeps == 100_000
    with pytest.raises(ValidationError, match=r"100,001 steps of .* at most 100,000"):
        replace(most, control_dt=1.00001)


def test_five_substeps_are_a_tick(odd):
    one, two = moving(odd), moving(odd)
    command = np.array([[0.4, 0.3, -0.2]])
    one.physics.step(command)
    for _ in range(5):
        two.physics.substep(command)
    for name, value in one.true_state().items():
        np.testing.assert_array_equal(two.true_state()[name], value)


def test_after_a_reset_sensors_show_the_new_episode(odd):
    world, fresh = moving(odd, 3), moving(odd, 3).true_state()
    np.testing.assert_allclose(fresh["shake"], [[0, 0, 9.81]] * 3, atol=1e-9)  # at rest: gravity
    for _ in range(10):
        last, _ = world.step_command(np.full((3, 3), 0.5))
    world.reset(np.array([1], np.int32), [0], [np.random.default_rng(1)])
    fields = world.true_state()
    for name in ("angle", "shake", "position", "rates"):
        np.testing.assert_array_equal(fields[name][1], fresh[name][1])
        np.testing.assert_array_equal(fields[name][[0, 2]], last[name][[0, 2]])
    assert (last["angle"] > 0.1).all()


def test_only_mujocos_own_resets_count_as_divergence(odd):
    physics = BatchedPhysics(odd.interface, odd.compile(), 3, 1)
    physics.batch.warning[0, int(mujoco.mjtWarning.mjWARN_CONTACTFULL)] = 1
    physics.batch.bind("qvel")[1, 0] = np.inf
    physics.batch.warning[2, int(mujoco.mjtWarning.mjWARN_BADQACC)] = 1
    assert physics.diverged().tolist() == [False, True, True]
    physics.reset(np.array([1, 2], np.int32))
    assert not physics.diverged().any()


def test_a_snapshot_of_another_size_is_refused(odd):
    with pytest.raises(ValueError, match=r"shapes \[\(1, .*, not \[\(2, "):
        moving(odd, 2).restore(moving(odd, 1).snapshot())


# The shipped omni, by hand ----------------------------------------------------------------


def test_omni_reaches_the_speed_where_forces_balance():
    world = moving(load_robot("omni"))
    for _ in range(30):
        world.step_command(np.array([[1.0, -0.5]]))
    # kv (u - v) = d v, so v = kv u / (kv + d) = 300 u / 305 = 0.98361 u
    expected = [[300 / 305, -0.5 * 300 / 305]]
    np.testing.assert_allclose(world.true_state()["velocity"], expected, atol=1e-6)


def test_omni_accelerates_no_faster_than_its_force_allows():
    world = moving(load_robot("omni"))
    speed = [0.0]
    for _ in range(20):
        world.physics.substep(np.array([[1.0, 1.0]]))
        speed.append(float(world.true_state()["velocity"][0, 0]))
    # 80 N / 20 kg = 4 m/s2, in a step of 0.02 s 0.08 m/s; the first is slowed by damping only:
    # implicit, v = 0.08 / (1 + 0.02 * 5 / 20) = 0.0796
    assert np.diff(speed).max() <= 0.08
    assert speed[1] == pytest.approx(0.08 / 1.005)
    # Force limited while 300 (1 - v) > 80, v < 0.733: at least 0.733 / 0.08 = 9.2 steps
    assert speed[9] < 0.733 < speed[11]


def test_omnis_position_is_the_sum_of_its_velocities():
    world = moving(load_robot("omni"))
    total = np.zeros((1, 2))
    for _ in range(50):
        world.physics.substep(np.array([[0.7, -1.0]]))
        total += 0.02 * world.true_state()["velocity"]  # semi-implicit Euler: x += h v(new)
    np.testing.assert_allclose(world.true_state()["position"], total, atol=1e-12)
