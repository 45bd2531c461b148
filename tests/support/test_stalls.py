"""A test that is judged by the clock is repeated if a core stood still, and only then."""

import os
import signal
import time
from types import SimpleNamespace

import pytest

from tests import conftest
from tests.support.stalls import LIMIT, MachineStallError, Witness

STOOD = 0.4  # s, of one witness; far more than scheduling takes


def stand_still(witness):
    """As if the core of the last witness had been taken away."""
    number = witness._processes[-1].pid
    os.kill(number, signal.SIGSTOP)
    time.sleep(STOOD)
    os.kill(number, signal.SIGCONT)


def test_a_core_that_stands_still_is_seen():
    with Witness() as witness:
        stand_still(witness)
        processes = witness._processes
    assert len(processes) == len(os.sched_getaffinity(0))
    # The witness sleeps 10 ms at a time, so that it may miss so much at both ends.
    assert STOOD - 0.02 < witness.longest < STOOD + 0.3
    assert all(process.returncode == 0 for process in processes)


@pytest.mark.parametrize("failure", [AssertionError("late"), pytest.fail.Exception("late")])
@pytest.mark.parametrize("still", [True, False])
def test_a_failure_is_the_machines_only_if_it_stood_still(failure, still, monkeypatch):
    class Told(Witness):
        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.longest = LIMIT * (2 if still else 0.5)

    monkeypatch.setattr(conftest, "Witness", Told)
    item = SimpleNamespace(get_closest_marker=lambda name: name == "realtime" or None)
    running = conftest.pytest_runtest_call(item)
    next(running)
    with pytest.raises(MachineStallError if still else type(failure)) as raised:
        running.throw(failure)
    assert failure in (raised.value, raised.value.__cause__)
