"""The bundle: whatever does not hold is refused in one line that names it."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from policies.bundle import bundle_files, golden
from policies.bundle.bundle import check_bundle, load_bundle, pretrained_names, write_bundle
from policies.bundle.manifest import GOLDEN, MANIFEST, digest_of, sha256
from policies.bundle.onnx_reader import read_graph
from policies.bundle.runtime import _compare, load_master, load_policy, load_skills
from sim.errors import UserError
from sim.files.arrays import read_npz
from sim.files.output import replacing_folder
from tests.support.bundles import wide_bundle

MASTERS = ("goal-0", "goal-1")
FILES = (
    "golden.npz",
    "masters/goal-0.onnx",
    "masters/goal-1.onnx",
    "skills/0.onnx",
    "skills/1.onnx",
)


def refusal(call, *args) -> str:
    with pytest.raises(UserError) as caught:
        call(*args)
    text = str(caught.value)
    assert "\n" not in text
    return text


def load_and_run(path: Path) -> None:
    """Everything that a node does before the robot moves."""
    bundle = load_bundle(path)
    for master in bundle.manifest.masters:
        load_policy(bundle, master)


# Ways to damage -------------------------------------------------------------------------------


def manifest_of(path: Path) -> dict:
    return json.loads((path / MANIFEST).read_text())


def write_manifest(path: Path, data: dict, *, signed: bool) -> None:
    """Write it; signed, with the digests that a forger would recompute."""
    if signed:
        data["files"] = {
            name: sha256((path / name).read_bytes()) if (path / name).is_file() else digest
            for name, digest in data["files"].items()
        }
        data["digest"] = digest_of(data)
    (path / MANIFEST).write_text(json.dumps(data))


def edit(keys: str, value, *, signed=False):
    """Set an entry of the manifest; `value` may be a function of what was there."""

    def damage(path):
        data = manifest_of(path)
        *parents, leaf = [int(key) if key.isdigit() else key for key in keys.split(".")]
        section = data
        for key in parents:
            section = section[key]
        section[leaf] = value(section[leaf]) if callable(value) else value
        write_manifest(path, data, signed=signed)

    return damage


def rewrite(name: str, change):
    """Change the bytes of a file, with digests recomputed."""

    def damage(path):
        (path / name).write_bytes(change((path / name).read_bytes()))
        write_manifest(path, manifest_of(path), signed=True)

    return damage


def model(change):
    """Change an ONNX model."""

    def apply(data):
        proto = onnx.load_from_string(data)
        change(proto)
        return proto.SerializeToString()

    return apply


def weights(name: str, value):
    """Change an array in an ONNX model."""

    def change(proto):
        for tensor in proto.graph.initializer:
            if tensor.name == name:
                tensor.CopyFrom(
                    numpy_helper.from_array(value(numpy_helper.to_array(tensor)), name)
                )

    return model(change)


def arrays(**changes):
    """Change arrays of golden.npz; None takes one away, a function is applied."""

    def apply(data):
        with np.load(io.BytesIO(data)) as archive:
            kept = dict(archive)
        for name, change in changes.items():
            key = name.replace("__", ".").replace("_0", "-0")
            if change is None:
                del kept[key]
            else:
                kept[key] = change(kept[key]) if callable(change) else change
        stream = io.BytesIO()
        np.savez(stream, **kept)
        return stream.getvalue()

    return apply


def flipped(data: bytes) -> bytes:
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def flip(name):
    return lambda path: (path / name).write_bytes(flipped((path / name).read_bytes()))


def swap(one, other, *, signed=False):
    def damage(path):
        a, b = path / one, path / other
        left, right = a.read_bytes(), b.read_bytes()
        a.write_bytes(right)
        b.write_bytes(left)
        if signed:
            write_manifest(path, manifest_of(path), signed=True)

    return damage


def nan(array):
    array = array.copy()
    array.flat[0] = np.nan
    return array


def operator(name, domain=""):
    def change(proto):
        proto.graph.node[0].op_type, proto.graph.node[0].domain = name, domain

    return model(change)


def external(proto):
    tensor = proto.graph.initializer[-1]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def half(proto):
    array = numpy_helper.to_array(proto.graph.initializer[-1]).astype(np.float16)
    name = proto.graph.initializer[-1].name
    proto.graph.initializer[-1].CopyFrom(numpy_helper.from_array(array, name))


def function(proto):
    proto.functions.append(helper.make_function("x", "f", [], [], [], []))


def again_and_again(proto):
    """The second layer sixty times: its weights are in the file once."""
    nodes = list(proto.graph.node)
    act, gemm = nodes[-2], nodes[-1]
    weight = next(w for w in proto.graph.initializer if w.name == "weight1")
    assert list(weight.dims) == [64, 64]
    more, last = [], act.input[0]
    for i in range(60):
        more.append(helper.make_node("Tanh", [last], [f"a{i}"]))
        more.append(helper.make_node("Gemm", [f"a{i}", "weight1", "bias1"], [f"b{i}"]))
        last = f"b{i}"
    act.input[0] = last
    del proto.graph.node[:]
    proto.graph.node.extend([*nodes[:-2], *more, act, gemm])


def rename_input(proto):
    proto.graph.input[0].name = proto.graph.node[0].input[0] = "other"


def add(name):
    def damage(path):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(b"x")

    return damage


def link(path):
    (path / "skills/0.onnx").rename(path.parent / "elsewhere")
    (path / "skills/0.onnx").symlink_to(path.parent / "elsewhere")


def link_folder(path):
    (path / "skills").rename(path.parent / "elsewhere")
    (path / "skills").symlink_to(path.parent / "elsewhere")


CHANGED = "was changed after it was written"
NOT_THE_ONE = "is not the one that the manifest describes"

REFUSED = {
    # Files
    **{f"{name} by a byte": (flip(name), (name, NOT_THE_ONE)) for name in FILES},
    **{
        f"{name} missing": (lambda p, n=name: (p / n).unlink(), (name, "is missing"))
        for name in (*FILES, MANIFEST)
    },
    "manifest by a byte": (flip(MANIFEST), (MANIFEST,)),
    "extra file": (add("notes.txt"), ("notes.txt", "does not belong")),
    "extra skill": (add("skills/2.onnx"), ("skills/2.onnx", "does not belong")),
    "hidden file": (add(".hidden"), (".hidden", "does not belong")),
    "skills swapped": (swap("skills/0.onnx", "skills/1.onnx"), ("skills/0.onnx", NOT_THE_ONE)),
    "masters swapped": (swap(*FILES[1:3]), ("masters/goal-0.onnx", NOT_THE_ONE)),
    "skill and master swapped": (
        swap("masters/goal-0.onnx", "skills/0.onnx"),
        ("masters/goal-0.onnx", NOT_THE_ONE),
    ),
    "skills swapped, signed": (
        swap("skills/0.onnx", "skills/1.onnx", signed=True),
        ("skills/0.onnx", "does not reproduce the golden rows"),
    ),
    "masters swapped, signed": (
        swap(*FILES[1:3], signed=True),
        ("masters/goal-0.onnx", "does not reproduce the golden rows"),
    ),
    "link": (link, ("skills/0.onnx", "link")),
    "linked folder": (link_folder, ("skills", "link")),
    "pipe": (lambda p: os.mkfifo(p / "pipe"), ("pipe", "plain files only")),
    # Manifest, as by hand
    "name": (edit("name", "other"), (MANIFEST, CHANGED)),
    "family": (edit("family.name", "other"), (MANIFEST, CHANGED)),
    "N": (edit("decision_ticks", 6), (MANIFEST, CHANGED)),
    "L": (edit("decision_lead", 0), (MANIFEST, CHANGED)),
    "K": (edit("skills", lambda s: [*s, "more"]), (MANIFEST, CHANGED)),
    "masters": (edit("masters.goal-0.score.value", 50.0), (MANIFEST, CHANGED)),
    "provenance": (edit("provenance.seed", 5), (MANIFEST, CHANGED)),
    "files": (edit("files", lambda f: {**f, "skills/0.onnx": "0" * 64}), (MANIFEST, CHANGED)),
    "digest": (edit("digest", "0" * 64), (MANIFEST, CHANGED)),
    "robot": (edit("interface.robot", "other"), (MANIFEST, CHANGED)),
    "limit": (edit("interface.action.0.limit", [-2.0, 2.0]), (MANIFEST, CHANGED)),
    "scale": (edit("interface.observation.0.scale", 1.1), (MANIFEST, CHANGED)),
    "sign": (edit("interface.action.0.scale", -1.0), (MANIFEST, CHANGED)),
    "control_dt": (edit("interface.control_dt", 0.2), (MANIFEST, CHANGED)),
    # Manifest, as by a forger
    "schema 3": (edit("schema", 3, signed=True), (MANIFEST, "schema 3 is not known. Valid: 2")),
    "schema 1": (edit("schema", 1, signed=True), (MANIFEST, "blend is smoothing_time now")),
    "schema lacks": (
        edit("schema", None, signed=True),
        (MANIFEST, "schema is missing; 2 is expected"),
    ),
    "unknown key": (edit("color", "red", signed=True), ("color",)),
    "L 2": (edit("decision_lead", 2, signed=True), ("decision_lead",)),
    "N 0": (edit("decision_ticks", 0, signed=True), ("decision_ticks",)),
    "N text": (edit("decision_ticks", "many", signed=True), ("decision_ticks", "'many'")),
    "no skills": (edit("skills", [], signed=True), ("skills",)),
    "no masters": (edit("masters", {}, signed=True), ("masters",)),
    "one skill more": (
        edit("skills", lambda s: [*s, "more"], signed=True),
        (MANIFEST, "skills/2.onnx"),
    ),
    "one master less": (
        edit("masters", lambda m: {"goal-0": m["goal-0"]}, signed=True),
        (MANIFEST, "masters/goal-1.onnx"),
    ),
    "master's name leads out": (
        edit("masters", lambda m: {"../../x": m["goal-0"]}, signed=True),
        ("masters", "../../x"),
    ),
    "empty limit": (edit("interface.action.0.limit", [1.0, -1.0], signed=True), ("limit",)),
    "infinite scale": (edit("interface.action.0.scale", float("inf"), signed=True), (MANIFEST,)),
    "term of another size": (
        lambda p: [
            edit("interface.observation.2.size", 2)(p),
            edit("interface.observation.2.ros.fields", lambda f: f[:2], signed=True)(p),
        ],
        ("skills/0.onnx", "for 6 inputs"),
    ),
    "not JSON": (lambda p: (p / MANIFEST).write_text("{"), (MANIFEST, "not JSON")),
    "a list": (
        lambda p: (p / MANIFEST).write_text("[]"),
        (MANIFEST, "schema is missing; 2 is expected"),
    ),
    "deep": (lambda p: (p / MANIFEST).write_text("[" * 100_000), (MANIFEST, "not JSON")),
    "binary": (lambda p: (p / MANIFEST).write_bytes(b"\xff\x00"), (MANIFEST, "not JSON")),
    # Graphs
    "nan weights": (
        rewrite("skills/1.onnx", weights("weight0", nan)),
        ("skills/1.onnx", "'weight0' are not finite"),
    ),
    "nan normalization": (
        rewrite("masters/goal-1.onnx", weights("scale", nan)),
        ("masters/goal-1.onnx", "'scale' are not finite"),
    ),
    "weights of another shape": (
        rewrite("skills/0.onnx", weights("weight1", lambda w: w[:, :-1].copy())),
        ("skills/0.onnx", "layer 1"),
    ),
    "other operator": (
        rewrite("skills/0.onnx", operator("Loop")),
        ("skills/0.onnx", "operator 'Loop'"),
    ),
    "custom operator": (
        rewrite("skills/0.onnx", operator("Gemm", "evil")),
        ("skills/0.onnx", "operator 'evil::Gemm'"),
    ),
    "external data": (
        rewrite("skills/0.onnx", model(external)),
        ("skills/0.onnx", "external data"),
    ),
    "half precision": (
        rewrite("skills/0.onnx", model(half)),
        ("skills/0.onnx", "not 32-bit floats"),
    ),
    "function": (rewrite("skills/0.onnx", model(function)), ("skills/0.onnx", "functions")),
    "weights twice": (
        rewrite(
            "skills/0.onnx",
            model(lambda m: m.graph.initializer.append(m.graph.initializer[-1])),
        ),
        ("skills/0.onnx", "twice"),
    ),
    "weights lack": (
        rewrite("skills/0.onnx", model(lambda m: m.graph.initializer.pop())),
        ("skills/0.onnx", "are missing"),
    ),
    "a layer again and again": (
        rewrite("skills/0.onnx", model(again_and_again)),
        ("skills/0.onnx", "operator 6 is Tanh of ['h1'] to ['a0']"),
    ),
    "wired otherwise": (
        rewrite("skills/0.onnx", model(rename_input)),
        ("skills/0.onnx", "operator 0 is Sub of ['other', 'shift']"),
    ),
    "graph that does not connect": (
        rewrite("skills/0.onnx", model(lambda m: m.graph.node.pop(3))),
        ("skills/0.onnx", "operator 3 is Tanh"),
    ),
    "truncated graph": (
        rewrite("skills/0.onnx", lambda data: data[:-100]),
        ("skills/0.onnx", "not a readable ONNX file"),
    ),
    "empty graph": (rewrite("skills/0.onnx", lambda _: b""), ("skills/0.onnx", "no operators")),
    "text as graph": (
        rewrite("skills/0.onnx", lambda _: b"not a graph at all, just text"),
        ("skills/0.onnx", "not a readable ONNX file"),
    ),
    "a little other weights": (
        rewrite("skills/0.onnx", weights("bias2", lambda b: b + np.float32(1e-4))),
        ("skills/0.onnx", "does not reproduce the golden rows"),
    ),
    # Golden rows
    "golden observation": (
        rewrite("golden.npz", arrays(observation=lambda x: x + np.float32(0.01))),
        ("skills/0.onnx", "does not reproduce the golden rows"),
    ),
    "golden action": (
        rewrite("golden.npz", arrays(action=lambda x: x + np.float32(1e-4))),
        ("skills/0.onnx", "does not reproduce the golden rows"),
    ),
    "golden logits": (
        rewrite("golden.npz", arrays(logits__goal_0=lambda x: x[:, ::-1].copy())),
        ("masters/goal-0.onnx", "does not reproduce the golden rows"),
    ),
    "golden skill": (
        rewrite("golden.npz", arrays(skill__goal_0=lambda x: 1 - x)),
        ("'goal-0' contradict its logits",),
    ),
    "golden nan": (
        rewrite("golden.npz", arrays(action=nan)),
        ("golden.npz", "'action' is not finite"),
    ),
    "golden double": (
        rewrite("golden.npz", arrays(observation=lambda x: x.astype(np.float64))),
        ("golden.npz", "'observation'", "float64"),
    ),
    "golden rows fewer": (
        rewrite("golden.npz", arrays(action=lambda x: x[:, :-1])),
        ("golden.npz", "'action'"),
    ),
    "golden rows none": (
        rewrite("golden.npz", arrays(observation=np.zeros((0, 8), np.float32))),
        ("golden.npz", "'observation'"),
    ),
    "golden number": (
        rewrite("golden.npz", arrays(observation=np.float32(1))),
        ("golden.npz", "'observation'"),
    ),
    "golden array lacks": (
        rewrite("golden.npz", arrays(skill__goal_0=None)),
        ("golden.npz", "'skill.goal-0' is missing"),
    ),
    "golden array more": (
        rewrite("golden.npz", arrays(more=np.zeros(3))),
        ("golden.npz", "'more'"),
    ),
    "golden objects": (
        rewrite("golden.npz", arrays(action=np.array([{}], object))),
        ("golden.npz", "not readable"),
    ),
    "golden truncated": (
        rewrite("golden.npz", lambda data: data[:-50]),
        ("golden.npz", "not readable"),
    ),
}


@pytest.mark.parametrize(("damage", "words"), REFUSED.values(), ids=REFUSED)
def test_whatever_does_not_hold_is_refused_by_name(bundle_path, damage, words):
    damage(bundle_path)
    text = refusal(load_and_run, bundle_path)
    for each in words:
        assert each in text
    assert str(bundle_path) in text or "golden" in text


def test_every_key_of_the_manifest_is_guarded(bundle_path):
    original = manifest_of(bundle_path)
    for key in original:
        rest = {k: v for k, v in original.items() if k != key}
        write_manifest(bundle_path, rest, signed=False)
        text = refusal(load_bundle, bundle_path)
        assert key in text
    write_manifest(bundle_path, original, signed=False)
    load_bundle(bundle_path)


def test_no_byte_of_a_graph_makes_a_traceback(bundle):
    data, rng = bundle.skills[0], np.random.default_rng(0)
    refused = 0
    # The names and shapes are at the ends, the weights in between say less.
    places = [*rng.integers(0, 700, 300), *rng.integers(len(data) - 300, len(data), 200)]
    for at in places:
        broken = data[:at] + rng.bytes(1) + data[at + 1 :]
        try:
            read_graph(broken, "here")
        except UserError as error:
            refused += "\n" not in str(error)
    assert refused > 50


def test_random_bytes_are_no_graph():
    rng = np.random.default_rng(1)
    for n in range(300):
        assert "here: " in refusal(read_graph, rng.bytes(n), "here")


def test_huge_numbers_in_a_graph_are_refused(bundle):
    def change(proto):
        proto.graph.initializer[-1].dims[:] = [2**62, 2**62]

    def negative(proto):
        proto.graph.initializer[-1].dims[:] = [-1]

    for each in (change, negative):
        assert "not a readable ONNX file" in refusal(
            read_graph, model(each)(bundle.skills[0]), "here"
        )


# Sizes ----------------------------------------------------------------------------------------


def zipped(path: Path, target: Path, **options) -> Path:
    with zipfile.ZipFile(target, "w", **options) as archive:
        for file in sorted(path.rglob("*")):
            archive.write(file, file.relative_to(path).as_posix())
    return target


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("limit", ["MAX_FILE_BYTES", "MAX_BUNDLE_BYTES", "MAX_FILES"])
def test_huge_bundles_are_refused(bundle_path, tmp_path, monkeypatch, limit, packed):
    files = [p.stat().st_size for p in bundle_path.rglob("*") if p.is_file()]
    exact = {"MAX_FILE_BYTES": max(files), "MAX_BUNDLE_BYTES": sum(files), "MAX_FILES": 6}[limit]
    where = zipped(bundle_path, tmp_path / "x.zip") if packed else bundle_path
    monkeypatch.setattr(bundle_files, limit, exact)
    load_bundle(where)
    monkeypatch.setattr(bundle_files, limit, exact - 1)
    text = refusal(load_bundle, where)
    assert str(where) in text
    assert str(exact - 1) in text


def test_zip_bomb_is_refused(bundle_path, tmp_path, monkeypatch):
    monkeypatch.setattr(bundle_files, "MAX_FILE_BYTES", 2**20)
    path = zipped(bundle_path, tmp_path / "bomb.zip", compression=zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(2**24))
    assert path.stat().st_size < 2**20
    assert "'zeros' does not belong to the bundle" in refusal(load_bundle, path)
    path = bundle_path.with_name("bomb2.zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(bundle_path.rglob("*")):
            name = file.relative_to(bundle_path).as_posix()
            if name == "skills/0.onnx":
                archive.writestr(name, bytes(2**24))
            else:
                archive.write(file, name)
    assert "'skills/0.onnx' is larger than 1048576 bytes" in refusal(load_bundle, path)


def test_bomb_inside_the_golden_rows_is_refused(bundle_path, monkeypatch):
    def pack(_):
        stream = io.BytesIO()
        np.savez_compressed(stream, observation=np.zeros((2**21, 8), np.float32))
        return stream.getvalue()

    monkeypatch.setattr(golden, "MAX_FILE_BYTES", 2**20)
    rewrite("golden.npz", pack)(bundle_path)
    assert "golden.npz: not readable (larger than 1048576 bytes)" in refusal(
        load_bundle, bundle_path
    )


def test_lying_golden_shape_is_refused(bundle_path):
    def lie(_):
        header, inner = io.BytesIO(), io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": "<f4", "fortran_order": False, "shape": (2**50, 8)}
        )
        with zipfile.ZipFile(inner, "w") as archive:
            archive.writestr("observation.npy", header.getvalue())
        return inner.getvalue()

    rewrite("golden.npz", lie)(bundle_path)
    assert "golden.npz: not readable" in refusal(load_bundle, bundle_path)


# Zip files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_and_folder_load_equal(bundle_path, tmp_path, method):
    folder = load_bundle(bundle_path)
    packed = load_bundle(zipped(bundle_path, tmp_path / "b.zip", compression=method))
    assert packed.manifest == folder.manifest
    assert packed.files == folder.files
    obs = folder.golden.observation[0]
    one, two = (load_policy(b, "goal-0") for b in (folder, packed))
    assert np.array_equal(one.logits(obs), two.logits(obs))
    assert np.array_equal(one.action(1, obs), two.action(1, obs))


@pytest.mark.parametrize("name", ["../outside", "/absolute", "skills/../../outside", "a\\b"])
def test_zip_that_leads_out_is_refused(bundle_path, tmp_path, name):
    path = zipped(bundle_path, tmp_path / "b.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"x")
    before = sorted(tmp_path.rglob("*"))
    text = refusal(load_bundle, path)
    assert name.split("/")[-1].replace("\\", "\\\\") in text
    assert "does not belong" in text
    assert sorted(tmp_path.rglob("*")) == before


def test_zip_with_a_name_twice_is_refused(bundle_path, tmp_path):
    path = zipped(bundle_path, tmp_path / "b.zip")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.write(bundle_path / "skills/1.onnx", "skills/0.onnx")
    assert "'skills/0.onnx' is in it twice" in refusal(load_bundle, path)


def test_damaged_zips_are_refused(bundle_path, tmp_path):
    whole = zipped(bundle_path, tmp_path / "b.zip", compression=zipfile.ZIP_DEFLATED).read_bytes()
    broken, rng, refused = tmp_path / "broken.zip", np.random.default_rng(0), 0
    cases = [whole[:-40], whole[: len(whole) // 2], b"", b"PK\x03\x04", b"not a zip"]
    for at in rng.integers(0, len(whole), 150):
        cases.append(whole[:at] + rng.bytes(20) + whole[at + 20 :])
    for data in cases:
        broken.write_bytes(data)
        try:
            load_bundle(broken)
        except UserError as error:
            refused += "\n" not in str(error)
    assert refused > 100


# Names ------------------------------------------------------------------------------------------


def test_unknown_bundles_masters_and_folders(bundle, tmp_path):
    text = refusal(load_bundle, "moving_bandit")
    assert all(name in text for name in pretrained_names())
    assert "manifest.json is missing; this is not a bundle" in refusal(load_bundle, tmp_path)
    text = refusal(bundle.master, "goal-2")
    assert "no master 'goal-2'" in text
    assert "goal-0, goal-1" in text
    os.mkfifo(tmp_path / "pipe")
    assert "neither a folder nor a zip file" in refusal(load_bundle, tmp_path / "pipe")


def test_unreadable_file(bundle_path, monkeypatch):
    if os.geteuid() == 0:
        real = Path.open

        def refuse(self, *args, **kwargs):
            if self.name == "1.onnx":
                raise PermissionError(13, "Permission denied")
            return real(self, *args, **kwargs)

        monkeypatch.setattr(Path, "open", refuse)
    else:
        (bundle_path / "skills/1.onnx").chmod(0)
    text = refusal(load_bundle, bundle_path)
    assert "'skills/1.onnx' is not readable (Permission denied)" in text


@pytest.mark.parametrize("name", pretrained_names())
def test_shipped_bundles_hold(name):
    bundle = load_bundle(name)
    for master in bundle.manifest.masters:
        load_policy(bundle, master)


def golden_of(bundle, rows):
    """The bundle's golden.npz with its first row that many times."""
    known = np.load(io.BytesIO(bundle.files[GOLDEN]))
    axis = {name: known[name].shape.index(len(bundle.golden.observation)) for name in known}
    data = io.BytesIO()
    np.savez(data, **{name: known[name].take([0] * rows, axis[name]) for name in known})
    return data.getvalue()


