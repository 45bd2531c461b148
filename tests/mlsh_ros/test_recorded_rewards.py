"""Rewards of recorded ticks, faults, and bundles that were replaced while the robot drove."""

import numpy as np
import pytest

from mlsh_ros.messages.labeled_array import OUTCOME, trace_layout
from mlsh_ros.messages.topics import OUTCOME as OUTCOME_TOPIC
from mlsh_ros.messages.topics import STATE, TRACE, Topic
from mlsh_ros.sim2real.data.recorded_episodes import read_episodes
from policies.bundle.bundle import load_bundle
from sim.errors import UserError
from sim.tasks.task_id import TaskId
from tests.support.gap_robot import Robot, array, blank, text

BUNDLE = load_bundle("moving_bandits")
TASK = [TaskId("moving_bandits", "goal-0")]
SESSIONS, TICKS = 2, 50
ALL = SESSIONS * TICKS
REWARD = Topic("reward", "std_msgs/msg/Float32", True, False)
LOCKSTEP = {
    "bundle": BUNDLE.manifest.name,
    "digest": BUNDLE.manifest.digest,
    "mode": "lockstep",
}
LIMIT = "fault: limit: position 3.1"


@pytest.fixture(scope="module")
def robot():
    """Two sessions whose decisions were drawn at random."""
    rng = np.random.default_rng(3)
    made = Robot(BUNDLE, seed=2, every=5)
    return made.drive(
        "goal-0", sessions=SESSIONS, network=lambda _: rng.random((1, 2), np.float32)
    )


def read(bag, **options):
    return read_episodes([bag], BUNDLE, TASK, **options)[0]


def numbers(episodes):
    return [np.concatenate(e.rewards).tolist() for e in episodes]


# Lockstep -------------------------------------------------------------------------------------


def judged(robot, values, ticks=TICKS):
    """In lockstep a simulator says a tick's reward, perhaps before the tick's trace is there."""
    number = 0
    for received, topic, message in robot.messages():
        if topic == TRACE:
            session, tick = divmod(number, ticks)
            if values[number] is not None:
                row = np.array([session, tick, values[number], 0, tick == ticks - 1], float)
                yield received + 1000, OUTCOME_TOPIC, array(OUTCOME, row)
            received += 2000
            number += 1
        yield received, topic, message


def test_in_lockstep_an_outcome_is_of_the_tick_that_it_names(robot, tmp_path):
    values = list(range(ALL))
    bag = robot.bag(tmp_path / "bag", judged(robot, values), LOCKSTEP)
    found = numbers(read(bag, reward_topic=OUTCOME_TOPIC))
    assert found == [values[:49], values[50:99]]  # the last tick of a session has none


def test_in_lockstep_a_tick_without_its_outcome_is_refused(robot, tmp_path):
    values = [None if number == TICKS + 23 else 1.0 for number in range(ALL)]
    bag = robot.bag(tmp_path / "bag", judged(robot, values), LOCKSTEP)
    with pytest.raises(UserError, match="sim_node/outcome has no reward of tick 23 of session 2"):
        read(bag, reward_topic=OUTCOME_TOPIC)


def test_in_lockstep_an_episode_that_was_over_before_its_time_was_ended_by_the_task(tmp_path):
    robot = Robot(BUNDLE, seed=4, every=5).drive("goal-0", sessions=1, ticks=30)
    values = list(range(30))
    bag = robot.bag(tmp_path / "bag", judged(robot, values, 30), LOCKSTEP)
    (found,) = read(bag, reward_topic=OUTCOME_TOPIC)
    assert found.terminated
    assert numbers([found]) == [values]  # with the last one, after which nothing is observed


def paid(messages, values):
    """After each tick's trace a number of a topic."""
    number = iter(values)
    for received, topic, message in messages:
        yield received, topic, message
        if topic == TRACE:
            made = blank(REWARD.type)
            made.data = float(next(number))
            yield received + 1_000_000, "reward", made


