"""The tables of CHANGELOG.rst."""

import re
from pathlib import Path

FILE = Path(__file__).parents[2] / "CHANGELOG.rst"


def renamed() -> set[tuple[str, ...]]:
    """Rows of its tables: the old name, the new one."""
    return {tuple(re.split(r"\s{2,}", line.strip())) for line in FILE.read_text().splitlines()}
