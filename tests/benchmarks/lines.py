"""Lines per purpose of a revision: code, docstrings and comments, of Python files and templates.

    python -m tests.benchmarks.lines [REVISION ..]

Code is what is neither blank, nor a comment, nor a docstring.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter

from tests.benchmarks import one_line_errors, output_of

PURPOSES = {  # the longest prefix counts
    "sim": "simulation",
    "policies": "learning and bundles",
    "policies/bench": "benchmarks",
    "mlsh_ros": "deployment",
    "mlsh_ros/bench": "benchmarks",
    "launch": "deployment",
    "tests": "tests",
    "tests/benchmarks": "benchmarks",
    "docs": "documentation",
}


def git(*arguments: str) -> str:
    """Output of a git command."""
    return output_of(["git", *arguments])


def purpose(path: str) -> str | None:
    """What a file is for; None: not counted."""
    fitting = [prefix for prefix in PURPOSES if path.startswith(f"{prefix}/")]
    return PURPOSES[max(fitting, key=len)] if fitting else None


def docstring_lines(text: str) -> set[int]:
    """Numbers of all lines of docstrings."""
    lines: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                lines |= set(range(value.lineno, (value.end_lineno or value.lineno) + 1))
    return lines


def count(revision: str) -> Counter[tuple[str, str]]:
    """Lines of every purpose and kind."""
    lines: Counter[tuple[str, str]] = Counter()
    for path in git("ls-tree", "-r", "--name-only", revision).splitlines():
        where = purpose(path)
        kind = path.rpartition(".")[2]
        if where is None or kind not in {"py", "html", "css", "js", "md"}:
            continue
        text = git("show", f"{revision}:{path}")
        if kind != "py":
            lines[where, "templates" if kind != "md" else "text"] += len(text.splitlines())
            continue
        documented = docstring_lines(text)
        for number, line in enumerate(text.splitlines(), 1):
            if number in documented or line.strip().startswith("#"):
                lines[where, "docstrings and comments"] += 1
            elif line.strip():
                lines[where, "code"] += 1
    return lines


@one_line_errors
def main() -> None:
    """Print one table for all revisions."""
    revisions = sys.argv[1:] or ["HEAD"]
    counts = [count(revision) for revision in revisions]
    print("| purpose | lines |", " | ".join(revisions), "|")
    print("|---|---|" + "---|" * len(revisions))
    for where, kind in sorted(set().union(*counts)):
        print(f"| {where} | {kind} |", " | ".join(f"{c[where, kind]:,}" for c in counts), "|")


if __name__ == "__main__":
    main()
