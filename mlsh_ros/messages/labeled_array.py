"""Named numbers in a std_msgs/Float64MultiArray: the label names every element.

Standard messages are used so that every ROS tool can display them; float64 represents float32 and
tick numbers exactly.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlsh_ros.messages.conversion import LARGEST, MessageError

LARGEST_COUNT = 2.0**53  # from here on not every whole number is a float64


@dataclass(frozen=True)
class Layout:
    """Names of a message's elements: single numbers first, then whole vectors."""

    scalars: tuple[str, ...]
    vectors: tuple[tuple[str, tuple[str, ...]], ...] = ()
    fractions: tuple[str, ...] = ()  # scalars that need not be whole numbers

    @cached_property
    def names(self) -> tuple[str, ...]:
        """One name per element."""
        return self.scalars + tuple(f"{v}.{n}" for v, names in self.vectors for n in names)

    @cached_property
    def label(self) -> str:
        """Text of `layout.dim[0].label`."""
        return ",".join(self.names)

    @cached_property
    def size(self) -> int:
        """Number of elements."""
        return len(self.names)

    def pack(self, *values: float, vectors: Sequence[NDArray[Any]] = ()) -> array[float]:
        """Returns the numbers in the order of `names`."""
        data = array("d", values)
        for vector in vectors:
            data.extend(vector.tolist())
        if len(data) != self.size:
            raise ValueError(f"{len(data)} values for {self.size} names")
        return data

    def read(
        self, message: Any, topic: str = ""
    ) -> tuple[dict[str, float], dict[str, NDArray[np.float64]]]:
        """`unpack` a message whose label must contain these names.

        Args:
            message: a Float64MultiArray.
            topic: named in errors.

        Raises:
            MessageError: it speaks of something else, such as another bundle's observation.
        """
        dims = message.layout.dim
        try:
            if (label := dims[0].label if dims else "") != self.label:
                raise MessageError(self.unlike(label))
            return self.unpack(message.data)
        except MessageError as error:
            raise MessageError(f"{topic}: {error}" if topic else str(error)) from None

    def unlike(self, label: str) -> str:
        """Describes the difference of a label from the names of this layout."""
        told, own = label.split(",") if label else [], self.names
        for place, (one, other) in enumerate(zip_longest(told, own, fillvalue="none")):
            if one != other:
                which = f"its element {place} is {one[:60]!r}, not {other!r}"
                return f"{which}: of another robot or bundle"
        return f"label {label[:60]!r} is not one of {len(own)} names"

    def unpack(
        self, data: Sequence[float] | NDArray[np.float64]
    ) -> tuple[dict[str, float], dict[str, NDArray[np.float64]]]:
        """The inverse of `pack`: scalars and vectors by name.

        Raises:
            MessageError: another number of elements, one that is no finite float32, or a fraction
                where something is counted.
        """
        if len(data) != self.size:
            raise MessageError(f"{len(data)} elements, {self.size} expected")
        odd = ~(np.abs(data) <= LARGEST)  # nan too
        if odd.any():
            raise MessageError(f"not a finite float32: {', '.join(np.array(self.names)[odd])}")
        scalars = dict(zip(self.scalars, data, strict=False))
        counts = {n: v for n, v in scalars.items() if n not in self.fractions}
        if wrong := [n for n, v in counts.items() if v % 1 or abs(v) > LARGEST_COUNT]:
            raise MessageError(f"not a whole number up to 2^53: {', '.join(wrong)}")
        vectors, start = {}, len(self.scalars)
        for name, elements in self.vectors:
            vectors[name] = np.array(data[start : start + len(elements)], np.float64)
            start += len(elements)
        return scalars, vectors


def request_layout(observation_names: tuple[str, ...]) -> Layout:
    """Layout of skill_node's request: macro step, observation, bundle of the master."""
    return Layout(("session", "macro", "tick", "bundle"), (("observation", observation_names),))


def response_layout(skills: tuple[str, ...]) -> Layout:
    """Layout of master_node's response: the selected skill."""
    return Layout(("session", "macro", "tick", "skill"), (("logits", skills),))


def trace_layout(observation_names: tuple[str, ...], action_names: tuple[str, ...]) -> Layout:
    """Layout of skill_node's record of each tick; times in seconds."""
    # late: 1 if the decision was; missed: ticks left out just before this one
    scalars = ("session", "tick", "skill", "late", "missed", "saturated", "lateness", "compute")
    return Layout(
        scalars,
        (
            ("observation", observation_names),
            ("action", action_names),
            ("command", action_names),
        ),
        fractions=("lateness", "compute"),
    )


def applied_layout(action_names: tuple[str, ...]) -> Layout:
    """Layout of sim_node's record of a command, published when a physics step first applies it.

    number: of the commands since the node was configured, from 0; step: number of this physics
    step, after each of which sensors are sent; time: stamp of the sensors that show its end, s.
    """
    return Layout(("number", "step", "time"), (("command", action_names),), fractions=("time",))


# Result of a tick, published by sim_node after every tick.
OUTCOME = Layout(("episode", "tick", "reward", "success", "done"), fractions=("reward",))
