"""Checks the ROS side of a robot's interface: topics, message types, field paths and names."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

from mlsh_ros.messages.conversion import command_writers, topic_readers
from mlsh_ros.messages.message_types import has_package, message_type
from sim.errors import UserError
from sim.interface import Interface


def binding_errors(interface: Interface) -> list[str]:
    """Returns invalid topics, message types and paths; types only where ROS is installed."""
    found = []
    for term in interface.observation:
        where = f"observation term {term.name!r}"
        found += _check_term(where, term.ros.type, partial(topic_readers, [term]))
    for action in interface.action:
        where = f"action term {action.name!r}"
        found += _check_term(where, action.ros.type, partial(command_writers, [action]))
    if not found:  # what terms of one topic say of each other
        found += _check(partial(topic_readers, interface.observation))
        found += _check(partial(command_writers, interface.action))
    return found


def check_bindings(interface: Interface, file: str) -> None:
    """Refuse an interface that a file of bindings has made invalid; an empty name: no file.

    Raises:
        UserError: names the file and the first topic, type or field that is wrong.
    """
    if file and (wrong := binding_errors(interface)):
        raise UserError(f"{file}: {wrong[0]}")


def binding_warnings(interface: Interface, names: Collection[str]) -> list[str]:
    """Warns of numbers in brackets that may have been meant as indices.

    Args:
        interface: of the robot.
        names: of the joints and actuators of its model.
    """
    used = [(each.topic, each.names) for each in topic_readers(interface.observation)]
    used += [(each.topic, each.names) for each in command_writers(interface.action)]
    return [
        f"topic {topic}: {name!r} is looked up by name, because its array has names beside it; "
        "the model has no joint of that name"
        for topic, of_topic in used
        for name in of_topic
        if name.isdecimal() and name not in names
    ]


def _check_term(where: str, kind: str, make: Callable[[], object]) -> list[str]:
    if message_type(kind) is None and has_package(kind):
        package, _, name = kind.split("/")
        return [f"{where}: ros.type: package {package} has no message {name!r}"]
    return [f"{where}: ros.fields: {kind}: {text}" for text in _check(make)]


def _check(make: Callable[[], object]) -> list[str]:
    try:
        make()
    except UserError as error:
        return [str(error)]
    return []
