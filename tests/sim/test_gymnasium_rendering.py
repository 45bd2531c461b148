"""Pictures of gymnasium environments: of the present state, for gymnasium's recorders."""

import copy
import sys
from types import ModuleType

import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers import HumanRendering, RecordVideo
from gymnasium.wrappers.vector import RecordVideo as RecordVectorVideo

from sim.envs.gym_env import environment_id
from sim.rendering.offscreen import NoGraphics
from tests.support.graphics import GL

BANDITS = "mlsh/MovingBandits-v0"
# A family of each robot, and walls, blocks and a monster; gymnasium's checker draws every one.
SHOWN = (
    "moving_bandits",
    "rooms",
    "body_bandits",
    "ant_mazes",
    "ant_obstacles",
    "two_targets",
    "reach",
    "table_reach",
)
SIZE = {"width": 160, "height": 120}
RGB = {"render_mode": "rgb_array", **SIZE}


@pytest.fixture(autouse=True)
def graphics():
    """Where OpenGL is missing the tests end with the law that holds there."""
    if not GL:
        env = gymnasium.make(BANDITS, **RGB)
        env.reset()
        with pytest.raises(NoGraphics):
            env.render()
        pytest.xfail("no OpenGL here, and render said so")


@pytest.fixture
def films(monkeypatch) -> dict[str, list[np.ndarray]]:
    """What gymnasium gives to moviepy, which encodes films, by the names of their files."""
    made: dict[str, list[np.ndarray]] = {}

    class Clip:
        def __init__(self, frames, fps):
            self.frames, self.fps = frames, fps

        def write_videofile(self, path, logger):
            made[path.rpartition("/")[2]] = self.frames
            assert self.fps == 10  # of ticks of 0.1 s

    for name in ("moviepy", "moviepy.video", "moviepy.video.io"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    module = ModuleType("moviepy.video.io.ImageSequenceClip")
    module.ImageSequenceClip = Clip
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return made


@pytest.mark.parametrize("name", map(environment_id, SHOWN))
def test_a_picture_shows_the_present_state_and_changes_nothing(name):
    env, plain = gymnasium.make(name, **RGB), gymnasium.make(name)
    vector = gymnasium.make_vec(name, num_envs=2, **RGB)
    assert (env.render_mode, vector.render_mode) == ("rgb_array", "rgb_array")
    env.reset(seed=2)
    plain.reset(seed=2)
    vector.reset(seed=[1, 2])
    first = env.render()
    assert (first.shape, first.dtype) == ((120, 160, 3), np.uint8)
    assert first.std() > 5
    np.testing.assert_array_equal(env.render(), first)
    action = np.full(env.action_space.shape, 0.7, np.float32)
    for _ in range(10):
        np.testing.assert_array_equal(env.step(action)[0], plain.step(action)[0])
        vector.step(np.stack([action, action]))
    later = env.render()
    assert (later != first).any()
    assert not np.shares_memory(later, first)
    one, two = vector.render()
    np.testing.assert_array_equal(two, later)
    assert (one != two).any()
    env.close()
    vector.close()


def test_nothing_is_drawn_without_a_render_mode():
    for env in (gymnasium.make(BANDITS).unwrapped, gymnasium.make_vec(BANDITS)):
        env.reset()
        with pytest.warns(UserWarning, match="render_mode='rgb_array'"):
            assert env.render() is None


def test_a_copy_draws_too():
    env = gymnasium.make(BANDITS, **RGB)
    env.reset(seed=0)
    picture = env.render()
    other = copy.deepcopy(env)
    np.testing.assert_array_equal(other.render(), picture)
    other.close()
    np.testing.assert_array_equal(env.render(), picture)


def test_gymnasiums_list_of_pictures():
    env = gymnasium.make(BANDITS, **{**RGB, "render_mode": "rgb_array_list"})
    env.reset(seed=0)
    for _ in range(4):
        env.step(np.zeros(2))
    pictures = env.render()
    assert [picture.shape for picture in pictures] == [(120, 160, 3)] * 5


def test_gymnasiums_window_shows_the_pictures():
    with pytest.warns(UserWarning, match="'human' rendering"):
        env = gymnasium.make(BANDITS, **{**RGB, "render_mode": "human"})
    assert isinstance(env, HumanRendering)
    assert env.unwrapped.render_mode == "rgb_array"


def test_gymnasium_records_a_film_of_every_episode(films, tmp_path):
    env = gymnasium.make(BANDITS, max_episode_steps=4, **RGB)
    env = RecordVideo(env, str(tmp_path / "films"), episode_trigger=lambda number: True)
    for number in range(2):
        env.reset(seed=number)
        shown, truncated = [env.unwrapped.render()], False
        while not truncated:
            _, _, _, truncated, _ = env.step(np.array([0.5, 0.5]))
            shown.append(env.unwrapped.render())
    env.close()
    assert list(films) == ["rl-video-episode-0.mp4", "rl-video-episode-1.mp4"]
    np.testing.assert_array_equal(films["rl-video-episode-1.mp4"], shown)
    assert len(shown) == 5


def test_gymnasium_records_a_film_of_many(films, tmp_path):
    env = gymnasium.make_vec(BANDITS, num_envs=2, max_episode_steps=4, **RGB)
    env = RecordVectorVideo(env, str(tmp_path / "films"), video_aspect_ratio=(2, 1))
    env.reset(seed=0)
    for _ in range(10):
        env.step(np.full((2, 2), 0.5))
    env.close()
    frames = films["rl-video-episode-0.mp4"]
    assert [frame.shape for frame in frames] == [(120, 320, 3)] * 5
    assert (frames[0] != frames[4]).any()
