"""Configurations: YAML, impossible combinations, settings from the command line, presets."""

import copy
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from policies.mlsh.config import (
    NetworkConfig,
    config_from_dict,
    config_to_dict,
    read_config,
    write_config,
)
from policies.mlsh.presets import PRESETS, preset
from policies.training.trained_with import LATER, settings_digest
from sim.errors import UserError
from sim.files.migrations import CONFIG, TRAINING, KeyChange, ValueChange, renamed_keys
from sim.randomization.schema import sim_params_from_dict
from tests.support.bundles import small_config


def refusal(call, *args) -> str:
    with pytest.raises(UserError) as caught:
        call(*args)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", PRESETS)
def test_yaml_comes_back_equal(tmp_path, name):
    config = preset(name, "ring_bandits", "omni", seed=7)
    config = replace(config, family_parameters={"radius": 0.1 + 0.2, "ticks": 60})
    sim_params = {"physics": {"mass_factor": 0.1 + 0.2}, "sensors": {"velocity": {"bias": -1}}}
    config = replace(
        config, domain_randomization=True, sim_params=sim_params_from_dict(sim_params, "test")
    )
    write_config(config, tmp_path / "config.yaml")
    assert read_config(tmp_path / "config.yaml") == config
    assert config_from_dict(config_to_dict(config), "here") == config


def test_unknown_preset():
    text = refusal(preset, "defualt", "moving_bandits", "omni")
    assert "Did you mean 'default'?" in text
    assert "faithful-2017" in text


def test_steps_and_iterations():
    config = small_config()  # 2 groups of 4 simulations for 50 ticks, 2000 steps
    assert config.mlsh.steps_per_update == 200
    assert config.mlsh.steps_per_iteration == 400
    assert config.iterations == 5
    assert replace(config, steps=399).iterations == 1  # never nothing


# Names of former versions --------------------------------------------------------------------


@pytest.mark.parametrize("old", [each.where for each in TRAINING if isinstance(each, KeyChange)])
def test_an_old_name_of_a_setting_is_refused_with_the_new_one(old):
    path, new = ".".join(old), renamed_keys(CONFIG)[".".join(old)]
    words = f"no setting {path!r}. It is now called {new!r}."
    assert words in refusal(small_config().with_values, [f"{path}=0.3"])
    data: Any = config_to_dict(small_config())
    (data[old[0]] if old[1:] else data)[old[-1]] = 0.3
    words = f"file: {old[-1]} is {new.rpartition('.')[2]} now"
    assert words == refusal(config_from_dict, data, "file")


@pytest.mark.parametrize("change", [each for each in TRAINING if isinstance(each, ValueChange)])
def test_an_old_value_of_a_setting_is_refused_with_the_new_one(change):
    path = ".".join(change.where)
    words = f"settings: {change.where[-1]}: {change.old} is {change.new} now"
    assert words == refusal(small_config().with_values, [f"{path}={change.old}"])
    small_config().with_values([f"{path}={change.new}"])


# Settings that came later --------------------------------------------------------------------


def test_a_training_with_the_defaults_of_later_settings_has_the_digest_of_before():
    data = config_to_dict(small_config())
    before: Any = copy.deepcopy(data)
    for path in LATER:
        section, _, key = path.partition(".")
        del before[section][key]
        if not before[section]:
            del before[section]
    assert settings_digest(before, ()) == settings_digest(data, ())
    assert config_from_dict(before, "file") == small_config()
    for path, default in LATER.items():
        other: Any = copy.deepcopy(data)
        section, _, key = path.partition(".")
        assert other[section][key] == default
        other[section][key] = "another"
        assert settings_digest(other, ()) != settings_digest(data, ())


def test_sizes_are_those_of_the_level():
    network = NetworkConfig(hidden=(3,))
    assert (network.of_skills, network.of_masters, network.value_sizes) == (network, network, (3,))
    network = NetworkConfig(
        **{"hidden": (3,), "skill_hidden": (4, 5), "master_hidden": (), "value_hidden": (6,)},
        **{"activation": "elu", "master_activation": "tanh"},
    )
    assert (network.of_skills.hidden, network.of_skills.activation) == ((4, 5), "elu")
    assert (network.of_masters.hidden, network.of_masters.activation) == ((), "tanh")
    assert network.of_skills.value_sizes == network.of_masters.value_sizes == (6,)


