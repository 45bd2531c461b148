"""A class has a name of its own, so that its name alone says which one is meant."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
TWICE = {  # of two layers, and no file imports both; a name that is unique has to leave this list
    "Episode": "one is scored, of the other a master learns",
    "Session": "one runs, the other was recorded",
    "Topic": "one is of the interface, the other of a file",
}


def test_no_two_classes_have_one_name():
    files = defaultdict(list)
    for package in ("sim", "policies", "mlsh_ros"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    files[node.name].append(path.relative_to(ROOT).as_posix())
    assert len(files) > 300
    several = {name: paths for name, paths in files.items() if len(paths) > 1}
    assert set(several) == set(TWICE), several
