"""Bundles that somebody made to hang, to fill the memory or to get an exception out of us."""

import io
import json
import os
import resource
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from policies.bundle.bundle import PRETRAINED, load_bundle
from policies.bundle.manifest import GOLDEN, MANIFEST
from policies.bundle.onnx_reader import read_graph
from sim.errors import UserError
from sim.files.arrays import AT_ONCE, open_zip, read_npz
from sim.files.strict_json import MAX_DEPTH, MAX_VALUES, parse_json
from tests.support.mutations import Copy, fresh

SECONDS, MEGABYTES = 1.0, 300


def refusal(call, *args) -> str:
    with pytest.raises(UserError) as info:
        call(*args)
    text = str(info.value)
    assert text.isprintable()
    return text


def packed(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


# JSON -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "key 'c' is given twice"),
        (b"[NaN]", "no finite number"),
        (b"[-Infinity]", "no finite number"),
        (b"[1e999]", "no finite number"),
        (b"[0." + b"1" * 1000 + b"]", "no finite number"),
        (b"[1" + b"0" * 400 + b"]", "longer than 18 digits"),
        (b"[1" + b"0" * 400_000 + b"]", "longer than 18 digits"),
        (b"[" * 50_000, "nested too deeply"),
        (b'{"a":' * 50_000, "nested too deeply"),
        (b"[" * 500_000, "more than"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "nested too deeply"),
        (b"[" + b"1," * MAX_VALUES + b"1]", f"more than {MAX_VALUES} values"),
        (b"[" + b"[]," * 300_000 + b"[]]", f"more than {MAX_VALUES} values"),
        (b"\xff", "utf-8"),
        (b'["\\ud800"]', "surrogates not allowed"),
        (b'{"a": {"\\udfff": 1}}', "surrogates not allowed"),
        (b"", "not JSON"),
        (b"1 2", "Extra data"),
    ],
)
def test_json_is_read_within_limits(text, said):
    began = time.process_time()
    assert said in refusal(parse_json, text, "here")
    assert time.process_time() - began < SECONDS


def test_json_at_the_limits_is_read():
    deep = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert json.loads(deep) == parse_json(deep, "here")
    wide = b"[" + b"1," * (MAX_VALUES - 2) + b"1]"
    assert len(parse_json(wide, "here")) == MAX_VALUES - 1


# Manifests that know the format: hashes and digest hold -----------------------------------------


def deeper(data: dict, path: str, value: object) -> None:
    *parents, last = path.split(".")
    for key in parents:
        data = data[int(key)] if isinstance(data, list) else data[key]
    data[last] = value


FORGERIES = {
    "N of 401 digits": ("decision_ticks", 10**400, "longer than 18 digits"),
    "N of 10 digits": ("decision_ticks", 10**10, "decision_ticks: input should be less than"),
    "N true": ("decision_ticks", True, "decision_ticks: input should be a valid integer"),
    "steps of 18 digits": ("provenance.steps", 10**17, "provenance.steps: input should be less"),
    "a tick of 1e308 s": ("interface.control_dt", 1e308, "interface.control_dt: "),
    "a step of 1e-300 s": ("interface.physics_dt", 1e-300, "interface.physics_dt: "),
    "a billion elements": ("interface.observation.0.size", 10**9, "size: input should be less"),
    "an endless scale": ("interface.action.0.scale", 1e300, "scale: "),
    "scores that overflow": ("masters.goal-0.score.optimum", 1e308, "score.optimum: "),
    "robot of two lines": ("interface.robot", "omni\nall is well", r"'omni\nall is well' is not"),
    "robot in color": ("interface.robot", "\x1b[31momni", r"'\x1b[31momni' is not a name"),
    "robot in markup": ("interface.robot", "omni[/x]", "'omni[/x]' is not a name"),
    "robot that leads out": ("interface.robot", "../omni", "'../omni' is not a name"),
    "a task in two lines": ("masters.goal-0.task", "moving_bandits/a\nb", "task: string should"),
    "a family in markup": ("family.name", "[red]x", "family.name: string should match"),
    "a skill in markup": ("skills", ["[red]x", "skill-1"], "skills.0: string should match"),
    "a topic of a node": ("interface.action.0.ros.topic", "estop", "topic 'estop' belongs to"),
    "a topic of two words": ("interface.action.0.ros.topic", "a b", "not a relative topic name"),
    "odometry that is the command": (
        "interface.observation.0.ros.topic",
        "cmd_vel",
        "on which the command goes out",
    ),
    "a settings bomb": (
        "provenance.config",
        {f"k{i}": 0 for i in range(30_000)},
        f"more than {MAX_VALUES} values",
    ),
}


