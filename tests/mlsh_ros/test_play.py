"""`mlsh play` and `mlsh plot`: what is shown is what is scored; refusals come before driving."""

import json
import shutil
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from mlsh_ros.cli import demo
from mlsh_ros.evaluation.backends import run_offline
from mlsh_ros.evaluation.case import resolve_cases
from mlsh_ros.evaluation.episode import Episode
from mlsh_ros.evaluation.number_format import amount
from mlsh_ros.evaluation.real_time import RealTimeError, stopped
from mlsh_ros.evaluation.report.plots import skill_colors
from mlsh_ros.evaluation.trajectories import Trajectory, drive
from mlsh_ros.evaluation.trajectory_plot import draw_birdseye, require_position
from policies.bundle.bundle import load_bundle, pretrained_names
from sim.envs.world import World
from sim.errors import UserError
from sim.interface import path_fields, path_term
from sim.interface.memory import ObservationMemory
from sim.physics.robot_model import ROBOTS, load_robot
from sim.rendering.scene import EpisodeReplay, Frame
from sim.seeding import episode_rng
from sim.tasks import registry
from sim.tasks.base import HasActionCost, HasTaskDynamics
from sim.tasks.registry import FAMILIES, make_family, use_family
from tests.support.bundles import restless_bundle
from tests.support.own_family import write_family


def routes(axes):
    """The paths of a panel, one LineCollection per episode."""
    return [each for each in axes.collections if each.get_gid() == "route"]


def marks(axes, name):
    """(n, 2) where marks of a kind stand."""
    found = [line.get_xydata() for line in axes.lines if line.get_gid() == name]
    return np.concatenate(found) if found else np.zeros((0, 2))


def takes_of(name, episodes=1, tasks=None):
    bundle = load_bundle(name)
    robot = load_robot(bundle.interface.robot)
    return bundle, robot, drive(resolve_cases(bundle)[:tasks], episodes=episodes, seed=0)


# Robots with legs with `make test-slow`.
BUNDLES = [
    pytest.param(name, marks=[pytest.mark.slow] if name.startswith(("ant", "go2")) else [])
    for name in pretrained_names()
]


@pytest.fixture(scope="module", params=BUNDLES)
def shipped(request):
    """Two episodes of each task, of the first few tasks."""
    return takes_of(request.param, episodes=1 if request.param == "rooms" else 2, tasks=4)


# What is shown ----------------------------------------------------------------------------------


def test_what_is_shown_is_what_is_scored(shipped):
    bundle, _, takes = shipped
    cases = resolve_cases(bundle)[:2]
    episodes = len(takes) // len({take.label for take in takes})
    scored = run_offline(cases, episodes=episodes, seed=0)
    takes = takes[: len(scored)]
    assert len(takes) == len(cases) * episodes
    for take, episode in zip(takes, scored, strict=True):
        np.testing.assert_array_equal(take.episode.observation, episode.observation)
        np.testing.assert_array_equal(take.episode.reward, episode.reward)
        # The path is where the policy saw itself, and one state more: where the last tick led.
        term = path_term(bundle.interface)
        seen = episode.term(bundle.interface, term.name) / term.scale
        assert len(take.scene.frames) == len(seen) + 1
        np.testing.assert_allclose(take.scene.path[:-1], seen[:, :2], atol=1e-6)
        # Rewards are for the state after a tick, so the family agrees with the last frame.
        last = {term.name: take.scene.frames[-1].fields[term.name][None]}
        family, layout = take.scene.family, take.scene.layout
        if not isinstance(
            family, HasActionCost | HasTaskDynamics
        ):  # nor what else a tick has to do with it
            assert float(family.reward(layout, last)[0]) == episode.reward[-1]
        assert f"return {episode.value:.4g}" in take.scene.frames[-1].caption


def test_layouts_are_copies():
    _, _, takes = takes_of("moving_bandits", episodes=2)
    goals = [take.scene.layout["goals"] for take in takes[:2]]
    assert not np.array_equal(*goals)


