"""What comes from elsewhere is read within limits, refused in one line, and never acted on."""

import pytest

from mlsh_ros.core import topics
from mlsh_ros.params import NODES
from sim.errors import UserError, listed, short, unknown, visible
from sim.interface import names


def test_no_robot_may_use_a_name_of_the_nodes():
    ours = [value for key, value in vars(topics).items() if key.isupper() and "/" in str(value)]
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


def test_a_long_value_does_not_make_a_long_error():
    assert len(short(["x" * 50] * 50)) == 80
    assert len(str(unknown("robot", "a" * 10**6, ["b" * 10**6] * 500))) < 450
    assert listed(["one", "two"]) == "one, two"
    assert listed(["a" * 200, "b" * 200, "c"]) == "a" * 200 + ", and 2 more"
    assert listed([]) == ""