def test_golden_rows_that_take_long_to_compute_are_refused_before_they_run(bundle, tmp_path):
    """1,000 rows of networks of which one row takes 3 million multiplications."""
    wide = wide_bundle(bundle, tmp_path / "wide", 1000)
    manifest, files = parts(wide)
    files[GOLDEN] = golden_of(wide, 1000)
    text = refusal(write_bundle, manifest, files, tmp_path / "slow")
    assert "1000 golden rows take " in text
    assert "at most 2,147,483,648 are accepted; give fewer rows or smaller networks" in text
    assert not (tmp_path / "slow").exists()


@pytest.mark.parametrize("at", [0, 63, 64, 127])
def test_a_row_that_is_no_number_reproduces_nothing(bundle, at):
    """Whatever piece of the golden rows it is in."""
    network = load_skills(bundle)[0]
    golden = replace(
        bundle.golden, observation=np.zeros((128, *bundle.golden.observation.shape[1:]), "f4")
    )
    expected = network(golden.observation)

    class Broken:
        calls = 0

        def __call__(self, observation):
            found = network(observation)
            first, self.calls = self.calls, self.calls + len(observation)
            if first <= at < self.calls:
                found[at - first, 0] = np.nan
            return found

    whole = replace(bundle, golden=golden)
    _compare(network, whole, expected, "skill")
    with pytest.raises(UserError, match="off by nan"):
        _compare(Broken(), whole, expected, "skill")


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compression_whose_growth_is_not_bounded_is_refused_before_it_unpacks(
    bundle_path, tmp_path, kind
):
    """Of these `zipfile` unpacks all that is read at once: 430 bytes take 800 MB."""
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w", kind) as archive:
        for each in sorted(bundle_path.rglob("*")):
            if each.is_file():
                archive.write(each, each.relative_to(bundle_path))
    text = refusal(load_bundle, path)
    assert f"has compression {kind}. Valid: 0 (stored), 8 (deflated)" in text
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", kind) as archive:
        archive.writestr("observation.npy", b"x")
    with pytest.raises(ValueError, match=f"has compression {kind}"):
        read_npz(inner, 2**20)


