"""What comes from elsewhere is read within limits, refused in one line, and never acted on."""

import time

import pytest

from mlsh_ros.bringup.params import NODES
from mlsh_ros.messages import topics
from sim.errors import LONGEST, UserError, listed, short, unknown, visible
from sim.files.strict_yaml import MAX_BYTES, dump_yaml, parse_yaml
from sim.interface import names
from sim.randomization.schema import sim_params_from_dict


def test_no_robot_may_use_a_name_of_the_nodes():
    ours = [
        value
        for key, value in vars(topics).items()
        if key.isupper() and isinstance(value, str) and "/" in value
    ]
    ours = [name for name in ours if not name.count("/msg/")]
    assert set(names.NODES) == set(NODES)
    assert len(ours) >= 8
    for topic in (*ours, "clock", "estop"):
        bare = topic.lstrip("/")
        assert bare in names.OWNED or bare.partition("/")[0] in names.NODES, topic


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("omni\nall is well", r"omni\nall is well"),
        ("\x1b[31mred\x9b0m", r"\x1b[31mred\x9b0m"),
        ("a\u202eb\ufeff\u2028", r"a\u202eb\ufeff\u2028"),
        ("\ud800", r"\ud800"),
        ("N m, é, 北, ±", "N m, é, 北, ±"),
    ],
)
def test_an_error_is_one_line_of_what_can_be_seen(text, shown):
    assert visible(text) == shown
    assert str(UserError(text)) == shown


def test_no_error_is_longer_than_a_screen_whatever_stands_in_it():
    said = str(UserError(f"robot.yaml: {'x' * 10**6}: is no name. Valid: a, b"))
    assert len(said) <= LONGEST
    assert said.startswith("robot.yaml: xxx")
    assert said.endswith("xxx: is no name. Valid: a, b")
    path = "/" + "p" * 500
    assert path in str(UserError(f"{path}: no such file"))  # a long path is told whole


def test_a_long_value_does_not_make_a_long_error():
    assert len(short(["x" * 50] * 50)) == 80
    assert len(str(unknown("robot", "a" * 10**6, ["b" * 10**6] * 500))) < 450
    assert listed(["one", "two"]) == "one, two"
    assert listed(["a" * 200, "b" * 200, "c"]) == "a" * 200 + ", and 2 more"
    assert listed(["a" * 200, "b" * 200]) == "a" * 200 + ", and 1 more"
    assert listed(["a" * 200, "b" * 90]) == f"{'a' * 200}, {'b' * 90}"  # says more than "1 more"
    assert listed([]) == ""


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e6", 1e6),
        ("1e-4", 1e-4),
        ("+5E-3", 5e-3),
        (".5", 0.5),
        ("1.", 1.0),
        ("-.inf", float("-inf")),
        ("007", 7),
        ("-12", -12),
        ("null", None),
        ("", None),
        ("~", None),
        ("True", True),
        ("false", False),
        ("no", "no"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("2020-01-01", "2020-01-01"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("=", "="),
        ("'1e6'", "1e6"),
        ('"true"', "true"),
        ("!!str 12", "12"),
        ("{1: a, true: b, null: c}", {"1": "a", "true": "b", "null": "c"}),
        ("{<<: {a: 1}}", {"<<": {"a": 1}}),
        ("&a [1, *a]", UserError),
        ("[&a [1], *a]", [[1], [1]]),
        ("{a: 1, 'a': 2}", UserError),
        ("!!int 12", UserError),
        ("!x {}", UserError),
        ("a: 1\n---\nb: 2", UserError),
        ('"\\ud800"', UserError),
        ('{"\\ud800": 1}', UserError),
        ("'\\ud800'", "\\ud800"),
    ],
)
def test_yaml_has_plain_values_only(text, value):
    if value is UserError:
        with pytest.raises(UserError, match=r"^here: not YAML: "):
            parse_yaml(text, "here")
        return
    read = parse_yaml(text, "here")
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\nb: 3", "key 'b' is given twice in line 3, column 1: b: 3 ^"),
        ("a: [1", "while parsing a flow sequence in line 1, column 4: "),
    ],
)
def test_what_is_no_yaml_says_in_which_line(text, said):
    with pytest.raises(UserError) as raised:
        parse_yaml(text, "here")
    assert str(raised.value).startswith(f"here: not YAML: {said}")
    assert "<unicode string>" not in str(raised.value)


@pytest.mark.parametrize(
    "value", ["1e6", "1e-4", "12", "no", "1_000", "2020-01-01", "", "~", 1e-5, 1e22, True, "a: b"]
)
def test_yaml_that_was_written_is_read_as_it_was(value):
    read = parse_yaml(dump_yaml({"a": [value]}), "here")["a"][0]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (10**400, "neither a number nor"),
        (1e300, "beyond"),
        ([0, 1e300], "beyond"),
        ("1.2", "neither a number nor"),
        (True, "neither a number nor"),
        ("x" * 1000, "neither a number nor"),
    ],
)
def test_a_sim_params_has_numbers_within_bounds(value, said):
    with pytest.raises(UserError, match=said) as info:
        sim_params_from_dict({"physics": {"mass_factor": value}}, "here")
    assert len(str(info.value)) < 300


BOMBS = {
    "keys": b"".join(b"k%d: 1\n" % i for i in range(60_000)),
    "one key over and over": b"a: 1\n" * 50_000,
    "brackets": b"[" * MAX_BYTES,
    "braces": b"{" * MAX_BYTES,
    "a deep mapping": b"".join(b" " * i + b"a:\n" for i in range(700)),
    "dashes": b"- " * 130_000,
    "question marks": b"? " * 130_000,
    "anchors": b"".join(b"- &a%d 1\n" % i for i in range(15_000)),
    "merged": b"a: &a {x: 1}\n"
    + b"".join(b"%c: &%c {<<: [%s]}\n" % (i, i, b"*%c," % (i - 1) * 9) for i in b"bcdefghij"),
    "digits": b"1" * MAX_BYTES,
    "hexadecimal": b"0x" + b"f" * (MAX_BYTES - 2),
    "a long fraction": b"0." + b"1" * (MAX_BYTES - 2),
    "blank lines": b"\n" * MAX_BYTES,
    "a long word": b"a" * MAX_BYTES,
    "escapes": b'"' + b"\\n" * 130_000 + b'"',
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_no_yaml_within_the_size_takes_long(text):
    began, said = time.process_time(), ""
    try:
        parse_yaml(text[:MAX_BYTES], "here")
    except UserError as error:
        said = str(error)
    assert time.process_time() - began < 2
    assert len(said) < 300
