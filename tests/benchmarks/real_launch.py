"""How nodes that the real `ros2 launch` started end with it.

    python -m tests.benchmarks.real_launch

Needs the packages launch and launch_ros, of a ROS installation or from their source folders on
PYTHONPATH, and mlsh_ros in a prefix of AMENT_PREFIX_PATH. For each way in which a launcher can end
it prints after how many seconds all of its nodes had ended, and every error they reported. A
signal to the group is what Ctrl-C, Ctrl-Z and a terminal send.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from tests.benchmarks import one_line_errors

START, END = 60.0, 20.0  # s
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


def end(
    number: signal.Signals, group: bool, namespaces: tuple[str, ...]
) -> tuple[float, list[str]]:
    """Seconds from the signal until all nodes have ended, and the errors they reported."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.txt"
        command = [sys.executable, "-m", "tests.benchmarks.real_launch", "--launch"]
        command += [",".join(namespaces), "bundle:=moving_bandits", "auto_arm:=true"]
        with log.open("w") as stream:
            launcher = subprocess.Popen(
                command, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
            )
        deadline = time.monotonic() + START
        while log.read_text().count("skill_node]: running") < len(namespaces):
            if time.monotonic() > deadline or launcher.poll() is not None:
                raise SystemExit(log.read_text())
            time.sleep(0.1)
        nodes = [int(n) for n in re.findall(r"started with pid \[(\d+)\]", log.read_text())]
        time.sleep(1.0)
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
        return took, errors + [f"process {node} did not end" for node in left]


@one_line_errors
def main() -> None:
    """Entry point."""
    if sys.argv[1:2] == ["--launch"]:
        raise SystemExit(launch(sys.argv[2].split(",")))
    print("| the launcher's end | nodes ended after, s | errors |\n|---|---|---|")
    for name, number, group, namespaces in WAYS:
        took, errors = end(number, group, namespaces)
        print(f"| {name} | {took:.2f} | {'; '.join(errors) or 'none'} |", flush=True)


if __name__ == "__main__":
    main()
