"""The first few inputs of tests/support/fuzz_mcap.py, and those that were findings."""

import pytest

from tests.support import fuzz, fuzz_mcap

FINDINGS = {"mcap": [36]}  # a topic of ours with the messages of another type


@pytest.fixture(scope="module")
def targets():
    return fuzz_mcap.targets()


@pytest.mark.parametrize("name", ["mcap", "other bags"])
def test_whatever_comes_is_read_or_refused_in_one_line(targets, name, tmp_path):
    target, found = targets[name], {}
    for number in [*range(6), *FINDINGS.get(name, [])]:
        path = tmp_path / f"input{target.suffix}"
        try:
            path.write_bytes(fuzz.made(name, target, number))
        except Exception:  # the change itself could not be written down
            continue
        if wrong := fuzz.judge(target, path):
            found[number] = wrong
    assert found == {}


@pytest.mark.parametrize("name", ["mcap", "other bags"])
def test_what_is_whole_is_read(targets, name, tmp_path):
    for seed in targets[name].seeds:
        path = tmp_path / "input"
        path.write_bytes(seed)
        # A recording of somebody else holds no session to replay.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(targets[name].read, "_replay", lambda path: None)
            targets[name].read(path)
