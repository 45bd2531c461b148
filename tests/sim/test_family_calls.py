"""What a user's task family does wrong is named with its method, wherever it is called."""

from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest

from sim.envs.reference_returns import compute_reference_returns
from sim.envs.world import World
from sim.errors import UserError
from sim.physics.robot_model import load_robot
from sim.rendering.scene import EpisodeReplay, Frame, SceneRenderer
from sim.seeding import episode_rng
from sim.tasks import registry
from sim.tasks.family_calls import FamilyCalls
from sim.tasks.registry import make_family, use_family
from tests.support.own_family import WHOLE_FAMILY, write_family


@pytest.fixture(autouse=True)
def forgotten():
    """No family of a test stays."""
    with mock.patch.dict(registry._LOADED):
        yield


# A family that draws, rewards and ends ----------------------------------------------------------

REWARD = 'return layout["sign"] * fields["position"][:, 0]'
WRONG_RESULTS = {
    "raises": (REWARD, 'return fields["speed"]', "reward: KeyError: 'speed' ({file}, line 36)"),
    "scalar": (REWARD, "return 1.0", "reward: the shape is (), not (2,)"),
    "column": (REWARD, "return np.ones((2, 1))", "reward: the shape is (2, 1), not (2,)"),
    "nan": (REWARD, "return np.array([0.0, np.nan])", "reward: nan is not finite"),
    "text": (REWARD, 'return "much"', "reward: 'much' is no array of numbers"),
    "flags": (
        'np.zeros(len(layout["sign"]), bool)',
        'np.zeros(len(layout["sign"]))',
        "terminated: array([0., 0.]) is not of true and false",
    ),
    "success": ("return self.reward(layout, fields) > 0", "return [True]", "the shape is (1,)"),
    "row": ("np.float64(2 * task - 1)", "np.float64(np.inf)", "reset: 'sign': inf is not finite"),
    "shapes": (
        "np.float64(2 * task - 1)",
        "np.zeros(1 + task)",
        "reset: 'sign': the shape is (2,), not (1,)",
    ),
    "rows": ('{"sign": np.float64(2 * task - 1)}', "None", "reset: None is no mapping of names"),
    "fields": ("def fields(self, layout, robot):\n        return {}", "def fields(self, l, r):\n"
               "        return None", "fields: None is no mapping of terms to values"),
    "other rows": (
        '{"sign": np.float64(2 * task - 1)}',
        '{"sign": np.float64(1)} | ({"late": np.float64(1)} if task else {})',
        "reset: 'late' is not drawn in every episode",
    ),
    "ragged": ("np.float64(2 * task - 1)", "[[1.0], [1.0, 2.0]]", "reset: 'sign': [[1.0], "),
    "start": ("places: ClassVar[bool] = False", "places: ClassVar[bool] = True",
              "reset: 'start' (x, y, heading) is missing; has ['sign']"),
    "other field": ("def fields(self, layout, robot):\n        return {}",
                    "def fields(self, layout, robot):\n        return dict(robot)",
                    "fields: 'position' is no term of it; terms: []"),
    "scene": ("        pass", "        spec.frobnicate()", "scene: AttributeError: "),
}  # fmt: skip


def simulate(name):
    """A tick of two simulations, one of each task."""
    world = World(load_robot("omni"), make_family(name), 2)
    world.reset(np.arange(2, dtype=np.int32), [0, 1], [np.random.default_rng(0)] * 2)
    fields, _ = world.step(np.zeros((2, 2), np.float32))
    return world.success(fields)


@pytest.mark.parametrize("name", WRONG_RESULTS)
def test_a_wrong_result_of_a_method_is_named(tmp_path, name):
    old, new, said = WRONG_RESULTS[name]
    path = write_family(tmp_path / "stay.py", (old, new))
    use_family(str(path))
    with pytest.raises(UserError) as caught:
        simulate("stay")
    assert str(caught.value).startswith("task family 'stay': ")
    assert said.format(file=path) in str(caught.value)