@pytest.mark.parametrize(("path", "value", "said"), FORGERIES.values(), ids=FORGERIES)
def test_a_forged_manifest_is_refused_in_one_short_line(tmp_path, path, value, said):
    place = fresh(tmp_path)
    data = place.manifest()
    deeper(data, path, value)
    place.write_manifest(data)
    place.repair()
    began = time.process_time()
    text = refusal(load_bundle, str(place.bundle))
    assert time.process_time() - began < SECONDS
    assert said in text
    assert len(text) - len(str(place.bundle)) < 350


def test_a_key_twice_in_the_manifest_is_refused(tmp_path):
    place = fresh(tmp_path)
    path = place.bundle / MANIFEST
    path.write_text(path.read_text().replace("{", '{"decision_ticks": 99,', 1))
    assert "key 'decision_ticks' is given twice" in refusal(load_bundle, str(place.bundle))


# Archives ---------------------------------------------------------------------------------------


def whole(place: Copy) -> dict[str, bytes]:
    found = sorted(path for path in place.bundle.rglob("*") if path.is_file())
    return {path.relative_to(place.bundle).as_posix(): path.read_bytes() for path in found}


def test_a_zip_of_the_folder_says_where_the_bundle_is(tmp_path):
    place = fresh(tmp_path)
    files = {f"omni/{name}": data for name, data in whole(place).items()}
    text = refusal(load_bundle, str(packed(tmp_path / "b.zip", files)))
    assert "the bundle is in its folder 'omni'" in text
    assert "cd FOLDER && zip -r" in text


def test_a_folder_above_says_where_the_bundle_is(tmp_path):
    place = fresh(tmp_path)
    assert str(place.bundle) in refusal(load_bundle, str(place.bundle.parent))


def test_a_list_of_many_files_is_not_read(tmp_path):
    path = packed(tmp_path / "many.zip", {f"{i}": b"" for i in range(20_000)})
    assert path.stat().st_size > 2 * AT_ONCE
    began = time.process_time()
    assert "in one piece" in refusal(load_bundle, str(path))
    assert time.process_time() - began < SECONDS
    path = packed(tmp_path / "some.zip", {f"{i}": b"" for i in range(1_500)})
    assert "more than 1000 files" in refusal(load_bundle, str(path))


def test_large_entries_are_read_in_pieces():
    data = os.urandom(3 * AT_ONCE)
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as archive:
            archive.writestr("a", data)
        buffer = io.BytesIO()
        np.savez(buffer, a=np.frombuffer(data, np.uint8))
        assert bytes(read_npz(buffer, 4 * AT_ONCE)["a"]) == data
        with open_zip(buffer) as archive:
            assert archive.namelist() == ["a.npy"]


# Whatever comes, in a process of its own, because memory is counted there ----------------------


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


GRAPHS = {
    "fields": b"\x08\x01" * (7 * 2**20),
    "nodes": field(7, field(1, b"") * (7 * 2**20)),
    "operators": field(7, field(1, field(4, b"Sub")) * 9_000),
    "a long operator": field(7, field(1, field(4, b"a" * 2**23))),
    "a long name": field(7, field(5, field(8, b"a" * 2**23))),
    "many dimensions": field(7, field(5, field(1, b"\x01" * 2**23))),
    "endless dimensions": field(7, field(5, field(1, varint(2**62) * 3) + b"\x10\x01")),
    "an endless number": b"\x08" + b"\xff" * 2**23,
    "an endless length": b"\x3a" + b"\xff" * 9 + b"\x01",
    "not a file": bytes(2**23),
}


