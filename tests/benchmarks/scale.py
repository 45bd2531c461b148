"""Training by several processes: speed, communication, and an extrapolation to more of them.

    python -m tests.benchmarks.scale [--family moving_bandits] [--iterations 20] [--repeats 3]

Family `directions` is that of the training bench, on gymnasium's half-cheetah.

Runs the same training with one rank and with two, one thread each, in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tests.benchmarks import one_line_errors

WARM = 3  # iterations before the clock
RANKS = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Run:
    """Means over iterations, of the first rank."""

    seconds: float
    steps: int
    skills: float  # part of iterations in which skills learn
    calls: float
    bytes: float
    talk: float  # s


def worker(family: str, iterations: int) -> None:
    """One rank; the first one prints."""
    from policies.mlsh.distributed import ranks_of_this_run
    from policies.mlsh.mlsh import Mlsh
    from policies.mlsh.presets import default_config
    from sim.tasks.registry import make_family
    from tests.benchmarks.runners import RUNNERS, Directions, RunnerMlsh
    from tests.benchmarks.runners import config as runner_config

    ranks = ranks_of_this_run()
    if family == Directions.name:
        folder = Path(tempfile.mkdtemp(prefix="mlsh_scale_"))
        config = runner_config(RUNNERS[0].write(folder), ["threads=1"])
        learner: Mlsh = RunnerMlsh(config, ranks=ranks)
    else:
        config = replace(default_config(family, make_family(family).robot), threads=1)
        learner = Mlsh(config, ranks=ranks)
    for _ in range(WARM):
        learner.iterate()
    meter = replace(ranks.meter)
    start, learned = time.perf_counter(), 0
    for _ in range(iterations):
        learned += learner.iterate().skill is not None
    seconds = time.perf_counter() - start
    if ranks.first:
        run = Run(
            seconds=seconds / iterations,
            steps=config.mlsh.steps_per_iteration,
            skills=learned / iterations,
            calls=(ranks.meter.calls - meter.calls) / iterations,
            bytes=(ranks.meter.bytes - meter.bytes) / iterations,
            talk=(ranks.meter.seconds - meter.seconds) / iterations,
        )
        print(json.dumps(vars(run)), flush=True)


def start(ranks: int, family: str, iterations: int) -> Run:
    """A training with so many ranks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = ["torch.distributed.run", f"--nproc-per-node={ranks}", "--master-addr=127.0.0.1"]
    command = [sys.executable, "-m", *launcher, f"--master-port={port}", "-m", __spec__.name]
    given = ["--worker", "--family", family, "--iterations", str(iterations)]
    done = subprocess.run([*command, *given], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    out = done.stdout
    return Run(**json.loads(out.strip().splitlines()[-1]))


@one_line_errors
def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--family", default="moving_bandits")
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
    if given.worker:
        worker(given.family, given.iterations)
        return
    import tests.benchmarks.runners  # noqa: F401  adds its family
    from sim.tasks.registry import make_family

    make_family(given.family)  # a wrong name is said once, and not by every rank
    turns = [
        [start(n, given.family, given.iterations) for n in (1, 2)] for _ in range(given.repeats)
    ]
    one, two = (
        Run(*np.median([list(vars(turn[i]).values()) for turn in turns], axis=0)) for i in (0, 1)
    )
    ratio = float(np.median([a.seconds / b.seconds for a, b in turns]))
    print(f"{given.family}: {one.steps:,.0f} steps per iteration, one thread per rank, medians")
    for n, run in ((1, one), (2, two)):
        print(
            f"{n} rank: {run.steps / run.seconds:9,.0f} steps/s, {run.seconds * 1e3:.0f} ms an "
            f"iteration; {run.calls:.0f} messages, {run.bytes / 1e3:,.0f} kB, "
            f"{run.talk * 1e3:.1f} ms of talk and waiting"
        )
    print(f"two ranks are {ratio:.2f} times as fast as one")
    _predict(one, two)


def _predict(one: Run, two: Run) -> None:
    """Groups grow with the ranks, minibatches with them: work per rank and messages stay."""
    each = two.talk / max(1.0, two.calls)  # s, of a message between two
    print(f"a message takes {each * 1e6:.0f} us between two ranks; with R ranks log2(R) times it:")
    for n in RANKS:
        # Work as with one rank, for as many groups per rank.
        seconds = one.seconds + two.calls * each * np.log2(n)
        print(
            f"  {n:4} ranks  {n * one.steps / seconds:12,.0f} steps/s  "
            f"{one.seconds / seconds:5.0%} of linear"
        )


if __name__ == "__main__":
    main()
