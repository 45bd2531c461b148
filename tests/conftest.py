"""What tests share: a small real bundle with random weights, and ROS confined to this machine."""

import gc
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

# As the command line does, before numpy is imported: the simulator gets the cores, not BLAS.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
# A shell ignores these in what runs in its background, and nohup the first; processes inherit
# that, and ours keep to it.
for _number in (signal.SIGHUP, signal.SIGQUIT):
    signal.signal(_number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
# No DDS packet may leave this machine; set before rclpy is imported anywhere.
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
from mlsh_ros.bringup.network import localhost_environment

os.environ.update(localhost_environment(os.environ))  # nodes find each other at once


from tests.support.bundles import changed_robot, domain, restless_bundle

_own = domain()  # of what joins in this process; given back when it ends
os.environ["ROS_DOMAIN_ID"] = str(_own.__enter__())

from policies.bundle.bundle import Bundle, load_bundle
from sim.envs import reference_returns
from tests.support.cli import run_mlsh
from tests.support.stalls import LIMIT, MachineStallError, Witness

ENOUGH = reference_returns.enough


def fewer_episodes(family) -> int:
    """An eighth of those that reference returns are of."""
    return max(16, ENOUGH(family) // 8)


def take_reference_returns_of(enough) -> None:
    """As many episodes as `enough` says from now on."""
    if reference_returns.enough is not enough:
        reference_returns.enough = enough
        reference_returns.all_reference_returns.cache_clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """A command that is run in this process takes Ctrl-C over; the next test has it back."""
    # Slow tests judge trainings by them; the others only have to have some.
    slow = item.get_closest_marker("slow") is not None
    take_reference_returns_of(ENOUGH if slow else fewer_episodes)
    before = signal.getsignal(signal.SIGINT)
    try:
        return (yield)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """A test that is judged by the clock says so if it failed while the machine stood still."""
    if item.get_closest_marker("realtime") is None:
        return (yield)
    witness = Witness()
    try:
        with witness:
            return (yield)
    except (Exception, pytest.fail.Exception) as error:
        if witness.longest > LIMIT:
            raise MachineStallError(f"for {witness.longest:.3f} s while this ran") from error
        raise


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session):
    """What was imported and collected stays: no collector of garbage need look at it again.

    What tests leave is little beside it, and looked at more seldom.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory) -> Bundle:
    return restless_bundle(tmp_path_factory.mktemp("bundle") / "restless")


@pytest.fixture(scope="session")
def patient_bundle(tmp_path_factory) -> Bundle:
    """Of a robot whose sensors may be 2 s late: where the test itself sends them, and is busy."""
    folder = tmp_path_factory.mktemp("patient")
    late = ("max_age: 0.3", "max_age: 2.0"), ("timeout: 0.5}", "timeout: 2.0}")
    robot = changed_robot(folder / "omni", "omni", *late)
    return restless_bundle(folder / "restless", robot=robot)


@pytest.fixture
def without_curves(monkeypatch) -> None:
    """Trainings draw no picture of their curves, which takes longer than a small one learns."""
    monkeypatch.setattr("policies.training.train.plot_curves", lambda *_: None)


@pytest.fixture
def bundle_path(bundle, tmp_path) -> Path:
    """A copy that a test may damage."""

    target = tmp_path / "copy"
    shutil.copytree(bundle.source, target)
    load_bundle(target)
    return target


@pytest.fixture
def mlsh(monkeypatch, tmp_path):
    """Runs a command in this process, in an empty folder; returns status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    # Imported when it is needed: most commands of tests end before they need torch.
    if "policies.training.train" in sys.modules:
        monkeypatch.setattr("policies.training.train.ADAPTATION_UPDATES", 1)
        monkeypatch.setattr("policies.training.adapt.SCORED_TICKS", 32 * 50)
    return run_mlsh
