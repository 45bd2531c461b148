"""Limits of a skill: from a file into the bundle and to the guard, within the robot's own."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from mlsh_ros.control.controller import Tick
from mlsh_ros.control.faults import FaultError
from mlsh_ros.control.safety_monitor import SafetyMonitor, SafetyRules
from policies.bundle.bundle import load_bundle, write_bundle
from policies.bundle.manifest import MANIFEST, skill_names
from policies.bundle.skill_limits import check_skill_limits, read_skill_limits
from policies.training.finetune import add_masters
from sim.errors import UserError
from tests.support.floater import interface as floater

SKILLS = ("skill-0", "skill-1")
RULES = SafetyRules(max_late_decisions=2, max_missed_ticks=3, max_switches=10, max_clock_jump=0.1)


def limits_of(path: Path, data, interface, skills=SKILLS):
    path.write_text(yaml.safe_dump(data) if not isinstance(data, str) else data)
    return read_skill_limits(path, skills, interface)


def test_what_stands_in_the_file_is_what_is_read(bundle, tmp_path):
    data = {"skill-0": {"velocity": [-0.5, 0.5], "position": [-2, 2.5]}, "skill-1": {}}
    made = limits_of(tmp_path / "limits.yaml", data, bundle.interface)
    assert made == {
        "skill-0": {"velocity": (-0.5, 0.5), "position": (-2.0, 2.5)},
        "skill-1": {},
    }
    # A term without a limit of its own may be limited at will, the others as far as they are.
    same = {"skill-0": {"velocity": [-1.3, 1.3]}}
    assert limits_of(tmp_path / "same.yaml", same, bundle.interface)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"skill-7": {}}, "no skill 'skill-7'. Did you mean 'skill-"),
        ({"skill-0": {"speed": [0, 1]}}, "no observation term 'speed'. Valid: position, velocity"),
        ({"skill-0": {"velocity": [0.5, 0.5]}}, "skill_limits.skill-0 (0.5, 0.5) is empty"),
        ({"skill-0": {"velocity": [0.5, -0.5]}}, "skill_limits.skill-0 (0.5, -0.5) is empty"),
        ({"skill-0": {"velocity": [-1.4, 1.0]}}, "is beyond the robot's own limit (-1.3, 1.3)"),
        ({"skill-0": {"velocity": [-1.0, 1.31]}}, "is beyond the robot's own limit (-1.3, 1.3)"),
        ({"skill-0": {"velocity": [2.0, 3.0]}}, "is beyond the robot's own limit (-1.3, 1.3)"),
        ({"skill-0": {"velocity": [-1.0]}}, "skill-0.velocity.1: field required"),
        ({"skill-0": {"velocity": [-1, "fast"]}}, "skill-0.velocity.1: a number is"),
        ({"skill-0": {"velocity": [-1, float("nan")]}}, "skill-0.velocity.1: input should be a"),
        ({"skill-0": {"velocity": None}}, "skill-0.velocity is empty"),
        ({"skill-0": None}, "skill-0 is empty"),
        ("skill-0: {velocity: [0, 1]}\nskill-0: {}", "key 'skill-0' is given twice"),
        ("- skill-0", "a mapping is expected, got list"),
        ("", "a mapping is expected, got NoneType"),
        ("skill-0: [", "not YAML"),
    ],
)
def test_what_does_not_hold_is_refused_in_one_line(bundle, tmp_path, data, said):
    path = tmp_path / "limits.yaml"
    with pytest.raises(UserError) as info:
        limits_of(path, data, bundle.interface)
    assert str(info.value).startswith(f"{path}: ")
    assert said in str(info.value)
    assert "\n" not in str(info.value)


def test_a_missing_file_is_named(bundle, tmp_path):
    with pytest.raises(UserError, match=r"none\.yaml does not exist"):
        read_skill_limits(tmp_path / "none.yaml", SKILLS, bundle.interface)


def test_a_tilt_limit_in_degrees_is_refused_where_the_robot_has_none():
    made = floater()
    free = tuple(replace(t, limit=None) if t.name == "tilt" else t for t in made.observation)
    free = replace(made, observation=free)
    check_skill_limits({"skill-0": {"tilt": (0.0, 0.8)}}, SKILLS, free)
    with pytest.raises(ValueError, match=r"skill_limits.skill-0 \(0.0, 45.0\) is never passed"):
        check_skill_limits({"skill-0": {"tilt": (0.0, 45.0)}}, SKILLS, free)
    with pytest.raises(ValueError, match="beyond the robot's own limit"):
        check_skill_limits({"skill-0": {"tilt": (0.0, 1.2)}}, SKILLS, made)


# In a bundle ------------------------------------------------------------------------------


@pytest.fixture
def limited(bundle, tmp_path):
    """The bundle with a limit for its first skill."""
    limits = {"skill-0": {"velocity": (-0.5, 0.5)}}
    files = {name: data for name, data in bundle.files.items() if name != MANIFEST}
    return write_bundle(replace(bundle.manifest, skill_limits=limits), files, tmp_path / "limited")


def test_the_guard_keeps_the_limits_of_the_bundle(limited):
    manifest = load_bundle(limited.source).manifest
    guard = SafetyMonitor(manifest.interface, manifest.skills, manifest.skill_limits, RULES)
    fields = {"position": np.zeros(2), "velocity": np.array([0.6, 0.0]), "goals": np.zeros(4)}

    def judge(skill):
        still = np.zeros(2)
        tick = Tick(1, skill, np.zeros(8, np.float32), still, still, False, False, False)
        guard.check(tick, fields, 0.0)

    judge(1)
    with pytest.raises(FaultError, match=r"velocity.0 is 0.6 m/s, skill 'skill-0' may see -0.5"):
        judge(0)


def test_a_bundle_whose_skill_may_do_more_than_its_robot_is_not_written(bundle, tmp_path):
    limits = {"skill-1": {"velocity": (-9.0, 9.0)}}
    with pytest.raises(ValueError, match="beyond the robot's own limit"):
        replace(bundle.manifest, skill_limits=limits)


def test_one_more_master_leaves_the_limits_alone(limited, tmp_path):
    entry = limited.manifest.masters["goal-0"]
    more = add_masters(limited, {"again": (entry, limited.master("goal-0"))}, tmp_path / "more")
    assert set(more.manifest.masters) == {"goal-0", "goal-1", "again"}
    assert more.manifest.skill_limits == limited.manifest.skill_limits


def test_names_of_skills_are_in_order():
    assert skill_names(2) == SKILLS
