"""Task families are called through `FamilyCalls` alone, and refuse parameters without a sense."""

import ast
import dataclasses
from pathlib import Path

import numpy as np
import pytest

from sim.envs.world import World
from sim.errors import UserError
from sim.physics.robot_model import load_robot
from sim.tasks import base
from sim.tasks.family_calls import FamilyCalls
from sim.tasks.registry import FAMILIES, make_family

ROOT = Path(__file__).parents[2]
CHECKED = ROOT / "sim" / "tasks"  # the families themselves, and `FamilyCalls`
PROTOCOLS = [each for name, each in vars(base).items() if name.startswith(("TaskF", "Has"))]
METHODS = {"command"} | {
    name
    for protocol in PROTOCOLS
    for name, value in vars(protocol).items()
    if callable(value) and not name.startswith("_")
}
# Nothing but a family has methods of these names.
ITS_OWN = {"expert_target", "task_blind_target", "estimate"}
# Factors of a part of the reward; any finite number has a sense.
WEIGHTS = {"effort", "lateral", "sideways", "fall", "approach"}
LIMITED_ELSEWHERE = {"ticks", "hold", "pose_reset", "held_out"}  # integers: times and tasks


def name_of(node):
    """The last name of an expression: `family` of `self.family`."""
    if isinstance(node, ast.Call):
        return name_of(node.func)
    return getattr(node, "attr", getattr(node, "id", ""))


def raw_uses(text):
    """(line, method) of what is used of a family without `FamilyCalls`."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and node.attr in METHODS:
            owner, method = name_of(node.value), node.attr
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr":
            owner, method = name_of(node.args[0]), getattr(node.args[1], "value", None)
        else:
            continue
        of_family = owner.strip("_") == "family" or method in ITS_OWN
        if of_family and method in METHODS and owner.strip("_") not in ("calls", "FamilyCalls"):
            found.append((node.lineno, method))
    return found


@pytest.mark.parametrize(
    ("text", "method"),
    [
        ("reward = family.reward(layout, fields)", "reward"),
        ("case.family.reset(task, rng)", "reset"),
        ("robot.compile(self._family.scene)", "scene"),
        ("getattr(self.family, 'target', None)", "target"),
        ("guide.expert_target(layout, fields)", "expert_target"),
    ],
)
def test_a_raw_use_is_found(text, method):
    assert raw_uses(text) == [(1, method)]


def test_families_are_called_through_their_checked_calls_alone():
    assert {"scene", "place", "reset", "fields", "reward", "success", "terminated"} < METHODS
    assert {"advance", "cost", "estimate", "expert_target", "task_blind_target"} < METHODS
    files = [
        path
        for package in ("sim", "policies", "mlsh_ros", "launch")
        for path in (ROOT / package).rglob("*.py")
        if CHECKED not in path.parents
    ]
    assert len(files) > 200
    raw = {str(path.relative_to(ROOT)): raw_uses(path.read_text()) for path in files}
    assert {file: found for file, found in raw.items() if found} == {}


NUMBERS = [
    (name, field.name)
    for name, cls in FAMILIES.items()
    for field in dataclasses.fields(cls)
    if type(field.default) in (int, float) and field.name not in WEIGHTS | LIMITED_ELSEWHERE
]


@pytest.mark.parametrize(("family", "parameter"), NUMBERS)
def test_a_size_that_no_arena_has_is_refused_with_its_range(family, parameter):
    with pytest.raises(UserError) as caught:
        make_family(family, {parameter: 10**9})
    text = str(caught.value)
    assert text.startswith(f"task family {family!r}: {parameter}: ")
    number = "1e+09" in text or "1000000000" in text
    assert number
    assert " .. " in text or "less than" in text


@pytest.mark.parametrize("family", FAMILIES)
def test_a_simulation_that_diverged_has_solved_nothing(family, tmp_path, monkeypatch):
    """Whatever the family says of the state that it is put back to; until the next episode."""
    monkeypatch.chdir(tmp_path)  # MuJoCo writes MUJOCO_LOG.TXT where it stands
    monkeypatch.setattr(FamilyCalls, "success", lambda self, layout, fields: np.ones(2, bool))
    world = World(load_robot(FAMILIES[family].robot), make_family(family), 2)
    rngs = [np.random.default_rng(i) for i in range(2)]
    world.reset(np.arange(2, dtype=np.int32), [0, 0], rngs)
    still = np.zeros((2, world.interface.action_size), np.float32)
    fields, _ = world.step(still)
    assert world.success(fields).tolist() == [True, True]
    world.physics.batch.bind("qpos")[0, 0] = np.nan
    fields, outcome = world.step(still)
    assert outcome.diverged.tolist() == [True, False]
    assert world.success(fields).tolist() == [False, True]
    world.reset(np.zeros(1, np.int32), [0], rngs[:1])
    assert outcome.diverged.tolist() == [True, False]  # what was told stays
    fields, _ = world.step(still)
    assert world.success(fields).tolist() == [True, True]
