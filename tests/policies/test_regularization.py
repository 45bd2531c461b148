"""Smoothness and symmetry: gradients, what is learned, and what is mirrored at all."""

from dataclasses import replace
from itertools import product
from typing import ClassVar, get_args

import numpy as np
import pytest
import torch
from pydantic.dataclasses import dataclass

from policies.mlsh.config import NetworkConfig
from policies.mlsh.config_checks import check_names
from policies.mlsh.losses import policy_sums
from policies.mlsh.mlsh import Mlsh
from policies.mlsh.networks import Activation, Normalizer
from policies.mlsh.penalties import Penalty
from policies.mlsh.ppo import ppo_update
from policies.mlsh.regularization_config import RegularizationConfig
from policies.mlsh.regularizer import Regularizer
from policies.mlsh.symmetry import Symmetry, find_symmetry
from sim.errors import UserError
from sim.interface import STRICT
from sim.interface.mirror import ElementMirror, TermMirror
from sim.physics.robot_model import load_robot
from sim.tasks import registry
from sim.tasks.moving_bandits import MovingBandits
from sim.tasks.registry import make_family
from tests.support.bundles import changed_robot, small_config
from tests.support.learners import PPO, by_torch, draw, level, log_prob, plain, rng, shuffle

# Actions 0 and 2 change places with the other sign, and so do observations 0 and 3.
ACTION = ElementMirror(np.array([2, 1, 0]), np.array([-1, 1, -1], np.float32))
OBSERVATION = ElementMirror(np.array([3, 1, 2, 0]), np.array([-1, 1, -1, -1], np.float32))
N = 30


def others(part):
    """Penalties of each kind on the samples of a policy with three actions."""
    random = rng(4)
    near = part.obs + 0.3 * random.standard_normal(part.obs.shape).astype(np.float32)
    later = random.standard_normal(part.obs.shape).astype(np.float32)
    counts = random.random(len(part)) < 0.5
    return {
        "temporal": Penalty(0.7, later),
        "spatial": Penalty(0.2, near),
        "mirror": Penalty(1.3, OBSERVATION(part.obs), counts, ACTION),
    }


# Gradients ----------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", get_args(Activation))
@pytest.mark.parametrize("which", list(product([False, True], repeat=3)))
def test_gradient_of_the_penalties_is_torchs(which, activation):
    policies = level(log_stds=3, network=NetworkConfig(hidden=(8, 6), activation=activation))
    row = 1
    policies.policy.initialize(row, rng(1), output_gain=1, log_std=-0.3)
    s = draw(policies, row, N, reward=plain)
    policies.policy.numpy[row] += 0.2 * rng(3).standard_normal(policies.policy.numpy.shape[1])
    known = others(s)
    chosen = [p for p, wanted in zip(known.values(), which, strict=True) if wanted]
    ours = policy_sums(policies.policy, row, s, PPO, 0.1, chosen)

    parameters = torch.from_numpy(policies.policy.numpy[row]).clone().requires_grad_()
    ratio = (log_prob(policies, row, s, parameters) - torch.from_numpy(s.log_prob)).exp()
    advantage = torch.from_numpy(s.advantage)
    limited = ratio.clamp(1 - PPO.clip, 1 + PPO.clip)
    loss = -torch.minimum(ratio * advantage, limited * advantage).sum()

    def mean(obs):
        return by_torch(policies.policy, row, obs, parameters)[0]

    penalty = torch.zeros(())
    for name, wanted in zip(known, which, strict=True):
        if not wanted:
            continue
        p, own = known[name], mean(s.obs)
        if name == "mirror":
            own = own[:, ACTION.order.tolist()] * torch.from_numpy(ACTION.signs)
        off = mean(p.other) - own
        weight = torch.ones(N) if p.counts is None else torch.from_numpy(p.counts.astype("f4"))
        penalty = penalty + p.coefficient * (weight[:, None] * off**2).sum()
    entropy = torch.distributions.Normal(
        mean(s.obs), by_torch(policies.policy, row, s.obs, parameters)[1].exp()
    ).entropy()
    (loss + penalty - 0.1 * entropy.sum()).backward()
    assert ours.gradient == pytest.approx(parameters.grad.numpy(), rel=1e-3, abs=2e-3)
    assert ours.loss == pytest.approx((loss + penalty).item(), rel=1e-4, abs=1e-3)
    assert (penalty.item() > 0.1) == any(which)  # it says something


