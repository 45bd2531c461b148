"""The keys that a place in a file may have, by the schema that pydantic made of its class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter

Node = Mapping[str, Any]  # a part of a core schema


def key_names(adapter: TypeAdapter[Any], place: Iterable[int | str]) -> tuple[str, ...]:
    """Returns the valid keys of what stands at a place; empty if it is no mapping of known keys.

    Args:
        adapter: of the class of the whole.
        place: keys and indices that lead there, as in a report of pydantic; the label of one of
            several alternatives may be among them.
    """
    schema: Node = adapter.core_schema  # type: ignore[assignment]  # a union of typed mappings
    known: dict[str, Node] = {}
    nodes = [schema]
    for part in place:
        # What does not take it is a label, and stays as it is.
        nodes = [inner for node in nodes for inner in _at(node, part, known)] or nodes
    found = (node for each in nodes for node in _bare(each, known))
    fields = (field for node in found if node["type"] == "dataclass-args" for field in _keys(node))
    return tuple(dict.fromkeys(fields))


def _keys(node: Node) -> list[str]:
    return [field["name"] for field in node["fields"]]


def _at(node: Node, part: int | str, known: dict[str, Node]) -> Iterator[Node]:
    """Yields what stands under a key or index of a part of the schema."""
    for bare in _bare(node, known):
        kind = bare["type"]
        if kind == "dataclass-args":
            yield from (f["schema"] for f in bare["fields"] if f["name"] == part)
        elif kind == "dict":
            yield bare["values_schema"]
        elif kind == "list":
            yield bare["items_schema"]
        elif kind == "tuple":
            yield from bare["items_schema"]


def _bare(node: Node, known: dict[str, Node]) -> Iterator[Node]:
    """Yields what is in the wrappers of a part of the schema: each of its alternatives."""
    kind = node["type"]
    if kind == "definitions":
        known.update((each["ref"], each) for each in node["definitions"])
    if kind == "definition-ref":
        yield from _bare(known[node["schema_ref"]], known)
    elif kind == "union":
        for choice in node["choices"]:
            yield from _bare(choice[0] if isinstance(choice, tuple) else choice, known)
    elif kind == "tagged-union":
        for choice in node["choices"].values():
            yield from _bare(choice, known)
    elif kind in ("lax-or-strict", "json-or-python"):
        yield from _bare(node["lax_schema" if kind == "lax-or-strict" else "python_schema"], known)
    elif kind == "chain":
        yield from _bare(node["steps"][-1], known)
    elif "schema" in node:
        yield from _bare(node["schema"], known)
    else:
        yield node
