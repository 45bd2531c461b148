"""What skills have in common is stored once, and whoever loads a bundle does not know of it."""

import hashlib
import shutil
import zipfile
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from mlsh_ros.evaluation.backends import run_offline
from mlsh_ros.evaluation.case import resolve_cases
from policies.bundle import storage
from policies.bundle.bundle import PRETRAINED, load_bundle, write_bundle
from policies.bundle.bundle_files import read_files
from policies.bundle.derived_skill import skill_to_unfreeze, with_derived_skill
from policies.bundle.golden import golden_bytes
from policies.bundle.manifest import GOLDEN, MANIFEST, Derivation
from policies.bundle.onnx_reader import GRAPH, INPUT, Wire, read_graph
from policies.bundle.onnx_writer import write_graph
from policies.bundle.runtime import Network, load_skills
from policies.bundle.storage import stored, whole
from policies.skill_import import importer
from policies.skill_import.importer import import_skills
from policies.training.finetune import finetune
from policies.training.migrate import migrate
from sim.errors import UserError
from sim.tasks.task_id import TaskId
from tests.support.bundles import made_up_bounds, restless_bundle
from tests.support.cli import run_mlsh
from tests.support.foreign_policy import description, network, robot_folder

HERE = Path("here")
# 256 hidden units between 7 inputs and 2 outputs: the last biases are too small to be taken out.
ARRAYS = (256 * 7, 256, 2 * 256)
POLICY = 4 * sum(ARRAYS)  # bytes, 10,240


def skill(constant: float, seed: int = 0, prefix: str = "", hidden: int = 256) -> bytes:
    """An ONNX file; skills of one seed differ in a constant, and perhaps in names."""
    made = network(seed=seed, hidden=hidden)
    made.graph.initializer.append(numpy_helper.from_array(np.float32([constant]), "constant"))
    for tensor in made.graph.initializer:
        tensor.name = f"{prefix}{tensor.name}"
    for node in made.graph.node:
        node.input[1:] = [f"{prefix}{name}" for name in node.input[1:]]
    return made.SerializeToString(deterministic=True)


def files_of(*skills: bytes) -> dict[str, bytes]:
    """Files that are stored together, as far as storing looks at them."""
    rest = {MANIFEST: b"{}", GOLDEN: bytes(5000), "masters/a.onnx": skills[0]}
    return {**rest, **{f"skills/{k}.onnx": data for k, data in enumerate(skills)}}


def weights_in(files: dict[str, bytes]) -> list[bytes]:
    return [data for name, data in files.items() if storage.WEIGHTS.fullmatch(name)]


