"""Types of the parameters of task families: what they are measured in, and their range.

The ranges contain every robot and every arena; a value outside is taken for a typing error.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field

from sim.interface import NonNegative, Positive


def _between(low: float, high: float, unit: str) -> AfterValidator:
    """Refuses a value outside of a range, with the range in the error."""

    def check(value: float) -> float:
        if not low <= value <= high:
            raise ValueError(f"{value:.6g}{unit} is outside of {low:.6g} .. {high:.6g}{unit}")
        return value

    return AfterValidator(check)


Natural = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(gt=0)]
Shown = Annotated[Count, _between(1, 100, "")]  # places that an observation contains
Length = Annotated[Positive, _between(1e-3, 1e3, " m")]
LengthOrZero = Annotated[NonNegative, _between(0, 1e3, " m")]
Scale = Annotated[Positive, _between(1e-2, 1e2, "")]  # factor of the lengths of an arena
Speed = Annotated[Positive, _between(1e-3, 1e2, " m/s")]
TurnRate = Annotated[Positive, _between(1e-3, 1e3, " rad/s")]
Seconds = Annotated[NonNegative, _between(0, 1e3, " s")]
Angle = Annotated[NonNegative, _between(0, 2 * np.pi, " rad")]
