"""What is installed is what stands in the tree: for pip, for colcon, and for ROS."""

import ast
import configparser
import importlib
import importlib.metadata
import os
import re
import runpy
import subprocess
import sys
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from mlsh_ros.bringup.import_check import PACKAGES, ROOT, shadowed

TREE = Path(__file__).parents[2]
CODE = ("sim", "policies", "mlsh_ros")
MANIFEST = ElementTree.parse(TREE / "package.xml").getroot()
DEPENDS = {item.text for item in MANIFEST.findall("exec_depend")}
# No robot that ships with us speaks it; a user's robot.yaml with joints does.
FOR_USERS_ROBOTS = {"sensor_msgs"}


def is_interfaces(name):
    return name.endswith(("_msgs", "_srvs", "_interfaces"))


def python_packages(include):
    """What find_packages(include) finds in the tree."""
    found = [p.parent.relative_to(TREE) for p in TREE.glob("*/**/__init__.py")]
    names = [".".join(path.parts) for path in found]
    return sorted(name for name in names if any(fnmatch(name, pattern) for pattern in include))


@pytest.fixture(scope="module")
def setup():
    """The keyword arguments of setup.py."""
    found = {}
    fake = SimpleNamespace(
        setup=found.update, find_packages=lambda include: python_packages(include)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "setuptools", fake)
        patch.chdir(TREE)
        runpy.run_path("setup.py")
    return found


def test_name_version_and_license_stand_in_package_xml_alone(setup):
    version = MANIFEST.findtext("version")
    assert setup["version"] == version == importlib.metadata.version("mlsh_ros")
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)  # what a ROS release tool accepts
    for path in (TREE / "setup.py", TREE / "setup.cfg", TREE / "pyproject.toml"):
        assert version not in path.read_text(), path
    for name in CODE:
        assert "__version__" not in (TREE / name / "__init__.py").read_text()
    assert setup["license"] == MANIFEST.findtext("license") == "Apache-2.0"


def test_it_is_an_ament_python_package_for_colcon(setup):
    assert MANIFEST.findtext("export/build_type") == "ament_python"
    config = configparser.ConfigParser()
    config.read(TREE / "setup.cfg")
    # `ros2 run` and `ros2 launch` look there.
    assert config["develop"]["script_dir"] == "$base/lib/mlsh_ros"
    assert config["install"]["install_scripts"] == "$base/lib/mlsh_ros"
    # From 80 on, colcon build --symlink-install breaks.
    assert '"setuptools>=64,<80"' in (TREE / "pyproject.toml").read_text()
    # Without it `colcon test` runs no test and says nothing.
    assert any(item.startswith("pytest>") for item in setup["extras_require"]["test"])
    assert setup["zip_safe"] is False


def test_no_package_shadows_another():
    assert not (TREE / "launch" / "__init__.py").exists(), "it would shadow ROS's launch"
    # pytest does not put the folders of tests first in sys.path, where tests/sim would be found.
    for name in CODE:
        assert Path(importlib.import_module(name).__file__).parent == TREE / name


def test_every_python_package_is_installed(setup):
    with_code = {
        ".".join(p.parent.relative_to(TREE).parts) for c in CODE for p in (TREE / c).rglob("*.py")
    }
    assert set(setup["packages"]) == with_code
    assert set(CODE) <= with_code


def test_every_data_file_is_installed(setup):
    for package in CODE:
        patterns = setup["package_data"][package]
        files = {
            path.relative_to(TREE / package).as_posix()
            for path in (TREE / package).rglob("*")
            if path.is_file() and path.suffix not in (".py", ".pyc")
        }
        missed = {f for f in files if not any(_glob(f, pattern) for pattern in patterns)}
        assert not missed, f"no package_data pattern of {package} matches"
        idle = {pattern for pattern in patterns if not any(_glob(f, pattern) for f in files)}
        assert not idle, f"package_data patterns of {package} without a file"
    assert {"robots/omni/robot.yaml", "robots/omni/model.xml"} <= {
        p.relative_to(TREE / "sim").as_posix() for p in (TREE / "sim").rglob("*")
    }


