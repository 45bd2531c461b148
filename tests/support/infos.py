"""The `info` of a vector environment as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def arrays_of(info: Mapping[str, Any]) -> list[np.ndarray]:
    """Copies of all values by name, one for each row of an array of objects."""
    arrays = []
    for name in sorted(info):
        value = info[name]
        if isinstance(value, Mapping):
            arrays += arrays_of(value)
        else:
            rows = value if value.dtype == object else [value]
            arrays += [np.array(row) for row in rows]
    return arrays
