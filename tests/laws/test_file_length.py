"""A file of the product has one purpose, which fits into 400 lines; exceptions have a reason."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
MOST = 400
LONGER = {  # a file that has become shorter has to leave this list
    "mlsh_ros/nodes/skill_node.py": "connects the parts of the control process, each of which is "
    "a file of its own",
}


def lengths():
    """Lines of every file of the product."""
    files = [
        path
        for package in ("sim", "policies", "mlsh_ros", "launch")
        for path in (ROOT / package).rglob("*.py")
    ]
    assert len(files) > 200
    return {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in files
    }


def test_only_files_with_a_reason_are_long():
    longer = {name: lines for name, lines in lengths().items() if lines > MOST}
    assert set(longer) == set(LONGER), longer
    assert all(LONGER.values())
