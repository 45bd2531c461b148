"""A hook of mkdocs: what the site takes from outside of docs/, and the list of decisions."""

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DECISIONS = ROOT / "docs" / "adr"


def on_files(files: Any, config: Any) -> Any:
    """Add CONTRIBUTING.md, which stands beside README.md, and the index of decisions."""
    from mkdocs.structure.files import File

    text = (ROOT / "CONTRIBUTING.md").read_text().replace("](docs/", "](")
    files.append(File.generated(config, "CONTRIBUTING.md", content=text))
    rows = "".join(f"| [{name[:4]}]({name}) | {title} |\n" for name, title in decisions())
    index = f"# Decisions\n\n| number | decision |\n|---|---|\n{rows}"
    files.append(File.generated(config, "adr/index.md", content=index))
    return files


def decisions() -> list[tuple[str, str]]:
    """File name and title of every decision, in order."""
    found = []
    for path in sorted(DECISIONS.glob("[0-9]*.md")):
        title = re.match(r"# (\d+)\. (.+)\n", path.read_text())
        number = title and int(title[1])
        assert number == int(path.name[:4]), f"{path}: the first line is not '# NUMBER. TITLE'"
        found.append((path.name, title[2]))
    return found
