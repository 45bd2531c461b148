"""Validators for the numbers in robot.yaml and for combinations of keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from sim.errors import ALL, EACH, short
from sim.interface.names import in_sight

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, str_min_length=1)
# No quantity of a robot is larger, and nothing that is computed from two such overflows.
LARGEST, SMALLEST = 1e9, 1e-9
MAX_SIZE = 10_000  # elements of a term
SHORTEST_STEP, MAX_SUBSTEPS = 1e-6, 100_000  # of physics: s, and in a tick


def _non_zero(value: float) -> float:
    if value == 0:
        raise ValueError("0 would make the term dead; leave it out instead")
    if abs(value) < SMALLEST:
        raise ValueError(f"{value} is too near 0 to divide by")
    return value


def _a_number(value: object) -> object:
    if isinstance(value, (bool, str)):
        raise ValueError(f"a number is expected, got {short(value)}")
    return value


def _no_flag(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"a number or a text is expected, got {value}")
    return value


def _within(value: float | str) -> float | str:
    if isinstance(value, str):
        return in_sight(value)
    if not abs(value) <= LARGEST:
        raise ValueError(f"{value} is beyond -{LARGEST:g} .. {LARGEST:g}")
    return value


Floats = NDArray[np.float64]
Number = Annotated[
    float, BeforeValidator(_a_number), Field(ge=-LARGEST, le=LARGEST, allow_inf_nan=False)
]
# An integer stays one.
Whole = Annotated[float | int, BeforeValidator(_a_number), AfterValidator(_within)]
# Of a task family's parameter: a number, or by name numbers and mappings of numbers.
_MAPPING = Discriminator(lambda value: EACH if isinstance(value, Mapping) else ALL)
_Named = Annotated[
    Annotated[Whole, Tag(ALL)] | Annotated[dict[str, Whole], Tag(EACH)],
    _MAPPING,
]
Setting = Annotated[
    Annotated[Whole, Tag(ALL)] | Annotated[dict[str, _Named], Tag(EACH)],
    _MAPPING,
]
Said = Annotated[float | str, BeforeValidator(_no_flag), AfterValidator(_within)]
Positive = Annotated[Number, Field(gt=0)]
NonNegative = Annotated[Number, Field(ge=0)]
NonZero = Annotated[Number, AfterValidator(_non_zero)]
Flag = Annotated[bool, Field(strict=True)]
Range = tuple[Number, Number]
Integer = Annotated[int, BeforeValidator(_a_number)]
Size = Annotated[Integer, Field(gt=0, le=MAX_SIZE)]
Index = Annotated[Integer, Field(ge=0, lt=MAX_SIZE)]
Tick = Annotated[Positive, Field(ge=1e-4, le=10)]  # s
Step = Annotated[Positive, Field(ge=SHORTEST_STEP, le=10)]  # s


# One value for all elements of a term, or a list with one for each -------------------------------


def _is_list(value: object) -> str:
    return EACH if isinstance(value, (list, tuple)) else ALL


def _holds_lists(value: object) -> str:
    first = value[0] if isinstance(value, (list, tuple)) and value else None
    return EACH if isinstance(first, (list, tuple)) else ALL


_LIST, _LISTS = Discriminator(_is_list), Discriminator(_holds_lists)
Numbers = Annotated[
    Annotated[Number, Tag(ALL)] | Annotated[tuple[Number, ...], Tag(EACH)],
    _LIST,
]
Positives = Annotated[
    Annotated[Positive, Tag(ALL)] | Annotated[tuple[Positive, ...], Tag(EACH)],
    _LIST,
]
NonNegatives = Annotated[
    Annotated[NonNegative, Tag(ALL)] | Annotated[tuple[NonNegative, ...], Tag(EACH)],
    _LIST,
]
NonZeros = Annotated[
    Annotated[NonZero, Tag(ALL)] | Annotated[tuple[NonZero, ...], Tag(EACH)],
    _LIST,
]
Flags = Annotated[
    Annotated[Flag, Tag(ALL)] | Annotated[tuple[Flag, ...], Tag(EACH)],
    _LIST,
]
Ranges = Annotated[
    Annotated[Range, Tag(ALL)] | Annotated[tuple[Range, ...], Tag(EACH)],
    _LISTS,
]


def spread(value: float | tuple[float, ...], size: int) -> Floats:
    """(size,) one number per element."""
    return np.full(size, value, np.float64)


def spread_range(bounds: Range | tuple[Range, ...], size: int) -> tuple[Floats, Floats]:
    """(size,) lowest and highest, per element."""
    low, high = np.broadcast_to(np.asarray(bounds, np.float64), (size, 2)).T.copy()
    return low, high


def check_size(term: str, key: str, names: Sequence[object], size: int) -> None:
    """Refuse a list whose length is not the size of its term."""
    if len(names) != size:
        raise ValueError(f"term {term!r}: {key} has {len(names)} elements, size is {size}")


def check_steps(control_dt: float, physics_dt: float) -> None:
    """Refuse a tick that is no whole number of physics steps, or that has too many."""
    ratio = control_dt / physics_dt
    if abs(ratio - round(ratio)) > 1e-9 or ratio < 1:
        raise ValueError(f"control_dt {control_dt} is not a multiple of physics_dt {physics_dt}")
    if ratio > MAX_SUBSTEPS:
        raise ValueError(
            f"control_dt {control_dt} has {ratio:,.0f} steps of physics_dt {physics_dt}, at most "
            f"{MAX_SUBSTEPS:,} are simulated in a tick"
        )


def check_unique(kind: str, names: Sequence[str]) -> None:
    """Refuse a name that is given twice."""
    if repeated := sorted(name for name, count in Counter(names).items() if count > 1):
        raise ValueError(f"{kind} {repeated[0]!r} is given twice")


def check_each(term: str, key: str, value: object, size: int) -> None:
    """Refuse a list per element whose length is not the size of its term."""
    if isinstance(value, tuple):
        check_size(term, key, value, size)


def check_range(term: str, key: str, bounds: Range) -> None:
    """Refuse an empty range."""
    if not bounds[0] < bounds[1]:
        raise ValueError(f"term {term!r}: {key} {bounds} is empty, the first must be the lower")


def check_ranges(term: str, key: str, bounds: Range | tuple[Range, ...], size: int) -> None:
    """Refuse an empty range, or a list of ranges whose length is not the size of its term."""
    each = ranges(bounds)
    if isinstance(bounds[0], tuple):
        check_size(term, key, each, size)
    for one in each:
        check_range(term, key, one)


ROUNDING = 1e-4  # of a range or its bounds: what people and vendors round away when they write it


def exceeds(inner: Range, outer: Range) -> bool:
    """True if a range reaches beyond another by more than rounding."""
    slack = ROUNDING * max(outer[1] - outer[0], abs(outer[0]), abs(outer[1]))
    return inner[0] < outer[0] - slack or inner[1] > outer[1] + slack


def ranges(bounds: Range | tuple[Range, ...]) -> tuple[Range, ...]:
    """Returns the ranges as a list; its length is one if all elements share the range."""
    return bounds if isinstance(bounds[0], tuple) else (bounds,)  # type: ignore[return-value]
