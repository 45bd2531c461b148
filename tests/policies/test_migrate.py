"""`mlsh migrate`: only names change, nothing is lost, and what is written holds."""

import json
import os
import shutil
import sys
import zipfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from mlsh_ros.cli.migrate import migrate as command
from policies.bundle.bundle import PRETRAINED, load_bundle
from policies.bundle.manifest import GOLDEN, MANIFEST, digest_of
from policies.bundle.runtime import TOLERANCE
from policies.training.adaptation_file import CurveOrigin, read_adaptation
from policies.training.earlier_run import ARRAYS
from policies.training.migrate import migrate
from policies.training.run import open_run
from policies.training.trained_with import KEY
from sim.errors import UserError
from sim.files.arrays import load_arrays, save_arrays
from sim.files.migrations import CHANGES, KeyChange, rename, rename_text, undone
from sim.files.strict_yaml import parse_yaml
from sim.interface.robot_file import read_interface
from sim.randomization.schema import read_sim_params
from tests.support.cli import run_mlsh

OLD = Path(__file__).parents[1] / "support" / "schema_1"
NEW = PRETRAINED / "moving_bandits"  # the same bundle in this schema
CHANGELOG = Path(__file__).parents[2] / "CHANGELOG.rst"


@pytest.fixture
def robot(tmp_path) -> Path:
    return Path(shutil.copytree(OLD / "tilter", tmp_path / "tilter"))


@pytest.fixture
def bundle(tmp_path) -> Path:
    folder = Path(shutil.copytree(NEW, tmp_path / "bundle"))
    shutil.copy(OLD / "moving_bandits.json", folder / MANIFEST)
    return folder