def put(files: dict[str, bytes], folder: Path) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def packed(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in read_files(folder).items():
            archive.writestr(name, data)
    return path


def session(source: str | bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # a constant that nothing reads is no news
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


# Laws -------------------------------------------------------------------------------------------

CASES = {  # skills, and how many policies are stored once
    "one policy": ([skill(1), skill(2), skill(3)], 1),
    "two policies": ([skill(1), skill(1, seed=1), skill(2), skill(2, seed=1)], 2),
    "equal weights under other names": ([skill(1), skill(1, prefix="other/")], 1),
    "the same skill twice": ([skill(1), skill(1)], 1),
    "two and one of another policy": ([skill(1), skill(1, seed=1), skill(2)], 1),
    "policies that have nothing in common": ([skill(1), skill(1, seed=1)], 0),
    "small ones": ([skill(1, hidden=16), skill(2, hidden=16)], 0),
    "a single one": ([skill(1)], 0),
    "twelve": ([skill(k) for k in range(12)], 1),
}


@pytest.mark.parametrize(("skills", "policies"), CASES.values(), ids=CASES)
def test_what_is_stored_is_read_back_byte_for_byte(tmp_path, skills, policies):
    files = files_of(*skills)
    small = stored(files)
    assert whole(small, HERE) == files
    assert whole(files, HERE) == files  # as earlier versions stored it
    assert stored(whole(small, HERE)) == small
    assert stored(dict(reversed(files.items()))) == small
    assert sum(map(len, weights_in(small))) == policies * POLICY
    assert len(weights_in(small)) == bool(policies)
    for name, data in files.items():
        if not name.startswith("skills/") or not policies:
            assert small[name] == data
    assert sum(map(len, small.values())) <= sum(map(len, files.values()))
    rows = np.random.default_rng(0).normal(size=(20, 1, 7)).astype(np.float32)
    put(small, tmp_path)
    for k, data in enumerate(skills):  # ONNX's own external data, that ONNX Runtime finds itself
        by_path, by_bytes = session(str(tmp_path / f"skills/{k}.onnx")), session(data)
        for row in rows:
            one, other = (each.run(None, {"obs": row})[0] for each in (by_path, by_bytes))
            np.testing.assert_array_equal(one, other)


def test_a_skill_without_its_weights_is_small():
    small = stored(files_of(skill(1), skill(2)))
    for k in range(2):
        assert len(small[f"skills/{k}.onnx"]) < len(skill(1)) - POLICY + 3 * 80


def test_weights_are_no_larger_than_a_file_may_be(monkeypatch):
    """Of arrays with 7,168, 1,024 and 2,048 bytes the first one fits into 8,000."""
    monkeypatch.setattr(storage, "MAX_FILE_BYTES", 8000)
    files = files_of(skill(1), skill(2))
    small = stored(files)
    assert [len(data) for data in weights_in(small)] == [7168]
    assert whole(small, HERE) == files


def with_a_long_number(data: bytes) -> bytes:
    """The same graph; its length is written with more bytes than it needs."""
    parts = []
    for number, value, begin, end in Wire().places(data):
        if number == GRAPH:
            size = len(value)
            length = [size & 127 | 128, size >> 7 & 127 | 128, size >> 14 & 127 | 128, 0]
            parts.append(bytes([GRAPH << 3 | 2, *length]) + value)
        else:
            parts.append(data[begin:end])
    return b"".join(parts)


def test_what_could_not_be_read_back_is_stored_as_it_is():
    odd = [with_a_long_number(skill(k)) for k in range(2)]
    assert onnx.load_from_string(odd[0]) == onnx.load_from_string(skill(0))
    assert odd[0] != skill(0)
    for files in (files_of(*odd), files_of(odd[0], skill(1), skill(2))):
        assert stored(files) == files
        assert whole(files, HERE) == files


@pytest.mark.parametrize("data", [b"", b"\xff" * 50, b"\x08" + b"\xff" * 50, b"\x3a\x05\x2a"])
def test_what_is_no_onnx_file_is_left_to_who_reads_the_graph(data):
    assert whole({"skills/0.onnx": data}, HERE) == {"skills/0.onnx": data}


# Bundles ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a robot, and a bundle of two skills of one policy for it."""
    folder = tmp_path_factory.mktemp("arms")
    policy = description(folder / "policy", network(hidden=256))
    with (
        mock.patch.object(importer, "RANDOM_ROWS", 200),
        mock.patch.object(importer, "check_scorable"),  # arms cannot drive to a goal
    ):
        import_skills(
            [policy],
            robot_folder(folder / "arms"),
            "moving_bandits",
            folder / "bundle",
            name="arms",
            decision_ticks=5,
            decision_lead=1,
            facts={"command": "test", "versions": {}, "commit": None},
        )
    return folder


@pytest.fixture
def bundle(place, tmp_path):
    """A copy that may be damaged."""
    return Path(shutil.copytree(place / "bundle", tmp_path / "bundle"))


def test_a_bundle_is_the_same_however_it_is_stored(bundle, tmp_path):
    new, zipped = load_bundle(bundle), load_bundle(packed(bundle))
    old = load_bundle(put(new.files, tmp_path / "old"))
    assert new.files == old.files == zipped.files
    assert new.manifest == old.manifest == zipped.manifest
    assert [len(data) for data in weights_in(read_files(bundle))] == [POLICY]
    assert weights_in(new.files) == weights_in(read_files(tmp_path / "old")) == []
    new.check_replaces(old)
    old.check_replaces(new)
    size = new.interface.observation_size
    rows = np.random.default_rng(0).normal(size=(1000, size)).astype(np.float32)
    for one, other in zip(load_skills(new), load_skills(old), strict=True):
        np.testing.assert_array_equal(one(rows), other(rows))


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_migrate_stores_weights_once(bundle, tmp_path, kind):
    old = put(load_bundle(bundle).files, tmp_path / "old")
    old = old if kind == "folder" else packed(old)
    (weights,) = (name for name in read_files(bundle) if storage.WEIGHTS.fullmatch(name))
    assert sorted(migrate(old).files) == ["skills/0.onnx", "skills/1.onnx", weights]
    assert read_files(old) == read_files(bundle)
    assert migrate(old).files == ()


def test_check_bundle_says_what_is_stored(bundle):
    size = sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())
    status, out, _ = run_mlsh("check-bundle", bundle)
    assert status == 0
    assert f"({bundle}, {size / 1024:.0f} kB): valid" in " ".join(out.split())


def test_a_master_is_added_and_the_skills_stay_as_they_are(bundle, place, tmp_path, monkeypatch):
    monkeypatch.setattr("policies.mlsh.mlsh.all_reference_returns", made_up_bounds)
    monkeypatch.setattr("policies.training.adapt.SCORED_TICKS", 16 * 50)
    robot, task = str(place / "arms"), TaskId.parse("moving_bandits/goal-0")
    facts = {"command": "test", "versions": {}, "commit": None}
    given = {"updates": 1, "seed": 0, "robot": robot, "learner": "uniform", "facts": facts}
    more = finetune(load_bundle(bundle), task, tmp_path / "more", **given).bundle
    before, after = read_files(bundle), read_files(tmp_path / "more")
    assert {*after} == {*before, "masters/goal-0.onnx"}
    assert all(after[name] == data for name, data in before.items() if name[:7] == "skills/")
    old = load_bundle(put(more.files, tmp_path / "old"))
    one, other = (
        run_offline(resolve_cases(each, robot=robot), episodes=2, seed=0) for each in (more, old)
    )
    for here, there in zip(one, other, strict=True):
        for name in ("observation", "skill", "action", "command", "reward"):
            np.testing.assert_array_equal(getattr(here, name), getattr(there, name))
    with pytest.raises(UserError, match=r"'slow' of bundle 'arms' .*is imported"):
        skill_to_unfreeze(more, "slow")


def test_a_copy_of_a_skill_has_weights_of_its_own(tmp_path, monkeypatch):
    """Skills of a training have only small arrays in common, such as their normalization."""
    monkeypatch.setattr(storage, "SMALLEST", 32)
    old = restless_bundle(tmp_path / "old")
    assert weights_in(read_files(old.source))
    graph = read_graph(old.skills[0], "skill-0").initializers
    layers = [(graph[f"weight{i}"], graph[f"bias{i}"]) for i in range(3)]
    layers[-1] = layers[-1][0] + 1, layers[-1][1]
    data = write_graph("skill-2", graph["shift"], graph["scale"], graph["high"].item(), layers)
    derivation = Derivation(
        skill="skill-0", kl=0.0, kl_limit=1.0, provenance=old.manifest.provenance
    )
    grown = with_derived_skill(old, "skill-2", data, derivation)
    files = {**grown.files, GOLDEN: golden_bytes(grown.golden)}
    new = write_bundle(grown.manifest, files, tmp_path / "new")
    assert new.skills == [*old.skills, data]
    assert new.skill_hashes()[:2] == old.skill_hashes()
    load_skills(new)


# Hostile files ----------------------------------------------------------------------------------


def weights_of(folder: Path) -> Path:
    (path,) = folder.glob("skills/weights-*.bin")
    return path


def refer(folder: Path, **changes: str | None) -> None:
    """Other places of what every skill refers to; None: there is none."""
    for path in folder.glob("skills/*.onnx"):
        made = onnx.load_from_string(path.read_bytes())
        for tensor in made.graph.initializer:
            place = {entry.key: entry.value for entry in tensor.external_data}
            if place:
                del tensor.external_data[:]
                for key, value in {**place, **changes}.items():
                    if value is not None:
                        tensor.external_data.add(key=key, value=value)
        path.write_bytes(made.SerializeToString(deterministic=True))


def write(change):
    """Other bytes under the same name."""

    def act(folder: Path) -> None:
        path = weights_of(folder)
        path.write_bytes(change(path.read_bytes()))

    return act


def forge(change):
    """Other bytes, under the name that they have, to which the skills refer."""

    def act(folder: Path) -> None:
        write(change)(folder)
        path = weights_of(folder)
        name = storage._name_of(path.read_bytes())
        path.rename(folder / name)
        refer(folder, location=Path(name).name)

    return act


def flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


CHANGED = "bytes have another digest than its name"
FORM = "external data have a location, an offset and a length, not {"
HOSTILE = {
    "missing": (lambda f: weights_of(f).unlink(), "the bundle has no file of weights"),
    "cut": (write(lambda data: data[:-1]), CHANGED),
    "a bit": (write(flipped), CHANGED),
    "larger": (write(lambda data: data + b"x"), CHANGED),
    "empty": (write(lambda data: b""), CHANGED),
    "cut by a forger": (forge(lambda data: data[:-4]), ".bin', which has 10,236"),
    "a bit of a forger": (forge(flipped), "is not the one that the manifest describes"),
    "larger by a forger": (forge(lambda data: data + b"1234"), "from byte 10,240 on"),
    "emptied by a forger": (forge(lambda data: b""), ".bin', which has 0"),
    "two": (
        lambda f: shutil.copy(weights_of(f), f / f"skills/weights-{16 * '0'}.bin"),
        "2 files of weights, at most one is accepted",
    ),
    "another name": (
        lambda f: weights_of(f).rename(f / "skills/weights.bin"),
        "file 'skills/weights.bin' does not belong to the bundle",
    ),
    "an absolute path": (lambda f: refer(f, location="/etc/passwd"), "are in '/etc/passwd', the"),
    "another folder": (lambda f: refer(f, location="../golden.npz"), "are in '../golden.npz', th"),
    "another file": (lambda f: refer(f, location="0.onnx"), "external data are in '0.onnx', the"),
    "no place": (lambda f: refer(f, location=None), "external data are in '', the bundle has"),
    "beyond the end": (lambda f: refer(f, offset="10237"), "refers to bytes 10,237 to 17,405 of"),
    "too long": (lambda f: refer(f, length="10241"), "refers to bytes 0 to 10,241 of"),
    "no byte": (lambda f: refer(f, length="0"), "refers to bytes 0 to 0 of"),
    "before the beginning": (lambda f: refer(f, offset="-4"), FORM),
    "endless": (lambda f: refer(f, length="9" * 30), FORM),
    "no number": (lambda f: refer(f, offset="1e3"), FORM),
    "digits of another script": (lambda f: refer(f, offset="\u0661"), FORM),
    "no length": (lambda f: refer(f, length=None), FORM),
    "one key more": (lambda f: refer(f, checksum="0" * 40), FORM),
    "a long text": (lambda f: refer(f, location="x" * 10**6), "is not the one that the manifest"),
}


@pytest.mark.parametrize(("act", "said"), HOSTILE.values(), ids=HOSTILE)
def test_what_does_not_hold_is_refused_in_one_line(bundle, act, said):
    act(bundle)
    for path in (bundle, packed(bundle)):
        for reader in (load_bundle, migrate):
            with pytest.raises(UserError) as refused:
                reader(path)
            text = str(refused.value)
            assert said in text or reader is migrate
            assert text.isprintable()
            assert len(text) - text.count(str(path)) * len(str(path)) < 350


def test_weights_that_nobody_refers_to_are_refused(bundle):
    old = put(load_bundle(bundle).files, bundle.with_name("old"))
    for data in (b"", b"1234"):
        path = old / storage._name_of(data)
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"no skill refers to 'skills/weights-.* from byte 0"):
            load_bundle(old)
        path.unlink()


