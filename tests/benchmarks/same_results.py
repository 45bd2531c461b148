"""Whether a change of the code changes what the program computes, bit for bit.

    python -m tests.benchmarks.same_results record BEFORE.json --recording bag.mcap
    python -m tests.benchmarks.same_results record AFTER.json --recording bag.mcap
    python -m tests.benchmarks.same_results compare BEFORE.json AFTER.json

Records what the command line of the tree in the current folder computes: two trainings of 200,000
steps (a digest of every array of the checkpoint), evaluations of all shipped bundles, one through
the nodes in lockstep, `mlsh gap` and `mlsh sysid` of a recording, and the digests of all skill
files. Times, dates, paths and versions are left out. Takes about ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks import one_line_errors

STEPS = 200_000
# Of a JSON file: what differs from run to run of the same code.
VARYING = re.compile(
    r"timing|latenc|lateness|compute|seconds|created|date|version|path|source|command|digest|"
    r"fingerprint|recordings|host",
    re.IGNORECASE,
)
# Keys of before, as they are called now: (pattern, replacement), applied to both sides.
RENAMED: tuple[tuple[str, str], ...] = (
    ("/normalised$", "/normalized"),
    ("^(/sharing/[0-9]+)/information$", r"\1/mutual_information"),
    ("^/reality$", "/sim_params"),
    ("/bounds/", "/reference_returns/"),
    ("/reference_returns/collapsed$", "/reference_returns/task_blind"),
    (r"(^|\.)astray$", r"\1is_random"),
)


def flat(data: Any, prefix: str = "") -> dict[str, Any]:
    """Every leaf of JSON data by its path, without what varies."""
    if isinstance(data, dict):
        items = [(str(key), value) for key, value in data.items()]
    elif isinstance(data, list):
        items = [(str(i), value) for i, value in enumerate(data)]
    else:
        return {prefix: data}
    leaves: dict[str, Any] = {}
    for key, value in items:
        if not VARYING.search(key):
            leaves |= flat(value, f"{prefix}/{key}")
    return leaves


def arrays(path: Path) -> dict[str, str]:
    """The SHA-256 of every array of an npz file."""
    with np.load(path) as data:
        return {
            name: hashlib.sha256(np.ascontiguousarray(data[name]).tobytes()).hexdigest()
            for name in data.files
            if not VARYING.search(name) and name != "trained"
        }


class Tree:
    """The command line of the tree in the current folder, with a scratch folder.

    Args:
        mlsh: its command, such as `python -m mlsh_ros.cli.main`.
        scratch: folder for what the commands write.
    """

    def __init__(self, mlsh: str, scratch: Path) -> None:
        self.mlsh, self.scratch = mlsh.split(), scratch
        self.environment = {**os.environ, "PYTHONPATH": os.getcwd()}

    def run(self, *arguments: str, status: tuple[int, ...] = (0,)) -> None:
        """Run a command; the process ends if it fails."""
        print("mlsh", *arguments, flush=True)
        done = subprocess.run(
            [*self.mlsh, *arguments], env=self.environment, capture_output=True, text=True
        )
        if done.returncode not in status:
            raise SystemExit(f"status {done.returncode}: {done.stdout[-2000:]}{done.stderr}")

    def train(self, family: str) -> dict[str, Any]:
        """Digests of a checkpoint after 200,000 steps."""
        run = self.scratch / family
        self.run("train", family, "-o", str(run), "--set", f"steps={STEPS}", "--set", "threads=2")
        return arrays(next(run.glob("checkpoint*.npz")))

    def evaluate(self, bundle: str, *more: str) -> dict[str, Any]:
        """What an evaluation writes, without times."""
        place = self.scratch / f"evaluate-{bundle}-{len(more)}"
        self.run("evaluate", bundle, "-o", str(place), *more)
        return flat(json.loads(next(place.glob("*.json")).read_text()))

    def gap(self, bundle: str, recording: str) -> dict[str, Any]:
        """What `mlsh gap` writes."""
        place = self.scratch / "gap"
        self.run("gap", bundle, recording, "-o", str(place))
        return flat(json.loads((place / "gap.json").read_text()))

    def sysid(self, bundle: str, recording: str) -> dict[str, Any]:
        """The file that `mlsh sysid` writes."""
        place = self.scratch / "identified.yaml"
        self.run("sysid", bundle, recording, "-o", str(place), status=(0, 1))
        lines = place.read_text().splitlines() if place.exists() else []
        values = [line for line in lines if not line.startswith("#")]
        return {str(i): line for i, line in enumerate(values)}


def manifest_files(bundle: Path) -> dict[str, str]:
    """SHA-256 of every file of a bundle, of skills with their weights in them."""
    found: dict[str, str] = json.loads((bundle / "manifest.json").read_text())["files"]
    return found


def record(mlsh: str, recording: str, output: Path) -> None:
    """Write all results of the tree in the current folder; what `output` has already is kept."""
    pretrained = Path("policies/pretrained")
    bundles = sorted(path.name for path in pretrained.iterdir() if path.is_dir())
    lockstep = ("--backend", "ros", "--mode", "lockstep", "--episodes", "2")
    results: dict[str, dict[str, Any]] = {}
    if output.exists():
        results = json.loads(output.read_text())
    with tempfile.TemporaryDirectory() as scratch:
        tree = Tree(mlsh, Path(scratch))
        steps: dict[str, Callable[[], dict[str, Any]]] = {
            "skill files": lambda: {
                f"{bundle}/{name}": digest
                for bundle in bundles
                for name, digest in manifest_files(pretrained / bundle).items()
                if name.startswith("skills/")
            },
            **{f"train {f}": partial(tree.train, f) for f in ("moving_bandits", "rooms")},
            **{f"evaluate {b}": partial(tree.evaluate, b, "--episodes", "5") for b in bundles},
            "evaluate in lockstep": partial(tree.evaluate, "moving_bandits", *lockstep),
            "gap": partial(tree.gap, "moving_bandits", recording),
            "sysid": partial(tree.sysid, "moving_bandits", recording),
        }
        for name, step in steps.items():
            if name not in results:
                results[name] = step()
                output.write_text(json.dumps(results, indent=1, sort_keys=True))


def renamed(leaves: dict[str, Any]) -> dict[str, Any]:
    """The same with today's names."""
    found = {}
    for key, value in leaves.items():
        for pattern, name in RENAMED:
            key = re.sub(pattern, name, key)
        found[key] = value
    return found


def compare(before: Path, after: Path) -> int:
    """Print what differs; returns how many values do."""
    first, second = (json.loads(path.read_text()) for path in (before, after))
    total = 0
    for name in sorted(first.keys() | second.keys()):
        a, b = renamed(first.get(name, {})), renamed(second.get(name, {}))
        differ = [key for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)]
        total += len(differ)
        print(f"{name}: {len(a.keys() | b.keys())} values, {len(differ)} differ")
        for key in differ[:10]:
            print(f"  {key}: {a.get(key)} -> {b.get(key)}")
    return total


@one_line_errors
def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    recorder = commands.add_parser("record", help="run everything and write the results")
    recorder.add_argument("output", type=Path)
    recorder.add_argument("--recording", required=True, help="MCAP file of moving_bandits")
    recorder.add_argument("--mlsh", default=f"{sys.executable} -m mlsh_ros.cli.main")
    comparer = commands.add_parser("compare", help="status 1 if two files of `record` differ")
    comparer.add_argument("before", type=Path)
    comparer.add_argument("after", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "record":
        record(arguments.mlsh, arguments.recording, arguments.output)
    elif compare(arguments.before, arguments.after):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