def test_a_panel_per_task_and_lines_in_the_colors_of_the_skills_that_were_used(shipped):
    bundle, robot, takes = shipped
    names = bundle.manifest.skills
    colors = skill_colors(len(names))
    figure = draw_birdseye(robot, takes, skills=names, title="t")
    panels = {take.label: [t for t in takes if t.label == take.label] for take in takes}
    assert len(figure.axes) == len(panels) == min(4, len(bundle.manifest.masters))
    used = set()
    limits = {(*axes.get_xlim(), *axes.get_ylim()) for axes in figure.axes}
    # Where another panel's scale does not hold, each panel says its own.
    hidden = [axes for axes in figure.axes if not axes.yaxis.get_tick_params()["labelleft"]]
    assert not (hidden and len(limits) > 1)
    for axes, (label, panel) in zip(figure.axes, panels.items(), strict=True):
        solved = sum(t.episode.success for t in panel)
        value = np.mean([t.episode.value for t in panel])
        assert (
            axes.get_title() == f"{label}\nreturn {amount(value)}, {solved} of {len(panel)} solved"
        )
        drawn = routes(axes)
        assert len(drawn) == len(panel)
        for lines, take in zip(drawn, panel, strict=True):
            skill = take.episode.skill
            cuts = np.flatnonzero(np.diff(skill)) + 1
            assert [to_hex(c) for c in lines.get_colors()] == [
                colors[k] for k in skill[[0, *cuts]]
            ]
            # Together the stretches are the path; each begins where the one before ends.
            segments = lines.get_segments()
            whole = np.concatenate([segments[0], *(s[1:] for s in segments[1:])])
            np.testing.assert_array_equal(whole, take.scene.path)
            assert len(segments) - 1 == take.episode.switches
            used |= set(skill.tolist())
        switches = [t.scene.path[1:-1][np.diff(t.episode.skill) != 0] for t in panel]
        np.testing.assert_array_equal(marks(axes, "switch"), np.concatenate(switches))
        np.testing.assert_array_equal(marks(axes, "start"), [t.scene.path[0] for t in panel])
        np.testing.assert_array_equal(marks(axes, "end"), [t.scene.path[-1] for t in panel])
    (legend,) = figure.legends
    entries = {text.get_text() for text in legend.get_texts()}
    assert {names[k] for k in used} == entries & set(names)


def test_goals_and_walls_stand_where_the_scene_has_them():
    bundle, robot, takes = takes_of("rooms")
    for axes, take in zip(
        draw_birdseye(robot, takes, skills=bundle.manifest.skills, title="t").axes,
        takes,
        strict=True,
    ):
        boxes = [p.get_xy() for p in axes.patches if p.get_gid() == "fixed"]
        found = sorted((*box.min(axis=0), *box.max(axis=0)) for box in boxes)
        family = take.scene.family
        walls = sorted((x - a, y - b, x + a, y + b) for x, y, a, b in family.walls)
        np.testing.assert_allclose(found, walls, atol=1e-6)
        (goal,) = [p for p in axes.patches if p.get_gid() == "target"]
        np.testing.assert_allclose(goal.center, take.scene.layout["goal"][0])
        assert goal.radius == family.radius
        # Everything lies within the panel.
        low, high = np.min(walls, axis=0)[:2], np.max(walls, axis=0)[2:]
        assert (np.array([axes.get_xlim()[0], axes.get_ylim()[0]]) < low).all()
        assert (np.array([axes.get_xlim()[1], axes.get_ylim()[1]]) > high).all()


