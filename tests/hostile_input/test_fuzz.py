"""The first few inputs of every target of tests/support/fuzz.py, and those that were findings."""

import time

import pytest

from tests.support import fuzz

TARGETS = fuzz.targets()
FINDINGS = {
    "manifest.json": [100542],  # half of a pair of characters, in a free-form mapping
    "params": [44, 710, 1333],  # long names of sections
    "sim_params": [500485, 504867],  # long errors
    # A long error; a type of weights that ONNX does not have; a name that is no UTF-8.
    "LEAPP ONNX": [460, 599, 12744],
    "setting": [10, 121, 210, 3300, 3316],  # long errors
}


def judged(name, number, folder):
    target = TARGETS[name]
    try:
        data = fuzz.made(name, target, number)
    except Exception:  # the change itself could not be written down
        return ""
    path = folder / f"input{target.suffix}"
    path.write_bytes(data)
    return fuzz.judge(target, path)


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_comes_is_read_or_refused_in_one_line(name, tmp_path):
    for number in [*range(12), *FINDINGS.get(name, [])]:
        assert judged(name, number, tmp_path) == "", number


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_whole_is_read(name, tmp_path):
    target = TARGETS[name]
    for seed in target.seeds:
        path = tmp_path / f"input{target.suffix}"
        path.write_bytes(seed)
        assert fuzz.judge(target, path) == ""
        if name not in ("params", "sim_params"):  # which may be of another namespace or robot
            target.read(path)


def test_the_law_can_fail(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(b"")

    def target(read, seconds=fuzz.SECONDS):
        return fuzz.Target([b""], fuzz.raw, read, "", seconds)

    def fail(error):
        def read(_):
            raise error

        return target(read)

    assert "ZeroDivisionError" in fuzz.judge(target(lambda _: 1 / 0), path)
    assert "characters" in fuzz.judge(fail(fuzz.UserError("a" * 401)), path)
    assert fuzz.judge(fail(fuzz.UserError("a" * 399)), path) == ""
    memory = iter((100, 601))
    monkeypatch.setattr(fuzz, "peak", lambda: next(memory))
    assert fuzz.judge(target(lambda _: None), path) == "501 MB: "
    monkeypatch.setattr(fuzz, "peak", lambda: 100)
    monkeypatch.setattr(fuzz, "PATIENCE", 1)
    assert fuzz.judge(target(lambda _: time.sleep(5)), path) == "no end within 1 s"
    assert "0.0 s" in fuzz.judge(target(lambda _: sum(range(10_000)), 0.0), path)


def test_an_input_follows_from_its_number():
    for name, target in TARGETS.items():
        assert fuzz.made(name, target, 3) == fuzz.made(name, target, 3)
