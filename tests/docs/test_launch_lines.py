"""Every launch line of the documentation has arguments that its graph accepts."""

import re
from pathlib import Path

import pytest

from mlsh_ros.bringup.graphs import GRAPHS

ROOT = Path(__file__).parents[2]
LINE = re.compile(
    r"(?:mlsh launch|ros2 launch mlsh_ros) (sim|robot)(?:\.launch\.py)?((?: [^\s`]+:=[^\s`]*)+)"
)
LINES = [
    pytest.param(name, arguments.split(), id=f"{page.name}:{arguments.strip()}")
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for name, arguments in LINE.findall(page.read_text().replace("\\\n", " "))
]


@pytest.mark.parametrize(("name", "given"), LINES)
def test_its_arguments_are_known(name, given):
    known = {argument.name: argument for argument in GRAPHS[name].arguments}
    for each in given:
        argument, _, value = each.rstrip(").,;").partition(":=")
        assert argument in known, each
        choices = known[argument].choices
        assert not choices or value in choices or not value.isalnum(), each


def test_there_are_some():
    assert len(LINES) > 10
