"""How nodes that the real `ros2 launch` started end with it.

    python -m tests.benchmarks.real_launch

Needs the packages launch and launch_ros, of a ROS installation or from their source folders on
PYTHONPATH, and mlsh_ros in a prefix of AMENT_PREFIX_PATH. For each way in which a launcher can end
it prints after how many seconds the moving robots were brought to rest, by which largest step of
a command, after how many seconds all nodes had ended, and every error they reported. A signal to
the group is what Ctrl-C, Ctrl-Z and a terminal send.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlsh_ros.bringup.network import localhost_environment
from policies.bundle.bundle import load_bundle
from tests.benchmarks import one_line_errors
from tests.support.nodes import DT, RATE, Observer

START, END = 60.0, 20.0  # s
BUNDLE = "moving_bandits"  # of omni
# Name, signal, whether to the launcher's whole group, namespaces.
WAYS = (
    ("Ctrl-C", signal.SIGINT, True, ("",)),
    ("SIGTERM of the launcher", signal.SIGTERM, False, ("",)),
    ("SIGKILL of the launcher", signal.SIGKILL, False, ("",)),
    ("SIGHUP of the launcher", signal.SIGHUP, False, ("",)),
    ("Ctrl-Z", signal.SIGTSTP, True, ("",)),
    ("two namespaces, Ctrl-C", signal.SIGINT, True, ("bot1", "bot2")),
)


def launch(namespaces: list[str]) -> int:
    """Run sim.launch.py once in each namespace; returns the launcher's status."""
    from ament_index_python import get_package_share_directory
    from launch import LaunchDescription, LaunchService
    from launch.actions import GroupAction, IncludeLaunchDescription
    from launch.launch_description_sources import PythonLaunchDescriptionSource
    from launch_ros.actions import PushRosNamespace

    file = Path(get_package_share_directory("mlsh_ros")) / "launch" / "sim.launch.py"
    arguments = [tuple(each.split(":=")) for each in sys.argv[3:]]
    groups = []
    for name in namespaces:
        source = PythonLaunchDescriptionSource(str(file))
        included = IncludeLaunchDescription(source, launch_arguments=arguments)
        groups.append(GroupAction([PushRosNamespace(name), included] if name else [included]))
    service = LaunchService()
    service.include_launch_description(LaunchDescription(groups))
    status: int = service.run()
    return status


def alive(process: int) -> bool:
    """Whether a process runs."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def moves(observer: Observer) -> bool:
    """Whether a command is in force that takes several ticks to brake."""
    last = observer.commands()[-1:]
    return observer.state() == "running" and bool(np.abs(last).max(initial=0.0) > RATE)


@dataclass(frozen=True)
class End:
    """What followed the end of a launcher."""

    rest: float  # s until the safe command, of the last robot
    step: float  # the largest one of any command after it, m/s
    gone: float  # s until all nodes had ended
    errors: list[str]  # that they reported, and which nodes are left


def end(number: signal.Signals, group: bool, namespaces: tuple[str, ...]) -> End:
    """End a launcher whose robots move."""
    with ExitStack() as stack:
        bundle = load_bundle(BUNDLE)
        observers = [Observer(bundle, namespace=each) for each in namespaces]
        for observer in observers:
            stack.callback(observer.close)
        return _end(number, group, namespaces, observers)


def _end(
    number: signal.Signals, group: bool, namespaces: tuple[str, ...], observers: list[Observer]
) -> End:
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.txt"
        command = [sys.executable, "-m", "tests.benchmarks.real_launch", "--launch"]
        command += [",".join(namespaces), f"bundle:={BUNDLE}", "auto_arm:=true"]
        with log.open("w") as stream:
            launcher = subprocess.Popen(
                command, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
            )
        deadline = time.monotonic() + START
        while not all(map(moves, observers)):
            if time.monotonic() > deadline or launcher.poll() is not None:
                raise SystemExit(log.read_text())
            time.sleep(0.01)
        nodes = [int(n) for n in re.findall(r"started with pid \[(\d+)\]", log.read_text())]
        (os.killpg if group else os.kill)(launcher.pid, number)
        begun = time.monotonic()
        while any(map(alive, nodes)) and time.monotonic() < begun + END:
            time.sleep(0.02)
        took = time.monotonic() - begun
        left = [node for node in nodes if alive(node)]
        for node in left:
            os.kill(node, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):  # one that is suspended
            launcher.wait(5.0)
        launcher.kill()
        launcher.wait()
        errors = [line for line in log.read_text().splitlines() if "ERROR" in line]
        errors += [f"process {node} did not end" for node in left]
        errors += ["a command stands" for each in observers if each.commands()[-1].any()]
        paths = [observer.commands(begun - 2 * DT) for observer in observers]
        return End(
            max(observer.safe_since() for observer in observers) - begun,
            max(float(np.abs(np.diff(path, axis=0)).max()) for path in paths),
            took,
            errors,
        )


@one_line_errors
def main() -> None:
    """Entry point."""
    if sys.argv[1:2] == ["--launch"]:
        raise SystemExit(launch(sys.argv[2].split(",")))
    os.environ.update(localhost_environment(os.environ))
    columns = ("the launcher's end", "safe command after, s", "largest step, m/s")
    print(f"| {' | '.join(columns)} | nodes ended after, s | errors |\n|---|---|---|---|---|")
    for name, number, group, namespaces in WAYS:
        done = end(number, group, namespaces)
        print(
            f"| {name} | {done.rest:.3f} | {done.step:.3f} of {RATE} | {done.gone:.2f} "
            f"| {'; '.join(done.errors) or 'none'} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
