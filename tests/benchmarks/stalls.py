"""Longest waits for a core of a process that needs little time, while a command runs.

    python -m tests.benchmarks.stalls [--busy] -- COMMAND ..

On each core a process in a session of its own wakes every 10 ms, as a control loop of 100 Hz does.
Printed are the longest time that it waited for its core, how often it waited for more than 50 ms,
and whether Linux schedules the processes of a session as a group. With `--busy` two more sessions
compute all the time.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from tests.benchmarks import one_line_errors

AUTOGROUP = Path("/proc/sys/kernel/sched_autogroup_enabled")
BUSY = 2  # sessions that compute
# Reads how long it has waited in the queue of its core, ns; so that its own sleep does not count.
WITNESS = """
import os, select, sys
os.sched_setaffinity(0, [int(sys.argv[1])])
def waited():
    with open("/proc/self/schedstat") as file:
        return int(file.read().split()[1]) / 1e9
waits, last = [], waited()
while not select.select([sys.stdin], [], [], 0.01)[0]:
    now = waited()
    waits.append(now - last)
    last = now
print(max(waits, default=0.0), sum(wait > 0.05 for wait in waits))
"""


def measure(command: list[str], *, busy: bool) -> tuple[list[tuple[float, int]], int]:
    """Returns per core (longest wait in s, number of waits above 50 ms), and the exit status."""
    loops = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
        for _ in range(BUSY * busy)
    ]
    try:
        witnesses = [
            subprocess.Popen(
                [sys.executable, "-S", "-E", "-c", WITNESS, str(core)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            for core in sorted(os.sched_getaffinity(0))
        ]
        status = subprocess.run(command, check=False).returncode
        told = [witness.communicate("\n")[0].split() for witness in witnesses]
    finally:
        for loop in loops:
            loop.kill()
    return [(float(longest), int(count)) for longest, count in told], status


@one_line_errors
def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--busy", action="store_true", help="two sessions that compute, beside it")
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    grouped = AUTOGROUP.read_text().strip() if AUTOGROUP.exists() else "not there"
    waits, status = measure(arguments.command, busy=arguments.busy)
    print(f"{AUTOGROUP}: {grouped}; Linux {os.uname().release}")
    for core, (longest, count) in enumerate(waits):
        print(f"core {core}: longest wait {longest:.3f} s, {count} above 0.05 s")
    sys.exit(status)


if __name__ == "__main__":
    main()
