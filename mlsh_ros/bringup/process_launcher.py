"""Starts a node graph as processes where `ros2 launch` is not installed."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

import yaml
from typing_extensions import Self

from mlsh_ros.bringup.network import LAUNCHER, localhost_environment
from mlsh_ros.bringup.node_graph import Graph, NodeSpec
from mlsh_ros.bringup.resolve_arguments import grace, resolve_arguments
from sim.errors import UserError

START_UP = 30.0  # s that a node may take before those after it are started
_LIBC = ctypes.CDLL(None)  # loaded here: nothing may be imported between fork and exec
KEPT = 50  # lines of each node
LAST_WORDS = 5.0  # s before a node's end, in which it says why it ends
KILLED = 2.0  # s that the end of a killed process may take
# From outside, or for want of memory: a process cannot say anything of these.
SENT = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
# [ERROR] [1790000000.1] [skill_node]:
Line = tuple[float, str]  # when it came, s, and what it says
_PREFIX = re.compile(r"^\[[A-Z]+\] \[[0-9.]+\] \[[^]]*\]: ")


class Processes:
    """A running graph; it ends with the `with` block, or with the thread that entered it.

    Args:
        graph: what to start.
        arguments: launch arguments; the others are at their defaults.
        on_line: called with (node, line) for everything that the nodes print.
        domain: ROS domain, by default the environment's.
        stopped: asked while nodes are being started; once it is true, no more are.
    """

    def __init__(
        self,
        graph: Graph,
        arguments: Mapping[str, str],
        on_line: Callable[[str, str], None],
        domain: int | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        require_ros()
        self.graph, self.on_line, self._stopped = graph, on_line, stopped
        self.values = resolve_arguments(graph, graph.resolve(arguments), arguments)
        self._grace = grace(self.values)
        self.parameters = graph.parameters(self.values)
        self._specs = graph.enabled_nodes(self.values)
        self._needed = {spec.name for spec in self._specs}  # by the others
        self._gone: set[str] = set()  # those of the others whose end has been reported
        # Where python has file capabilities, the kernel forgets `_die_with_parent` at exec.
        self.environment = ros_environment(domain) | {LAUNCHER: str(os.getpid())}
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._readers: dict[str, threading.Thread] = {}
        self._again: dict[str, float] = {}  # when a dead node is started once more, s
        self.failures: list[str] = []  # of nodes that were told to end, a line each
        self._lines = {spec.name: deque[Line](maxlen=KEPT) for spec in self._specs}
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Self:
        """Start every node, unless `stopped` ends it before."""
        self._folder = tempfile.TemporaryDirectory(prefix="mlsh_launch_")
        try:
            for spec in self._specs:
                if self._stopped():
                    break
                self._processes[spec.name] = self._start(spec)
                self._await(spec)
        except BaseException:
            self.stop()
            raise
        self._needed -= {spec.name for spec in self._specs if not spec.required}
        return self

    def __exit__(self, *_: object) -> None:
        """End every node."""
        self.stop()

    def dead(self) -> dict[str, int]:
        """Ended nodes with their exit status, without those that are restarted."""
        states = {name: process.poll() for name, process in self._processes.items()}
        return {
            name: status
            for name, status in states.items()
            if status is not None and name not in self._again
        }

    def check(self) -> None:
        """Check that all required nodes run; restart those with respawn.

        Raises:
            UserError: a node has ended; with its status and its reason.
        """
        for name, status in self.dead().items():
            self._readers[name].join(timeout=1.0)  # its last words may still be in the pipe
            if name not in self._needed:
                if name not in self._gone:
                    self._gone.add(name)
                    how = _how(status)
                    self.on_line(name, f"[ERROR] ended with {how}; the others go on")
                continue
            said = self._ending(name, status, time.monotonic())
            if not self.graph.respawns(self._spec(name), self.values):
                raise UserError(said)
            delay = self._spec(name).respawn_delay
            self.on_line(name, f"{said}; it is started again in {delay:g} s")
            self._again[name] = time.monotonic() + delay
        for name in [n for n, moment in self._again.items() if time.monotonic() >= moment]:
            del self._again[name]
            self._processes[name] = self._start(self._spec(name))

    def _ending(self, name: str, status: int, noticed: float) -> str:
        """Describes the end of a node, with the reason from its last lines if it gave one.

        Args:
            name: of the node.
            status: exit status of its process.
            noticed: s monotonic; lines printed more than LAST_WORDS before it are no reason.
        """
        said, lines = f"{name} ended with {_how(status)}", list(self._lines[name])
        return said if -status in SENT else f"{said}: {_reason(lines, noticed - LAST_WORDS)}"

    def _spec(self, name: str) -> NodeSpec:
        return next(spec for spec in self._specs if spec.name == name)

    @property
    def gone(self) -> set[str]:
        """Nodes that have ended although the others go on."""
        return set(self._gone)

    def pid(self, name: str) -> int:
        """Process id of a node."""
        return self._processes[name].pid

    def stop(self) -> None:
        """End every node, skill_node first and alone, because it brings the robot to rest."""
        order = sorted(self._processes, key=lambda name: name != "skill_node")
        killed: set[str] = set()
        began = time.monotonic()
        for name in order:
            process = self._processes[name]
            if process.poll() is None:
                # Not SIGINT: a node that is still importing would show a KeyboardInterrupt.
                process.terminate()
            if name == "skill_node" and _end(process, self._grace):
                killed.add(name)
        killed |= {name for name in order if _end(self._processes[name], self._grace)}
        for reader in self._readers.values():
            reader.join(timeout=1.0)
        for name in order:
            status = self._processes[name].returncode
            if status is None:
                self.failures.append(f"{name}, process {self.pid(name)}, cannot be killed")
            elif name in killed:
                self.failures.append(f"{name} did not end by itself and was killed")
            # One that was still importing ends by the signal.
            elif status not in (0, -signal.SIGTERM) and name not in {*self._gone, *self._again}:
                self.failures.append(self._ending(name, status, began))
        if self._folder is not None:
            self._folder.cleanup()

    def _await(self, spec: NodeSpec) -> None:
        """Wait for the output of a node after which the next ones may be started."""
        deadline = time.monotonic() + START_UP
        while spec.ready_message and not (
            self._stopped()
            or any(spec.ready_message in line for _, line in [*self._lines[spec.name]])
        ):
            self.check()
            if time.monotonic() > deadline:
                raise UserError(f"{spec.name} did not become ready in {START_UP:g} s")
            time.sleep(0.02)

    def _start(self, spec: NodeSpec) -> subprocess.Popen[str]:
        assert self._folder is not None
        file = Path(self._folder.name) / f"{spec.name}.yaml"
        file.write_text(yaml.safe_dump({"/**": {"ros__parameters": self.parameters[spec.name]}}))
        command = [sys.executable, "-m", spec.module, "--ros-args", "--params-file", str(file)]
        if self.values["params_file"]:
            command += ["--params-file", self.values["params_file"]]
        if self.values["namespace"]:
            command += ["-r", f"__ns:=/{self.values['namespace'].strip('/')}"]
        for name, other in self.graph.remappings(self.values).items():
            command += ["-r", f"{name}:={other}"]
        command += ["--log-level", self.values["log_level"]]
        process = subprocess.Popen(
            command,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C reaches us alone; we end the nodes in order
            preexec_fn=_die_with_parent,
        )
        assert process.stdout is not None
        reader = threading.Thread(
            target=self._read, args=(spec.name, process.stdout), daemon=True, name=spec.name
        )
        reader.start()
        self._readers[spec.name] = reader
        return process

    def _read(self, name: str, stream: IO[str]) -> None:
        for line in stream:
            text = line.rstrip()
            self._lines[name].append((time.monotonic(), text))
            # Where it is shown may be gone or full; the node's next lines are read all the same.
            with suppress(OSError, SystemExit):
                self.on_line(name, text)


def require_ros() -> None:
    """Refuse to continue without ROS.

    Raises:
        UserError: rclpy cannot be imported; with installation advice.
    """
    if importlib.util.find_spec("rclpy") is None:
        raise UserError(
            "ROS 2 is not here: rclpy cannot be imported. Source a ROS 2 installation, or install "
            "the wheels: pip install 'mlsh_ros[ros]'"
        )


def ros_environment(domain: int | None = None) -> dict[str, str]:
    """Returns the environment for nodes: restricted to this computer unless the user set it.

    Raises:
        UserError: the domain is out of range.
    """
    environment = dict(os.environ)
    environment |= localhost_environment(environment)
    environment.setdefault("PYTHONUNBUFFERED", "1")
    # `python -m` would look for the nodes' imports in the current folder first (Python 3.11).
    environment.setdefault("PYTHONSAFEPATH", "1")
    # The console output of a node is for people: no escape codes in pipes.
    environment.setdefault("RCUTILS_COLORIZED_OUTPUT", "0")
    if domain is not None:
        environment["ROS_DOMAIN_ID"] = str(domain)
    text = environment.get("ROS_DOMAIN_ID", "0")
    # Above 101 the ports of DDS meet those that the system gives to others.
    if not text.isdigit() or not 0 <= int(text) <= 101:
        raise UserError(f"ROS_DOMAIN_ID {text!r} is not valid. Valid: 0 to 101")
    return environment


def _die_with_parent() -> None:
    """Request SIGTERM for a new node when its parent ends, so that no robot runs alone."""
    if sys.platform == "linux":
        _LIBC.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _reason(lines: list[Line], since: float) -> str:
    """Returns the last line about an error in a node's last seconds, or their last line.

    Without the log's prefix. An earlier error was recovered from, and is not the reason.

    Args:
        lines: of the node, each with its moment, s monotonic.
        since: s monotonic, when these seconds begin.
    """
    late = [text for moment, text in lines if moment >= since and text]
    errors = [text for text in late if "ERROR" in text or "error" in text.lower()]
    last = (errors or late or [f"no output in its last {LAST_WORDS:g} s"])[-1]
    return _PREFIX.sub("", last).removeprefix("error: ")


def _how(status: int) -> str:
    return f"status {status}" if status >= 0 else signal.Signals(-status).name


def _end(process: subprocess.Popen[str], patience: float) -> bool:
    """Wait for the end of a process, then kill it; returns whether that was necessary."""
    deadline = time.monotonic() + patience
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    if process.poll() is not None:
        return False
    process.kill()
    with suppress(subprocess.TimeoutExpired):  # the kernel may wait for a disk, for ever
        process.wait(KILLED)
    return True