def zipped(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in contents(folder).items():
            archive.writestr(name, data)
    return path


def contents(path: Path) -> dict[str, bytes]:
    if path.is_file():
        return {"": path.read_bytes()}
    files = (each for each in sorted(path.rglob("*")) if each.is_file())
    return {each.relative_to(path).as_posix(): each.read_bytes() for each in files}


# Robots -----------------------------------------------------------------------------------------


def test_of_a_robot_only_names_change(robot):
    old = (robot / "robot.yaml").read_text()
    with pytest.raises(
        UserError, match=r"blend is smoothing_time now, .*: mlsh migrate .*tilter$"
    ):
        read_interface(robot / "robot.yaml")
    assert migrate(robot).files == (
        *("robot.yaml", "realities/heavy.yaml", "randomise.yaml"),
        *("realities as sim_params", "randomise.yaml as domain_randomization.yaml"),
    )
    assert sorted(contents(robot)) == [
        *("domain_randomization.yaml", "model.xml", "robot.yaml", "sim_params/heavy.yaml"),
    ]
    heavy = (robot / "sim_params" / "heavy.yaml").read_text()
    assert heavy == "# It carries a load.\nschema: 2\nphysics: {payload_kg: 2.0}   # kg\n"
    new = (robot / "robot.yaml").read_text()
    assert len(new.splitlines()) == len(old.splitlines())
    for one, other in zip(old.splitlines(), new.splitlines(), strict=True):
        assert one.partition("#")[1:] == other.partition("#")[1:]
    interface = read_interface(robot / "robot.yaml")
    up, whole, tilt, speed = interface.observation
    assert (up.name, up.derive, whole.derive, tilt.derive) == (
        *("up", "gravity_up", "rotation_6d", "tilt"),
    )
    assert (tilt.policy_input, speed.policy_input) == (False, True)
    assert up.ros.required_values == (("header.frame_id", "blend"),)
    (drive,) = interface.action
    assert (drive.smoothing_time, drive.safe_command) == (0.2, (0.0,))
    assert drive.tracking is not None
    assert (drive.tracking.timeout, drive.initial_command) == (0.5, "safe")
    assert (robot / "model.xml").read_bytes() == (OLD / "tilter" / "model.xml").read_bytes()


def test_line_ends_and_other_characters_stay(robot):
    file = robot / "robot.yaml"
    text = file.read_bytes().replace(b"# s\n", "# s, \u00e9\n".encode()).replace(b"\n", b"\r\n")
    file.write_bytes(text)
    migrate(robot)
    assert file.read_bytes().count(b"\r\n") == text.count(b"\n")
    assert "# s, \u00e9\r\n".encode() in file.read_bytes()


def test_what_has_the_new_names_is_left_alone(robot, bundle):
    for path in (robot, bundle, zipped(bundle)):
        assert migrate(path).files
        before, when = contents(path), path.stat().st_mtime_ns
        assert migrate(path).files == ()
        assert contents(path) == before
        assert path.stat().st_mtime_ns == when


def test_what_states_this_schema_with_old_names_is_renamed_too(robot, tmp_path):
    other = Path(shutil.copytree(robot, tmp_path / "other"))
    text = (other / "robot.yaml").read_text()
    (other / "robot.yaml").write_text(text.replace("schema: 1", "schema: 2"))
    with pytest.raises(UserError, match=r"blend is smoothing_time now.*: mlsh migrate .*other$"):
        read_interface(other / "robot.yaml")
    migrate(robot)
    migrate(other)
    assert contents(other) == contents(robot)


def test_what_cannot_be_copied_is_named_in_one_line(robot):
    os.mkfifo(robot / "pipe")
    before = contents(robot)
    with pytest.raises(UserError) as caught:
        migrate(robot)
    said = f"{robot}: could not be written (`{robot / 'pipe'}` is a named pipe); what was there is"
    assert str(caught.value) == f"{said} kept"
    assert contents(robot) == before


def test_links_stay_and_what_they_lead_to_is_not_changed(robot, tmp_path):
    (robot / "meshes").symlink_to("nowhere")
    migrate(robot)
    assert os.readlink(robot / "meshes") == "nowhere"
    for name in ("robot.yaml", "randomise.yaml", "realities"):
        other = Path(shutil.copytree(OLD / "tilter", tmp_path / f"with {name}"))
        target = (other / name).rename(tmp_path / f"shared {name}")
        (other / name).symlink_to(target)
        before = contents(tmp_path)
        with pytest.raises(UserError, match=rf"{name}: is a symbolic link, which is not followed"):
            migrate(other)
        assert contents(tmp_path) == before


def test_a_key_under_both_names_is_refused(robot):
    text = (robot / "robot.yaml").read_text()
    (robot / "robot.yaml").write_text(
        text.replace("    blend: 0.2", "    smoothing_time: 0.1\n    blend: 0.2")
    )
    before = contents(robot)
    with pytest.raises(UserError, match=r"robot.yaml: action.0.blend is called smoothing_time"):
        migrate(robot)
    assert contents(robot) == before


def test_an_alias_that_stands_for_two_things_is_refused():
    text = "schema: 1\nmine: &a {blend: 1}\naction: [*a]\n"
    with pytest.raises(
        UserError, match=r"f: its names cannot be changed one by one, because an al"
    ):
        rename_text(text, "robot.yaml", "f")
    assert parse_yaml(text, "f") == {"schema": 1, "mine": {"blend": 1}, "action": [{"blend": 1}]}


def test_folders_under_both_names_are_refused(robot):
    (robot / "sim_params").mkdir()
    with pytest.raises(UserError, match="has both realities and sim_params; leave one"):
        migrate(robot)


# Sim parameters and runs ------------------------------------------------------------------------


def test_a_file_of_sim_parameters_is_rewritten_alone(tmp_path):
    file = Path(shutil.copy(OLD / "tilter" / "realities" / "heavy.yaml", tmp_path / "my.yaml"))
    with pytest.raises(UserError, match=r"my.yaml: schema 1, 2 is expected: realities is sim_par"):
        read_sim_params(file)
    assert migrate(file).files == ("my.yaml",)
    assert read_sim_params(file).physics.payload_kg == (2.0, 2.0)
    assert migrate(file).files == ()
    file.write_text("schema: 1\nphysics: {weight: 2.0}\n")
    with pytest.raises(UserError, match="weight"):
        migrate(file)
    assert file.read_text() == "schema: 1\nphysics: {weight: 2.0}\n"


@pytest.fixture
def run(tmp_path) -> Path:
    return Path(shutil.copytree(OLD / "run", tmp_path / "run"))


def test_a_run_goes_on_where_it_was(run):
    with pytest.raises(UserError, match="randomise is domain_randomization now, reality is sim_p"):
        _ = open_run(run).config
    before = contents(run)
    files = ("config.yaml", "checkpoint.npz", "adaptation.csv", "metrics.csv")
    assert migrate(run).files == files
    folder = open_run(run)
    assert folder.config.domain_randomization
    assert folder.config.sim_params is not None
    # The robot is the one that it was trained with, so that nothing is refused as changed.
    trained = folder.trained
    assert set(trained.files) == {"robot.yaml", "model.xml", "domain_randomization.yaml"}
    curves = read_adaptation(run / "adaptation.csv", 10)
    assert curves.origin == CurveOrigin.of(trained, 1)
    assert {name for name, data in contents(run).items() if data != before[name]} == set(files)
    one, other = (load_arrays(each / "checkpoint.npz") for each in (OLD / "run", run))
    assert set(other) == {ARRAYS.get(name, name) for name in one}
    for name in one:
        assert name == KEY or one[name].tobytes() == other[ARRAYS.get(name, name)].tobytes()
    old, new = ((each / "metrics.csv").read_text() for each in (OLD / "run", run))
    assert new == old.replace(",reseeded,", ",reset_skill,")
    assert migrate(run).files == ()


def test_a_run_that_states_this_schema_with_old_names_is_renamed_too(run, tmp_path):
    other = Path(shutil.copytree(run, tmp_path / "other"))
    text = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(f"schema: 2\n{text}")
    with pytest.raises(
        UserError, match=r"config.yaml: probe: relative is .*: mlsh migrate .*other$"
    ):
        _ = open_run(other).config
    migrate(run)
    migrate(other)
    assert contents(other) == contents(run)


def test_a_run_whose_robot_was_changed_is_still_told(run):
    arrays = load_arrays(run / "checkpoint.npz")
    text = arrays[KEY].astype(np.uint8).tobytes()
    data = json.loads(text)
    data["files"]["robot.yaml"] = "0" * 64
    arrays[KEY] = np.frombuffer(json.dumps(data).encode(), np.uint8)
    save_arrays(run / "checkpoint.npz", arrays)
    migrate(run)
    with pytest.raises(UserError, match=r"what its checkpoint was trained with: robot.yaml"):
        _ = open_run(run).trained


# Bundles ----------------------------------------------------------------------------------------


def assert_described_as_shipped(migrated):
    """All but the golden rows is that of the shipped bundle; these are of this machine."""
    shipped = load_bundle(NEW)
    whole, same = migrated.manifest.to_dict(), shipped.manifest.to_dict()
    for each in (whole, same):
        del each["digest"], each["files"][GOLDEN]
    assert whole == same
    assert migrated.files.keys() == shipped.files.keys()
    for name in shipped.files.keys() - {GOLDEN, MANIFEST}:
        assert migrated.files[name] == shipped.files[name]
    assert migrated.golden.arrays.keys() == shipped.golden.arrays.keys()
    for name, rows in shipped.golden.arrays.items():
        np.testing.assert_allclose(migrated.golden.arrays[name], rows, rtol=0, atol=TOLERANCE)


def test_the_golden_rows_of_a_migrated_bundle_are_the_same_file_if_they_are_the_same(
    bundle, monkeypatch
):
    """Another version of Python writes other bytes for them."""
    before = (bundle / GOLDEN).read_bytes()
    monkeypatch.setattr("policies.bundle.earlier_bundle.golden_bytes", pytest.fail)
    rows = load_bundle(NEW).golden
    monkeypatch.setattr("policies.bundle.earlier_bundle.make_golden", lambda *_: rows)
    migrate(bundle)
    assert (bundle / GOLDEN).read_bytes() == before


def test_a_bundle_is_described_anew_and_its_networks_stay(bundle):
    with pytest.raises(UserError, match=r"schema 1, 2 is expected: .*mlsh migrate"):
        load_bundle(bundle)
    archive, before = zipped(bundle), contents(bundle)
    migrate(bundle)
    migrate(archive)
    folder, zip_file = load_bundle(bundle), load_bundle(archive)
    assert folder.files == zip_file.files
    assert_described_as_shipped(folder)
    old = json.loads(before[MANIFEST])
    assert folder.manifest.digest != old["digest"]
    for name, data in before.items():
        if name not in (MANIFEST, GOLDEN):
            assert folder.files[name] == data


def test_a_bundle_that_states_this_schema_with_old_names_is_renamed_too(bundle):
    current = (NEW / MANIFEST).read_bytes()
    data = rename(json.loads(current), undone(CHANGES[MANIFEST]), MANIFEST)
    data["interface"] = json.loads(current)["interface"]
    (bundle / MANIFEST).write_text(json.dumps(data | {"digest": digest_of(data)}))
    with pytest.raises(
        UserError, match=r" probe: relative is centered now.*: mlsh migrate .*bundle$"
    ):
        load_bundle(bundle)
    assert migrate(bundle).files == (MANIFEST,)
    assert_described_as_shipped(load_bundle(bundle))


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (MANIFEST, "was changed after it was written"),
        ("skills/0.onnx", "file 'skills/0.onnx' is not the one that the manifest describes"),
        ("more.txt", "file 'more.txt' is not the one that the manifest describes"),
    ],
)
def test_a_damaged_bundle_is_not_made_a_new_one(bundle, file, reason):
    data = (bundle / file).read_bytes() if (bundle / file).is_file() else b"x"
    (bundle / file).write_bytes(data.replace(b"omni", b"imno") + b"\n")
    before = contents(bundle)
    with pytest.raises(UserError, match=reason):
        migrate(bundle)
    assert contents(bundle) == before


