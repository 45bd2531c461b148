"""Pages of docs/: tutorials do what they show, reference pages say what the code says."""

import json
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from mlsh_ros.control.faults import FAULTS
from mlsh_ros.messages.topics import recorded_topics
from sim.files.migrations import SCHEMA
from sim.physics.robot_model import load_robot
from tests.support import pages, reference, site

DOCS = Path(__file__).parents[2] / "docs"
WIDEST = 120
TUTORIALS = [
    pytest.param("tutorials/train-export-evaluate.md", marks=pytest.mark.slow),
    pytest.param("tutorials/new-task.md", marks=pytest.mark.slow),
    "add-a-robot.md",
    "gymnasium.md",
    pytest.param("tutorials/recording-to-model.md", marks=[pytest.mark.ros, pytest.mark.slow]),
    pytest.param(
        "tutorials/onto-the-robot.md",
        marks=[pytest.mark.ros, pytest.mark.realtime, pytest.mark.slow],
    ),
]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", TUTORIALS)
def test_a_tutorial_does_what_it_shows(page, tmp_path):
    text = (DOCS / page).read_text()
    (folder := tmp_path / "page").mkdir()
    assert pages.run_page(text, folder).splitlines() == text.splitlines()


@cache
def written(page: str) -> str:
    """A reference page from the code, which two tests look at."""
    return reference.PAGES[page]()


@pytest.mark.parametrize("page", reference.PAGES)
def test_a_reference_page_is_what_the_code_says(page):
    assert (DOCS / "reference" / page).read_text() == written(page), (
        "write it again: python -m tests.support.reference"
    )


@pytest.mark.parametrize("page", reference.PAGES)
def test_every_row_of_a_reference_page_has_a_meaning(page):
    rows = [row for row in written(page).splitlines() if row.startswith("| `")]
    assert rows
    assert [row for row in rows if row.endswith("| - |")] == []


@pytest.mark.timeout(900)
@pytest.mark.slow
@pytest.mark.ros
def test_the_page_on_tasks_does_what_it_shows_with_the_arm_of_the_page_on_robots(tmp_path):
    (folder := tmp_path / "page").mkdir()
    blocks = [match[0] for match in pages.BLOCK.finditer((DOCS / "add-a-robot.md").read_text())]
    wanted = [b for b in blocks if 'title="' in b or "$ mlsh new-robot" in b]
    pages.run_page("\n".join(wanted), folder)
    text = (DOCS / "add-a-task.md").read_text()
    assert pages.run_page(text, folder).splitlines() == text.splitlines()


# Each part begins with a file of its own and ends with a robot that moves: heading, package that
# it needs, folder of its reports, part of the episodes that is solved at least.
OWN_POLICIES = "use-your-own-policies.md"
OWN_PARTS = [
    ("A policy of Stable-Baselines3", "stable_baselines3", "sb3", 0.9),
    ("A policy of rsl_rl", "rsl_rl", "rsl_rl", 0.9),
    ("A published policy of the Go2", "onnx", "walk", 0.6),
]


@pytest.mark.timeout(1200)
@pytest.mark.slow
@pytest.mark.ros
@pytest.mark.parametrize(("heading", "package", "report", "solved"), OWN_PARTS)
def test_the_page_on_own_policies_does_what_it_shows(heading, package, report, solved, tmp_path):
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install -e '.[trainers]'")
    text = pages.parts((DOCS / OWN_POLICIES).read_text())[heading]
    (folder := tmp_path / "page").mkdir()
    assert pages.run_page(text, folder).splitlines() == text.splitlines()
    for name in (report, f"{report}_ros"):
        (line,) = json.loads((folder / name / "report.json").read_text())["tasks"]
        assert line["success"] >= solved, name
        assert not line["faults"], name


def test_every_command_of_the_page_on_own_policies_is_run():
    parts = pages.parts((DOCS / OWN_POLICIES).read_text())
    with_commands = [heading for heading, text in parts.items() if "```console" in text]
    assert with_commands == [heading for heading, *_ in OWN_PARTS]


# What is written by hand --------------------------------------------------------------------


def first_cells(page: str) -> list[str]:
    return re.findall(r"^\| ([^|]+) \|", (DOCS / page).read_text(), re.MULTILINE)


def test_the_page_of_topics_has_everything_that_is_recorded_with_its_type():
    page = (DOCS / "reference" / "topics.md").read_text()
    interface = load_robot("omni").interface
    own = {t.ros.topic for t in (*interface.observation, *interface.action)}
    for topic in recorded_topics(interface, stamped=True, lockstep=False):
        if topic.name not in own:
            assert f"| `{topic.name}` | {topic.type} |" in page, topic.name


def test_the_page_of_topics_has_every_name_of_the_page_on_security():
    """tests/mlsh_ros/test_documented_graph.py compares that page with running nodes."""
    page = (DOCS / "reference" / "topics.md").read_text()
    rows = re.findall(r"^ *\| (\w+_node)[^|]*\|(.*)\|$", (DOCS / "security.md").read_text(), re.M)
    assert len(rows) == 6
    for node, cells in rows:
        cells = re.sub(r"\(omni: [^)]*\)", "", cells)
        for name in re.findall(r"`([^`]+)`", cells):
            assert f"`{name.replace('~', node)}`" in page, name


