"""Docstrings of the product begin with a noun phrase or a verb, and name no persons for programs.

A clause without a main clause ("Whether it fits", "Of every task") leaves open what is returned.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEADLESS = re.compile(r"(What|Whether|How|Of|That|Who|Where|Why|Which|When|None|Nothing)\b")
PERSONS = re.compile(r"\b([Nn]obody|[Ww]hoever|[Ss]omebody|[Aa]nybody|[Ee]verybody)\b")


def fault(docstring):
    """The first word of a docstring that the style forbids; empty if there is none."""
    found = HEADLESS.match(docstring) or PERSONS.search(docstring)
    return found[0] if found else ""


def docstrings(source):
    """Name, line and docstring of the module and of every class and function in a source text."""
    kinds = ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, kinds) and (text := ast.get_docstring(node)):
            yield getattr(node, "name", "module"), getattr(node, "lineno", 1), text


@pytest.mark.parametrize("package", ["sim", "policies", "mlsh_ros"])
def test_docstrings_are_whole_phrases(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    found = [
        f"{path.relative_to(ROOT)}:{line} {name}: {word!r}"
        for path in files
        for name, line, text in docstrings(path.read_text(encoding="utf-8"))
        if (word := fault(text))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Whether it fits.", "Whether"),
        ("Of every task.", "Of"),
        ("Waits for nobody.", "nobody"),
        ("Offset of a term, m.", ""),
        ("Number of tasks.", ""),
    ],
)
def test_a_headless_clause_is_found(text, word):
    assert fault(text) == word
