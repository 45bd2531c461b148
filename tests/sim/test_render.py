"""Pictures: what is drawn is what happened; without OpenGL there is one line and no traceback."""

import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

import mujoco
import numpy as np
import pytest
from PIL import Image, ImageSequence

from sim.envs.world import World
from sim.errors import UserError
from sim.physics.robot_model import Robot, load_robot
from sim.rendering import offscreen as render
from sim.rendering.offscreen import EpisodeReplay, Frame, NoGraphics, check_film, film
from sim.rendering.scene import SceneRenderer
from sim.seeding import episode_rng
from sim.tasks.expert_controller import ExpertController
from sim.tasks.registry import make_family
from tests.support.graphics import GL

ROBOT = load_robot("omni")
DRIVER = ExpertController(ROBOT.interface)
FAMILY = make_family("moving_bandits")
SIZE = (240, 180)
RED, BLUE = (0.9, 0.1, 0.3), (0.2, 0.2, 0.9)


def drive(task: int, number: int, ticks: int) -> EpisodeReplay:
    """An episode of the expert, in two colors."""
    world = World(ROBOT, FAMILY, 1)
    world.reset(np.zeros(1, np.int32), [task], [episode_rng(0, number)])
    fields, frames = world.true_state(), []
    for tick in range(ticks):
        row = {name: value[0] for name, value in fields.items()}
        frames.append(Frame(row, f"tick {tick}", RED if tick < ticks // 4 else BLUE))
        command = DRIVER.command(fields, FAMILY.expert_target(world.layout, fields))
        fields, _ = world.step(world.interface.action_for(command).astype(np.float32))
    return EpisodeReplay(FAMILY, f"{FAMILY.name}/{FAMILY.tasks[task]}", dict(world.layout), frames)


def draw(path: Path, *scenes: EpisodeReplay, robot: Robot = ROBOT) -> Image.Image:
    """The picture; where OpenGL is missing the test ends with the law that holds there."""
    if not GL:
        with pytest.raises(NoGraphics):
            film(robot, scenes, path, size=SIZE)
        assert not path.exists()
        pytest.xfail("no OpenGL here, and film said so")
    film(robot, scenes, path, size=SIZE, overwrite=True)
    return Image.open(path)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"), int)


def deck(image: Image.Image) -> np.ndarray:
    """(2,) where the robot's white deck is in the picture, right and up."""
    rows, columns = np.nonzero((pixels(image) > 246).all(axis=-1))
    assert len(rows) > 20
    return np.array([columns.mean(), -rows.mean()])


def like(image: Image.Image, color: tuple[float, float, float]) -> int:
    """How many pixels have about the color."""
    return int((abs(pixels(image) - np.array(color) * 255).max(axis=-1) < 60).sum())


@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_film_shows_every_tick_and_the_robot_where_it_was(tmp_path, number):
    scene, other = drive(0, number, 12), drive(1, number, 5)
    image = draw(tmp_path / "film.gif", scene, other)
    assert (image.format, image.size, image.n_frames) == ("GIF", SIZE, 12 + 5)
    first = deck(image)
    image.seek(11)
    moved = deck(image) - first
    start, end = (scene.frames[i].fields["position"] for i in (0, 11))
    assert np.abs(end - start).max() > 0.2  # m, so that there is something to see
    for axis in np.flatnonzero(np.abs(end - start) > 0.1):
        assert np.sign(moved[axis]) == np.sign((end - start)[axis])
    image.seek(12)  # the next episode begins where all do
    np.testing.assert_allclose(deck(image), first, atol=1.5)


def test_a_long_film_skips_ticks_but_shows_each_end(tmp_path, monkeypatch):
    monkeypatch.setattr(render, "MAX_PICTURES", 3)
    scene = drive(0, 0, 8)
    image = draw(tmp_path / "film.gif", scene)
    assert image.n_frames == 3  # every third of 8 ticks: 1, 4, 7
    assert image.info["duration"] == 3 * 1000 // 20
    image.seek(2)
    still = draw(tmp_path / "still.png", scene)
    np.testing.assert_allclose(deck(image), deck(still), atol=0.5)  # a tick is some 5 pixels


def blank(monkeypatch):
    """Pictures without OpenGL: only their number counts; no two are the same."""
    numbers = count()

    @contextmanager
    def offscreen(model, size):
        def draw(scene):
            picture = Image.new("RGB", size, "white")
            picture.putpixel((next(numbers) % size[0], size[1] - 1), (0, 0, 0))
            return picture

        yield draw

    monkeypatch.setattr(render, "_offscreen", offscreen)


@pytest.mark.parametrize(
    ("fps", "number", "rate"),
    [
        # 6 ticks and 3, and the last of each for 0.8 s longer
        (10, (6 + 8) + (3 + 8), 10),
        # beyond 30 a second: ticks 1, 3, 5 and 0, 2, at 20 a second, so that 0.8 s are 16
        (40, (3 + 16) + (2 + 16), 20),
    ],
)
def test_an_mp4_shows_every_frame_at_its_pace(tmp_path, monkeypatch, fps, number, rate):
    from imageio_ffmpeg import count_frames_and_secs, read_frames  # of the extra `video`, in dev

    blank(monkeypatch)
    scenes, told = [drive(0, 0, 6), drive(1, 0, 3)], []
    path = tmp_path / "-odd: name.mp4"
    film(ROBOT, scenes, path, fps=fps, size=(64, 48), on_picture=lambda *n: told.append(n))
    frames, seconds = count_frames_and_secs(f"file:{path}")
    assert (frames, round(seconds * rate)) == (number, number)
    about = next(read_frames(f"file:{path}"))
    assert (about["size"], about["codec"], about["fps"]) == ((64, 48), "h264", rate)
    shown = 9 if fps == 10 else 5
    assert told == [(i + 1, shown) for i in range(shown)]


def test_a_gif_keeps_its_pace(tmp_path, monkeypatch):
    blank(monkeypatch)
    film(ROBOT, [drive(0, 0, 9)], tmp_path / "a.gif", fps=40, size=(64, 48))
    # Every second tick, 2 / 40 s each.
    assert durations(tmp_path / "a.gif") == [50, 50, 50, 50, 1000 * render.PAUSE]
    film(ROBOT, [drive(0, 0, 9)], tmp_path / "b.gif", fps=30, size=(64, 48))
    *times, last = durations(tmp_path / "b.gif")  # GIF has no 33.3 ms, but 8 of them are 270
    assert set(times) == {30, 40}
    assert (len(times), sum(times), last) == (8, 270, 1000 * render.PAUSE)


def durations(path):
    with Image.open(path) as image:
        return [frame.info["duration"] for frame in ImageSequence.Iterator(image)]


def test_what_ffmpeg_says_is_passed_on_and_nothing_is_left(tmp_path, monkeypatch):
    blank(monkeypatch)
    scene = drive(0, 0, 2)
    with pytest.raises(
        UserError, match=r"a\.mp4: could not be written, ffmpeg reports: .*not div"
    ):
        film(ROBOT, [scene], tmp_path / "a.mp4", size=(63, 47))

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        film(ROBOT, [scene], tmp_path / "a.mp4", on_picture=interrupt)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("missing", ["package", "binary"])
def test_mp4_without_its_extra_is_refused_before_anything_is_drawn(tmp_path, monkeypatch, missing):
    if missing == "package":
        monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    else:
        monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", raise_runtime_error)
    with pytest.raises(UserError, match=r"MP4 needs .*imageio-ffmpeg.* GIF works without") as info:
        check_film(tmp_path / "a.mp4")
    assert ("mlsh_ros[video]" in str(info.value)) == (missing == "package")
    check_film(tmp_path / "a.gif")


def raise_runtime_error():
    raise RuntimeError("No ffmpeg exe could be found.")


def test_scenes_of_several_families_make_one_film(tmp_path):
    rooms = make_family("rooms")
    layout = {k: np.asarray(v)[None] for k, v in rooms.reset(0, episode_rng(0, 0)).items()}
    goal = replace(drive(0, 0, 1), family=rooms, layout=layout)
    both, alone = draw(tmp_path / "a.png", drive(0, 0, 1), goal), draw(tmp_path / "b.png", goal)
    np.testing.assert_array_equal(pixels(both), pixels(alone))
    film(ROBOT, [drive(0, 0, 2), goal, drive(0, 0, 2)], tmp_path / "c.gif", size=SIZE)
    with Image.open(tmp_path / "c.gif") as image:
        shown = [pixels(frame.copy()) for frame in ImageSequence.Iterator(image)]
    np.testing.assert_array_equal(shown[0], shown[3])  # each in its own scene again
    assert (np.abs(shown[0] - shown[2]) > 60).any()


def test_whole_poses_show_joints_that_no_term_tells():
    rover, family = load_robot("rover"), make_family("body_bandits")
    stage = SceneRenderer(rover, family)
    qpos = stage.data.qpos.copy()
    wheel = stage.model.joint("wheel_left").qposadr[0]
    qpos[wheel] = 1.2
    layout = {k: np.asarray(v)[None] for k, v in family.reset(0, episode_rng(0, 0)).items()}
    stage.pose(Frame({}, "", RED, qpos), layout)
    assert stage.data.body("wheel_left").xquat[2] == pytest.approx(np.sin(0.6))  # about y


def test_a_still_shows_the_trail_in_the_colors_of_the_skills(tmp_path):
    scene = drive(1, 0, 20)
    image = draw(tmp_path / "end.png", drive(0, 3, 3), scene)
    assert (image.format, image.size) == ("PNG", SIZE)
    # Nothing has been traveled yet, but the swatch has the last skill's color.
    arrived = replace(scene, frames=[replace(scene.frames[-1])])
    without = draw(tmp_path / "start.png", arrived)
    for color in (RED, BLUE):
        assert like(image, color) > like(without, color) + 15


def test_goals_stand_where_the_layout_says(tmp_path):
    scene = drive(1, 0, 1)
    seen = []
    for x, y in ((-0.8, -0.6), (0.5, 0.7)):
        layout = scene.layout | {"goals": np.array([[[x, y], [0.0, 0.0]]])}
        image = draw(tmp_path / "a.png", replace(scene, layout=layout))
        rows, columns = np.nonzero(abs(pixels(image) - (149, 149, 151)).max(axis=-1) < 12)
        seen.append([columns.mean() / SIZE[0], 1 - rows.mean() / SIZE[1]])
    # Left and near, then right and far; (0, 0) is bottom left.
    assert np.all(np.array(seen[0]) < [0.35, 0.35])
    assert np.all(np.array(seen[1]) > [0.6, 0.6])


def test_the_goal_that_counts_is_marked(tmp_path):
    scene = drive(0, 0, 2)
    swapped = replace(scene, layout=scene.layout | {"slot": np.ones(1)})
    zero, one = (draw(tmp_path / f"{i}.png", s) for i, s in enumerate((scene, swapped)))
    assert (np.abs(pixels(zero) - pixels(one)).max(axis=-1) > 60).sum() > 50


def test_a_robot_without_the_overview_camera_is_drawn(tmp_path):
    text = ROBOT.model_path.read_text()
    assert '"overview"' in text
    (tmp_path / "model.xml").write_text(text.replace('"overview"', '"other"'))
    bare = replace(ROBOT, model_path=tmp_path / "model.xml")
    scene = drive(0, 0, 12)
    image, usual = draw(tmp_path / "a.png", scene, robot=bare), draw(tmp_path / "b.png", scene)
    assert (np.abs(pixels(image) - pixels(usual)) > 60).sum() > 500  # another camera
    assert min(like(image, color) for color in (RED, BLUE)) > 15  # the trail
    assert like(image, (0.58, 0.58, 0.59)) > 200  # and the first goal


@pytest.mark.parametrize(
    ("name", "frames", "message"),
    [
        ("a.avi", 2, r"no picture format '\.avi'\. Valid: \.mp4, \.gif, \.png"),
        ("none/a.gif", 2, r"folder '.*none' does not exist"),
        ("a.gif", 0, r"nothing to draw"),
    ],
)
def test_what_cannot_be_written_is_refused_in_one_line(tmp_path, name, frames, message):
    with pytest.raises(UserError, match=message) as info:
        film(ROBOT, [drive(0, 0, frames)], tmp_path / name)
    assert "\n" not in str(info.value)
    assert not isinstance(info.value, NoGraphics)


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.sim import test_render as t
for _ in range(2):
    try:
        t.film(t.ROBOT, [t.drive(0, 0, 1)], Path(sys.argv[2]))
    except t.NoGraphics as error:
        print(error)
"""


@pytest.mark.parametrize("missing", ["driver", "library", "permission"])
def test_without_opengl_there_is_one_line_and_nothing_else(tmp_path, missing):
    for name in ("libEGL.so", "libEGL.so.1"):
        (tmp_path / name).write_text("not a library")
    broken = {
        "driver": {"__EGL_VENDOR_LIBRARY_FILENAMES": "/nonexistent"},
        "library": {"LD_LIBRARY_PATH": str(tmp_path)},
        "permission": {"MUJOCO_GL": "disabled"},
    }[missing]
    reason = {"driver": "EGL", "library": "libEGL.so.1", "permission": "MUJOCO_GL"}[missing]
    env = {k: v for k, v in os.environ.items() if k != "MUJOCO_GL"} | broken
    here = Path(__file__).parents[2]
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(here), str(tmp_path / "a.png")],
        env=env,
        cwd=here,
        capture_output=True,
        text=True,
    )
    assert (child.returncode, child.stderr) == (0, "")
    first, second = child.stdout.splitlines()
    assert first == second  # asking again is safe
    assert first.startswith("no OpenGL to draw with (")
    assert reason in first
    assert "libegl1 libgl1-mesa-dri" in first


def test_a_base_on_a_free_joint_stands_where_its_fields_say():
    rover, family = load_robot("rover"), make_family("body_bandits")
    world = World(rover, family, 1)
    world.reset(np.zeros(1, np.int32), [0], [episode_rng(0, 0)])
    for _ in range(10):
        fields, _ = world.step_command(np.array([[0.2, 1.0]]))
    frame = Frame({name: value[0] for name, value in fields.items()}, "", RED)
    stage = SceneRenderer(rover, family)
    stage.pose(frame, dict(world.layout))
    shown, true = stage.data.body("base_link"), world.physics.batch.qpos[0]
    np.testing.assert_allclose(shown.xpos[:2], true[:2], atol=1e-12)
    np.testing.assert_allclose(shown.xquat, true[3:7], atol=3e-3)  # it tilts a little
    goal = stage.data.body("goals_1").xpos[:2]
    np.testing.assert_allclose(goal, world.layout["goals"][0, 1])


def test_a_robot_whose_height_is_not_observed_stands_on_the_floor():
    family = make_family("two_targets", {"ticks": 10})
    stage = SceneRenderer(load_robot("go2"), family)
    rows = family.reset(0, np.random.default_rng(0))
    layout = {name: np.asarray(row)[None] for name, row in rows.items()}
    for lean in (0.0, 0.2):  # rad, about its x axis
        fields = {
            "position": np.array([1.0, 2.0]),
            "orientation": np.array([np.cos(lean / 2), np.sin(lean / 2), 0.0, 0.0]),
            "joint_position": np.tile([0.0, 0.8, -1.5], 4),
        }
        stage.pose(Frame(fields, "", (0, 0, 0)), layout)
        feet = stage.model.geom_type == mujoco.mjtGeom.mjGEOM_SPHERE
        lowest = (stage.data.geom_xpos[feet, 2] - stage.model.geom_size[feet, 0]).min()
        assert lowest == pytest.approx(0, abs=0.005)
        np.testing.assert_array_equal(stage.data.qpos[:2], [1.0, 2.0])


@pytest.mark.parametrize(("name", "steep"), [("mazes", True), ("two_targets", False)])
def test_high_walls_are_seen_from_above(name, steep):
    family, robot = make_family(name), load_robot("go2")
    rows = family.reset(0, np.random.default_rng(0))
    layout = {key: np.asarray(row)[None] for key, row in rows.items()}
    frame = Frame({"position": rows["start"][:2]}, "", RED)
    stage = SceneRenderer(robot, family)
    stage.pose(frame, layout)
    view = stage.view(EpisodeReplay(family, "", layout, [frame]))
    assert not view.follows
    assert (view.elevation < -70) == steep


@pytest.mark.parametrize("behind", [(0, 0, 0), (128, 60, 20), (255, 255, 255)])
def test_the_text_is_legible_before_any_scene(behind):
    """A contrast of 4.5 to 1 at least, as WCAG 2.1 asks for small text."""
    picture = Image.new("RGB", (480, 360), behind)
    frame = Frame({}, "12.0 s   sidestep   return 3", RED, np.zeros(0))
    render._write(picture, "mazes/maze-7, episode 0", frame)
    # Between the lines of text, at their left edge.
    paper = picture.getpixel((round(0.6 * 360 / 22), round(1.95 * 360 / 22)))
    assert _contrast(paper, render.INK) > 4.5
    assert _contrast(paper, render.MUTED) > 4.5
    assert picture.getpixel((470, 350)) == behind


def _contrast(one, two) -> float:
    def luminance(color) -> float:
        part = np.array(color[:3]) / 255
        linear = np.where(part > 0.04045, ((part + 0.055) / 1.055) ** 2.4, part / 12.92)
        return float(linear @ (0.2126, 0.7152, 0.0722))

    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)
