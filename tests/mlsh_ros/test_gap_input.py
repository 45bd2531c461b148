"""`mlsh gap` on files: recordings that are damaged, foreign or of something else, and the CLI."""

import json
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import typer

from mlsh_ros.cli.gap import gap as command
from mlsh_ros.cli.gap import number_at
from mlsh_ros.cli.sysid import sysid
from mlsh_ros.messages.topics import OUTCOME as OUTCOME_TOPIC
from mlsh_ros.messages.topics import TRACE
from mlsh_ros.sim2real.data.recording_data import Where, load
from mlsh_ros.sim2real.data.target import load_target, recorded_task
from mlsh_ros.sim2real.data.tick_moments import ended, moments
from mlsh_ros.sim2real.gap import analysis
from mlsh_ros.sim2real.gap.analysis import analyze
from mlsh_ros.sim2real.gap.gap import NO_GAP, SCHEMA
from mlsh_ros.sim2real.gap.report import render
from policies.bundle.bundle import load_bundle
from policies.bundle.manifest import Origin
from sim.errors import UserError
from sim.physics.robot_model import robot_folder
from tests.support.gap_robot import START, STORE, Robot, Wrong, blank

SECOND = 10**9


@pytest.fixture(scope="module")
def moving():
    return load_bundle("moving_bandits")


@pytest.fixture(scope="module")
def robot(moving):
    """Two sessions of a robot with a wrong sign."""
    wrong = Wrong(
        sense=lambda f, _: {k: v * [1, -1] if k == "velocity" else v for k, v in f.items()}
    )
    return Robot(moving, wrong, seed=1).drive("goal-0", sessions=2)


@pytest.fixture(scope="module")
def said(robot):
    return list(robot.messages())


@pytest.fixture(scope="module")
def bag(robot, tmp_path_factory):
    return robot.bag(tmp_path_factory.mktemp("gap") / "bag")


@pytest.fixture(scope="module")
def gap(moving, bag):
    return analyze(moving, [bag])


def the_sign(gap):
    """Whether the verdict names the fault, whatever else is wrong with the recording."""
    return any(f.kind == "sign" and f.where == ("velocity.y",) for f in gap.findings)


def noted(gap, text):
    return any(re.search(text, note) for note in gap.notes)


# What can be used is used, and what cannot is named ----------------------------------------------


def test_an_option_that_a_recording_of_ours_makes_void_is_said(moving, bag):
    where = Where.of("/r1", ["odom:=/wheels"])
    for given, note in ((where, True), (Where(), False), (None, False)):
        found = load(bag, moving, given).signals.notes
        assert any("--namespace and --topic are ignored" in each for each in found) == note
    signals = load(bag, moving).signals
    (note,) = analysis._named(signals, "goal-1").notes
    assert note == "--master goal-1 is ignored: its recorded master is goal-0"
    assert analysis._named(signals, "goal-0").notes == signals.notes == []


def test_a_robot_has_no_master(bag):
    with pytest.raises(UserError, match="--master goal-0: robot 'omni' has no master; give a"):
        analyze(load_target("omni"), [bag], master="goal-0")


def test_a_bundle_of_imported_skills_alone_is_compared(moving, robot):
    """No master names a task, and no network says what training saw."""
    manifest = moving.manifest
    origin = Origin("MIT", "elsewhere", "0" * 64, {})
    alone = replace(
        manifest,
        masters={},
        imported=dict.fromkeys(manifest.skills, origin),
        files={n: d for n, d in manifest.files.items() if not n.startswith("masters/")},
    )
    assert recorded_task(replace(moving, manifest=alone), [])[1] == 0
    found = analysis.analyze_signals(replace(moving, manifest=alone), [robot.signals()], [])
    assert the_sign(found)
    assert found.out_of_distribution == []
    assert noted(found, "the range of training is not compared: the bundle has imported skills al")
    assert found.to_dict()["worst"]["outside"] is None