def test_troubleshooting_has_every_fault_in_order():
    cells = [cell.strip("`") for cell in first_cells("troubleshooting.md")]
    assert [cell for cell in cells if cell in FAULTS] == list(FAULTS)


def test_the_glossary_has_the_settings_of_its_letters():
    names = {name for row in reference.settings().splitlines() for name in row.split("`")[1:2]}
    letters = re.findall(r"^\| [^|]+ \| `([^`]+)` \|", (DOCS / "glossary.md").read_text(), re.M)
    assert letters
    assert set(letters) <= names


# Form ---------------------------------------------------------------------------------------


def prose(text: str) -> list[str]:
    """The lines of a page that are neither code nor a table nor a link alone."""
    text = re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [line for line in text.splitlines() if not line.lstrip().startswith(("|", "!["))]


UNIT = re.compile(r"(?:[^\s`]|`[^`]*`)+")  # a line is not broken within code
PAGES = [p for p in sorted(DOCS.rglob("*.md")) if p.name != "mutations.md"]
PAGES += [DOCS.parent / "README.md", DOCS.parent / "CONTRIBUTING.md"]
BY_HAND = [p for p in PAGES if p.parent.name != "reference" or p.name not in reference.PAGES]


@pytest.mark.parametrize("page", BY_HAND, ids=lambda p: p.relative_to(DOCS.parent).as_posix())
def test_lines_are_wrapped(page):
    lines = [line for line in prose(page.read_text()) if len(line) > WIDEST]
    assert [line for line in lines if len(UNIT.findall(line)) > 1] == []


def test_every_decision_has_a_number_and_a_title():
    titles = site.decisions()  # refuses a page without a title
    numbers = [name[:4] for name, _ in titles]
    assert len(set(numbers)) == len(numbers) >= 28


def test_every_page_is_in_the_navigation():
    nav = (DOCS.parent / "mkdocs.yml").read_text()
    for page in DOCS.rglob("*.md"):
        name = page.relative_to(DOCS).as_posix()
        assert name in nav or name.startswith("adr/"), name


@pytest.mark.parametrize(
    ("expected", "output", "vary", "same"),
    [
        ("a\n", "a\n", False, True),
        ("a\n", "b\n", False, False),
        ("a ..\n", "a 1.5 s\n", False, True),
        ("a\n..\nb\n", "a\n1\n2\nb\n", False, True),
        ("a\n..\nb\n", "a\nb\n", False, True),
        ("a\n..\nb\n", "a\n1\n2\n", False, False),
        ("a 1.5 of  12\n", "a 22.50 of 3\n", True, True),
        ("a 1.5\n", "a 2.5\n", False, False),
        ("a 1.5 b\n", "a 1.5 c\n", True, False),
        ("", "a\n", True, False),
    ],
)
def test_an_output_matches_what_a_page_shows(expected, output, vary, same):
    assert pages.matches(expected, output, vary) is same


def test_a_page_whose_output_is_wrong_is_shown_with_the_right_one(tmp_path):
    (tmp_path / "page").mkdir()
    text = (
        '```yaml title="a.yaml"\nx: 1\n```\n\n```console\n$ cat a.yaml; false\nx: 2\n$ echo $?\n'
    )
    assert pages.run_page(f"{text}0\n```\n", tmp_path / "page") == (
        text.replace("x: 2", "x: 1") + "1\n```\n"
    )


SOURCE = re.compile(r"`((?:sim|policies|mlsh_ros|tests|launch|config)/[\w/.]+\.\w+)(?:::\w+)?`")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(DOCS.parent).as_posix())
def test_files_that_a_page_names_exist(page):
    for name in SOURCE.findall(page.read_text()):
        assert (DOCS.parent / name).is_file(), name


@pytest.mark.parametrize("page", BY_HAND, ids=lambda page: str(page.relative_to(DOCS.parent)))
def test_files_that_a_page_shows_have_the_present_schema(page):
    shown = re.findall(r"^schema: (\S+)", page.read_text(), re.MULTILINE)
    assert set(shown) <= {str(SCHEMA)}


TEST = re.compile(r"\btest_[a-z0-9_]*[a-z0-9]\b(?!\.py)(?:_?\.\.)?")
NAMING_TESTS = [p for p in BY_HAND if p.name != "structure.md"]  # which lists those that are gone


@cache
def names_of_tests() -> set[str]:
    """Functions and files; read once, for there are as many pages as files."""
    files = list((DOCS.parent / "tests").rglob("test_*.py"))
    known = {name for f in files for name in re.findall(r"def (test_\w+)", f.read_text())}
    return known | {file.stem for file in files}


@pytest.mark.parametrize("page", NAMING_TESTS, ids=lambda page: str(page.relative_to(DOCS.parent)))
def test_tests_that_a_page_names_exist(page):
    """A name that ends with two dots is the beginning of one."""
    known = names_of_tests()
    for name in TEST.findall(page.read_text()):
        start = name.rstrip("._")
        assert name in known or (name != start and any(k.startswith(start) for k in known)), name