# Writing ----------------------------------------------------------------------------------------


def contents(path: Path) -> dict[str, bytes]:
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def parts(bundle):
    return bundle.manifest, {n: d for n, d in bundle.files.items() if n != MANIFEST}


def test_written_is_read(bundle, tmp_path):
    path = tmp_path / "new" / "folder"
    written = write_bundle(*parts(bundle), path)
    assert written.manifest == bundle.manifest
    assert contents(path) == bundle.files
    assert [p.name for p in path.parent.iterdir()] == ["folder"]
    assert (path.stat().st_mode & 0o777) == 0o755


def test_manifest_keeps_every_digit(bundle, tmp_path):
    value = float(np.nextafter(0.1, 1))
    manifest, files = parts(bundle)
    score = replace(manifest.masters["goal-0"].score, value=value)
    entry = replace(manifest.masters["goal-0"], score=score)
    manifest = replace(manifest, masters={**manifest.masters, "goal-0": entry})
    written = write_bundle(manifest, files, tmp_path / "new")
    assert written.manifest.masters["goal-0"].score.value == value


def precious(path):
    path.mkdir()
    (path / "thesis.txt").write_text("years of work")


def other_manifest(path):
    path.mkdir()
    (path / MANIFEST).write_text('{"name": "my web page"}')
    (path / "index.html").write_text("years of work")


