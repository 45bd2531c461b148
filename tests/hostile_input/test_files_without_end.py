"""Files that lie beside another are read up to a size: sparse ones of 6 GiB take no disk."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from policies.training.adaptation_file import read_adaptation
from policies.training.metrics import CsvLog, read_rows
from policies.training.run import Run
from sim.errors import UserError
from sim.files.bounded import MOST_LINES, read_bounded, read_lines
from sim.files.strict_yaml import read_mapping
from sim.physics.model_files import load_spec

SPARSE = 6 * 2**30


def sparse(path):
    with path.open("wb") as stream:
        stream.truncate(SPARSE)
    return path


def refusal(call, *arguments):
    """What is said; the memory of this process may grow by 1 GiB meanwhile."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**30, hard))
    try:
        with pytest.raises(UserError) as caught:
            call(*arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_recording_s_list_of_files(tmp_path):
    bag = tmp_path / "rb"
    bag.mkdir()
    (bag / "rb_0.mcap").write_bytes(b"\x89MCAP0\r\n")
    sparse(bag / "metadata.yaml")

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (6_000_000_000, 6_000_000_000))

    made = subprocess.run(
        [sys.executable, "-m", "mlsh_ros.cli.main", "gap", "moving_bandits", str(bag)],
        capture_output=True,
        text=True,
        preexec_fn=limit,
        cwd=tmp_path,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        timeout=60,
    )
    said = made.stdout + made.stderr
    assert made.returncode == 1
    assert "metadata.yaml: larger than 16,777,216 bytes; name the files of the recording" in said
    assert "internal error" not in said


READERS = {
    "metrics.csv": read_rows,
    "adaptation.csv": lambda path: read_adaptation(path, 1),
    "versions.json": lambda path: Run(path.parent).provenance,
    "config.yaml": lambda path: Run(path.parent).config,
    "sim_params.yaml": read_mapping,
    "model.xml": load_spec,
}


@pytest.mark.parametrize("name", READERS)
def test_a_file_of_a_run_or_a_robot(name, tmp_path):
    text = refusal(READERS[name], sparse(tmp_path / name))
    assert f"{name}: larger than " in text


def test_a_mesh_of_a_model(tmp_path):
    (tmp_path / "m.xml").write_text(
        "<mujoco><asset><mesh file='a.stl'/></asset><worldbody>"
        "<geom type='mesh' mesh='a'/></worldbody></mujoco>"
    )
    sparse(tmp_path / "a.stl")
    text = refusal(load_spec, tmp_path / "m.xml")
    assert "m.xml: 'a.stl' is larger than 536,870,912 bytes" in text


def test_a_log_that_is_too_large_stops_no_training(tmp_path):
    path = sparse(tmp_path / "metrics.csv")
    log = CsvLog(path, ["iteration"], keep_until=1)
    log.write({"iteration": 1})
    log.close()
    assert log.set_aside.stat().st_size == SPARSE  # under another name, not copied
    assert log.set_aside.stat().st_blocks < 1000
    assert path.read_text() == "iteration\n1\n"


def test_the_bound_is_exact(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bounded(tmp_path / "a", 5) == b"12345"
    with pytest.raises(UserError, match="a: larger than 4 bytes"):
        read_bounded(tmp_path / "a", 4)
    with pytest.raises(FileNotFoundError):
        read_bounded(tmp_path / "none", 4)


def test_a_size_that_is_not_told_is_found_by_reading():
    """Files under /proc have a size of 0."""
    assert len(read_bounded(Path("/proc/self/status"), 2**16)) > 100
    with pytest.raises(UserError, match="larger than 100 bytes"):
        read_bounded(Path("/proc/self/status"), 100)


@pytest.mark.timeout(20)
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a")
    with pytest.raises(UserError, match="a: not a file"):
        read_bounded(tmp_path / "a", 5)


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_lines_are_counted(tmp_path, end):
    path = tmp_path / "a.csv"
    path.write_bytes(end.encode() * MOST_LINES)
    assert len(read_lines(path, 2**24)) == MOST_LINES
    path.write_bytes(end.encode() * (MOST_LINES + 1))
    with pytest.raises(UserError, match=r"a\.csv: more than 1,000,000 lines"):
        read_lines(path, 2**24)