def wander(name, task, ticks=8):
    """An episode of random commands, with no bundle for it."""
    family = make_family(name)
    robot, rng = load_robot(family.robot), np.random.default_rng(task)
    world = World(robot, family, 1)
    world.reset(np.zeros(1, np.int32), [task], [episode_rng(0, 0)])
    frames = []
    for _ in range(ticks + 1):
        fields = path_fields(world.physics.fields())
        seen = {name: rows[0] for name, rows in fields.items()}
        frames.append(Frame(seen, "", (0, 0, 0), world.physics.pose[0]))
        world.step_command(rng.uniform(*world.interface.limits)[None])
    zeros = np.zeros((ticks, 1))
    episode = Episode(
        task=f"{name}/{family.tasks[task]}",
        master="m",
        number=0,
        observation=zeros.astype(np.float32),
        skill=np.arange(ticks) // 3,
        action=zeros.astype(np.float32),
        command=zeros,
        reward=zeros[:, 0],
        success=False,
        late=0,
        lateness=None,
        compute=None,
    )
    layout = {key: row.copy() for key, row in world.layout.items()}
    return robot, Trajectory(episode.task, episode, EpisodeReplay(family, "", layout, frames))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_can_be_drawn(name):
    tasks = range(len(make_family(name).tasks))
    robot, takes = load_robot(make_family(name).robot), [wander(name, task)[1] for task in tasks]
    require_position(robot)
    figure = draw_birdseye(robot, takes, skills=("a", "b", "c"), title="t")
    assert len(figure.axes) == len(takes)
    for axes, take in zip(figure.axes, takes, strict=True):
        # 8 ticks of skills 0, 0, 0, 1, 1, 1, 2, 2
        assert [len(s) for s in routes(axes)[0].get_segments()] == [4, 4, 3]
        placed = [p for p in axes.patches if p.get_gid() == "placed"]
        places = take.scene.family.place(take.scene.layout).values()
        sunk = sum(where.shape[1] > 2 and where[0, 2] < 0 for where in places)
        assert len(placed) == len(places) - sunk
        # What one bumps into is drawn as walls are, goals are faint.
        solid = sum(where.shape[1] > 2 for where in places) - sunk
        assert sum(patch.get_facecolor()[3] == 1 for patch in placed) == solid
    width, height = figure.get_size_inches()
    assert 0.4 < height / width < 2


def test_a_long_course_makes_wide_panels():
    robot, take = wander("moving_bandits", 0)
    path = np.stack([np.arange(9) * 5.0, np.zeros(9)], axis=-1)
    frames = [Frame({"position": xy}, "", (0, 0, 0)) for xy in path]
    long = replace(take, scene=replace(take.scene, frames=frames))
    takes = [replace(long, label=str(i)) for i in range(4)]
    figure = draw_birdseye(robot, takes, skills=("a", "b", "c"), title="t")
    left = [axes.get_subplotspec().colspan.start for axes in figure.axes]
    assert left == [0, 0, 0, 0]  # one above the other


def test_a_robot_that_does_not_say_where_it_is_has_no_paths():
    robot = load_robot("omni")
    terms = [t for t in robot.interface.observation if t.name != "position"]
    blind = replace(robot, interface=replace(robot.interface, observation=tuple(terms)))
    with pytest.raises(UserError, match=r"'omni' has no observation term 'position'") as info:
        require_position(blind)
    assert "\n" not in str(info.value)


def test_a_master_on_another_task_is_said_so():
    bundle, robot = load_bundle("moving_bandits"), load_robot("omni")
    task = "moving_bandits/goal-0"
    cases = [*resolve_cases(bundle, task=task, master="goal-1"), *resolve_cases(bundle, task=task)]
    takes = drive(cases, episodes=1, seed=0)
    assert [take.label for take in takes] == [
        "moving_bandits/goal-0 with master goal-1",
        "moving_bandits/goal-0 with master goal-0",
    ]
    (alone,) = drive(cases[1:], episodes=1, seed=0)
    assert alone.label == "moving_bandits/goal-0"
    figure = draw_birdseye(robot, takes, skills=bundle.manifest.skills, title="t")
    assert len(figure.axes) == 2


def test_a_task_that_does_not_fit_makes_no_case():
    bundle = load_bundle("moving_bandits")
    with pytest.raises(UserError, match=r"'rooms/corner-0' .*'goals'"):
        resolve_cases(bundle, task="rooms/corner-0", master="goal-0")


