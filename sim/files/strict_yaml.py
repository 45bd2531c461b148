"""Parses untrusted YAML with limits on size and depth; duplicate keys are errors.

Values are those of the core schema of YAML 1.2: null, true and false, integers, floats, text,
lists and mappings. `no`, `12:30`, `2020-01-01` and `1_000` are text, `0755` is decimal, 1e6 and
1e-4 are numbers. Keys are text.
"""

from __future__ import annotations

import os
import re
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from sim.errors import UserError, short, visible
from sim.files.strict_json import MAX_DEPTH, MAX_DIGITS

MAX_BYTES = 2**18
MAX_VALUES = 10_000
MAX_TEXT = 60  # characters of a number

_NULL = ("", "~", "null", "Null", "NULL")
_TRUE, _FALSE = ("true", "True", "TRUE"), ("false", "False", "FALSE")
_INT = re.compile(r"[-+]?[0-9]+", re.ASCII)
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    re.ASCII,
)
_TAG, _PLAIN = "tag:yaml.org,2002:", "plain"


def read_mapping(path: Path, where: object = None) -> dict[str, Any]:
    """Returns the mapping in a YAML file.

    Args:
        path: the file.
        where: name of the file in errors; by default its path.

    Raises:
        UserError: the file is missing, too large, not YAML, or not a mapping.
    """
    where = path if where is None else where
    data = parse_yaml(_read(path, where), where)
    if not isinstance(data, dict):
        raise UserError(f"{where}: a mapping is expected, got {type(data).__name__}")
    return data


def parse_yaml(text: bytes | str, where: object) -> Any:
    """Returns the value of a YAML text; of the same text again, from memory.

    Raises:
        UserError: it is no YAML or beyond the limits; one line that begins with `where`.
    """
    return deepcopy(_parsed(text, str(where)))


@lru_cache(maxsize=16)  # a command reads the files of its robot several times
def _parsed(text: bytes | str, where: str) -> Any:
    node = compose(text, where)
    try:
        return _Values().of(node)
    except (yaml.YAMLError, UnicodeError) as error:
        raise _refused(where, error) from None
    except RecursionError:
        raise UserError(f"{where}: not YAML: nested too deeply") from None


def compose(text: bytes | str, where: object) -> yaml.Node | None:
    """The nodes of a text, which know where in it they stand.

    Raises:
        UserError: it is no YAML or beyond the limits; one line that begins with `where`.
    """
    try:
        loader = _Loader(text.decode() if isinstance(text, bytes) else text)
        return loader.get_single_node()
    except (yaml.YAMLError, UnicodeError) as error:
        raise _refused(where, error) from None
    except RecursionError:
        raise UserError(f"{where}: not YAML: nested too deeply") from None


def whole_number(text: str) -> int:
    """Parse a whole number as people write it, also on a command line: 1000000 or 1e6.

    Raises:
        ValueError: it is none.
    """
    if len(text) <= MAX_DIGITS and _INT.fullmatch(text):
        return int(text)
    value = float(text) if len(text) <= MAX_TEXT and _FLOAT.fullmatch(text) else 0.5
    if not value.is_integer() or abs(value) >= 2**53:  # beyond which a float64 has gaps
        raise ValueError(f"{short(text)} is not a whole number")
    return int(value)


def comment(text: str) -> str:
    """Returns a text as a comment of one line, whatever line ends a name in it has."""
    return f"# {visible(text)}"


def dump_yaml(data: Any) -> str:
    """Returns a YAML text that `parse_yaml` reads back as equal data."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False)
    return text


def _read(path: Path, where: object) -> bytes:
    if not os.path.exists(path):  # not Path's: it raises where a name is too long
        raise UserError(f"{where} does not exist")
    if not path.is_file():
        raise UserError(f"{where}: not a file")
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{where}: not readable ({error.strerror})") from None
    if len(data) > MAX_BYTES:
        raise UserError(f"{where}: larger than {MAX_BYTES} bytes")
    return data


class _Loader(yaml.SafeLoader):
    """YAML loader that stops when a limit is exceeded."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._count = self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._count += 1
        self._depth += 1
        if self._count > MAX_VALUES:
            raise yaml.YAMLError(f"more than {MAX_VALUES} values")
        if self._depth > MAX_DEPTH:
            raise yaml.YAMLError("nested too deeply")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        """Returns the tag of a value without an explicit tag."""
        if kind is yaml.ScalarNode:
            return _PLAIN if implicit[0] else f"{_TAG}str"  # the others are quoted
        return super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]


class _Values:
    """Converts nodes to values and limits their number: nested aliases can need gigabytes."""

    def __init__(self) -> None:
        self._count = self._depth = 0

    def of(self, node: Any) -> Any:
        self._count += 1
        self._depth += 1
        if self._count > MAX_VALUES:
            raise yaml.YAMLError(f"more than {MAX_VALUES} values, with its aliases written out")
        if self._depth > MAX_DEPTH:
            raise yaml.YAMLError("nested too deeply")
        value = self._value(node)
        self._depth -= 1
        return value

    def _value(self, node: Any) -> Any:
        kind = None if node is None else (type(node), node.tag.removeprefix(_TAG))
        if kind is None:  # an empty document
            return None
        if kind == (yaml.MappingNode, "map"):
            return self._mapping(node)
        if kind == (yaml.SequenceNode, "seq"):
            return [self.of(each) for each in node.value]
        if kind == (yaml.ScalarNode, "str"):
            return _written(node.value)
        if kind == (yaml.ScalarNode, _PLAIN):
            return _plain(node)
        raise _error(f"tag {short(kind[1])} is not accepted", node)

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _error("a key is a list or a mapping; text is expected", node)
            if key.value in data:
                raise _error(f"key {short(key.value)} is given twice", key)
            data[_written(key.value)] = self.of(value)
        return data


def _plain(node: yaml.ScalarNode) -> Any:
    text: str = node.value
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _INT.fullmatch(text):
        if len(text) > MAX_DIGITS:
            raise _error(f"{short(text, 30)} is longer than {MAX_DIGITS} digits", node)
        return int(text)
    if _FLOAT.fullmatch(text) and len(text) <= MAX_TEXT:
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def _written(text: str) -> str:
    text.encode()  # half of a pair of characters cannot be written down again
    return text


def _refused(where: object, error: Exception) -> UserError:
    said = " ".join(str(error).split()).replace('in "<unicode string>", ', "in ")
    return UserError(f"{where}: not YAML: {said[:200]}")


def _error(problem: str, node: yaml.Node) -> yaml.YAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


class _Dumper(yaml.SafeDumper):
    """YAML dumper that quotes a text which this reader, unlike YAML 1.1, parses as a number."""


_Dumper.add_implicit_resolver(
    _TAG + "float", re.compile(f"({_FLOAT.pattern})$"), [*"-+.0123456789"]
)
