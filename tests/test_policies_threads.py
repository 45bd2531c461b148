"""Shared work comes back in order, and what is learned does not depend on who did it."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from conftest import small_config
from policies.mlsh import Mlsh
from policies.threads import Threads


@pytest.mark.parametrize("count", [1, 2, 3])
def test_results_are_in_order_and_each_job_is_done_once(count):
    threads, done = Threads(count), []
    results = threads.run([lambda i=i: done.append(i) or i * i for i in range(100)])
    assert results == [i * i for i in range(100)]
    assert sorted(done) == list(range(100))


def test_several_threads_work_at_the_same_time():
    both = threading.Barrier(2, timeout=10)  # broken unless two jobs wait in it together
    assert len(Threads(2).run([both.wait, both.wait])) == 2


def test_an_error_is_not_lost():
    for bad in range(4):
        with pytest.raises(ZeroDivisionError):
            Threads(2).run([lambda i=i, bad=bad: 1 // (i - bad) for i in range(4)])


def test_training_does_not_depend_on_threads():
    small = small_config()
    config = replace(small, mlsh=replace(small.mlsh, warmup=0))
    one, two = (Mlsh(replace(config, threads=n)) for n in (1, 2))
    for learner in (one, two):
        learner.iterate()
        learner.iterate()
    for name, array in one.state().items():
        assert np.array_equal(array, two.state()[name]), name