# The commands -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("play", "moving_bandits", "-o", "a.avi"), "no picture format '.avi'. Valid: .mp4, .gif"),
        (("play", "moving_bandits", "-o", "none/a.gif"), "folder 'none' does not exist"),
        (("play", "moving_bandit", "-o", "a.gif"), "Did you mean 'moving_bandits'?"),
        (("play", "rooms", "-o", "a.gif", "--task", "rooms/corner-9"), "no task 'rooms/corner-9'"),
        (("play", "rooms", "-o", "a.gif", "--task", "ring_bandits/sector-1"), "--master"),
        (("play", "rooms", "-o", "a.gif", "--master", "corner-9"), "no master 'corner-9'"),
        (
            ("play", "rooms", "-o", "a.gif", "--master=corner-0", "--task=body_bandits/goal-0"),
            "shows goals, which bundle 'rooms' does not observe",
        ),
        (("play", "rooms", "-o", "a.gif", "--robot", "rover"), "bundle 'rooms'"),
        (("play", "rooms"), "DISPLAY is not set; with -o FILE.mp4"),
        (("plot", "moving_bandits", "-o", "a.gif"), "no plot format '.gif'. Valid: .png, .svg"),
        (("plot", "moving_bandits", "-o", "none/a.png"), "folder 'none' does not exist"),
        (("plot", "rooms", "--task", "rooms/corner-9"), "no task 'rooms/corner-9'"),
        (("plot", "rooms", "--master", "corner-9"), "no master 'corner-9'"),
        (("plot", "rooms", "--robot", "rover"), "bundle 'rooms'"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_driven(mlsh, monkeypatch, arguments, said):
    def driven(*_, **__):
        raise AssertionError("driven")

    monkeypatch.setattr("mlsh_ros.evaluation.backends.World.reset", driven)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    code, _, err = mlsh(*arguments)
    assert code == 1, err
    assert err.startswith("error: ")
    assert "\n" not in err.rstrip("\n")
    assert said in err


def test_a_place_that_cannot_be_written_to_is_one_line(mlsh, tmp_path):
    (tmp_path / "a.png").mkdir()
    for command in ("plot", "play"):
        code, _, err = mlsh(command, "moving_bandits", "-o", "a.png")
        assert (code, err) == (1, "error: a.png: is a folder\n")


def test_plot_writes_a_figure_and_says_where(mlsh):
    task = "moving_bandits/goal-0"
    code, out, err = mlsh("plot", "moving_bandits", "--episodes", 2, "--task", task)
    assert (code, err) == (0, "")
    assert "trajectories.png: 2 episodes" in out
    with Image.open("trajectories.png") as image:
        assert image.format == "PNG"


def test_play_films_every_task_at_the_robots_own_pace(mlsh, monkeypatch):
    asked = {}
    monkeypatch.setattr(
        "sim.rendering.offscreen.film",
        lambda robot, scenes, path, **keys: (asked.update(keys, scenes=scenes), path.touch()),
    )
    code, out, err = mlsh("play", "moving_bandits", "-o", "a.gif", "--speed", 2, "--episodes", 2)
    assert (code, err) == (0, "")
    assert "a.gif: 4 episodes" in out
    titles = [scene.title for scene in asked["scenes"]]
    assert titles == [f"moving_bandits/goal-{i}, episode {n}" for i in (0, 1) for n in (0, 1)]
    assert asked["fps"] == pytest.approx(2 / 0.1)  # ticks of 0.1 s


def test_play_without_a_file_opens_the_viewer(mlsh, monkeypatch):
    shown = []
    monkeypatch.setattr("sim.rendering.viewer.require_display", lambda: shown.append("display"))
    monkeypatch.setattr(
        "sim.rendering.viewer.show",
        lambda robot, scenes, period: shown.append((robot.name, len(scenes), period)),
    )
    code, out, _ = mlsh("play", "rooms", "--task", "rooms/corner-1", "--speed", 4)
    assert code == 0
    assert "close the window to end" in out
    assert shown == ["display", ("omni", 1, pytest.approx(0.1 / 4))]


def test_the_demo_shows_a_pose_that_is_observed_by_its_axes():
    interface = load_robot("go2").interface
    rng = np.random.default_rng(0)
    turn = rng.normal(size=4)
    whole = {term.name: rng.uniform(0, 1, term.size) for term in interface.observation}
    whole |= {"orientation": turn / np.linalg.norm(turn)}
    shown = demo._fields(interface, interface.observe(whole, memory=ObservationMemory(interface)))
    for name in ("position", "joint_position"):
        np.testing.assert_allclose(shown[name], whole[name], atol=1e-6)
    found = shown["orientation"]
    np.testing.assert_allclose(found * np.sign(found @ turn), whole["orientation"], atol=1e-6)
    assert "tilt" not in shown


LATE_STATES = (
    "fault: watchdog: tripped: command (-0.0925, 0.98) stood for 0.053 s",
    "fault: sensors_stale: odom (0.36 s old, at most 0.3 s)",
    "fault: deadline: 4 ticks were missed",
)
OTHER_STATES = (
    "fault: watchdog: tripped: command jumped by 2 m/s",
    "fault: limit: tilt is 1.2 rad",
    "fault: estop: topic 'estop' is true, from /panel",
    "fault",
)


@pytest.mark.parametrize("state", [*LATE_STATES, *OTHER_STATES])
def test_a_late_computer_is_told_from_a_robot_that_does_something_wrong(state):
    error = stopped("episode 0 of mazes/maze-7", state)
    assert isinstance(error, RealTimeError) == (state in LATE_STATES)
    assert state in str(error)
    assert ("drive in lockstep" in str(error)) == (state in LATE_STATES)


@pytest.mark.parametrize("state", [LATE_STATES[0], OTHER_STATES[0]])
def test_the_demo_goes_on_in_lockstep_on_a_late_computer_alone(mlsh, tmp_path, monkeypatch, state):
    modes = []

    def run_ros(cases, *, episodes, seed, mode, **_):
        modes.append(mode)
        if mode == "realtime":
            raise stopped("episode 0", state)
        return run_offline(cases, episodes=episodes, seed=seed)

    monkeypatch.setattr("mlsh_ros.evaluation.backends.run_ros", run_ros)
    monkeypatch.setattr(demo, "_film", lambda *_: None)
    task = ("--bundle", "moving_bandits", "--task", "moving_bandits/goal-0", "--episodes", "1")
    code, out, err = mlsh("demo", *task, "-o", tmp_path / "demo")
    if state in LATE_STATES:
        assert (code, modes) == (0, ["realtime", "lockstep"])
        assert "did not keep real time" in err + out
        assert "driving in lockstep instead" in err + out
        assert json.loads((tmp_path / "demo" / "report.json").read_text())["backend"] == (
            "ros-lockstep"
        )
    else:
        assert (code, modes) == (1, ["realtime"])
        assert not list((tmp_path / "demo").glob("*"))


def test_the_demo_takes_a_family_and_a_robot_of_ones_own(mlsh, tmp_path, monkeypatch):
    file = write_family(tmp_path / "stay.py", ('"omni"', repr(str(tmp_path / "my_omni"))))
    shutil.copytree(ROBOTS / "omni", tmp_path / "my_omni")
    text = (tmp_path / "my_omni" / "robot.yaml").read_text()
    (tmp_path / "my_omni" / "robot.yaml").write_text(text.replace("robot: omni", "robot: my_omni"))
    driven = []

    def run_ros(cases, *, episodes, seed, mode, **_):
        driven.extend((str(case.task), case.robot.name) for case in cases)
        return run_offline(cases, episodes=episodes, seed=seed)

    monkeypatch.setattr("mlsh_ros.evaluation.backends.run_ros", run_ros)
    monkeypatch.setattr(demo, "_film", lambda *_: None)
    with mock.patch.dict(registry._LOADED):
        use_family(str(file))
        restless_bundle(tmp_path / "own", 1, "stay", str(tmp_path / "my_omni"))
    given = ("demo", "--bundle", tmp_path / "own", "-o", tmp_path / "demo", "--episodes", "1")
    for more, named in ((), "--robot FOLDER"), (("--robot", tmp_path / "my_omni"), "FILE.py"):
        code, _, err = mlsh(*given, *more)
        assert (code, driven) == (1, [])
        assert named in err
    with mock.patch.dict(registry._LOADED):
        code, _, err = mlsh(*given, *more, "--family", file)
    assert (code, err) == (0, "")
    assert driven == [("stay/left", "my_omni"), ("stay/right", "my_omni")]