def file(path):
    path.write_text("years of work")


@pytest.mark.parametrize("make", [precious, other_manifest, file, Path.mkdir])
def test_something_else_is_not_overwritten(bundle, tmp_path, make):
    path = tmp_path / "there"
    make(path)
    before = contents(tmp_path)
    assert "exists and is not a bundle, so nothing was written" in refusal(
        write_bundle, *parts(bundle), path
    )
    assert contents(tmp_path) == before


def test_a_bundle_with_something_of_yours_in_it_is_not_overwritten(bundle, bundle_path):
    (bundle_path / "notes.txt").write_text("years of work")
    before = contents(bundle_path)
    assert "notes.txt" in refusal(write_bundle, *parts(bundle), bundle_path)
    assert contents(bundle_path) == before


@pytest.mark.parametrize("call", [1, 2])
def test_a_write_that_fails_half_way_leaves_the_old_bundle(bundle, bundle_path, monkeypatch, call):
    before = contents(bundle_path.parent)
    real, calls = os.rename, []

    def fail(*args):
        calls.append(args)
        if len(calls) == call:
            raise OSError(28, "No space left on device")
        return real(*args)

    monkeypatch.setattr(os, "rename", fail)
    assert "No space left on device" in refusal(write_bundle, *parts(bundle), bundle_path)
    assert contents(bundle_path.parent) == before
    load_bundle(bundle_path)