def test_a_file_says_what_the_signals_say(moving, robot, gap):
    from mlsh_ros.sim2real.gap.analysis import analyze_signals

    direct = analyze_signals(moving, [robot.signals()], [])
    assert gap.findings == direct.findings
    assert [m.rmse for m in gap.measures] == [m.rmse for m in direct.measures]
    assert gap.notes == []
    (replayed,) = gap.replayed
    assert (replayed.ticks, replayed.different_ticks, replayed.unseen) == (100, 0, [])


def test_a_truncated_file_is_used_up_to_there(moving, bag, tmp_path):
    file = next(bag.glob("*.mcap"))
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    found = analyze(moving, [cut])
    assert noted(found, "it is truncated")
    assert found.timing.ticks < 100
    assert the_sign(found)


def test_a_missing_topic_is_named_with_its_terms(moving, robot, said, tmp_path):
    without = [row for row in said if row[1] != "goals"]
    found = analyze(moving, [robot.bag(tmp_path / "bag", without)])
    assert noted(found, "topic goals is missing: it carries goals")
    assert the_sign(found)


def test_where_no_sensor_was_recorded_the_traces_stand_in(moving, robot, said, tmp_path):
    without = [row for row in said if row[1] not in ("goals", "odom")]
    found = analyze(moving, [robot.bag(tmp_path / "bag", without)])
    assert noted(found, "topic odom is missing: it carries position, velocity")
    assert the_sign(found)
    # Now only what the policy saw tells of it, and that came from nowhere.
    assert any(f.kind == "unseen" for f in found.findings)


def test_where_no_trace_was_recorded_the_commands_stand_in(moving, robot, said, tmp_path):
    without = [row for row in said if row[1] != TRACE]
    found = analyze(moving, [robot.bag(tmp_path / "bag", without)], master="goal-0")
    assert noted(found, "no trace of skill_node is in it")
    assert the_sign(found)


def test_a_robot_that_no_bundle_drove_is_compared(robot, said, tmp_path):
    commanded = [row for row in said if row[1] in ("odom", "cmd_vel")]
    omni = load_target("omni")
    found = analyze(omni, [robot.bag(tmp_path / "bag", commanded)])
    assert the_sign(found)
    assert {f.kind for f in found.findings if f.rank == 1} == {"sign"}
    assert found.out_of_distribution == found.closed_loop_returns == []
    assert found.to_dict()["bundle"] is None
    page = render(found)
    assert "no bundle" in page
    assert str(omni.name) in page
    assert load_target(str(omni.model_path.parent)) == omni


def test_messages_that_do_not_hold_are_counted_and_left_out(moving, robot, said, tmp_path):
    broken, count = [], 0
    for received, topic, message in said:
        if topic == "odom":
            count += 1
            if count % 10 == 0:
                message = blank("nav_msgs/msg/Odometry")
                message.twist.twist.linear.x = float("nan")
        broken.append((received, topic, message))
    found = analyze(moving, [robot.bag(tmp_path / "bag", broken)])
    assert noted(found, r"\d+ messages of odom could not be used, .*velocity is not finite")
    assert the_sign(found)
    # A refused message is as good as none.
    assert any(f.kind == "lost" for f in found.findings)


def test_a_clock_that_jumps_back_between_two_ticks_splits_the_recording(
    moving, robot, said, tmp_path
):
    middle = said[0][0] + 3 * SECOND
    jumped = [(t - 2 * SECOND if t > middle else t, topic, m) for t, topic, m in said]
    found = analyze(moving, [robot.bag(tmp_path / "bag", jumped)])
    assert the_sign(found)
    assert [f.kind for f in found.findings if f.rank == 1] == ["sign"]


def test_a_hole_in_the_recording_is_no_lag(moving, robot, said, tmp_path):
    start = said[0][0]
    holes = [row for row in said if not start + 2 * SECOND < row[0] < start + 3.5 * SECOND]
    found = analyze(moving, [robot.bag(tmp_path / "bag", holes)])
    assert [f.kind for f in found.findings if f.rank == 1] == ["sign"]


