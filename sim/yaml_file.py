"""YAML that a person wrote, read without trusting it: bounded, and no key twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from sim.errors import UserError

MAX_BYTES = 2**20
MAX_VALUES = 100_000


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping that a file holds.

    Raises:
        UserError: the file is missing, too large, no YAML, or no mapping.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path}: larger than {MAX_BYTES} bytes")
    try:
        data: Any = yaml.load(path.read_text("utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise UserError(f"{path}: not YAML: nested too deeply") from None
    _check_amount(data, path)
    if not isinstance(data, dict):
        raise UserError(f"{path}: a mapping is expected, got {type(data).__name__}")
    return data


def _check_amount(data: Any, path: Path) -> None:
    """Aliases of aliases make gigabytes, or no end at all, out of a few lines."""
    waiting, count = [data], 0
    while waiting:
        each = waiting.pop()
        count += 1
        if count > MAX_VALUES:
            raise UserError(f"{path}: more than {MAX_VALUES} values, with its aliases written out")
        if isinstance(each, dict):
            waiting.extend(each.values())
        elif isinstance(each, (list, tuple, set)):
            waiting.extend(each)


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice; plain YAML keeps the last one in silence."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        keys = [key.value for key, _ in node.value]
        if repeated := [key for key in keys if keys.count(key) > 1]:
            raise yaml.MarkedYAMLError(
                problem=f"key {repeated[0]!r} is given twice", problem_mark=node.start_mark
            )
        return node
