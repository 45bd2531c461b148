"""`mlsh gap` where nothing could be compared: that reads as unknown, never as zero or as good."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mlsh_ros.cli.gap import gap as command
from mlsh_ros.messages.topics import TRACE
from mlsh_ros.sim2real.gap.analysis import analyze, analyze_signals
from mlsh_ros.sim2real.gap.closed_loop_return import closed_loop_returns
from mlsh_ros.sim2real.gap.data_quality import channels, out_of_distribution, timing
from mlsh_ros.sim2real.gap.report import render
from mlsh_ros.sim2real.replay.open_loop_replay import open_loop_of
from policies.bundle.bundle import load_bundle
from sim.physics.robot_model import load_robot
from tests.support.gap_robot import Robot


@pytest.fixture(scope="module")
def moving():
    return load_bundle("moving_bandits")


@pytest.fixture(scope="module")
def signals(moving):
    return Robot(moving, seed=3).drive("goal-0", sessions=2).signals()


@pytest.fixture(scope="module")
def untraced(moving, tmp_path_factory):
    """A recording of another recorder, without goals: what the policy saw is not known."""
    robot = Robot(moving, seed=1).drive("goal-0", sessions=2)
    said = [row for row in robot.messages() if row[1] not in (TRACE, "goals")]
    return robot.bag(tmp_path_factory.mktemp("gap") / "bag", said)


# The range of training ---------------------------------------------------------------------------


def observed(signals, change):
    """The signals with other observations."""
    sessions = []
    for each in signals.sessions:
        observation = each.observation.copy()
        change(observation)
        sessions.append(replace(each, observation=observation))
    return replace(signals, sessions=sessions)


def test_each_element_counts_where_it_was_observed(signals):
    """Ten ticks: one is never known, one far outside in 4 of the 5 ticks in which it is known."""

    def change(observation):
        observation[:] = 0.5
        observation[:, 0] = np.nan
        observation[0::2, 1] = np.nan
        observation[1::2, 1] = 3.0
        observation[1, 1] = 0.5

    one = replace(signals.sessions[0], observation=signals.sessions[0].observation[:10])
    size = signals.interface.observation_size
    known = np.stack([np.zeros(size), np.ones(size)]).astype(np.float32)
    seen = observed(replace(signals, sessions=[one]), change)
    first, second, *rest = out_of_distribution([seen], known, np.ones(size, bool))
    assert (first.outside, first.farthest) == (None, None)
    assert (second.outside, second.farthest) == (0.8, 2.0)  # 4 of 5; 3 is two ranges beyond 1
    assert {(each.outside, each.farthest) for each in rest} == {(0.0, 0.0)}


def test_a_gate_of_what_was_not_compared_fails(moving, untraced, tmp_path, capsys):
    gates = ["timing.missed", "replay.different_ticks", "worst.saturated"]
    found = analyze(moving, [untraced], master="goal-0")
    data = found.to_dict()
    assert data["timing"]["missed"] is data["timing"]["late_decisions"] is None
    assert data["replay"] == {
        "ticks": 0,
        "decisions": 0,
        "different_ticks": None,
        "different_decisions": None,
        "unseen_ticks": None,
    }
    drifts = {d.name: d for d in found.out_of_distribution}
    never = [name for name, d in drifts.items() if d.outside is None]
    assert never == [name for name in drifts if name.startswith("goals")] != []
    assert all(0 <= d.outside <= 1 for name, d in drifts.items() if name not in never)
    (note,) = [note for note in found.notes if note.startswith("never observed")]
    assert note.endswith(f"with the range of training: {', '.join(never)}")
    page = render(found)
    assert "None" not in page
    assert "nan" not in page.replace("nance", "")
    for gate in gates:
        status = command(
            *("moving_bandits", [untraced]),
            master="goal-0",
            output=tmp_path,
            fail_above=[f"{gate}=1e9"],
            overwrite=True,
        )
        assert status == 2, gate
        assert f"{gate} is not known in this recording" in capsys.readouterr().out
    assert json.loads((tmp_path / "gap.json").read_text()) == data


def test_nothing_observed_at_all_is_no_share(moving, signals):
    """As of a recording that lacks a term from beginning to end."""

    def change(observation):
        observation[:] = np.nan

    found = analyze_signals(moving, [observed(signals, change)], [])
    assert found.to_dict()["worst"]["outside"] is None
    assert all(d.outside is None for d in found.out_of_distribution)
    assert found.out_of_distribution
    assert "None" not in render(found)


def test_timing_of_nothing_is_unknown(signals):
    lockstep = replace(signals, mode="lockstep")
    assert (timing([lockstep]).period, timing([lockstep]).period_p99) == (None, None)
    untraced = [replace(each, traced=False) for each in signals.sessions]
    assert timing([replace(signals, sessions=untraced)]).missed is None


def test_ticks_without_a_reward_count_on_neither_side(moving, single):
    """The robot reaches the goal and stays there, but of the second half nothing is known."""
    open_loop = open_loop_of(moving, [single], load_robot("omni"))
    (whole,) = closed_loop_returns([single], moving, open_loop)
    half_way = sum(edges(single)) / 2
    streams = [
        replace(s, fields={name: np.where(s.received[:, None] < half_way, v, np.nan)
                           for name, v in s.fields.items()})
        for s in single.streams
    ]  # fmt: skip
    (half,) = closed_loop_returns([replace(single, streams=streams)], moving, open_loop)
    assert 0 < half.robot[0] < 0.7 * whole.robot[0]
    assert 0 < half.simulation[0] < 0.7 * whole.simulation[0]
    assert abs(half.robot[0] - half.simulation[0]) <= 2


# Lost messages -----------------------------------------------------------------------------------


def without(signals, topic, lose):
    """The signals without the messages of a topic for which `lose` holds, by (n,) times in s."""
    streams = []
    for stream in signals.streams:
        if stream.topic == topic:
            keep = ~lose(stream.received)
            stream = replace(
                stream,
                order=stream.order[keep],
                received=stream.received[keep],
                stamp=stream.stamp[keep],
                moment=stream.moment[keep],
                fields={name: values[keep] for name, values in stream.fields.items()},
            )
        streams.append(stream)
    return replace(signals, streams=streams)


def of(signals, topic):
    (found,) = [each for each in channels(signals, {}) if each.topic == topic]
    return found


def edges(signals):
    """Begin and end of the first session, s."""
    return signals.sessions[0].received[[0, -1]]


@pytest.fixture(scope="module")
def single(moving):
    return Robot(moving, seed=3).drive("goal-0", sessions=1).signals()


@pytest.mark.parametrize("part", ["beginning", "middle", "end"])
def test_a_sensor_that_is_silent_for_half_of_a_drive_has_lost_half(single, part):
    begin, end = edges(single)
    quarter = (end - begin) / 4
    since = {"beginning": begin - 1, "middle": begin + quarter, "end": end - 2 * quarter}[part]
    until = {"beginning": begin + 2 * quarter, "middle": end - quarter, "end": end + 1}[part]
    whole = of(single, "odom")
    assert whole.lost == 0
    assert whole.longest < 2 / whole.rate
    half = of(without(single, "odom", lambda at: (at > since) & (at < until)), "odom")
    assert half.lost == pytest.approx(0.5, abs=0.05)
    assert half.longest == pytest.approx(2 * quarter, abs=2 / whole.rate)


def test_a_sensor_that_dies_before_the_drive_has_lost_all(single):
    begin, end = edges(single)
    moved = replace(
        single,
        streams=[
            replace(s, received=np.r_[begin - 0.2, begin - 0.1], order=s.order[:2] * 0,
                    stamp=s.stamp[:2], moment=s.moment[:2],
                    fields={k: v[:2] for k, v in s.fields.items()})
            if s.topic == "odom" else s
            for s in single.streams
        ],
    )  # fmt: skip
    dead = of(moved, "odom")
    assert dead.lost == 1
    assert dead.longest == pytest.approx(end - begin)


def test_of_a_single_message_no_rate_is_known(single):
    begin, _ = edges(single)
    first = single.stream("position").received[0]
    once = of(without(single, "odom", lambda at: at > first), "odom")
    assert once.lost is None
    assert once.longest is not None
    assert once.stale is None
    assert begin <= edges(single)[1]


def test_a_sensor_that_dies_is_a_finding_and_what_windows_lack_a_note(moving, tmp_path):
    robot = Robot(moving, seed=1).drive("goal-0", sessions=2)
    said = list(robot.messages())
    half = (said[0][0] + said[-1][0]) / 2
    rows = [row for row in said if row[1] != "odom" or row[0] < half]
    found = analyze(moving, [robot.bag(tmp_path / "bag", rows)])
    (lost,) = [f for f in found.findings if f.kind == "lost"]
    assert lost.where == ("odom",)
    assert lost.value == pytest.approx(0.5, abs=0.05)
    assert any("position is compared in " in note for note in found.notes)
    assert found.to_dict()["worst"]["lost"] == lost.value
