"""Elements of an observation that no sensor measures: previous action, constants, history."""

import copy
from dataclasses import replace

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from sim.envs.vec_env import TaskVectorEnv
from sim.errors import UserError
from sim.interface import (
    Constant,
    History,
    Interface,
    ObservationMemory,
    PreviousAction,
    interface_from_dict,
    interface_to_dict,
)
from sim.physics.robot_model import Robot, load_robot
from tests.support.interfaces import odd
from tests.support.touch import Touch

LAST = PreviousAction("last", "previous_action", 0.5, (-1.0, 1.0))
COMMAND = Constant("command", "constant", (0.8, 0.0, -0.25))


def history(name="past", terms=("position", "last"), ticks=3, **changes) -> History:
    plain = {"order": "newest_first", "layout": "by_tick", "start": "first_values"}
    return History(name, "history", terms, ticks, **{**plain, **changes})


def with_memory(*computed) -> Interface:
    return replace(odd(), computed=computed or (LAST, COMMAND, history()))


def fields(rng, *lead) -> dict[str, np.ndarray]:
    return {t.name: rng.normal(size=(*lead, t.size)) for t in odd().observation}


# The vector -------------------------------------------------------------------------------


def test_computed_terms_follow_the_measured_ones():
    made, size = with_memory(), odd().observation_size
    a, width = odd().action_size, 2 + odd().action_size
    assert made.observation_size == size + a + 3 + 3 * width
    assert made.observation_names[: size + 1] == (*odd().observation_names, "last.0")
    assert made.observation_names[-1] == f"past.{3 * width - 1}"
    assert made.observation_slices["command"] == slice(size + a, size + a + 3)
    rng, memory = np.random.default_rng(0), ObservationMemory(made)
    now = fields(rng)
    np.testing.assert_array_equal(made.observe(now, memory=memory)[:size], odd().observe(now))
    np.testing.assert_array_equal(made.measured_only.observe(now), odd().observe(now))


def test_the_previous_action_is_what_the_policy_gave_before_scale_and_limits():
    made = with_memory(LAST)
    memory, now = ObservationMemory(made), fields(np.random.default_rng(0))
    part = made.observation_slices["last"]
    first = made.observe(now, memory=memory)
    np.testing.assert_array_equal(first[part], 0)
    # Far beyond the limits of the command: the policy sees what it gave, clipped by `clip` alone.
    given = np.linspace(-1.5, 90.0, made.action_size, dtype=np.float32)
    assert made.saturated(given).any()
    memory.remember(first, given)
    expected = np.clip(0.5 * given, -1, 1)
    np.testing.assert_array_equal(made.observe(now, memory=memory)[part], expected)
    each = replace(LAST, scale=tuple(range(1, made.action_size + 1)), clip=None)
    shown = with_memory(each).observe(now, memory=memory)[part]
    np.testing.assert_array_equal(shown, given * range(1, made.action_size + 1))


def test_constants_stand_in_every_observation_and_need_no_memory():
    made = with_memory(COMMAND)
    shown = made.observe(fields(np.random.default_rng(0), 4))
    np.testing.assert_array_equal(shown[:, -3:], np.float32([[0.8, 0.0, -0.25]] * 4))


def test_looking_twice_changes_nothing_and_without_a_memory_there_is_no_observation():
    made = with_memory()
    memory, now = ObservationMemory(made), fields(np.random.default_rng(0))
    first = made.observe(now, memory=memory)
    np.testing.assert_array_equal(made.observe(now, memory=memory), first)
    with pytest.raises(ValueError, match="needs the memory of its session"):
        made.observe(now)