# Impossible combinations --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("mlsh.rollout_ticks=55", "55 is not a multiple of decision_ticks 10 (55 = 5 x 10 + 5)"),
        ("mlsh.decision_ticks=1", "decision_lead 1 must be below decision_ticks 1"),
        ("mlsh.envs=3", "two simulations per skill: envs 3 < 2 x 2"),
        ("mlsh.skills=0", "mlsh.skills: input should be greater than or equal to 1, got 0"),
        ("mlsh.joint=0", "mlsh.joint"),
        ("mlsh.warmup=-1", "mlsh.warmup"),
        ("mlsh.decision_lead=2", "mlsh.decision_lead"),
        ("mlsh.probe=sometimes", "mlsh.probe"),
        ("mlsh.master_advantage=none", "mlsh.master_advantage"),
        ("mlsh.master_epsilon=1.5", "mlsh.master_epsilon"),
        ("master.learning_rate=0", "master.learning_rate"),
        ("master.gamma=.nan", "master.gamma"),
        ("skill.minibatch=0.5", "skill.minibatch"),
        ("skill.max_grad_norm=-1", "skill.max_grad_norm"),
        ("network.hidden=[64, 0]", "network.hidden.1"),
        ("network.value_hidden=[0]", "network.value_hidden"),
        ("network.activation=relu", "network.activation: input should be 'tanh' or 'elu', got"),
        ("seed=-1", "seed"),
        ("steps=0", "steps"),
        ("mlsh.groups=ten", "got 'ten'"),
        ("mlsh={}", "mlsh.skills: field required"),
        ("mlsh.skills=true", "mlsh.skills: a number is expected, got True"),
        ("skill.learning_rate='0.5'", "skill.learning_rate: a number is expected, got '0.5'"),
        ("mlsh.duration_jitter=true", "mlsh.duration_jitter: a number is expected, got True"),
        ("network.hidden=[true, 8]", "network.hidden.0: a number is expected, got True"),
        ("network.initial_log_std=1e300", "network.initial_log_std: "),
        ("family_parameters.ticks=true", "family_parameters.ticks: a number is expected, got T"),
    ],
)
def test_impossible_settings_are_refused(setting, words):
    assert words in refusal(small_config().with_values, [setting])


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("mlsh.groupz=1", "no setting 'mlsh.groupz'. Did you mean 'mlsh.groups'?"),
        ("groups=1", "no setting 'groups'"),
        ("mlsh.groups.more=1", "no setting 'mlsh.groups.more'"),
        ("seed.more=1", "no setting 'seed.more'"),
        ("=1", "no setting ''"),
        ("mlsh.groups", "setting 'mlsh.groups': key=value is expected"),
        ("mlsh.groups=[", "setting 'mlsh.groups=[': not YAML"),
    ],
)
def test_unknown_settings_are_refused(setting, words):
    assert words in refusal(small_config().with_values, [setting])


@pytest.mark.parametrize(
    ("setting", "section", "key", "value"),
    [
        ("mlsh.groups=20", "mlsh", "groups", 20),
        ("skill.learning_rate=1e-3", "skill", "learning_rate", 1e-3),  # a string in YAML 1.1
        ("mlsh.groups=1e1", "mlsh", "groups", 10),
        ("mlsh.probe=none", "mlsh", "probe", "none"),
        ("mlsh.balanced_tasks=false", "mlsh", "balanced_tasks", False),
        ("master.max_grad_norm=null", "master", "max_grad_norm", None),
        ("network.hidden=[32]", "network", "hidden", (32,)),
        ("family_parameters.radius=0.3", "family_parameters", "radius", 0.3),
    ],
)
def test_settings_are_yaml(setting, section, key, value):
    before = small_config()
    after = asdict(before.with_values([setting]))
    assert after[section][key] == value
    assert type(after[section][key]) is type(value)
    after[section].pop(key)
    expected = asdict(before)
    expected[section].pop(key, None)
    assert after == expected  # and nothing else changed


def test_settings_combine():
    config = small_config().with_values(
        ["mlsh.decision_ticks=25", "seed=2", "mlsh.rollout_ticks=75"]
    )
    assert (config.mlsh.decision_ticks, config.mlsh.rollout_ticks, config.seed) == (25, 75, 2)


# Files --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"a: [", "not YAML"),
        (b"\xff\xfe\x00", "not YAML"),
        (b"- 1\n- 2\n", "a mapping is expected, got list"),
        (b"", "a mapping is expected, got NoneType"),
        (b"family: a\nfamily: b\n", "key 'family' is given twice"),
        (b"schema: 2\nfamily: moving_bandits\n", "mlsh: field required"),
        (
            b"family: moving_bandits\n",
            "schema 1, 2 is expected: randomise is domain_randomization",
        ),
    ],
)
def test_broken_files_are_refused(tmp_path, text, words):
    path = tmp_path / "config.yaml"
    path.write_bytes(text)
    message = refusal(read_config, path)
    assert str(path) in message
    assert words in message


def test_missing_and_unreadable_files(tmp_path):
    assert "does not exist" in refusal(read_config, tmp_path / "none.yaml")
    assert "not a file" in refusal(read_config, tmp_path)


@pytest.mark.parametrize("section", ["", "mlsh", "master", "skill", "network"])
def test_unknown_keys_are_refused_by_name(section):
    data = config_to_dict(small_config())
    (data[section] if section else data)["color"] = 1
    text = refusal(config_from_dict, data, "here")
    assert f"here: {section + ': ' if section else ''}no key 'color'. Valid: " in text


def test_numbers_survive_in_full_precision(tmp_path):
    value = float(np.nextafter(0.01, 1))
    config = small_config().with_values([f"master.learning_rate={value!r}"])
    write_config(config, tmp_path / "config.yaml")
    assert read_config(tmp_path / "config.yaml").master.learning_rate == value


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("master.entropy=0.1", "master.entropy=0.2"),
        ("master.entropy=0.1", "master.entropy=0.1"),
        ("network.hidden=[8]", "network={hidden: [16]}"),
        ("family_parameters={radius: 1.0}", "family_parameters.radius=0.5"),
    ],
)
def test_a_setting_that_is_given_twice_is_refused(first, second):
    for pair in ([first, second], [second, "threads=1", first]):
        said = refusal(small_config().with_values, pair)
        assert said == f"settings {pair[0]!r} and {pair[-1]!r}: give it once"
