"""What loading a bundle as large as is accepted costs the ticks of a moving robot.

    python -m tests.benchmarks.large_bundle

skill_node reads and checks the bundle itself, beside the thread that ticks. Drives a simulated
robot with all nodes, at several rates, and replaces its bundle again and again by one of 61 MiB
that computes the same; prints the time that this takes, the ticks that were missed and how late
ticks began, and the faults by which the robot was stopped.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger

from mlsh_ros.bringup.network import localhost_environment
from policies.bundle.bundle import Bundle
from tests.benchmarks import one_line_errors
from tests.support.bundles import changed_robot, restless_bundle, wide_bundle
from tests.support.nodes import Observer, World, new_domain
from tests.support.stalls import Witness

WIDTH = 2000  # units of each hidden layer


def load(observer: Observer, source: Path) -> float:
    """Give skill_node another bundle; returns the s that it took."""
    change = Parameter("bundle", value=str(source)).to_parameter_msg()
    since = time.monotonic()
    name = "skill_node/set_parameters"
    answer = observer.call(SetParameters, name, 30.0, parameters=[change]).results[0]
    if not answer.successful:
        raise SystemExit(answer.reason)
    return time.monotonic() - since


def recover(observer: Observer) -> None:
    """Drive again after a fault."""
    for service in ("watchdog_node/reset", "skill_node/reset"):
        observer.call(Trigger, service)
    observer.heard["skill_node/trace"].clear()
    observer.drive()


def measure(robot: str, bundle: Bundle, large: Bundle, loads: int) -> str:
    """One rate; returns a row of the table."""
    faults: Counter[str] = Counter()
    took, before, during, missed = [], [0.0], [0.0], Counter[str]()
    with new_domain() as stack:
        world = World(bundle, stack)
        world.start("watchdog_node")
        world.start("sim_node", robot=robot)
        world.start("master_node")
        world.start("skill_node", max_late_decisions=1000)
        observer = world.observer
        observer.wait("disarmed", 30.0)
        observer.drive()
        for _ in range(loads):
            for source, times in ((None, before), (large.source, during), (bundle.source, None)):
                first = len(observer.ticks())
                if source is None:
                    time.sleep(1.0)
                else:
                    seconds = load(observer, source)
                ticks = observer.ticks()[first:]
                if times is not None:
                    times += [tick["lateness"] for tick in ticks]
                    missed["during" if times is during else "before"] += sum(
                        int(tick["missed"]) for tick in ticks
                    )
                if times is during:
                    took.append(seconds)
            time.sleep(0.2)
            if observer.state() != "running":
                faults[observer.state().split(":")[1].strip()] += 1
                recover(observer)
    named = ", ".join(f"{count} {name}" for name, count in faults.items()) or "none"
    return (
        f"| {1 / bundle.interface.control_dt:.0f} Hz | {loads} | {max(took):.2f} "
        f"| {missed['during']} | {max(during) * 1000:.1f} "
        f"| {missed['before']} | {max(before) * 1000:.1f} | {named} |"
    )


@one_line_errors
def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--loads", type=int, default=10)
    loads = parser.parse_args().loads
    os.environ.update(localhost_environment(os.environ))
    columns = ("rate", "loads", "longest (s)", "ticks missed", "latest (ms)")
    columns += ("before: missed", "latest (ms)", "faults")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for dt in (0.1, 0.02, 0.01):
        said = StringIO()
        with tempfile.TemporaryDirectory() as name, Witness() as witness:
            folder = Path(name)
            changes = (
                ("control_dt: 0.1 ", f"control_dt: {dt} "),
                ("physics_dt: 0.02", "physics_dt: 0.01"),
            )
            robot = changed_robot(folder / "robot", "omni", *changes)
            model = folder / "robot" / "model.xml"
            model.write_text(model.read_text().replace('timestep="0.02"', 'timestep="0.01"'))
            bundle = restless_bundle(folder / "bundle", robot=robot)
            large = wide_bundle(bundle, folder / "large", WIDTH)
            try:
                with redirect_stdout(said):
                    row = measure(robot, bundle, large, loads)
            except (Exception, pytest.fail.Exception) as error:
                row = f"| {1 / dt:.0f} Hz | {str(error)[:200]!r} |"
        print(row, flush=True)
        print(f"longest wait for a core: {witness.longest * 1000:.1f} ms", file=sys.stderr)


if __name__ == "__main__":
    main()