def test_without_penalties_nothing_changes():
    policies = level(log_stds=3)
    s = draw(policies, 0, N, reward=plain)
    alone, empty = (policy_sums(policies.policy, 0, s, PPO, 0.1, *more) for more in ([], [[]]))
    assert np.array_equal(alone.gradient, empty.gradient)
    assert alone.loss == empty.loss
    updates = []
    for regularizer in (None, Regularizer(RegularizationConfig(), None, Normalizer(4), ALL)):
        policies = level(log_stds=3)
        report = ppo_update(policies, [s, s], shuffle(), regularizer=regularizer)
        updates.append((policies.policy.numpy, policies.value.numpy, report))
    assert np.array_equal(updates[0][0], updates[1][0])
    assert np.array_equal(updates[0][1], updates[1][1])
    assert updates[0][2] == updates[1][2]


# What is learned ----------------------------------------------------------------------------

ALL = np.ones(1, bool)
FLIP = ElementMirror(np.arange(4), np.array([-1, 1, 1, 1], np.float32))
TURN = ElementMirror(np.arange(1), np.array([-1], np.float32))
BOTH = Symmetry(FLIP, TURN, ALL)


def trained(config, symmetric=ALL, symmetry=BOTH, updates=40, **more):
    """A policy that has met the right side alone, where the best action is 0.7."""
    policies = level(outputs=1, log_stds=1, count=1)
    regularizer = Regularizer(config, symmetry, Normalizer(4), symmetric)
    for update in range(updates):
        one = draw(policies, 0, 128, reward=lambda o, a: np.zeros(len(o)), seed=update)
        random = rng(1000 + update)
        obs = one.obs.copy()
        obs[:, 0] = 1 + np.abs(obs[:, 0])
        mean = policies.policy.forward_row(0, obs)
        std = np.exp(policies.policy.log_std(0))
        noise = random.standard_normal(mean.shape).astype(np.float32)
        action = mean + std * noise
        gain = -np.abs(action[:, 0] - 0.7)
        each = -0.5 * noise**2 - np.log(std) - 0.5 * np.log(2 * np.pi)
        extra = {name: make(obs, random) for name, make in more.items()}
        one = replace(
            one,
            **{"obs": obs, "action": action, "log_prob": each.sum(axis=1).astype(np.float32)},
            **{"advantage": (gain - gain.mean()) / gain.std(), "target": gain, **extra},
        )
        ppo_update(policies, [one], shuffle(update), regularizer=regularizer)
    return policies


def actions(policies, side):
    obs = rng(7).standard_normal((200, 4)).astype(np.float32)
    obs[:, 0] = side * (1 + np.abs(obs[:, 0]))
    return policies.policy.forward_row(0, obs)[:, 0]


@pytest.mark.parametrize("how", ["augmentation", "loss"])
def test_what_is_learned_on_one_side_is_known_on_the_other(how):
    policies = trained(RegularizationConfig(symmetry=how, mirror_loss=3.0))
    assert actions(policies, 1).mean() == pytest.approx(0.7, abs=0.15)
    assert actions(policies, -1).mean() == pytest.approx(-0.7, abs=0.2)
    blind = trained(RegularizationConfig())
    assert actions(blind, 1).mean() == pytest.approx(0.7, abs=0.15)
    assert actions(blind, -1).mean() > -0.3


@pytest.mark.parametrize("how", ["augmentation", "loss"])
def test_steps_of_other_tasks_are_not_mirrored(how):
    config = RegularizationConfig(symmetry=how, mirror_loss=3.0)
    mirrored, blind = trained(config, ~ALL), trained(RegularizationConfig())
    assert np.abs(actions(mirrored, -1) - actions(blind, -1)).max() < 1e-4


def test_samples_in_the_mirror():
    policies = level(log_stds=3)
    random = rng(2)
    s = draw(policies, 0, N, reward=plain)
    later, near = random.standard_normal((2, N, 4)).astype(np.float32)
    group = random.integers(0, 2, N)
    s = replace(s, following=later, near=near, group=group)
    regularizer = Regularizer(
        RegularizationConfig(symmetry="augmentation"),
        Symmetry(OBSERVATION, ACTION, np.array([False, True])),
        Normalizer(4),
        np.array([False, True]),
    )
    whole = regularizer.extended(s)
    mine = np.flatnonzero(group == 1)
    assert 0 < len(mine) < N
    assert len(whole) == N + len(mine)
    for name in ("obs", "following", "near"):
        image = getattr(whole, name)[N:]
        assert image == pytest.approx(OBSERVATION(getattr(s, name)[mine]), abs=1e-6)
    assert np.array_equal(whole.action[N:], ACTION(s.action[mine]))
    # An action has the probability in the mirror that it had where it was drawn.
    for name in ("log_prob", "advantage", "target", "value", "group"):
        assert np.array_equal(getattr(whole, name)[N:], getattr(s, name)[mine])
        assert np.array_equal(getattr(whole, name)[:N], getattr(s, name))