@pytest.mark.parametrize("data", GRAPHS.values(), ids=GRAPHS)
def test_no_graph_takes_long(data):
    began = time.process_time()
    text = refusal(read_graph, data, "here")
    assert time.process_time() - began < SECONDS
    assert len(text) < 350


def bombs(root: Path) -> dict[str, Path]:
    """Bundles, by what is wrong with them."""
    files = whole(fresh(root))
    numbers = b'{"schema":1,"x":[' + b"1," * (4 * 2**20) + b"1]}"
    shape = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (2**33, 8)}
    np.lib.format.write_array_header_1_0(shape, header)
    rows = io.BytesIO()
    np.savez_compressed(rows, observation=np.zeros((2**26, 8), np.int8))
    many = io.BytesIO()
    with zipfile.ZipFile(many, "w") as archive:
        for i in range(5_000):
            archive.writestr(str(i), b"")
    return {
        name: packed(root / f"{name}.zip", contents)
        for name, contents in {
            "4 million numbers": {MANIFEST: numbers},
            "a manifest of zeros": {MANIFEST: bytes(2**28)},
            "an extra of zeros": {**files, "x": bytes(2**28)},
            "a graph of zeros": {**files, "skills/0.onnx": bytes(2**28)},
            "golden rows of zeros": {**files, GOLDEN: rows.getvalue()},
            "golden rows of a lying shape": {
                **files,
                GOLDEN: packed(root / "g", {"observation.npy": shape.getvalue()}).read_bytes(),
            },
            "golden rows of many files": {**files, GOLDEN: many.getvalue()},
        }.items()
    }


@pytest.mark.slow
def test_no_bundle_takes_long_or_fills_the_memory(tmp_path):
    found = bombs(tmp_path)
    code = (
        "import resource, sys, time; from policies.bundle.bundle import load_bundle;"
        "load_bundle('moving_bandits'); began = time.process_time()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in sys.argv[1:]:\n"
        "    try: load_bundle(path)\n"
        "    except ValueError as error: print(error)\n"
        "    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "    now = time.process_time()\n"
        "    print(now - began, (after - before) / 1024); began = now\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, *map(str, found.values())],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2**34, 2**34)),
    )
    lines = run.stdout.splitlines()
    assert len(lines) == 2 * len(found)
    for name, said, numbers in zip(found, lines[::2], lines[1::2], strict=True):
        seconds, megabytes = map(float, numbers.split())
        assert said.startswith(str(found[name])), said
        assert seconds < SECONDS, (name, seconds)
        assert megabytes < MEGABYTES, (name, megabytes)


# Names -------------------------------------------------------------------------------------------


def test_a_shipped_name_and_a_path_are_not_confused(tmp_path, monkeypatch):
    place = fresh(tmp_path)
    place.bundle.rename(tmp_path / "rooms")
    monkeypatch.chdir(tmp_path)
    text = refusal(load_bundle, "rooms")
    assert "write ./rooms for the latter" in text
    assert str(PRETRAINED / "rooms") in text
    assert load_bundle("./rooms").manifest.name == "moving_bandits"
    assert load_bundle(Path("rooms")).manifest.name == "moving_bandits"
    assert load_bundle(str(PRETRAINED / "rooms")).manifest.name == "rooms"
    monkeypatch.chdir(PRETRAINED)
    assert load_bundle("rooms").manifest.name == "rooms"  # it is the same one


@pytest.mark.parametrize("name", ["", "a" * 5000, "a\0b", "/proc/self/mem/x"])
def test_a_name_that_is_no_path_is_an_unknown_bundle(name):
    assert "no bundle" in refusal(load_bundle, name)