@pytest.mark.parametrize(
    ("folder", "files"),
    [
        (
            "mlsh_ros/evaluation/report",
            {"base.html", "macros.html", "evaluation.html", "page.css", "sort.js"},
        ),
        ("mlsh_ros/sim2real/gap", {"gap.html"}),
    ],
)
def test_an_installation_holds_the_templates_of_reports(built, folder, files):
    assert files <= {path.name for path in (built / folder).iterdir()}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """What a wheel holds, in a folder."""
    folder = tmp_path_factory.mktemp("built")
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(folder)]
    subprocess.run(command, cwd=TREE, check=True, capture_output=True)
    return folder


def _glob(file, pattern):
    """As package_data does: a * stops at a /."""
    a, b = file.split("/"), pattern.split("/")
    return len(a) == len(b) and all(map(fnmatch, a, b))


def test_share_holds_what_ros_looks_for(setup):
    share = dict(setup["data_files"])
    assert share["share/ament_index/resource_index/packages"] == ["resource/mlsh_ros"]
    assert share["share/mlsh_ros"] == ["package.xml"]
    for folder in ("launch", "config"):
        there = {f"{folder}/{p.name}" for p in (TREE / folder).iterdir() if p.is_file()}
        assert set(share[f"share/mlsh_ros/{folder}"]) == there
        assert there
    assert (TREE / "resource" / "mlsh_ros").is_file()


def test_console_scripts_exist(setup):
    scripts = dict(s.split(" = ") for s in setup["entry_points"]["console_scripts"])
    from mlsh_ros.bringup.params import NODES

    assert set(scripts) == {"mlsh", *NODES}
    for target in scripts.values():
        module, function = target.split(":")
        if module.startswith("mlsh_ros.nodes"):
            pytest.importorskip("rclpy")
        assert callable(getattr(importlib.import_module(module), function))
    installed = importlib.metadata.distribution("mlsh_ros").entry_points
    assert {e.name: e.value for e in installed.select(group="console_scripts")} == scripts


@cache
def imported_by_us():
    """Top-level names that the code imports, anywhere in a file."""
    names = set()
    for package in CODE:
        for path in (TREE / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    names |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    names.add(str(node.module).partition(".")[0])
    return names


def named_by_robots_and_code():
    """Message packages that are imported by their name, such as `nav_msgs/msg/Odometry`."""
    files = [p for c in CODE for s in ("*.py", "*.yaml") for p in (TREE / c).rglob(s)]
    text = "\n".join(path.read_text() for path in files)
    return set(re.findall(r"\b([a-z_]+)/(?:msg|srv)/[A-Z]", text))


def test_ros_dependencies_are_declared_once_each(setup):
    used = {name for name in imported_by_us() if is_interfaces(name)} | named_by_robots_and_code()
    declared = {name for name in DEPENDS if is_interfaces(name)}
    assert {"nav_msgs", "std_msgs", "lifecycle_msgs"} <= used  # else this test sees nothing
    assert used - declared == set(), "missing in package.xml"
    assert declared - used - FOR_USERS_ROBOTS == set(), "not used; drop it from package.xml"
    wheels = {
        name.removeprefix("ros-jazzy-").replace("-", "_")
        for name in setup["extras_require"]["ros"]
    }
    assert wheels == declared | {"rclpy", "rmw_fastrtps_cpp"}, "the extra `ros` is not package.xml"


def test_other_ros_packages_are_declared():
    ros = {"rclpy", "launch", "launch_ros"}
    assert ros <= imported_by_us()
    assert ros | {"ros2launch"} <= DEPENDS


def test_all_three_packages_come_from_one_root():
    assert shadowed() == ""
    for name in CODE:
        assert Path(importlib.import_module(name).__file__).resolve().parent.parent == ROOT == TREE
    assert set(PACKAGES) == set(CODE) - {"mlsh_ros"}


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("file", ["{}/__init__.py", "{}.py"])
def test_a_shadowed_package_is_named_in_one_line(tmp_path, package, file):
    other = tmp_path / file.format(package)
    other.parent.mkdir(exist_ok=True)
    other.write_text("raise RuntimeError('wrong package')\n")
    # `python -c` and `python -m` take the current folder first, before what is installed.
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from mlsh_ros.bringup.import_check import require_one_root as r; r()",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(TREE), "PYTHONSAFEPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"error: package {package!r} comes from {tmp_path.resolve()}" in done.stderr
    assert f"shadows {ROOT / package}" in done.stderr
