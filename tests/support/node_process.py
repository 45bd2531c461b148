"""Nodes as processes of their own that need not import everything once more.

Each test starts up to five nodes, and a node imports for a second. One process imports what they
share, without ROS and ONNX Runtime, which have threads, and forks a node from there. From
`main()` on it is what `python -m mlsh_ros.nodes.NAME` is.
"""

from __future__ import annotations

import atexit
import faulthandler
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

SHARED = (
    "mlsh_ros.control.controller",
    "mlsh_ros.control.loop",
    "policies.bundle.bundle",
    "policies.bundle.task_compatibility",
)
SHARED += ("mujoco", "sim.envs.world", "sim.tasks.registry")


class NodeProcess:
    """What is used of `subprocess.Popen`, of a node; stdout and stderr are one pipe of text.

    Args:
        name: of the node's module.
        arguments: of its command line.
        environment: of the process.
        full: nobody reads what it says, and there is no room for more.
    """

    def __init__(
        self,
        name: str,
        arguments: list[str],
        environment: dict[str, str],
        *,
        full: bool = False,
    ) -> None:
        read, write = os.pipe()
        if full:
            os.set_blocking(write, False)
            with suppress(BlockingIOError):
                while True:
                    os.write(write, b" " * 65536)
            with suppress(BlockingIOError):
                while True:
                    os.write(write, b" ")
            os.set_blocking(write, True)
        self.pid = int(_ask({"start": name, "arguments": arguments, "env": environment}, write))
        os.close(write)
        self.stdout = open(read)  # noqa: SIM115 (the test closes it)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        if self.returncode is None and (said := _ask({"poll": self.pid})) != "runs":
            self.returncode = int(said)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, as soon as there is one.

        Raises:
            subprocess.TimeoutExpired: there was none in time; where its threads stand is in it.
        """
        deadline = time.monotonic() + (timeout or float("inf"))
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"node {self.pid}: {self._stacks()}", timeout or 0)
            time.sleep(0.005)
        assert self.returncode is not None
        if self.returncode == -signal.SIGALRM:  # its own bound on its end
            raise RuntimeError(f"node {self.pid} could not end by itself: {self._said()}")
        return self.returncode

    def _said(self) -> str:
        os.set_blocking(self.stdout.fileno(), False)
        return os.read(self.stdout.fileno(), 2**20).decode()

    def _stacks(self) -> str:
        """All that it has said, and at the end where its threads stand."""
        os.kill(self.pid, signal.SIGUSR1)
        time.sleep(0.5)
        return self._said()

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """All that it says, and None for stderr, which is in it.

        Raises:
            subprocess.TimeoutExpired: it went on for longer.
        """
        said = []
        deadline = time.monotonic() + (timeout or float("inf"))
        with self.stdout, selectors.DefaultSelector() as selector:
            selector.register(self.stdout, selectors.EVENT_READ)
            while True:
                left = deadline - time.monotonic()
                if not selector.select(None if timeout is None else max(left, 0.0)):
                    raise subprocess.TimeoutExpired(f"node {self.pid}", timeout or 0.0)
                if not (piece := os.read(self.stdout.fileno(), 65536)):
                    break
                said.append(piece)
        self.wait(None if timeout is None else max(deadline - time.monotonic(), 0.001))
        return b"".join(said).decode(), None

    def send_signal(self, number: int) -> None:
        """A signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


# The process that forks them ---------------------------------------------------------------------

_lock = threading.Lock()
_server: tuple[subprocess.Popen[bytes], socket.socket] | None = None


def _ask(request: dict[str, Any], *files: int) -> str:
    global _server
    with _lock:
        if _server is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            command = [sys.executable, "-u", __file__, str(theirs.fileno())]
            process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                # Threads of BLAS would be lost in a fork; a benchmark has no conftest to say so.
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            )
            theirs.close()
            _server = process, ours
            atexit.register(_stop, process, ours)
        socket.send_fds(_server[1], [json.dumps(request).encode()], list(files))
        return _server[1].recv(1024).decode()


def _stop(process: subprocess.Popen[bytes], channel: socket.socket) -> None:
    channel.close()  # which it notices
    process.wait()


def _serve(channel: socket.socket) -> tuple[str, list[str]] | None:
    """Answer until nobody asks any more; in a new process, the node that it shall be."""
    running: set[int] = set()
    while True:
        try:
            data, files, *_ = socket.recv_fds(channel, 2**20, 1)
        except ConnectionResetError:
            data = b""
        if not data:  # the test process has ended, perhaps without having ended its nodes
            for pid in running:
                os.kill(pid, signal.SIGKILL)
            return None
        request = json.loads(data)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            running.discard(pid)
            channel.send(str(os.waitstatus_to_exitcode(status) if pid else "runs").encode())
            continue
        pid = os.fork()
        if pid == 0:
            channel.close()
            empty = os.open(os.devnull, os.O_RDONLY)
            for number, file in enumerate((empty, files[0], files[0])):
                os.dup2(file, number)
            os.close(empty)
            os.close(files[0])
            os.environ.clear()
            os.environ.update(request["env"])
            return request["start"], request["arguments"]
        os.close(files[0])
        running.add(pid)
        channel.send(str(pid).encode())


def _main() -> NoReturn:
    for name in SHARED:
        import_module(name)
    threads = os.listdir("/proc/self/task")
    assert len(threads) == 1, f"{len(threads)} threads: a fork would lose all but one"
    if (node := _serve(socket.socket(fileno=int(sys.argv[1])))) is None:
        sys.exit()
    name, arguments = node
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    module = import_module(f"mlsh_ros.nodes.{name}")
    sys.argv = [module.__file__ or "", *arguments]
    sys.exit(module.main())


if __name__ == "__main__":
    _main()
