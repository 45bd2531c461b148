"""Detects that a core stood still, in which case tests with deadlines are repeated.

A virtual machine's cores are taken away for a while now and then, and a robot in simulation stops
as it should. A test that fails while that was seen to happen raises `MachineStallError`, and is
repeated (`make pytest`); any other failure is the test's own.
"""

import os
import subprocess
import sys
from types import TracebackType

LIMIT = 0.05  # s, half a tick of omni, which tests allow for; two at a time are 30 to 55 ms late
# One for every core: a hypervisor takes them away one by one. Told to end, it prints the longest
# lateness.
WITNESS = """
import os, select, sys, time
os.sched_setaffinity(0, [int(sys.argv[1])])
longest, last = 0.0, time.monotonic()
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0.01)[0]:
    now = time.monotonic()
    longest, last = max(longest, now - last - 0.01), now
print(max(longest, time.monotonic() - last - 0.01))
"""


class MachineStallError(Exception):
    """A test failed, and the machine had stood still meanwhile."""


class Witness:
    """Watches every core of this process from `__enter__` on.

    `longest` is, after `__exit__`, for how long at most a core did not run what wanted to, in s.
    """

    longest = 0.0

    def __enter__(self) -> "Witness":
        """Begin; returns when every core is watched."""
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-S", "-E", "-c", WITNESS, str(core)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for core in sorted(os.sched_getaffinity(0))
        ]
        for process in self._processes:
            process.stdout.readline()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End, and add up."""
        self.longest = max(float(p.communicate("\n")[0]) for p in self._processes)
