"""Settings that nobody can mean are refused with a reason, before anything is allocated."""

import shutil
from dataclasses import replace

import pytest

from policies.bundle.manifest import check_name
from policies.mlsh.config_checks import check_names
from policies.mlsh.mlsh import Mlsh
from policies.mlsh.offpolicy_config import OffPolicyConfig
from policies.mlsh.presets import default_config
from sim.errors import UserError
from sim.physics.robot_model import ROBOTS
from sim.tasks.registry import FAMILIES, make_family
from tests.support.bundles import small_config


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("mlsh.groups=100000000", "simulations, "),
        ("mlsh.envs=100000000", "simulations, "),
        ("threads=100000", "threads 100,000: at most 1,024 are accepted"),
        ("mlsh.rollout_ticks=1000000000", "steps of a rollout, "),
        ("network.hidden=[100000, 100000]", "units of a layer, 100,000"),
        ("network.value_hidden=[100000]", "network.value_hidden, units of a layer, 100,000"),
        (f"network.skill_hidden={[8] * 20}", "network.skill_hidden, layers, 20: at most 16"),
    ],
)
def test_sizes_are_bounded(setting, said):
    config = small_config().with_values([setting])
    for act in (Mlsh, check_names):
        with pytest.raises(UserError, match=said):
            act(config)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("offpolicy.features=1000000000", "units of a layer, 1,000,001,600: at most 8,192"),
        ("offpolicy.products=1000000", "units of a layer, 4,000,064: at most 8,192"),
        ("offpolicy.members=1000000", "offpolicy.members 1,000,000: at most 1,000 are accepted"),
        ("offpolicy.iterations=1000000000", "offpolicy.iterations 1,000,000,000: at most 10,000"),
    ],
)
def test_sizes_of_masters_that_learn_off_policy_are_bounded(setting, said):
    config = replace(small_config(), offpolicy=OffPolicyConfig()).with_values([setting])
    with pytest.raises(UserError, match=said):
        Mlsh(config)


@pytest.mark.parametrize("name", [*FAMILIES])
def test_an_episode_that_nobody_can_simulate_is_refused(name):
    # Also where it stands in the manifest of a bundle, whose tasks are made by the same function.
    with pytest.raises(UserError, match="ticks 1,000,000,000: at most 100,000 are accepted"):
        make_family(name, {"ticks": 10**9})


def test_a_master_that_would_decide_once():
    config = small_config().with_values(["mlsh.decision_ticks=200", "mlsh.rollout_ticks=200"])
    with pytest.raises(UserError, match=r"decision_ticks 200: an episode of .* has 50 ticks"):
        check_names(config)


def test_a_family_s_recommendation_suits_a_robot_with_other_terms(tmp_path):
    robot = shutil.copytree(ROBOTS / "ant", tmp_path / "walker")
    text = (robot / "robot.yaml").read_text()
    assert "name: height" in text
    (robot / "robot.yaml").write_text(text.replace("name: height", "name: altitude"))
    config = default_config("ant_movement", str(robot))
    check_names(config)
    assert "height" not in config.network.hidden_from_masters
    assert "ankle" in config.network.hidden_from_masters
    assert "height" in default_config("ant_movement", "ant").network.hidden_from_masters


@pytest.mark.parametrize(
    ("change", "acts"),
    [
        ({}, False),  # W = 1, which is the probe's update
        ({"warmup": 0}, False),
        ({"warmup": 2}, True),
        ({"probe": "none"}, True),
    ],
)
def test_an_entropy_bonus_that_is_over_before_a_master_learns_is_refused(change, acts):
    base = default_config("moving_bandits", "omni")
    method = replace(base.mlsh, **change)
    config = replace(base, mlsh=method, master=replace(base.master, entropy=0.05))
    if acts:
        check_names(config)
    else:
        with pytest.raises(UserError, match=r"^master.entropy 0.05: has no effect"):
            check_names(config)


def test_a_name_that_no_bundle_can_have_is_refused_before_the_work():
    check_name("master", "a" * 100)
    with pytest.raises(UserError, match=r"master name .* has 101 characters, at most 100"):
        check_name("master", "a" * 101)