def test_parts_that_overlap_are_refused():
    small = stored(files_of(skill(1), skill(2)))
    made = onnx.load_from_string(small["skills/0.onnx"])
    (offset,) = (e for e in made.graph.initializer[1].external_data if e.key == "offset")
    assert offset.value == "7168"  # where the first array ends
    offset.value = "7164"
    small["skills/0.onnx"] = made.SerializeToString(deterministic=True)
    with pytest.raises(UserError, match="that overlap at byte 7,164"):
        whole(small, HERE)


def test_a_skill_that_refers_to_the_same_bytes_again_and_again_is_bounded(monkeypatch):
    monkeypatch.setattr(storage, "MAX_FILE_BYTES", 20_000)
    small = stored(files_of(skill(1), skill(2)))
    made = onnx.load_from_string(small["skills/0.onnx"])
    for k in range(2):  # 10,240 bytes, and twice 7,168
        made.graph.initializer.add().CopyFrom(made.graph.initializer[0])
        made.graph.initializer[-1].name = f"more {k}"
    small["skills/0.onnx"] = made.SerializeToString(deterministic=True)
    with pytest.raises(UserError, match="larger than 20000 bytes with its weights"):
        whole(small, HERE)


# What ships -------------------------------------------------------------------------------------


def test_go2_walk_computes_what_it_did_when_each_skill_had_all_weights():
    """The hashes are of that time, of every skill with its weights in it."""
    bundle = load_bundle("go2_walk")
    assert [hashlib.sha256(data).hexdigest()[:16] for data in bundle.skills] == [
        *("dbbc2a1729246c99", "326657c95c632bb3", "f6ec337c7d9cd725", "e292829e0264cba4"),
        *("c66f9cd0324c2c36", "737e7c589dcff2e2", "8c1f6e54d279ce0e"),
    ]
    sizes = [len(data) for data in read_files(bundle.source).values()]
    assert sum(sizes) < 1.5e6 < 5e6 < sum(map(len, bundle.files.values()))
    golden = bundle.golden.observation
    random = 3 * np.random.default_rng(0).standard_normal((1000, golden.shape[1]))
    rows = np.concatenate([golden, random.astype(np.float32)])
    for name, data in zip(bundle.manifest.skill_files, bundle.skills, strict=True):
        by_path = session(str(PRETRAINED / "go2_walk" / name))
        expected = by_path.run(None, {INPUT: rows})[0]
        np.testing.assert_array_equal(Network(data, name)(rows), expected)
    assert stored(bundle.files) == read_files(bundle.source)


@pytest.mark.parametrize("name", ["ant_four", "moving_bandits", "rooms"])
def test_trained_skills_share_nothing(name):
    files = read_files(PRETRAINED / name)
    assert stored(files) == files == load_bundle(name).files
