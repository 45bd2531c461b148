"""Task families and robots of a user's own: by file, by class, by entry point; and bad ones."""

import sys
from unittest import mock

import pytest

from sim.envs.world import World
from sim.errors import UserError
from sim.files.entry_points import installed
from sim.interface import robot_file
from sim.physics.robot_model import load_robot
from sim.tasks import registry
from sim.tasks.registry import (
    add_family,
    family_class,
    family_source,
    joined_sources,
    make_family,
    recommended_settings,
    use_families,
    use_family,
    user_sources,
)
from tests.support.own_family import write_family, write_package, write_robot

FAMILY, ROBOT = "mlsh_ros.task_families", "mlsh_ros.robots"


@pytest.fixture(autouse=True)
def forgotten():
    """Nothing of a test stays: neither families nor modules nor what is installed."""
    modules = set(sys.modules)
    with mock.patch.dict(registry._LOADED):
        installed.cache_clear()
        yield
    installed.cache_clear()
    for name in set(sys.modules) - modules:
        if name.startswith(("task_family_", "theirs")):
            del sys.modules[name]


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder in which packages are installed."""
    monkeypatch.syspath_prepend(tmp_path / "site")
    return tmp_path / "site"


# A family that works ----------------------------------------------------------------------------


def test_a_file_is_a_family_from_then_on(tmp_path):
    path = write_family(tmp_path / "stay.py")
    assert use_family(str(path)) == "stay"
    assert use_family(f"{path}:Stay") == "stay"  # the same once more
    assert use_family("stay") == "stay"
    family = make_family("stay", {"ticks": 5})
    assert family.ticks == 5
    world = World(load_robot("omni"), family, 2)
    assert world.interface.observation_size > 0
    assert recommended_settings("stay")["mlsh.envs"] == 8
    assert user_sources() == [f"{path}:Stay"]
    assert family_source("stay").digest != ""
    assert family_source("rooms") is None


def test_a_class_of_an_installed_package_and_several_at_once(site, tmp_path):
    write_family(site / "theirs" / "tasks.py")
    other = write_family(tmp_path / "go.py", ('"stay"', '"go"'))
    use_families(f"theirs.tasks:Stay, {other}")
    assert {"stay", "go"} <= {*registry._LOADED}
    use_families("")


def test_a_path_with_commas_is_named_to_another_process(tmp_path):
    path = write_family(tmp_path / "a,b" / "c,d.py")
    second = write_family(tmp_path / "go.py", ('"stay"', '"go"'))
    assert [use_family(str(each)) for each in (path, second)] == ["stay", "go"]
    text = joined_sources()
    known = user_sources()
    assert text == f"{tmp_path}/a\\,b/c\\,d.py:Stay,{tmp_path}/go.py:Stay"
    registry._LOADED.clear()
    use_families(text)
    assert user_sources() == known


def test_an_entry_point_is_found_by_name_and_imported_only_then(site):
    write_package(site, "theirs", {f"{FAMILY} stay": "theirs.tasks:Stay"})
    write_family(site / "theirs" / "tasks.py")
    assert "stay" in registry.family_names()
    make_family("rooms")
    assert "theirs.tasks" not in sys.modules
    assert make_family("stay").tasks == ("left", "right")
    assert "theirs.tasks" in sys.modules
    assert use_family("theirs.tasks:Stay") == "stay"


# Nothing is imported unasked --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["{file}", "{file}:Stay", "theirs.tasks:Stay"])
def test_a_name_alone_imports_nothing(site, tmp_path, name):
    write_family(site / "theirs" / "tasks.py")
    path = write_family(tmp_path / "stay.py", ('"""Stay near', 'raise SystemExit\n"""Stay near'))
    before = set(sys.modules)
    with pytest.raises(UserError, match=r"^no task family .* Valid: moving_bandits"):
        make_family(name.format(file=path))
    assert not {m for m in set(sys.modules) - before if "stay" in m or "theirs" in m}


# Bad ones: one line each ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("import numpy", "import nunpy"),
            r"line 5 does not import: ModuleNotFoundError:",
        ),
        (("class Stay:", "class Stay"), r"stay.py does not import: SyntaxError"),
        (('"""Stay near', 'raise SystemExit(3)\n"""Stay near'), r"line 1 .*SystemExit: 3"),
        (("def reward", "def rewart"), r"class Stay lacks the method `reward`"),
        (
            ("def estimate", "def estimat"),
            r"`estimate`, or both `expert_target` and `task_blind_target`",
        ),
        (('    name: ClassVar[str] = "stay"\n', ""), r"no class there has a `name`"),
        (("places: ClassVar[bool] = False", "placed = 1"), r"lacks the class variable `places`"),
        (('"stay"', '"Stay/1"'), r"name 'Stay/1' is not of lower-case"),
        (("frozen=True", "frozen=False"), r"no frozen dataclass"),
        (("ticks: int = 20", "ticks: int"), r"its defaults: ticks: .*required"),
        (("ticks: int = 20", "ticks: int = 0"), r"`ticks` is 0; a positive integer"),
        (('("left", "right")', '("left", "left")'), r"`tasks` is .* names"),
        (("terms: ClassVar[tuple] = ()", "term = ()"), r"lacks `terms`"),
        (("terms: ClassVar[tuple] = ()", "terms = (1,)"), r"`terms` is \(1,\); a tuple of Obser"),
        (
            ("    ticks: int", "    signals = (1,)\n    ticks: int"),
            r"`signals` is \(1,\); a tuple",
        ),
        *(
            (
                ("    ticks: int", f"    term_sizes = {sizes}\n    ticks: int"),
                r"`term_sizes` is .*; a mapping from terms in `requires` to their numbers of elem",
            )
            for sizes in ("3", "{'unheard': 3}", "{'position': 0}", "{'position': 'two'}")
        ),
        *(
            (
                ("terms: ClassVar[tuple] = ()", f"terms = property(lambda self: {wrong})"),
                message,
            )
            for wrong, message in (
                ("1 / 0", "`terms`: ZeroDivisionError: division by zero"),
                ("self.nothing", "`terms`: .* no attribute 'nothing'"),
                ("np.zeros(1, bad=2)", "`terms`: TypeError: "),
                ("__import__('sim.interface').interface.RosField(topic=1)", "`terms`: .*topic"),
            )
        ),
        (("recommended: ClassVar[dict] = {", "recommended = 1 or {"), r"`recommended` is no map"),
        (
            ('"stay"', '"rooms"'),
            r"'rooms', and so is sim.tasks.rooms:Rooms of package mlsh",
        ),
    ],
)
def test_a_bad_file_is_one_line_that_names_what_is_wrong(tmp_path, change, message):
    path = write_family(tmp_path / "stay.py", change)
    with pytest.raises(UserError, match=message) as said:
        use_family(str(path))
    assert str(path) in str(said.value)
    assert not registry._LOADED


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nowhere/stay.py", r"no file '.*nowhere/stay.py'"),
        ("nobody.tasks:Stay", r"nobody.tasks does not import: ModuleNotFoundError"),
        ("sim.tasks.rooms:Roms", r"no class 'Roms' there. Classes: Rooms"),
        ("sim.tasks.rooms:", r"package.module:Class, FILE.py or FILE.py:Class is expected"),
        ("../rooms:Rooms", r"package.module:Class, FILE.py or FILE.py:Class is expected"),
        ("stay", r"^no task family 'stay'.* Valid: .*; or name its class: package.module:Class"),
    ],
)
def test_a_source_that_leads_nowhere(text, message):
    with pytest.raises(UserError, match=message):
        use_family(text)


def test_two_families_in_a_file_want_to_be_told_apart(tmp_path):
    path = write_family(tmp_path / "stay.py")
    path.write_text(f'{path.read_text()}\n\nclass Go(Stay):\n    name: ClassVar[str] = "go"\n')
    with pytest.raises(UserError, match=r"say which class, as FILE.py:Class; there are Stay, Go"):
        use_family(str(path))
    assert use_family(f"{path}:Go") == "go"


def test_two_of_one_name_are_both_named(site, tmp_path):
    for package in ("theirs", "theirs2"):
        write_package(site, package, {f"{FAMILY} go": f"{package}.tasks:Go"})
    one, two = (write_family(tmp_path / name / "stay.py") for name in ("one", "two"))
    use_family(str(one))
    with pytest.raises(UserError, match=rf"{two}.* called 'stay', and so is {one}:Stay"):
        use_family(str(two))
    with pytest.raises(UserError, match=r"'go' is two: theirs2?.tasks:Go of package theirs"):
        family_class("go")
    own = write_family(tmp_path / "go.py", ('"stay"', '"go"'))
    with pytest.raises(UserError, match=r"called 'go', and so is theirs2?.tasks:Go of package"):
        use_family(str(own))


def test_an_installed_family_does_not_take_the_name_of_a_shipped_one(site):
    write_package(site, "theirs", {f"{FAMILY} rooms": "theirs.tasks:Rooms"})
    with pytest.raises(UserError, match=r"'rooms' is two: sim.tasks.*mlsh_ros and theirs.tasks"):
        make_family("rooms")
    make_family("ring_bandits")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("theirs.tasks:Stay", r"^task family 'go': theirs.tasks:Stay of package .*itself 'stay'"),
        ("theirs.nothing:Stay", r"'go': theirs.nothing:Stay of package theirs does not import"),
        ("theirs.tasks:Nobody", r"'go': .*does not import: AttributeError"),
        ("theirs.tasks:np", r"'go': theirs.tasks:np of package theirs is no class"),
    ],
)
def test_an_entry_point_that_does_not_load(site, value, message):
    write_package(site, "theirs", {f"{FAMILY} go": value})
    write_family(site / "theirs" / "tasks.py")
    with pytest.raises(UserError, match=message):
        make_family("go")


def test_a_class_of_this_process_is_added_once(tmp_path):
    cls = family_class(use_family(str(write_family(tmp_path / "stay.py"))))
    assert add_family(cls) == "stay"
    copy = type("Copy", (cls,), {})
    with pytest.raises(UserError, match=r"'stay': .* has that name"):
        add_family(copy)


# Robots ---------------------------------------------------------------------------------------


def test_a_robot_of_an_installed_package_is_had_by_name_and_nothing_is_imported(site):
    write_package(site, "theirs", {f"{ROBOT} omnibus": "theirs.data.omnibus"})
    write_robot(site / "theirs" / "data" / "omnibus", "omnibus")
    (site / "theirs" / "__init__.py").write_text("raise SystemExit('imported')\n")
    assert robot_file.robot_names()[-1] == "omnibus"
    assert load_robot("omnibus").name == "omnibus"
    assert "theirs" not in sys.modules
    with pytest.raises(UserError, match=r"no robot 'omnibu'. Did you mean 'omnibus'\? Valid: ant"):
        load_robot("omnibu")


def test_bad_robots_of_installed_packages(site):
    entry = {f"{ROBOT} omni": "theirs.omni", f"{ROBOT} lost": "theirs.lost"}
    write_package(site, "theirs", entry)
    with pytest.raises(UserError, match=r"robot 'omni' is two: .*robots/omni of .*theirs.omni of"):
        load_robot("omni")
    with pytest.raises(UserError, match=r"'lost': its entry point 'theirs.lost' leads to no"):
        load_robot("lost")
    load_robot("rover")