def test_a_lockstep_recording_is_compared_tick_by_tick(moving, robot, said, tmp_path):
    about = {"bundle": "moving_bandits", "digest": moving.manifest.digest, "mode": "lockstep"}
    # Wall time means nothing there: messages come in bursts.
    burst = [(said[0][0] + 1000 * n, topic, m) for n, (_, topic, m) in enumerate(said)]
    found = analyze(moving, [robot.bag(tmp_path / "bag", burst, about=about)])
    assert [f.kind for f in found.findings if f.rank == 1] == ["sign"]
    assert {m.samples for m in found.measures} == {100}


def waited(robot, folder, about=None, change=list):
    """A lockstep recording of it, with the clock of a simulator, whose topics may be changed."""
    moving = robot.bundle
    told = {"bundle": "moving_bandits", "digest": moving.manifest.digest, "mode": "lockstep"}
    said = []
    for received, topic, message in robot.messages():
        if topic in ("odom", "goals"):
            stamp = message.header.stamp.sec * SECOND + message.header.stamp.nanosec - START
            if stamp % round(moving.interface.control_dt * 1e9):
                continue
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, SECOND)
        said.append((received, topic, message))
    return robot.bag(folder, change(said), about=told if about is None else about)


def topic_after_topic(said):
    """As a recorder on a busy machine: what the simulator says comes after all ticks."""
    last = said[-1][0]
    order = {TRACE: 0, OUTCOME_TOPIC: 1}
    ranks = sorted(said, key=lambda row: (order.get(row[1], 2), row[0]))
    return [(last + 1000 * n, topic, message) for n, (_, topic, message) in enumerate(ranks)]


@pytest.fixture(scope="module")
def episodes(moving):
    """Four episodes of a robot with nothing wrong, in one session."""
    return Robot(moving, seed=3).drive("goal-1", sessions=4, one_drive=True)


def test_episodes_in_lockstep_end_where_the_stamps_say(moving, episodes, tmp_path):
    """However late what topic was recorded."""
    found = analyze(moving, [waited(episodes, tmp_path / "a", change=topic_after_topic)])
    assert found.findings == []
    assert noted(found, r"the recorder fell behind: .* ticks apart")
    assert found.seconds > 19.0
    prompt = analyze(moving, [waited(episodes, tmp_path / "b")])
    assert prompt.findings == []
    assert not noted(prompt, "fell behind")
    assert [m.rmse for m in prompt.measures] == [m.rmse for m in found.measures]


def test_what_a_lockstep_recording_lost_is_said_and_is_no_fault_of_the_robot(
    moving, episodes, tmp_path
):
    def cut(said):
        end = said[0][0] + 15 * SECOND
        return [row for row in said if row[0] < end or row[1] not in ("goals", TRACE)]

    found = analyze(moving, [waited(episodes, tmp_path / "a", change=cut)])
    assert found.findings == []
    assert noted(found, r"\d+ of \d+ messages of goals are missing.*so the recorder lost them")
    (channel,) = (c for c in found.channels[0] if c.topic == "goals")
    assert channel.lost > 0.2


def test_lockstep_is_told_by_its_stamps_where_nobody_says_so(moving, episodes, tmp_path):
    bag = waited(episodes, tmp_path / "bag", about={}, change=topic_after_topic)
    found = analyze(moving, [bag], master="goal-1")
    assert noted(found, "it does not say which bundle ran, or whether in lockstep or in real time")
    assert noted(found, "its time stamps are those of lockstep")
    assert found.findings == []
    with pytest.raises(UserError, match="its time stamps are those of lockstep, where time is"):
        analyze(load_target("omni"), [bag])


