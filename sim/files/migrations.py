"""Names in files of an earlier schema, and the names that replace them in this one.

`CHANGES` is the only table of them: the refusal of an old file, `mlsh migrate` and the test of the
CHANGELOG read it. A YAML file is edited by key, so that its comments stay.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from sim.errors import UserError, listed, short
from sim.files.strict_yaml import compose, parse_yaml

SCHEMA: Final = 2  # of every kind of file in `CHANGES`
OLD_SCHEMA = 1
Where = tuple[str, ...]  # keys from the top of a file; `*` stands for any key or index


@dataclass(frozen=True)
class KeyChange:
    """A key that has another name."""

    where: Where  # of the key, its old name last
    new: str


@dataclass(frozen=True)
class ValueChange:
    """A text as a value that has another name."""

    where: Where  # of the key
    old: str
    new: str


Change = KeyChange | ValueChange


def _in(section: str, changes: tuple[Change, ...]) -> tuple[Change, ...]:
    """The changes of what stands in a section of another file."""
    above = tuple(section.split("."))
    return tuple(
        KeyChange(above + each.where, each.new)
        if isinstance(each, KeyChange)
        else ValueChange(above + each.where, each.old, each.new)
        for each in changes
    )


def _key(path: str, new: str) -> KeyChange:
    return KeyChange(tuple(path.split(".")), new)


def _value(path: str, old: str, new: str) -> ValueChange:
    return ValueChange(tuple(path.split(".")), old, new)


ROBOT: tuple[Change, ...] = (
    _key("observation.*.infinite", "inf_values"),
    _key("observation.*.observed", "policy_input"),
    _key("observation.*.ros.constants", "required_values"),
    _key("action.*.ros.constants", "required_values"),
    _key("action.*.blend", "smoothing_time"),
    _key("action.*.safe", "safe_command"),
    _key("action.*.tracking.time", "timeout"),
    _value("observation.*.derive", "axes", "rotation_6d"),
    _value("observation.*.derive", "up", "gravity_up"),
)
TRAINING: tuple[Change, ...] = (
    _key("randomise", "domain_randomization"),
    _key("reality", "sim_params"),
    _key("mlsh.probe_rate", "probe_ema"),
    _key("mlsh.probe_limit", "probe_logit_clip"),
    _key("mlsh.reseed_below", "reset_skill_below"),
    _key("mlsh.stray", "random_skill_fraction"),
    _key("mlsh.commitment", "duration_jitter"),
    _key("mlsh.information", "mutual_information_coef"),
    _key("network.normalise_observations", "normalize_observations"),
    _value("mlsh.probe", "plain", "absolute"),
    _value("mlsh.probe", "relative", "centered"),
    _value("mlsh.master_advantage", "centred", "centered"),
)
CONFIG, SIM_PARAMS, MANIFEST = "config.yaml", "sim parameters", "manifest.json"
CHANGES: dict[str, tuple[Change, ...]] = {
    "robot.yaml": ROBOT,
    SIM_PARAMS: (),
    CONFIG: TRAINING,
    MANIFEST: (
        *_in("interface", ROBOT),
        *_in("provenance.config", TRAINING),
        *_in("masters.*.provenance.config", TRAINING),
        _key("masters.*.score.collapsed", "task_blind"),
    ),
}
FILES = {"realities": "sim_params", "randomise.yaml": "domain_randomization.yaml"}  # of a robot


def check_schema(data: Mapping[str, Any], kind: str, file: object, migrate: Path) -> None:
    """Refuse a file of another schema, or with names of an earlier one.

    Args:
        data: of the file.
        kind: of the file, a key of `CHANGES`.
        file: what it is called in an error.
        migrate: what `mlsh migrate` would be given.

    Raises:
        UserError: names the keys that have another name, and the command that renames them.
    """
    schema = data.get("schema")
    if is_earlier(data, kind):
        names = earlier_names(data, kind)
        if schema == OLD_SCHEMA:
            names = f"schema {OLD_SCHEMA}, {SCHEMA} is expected: {names or _all_names(kind)}"
        raise UserError(
            f"{file}: {names}. To rename them: mlsh migrate {shlex.quote(str(migrate))}"
        )
    check_number(schema, file, in_json=kind == MANIFEST)


def check_number(schema: object, file: object, *, in_json: bool = False) -> None:
    """Refuse a schema that is not the one of this version.

    Args:
        schema: as in the file; None: it has none.
        file: what it is called in an error.
        in_json: False: it is YAML, where the schema is on a line of its own.

    Raises:
        UserError: names the one that is expected.
    """
    if schema is None:
        where = (
            f"{SCHEMA} is expected" if in_json else f"the first line has to be schema: {SCHEMA}"
        )
        raise UserError(f"{file}: schema is missing; {where}")
    if type(schema) is not int or schema != SCHEMA:
        raise UserError(f"{file}: schema {short(schema)} is not known. Valid: {SCHEMA}")


def is_earlier(data: Mapping[str, Any], kind: str) -> bool:
    """True if a file has the earlier schema or, whatever it states, names of it."""
    schema = data.get("schema")
    if type(schema) is not int:  # true is 1 in Python
        return False
    return schema == OLD_SCHEMA or (schema == SCHEMA and bool(earlier_names(data, kind)))


def earlier_names(data: Any, kind: str) -> str:
    """Lists the names in a file that have another one now, as an error says it; else empty."""
    names = dict(_earlier(data, CHANGES[kind]))
    return _listed(names) if names else ""


def _all_names(kind: str) -> str:
    """All that `earlier_names` may say of a kind of file; if that is nothing, renamed folders."""
    names = {_old(each): each.new for each in CHANGES[kind]}
    return _listed(names or FILES)


def _listed(names: Mapping[str, str]) -> str:
    return listed((f"{old} is {new} now" for old, new in names.items()), most=700)


def _old(change: Change) -> str:
    last = change.where[-1]
    return last if isinstance(change, KeyChange) else f"{last}: {change.old}"


def renamed_keys(kind: str) -> dict[str, str]:
    """Keys of a kind of file by their earlier names, both with what leads to them."""
    changes = (each for each in CHANGES[kind] if isinstance(each, KeyChange))
    return {".".join(each.where): ".".join((*each.where[:-1], each.new)) for each in changes}


def _earlier(
    data: Any, changes: tuple[Change, ...], where: Where = ()
) -> Iterator[tuple[str, str]]:
    """Yields each earlier name, and the present one."""
    if not (changes := _within(changes, where)):
        return
    if isinstance(data, list):
        for i, each in enumerate(data):
            yield from _earlier(each, changes, (*where, str(i)))
    elif isinstance(data, Mapping):
        renamed = {
            each.where[-1]: each.new
            for each in changes
            if isinstance(each, KeyChange) and len(each.where) == len(where) + 1
        }
        for key, value in data.items():
            if key in renamed:
                yield key, renamed[key]
            yield from _earlier(value, changes, (*where, key))
    elif isinstance(data, str) and (new := _new_value(data, where, changes)) != data:
        yield f"{where[-1]}: {data}", new


def rename(data: Any, changes: tuple[Change, ...], file: object, where: Where = ()) -> Any:
    """Plain data with the new names, its order kept.

    Args:
        data: of the file.
        changes: of this kind of file.
        file: what it is called in an error.
        where: keys and indices that lead to `data`.

    Raises:
        UserError: a mapping has a key under both names.
    """
    if isinstance(data, list):
        return [rename(each, changes, file, (*where, str(i))) for i, each in enumerate(data)]
    if not isinstance(data, dict):
        return _new_value(data, where, changes)
    result: dict[str, Any] = {}
    for key, value in data.items():
        new = _new_key((*where, key), changes)
        if new != key and new in data:
            place = ".".join((*where, key))
            raise UserError(f"{file}: {place} is called {new} now, and both are there; leave one")
        result[new] = rename(value, changes, file, (*where, key))
    return result


def rename_text(text: str, kind: str, file: object) -> str:
    """A YAML text of the old schema with the new names; everything else stays as it is.

    Args:
        text: of the file.
        kind: of the file, a key of `CHANGES`.
        file: what it is called in an error.

    Raises:
        UserError: it is no YAML, or its names cannot be changed one by one; what the new text
            holds is compared with what the old one held.
    """
    changes = CHANGES[kind]
    old = parse_yaml(text, file)
    expected = rename(old, changes, file) | {"schema": SCHEMA}
    spots = set(_spots(compose(text, file), changes))
    if "schema" not in old:
        spots.add((0, 0, f"schema: {SCHEMA}\n"))
    for start, end, new in sorted(spots, reverse=True):
        text = text[:start] + new + text[end:]
    if parse_yaml(text, file) != expected:
        raise UserError(
            f"{file}: its names cannot be changed one by one, because an alias stands for parts "
            "with different keys; write them out"
        )
    return text


def undone(changes: tuple[Change, ...]) -> tuple[Change, ...]:
    """The same changes the other way, from the new names to the old ones."""
    return tuple(
        KeyChange((*each.where[:-1], each.new), each.where[-1])
        if isinstance(each, KeyChange)
        else ValueChange(each.where, each.new, each.old)
        for each in changes
    )


def _spots(
    node: yaml.Node | None, changes: tuple[Change, ...], where: Where = ()
) -> Iterator[Any]:
    """Yields names to replace: begin and end in the text, and the new name."""
    if isinstance(node, yaml.SequenceNode):
        for i, each in enumerate(node.value):
            yield from _spots(each, changes, (*where, str(i)))
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            new = _new_key((*where, key.value), changes)
            if new != key.value:
                yield key.start_mark.index, key.end_mark.index, new
            yield from _spots(value, changes, (*where, key.value))
    elif isinstance(node, yaml.ScalarNode):
        new = str(SCHEMA) if where == ("schema",) else _new_value(node.value, where, changes)
        if new != node.value:
            yield node.start_mark.index, node.end_mark.index, new


def _new_key(where: Where, changes: tuple[Change, ...]) -> str:
    for each in changes:
        if isinstance(each, KeyChange) and _matches(where, each.where):
            return each.new
    return where[-1]


def _new_value(value: Any, where: Where, changes: tuple[Change, ...]) -> Any:
    for each in changes:
        if isinstance(each, ValueChange) and value == each.old and _matches(where, each.where):
            return each.new
    return value


def _within(changes: tuple[Change, ...], where: Where) -> tuple[Change, ...]:
    """The changes that apply at a place or below it, of those that apply in what contains it."""
    last = len(where) - 1
    return tuple(
        each
        for each in changes
        if not where or (len(each.where) > last and each.where[last] in ("*", where[-1]))
    )


def _matches(where: Where, pattern: Where) -> bool:
    return len(where) == len(pattern) and all(
        one in ("*", other) for one, other in zip(pattern, where, strict=True)
    )
