"""A bundle that is not for a robot says where they differ; its robot is never found by luck."""

from dataclasses import replace

import pytest

from policies.bundle.bundle import load_bundle
from policies.bundle.robot_compatibility import check_agrees, difference
from policies.bundle.task_compatibility import check_fits, resolve_task, robot_of, select_tasks
from sim.errors import UserError
from sim.physics.robot_model import ROBOTS, load_robot
from sim.tasks.task_id import TaskId


@pytest.fixture
def shipped():
    return load_bundle("moving_bandits")


def with_interface(bundle, **changes):
    interface = replace(bundle.interface, **changes)
    return replace(bundle, manifest=replace(bundle.manifest, interface=interface))


def test_a_robot_of_ones_own_is_named_with_its_option(shipped, tmp_path, monkeypatch):
    bundle = with_interface(shipped, robot="ur10e")
    (tmp_path / "ur10e").symlink_to(ROBOTS / "omni")  # nothing is taken because it lies there
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"is for robot 'ur10e'.* --robot FOLDER\. Shipped: ant"):
        robot_of(bundle, None)
    assert robot_of(bundle, "./ur10e") == "./ur10e"
    assert robot_of(shipped, None) == "omni"


def test_a_family_of_ones_own_is_named_with_its_option(shipped):
    of = replace(shipped.manifest.family, name="own_bandits")
    masters = {
        name: replace(each, task=f"own_bandits/{each.task_id.name}")
        for name, each in shipped.manifest.masters.items()
    }
    said = r"^bundle 'moving_bandits' was trained on task family 'own_bandits', .*--family FILE"
    for changes in ({"family": of}, {"masters": masters}, {"family": of, "masters": masters}):
        bundle = replace(shipped, manifest=replace(shipped.manifest, **changes))
        for of_bundle, name in ((resolve_task, "goal-0"), (select_tasks, None)):
            with pytest.raises(UserError, match=said):
                of_bundle(bundle, TaskId("own_bandits", name))
            with pytest.raises(UserError, match=r"^no task family 'chess'"):
                of_bundle(bundle, TaskId("chess", name))


def altered(bundle):
    """The bundle, with another topic field of its first sensor."""
    first = bundle.interface.observation[0]
    fields = ("pose.pose.position.x", "pose.pose.position.z")
    term = replace(first, ros=replace(first.ros, fields=fields))
    return with_interface(bundle, observation=(term, *bundle.interface.observation[1:]))


def test_the_key_and_both_values_are_named(shipped):
    said = r"position\.ros\.fields\[1\] is 'pose\.pose\.position\.z' in the bundle and 'pose"
    with pytest.raises(UserError, match=said):
        check_agrees(altered(shipped), "omni")
    with pytest.raises(UserError, match=said):
        check_fits(altered(shipped), load_robot("omni"), TaskId("moving_bandits", "goal-0"))


def test_a_difference_beside_the_terms_is_named(shipped):
    with pytest.raises(UserError, match=r": control_dt is 0\.2 in the bundle and 0\.1 there"):
        check_fits(
            with_interface(shipped, control_dt=0.2),
            load_robot("omni"),
            TaskId("moving_bandits", "goal-0"),
        )


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        (1, 1, None),
        ((1, 2), (1, 3), ("[1]", "2", "3")),
        ((1,), (1, 3), ("[1]", "missing", "3")),
        ({"a": {"b": 1}}, {"a": {}}, (".a.b", "1", "missing")),
        (1, "1", ("", "1", "'1'")),
    ],
)
def test_the_first_difference(one, other, found):
    got = difference(one, other)
    assert (got and (got[0], repr(got[1]), repr(got[2]))) == found
