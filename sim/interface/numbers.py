"""What a number in robot.yaml may be, and what several of its keys are checked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, str_min_length=1)
# No quantity of a robot is larger, and nothing that is computed from two such overflows.
LARGEST, SMALLEST = 1e9, 1e-9
MAX_SIZE = 10_000  # elements of a term


def _non_zero(value: float) -> float:
    if value == 0:
        raise ValueError("0 would make the term dead; leave it out instead")
    if abs(value) < SMALLEST:
        raise ValueError(f"{value} is too near 0 to divide by")
    return value


def _a_number(value: object) -> object:
    if isinstance(value, (bool, str)):
        raise ValueError(f"a number is expected, got {value!r}")
    return value


Floats = NDArray[np.float64]
Number = Annotated[
    float, BeforeValidator(_a_number), Field(ge=-LARGEST, le=LARGEST, allow_inf_nan=False)
]
Positive = Annotated[Number, Field(gt=0)]
NonNegative = Annotated[Number, Field(ge=0)]
NonZero = Annotated[Number, AfterValidator(_non_zero)]
Range = tuple[Number, Number]
Size = Annotated[int, BeforeValidator(_a_number), Field(gt=0, le=MAX_SIZE)]
Index = Annotated[int, BeforeValidator(_a_number), Field(ge=0, lt=MAX_SIZE)]


def check_size(term: str, key: str, names: Sequence[object], size: int) -> None:
    """Refuse a list that is not as long as its term."""
    if len(names) != size:
        raise ValueError(f"term {term!r}: {key} has {len(names)} elements, size is {size}")


def check_unique(kind: str, names: Sequence[str]) -> None:
    """Refuse a name that is given twice."""
    if repeated := sorted(name for name, count in Counter(names).items() if count > 1):
        raise ValueError(f"{kind} {repeated[0]!r} is given twice")


def check_range(term: str, key: str, bounds: Range) -> None:
    """Refuse a range without anything in it."""
    if not bounds[0] < bounds[1]:
        raise ValueError(f"term {term!r}: {key} {bounds} is empty, the first must be the lower")