@pytest.mark.parametrize("order", ["newest_first", "oldest_first"])
@pytest.mark.parametrize("layout", ["by_tick", "by_term"])
@pytest.mark.parametrize("start", ["first_values", "zeros"])
def test_a_history_is_that_of_the_observations_before(order, layout, start):
    made = with_memory(LAST, history(order=order, layout=layout, start=start))
    at, rng = made.observation_slices, np.random.default_rng(0)
    memory, seen = ObservationMemory(made), []
    for t in range(8):
        shown = made.observe(fields(rng), memory=memory)
        seen.append(shown)
        rows = []
        for lag in (1, 2, 3):
            before = seen[max(t - lag, 0)]
            blank = start == "zeros" and lag > t
            parts = before[at["position"]], before[at["last"]]
            rows.append([np.zeros_like(part) if blank else part for part in parts])
        rows = rows if order == "newest_first" else rows[::-1]
        if layout == "by_tick":
            expected = np.concatenate([np.concatenate(row) for row in rows])
        else:
            expected = np.concatenate([row[i] for i in (0, 1) for row in rows])
        np.testing.assert_array_equal(shown[at["past"]], expected)
        memory.remember(shown, rng.normal(size=made.action_size).astype(np.float32))


@pytest.mark.parametrize("lead", [(1,), (4,), (3, 4)])
def test_many_sessions_at_once_are_each_alone(lead):
    made, rng = with_memory(), np.random.default_rng(0)
    together = ObservationMemory(made, lead)
    alone = [ObservationMemory(made) for _ in range(int(np.prod(lead)))]
    for t in range(6):
        now = fields(rng, *lead)
        shown = made.observe(now, memory=together)
        rows = {name: value.reshape(-1, value.shape[-1]) for name, value in now.items()}
        each = [
            made.observe({n: v[i] for n, v in rows.items()}, memory=memory)
            for i, memory in enumerate(alone)
        ]
        np.testing.assert_array_equal(shown.reshape(len(each), -1), each)
        action = rng.normal(size=(*lead, made.action_size)).astype(np.float32)
        together.remember(shown, action)
        for i, memory in enumerate(alone):
            memory.remember(each[i], action.reshape(len(alone), -1)[i])
        if t == 2:  # other rows go on
            together.reset(np.array([0]))
            for memory in alone[: len(alone) // lead[0]]:
                memory.reset()


# Files ------------------------------------------------------------------------------------


def test_files_without_the_key_have_the_digest_that_they_had():
    data = interface_to_dict(odd())
    assert "computed" not in data
    empty = interface_from_dict({**data, "computed": []}, "x")
    assert (empty, empty.digest) == (odd(), odd().digest)
    assert "computed" not in interface_to_dict(empty)


def test_every_key_is_in_the_file_and_in_the_digest():
    made = with_memory()
    assert interface_from_dict(interface_to_dict(made), "x") == made
    others = [
        replace(LAST, scale=0.25),
        replace(LAST, clip=None),
        replace(LAST, name="other"),
        replace(COMMAND, values=(0.8, 0.0, 0.0)),
        *(history(**{key: value}) for key, value in CHANGES.items()),
    ]
    digests = {with_memory(*_among(other)).digest for other in others}
    assert len(digests) == len(others)
    assert made.digest not in digests


CHANGES = {
    "ticks": 2,
    "terms": ("last", "position"),
    "order": "oldest_first",
    "layout": "by_term",
    "start": "zeros",
}


def _among(other):
    """The three terms with one of them replaced."""
    past = history(terms=("position", other.name)) if other.name == "other" else history()
    plain = (LAST, COMMAND, past)
    return [other if type(term) is type(other) else term for term in plain]


MISTAKES = [
    ({"kind": "future"}, 0, "expected tags: 'previous_action', 'constant', 'history'"),
    ({"scale": 0}, 0, "scale"),
    ({"scale": [1.0, 2.0]}, 0, "term 'last': scale has 2 elements, size is 3"),
    ({"clip": [1.0, -1.0]}, 0, "term 'last': clip (1.0, -1.0) is empty"),
    ({"name": "angle"}, 0, "observation term 'angle' is given twice"),
    ({"values": []}, 1, "values"),
    ({"terms": ["position", "speed"]}, 2, "no term for history 'past': 'speed'. Valid: angle"),
    ({"terms": ["position", "position"]}, 2, "term 'position' is given twice"),
    ({"terms": ["past"]}, 2, "no term for history 'past': 'past'"),
    ({"ticks": 0}, 2, "ticks"),
    ({"ticks": True}, 2, "ticks"),
    ({"order": "newest"}, 2, "'oldest_first' or 'newest_first'"),
    ({"start": "random"}, 2, "'first_values' or 'zeros'"),
    ({"layout": "mixed"}, 2, "'by_term' or 'by_tick'"),
    ({"more": 1}, 2, "more"),
]


@pytest.mark.parametrize(("change", "index", "said"), MISTAKES)
def test_every_mistake_is_refused_and_explained(change, index, said):
    data = copy.deepcopy(interface_to_dict(with_memory()))
    data["computed"][index].update(change)
    with pytest.raises(UserError) as refused:
        interface_from_dict(data, "robot.yaml")
    assert said in str(refused.value)
    assert str(refused.value).startswith("robot.yaml: ")


def test_histories_come_last_and_have_a_bounded_size():
    with pytest.raises(ValueError, match="computed term 'command' stands behind a history"):
        with_memory(history(terms=("position",)), COMMAND)
    with pytest.raises(ValueError, match="history 'past' has 12000 elements, 10000 are possible"):
        with_memory(replace(COMMAND, values=(1.0,) * 12), history(terms=("command",), ticks=1000))


# Training ---------------------------------------------------------------------------------


def remembering() -> Robot:
    plain = load_robot("omni")
    past = history(terms=("position", "last"), ticks=2)
    return replace(plain, interface=replace(plain.interface, computed=(LAST, COMMAND, past)))


def vector(robot=None, **more) -> TaskVectorEnv:
    return TaskVectorEnv(
        robot or remembering(), Touch(half_width=0.8), groups=2, envs=3, seed=4, **more
    )


def drive(env, count=40, seed=0):
    """Yields action, result of the step and rows in which an episode began."""
    rng = np.random.default_rng(seed)
    ended = np.zeros(env.num_envs, bool)
    for _ in range(count):
        action = rng.normal(size=(env.num_envs, env.interface.action_size)).astype(np.float32)
        result = env.step(action)
        done = result[2] | result[3]
        began = ended if env.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP else done
        yield action, result, began
        ended = done


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_every_episode_remembers_itself_alone(mode):
    env = vector(autoreset_mode=mode)
    plain = vector(load_robot("omni"), autoreset_mode=mode)
    interface = env.interface
    size, terms = plain.interface.observation_size, interface.computed_terms
    memory = ObservationMemory(interface, (env.num_envs,))
    shown, (bare, _) = env.reset()[0], plain.reset()
    np.testing.assert_array_equal(shown[:, :size], bare)
    others, begun = drive(plain), 0
    for action, result, began in drive(env):
        memory.remember(shown, action)
        if "final_obs" in result[4]:
            final, ended = result[0].copy(), result[4]["_final_obs"]
            final[ended] = np.stack(result[4]["final_obs"][ended])
            expected = final.copy()
            terms.write(expected, memory)
            np.testing.assert_array_equal(final, expected)
        memory.reset(np.flatnonzero(began))
        shown, begun = result[0], begun + began.sum()
        expected = shown.copy()
        terms.write(expected, memory)
        np.testing.assert_array_equal(shown, expected)
        # What is measured, noise included, is that of the robot without computed terms.
        np.testing.assert_array_equal(shown[:, :size], next(others)[1][0])
    assert begun > 20
    assert np.abs(shown[:, interface.observation_slices["last"]]).max() > 0


def test_a_run_continues_from_a_snapshot_bit_for_bit():
    env, other = vector(), vector()
    shown, _ = env.reset()
    *_, (_, (shown, *_), _) = drive(env, 13)
    np.testing.assert_array_equal(other.restore(env.snapshot()), shown)
    for (_, one, _), (_, two, _) in zip(drive(env, 20, 1), drive(other, 20, 1), strict=True):
        np.testing.assert_array_equal(one[0], two[0])


def test_a_group_that_begins_anew_leaves_the_memory_of_others():
    env = vector()
    env.reset()
    *_, (_, (before, *_), _) = drive(env, 5)
    shown = env.begin_group(0, 0)
    np.testing.assert_array_equal(shown[3:], before[3:])
    last = env.interface.observation_slices["last"]
    np.testing.assert_array_equal(shown[:3, last], 0)
    assert np.abs(shown[3:, last]).max() > 0
