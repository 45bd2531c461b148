"""Several processes learn what one learns, and a lost one costs no more than the last stretch."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import policies.mlsh.shared_memory as nearby_module
from mlsh_ros.cli import main as cli
from policies.mlsh.distributed import Ranks, ranks_of_this_run
from policies.mlsh.shared_memory import SharedMemoryGroup
from sim.errors import UserError
from sim.files.arrays import load_arrays

SETTINGS = [
    "mlsh.groups=4",
    "mlsh.envs=8",
    "mlsh.warmup=2",
    "mlsh.joint=2",
    "mlsh.random_skill_fraction=0.3",
    "threads=1",
    "checkpoint_every=2",
    "family_parameters.ticks=10",  # scores are of 256 episodes
]


def words(folder: Path, iterations=6) -> list[str]:
    settings = [f"--set={s}" for s in (*SETTINGS, f"steps={iterations * 4 * 8 * 50}")]
    return ["moving_bandits", "-o", str(folder), *settings]  # torchrun has --run-..


def train_here(*words: str) -> None:
    """One process is this one: it has torch already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["mlsh", "train", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    assert not ended.value.code


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start_two(*words: str) -> subprocess.Popen:
    launcher = ["torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1"]
    launcher += [f"--master-port={free_port()}", "-m"]
    return subprocess.Popen(
        [sys.executable, "-m", *launcher, "mlsh_ros.cli.main", "train", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def children(process: subprocess.Popen) -> list[int]:
    """The ranks; torchrun puts them into sessions of their own."""
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split()]


def finish(process: subprocess.Popen) -> str:
    try:
        out, _ = process.communicate(timeout=100)
    finally:
        for pid in [*children(process), process.pid] if process.poll() is None else []:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    return out


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    train_here(*words(folder))
    return load_arrays(folder / "checkpoint.npz")


def close(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        if name == "seconds":
            continue
        assert array.shape == theirs[name].shape, name
        # Sums in another order differ in the last bits; learning makes them a little larger.
        assert np.allclose(array, theirs[name], rtol=1e-3, atol=2e-3), name


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(alone, tmp_path):
    process = start_two(*words(tmp_path / "run"))
    out = finish(process)
    assert process.returncode == 0, out
    assert out.count("run folder") == 1  # one of them prints
    close(load_arrays(tmp_path / "run" / "checkpoint.npz"), alone)


@pytest.mark.slow
def test_a_killed_process_costs_what_came_after_the_last_checkpoint(alone, tmp_path):
    folder = tmp_path / "run"
    process = start_two(*words(folder, iterations=2000))
    deadline = time.monotonic() + 60
    while not (folder / "checkpoint.npz").is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(children(process)[-1], signal.SIGKILL)
    finish(process)
    assert process.returncode != 0
    left = load_arrays(folder / "checkpoint.npz")
    assert int(left["iteration"]) % 2 == 0
    # Another number of processes goes on from there.
    config = (folder / "config.yaml").read_text()
    steps = (int(left["iteration"]) + 2) * 4 * 8 * 50
    (folder / "config.yaml").write_text(config.replace(f"{2000 * 1600}", f"{steps}"))
    train_here("--resume", str(folder))
    assert int(load_arrays(folder / "checkpoint.npz")["iteration"]) == int(left["iteration"]) + 2


def test_groups_are_shared_out_evenly():
    shares = [Ranks(r, 4).local_groups(8) for r in range(4)]
    assert sorted(g for share in shares for g in share) == list(range(8))
    assert {len(share) for share in shares} == {2}
    with pytest.raises(
        UserError, match=r"10 is not a multiple of 4 processes \(10 = 2 x 4 \+ 2\)"
    ):
        Ranks(0, 4).local_groups(10)


@pytest.mark.parametrize("columns", [(), (3,), (0,)])
def test_own_rows_are_those_of_ones_groups(columns):
    everybody = np.random.default_rng(0).random((12, *columns))
    # 6 groups of 2 rows in 3 processes: the second one has the groups 1 and 4.
    mine = Ranks(1, 3).local_rows(everybody, 2)
    assert np.array_equal(mine, everybody[[2, 3, 8, 9]])


def test_alone_everything_is_ones_own():
    ranks, x = Ranks(), np.arange(6.0).reshape(3, 2)
    assert ranks.first
    assert np.array_equal(ranks.all_reduce(x), x)
    assert np.array_equal(ranks.all_gather(x, 3), x)
    assert np.array_equal(ranks.local_rows(x, 3), x)
    assert [ranks.any(True), ranks.any(False)] == [True, False]


# Shared memory ------------------------------------------------------------------------------


def talk(path, rank, size, turns, results):
    nearby = SharedMemoryGroup(path, rank, size)
    rng = np.random.default_rng(rank)
    heard = [nearby.exchange(rng.integers(0, 256, n, np.uint8)) for n in turns]
    results.put((rank, [h.tobytes() for h in heard]))


def test_processes_hear_each_other_in_the_order_of_ranks():
    """Three of them, with nothing but the counters to keep them in step."""
    size, turns = 3, [0, 1, 100, 7, *[50] * 200, nearby_module.ROOM + 5, 3]
    path = nearby_module.create(size)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    others = [
        context.Process(target=talk, args=(path, rank, size, turns, results), daemon=True)
        for rank in range(size)
    ]
    for other in others:
        other.start()
    heard = dict(results.get(timeout=60) for _ in others)
    for other in others:
        other.join(10)
    os.unlink(path)
    said = [np.random.default_rng(rank) for rank in range(size)]
    expected = [b"".join(r.integers(0, 256, n, np.uint8).tobytes() for r in said) for n in turns]
    assert heard == dict.fromkeys(range(size), expected)


def meet(rank: int, port: int, together: bool) -> None:
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "RANK": str(rank),
        "LOCAL_WORLD_SIZE": "2" if together else "1",
    }
    ranks = ranks_of_this_run()
    assert (ranks.shared_memory is not None) is together
    assert ranks.all_reduce(np.array([ranks.rank + 1.0])) == 3
    rows = np.arange(2) + 10 * ranks.rank
    assert ranks.all_gather(rows, 2).tolist() == [0, 10, 1, 11]


@pytest.mark.slow
def test_memory_is_shared_on_one_computer_and_left_behind_by_nobody():
    before = set(Path("/dev/shm").glob("mlsh_*"))
    # Torch does not survive a fork of what has threads; from a server it is imported only once.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch.distributed"])
    for together in (True, False):
        port = free_port()
        both = [context.Process(target=meet, args=(rank, port, together)) for rank in range(2)]
        for one in both:
            one.start()
        for one in both:
            one.join(60)
        assert [one.exitcode for one in both] == [0, 0]
    assert set(Path("/dev/shm").glob("mlsh_*")) == before


def test_a_rank_that_is_no_number_is_refused(monkeypatch):
    meeting = {"RANK": "first", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for key, value in meeting.items():
        monkeypatch.setenv(key, value)
    said = (
        r"the 2 processes of WORLD_SIZE could not connect: .*'first'.*; start them with torchrun"
    )
    with pytest.raises(UserError, match=said):
        ranks_of_this_run()


@pytest.mark.parametrize(
    ("size", "said"),
    [("2", "WORLD_SIZE '2' and no RANK"), ("many", "WORLD_SIZE 'many'"), ("0", "WORLD_SIZE '0'")],
)
def test_an_environment_that_names_no_meeting_is_refused(monkeypatch, size, said):
    for key in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(UserError, match=said):
        ranks_of_this_run()
    monkeypatch.setenv("WORLD_SIZE", "")
    assert ranks_of_this_run().size == 1
