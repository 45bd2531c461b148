"""The tests that docs/results/cases.md names are where it says."""

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "results" / "cases.md"
NAME = re.compile(r"(?P<file>tests/[\w/]+(?:\.py)?)|::(?P<test>(?:Test\w+::)?test_\w+)")


def rows():
    """(line, case, cell of its test) of every row of a table with a column `test`."""
    found, header = [], []
    for number, line in enumerate(PAGE.read_text(encoding="utf-8").splitlines(), 1):
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not header and cells:
            header = cells
        elif not cells:
            header = []
        elif header[-1] == "test" and set(cells[0]) != {"-"}:
            found.append((number, cells[0], cells[-1]))
    return found


@cache
def names_in(file):
    """Names of a file's tests, those of a class with its name before them."""
    names, owner = set(), ""
    for line in (ROOT / file).read_text(encoding="utf-8").splitlines():
        if found := re.match(r"class (Test\w+)", line):
            owner = f"{found[1]}::"
        elif found := re.match(r"( *)def (test_\w+)", line):
            names.add((owner if found[1] else "") + found[2])
    return names


def mistakes(cell):
    """What a cell says that is not so."""
    if not cell.startswith("tests/"):
        return [f"no file: {cell}"]
    wrong, file = [], ""
    for found in NAME.finditer(cell):
        if found["file"]:
            file = found["file"]
            if not (ROOT / file).exists():
                wrong.append(f"there is no {file}")
        elif (ROOT / file).is_file() and found["test"] not in names_in(file):
            wrong.append(f"{file} has no {found['test']}")
    # A name that is written in another way would not be looked for.
    rest = NAME.sub("", cell)
    return wrong + [f"not a file and not ::test: {word}" for word in re.findall(r"test_\w*", rest)]


@pytest.mark.parametrize(
    ("cell", "wrong"),
    [
        ("tests/docs/test_cases.py::test_every_test_of_a_case_is_there", []),
        ("tests/docs/test_cases.py", []),
        ("::test_every_test_of_a_case_is_there", ["no file"]),
        ("-", ["no file"]),
        ("tests/docs/test_case.py", ["there is no"]),
        ("tests/docs/test_cases.py::test_every_test", ["has no test_every_test"]),
        ("tests/docs/test_cases.py, test_gap::test_a", ["has no test_a", "not a file"]),
    ],
)
def test_what_is_wrong_in_a_cell_is_found(cell, wrong):
    found = mistakes(cell)
    assert len(found) == len(wrong)
    for text, part in zip(found, wrong, strict=True):
        assert part in text


def test_every_test_of_a_case_is_there():
    assert len(rows()) > 200
    wrong = {f"line {n}, {case}": found for n, case, cell in rows() if (found := mistakes(cell))}
    assert not wrong, "\n".join(f"{where}: {'; '.join(what)}" for where, what in wrong.items())
