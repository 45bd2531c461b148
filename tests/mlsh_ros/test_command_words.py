"""What commands say about what was given in the wrong place, and about what they print."""

import itertools
import shutil
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from mlsh_ros.cli.check_robot import _amount
from mlsh_ros.cli.evaluate import show
from mlsh_ros.evaluation.backends import run_offline
from mlsh_ros.evaluation.case import resolve_cases
from mlsh_ros.evaluation.report.plots import skill_colors
from mlsh_ros.evaluation.scores import reference_returns, summarize
from policies.bundle.bundle import PRETRAINED, load_bundle
from sim.errors import UserError, counted
from tests.support.cli import run_mlsh

B = "moving_bandits"


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 episodes"), (1, "1 episode"), (2, "2 episodes")]
)
def test_one_thing_is_counted_in_the_singular(number, said):
    assert counted(number, "episode") == said


def test_an_irregular_plural():
    assert counted(3, "entry", "entries") == "3 entries"


@pytest.mark.parametrize("kind", ["mcap", "metadata"])
@pytest.mark.parametrize("command", ["replay", "gap", "sysid"])
def test_a_recording_in_the_place_of_the_bundle_is_recognized(tmp_path, command, kind):
    shutil.copytree(PRETRAINED / B, tmp_path / "bundle")
    (tmp_path / "bag").mkdir()
    (tmp_path / "bag" / ("a.mcap" if kind == "mcap" else "metadata.yaml")).write_bytes(b"")
    first = command == "replay"  # whose recording comes first
    swapped = ["bundle", "bag"] if first else ["bag", "bundle"]
    code, _, err = run_mlsh(command, *swapped, cwd=tmp_path)
    assert code != 0
    right = "RECORDING BUNDLE" if first else "BUNDLE RECORDING"
    which = "recording" if first else "bundle"
    said = f"'bundle' is a bundle and 'bag' a recording; the {which} comes first: mlsh {command}"
    assert f"{said} {right}" in err


def test_a_shipped_bundle_by_name_in_the_place_of_a_recording_is_recognized(tmp_path):
    (tmp_path / "a.mcap").write_bytes(b"")
    code, _, err = run_mlsh("replay", B, "a.mcap", cwd=tmp_path)
    assert code != 0
    assert f"'{B}' is a bundle and 'a.mcap' a recording" in err


def test_two_bundles_are_not_called_swapped(tmp_path):
    code, _, err = run_mlsh("replay", B, B, cwd=tmp_path)
    assert code != 0
    assert "comes first" not in err


@pytest.mark.parametrize("command", [["check-bundle"], ["finetune", "--task", f"{B}/goal-0"]])
def test_a_description_of_skills_is_not_taken_for_a_bundle(tmp_path, command):
    (tmp_path / "drive.yaml").write_text("schema: 2\n")
    code, _, err = run_mlsh(*command, "drive.yaml", cwd=tmp_path)
    assert code != 0
    assert "drive.yaml: is not a bundle; mlsh import-skill makes one of" in err


def test_a_bundle_that_is_not_there_may_be_a_path():
    with pytest.raises(UserError, match=r"; or the path of a folder or zip file that exists$"):
        load_bundle("runs/go3")


@pytest.mark.parametrize(("folder", "shown"), [(B, False), ("mine", True)])
def test_bundles_of_one_name_are_told_apart_by_their_folders(tmp_path, folder, shown):
    path = tmp_path / folder
    shutil.copytree(PRETRAINED / B, path)
    said = f"'{B}' ({path})" if shown else f"'{B}'"
    bundle = load_bundle(path)
    assert bundle.label == said
    with pytest.raises(UserError) as raised:
        resolve_cases(bundle, task="ring_bandits/sector-0")
    assert f"no master of bundle {said} was trained on" in str(raised.value)


def test_a_family_in_the_place_of_a_task_is_told_what_to_do():
    said = f"task '{B}' names a family only; give one task, or leave it out to evaluate every task"
    with pytest.raises(
        UserError, match=f"{said} that has a master. Valid: {B}/goal-0, {B}/goal-1"
    ):
        resolve_cases(load_bundle(B), task=B)
    with pytest.raises(UserError, match=r"names a family only.* Valid: no task of this family"):
        resolve_cases(load_bundle(B), task="mazes")


def test_the_order_of_usage_is_said_where_skills_have_names(capsys):
    bundle = load_bundle(B)
    cases = resolve_cases(bundle, task=f"{B}/goal-0")
    done = run_offline(cases, episodes=1, seed=0)
    limits = reference_returns(cases, seed=0, episodes=1)
    result = summarize(cases, "sim", 0, done, limits=limits)
    show(result)
    assert "usage: " not in capsys.readouterr().out
    named = replace(bundle, manifest=replace(bundle.manifest, skills=("ahead", "turn_left")))
    show(replace(result, bundle=named))
    assert "usage: ahead, turn_left\n" in capsys.readouterr().out


def test_a_number_without_unit_has_none():
    assert _amount("position", 0.25, "m") == "position 0.25 m"
    assert _amount("projected_gravity", 0.25, "1") == "projected_gravity 0.25"


def test_bindings_are_shown_with_the_values_that_messages_need(tmp_path):
    text = "{required_values: {header.frame_id: odom_combined}}"
    file = tmp_path / "bindings.yaml"
    file.write_text(f"schema: 2\nrobot: omni\nobservation:\n  position: {text}\n")
    code, out, _ = run_mlsh("check-bundle", B, "--bindings", file)
    assert code == 0
    (row,) = [line for line in out.splitlines() if line.split()[:1] == ["position"]]
    assert row.rstrip().endswith("header.frame_id: odom_combined")


def _lab(color: str) -> np.ndarray:
    """CIE L*a*b* of an sRGB color, D65."""
    encoded = np.array(to_rgb(color))
    linear = np.where(encoded > 0.04045, ((encoded + 0.055) / 1.055) ** 2.4, encoded / 12.92)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = (
        np.cbrt(v) if v > 0.008856 else 7.787 * v + 16 / 116
        for v in np.array(to_xyz) @ linear / [0.9505, 1.0, 1.089]
    )
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_eight_skills_can_be_told_apart():
    """A difference of 2.3 is just noticed; the nearest two of Okabe and Ito's are 26 apart."""
    colors = [_lab(each) for each in skill_colors(8)]
    pairs = itertools.combinations(colors, 2)
    assert min(float(np.linalg.norm(one - two)) for one, two in pairs) > 26