def test_a_full_disk_leaves_the_old_bundle(bundle, bundle_path, monkeypatch):
    before, written = contents(bundle_path.parent), []
    real = Path.write_bytes

    def fail(self, data):
        written.append(self)
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        return real(self, data)

    monkeypatch.setattr(Path, "write_bytes", fail)
    assert "No space left on device); what was there is kept" in refusal(
        write_bundle, *parts(bundle), bundle_path
    )
    assert contents(bundle_path.parent) == before
    monkeypatch.undo()
    write_bundle(*parts(bundle), bundle_path)


def test_a_bundle_that_does_not_hold_is_not_written(bundle, bundle_path, tmp_path):
    manifest, files = parts(bundle)
    files["skills/0.onnx"] = weights("weight0", nan)(files["skills/0.onnx"])
    assert "not finite" in refusal(write_bundle, manifest, files, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert "not finite" in refusal(write_bundle, manifest, files, bundle_path)
    load_bundle(bundle_path)


def test_a_place_that_cannot_be_written(bundle, tmp_path):
    (tmp_path / "file").write_text("")
    assert "file is not a folder" in refusal(
        write_bundle, *parts(bundle), tmp_path / "file" / "bundle"
    )


def test_what_a_killed_writer_left_goes_with_the_next_write(bundle, bundle_path):
    code = """
import os, signal, sys
from pathlib import Path
from policies.bundle.bundle import MANIFEST, load_bundle, write_bundle
path = Path(sys.argv[1])
bundle = load_bundle(path)
rename = os.rename
calls = []
def kill(*args):
    calls.append(args)
    if len(calls) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    rename(*args)
os.rename = kill
write_bundle(bundle.manifest, {n: d for n, d in bundle.files.items() if n != MANIFEST}, path)
"""
    before = contents(bundle_path)
    for call in ("1", "2"):
        command = [sys.executable, "-c", code, str(bundle_path), call]
        assert subprocess.run(command).returncode == -signal.SIGKILL
        assert len(list(bundle_path.parent.iterdir())) >= 2 - bundle_path.exists()
        with pytest.raises(ZeroDivisionError), replacing_folder(bundle_path, overwrite=True):
            raise ZeroDivisionError
        assert [each.name for each in bundle_path.parent.iterdir()] == [bundle_path.name]
        assert contents(bundle_path) == before


# Running ----------------------------------------------------------------------------------------


def test_networks_reproduce_the_golden_rows(bundle):
    golden = bundle.golden
    for k, network in enumerate(load_skills(bundle)):
        assert np.array_equal(network(golden.observation), golden.action[k])
    for name in MASTERS:
        logits = load_master(bundle, name)(golden.observation)
        assert np.array_equal(logits, golden.logits[name])
        assert np.array_equal(logits.argmax(axis=1), golden.skill[name])


def test_an_observation_of_another_size_is_refused(bundle):
    network = load_master(bundle, "goal-0")
    text = refusal(network, np.zeros((1, 7), np.float32))
    assert "masters/goal-0.onnx: ONNX Runtime fails" in text


def test_bundle_needs_no_torch(bundle):
    import subprocess
    import sys

    code = (
        "import sys; from policies.bundle.bundle import load_bundle; "
        "from policies.bundle.runtime import load_policy; "
        "load_policy(load_bundle(sys.argv[1]), 'goal-0'); "
        "print(*({'torch', 'onnx', 'mujoco', 'rclpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(bundle.source)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.strip() == ""


def test_a_copy_is_the_bundle(bundle, tmp_path):
    shutil.copytree(bundle.source, tmp_path / "copy")
    assert check_bundle(contents(tmp_path / "copy"), tmp_path).manifest == bundle.manifest
