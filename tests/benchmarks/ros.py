"""How well skill_node keeps its time through ROS, beside a bare loop and a plain rclpy timer.

    python -m tests.benchmarks.ros [--rates 50 200 500 1000] [--seconds 20] [--repeats 3]
                                 [--together] [--busy] [--record FOLDER]

Processes over DDS on this computer: skill_node and master_node with the bundle of
`tests.benchmarks.tick` (48 observations, 12 actions, 2 x 256), and this one as the robot.
A turn of each rate measures, one after the other or `--together` at the same time: a thread that
only sleeps, a node with an rclpy timer that publishes a command, and skill_node.
With `--record` skill_node takes a second turn, with recorder_node beside it.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from mlsh_ros.bringup.network import localhost_environment
from policies.bundle.bundle import Bundle
from tests.benchmarks import one_line_errors
from tests.benchmarks.robot import START_UP, Robot
from tests.benchmarks.scheduler_baseline import KINDS, Floor
from tests.benchmarks.tick import make_bundle

STATES = 1000.0  # per second
Columns = dict[str, np.ndarray]


def skill_node(
    bundle: Bundle, rate: float, seconds: float, record_dir: Path | None = None
) -> tuple[Columns, float]:
    """What each tick told, with `transport` and `reaction`, s; skill_node's CPU as a fraction."""
    # At a rate that the machine does not keep, misses are to be counted, not to stop it.
    wanted: dict[str, dict[str, object]] = {
        "master_node": {},
        "skill_node": {"max_missed_ticks": 1000, "max_late_decisions": 1000},
    }
    if record_dir is not None:
        wanted["recorder_node"] = {"record_dir": record_dir}
    nodes = {name: _start(name, {"bundle": bundle.source, **p}) for name, p in wanted.items()}
    robot = Robot(bundle, STATES)
    try:
        deadline = time.monotonic() + START_UP
        while robot.state != "disarmed" and time.monotonic() < deadline:
            time.sleep(0.05)
        robot.call("arm")
        robot.call("start")
        while len(robot.traces) < rate and time.monotonic() < deadline:  # a second to warm up
            time.sleep(0.05)
        robot.forget()
        before = _cpu(nodes["skill_node"].pid)
        time.sleep(seconds)
        cpu = (_cpu(nodes["skill_node"].pid) - before) / seconds
        rows, reaction = list(robot.traces), robot.reaction
        assert robot.state == "running", robot.state
        robot.call("stop")
    finally:
        for node in nodes.values():
            node.terminate()
        for node in nodes.values():
            node.wait(timeout=10)
        robot.close()
    columns = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    return columns | {"transport": np.array(robot.transport), "reaction": reaction}, cpu