def test_in_lockstep_a_number_without_a_tick_is_refused(robot, tmp_path):
    messages = paid(robot.messages(), range(ALL))
    bag = robot.bag(tmp_path / "bag", messages, LOCKSTEP, more=[REWARD])
    with pytest.raises(UserError, match="in lockstep only sim_node/outcome says to which tick"):
        read(bag, reward_topic="reward")


# Faults ---------------------------------------------------------------------------------------


def states(messages, said):
    """What skill_node says of itself after a trace, by the trace's number; -1: at first."""
    number, begun = -1, False
    for received, topic, message in messages:
        for each in said.get(-1, []) if not begun else []:
            yield received, STATE, text(each)
        begun = True
        yield received, topic, message
        if topic == TRACE:
            number += 1
            for each in said.get(number, []):
                yield received + 1, STATE, text(each)


@pytest.mark.parametrize(
    ("said", "terminated"),
    [
        ({-1: ["running"], 49: ["stopping", "ready", "running"], 99: [LIMIT]}, [False, True]),
        ({-1: ["running"], 49: [LIMIT, "disarmed", "ready", "running"]}, [True, False]),
        # A fault of a robot that stands is none of the session.
        ({-1: ["running"], 49: ["stopping", "ready", LIMIT, "disarmed"]}, [False, False]),
        # Nor one of a session of which no tick is there.
        ({49: ["stopping", "ready", "running", LIMIT]}, [False, False]),
    ],
)
def test_a_fault_terminates_the_session_that_it_ended(robot, tmp_path, said, terminated):
    messages = states(robot.messages(), said)
    found = read(robot.bag(tmp_path / "bag", messages))
    assert [e.terminated for e in found] == terminated
    plain = read(robot.bag(tmp_path / "plain"))
    # Rewards are never negative here, so that a fault pays nothing.
    assert numbers(found) == numbers(plain)


def test_a_fault_is_never_better_than_going_on(robot, tmp_path):
    """A fault after tick 30 of the second session: of 50 ticks 20 pay the lowest reward."""
    lost = {TICKS + tick for tick in range(31, TICKS)}
    count = iter(range(ALL))
    kept = [m for m in robot.messages() if m[1] != TRACE or next(count) not in lost]
    values = [-5.0 if number == 3 else -1.0 for number in range(ALL - len(lost))]
    said = {49: ["running"], 80: [LIMIT]}
    messages = states(paid(kept, values), said)
    first, second = read(
        robot.bag(tmp_path / "bag", messages, more=[REWARD]), reward_topic="reward"
    )
    assert not first.terminated
    assert second.terminated
    assert second.skill.size == 3
    assert second.rewards[-1].tolist() == [-1.0] * 10 + [-5.0] * 20


# Another bundle -------------------------------------------------------------------------------


def replaced(robot, begin):
    """From one trace on, another bundle of the same names drove."""
    interface = BUNDLE.interface
    names = trace_layout(interface.observation_names, interface.action_names).names
    action = [i for i, name in enumerate(names) if name.startswith("action.")]
    number = -1
    for received, topic, message in robot.messages():
        if topic == TRACE:
            number += 1
            if number >= begin:
                message.data = message.data.copy()  # the robot keeps its own
                message.data[action] += 0.01
        yield received, topic, message


def test_ticks_of_a_bundle_that_took_over_are_left_out(robot, tmp_path):
    notes = []
    bag = robot.bag(tmp_path / "bag", replaced(robot, TICKS + 20))
    plain, cut = read(bag, note=notes.append)
    assert [len(each) for each in plain.rewards] == [10, 10, 10, 10, 9]
    assert [len(each) for each in cut.rewards] == [10, 9]
    (note,) = notes
    assert "bundle 'moving_bandits' was replaced while it ran" in note
    assert "from tick 20 of session 2 on, 30 of 100 ticks are of other skills" in note


def test_skills_that_were_replaced_at_once_leave_nothing(robot, tmp_path):
    assert read(robot.bag(tmp_path / "bag", replaced(robot, 0))) == []