def test_lists_are_as_good_as_arrays(tmp_path):
    reward = "return [float(x) for x in layout['sign']]"
    success = "return [bool(x > 0) for x in layout['sign']]"
    changes = (REWARD, reward), ("return self.reward(layout, fields) > 0", success)
    use_family(str(write_family(tmp_path / "stay.py", *changes)))
    np.testing.assert_array_equal(simulate("stay"), [False, True])


@pytest.mark.parametrize(
    ("inf_values", "row", "said"),
    [
        (None, [1.0, 2.0], None),
        ("REP-117", [1.0, np.inf], None),
        (None, [1.0, np.inf], "inf is not finite"),
        ("REP-117", [1.0, np.nan], "nan is not finite"),
    ],
)
def test_infinity_is_a_value_where_a_term_says_so(inf_values, row, said):
    term = SimpleNamespace(name="rays", size=2, inf_values=inf_values)
    family = SimpleNamespace(name="mine", terms=(term,), fields=lambda *_: {"rays": [row, row]})
    calls, robot = FamilyCalls(family), {"position": np.zeros((2, 2))}
    if said is None:
        np.testing.assert_array_equal(calls.fields({}, robot)["rays"], [row, row])
    else:
        with pytest.raises(UserError, match=f"task family 'mine': fields: term 'rays': {said}"):
            calls.fields({}, robot)


@pytest.mark.parametrize("returns", ["0.0, np.nan", "None", "1.0"])
def test_a_wrong_estimate_is_named(tmp_path, returns):
    change = "return 0.0, self.ticks * 0.3", f"return {returns}"
    use_family(str(write_family(tmp_path / "stay.py", change)))
    with pytest.raises(UserError, match=r"^task family 'stay': estimate: "):
        compute_reference_returns(load_robot("omni"), make_family("stay"), 0, episodes=1)


# A family that has everything -------------------------------------------------------------------


def use_all(name):
    """Calls every method of a family; distances (2,) and rewards (2,) after a tick."""
    robot, family = load_robot("omni"), make_family(name)
    world = World(robot, family, 2)
    world.reset(np.arange(2, dtype=np.int32), [0, 1], [episode_rng(0, n) for n in range(2)])
    fields, result = world.step(np.ones((2, 2), np.float32))
    world.success(fields)
    compute_reference_returns(robot, family, 0, episodes=2)
    layout = world.calls.layout(0, episode_rng(0, 0))
    frame = Frame({key: value[0] for key, value in fields.items()}, "", (0.0, 0.0, 0.0))
    scene = EpisodeReplay(family, "", layout, [frame])
    renderer = SceneRenderer(robot, family)
    renderer.pose(frame, layout)
    renderer.view(scene)
    assert scene.target is not None
    return np.linalg.norm(fields["position"] - world.layout["goal"], axis=1), result.reward


def test_a_correct_family_with_all_methods_passes(tmp_path):
    assert use_family(str(write_family(tmp_path / "own.py", text=WHOLE_FAMILY))) == "approach"
    away, reward = use_all("approach")
    # The distance from the goal, which is the shortest so far. The rate limit lets an action reach
    # half of its limit in a tick: it costs 0.01 * (0.5**2 + 0.5**2).
    np.testing.assert_allclose(reward, -away - 0.005)