def _start(name: str, parameters: dict[str, object]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", f"mlsh_ros.nodes.{name}", "--ros-args"]
    for key, value in parameters.items():
        command += ["-p", f"{key}:={value}"]
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    return subprocess.Popen(
        [*command, "--log-level", "error"], env=environment, stdout=subprocess.DEVNULL
    )


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _burn() -> None:
    while True:
        pass


@contextmanager
def busy(wanted: bool) -> Iterator[None]:
    """One core that has other work."""
    process = multiprocessing.get_context("spawn").Process(target=_burn, daemon=True)
    if wanted:
        process.start()
    try:
        yield
    finally:
        if wanted:
            process.kill()
            process.join()


def turn(bundle: Bundle, rate: float, seconds: float, together: bool) -> dict[str, float]:
    """The three of a rate; ms."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if together:
            # skill_node takes some seconds to start and to stop.
            floors = [Floor(kind, rate, seconds + 12, folder) for kind in KINDS]
            columns, cpu = skill_node(bundle, rate, seconds)
            bare, timer = (floor.wait() for floor in floors)
        else:
            bare, timer = (Floor(kind, rate, seconds + 2, folder).wait() for kind in KINDS)
            columns, cpu = skill_node(bundle, rate, seconds)
    return {
        "bare50": _ms(bare, 50),
        "bare99": _ms(bare, 99),
        "bare_jitter": _ms(np.abs(np.diff(bare)), 99),
        "timer_jitter": _ms(np.abs(np.diff(timer)), 99),
        "cpu": cpu,
        **_skill(columns, rate),
    }


def _skill(columns: Columns, rate: float) -> dict[str, float]:
    late, missed = columns["lateness"], columns["missed"]
    # A tick begins at its moment plus its lateness; moments are a period apart.
    begun = (1 + missed).cumsum() / rate + late
    return {
        "skill50": _ms(late, 50),
        "skill99": _ms(late, 99),
        "skill_jitter": _ms(np.abs(np.diff(begun) - (1 + missed[1:]) / rate), 99),
        "compute50": _ms(columns["compute"], 50),
        "compute99": _ms(columns["compute"], 99),
        "transport99": _ms(columns["transport"], 99),
        "reaction50": _ms(columns["reaction"], 50),
        "reaction99": _ms(columns["reaction"], 99),
        "ticks": float(len(late)),
        "missed": float(missed.sum()),
        "off": (late[-1] - late[0]) / (begun[-1] - begun[0]) * 100,
    }


def _ms(seconds: np.ndarray, percentile: float) -> float:
    return float(np.percentile(seconds, percentile)) * 1e3


def _median(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.median([row[key] for row in rows])) for key in rows[0]}


HEAD = """\
ms, median of the repeats. late: after the tick's moment; jitter: how far a period is from its
length; command: from the sending of the state that a tick saw to the arrival of its command, with
{states:g} states per second; ratio: skill_node to the bare loop, and to the plain timer
  rate   late p50/p99            ratio   jitter p99               ratio    compute     command
         bare       skill                bare   skill   timer    to timer   p50/p99     p50/p99\
   missed of ticks  CPU  period off"""


def _row(rate: float, rows: list[dict[str, float]]) -> str:
    m = _median(rows)
    late = float(np.median([row["skill99"] / row["bare99"] for row in rows]))
    jitter = float(np.median([row["skill_jitter"] / row["timer_jitter"] for row in rows]))
    return (
        f"{rate:6g}   {m['bare50']:.2f}/{m['bare99']:.2f}  {m['skill50']:.2f}/{m['skill99']:.2f}"
        f"   {late:8.2f}   {m['bare_jitter']:.3f}   {m['skill_jitter']:.3f}   "
        f"{m['timer_jitter']:.3f}   {jitter:8.2f}   {m['compute50']:.2f}/{m['compute99']:.2f}   "
        f"{m['reaction50']:.2f}/{m['reaction99']:.2f}   {m['missed']:6.0f} {m['ticks']:8,.0f}  "
        f"{m['cpu']:4.0%}  {m['off']:+.5f} %"
    )


def _cost(rate: float, bundle: Bundle, seconds: float, repeats: int, folder: Path) -> str:
    """What recording costs: p99 with recorder_node less p99 without, in turns."""
    rows = []
    for repeat in range(repeats):
        row: dict[str, float] = {}
        for name, place in (("off", None), ("on", folder / f"{rate:g}-hz-{repeat}")):
            columns, _ = skill_node(bundle, rate, seconds, place)
            row |= {f"{name}_{key}": v for key, v in _skill(columns, rate).items()}
        for key in ("skill99", "compute99", "transport99"):
            row[f"cost_{key}"] = row[f"on_{key}"] - row[f"off_{key}"]
        rows.append(row)
    m = _median(rows)
    parts = [
        f"{what} {m[f'off_{key}']:.3f} -> {m[f'on_{key}']:.3f} ({m[f'cost_{key}']:+.3f})"
        for what, key in (("late", "skill99"), ("compute", "compute99"), ("way", "transport99"))
    ]
    return f"{rate:6g}   {', '.join(parts)}; missed {m['off_missed']:.0f} -> {m['on_missed']:.0f}"


@one_line_errors
def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rates", type=float, nargs="+", default=[50, 200, 500, 1000])
    parser.add_argument("--seconds", type=float, default=20.0, help="of each rate and repeat")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--together", action="store_true", help="all three at the same time")
    parser.add_argument("--busy", action="store_true", help="with one core busy")
    parser.add_argument(
        "--record", type=Path, help="compare with recorder_node instead; recordings stay there"
    )
    given = parser.parse_args()
    os.environ.update(localhost_environment(os.environ))
    os.environ["ROS_DOMAIN_ID"] = str(random.SystemRandom().randint(1, 100))
    gc.disable()  # the robot's own pauses are not skill_node's
    print(
        "p99 in ms without and with recorder_node" if given.record else HEAD.format(states=STATES)
    )
    with busy(given.busy), tempfile.TemporaryDirectory() as name:
        folder = given.record or Path(name)
        for rate in given.rates:
            bundle = make_bundle(rate, folder / f"bundle-{rate:g}-hz")
            if given.record:
                print(_cost(rate, bundle, given.seconds, given.repeats, folder), flush=True)
                continue
            rows = [
                turn(bundle, rate, given.seconds, given.together) for _ in range(given.repeats)
            ]
            print(_row(rate, rows), flush=True)


if __name__ == "__main__":
    main()
