"""Masters from recordings: what is read, what is refused, and what they are worth."""

import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest

from mlsh_ros.cli import main as cli
from mlsh_ros.messages.topics import TRACE, Topic
from mlsh_ros.sim2real.data.recorded_episodes import read_episodes
from policies.bundle.bundle import load_bundle
from policies.bundle.runtime import choose, load_policy
from policies.offpolicy.evaluation import OffPolicyEstimate
from policies.offpolicy.value_iteration import ValueIteration
from policies.training.finetune import finetune
from policies.training.run import environment
from sim.errors import UserError
from sim.tasks.task_id import TaskId
from tests.support.bundles import restless_bundle
from tests.support.gap_robot import Robot, blank

BUNDLE = load_bundle("moving_bandits")
TASKS = [TaskId("moving_bandits", f"goal-{i}") for i in range(2)]
N = BUNDLE.manifest.decision_ticks
SESSIONS, TICKS = 20, 50
REWARD = Topic("reward", "std_msgs/msg/Float32", True, False)


def random_decisions(seed=0):
    """In place of a master: what `greedy:=false` draws where all logits are equal."""
    rng = np.random.default_rng(seed)
    return lambda observation: rng.random((1, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def robot():
    """Twenty sessions whose decisions were drawn at random."""
    made = Robot(BUNDLE, seed=1, every=5)
    return made.drive("goal-0", sessions=SESSIONS, network=random_decisions())


@pytest.fixture(scope="module")
def bag(robot, tmp_path_factory):
    return robot.bag(tmp_path_factory.mktemp("recorded") / "bag")


@pytest.fixture(scope="module")
def few():
    """Two sessions, to change what is recorded of them."""
    return Robot(BUNDLE, seed=2, every=5).drive("goal-0", sessions=2, network=random_decisions(3))


def refusal(call, *args, **kwargs) -> str:
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What is read ---------------------------------------------------------------------------------


def test_a_session_is_an_episode_of_its_decisions(robot, bag):
    episodes, _ = read_episodes([bag], BUNDLE, TASKS)
    assert len(episodes) == SESSIONS
    for episode, drive in zip(episodes, robot.signals().sessions, strict=True):
        begins = np.arange(0, TICKS, N)
        # Decided from the tick before, but for the first decision.
        asked = np.maximum(begins - BUNDLE.manifest.decision_lead, 0)
        assert np.array_equal(episode.obs, drive.observation[[*asked, TICKS - 1]])
        assert episode.skill.tolist() == drive.skill[begins].tolist()
        # No state after the last tick is observed.
        assert [len(each) for each in episode.rewards] == [N] * (TICKS // N - 1) + [N - 1]
        assert not episode.terminated
    assert len({tuple(e.skill) for e in episodes}) > 10


def test_the_reward_is_the_tasks_for_what_the_next_tick_observed(bag):
    terms = {term.name: term for term in BUNDLE.interface.observation}
    slices = BUNDLE.interface.observation_slices
    both = read_episodes([bag], BUNDLE, TASKS)
    paid = [np.array([e.total for e in episodes]) for episodes in both]
    assert (paid[0] != paid[1]).any()  # of the same drives
    assert all(each.sum() > SESSIONS for each in paid)
    for number, episodes in enumerate(both):
        for episode in episodes:
            last = episode.obs[-1].astype(float)
            at, goals = (terms[n].unscaled(last[slices[n]]) for n in ("position", "goals"))
            inside = ((at - goals.reshape(2, 2)[number]) ** 2).sum() < 0.25**2
            assert bool(episode.rewards[-1][-1]) == inside


def rewarded(robot, values):
    """The messages, and after each tick's trace a reward."""
    number = iter(values)
    for received, topic, message in robot.messages():
        yield received, topic, message
        if topic == TRACE:
            made = blank(REWARD.type)
            made.data = next(number)
            yield received + 1_000_000, "reward", made


@pytest.mark.parametrize("name", ["reward", "/bot/reward"])
def test_a_topic_gives_the_reward(few, tmp_path, name):
    values = np.arange(2 * TICKS, dtype=np.float64)
    bag = few.bag(tmp_path / "bag", rewarded(few, values), more=[REWARD])
    (episodes,) = read_episodes([bag], BUNDLE, TASKS[:1], name)
    told = [np.concatenate(e.rewards).tolist() for e in episodes]
    assert told == [values[:49].tolist(), values[50:99].tolist()]


def test_episodes_end_where_ticks_are_missing(few, tmp_path):
    traces = iter(range(10_000))
    lossy = [m for m in few.messages() if m[1] != TRACE or next(traces) != 23]
    episodes, _ = read_episodes([few.bag(tmp_path / "bag", lossy)], BUNDLE, TASKS)
    # Decisions at 0, 10 and 20, with ticks up to 22; after the hole, those at 30 and 40.
    assert [len(e.skill) for e in episodes] == [3, 2, 5]
    assert [len(each) for each in episodes[0].rewards] == [10, 10, 2]
    assert [len(each) for each in episodes[1].rewards] == [10, 9]


# What is refused ------------------------------------------------------------------------------


def test_a_recording_of_another_bundle_is_refused(bag, tmp_path):
    other = restless_bundle(tmp_path / "restless")
    text = refusal(read_episodes, [bag], other, TASKS)
    assert "bundle 'moving_bandits' ran, whose skills are not those of bundle 'restless'" in text


def test_a_recording_of_the_same_skills_with_other_masters_is_not(bag):
    fewer = {"goal-0": BUNDLE.manifest.masters["goal-0"]}
    other = replace(BUNDLE.manifest, masters=fewer, digest="0" * 64)
    assert read_episodes([bag], replace(BUNDLE, manifest=other), TASKS[:1])[0]


def test_a_recording_without_decisions_is_refused(few, tmp_path):
    untraced = few.bag(tmp_path / "bag", [m for m in few.messages() if m[1] != TRACE])
    assert "it has no traces of skill_node" in refusal(read_episodes, [untraced], BUNDLE, TASKS)


def test_a_recording_without_what_the_reward_needs_is_refused(few, tmp_path):
    third = [received for received, topic, _ in few.messages() if topic == TRACE][2]
    late = [m for m in few.messages() if m[1] != "goals" or m[0] > third]
    blind = few.bag(tmp_path / "bag", late)
    text = refusal(read_episodes, [blind], BUNDLE, TASKS)
    assert "the reward of moving_bandits/goal-0 needs goals, of which no message came" in text
    assert "before tick 0 of session 1; give --reward-topic" in text
    text = refusal(read_episodes, [blind], BUNDLE, [TaskId("patrol", "tilted")])
    assert "the reward of patrol/tilted" in text


def test_what_no_moment_shows_cannot_be_rewarded(bag):
    text = refusal(read_episodes, [bag], BUNDLE, [TaskId("patrol", "tilted")])
    assert "the reward of patrol/tilted cannot be computed from recorded sensors" in text
    assert "give --reward-topic" in text


def test_a_topic_of_rewards_that_does_not_hold_is_refused(few, tmp_path):
    values = np.arange(2 * TICKS, dtype=np.float64)
    bag = few.bag(tmp_path / "bag", rewarded(few, values), more=[REWARD])
    text = refusal(read_episodes, [bag], BUNDLE, TASKS[:1], "pay")
    assert "no message of --reward-topic pay. Topics: " in text
    assert "/bot/reward" in text
    text = refusal(read_episodes, [bag], BUNDLE, TASKS[:1], "goals")
    assert "std_msgs/msg/Float32 or std_msgs/msg/Float64 is expected" in text
    text = refusal(read_episodes, [bag], BUNDLE, TASKS, "reward")
    assert "one reward for 2 tasks" in text
    bag = few.bag(tmp_path / "nan", rewarded(few, values * np.nan), more=[REWARD])
    assert "a reward is nan" in refusal(read_episodes, [bag], BUNDLE, TASKS[:1], "reward")


def test_a_recording_that_is_given_twice_is_refused(bag, tmp_path):
    assert "is given twice" in refusal(read_episodes, [bag, bag], BUNDLE, TASKS)


# What is learned ------------------------------------------------------------------------------


@pytest.fixture
def light(monkeypatch):
    monkeypatch.setattr("policies.training.adapt.SCORED_TICKS", 32 * 50)


def learn(path, episodes, say=lambda _: None, task=TASKS[1]):
    return finetune(
        BUNDLE,
        task,
        path,
        name="recorded",
        updates=1,
        seed=3,
        learner="q",
        recorded=[episodes],
        facts=environment(),
        say=say,
    )


def test_a_master_from_recordings_of_random_decisions(light, bag, tmp_path):
    lines = []
    _, episodes = read_episodes([bag], BUNDLE, TASKS)
    result = learn(tmp_path / "more", episodes, lines.append)
    curve, (estimate,) = result.adapted.curves[0], result.adapted.estimates
    # Online, 20 episodes bring 44.4 of 44.8.
    assert curve[-1].greedy > 0.8 * 44.4
    assert curve[-1].steps == sum(len(r) for e in episodes for r in e.rewards)
    assert estimate.low < curve[-1].greedy < estimate.high
    assert estimate.low > estimate.recorded  # known to be better
    assert estimate.recorded == pytest.approx(
        np.mean([e.total for e in episodes]) * TICKS / (TICKS - 1)
    )
    assert "20 episodes" in lines[0]
    assert "95 % interval" in lines[0]
    more = load_bundle(tmp_path / "more")
    assert more.skill_hashes() == BUNDLE.skill_hashes()
    assert more.manifest.masters["recorded"].score.value == curve[-1].greedy


def test_few_episodes_are_not_trusted(light, few, tmp_path):
    _, episodes = read_episodes([few.bag(tmp_path / "bag")], BUNDLE, TASKS)
    lines = []
    learn(tmp_path / "more", episodes, lines.append)
    assert "without an interval, which needs 4 episodes: record more" in lines[0]


def test_nothing_is_written_where_nothing_can_be_learned(light, bag, tmp_path, monkeypatch):
    (episodes, _) = read_episodes([bag], BUNDLE, TASKS)
    target = tmp_path / "more"
    assert "hold no episode with a whole decision" in refusal(learn, target, [])
    same = [replace(e, skill=np.ones_like(e.skill)) for e in episodes]
    stubs = [replace(e, rewards=[r[:2] for r in e.rewards]) for e in episodes]
    assert "hold no episode with a whole decision" in refusal(learn, target, stubs)
    text = refusal(learn, target, same)
    assert f"all {5 * SESSIONS} recorded decisions selected skill 1" in text
    monkeypatch.setattr(
        ValueIteration, "fit", lambda self, *_: self.weights.__setitem__(..., np.nan)
    )
    text = refusal(learn, target, episodes)
    assert "diverged: values of goal-1 not finite; nothing is written" in text
    assert not target.exists()


def test_the_parts_of_a_recording_are_those_of_the_robot(bag, tmp_path):
    """A copy of a recording under another name is another recording: only one file counts once."""
    copy = tmp_path / "copy"
    shutil.copytree(bag, copy)
    assert len(read_episodes([bag, copy], BUNDLE, TASKS[:1])[0]) == 2 * SESSIONS


def test_a_recording_that_breaks_off_says_so(bag, tmp_path):
    torn = tmp_path / "torn.mcap"
    (file,) = bag.glob("*.mcap")
    data = file.read_bytes()
    torn.write_bytes(data[: len(data) * 3 // 4])
    told = []
    (whole,) = read_episodes([bag], BUNDLE, TASKS[:1], note=told.append)
    assert told == []
    (left,) = read_episodes([torn], BUNDLE, TASKS[:1], note=told.append)
    assert 0 < len(left) < len(whole)
    assert told[0].startswith(f"note: recording {torn}: it is truncated (")
    assert told[0].endswith("; the part before is used")


def test_a_simulation_outside_the_interval_is_a_warning():
    estimate = OffPolicyEstimate(episodes=20, recorded=8.6, value=14, low=11, high=18)
    assert estimate.contradiction(11.5) == ""
    assert "gives the master 8.7, outside the interval 11 to 18" in estimate.contradiction(8.7)
    assert estimate.contradiction(19)


# The command ----------------------------------------------------------------------------------


@pytest.fixture
def mlsh(monkeypatch, capsys, tmp_path):
    """Runs a command in this process, in an empty folder; returns its output and status."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["mlsh", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, err = capsys.readouterr()
        code = caught.value.code
        return out if not code else f"{err}{code}"

    return run


GOAL_1 = ("finetune", "moving_bandits", "--task", "moving_bandits/goal-1", "--name", "new")


def test_the_command_learns_from_recordings(light, mlsh, bag, tmp_path):
    said = mlsh(*GOAL_1, "-o", "more", "--from-recording", bag)
    assert "recorded: 20 episodes, 100 decisions" in said
    assert "95 % interval" in said
    assert "2 skill files unchanged" in said
    assert "new" in load_bundle(tmp_path / "more").manifest.masters


def test_a_uniform_master_draws_every_skill_alike(light, mlsh, tmp_path):
    mlsh(*GOAL_1, "-o", "more", "--learner", "uniform")
    more = load_bundle(tmp_path / "more")
    assert more.skill_hashes() == BUNDLE.skill_hashes()
    logits = load_policy(more, "new").logits(more.golden.observation[0])
    assert logits.tolist() == [0, 0]
    rng = np.random.default_rng(0)
    assert 0.4 < np.mean([choose(logits, rng) for _ in range(1000)]) < 0.6
    assert more.manifest.masters["new"].provenance.updates == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--from-recording", "x", "--updates", "3"], "--updates: has no effect with --from-rec"),
        (["--from-recording", "x", "--episodes", "3"], "--episodes: has no effect with --from"),
        (["--from-recording", "x", "--baseline"], "--baseline: has no effect with --from-rec"),
        (["--from-recording", "x", "--init-from", "goal-0"], "--init-from: has no effect with"),
        (["--from-recording", "x", "--learner", "ppo"], "--learner ppo: --from-recording needs q"),
        (["--from-recording", "x"], "x"),
        (["--reward-topic", "x"], "--reward-topic: has no effect without --from-recording"),
        (["--learner", "uniform", "--updates", "3"], "--updates: has no effect with --learner un"),
        (["--learner", "uniform", "--set", "threads=1"], "--set: has no effect with --learner un"),
        (["--learner", "q", "--episodes", "0"], "0 is not at least 1"),
    ],
)
def test_options_without_effect_are_refused_and_nothing_is_written(mlsh, tmp_path, options, said):
    text = mlsh(*GOAL_1, "-o", "more", *options)
    assert said in text
    assert text.count("\n") <= 1
    assert not (tmp_path / "more").exists()