def test_the_mirror_of_what_is_normalized_is_normalized_itself():
    random = rng(5)
    normalizer = Normalizer(4)
    normalizer.update(
        (random.standard_normal((50, 4)) * [1, 2, 3, 4] + [4, 0, -1, 2]).astype("f4")
    )
    x = random.standard_normal((20, 4)).astype(np.float32)
    symmetry = Symmetry(OBSERVATION, ACTION, ALL)
    image = symmetry.normalized(normalizer(x), normalizer)
    assert image == pytest.approx(normalizer(OBSERVATION(x)), abs=1e-5)


def far(obs, random):
    return random.standard_normal(obs.shape).astype(np.float32)


def beside(obs, random):
    return obs + random.standard_normal(obs.shape).astype(np.float32)


@pytest.mark.parametrize(
    ("setting", "name", "other"),
    [("temporal_smoothness", "following", far), ("spatial_smoothness", "near", beside)],
)
def test_smooth_skills_change_their_actions_less(setting, name, other):
    changes = []
    for coefficient in (0.0, 3.0):
        config = RegularizationConfig(**{setting: coefficient})
        policies = trained(config, symmetry=None, **({name: other} if coefficient else {}))
        obs = rng(7).standard_normal((500, 4)).astype(np.float32)
        obs[:, 0] = 1 + np.abs(obs[:, 0])
        both = (policies.policy.forward_row(0, x) for x in (obs, other(obs, rng(8))))
        changes.append(np.sqrt(np.square(np.subtract(*both)).mean()))
    assert changes[1] < 0.5 * changes[0]


# A training ---------------------------------------------------------------------------------


@dataclass(frozen=True, config=STRICT)
class Mirrored(MovingBandits):
    """Moving Bandits, which are the same with left and right exchanged."""

    name: ClassVar[str] = "mirrored_bandits"
    mirrored_tasks: ClassVar[tuple[int, ...]] = (0, 1)
    mirror: ClassVar[dict[str, TermMirror]] = {"goals": TermMirror(signs=(1, -1, 1, -1))}
    shows_task: ClassVar[bool] = False


