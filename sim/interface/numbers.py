"""What a number in robot.yaml may be, and what several of its keys are checked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, ConfigDict, Field

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, str_min_length=1)


def _non_zero(value: float) -> float:
    if value == 0:
        raise ValueError("0 would make the term dead; leave it out instead")
    return value


Floats = NDArray[np.float64]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
NonZero = Annotated[float, AfterValidator(_non_zero)]
Range = tuple[float, float]


def check_size(term: str, key: str, names: Sequence[object], size: int) -> None:
    """Refuse a list that is not as long as its term."""
    if len(names) != size:
        raise ValueError(f"term {term!r}: {key} has {len(names)} elements, size is {size}")


def check_unique(kind: str, names: Sequence[str]) -> None:
    """Refuse a name that is given twice."""
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{kind} {repeated[0]!r} is given twice")


def check_range(term: str, key: str, bounds: Range) -> None:
    """Refuse a range without anything in it."""
    if not bounds[0] < bounds[1]:
        raise ValueError(f"term {term!r}: {key} {bounds} is empty, the first must be the lower")