# Interrupts -------------------------------------------------------------------------------------

STEPS = ["os.rename", "os.replace", "os.fsync", "shutil.copytree", "pathlib.Path.write_bytes"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("kind", ["robot", "run", "bundle", "zip"])
def test_an_interrupt_loses_nothing_and_the_command_can_be_repeated(
    request, tmp_path, kind, step, error
):
    path = request.getfixturevalue("bundle" if kind == "zip" else kind)
    path = zipped(path) if kind == "zip" else path
    before = contents(path)
    shutil.copytree(path, tmp_path / "done") if path.is_dir() else shutil.copy(
        path, tmp_path / "done"
    )
    migrate(tmp_path / "done")
    after = contents(tmp_path / "done")
    for number in range(100):
        if done_with_error(path, step, number, error):
            break
        assert contents(path) in (before, after)
    else:
        raise AssertionError("it never ends")
    assert list(contents(path).values()) == list(after.values())
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


def done_with_error(path: Path, step: str, number: int, error: BaseException) -> bool:
    """Migrate with an error in one call of a function; whether it was not called so often."""
    module, _, name = step.rpartition(".")
    owner = Path if name == "write_bytes" else sys.modules[module]
    real, calls = getattr(owner, name), iter(range(1000))

    def fail(*arguments, **options):
        if next(calls) == number:
            raise error
        return real(*arguments, **options)

    try:
        with mock.patch.object(owner, name, fail):
            migrate(path)
    except (UserError, KeyboardInterrupt):
        return False
    return next(calls) <= number


@pytest.mark.parametrize("kind", ["robot", "bundle"])
def test_what_a_kill_moved_aside_is_brought_back_and_migrated(request, kind):
    path = request.getfixturevalue(kind)
    os.rename(path, path.with_name(f".{path.name}.{'a' * 16}.partial.old".replace(".partial", "")))
    assert migrate(path).files
    assert path.is_dir()


# The command ------------------------------------------------------------------------------------


def mlsh(*arguments: object) -> tuple[int, str]:
    status, out, err = run_mlsh(*arguments)
    return status, out + err


def test_the_command_says_what_it_did(robot, tmp_path):
    status, out = mlsh("migrate", robot)
    assert status == 0
    assert out.startswith(f"robot {robot}: rewritten: robot.yaml, realities/heavy.yaml, ")
    assert mlsh("migrate", robot) == (0, f"robot {robot}: has this version's names already\n")
    (tmp_path / "notes.txt").write_text("hello")
    for name in ("nothing", "notes.txt"):
        status, out = mlsh("migrate", tmp_path / name)
        assert status == 1
        assert len(out.splitlines()) == 1
        assert "a robot folder, " in out


def test_the_changelog_has_every_name():
    text = CHANGELOG.read_text()
    for changes in CHANGES.values():
        for each in changes:
            old = each.where[-1] if isinstance(each, KeyChange) else each.old
            assert f"``{old}``" in text, old
            assert f"``{each.new}``" in text, each.new


def test_what_is_renamed_keeps_its_order_and_its_values():
    data = {"a": 1, "action": [{"blend": {"safe": 1}, "b": [1, "up"]}], "blend": 3}
    new = rename(data, CHANGES["robot.yaml"], "robot.yaml")
    assert json.dumps(new) == json.dumps(data).replace('{"blend"', '{"smoothing_time"')


def test_the_folder_in_which_one_stands_is_migrated(robot, monkeypatch, capsys):
    """As the refusal of `mlsh check-robot .` suggests."""
    monkeypatch.chdir(robot)
    command(Path("."))
    assert read_interface(robot / "robot.yaml")
    said = capsys.readouterr().out
    assert f"the folder was replaced; enter it again: cd {robot}" in said


def test_tables_that_are_no_text_are_left_as_they_are(run):
    (run / "notes.csv").write_bytes("Größe,1\n".encode("latin-1"))
    (run / "metrics.csv").write_bytes(b"")
    migrate(run)
    assert (run / "notes.csv").read_bytes() == "Größe,1\n".encode("latin-1")
    assert (run / "metrics.csv").read_bytes() == b""


@pytest.mark.parametrize("name", ["metrics.csv", "adaptation.csv", "checkpoint.npz"])
def test_a_file_of_a_run_that_is_a_link_is_not_written_through(run, tmp_path, name):
    away = tmp_path / "of somebody else"
    (run / name).rename(away)
    (run / name).symlink_to(away)
    before, other = contents(run), away.read_bytes()
    with pytest.raises(UserError) as caught:
        migrate(run)
    said = f"{run / name}: is a symbolic link, which is not followed; put the file itself in its"
    assert str(caught.value) == f"{said} place"
    assert contents(run) == before
    assert (run / name).is_symlink()
    assert away.read_bytes() == other


def test_a_table_that_is_a_link_and_has_no_name_of_a_run_stays(run, tmp_path):
    away = tmp_path / "notes"
    away.write_text("mine")
    (run / "notes.csv").symlink_to(away)
    assert migrate(run).files
    assert (run / "notes.csv").is_symlink()
    assert away.read_text() == "mine"


DAMAGED = {
    "a list": [],
    "nothing": {},
    "no mapping": {"config": [], "files": {}, "changes": []},
    "no list": {"config": {}, "files": {}, "changes": 3},
    "no digest": {"config": {}, "files": {"robot.yaml": 3}, "changes": []},
    "no text": {"config": {}, "files": {}, "changes": [[]]},
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_a_checkpoint_that_does_not_say_what_it_is_of_is_one_line(run, data):
    arrays = load_arrays(run / "checkpoint.npz")
    arrays[KEY] = np.frombuffer(json.dumps(data).encode(), np.uint8)
    save_arrays(run / "checkpoint.npz", arrays)
    before = contents(run)
    with pytest.raises(UserError) as caught:
        migrate(run)
    said = str(caught.value)
    assert said.startswith(f"{run / 'checkpoint.npz'}: what it was trained with is not readable")
    assert "\n" not in said
    assert contents(run) == before