MIRROR = """
mirror:
  tolerance: 1.0e-6
  observation: {position: {signs: [1, -1]}, velocity: {signs: [1, -1]}}
  action: {base_velocity: {signs: [1, -1]}}

action:
"""


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A family whose tasks have mirror images, and a robot that has one."""
    monkeypatch.setitem(registry.FAMILIES, Mirrored.name, Mirrored)
    return Mirrored.name, changed_robot(tmp_path / "robot", "omni", ("\naction:\n", MIRROR))


def config_of(places, **regularization):
    family, robot = places
    config = small_config(5, family=family, robot=robot)
    changed = replace(config.regularization, **regularization)
    return replace(config, regularization=changed)


SETTINGS = {
    "symmetric": {"symmetry": "augmentation"},
    "symmetric by loss": {"symmetry": "loss"},
    "smooth": {"temporal_smoothness": 0.1, "spatial_smoothness": 0.1},
    "all": {**{"symmetry": "augmentation", "temporal_smoothness": 0.1, "spatial_smoothness": 0.1}},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_training_goes_on_to_the_bit(places, name):
    config = config_of(places, **SETTINGS[name])
    whole, plain_one = Mlsh(config), Mlsh(config_of(places))
    for each in (whole, plain_one):
        for _ in range(2):
            each.iterate()
    states = [{key: np.array(v) for key, v in each.state().items()} for each in (whole, plain_one)]
    assert states[0].keys() == states[1].keys()
    assert not np.array_equal(states[0]["skills.policy"], states[1]["skills.policy"])
    resumed = Mlsh(config)
    resumed.restore(states[0])
    for each in (whole, resumed):
        each.iterate()
    first, second = whole.state(), resumed.state()
    for key, value in first.items():
        assert np.array_equal(value, second[key]), key


def test_the_neutral_settings_are_the_training_of_before(places):
    runs = [
        Mlsh(config_of(places)),
        Mlsh(config_of(places, spatial_deviation=0.3, mirror_loss=2.0)),
    ]
    updates = [each.updates for each in runs]
    assert all(each.symmetry is None and each._regularizer() is None for each in updates)
    for each in runs:
        for _ in range(2):
            each.iterate()
    first, second = (each.state() for each in runs)
    for key, value in first.items():
        assert np.array_equal(value, second[key]), key


def test_the_next_observation_is_of_the_same_episode(places):
    # Episodes of 50 ticks in rollouts of 50: the last tick has no next one, and counts nothing.
    learner = Mlsh(config_of(places, temporal_smoothness=0.1))
    found = []
    with pytest.MonkeyPatch.context() as patch:
        original = ppo_update

        def update(policies, samples, *args, **kwargs):
            found.append(samples)
            return original(policies, samples, *args, **kwargs)

        patch.setattr("policies.mlsh.updates.ppo_update", update)
        for _ in range(2):
            learner.iterate()
    samples = [s for s in found[-1] if s.following is not None and len(s)]
    assert samples
    still = np.concatenate([(s.obs == s.following).all(axis=1) for s in samples])
    assert still.mean() == pytest.approx(1 / 50, abs=0.01)


# What is refused ----------------------------------------------------------------------------


def refusal(config) -> str:
    texts = []
    for act in (check_names, Mlsh):
        with pytest.raises(UserError) as caught:
            act(config)
        texts.append(str(caught.value))
    assert texts[0] == texts[1]
    assert "\n" not in texts[0]
    return texts[0]


def test_a_robot_without_a_mirror_image_is_refused(places):
    text = refusal(config_of((places[0], "omni"), symmetry="augmentation"))
    assert "robot 'omni' states no mirror image" in text


def test_a_family_without_mirror_images_is_refused(places):
    text = refusal(config_of(("moving_bandits", places[1]), symmetry="augmentation"))
    assert "task family 'moving_bandits' states no mirror image of its tasks" in text
    # By a loss each skill is made symmetric, but the family's terms have to have an image.
    text = refusal(config_of(("moving_bandits", places[1]), symmetry="loss"))
    assert "observation term 'goals' is missing" in text


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("mirrored_tasks", (0,), "mirrored_tasks are (0,), of tasks 0 to 1, -1 is none"),
        ("mirrored_tasks", (0, 0), "mirrored_tasks (0, 0) are no pairs"),
        ("mirrored_tasks", (0, 2), "mirrored_tasks are (0, 2), of tasks 0 to 1, -1 is none"),
        ("mirrored_tasks", (1, 0), "no task of family 'mirrored_bandits' is its own mirror image"),
        ("mirror", {"goals": TermMirror(signs=(1, -1))}, "'goals' has 4 elements, 2 are given"),
        ("mirror", {"goals": (1, -1)}, "mirror of 'goals' is no TermMirror: (1, -1)"),
        ("mirror", {}, "observation term 'goals' is missing"),
    ],
)
def test_families_whose_images_cannot_be_are_refused(places, monkeypatch, name, value, said):
    monkeypatch.setattr(Mirrored, name, value)
    assert said in refusal(config_of(places, symmetry="augmentation"))


def test_skills_that_see_the_task_are_mirrored_on_every_one(places, monkeypatch):
    monkeypatch.setattr(Mirrored, "mirrored_tasks", (1, 0))
    monkeypatch.setattr(Mirrored, "shows_task", True)
    config = config_of(places, symmetry="augmentation")
    robot, family = load_robot(config.robot), make_family(config.family, {})
    assert find_symmetry(config, robot, family).tasks.tolist() == [True, True]
    network = replace(config.network, hidden_from_skills=("goals",))
    assert "no task of family" in refusal(replace(config, network=network))


@pytest.mark.parametrize(
    ("commands", "shown", "own"),
    [
        (2, False, "11"),
        (3, False, "110"),
        (5, False, "11001"),
        (6, False, "110010"),
        (7, False, "1100100"),
        (6, True, "111111"),
    ],
)
def test_a_step_of_a_velocity_command_in_the_mirror_is_one_of_its_image(commands, shown, own):
    family = make_family("velocity_commands", {"commands": commands, "shown": shown})
    for task, image in enumerate(family.mirrored_tasks):
        if image >= 0:
            there = family.full(task) * [1, -1, -1]  # ahead, left, counter-clockwise
            np.testing.assert_array_equal(family.full(image), there)
    alone = {2: [], 3: ["turn_left"], 5: [], 6: ["left"], 7: []}[commands]
    assert [family.tasks[t] for t, i in enumerate(family.mirrored_tasks) if i < 0] == alone
    config = small_config(5)  # of which the symmetry and what skills do not see count here
    regularization = replace(config.regularization, symmetry="augmentation")
    config = replace(config, regularization=regularization)
    found = find_symmetry(config, load_robot("go2"), family)
    assert "".join(str(int(each)) for each in found.tasks) == own
    size = load_robot("go2").interface.with_terms(family.terms).observation_size
    seen = np.arange(1.0, size + 1)
    np.testing.assert_array_equal(found.observation(found.observation(seen)), seen)


def test_a_map_that_does_not_hold_is_refused_before_a_training(places, tmp_path):
    path = tmp_path / "robot" / "robot.yaml"
    text = path.read_text()
    path.write_text(text.replace("velocity: {signs: [1, -1]}}", "velocity: {}}", 1))
    assert "mirror does not hold: observation velocity.1" in refusal(
        config_of(places, symmetry="augmentation")
    )
