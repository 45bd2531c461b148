"""The import rules of the linter hold, and each of them finds an import that is against it."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONTRACTS = {  # an import that each contract forbids: (file, line)
    "Dependencies run one way: sim <- policies <- mlsh_ros": (
        "sim/errors.py",
        "import policies.mlsh.gae",
    ),
    "Layers of sim": ("sim/files/lookup.py", "import sim.tasks.goals"),
    "Layers of policies": ("policies/mlsh/gae.py", "import policies.training.run"),
    "Layers of mlsh_ros": ("mlsh_ros/control/clock.py", "import mlsh_ros.nodes.node"),
    "Layers of mlsh_ros.sim2real": (
        "mlsh_ros/sim2real/data/windows.py",
        "import mlsh_ros.sim2real.gap.report",
    ),
    "Modules that run on a robot import neither torch nor MuJoCo": (
        "mlsh_ros/bringup/params.py",
        "import torch",
    ),
    "Nodes other than the recorder do not import the packages of recordings": (
        "mlsh_ros/nodes/sim_node.py",
        "import rosbags",
    ),
    "Messages, control and recording do not import ROS": (
        "mlsh_ros/recording/schemas.py",
        "import rclpy",
    ),
}


def lint(folder):
    """The verdict of import-linter on the packages in a folder: contract to KEPT or BROKEN."""
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, '.'); {code}", "--no-cache"],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    lines = [line.split(" (")[0].rpartition(" ") for line in done.stdout.splitlines()]
    found = {name: verdict for name, _, verdict in lines if verdict in ("KEPT", "BROKEN")}
    assert found, done.stdout + done.stderr
    return found


def test_every_contract_finds_an_import_that_it_forbids(tmp_path):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    only_code = shutil.ignore_patterns("__pycache__", "pretrained", "robots")
    for package in ("sim", "policies", "mlsh_ros"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=only_code)
    assert lint(tmp_path) == dict.fromkeys(CONTRACTS, "KEPT")
    for file, line in CONTRACTS.values():
        path = tmp_path / file
        path.write_text(f"{path.read_text()}\n{line}\n")
    assert lint(tmp_path) == dict.fromkeys(CONTRACTS, "BROKEN")