GOAL = 'return {"goal": layout["goal"]}'
TERM = 'return {"goal": layout["goal"] - robot["position"]}'
NEAREST = 'return {"nearest": np.minimum(layout["nearest"], self.away(layout, fields))}'
COST = "return 0.01 * (action**2).sum(axis=1)"
TARGET, EXPERT = 'return layout["goal"]\n', 'return layout["goal"] + 0.0'
BLIND = 'return np.zeros_like(layout["goal"])'
WRONG_IN_ALL = {
    "advance: name": (NEAREST, "return {'best': 1.0}", "'best' is not in the layout: ['goal', "),
    "advance: shape": (NEAREST, "return {'nearest': 1.0}", "'nearest': the shape is (), not (2,)"),
    "advance: nan": (NEAREST, "return {'nearest': [0.0, np.nan]}", "'nearest': nan is not finite"),
    "advance: list": (NEAREST, "return [1.0]", "[1.0] is no mapping of names to values"),
    "advance: raises": (NEAREST, "return self.nothing", "AttributeError: "),
    "cost: shape": (COST, "return 0.01", "the shape is (), not (2,)"),
    "cost: nan": (COST, "return np.full(len(action), np.nan)", "nan is not finite"),
    "cost: raises": (COST, "return action['x']", "IndexError: "),
    "fields: missing": (TERM, "return {}", "term 'goal' is missing; has []"),
    "fields: size": (
        TERM,
        'return {"goal": np.zeros((2, 3))}',
        "term 'goal': the shape is (2, 3), not (2, 2)",
    ),
    "place: name": (
        GOAL,
        'return {"gaol": layout["goal"]}',
        "no mocap body 'gaol'. Did you mean 'goal'? Valid: goal",
    ),
    "place: fixed": (
        GOAL,
        'return {"base_link": layout["goal"]}',
        "no mocap body 'base_link'. Valid: goal",
    ),
    "place: shape": (
        GOAL,
        'return {"goal": layout["start"][:, 0]}',
        "'goal': the shape is (2,), not (2, 2) or (2, 3)",
    ),
    "place: width": (GOAL, 'return {"goal": np.zeros((2, 4))}', "'goal': the shape is (2, 4), "),
    "place: list": (GOAL, 'return [layout["goal"]]', "is no mapping of bodies to poses"),
    "target: shape": (TARGET, "return np.zeros(2)\n", "the shape is (2,), not (1, 2) or (1, 3)"),
    "target: raises": (TARGET, 'return layout["gaol"]\n', "KeyError: 'gaol' ({file}, line "),
    "expert_target: shape": (EXPERT, "return np.zeros(2)", "the shape is (2,), not (2, 2)"),
    "expert_target: raises": (EXPERT, "return fields['x']", "KeyError: 'x' ({file}, line "),
    "task_blind_target: nan": (BLIND, "return layout['goal'] * np.nan", "nan is not finite"),
}


@pytest.mark.parametrize("name", WRONG_IN_ALL)
def test_a_wrong_result_is_named_wherever_the_method_is_called(tmp_path, name):
    old, new, said = WRONG_IN_ALL[name]
    path = write_family(tmp_path / "own.py", (old, new), text=WHOLE_FAMILY)
    use_family(str(path))
    with pytest.raises(UserError) as caught:
        use_all("approach")
    method = name.partition(":")[0]
    assert str(caught.value).startswith(f"task family 'approach': {method}: ")
    assert said.format(file=path) in str(caught.value)


def test_a_place_that_the_scene_does_not_have_at_all(tmp_path):
    change = 'add_disc(spec, "goal", self.radius, GOAL_COLOR)', "pass"
    use_family(str(write_family(tmp_path / "own.py", change, text=WHOLE_FAMILY)))
    with pytest.raises(UserError, match=r"place: no mocap body 'goal'. Valid: none$"):
        use_all("approach")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("shake: ClassVar[float] = 0.0", 'shake = "much"'), "`shake` is 'much'; rad, 0 or more"),
        (("pose_reset: ClassVar[int] = 7", "pose_reset = -1"), "`pose_reset` is -1; a number of"),
    ],
)
def test_a_wrong_pose_reset_is_refused(tmp_path, change, said):
    with pytest.raises(UserError, match=said):
        use_family(str(write_family(tmp_path / "own.py", change, text=WHOLE_FAMILY)))


def test_a_property_that_is_wrong_with_some_parameters_only(tmp_path):
    change = "return (family_term(", "return (1,) if self.radius > 1 else (family_term("
    use_family(str(write_family(tmp_path / "own.py", change, text=WHOLE_FAMILY)))
    make_family("approach")
    with pytest.raises(UserError, match=r"^task family 'approach': `terms` is \(1,\); a tuple of"):
        make_family("approach", {"radius": 2.0})