def test_a_lockstep_recording_needs_the_bundle(episodes, tmp_path):
    with pytest.raises(UserError, match=r"made in lockstep.*give bundle moving_bandits instead"):
        analyze(load_target("omni"), [waited(episodes, tmp_path / "bag")])


def test_a_robot_that_stands_is_found_again_by_the_ticks_around():
    stands = [[0], [100, 200, 300], [100, 200, 300], [300, 100], [], [500], [700], [], [900, 50]]
    tick = np.arange(9)
    found = moments(stands, tick, 100)
    assert found.tolist() == [0, 100, 200, 300, -1, 500, 700, -1, 900]
    assert moments(stands[1:], tick[1:], 100).tolist() == [100, 200, 300, -1, 500, 700, -1, 900]
    assert moments([[], []], tick[:2], 100).tolist() == [-1, -1]
    omni = load_target("omni").interface
    period = round(omni.control_dt * 1e9)
    ends = ended(tick, np.where(found < 0, -1, found * (period // 100)), omni)
    assert ends.tolist() == [False, False, False, False, False, True, False, False]


def test_a_next_episode_of_the_simulator_is_no_jump_of_the_robot(moving, tmp_path):
    robot = Robot(moving, seed=3).drive("goal-1", sessions=2, one_drive=True)
    found = analyze(moving, [robot.bag(tmp_path / "bag")])
    assert found.verdict == [NO_GAP]
    assert len(found.closed_loop_returns[0].robot) == 1


def test_a_few_ticks_are_not_called_proof(moving, tmp_path):
    robot = Robot(moving, seed=3).drive("goal-1", sessions=1, ticks=20)
    found = analyze(moving, [robot.bag(tmp_path / "bag")])
    assert noted(found, "only 2.0 s of driving")
    assert found.verdict == [f"{NO_GAP} in what could be compared"]


def test_another_bundle_is_named(moving, bag):
    other = replace(moving, manifest=replace(moving.manifest, name="other", digest="0" * 64))
    found = analyze(other, [bag])
    assert noted(found, "another bundle ran: moving_bandits")
    assert "in what could be compared" in found.verdict[-1] or found.findings


@pytest.mark.parametrize("subject", ["body_bandits", "rover"])
def test_another_robot_is_refused_by_name(bag, subject):
    with pytest.raises(UserError, match="another robot was recorded: omni, not rover"):
        analyze(load_target(subject), [bag])


def test_a_trace_of_another_bundle_is_told_by_its_first_other_element(bag):
    found = analyze(load_target("omni"), [bag])
    assert noted(found, r"its element \d+ is 'observation.goals.0', not 'action")


@pytest.mark.parametrize("again", ["same", "file", "link"])
def test_a_recording_that_is_given_twice_is_refused(moving, bag, tmp_path, again):
    (link := tmp_path / "link").symlink_to(bag)
    other = {"same": bag, "file": next(bag.glob("*.mcap")), "link": link}[again]
    with pytest.raises(UserError, match=f"recording {other}: is given twice, first as {bag}; "):
        analyze(moving, [bag, other])
    with pytest.raises(UserError, match="given twice"):
        sysid("moving_bandits", [other, bag], output=tmp_path / "sim_params.yaml")


def test_the_nominal_robot_is_named_wherever_its_folder_is(moving, bag, tmp_path):
    shutil.copytree(robot_folder("omni"), tmp_path / "mine")
    model = tmp_path / "mine" / "model.xml"
    model.write_text(model.read_text() + "<!-- mine -->\n")
    told = analyze(moving, [bag], robot=str(tmp_path / "mine")).to_dict()["nominal"]
    usual = analyze(moving, [bag]).to_dict()["nominal"]
    assert told["folder"] == "mine"
    assert usual["folder"] == told["name"] == "omni"
    assert told["model"] != usual["model"]
    assert told["interface"] == usual["interface"]
    assert str(tmp_path) not in json.dumps(told)


@pytest.mark.parametrize("content", [b"", b"not a bag", b"\x89MCAP0\r\n"])
def test_what_is_no_recording_is_refused_in_one_line(moving, tmp_path, content):
    path = tmp_path / "bag.mcap"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        analyze(moving, [path])
    assert "bag.mcap" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("names", [[], ["a.mcap", "b.mcap"], ["notes.txt"]])
def test_a_folder_that_is_no_recording_says_what_is_in_it(moving, tmp_path, names):
    for name in names:
        (tmp_path / name).write_bytes(b"")
    count = sum(name.endswith(".mcap") for name in names)
    with pytest.raises(UserError, match=rf"^[^\n]*{count} MCAP files and no metadata.yaml[^\n]*$"):
        analyze(moving, [tmp_path])


def test_one_bad_recording_of_two_is_left_out_by_name(moving, bag, tmp_path):
    found = analyze(moving, [bag, tmp_path / "nowhere"])
    assert noted(found, "nowhere: no such file or folder; left out")
    assert the_sign(found)


# Recordings of others ---------------------------------------------------------------------------


def foreign(said, folder, version, storage):
    """A bag of `ros2 bag record`: no trace, other names, the commands as the robot took them."""
    from rosbags.rosbag2 import StoragePlugin, Writer

    with Writer(folder, version=version, storage_plugin=StoragePlugin[storage]) as writer:
        connections = {}
        for received, topic, message in said:
            if topic not in ("odom", "goals", "cmd_vel"):
                continue
            if topic not in connections:
                kind = message.__msgtype__
                connections[topic] = writer.add_connection(f"/bot7/{topic}", kind, typestore=STORE)
            data = bytes(STORE.serialize_cdr(message, message.__msgtype__))
            writer.write(connections[topic], received, data)
    return folder


@pytest.mark.parametrize("storage", ["MCAP", "SQLITE3"])
def test_any_rosbag2_with_the_topics_will_do(moving, said, tmp_path, storage):
    found = analyze(moving, [foreign(said, tmp_path / "bag", 9, storage)], master="goal-0")
    assert noted(found, "it was not made by recorder_node")
    assert noted(found, "no trace of skill_node is in it")
    assert the_sign(found)
    assert [line.task for line in found.closed_loop_returns] == ["moving_bandits/goal-0"]


def test_a_foreign_bag_without_the_topics_names_what_is_there(moving, said, tmp_path):
    others = [row for row in said if row[1] == "goals"]
    with pytest.raises(UserError, match=r"neither ticks .* Topics in it: /bot7/goals"):
        analyze(moving, [foreign(others, tmp_path / "bag", 9, "SQLITE3")])


# The command and its files ----------------------------------------------------------------------


def run(bag, output, *gates):
    return command("moving_bandits", [bag], output=output, fail_above=list(gates), overwrite=True)


def test_gates_decide_the_exit_status(bag, tmp_path, capsys):
    assert run(bag, tmp_path, "worst.nrmse=3", "terms.velocity.y.lag=0.5") == 0
    assert run(bag, tmp_path, "worst.nrmse=0.1") == 2
    out = capsys.readouterr().out
    assert "1. velocity.y has the wrong sign: check its axis" in out
    assert re.search(r"worst\.nrmse is 2(\.\d+)?, at most 0\.1 is allowed", out)
    (tmp_path / "gap.json").unlink()
    with pytest.raises(UserError, match=r"worst\.nothing: no number .* findings, nrmse, lag"):
        run(bag, tmp_path, "worst.nothing=1")
    assert (tmp_path / "gap.json").is_file()  # the comparison is not lost
    with pytest.raises(typer.BadParameter, match="is not KEY=VALUE"):
        run(bag, tmp_path, "worst.nrmse")


@pytest.mark.parametrize("limit", ["nan", "inf", "-inf", ""])
def test_a_gate_that_nothing_can_pass_or_fail_is_refused(bag, tmp_path, limit):
    with pytest.raises(typer.BadParameter, match="is not KEY=VALUE, a finite number"):
        run(bag, tmp_path, f"worst.nrmse={limit}")


@pytest.mark.slow
def test_the_command_takes_a_sim_params(bag, tmp_path):
    command("moving_bandits", [bag], output=tmp_path, sim_params="heavy")
    assert json.loads((tmp_path / "gap.json").read_text())["sim_params"] == "heavy"
    assert "<dt>simulated in</dt><dd>heavy</dd>" in (tmp_path / "gap.html").read_text()


def test_the_json_is_plain_and_versioned(gap):
    data = json.loads(json.dumps(gap.to_dict(), allow_nan=False))
    assert data["schema"] == SCHEMA == 2
    assert data["findings"][0]["kind"] == "sign"
    assert number_at(data, "terms.velocity.y.gain") == pytest.approx(-1, abs=0.01)
    assert number_at(data, "terms.position.x.bias") is None
    assert number_at(data, "replay.different_ticks") == 0
    assert data["worst"]["nrmse"] == pytest.approx(data["terms"]["velocity.y"]["nrmse"])


def test_the_page_needs_nothing_but_itself(gap):
    page = render(gap)
    assert page == render(gap)
    assert not re.search(r'(src|href)="(?!#)', page)
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert page.count("<svg ") >= 6
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert "velocity.y has the wrong sign" in page
    assert "prefers-color-scheme: dark" in page


def test_all_columns_but_the_first_sort_by_number(gap):
    values = re.findall(r'<td data-value="([^"]*)"', render(gap))
    assert len(values) > 50
    assert np.isfinite([float(value) for value in values]).all()


def test_a_page_without_a_gap_says_so(moving, tmp_path):
    found = analyze(
        moving, [Robot(moving, seed=3).drive("goal-1", sessions=2).bag(tmp_path / "b")]
    )
    assert found.verdict == [NO_GAP]
    assert f'<p class="verdict">{NO_GAP}</p>' in render(found)
    assert np.isfinite([m.rmse for m in found.measures]).all()


NEEDS_CHROMIUM = pytest.mark.skipif(
    shutil.which("chromium") is None, reason="no Chromium on this machine"
)


def browse(page, folder):
    """What Chromium makes of a page, as HTML."""
    (folder / "page.html").write_text(page)
    flags = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
    done = subprocess.run(
        [
            "chromium",
            *flags.split(),
            "--enable-logging=stderr",
            f"--user-data-dir={folder / 'profile'}",
            "--dump-dom",
            (folder / "page.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert "CONSOLE" not in done.stderr
    return done.stdout


@NEEDS_CHROMIUM
def test_a_browser_has_nothing_to_complain_of(gap, tmp_path):
    page = render(gap)
    assert browse(page, tmp_path).count("<svg ") == page.count("<svg ")


@NEEDS_CHROMIUM
@pytest.mark.parametrize("clicks", [1, 2])
def test_a_click_on_a_heading_sorts(gap, tmp_path, clicks):
    page, column = render(gap), 1
    click = f"""<script>for (const table of document.querySelectorAll("table"))
        for (let i = 0; i < {clicks}; i++)
            table.querySelectorAll("th button")[{column}]?.click();</script></body>"""
    # Its policy lets no other script run: not this one either.
    clicked = re.sub(r"'sha256-[^']*'", "'unsafe-inline'", page).replace("</body>", click)

    def columns(html):
        tables = [t for t in html.split("<table")[1:] if "<button" in t]
        rows = [re.findall("<tr>(.*?)</tr>", t.partition("<tbody>")[2], re.S) for t in tables]
        cells = [[re.findall(r'data-value="([^"]*)"', row) for row in table] for table in rows]
        return [[float(row[column]) for row in table] for table in cells]

    shown, found = columns(page), columns(browse(clicked, tmp_path))
    assert len(shown) >= 2
    assert found == [sorted(values, reverse=clicks == 2) for values in shown]
    assert found != shown
